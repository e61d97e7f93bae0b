//! How long a single frame takes from one guest to another: kick written → frame visible in the receiver's used ring.
//!
//! usage: wakeup [ROUNDS]     (default 2000 for `cargo bench`; without `--bench`, a few, as a check)
//!
//! The worker is that of the switch, on a CPU of its own; this thread is both guests, on another, and looks at the used
//! ring without a pause. With one CPU nothing is pinned, and the figures are the scheduler's.
//!
//! Cases: *asleep*, a frame every 5 ms, so that the worker sleeps each time, with 2 and with 32 guests attached;
//! *spinning*, the next frame 10 µs after the last has arrived; *performance*, a frame every 5 ms to a worker that
//! never sleeps. The *floor* is a thread that blocks in epoll_wait(2) on an eventfd and stores a number when it wakes,
//! with no switch at all: what kernel, CPU and hypervisor take for a wake-up.
#![allow(missing_docs, reason = "a bench")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench")]

mod lab;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use lab::{FEATURES, RECEIVE, RING, TRANSMIT, fill_receive, fill_transmit, offer};
use labsw_dataplane::stats::{MirrorStats, PortStats};
use labsw_dataplane::vhost_user::VhostPort;
use labsw_dataplane::worker::{Output, Power, Shared, Snapshot};
use labsw_dataplane::workers::Workers;
use labsw_switch::fdb::Fdb;
use labsw_switch::mac::Mac;
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::vlan::Vid;
use labsw_switch::{MAX_MIRRORS, PortId};
use labsw_testkit::guest::Guest;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const SLEEP_GAP: Duration = Duration::from_millis(5);
const SPIN_GAP: Duration = Duration::from_micros(10);
/// A frame that takes longer is lost.
const LOST: Duration = Duration::from_secs(10);

/// Two CPUs that this process may use: the guests', the worker's.
fn cpus() -> Option<[usize; 2]> {
    let set = sched_getaffinity(None).unwrap();
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
    Some([cpus.next()?, cpus.next()?])
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

/// A worker with guests, of which the first two talk.
struct Lab {
    worker: Workers,
    guests: Vec<Guest>,
}

impl Lab {
    fn new(cpu: Option<usize>, power: Power, guests: u16) -> Lab {
        let shared = Shared {
            fdb: Arc::new(Fdb::new(1024, 300, 1)),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect(),
        };
        shared.fdb.add_static(Vid::DEFAULT, Mac::from_u64(0x0200_0000_0002), PortId(1)).unwrap();
        let rules = (0..guests).map(|port| (PortId(port), PortRules::default())).collect();
        let tables = Arc::new(Tables::build(rules, Vec::new()).unwrap());
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (events, _) = unbounded();
        let worker = Workers::spawn(&[cpu], power, &shared, &events, &waker).unwrap();
        let mut guests: Vec<Guest> = (0..guests).map(|_| Guest::new(FEATURES, RING)).collect();
        let (mut outputs, mut queues) = (Vec::new(), Vec::new());
        for guest in &mut guests {
            fill_receive(guest);
            fill_transmit(guest, 64);
            let VhostPort { tx, mut rx } = guest.port();
            outputs.push(Some(Output::new(Some(tx), Arc::new(PortStats::new(1)))));
            queues.push(rx.remove(0));
        }
        worker.links().set_snapshot(&Snapshot { tables, outputs: outputs.into() }).unwrap();
        for (id, rx) in (0..).zip(queues) {
            worker.links().add_queue(0, PortId(id), 0, Box::new(rx)).unwrap();
        }
        Lab { worker, guests }
    }

    /// Sends one frame and returns how long it took, and whether the worker had asked for a kick.
    fn frame(&self) -> (Duration, bool) {
        let [from, to, ..] = self.guests.as_slice() else { panic!("two guests") };
        offer(to, RECEIVE, 1);
        let before = to.used(RECEIVE, 2).load(Ordering::Relaxed);
        let begin = Instant::now();
        offer(from, TRANSMIT, 1);
        fence(Ordering::SeqCst);
        let new = from.avail(TRANSMIT, 2).load(Ordering::Relaxed);
        let event = from.used(TRANSMIT, 4 + 8 * usize::from(RING)).load(Ordering::Acquire);
        let kick = new.wrapping_sub(event) == 1;
        if kick {
            rustix::io::write(&from.rings[TRANSMIT].kick, &1u64.to_ne_bytes()).unwrap();
        }
        while to.used(RECEIVE, 2).load(Ordering::Acquire) == before {
            std::hint::spin_loop();
            assert!(begin.elapsed() < LOST, "a frame was lost");
        }
        (begin.elapsed(), kick)
    }

    fn measure(self, what: &str, rounds: usize, gap: Duration) {
        let mut kicks = 0;
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_| {
                pause(gap);
                let (time, kick) = self.frame();
                kicks += usize::from(kick);
                time
            })
            .collect();
        self.worker.stop();
        report(&format!("{what}, {} guests", self.guests.len()), &mut times, &format!("{kicks} kicks"));
    }
}

/// Long gaps leave the CPU to others, as a guest would; short ones would be too long then.
fn pause(gap: Duration) {
    if gap == SLEEP_GAP {
        return std::thread::sleep(gap);
    }
    let begin = Instant::now();
    while begin.elapsed() < gap {
        std::hint::spin_loop();
    }
}

fn report(what: &str, times: &mut [Duration], remark: &str) {
    times.sort_unstable();
    let at =
        |permille: usize| times.get((times.len() - 1) * permille / 1000).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    println!("{what:<28} {:>9.1} {:>9.1} {:>9.1}   {remark}", at(500), at(990), at(1000));
}

/// A thread woken by an eventfd.
fn floor(cpu: Option<usize>, rounds: usize) {
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let woken = AtomicU64::new(0);
    let mut times = Vec::with_capacity(rounds);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cpu.into_iter().for_each(pin);
            let set = epoll::create(epoll::CreateFlags::empty()).unwrap();
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&set, event.as_fd(), epoll::EventData::new_u64(0), flags).unwrap();
            for _ in 0..rounds {
                let mut events = Vec::with_capacity(1);
                epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None).unwrap();
                woken.fetch_add(1, Ordering::Release);
            }
        });
        for round in 0..rounds as u64 {
            pause(SLEEP_GAP);
            let begin = Instant::now();
            rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
            while woken.load(Ordering::Acquire) == round {
                std::hint::spin_loop();
                assert!(begin.elapsed() < LOST, "a wake-up was lost");
            }
            times.push(begin.elapsed());
        }
    });
    report("floor, asleep", &mut times, "eventfd and epoll alone");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = !arguments.iter().any(|argument| argument == "--bench");
    let wanted = arguments.iter().find_map(|argument| argument.parse().ok());
    let rounds: usize = wanted.unwrap_or(if check { 20 } else { 2000 });
    let cpus = cpus();
    match cpus {
        Some([guests, worker]) => {
            pin(guests);
            println!("guests on CPU {guests}, worker on CPU {worker}, {rounds} frames a case");
        }
        None => println!("one CPU only, {rounds} frames a case"),
    }
    let cpu = cpus.map(|[_, worker]| worker);
    println!("{:<28} {:>9} {:>9} {:>9}", "µs", "p50", "p99", "max");
    floor(cpu, rounds);
    Lab::new(cpu, Power::Adaptive, 2).measure("asleep", rounds, SLEEP_GAP);
    Lab::new(cpu, Power::Adaptive, 32).measure("asleep", rounds, SLEEP_GAP);
    Lab::new(cpu, Power::Adaptive, 2).measure("spinning", rounds, SPIN_GAP);
    Lab::new(cpu, Power::Performance, 2).measure("performance", rounds, SLEEP_GAP);
}
