//! The hand-over between the control thread and its workers under controlled schedules: the real handles, channels and
//! worker loops, and a scheduler that says at every send, look and sleep who runs next ([`crate::sync`]).
//!
//! `make models` plays them. A play that does not end (an answer or a wake-up that is lost) fails at [`MOST_STEPS`].
//! Half of the plays choose at random, half by priorities that change at three places (PCT), which finds what needs few
//! changes of turn at the right places. Seeds are fixed: every run plays the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use labsw_switch::PortId;
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::{PortRules, Tables};
use rustix::event::{EventfdFlags, eventfd};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

use super::*;
use crate::clock::NEVER;
use crate::frame::Burst;
use crate::port::{Fault, RxQueue, TxPort};
use crate::stats::{MirrorStats, PortDelta, PortStats};
use crate::sync::channel::Receiver;
use crate::sync::{pause, sleep, step};
use crate::worker::memory_port::{MemoryRx, MemoryTx, Wire, frame, memory_port};
use crate::worker::{Output, QueueTask, Snapshot};

/// Plays of each model and kind of scheduler.
const PLAYS: usize = 500;
/// The most choices of one play; the longest that ends needs a few hundred.
const MOST_STEPS: usize = 50_000;
/// A worker's turn needs more than the scheduler's usual stack.
const STACK_BYTES: usize = 1 << 20;
const SEED: u64 = 7;

fn play(model: impl Fn() + Send + Sync + 'static) {
    play_times(PLAYS, model);
}

fn play_times(plays: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let model = Arc::new(model);
    let random = Arc::clone(&model);
    Runner::new(RandomScheduler::new_from_seed(SEED, plays), config.clone()).run(move || random());
    Runner::new(PctScheduler::new_from_seed(SEED, 3, plays), config).run(move || model());
}

/// Workers, and the control thread's end of what they tell.
struct Lab {
    workers: Workers,
    told: Receiver<Event>,
    poll: mio::Poll,
}

impl Lab {
    fn new(count: usize, power: Power) -> Lab {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
        let (events, told) = unbounded();
        let mirrors: Arc<[MirrorStats]> = Arc::default();
        let shared = Shared { fdb: Arc::new(Fdb::new(64, 300, 1)), mirrors };
        Lab { workers: Workers::spawn(&vec![None; count], power, &shared, &events, &waker).unwrap(), told, poll }
    }
}

/// A port to send to, and what comes out of it.
fn sink() -> (Arc<MemoryTx>, Arc<Mutex<Wire>>) {
    let (_, tx, wire) = memory_port();
    (tx, wire)
}

fn snapshot(outputs: Vec<Arc<MemoryTx>>) -> Snapshot {
    let rules = (0..).map(PortId).zip(&outputs).map(|(id, _)| (id, PortRules::default())).collect();
    let output = |tx: Arc<dyn TxPort>| Some(Output::new(Some(tx), Arc::new(PortStats::new(2))));
    Snapshot {
        tables: Arc::new(Tables::build(rules, Vec::new()).unwrap()),
        outputs: outputs.into_iter().map(|tx| output(tx)).collect(),
    }
}

/// A numbered frame to everyone.
fn numbered(number: u8) -> Vec<u8> {
    frame(0xff, 1, number)
}

fn arrive(wire: &Mutex<Wire>, numbers: std::ops::Range<u8>) {
    wire.lock().unwrap().to_switch.extend(numbers.map(numbered));
}

fn count(wire: &Mutex<Wire>) -> usize {
    wire.lock().unwrap().from_switch.len()
}

/// A queue goes from worker to worker and back while frames arrive in it and the workers fall asleep: for a wake-up
/// before the command that it is for, a queue that is not looked at when it is added, and one that two workers have.
#[test]
fn a_queue_that_moves_loses_nothing() {
    play(|| {
        let lab = Lab::new(2, Power::Adaptive);
        let links = lab.workers.links();
        let (rx, source, wire) = memory_port();
        wire.lock().unwrap().quiet = true;
        let (tx, arrived) = sink();
        links.set_snapshot(&snapshot(vec![source, tx])).unwrap();
        arrive(&wire, 0..2);
        links.add_queue(0, PortId(0), 0, rx).unwrap();
        links.move_queue(PortId(0), 0, 0, 1).unwrap();
        arrive(&wire, 2..4);
        links.move_queue(PortId(0), 0, 1, 0).unwrap();
        while count(&arrived) < 4 {
            pause();
        }
        // Nobody touches the queue that was taken.
        let rx = links.take_queue(0, PortId(0), 0).unwrap();
        arrive(&wire, 4..5);
        assert!(matches!(links.take_queue(1, PortId(0), 0), Err(WorkerError::NoQueue { worker: 1, queue: 0 })));
        assert_eq!(wire.lock().unwrap().to_switch.len(), 1);
        drop(rx);
        lab.workers.stop();
        assert_eq!(arrived.lock().unwrap().from_switch, (0..4).map(numbered).collect::<Vec<_>>());
    });
}

/// A queue whose peer notifies only if it was asked to, as guests do.
#[derive(Debug)]
struct Notifying {
    inner: Box<MemoryRx>,
    asked: Arc<AtomicBool>,
    kick: Arc<OwnedFd>,
}

impl RxQueue for Notifying {
    fn receive(&mut self, turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.inner.receive(turn, burst, stats)
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        self.inner.release(burst)
    }

    fn next_due(&self, _: &Turn) -> u64 {
        NEVER
    }

    fn arm(&mut self, turn: &Turn) -> bool {
        // The peer may come between the last turn and the wish, and between the wish and the look.
        step();
        self.asked.store(true, Ordering::Relaxed);
        step();
        self.inner.arm(turn)
    }

    fn disarm(&mut self) {
        self.asked.store(false, Ordering::Relaxed);
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.kick.as_raw_fd())
    }

    fn fail(&mut self) {
        self.inner.fail();
    }
}

/// Frames come from a peer's own thread, to a queue that also moves, while the workers fall asleep and wake: for a look
/// that comes before the wish for a notification, and a wish that is not made at the worker that the queue moves to.
#[test]
fn a_peer_that_saw_no_wish_for_a_notification_is_not_forgotten() {
    play(|| {
        let lab = Lab::new(2, Power::Adaptive);
        let links = lab.workers.links();
        let (inner, source, wire) = memory_port();
        let asked = Arc::new(AtomicBool::new(false));
        let kick = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let rx = Notifying { inner, asked: Arc::clone(&asked), kick: Arc::clone(&kick) };
        let (tx, arrived) = sink();
        links.set_snapshot(&snapshot(vec![source, tx])).unwrap();
        links.add_queue(0, PortId(0), 0, Box::new(rx)).unwrap();
        let peer = crate::sync::thread::spawn(move || {
            for number in 0..3 {
                arrive(&wire, number..number + 1);
                step();
                if asked.load(Ordering::Relaxed) {
                    rustix::io::write(&*kick, &1u64.to_ne_bytes()).unwrap();
                }
                step();
            }
        });
        links.move_queue(PortId(0), 0, 0, 1).unwrap();
        peer.join().unwrap();
        while count(&arrived) < 3 {
            pause();
        }
        lab.workers.stop();
        assert_eq!(arrived.lock().unwrap().from_switch, (0..3).map(numbered).collect::<Vec<_>>());
    });
}

/// New tables while both workers send without end: for an acknowledgement before the old ones are given up.
#[test]
fn after_the_acknowledgement_the_old_tables_are_gone() {
    // Workers that never sleep make long plays.
    play_times(PLAYS / 5, || {
        let lab = Lab::new(2, Power::Performance);
        let links = lab.workers.links();
        let (sources, wires): (Vec<_>, Vec<_>) = (0..2)
            .map(|worker| {
                let (rx, tx, wire) = memory_port();
                let mut endless = wire.lock().unwrap();
                (endless.endless, endless.room) = (Some(numbered(0)), Some(0));
                drop(endless);
                links.add_queue(worker, PortId(u16::try_from(worker).unwrap()), 0, rx).unwrap();
                (tx, wire)
            })
            .unzip();
        let with = |tx: &Arc<MemoryTx>| snapshot([sources.clone(), vec![Arc::clone(tx)]].concat());
        let ((old, old_wire), (new, new_wire)) = (sink(), sink());
        links.set_snapshot(&with(&old)).unwrap();
        while count(&old_wire) == 0 {
            pause();
        }
        links.set_snapshot(&with(&new)).unwrap();
        assert_eq!(Arc::strong_count(&old), 1, "the control thread alone has the old output");
        let before = count(&old_wire);
        while count(&new_wire) == 0 {
            pause();
        }
        assert_eq!(count(&old_wire), before);
        lab.workers.stop();
        assert_eq!(Arc::strong_count(&new), 1);
        drop(wires);
    });
}

/// Workers that send without end are held, and go on: for one that says that it stands before it does, and one that is
/// not told to go on.
#[test]
fn held_workers_stand_still() {
    play_times(PLAYS / 5, || {
        let lab = Lab::new(2, Power::Performance);
        let links = lab.workers.links();
        let (rx, source, wire) = memory_port();
        let mut endless = wire.lock().unwrap();
        (endless.endless, endless.room) = (Some(numbered(0)), Some(0));
        drop(endless);
        let (tx, arrived) = sink();
        links.set_snapshot(&snapshot(vec![source, tx])).unwrap();
        links.add_queue(1, PortId(0), 0, rx).unwrap();
        for _ in 0..2 {
            let held = links.hold().unwrap();
            let before = count(&arrived);
            (0..4).for_each(|_| pause());
            assert_eq!(count(&arrived), before);
            drop(held);
            while count(&arrived) == before {
                pause();
            }
        }
        lab.workers.stop();
    });
}

/// Workers end while another thread asks for a queue and gives a task: for a question that nobody answers any more.
#[test]
fn who_asks_a_worker_that_ends_is_not_left_waiting() {
    play(|| {
        let lab = Lab::new(2, Power::Adaptive);
        let links = lab.workers.links();
        let (rx, _, wire) = memory_port();
        wire.lock().unwrap().quiet = true;
        links.add_queue(0, PortId(0), 0, rx).unwrap();
        let asker = crate::sync::thread::spawn(move || {
            let tables = links.set_snapshot(&Snapshot::empty());
            let taken = links.take_queue(0, PortId(0), 0);
            let (reply, answered) = bounded(1);
            let task = QueueTask::new(move |_| {
                let _ = reply.send(());
            });
            let asked = links.send(1, Command::OnQueue { port: PortId(0), queue: 0, task });
            let answer = asked.and_then(|()| links.answer(1, &answered));
            assert!(matches!(answer, Ok(None) | Err(WorkerError::Gone(1))), "worker 1 has no queue: {answer:?}");
            assert!(matches!(tables, Ok(()) | Err(WorkerError::Gone(_))), "{tables:?}");
            let gone = |error: &WorkerError| matches!(error, WorkerError::Gone(0) | WorkerError::NoQueue { .. });
            assert!(taken.as_ref().is_err_and(gone) || taken.is_ok(), "{taken:?}");
        });
        lab.workers.stop();
        asker.join().unwrap();
        assert_eq!(Arc::strong_count(&wire), 1, "the queue was dropped");
    });
}

/// A task for a queue, as a session stops a ring: for a task that is done twice, elsewhere, or behind its answer.
#[test]
fn a_task_is_done_once_and_before_its_answer() {
    play(|| {
        let lab = Lab::new(2, Power::Adaptive);
        let links = lab.workers.links();
        let (rx, _, wire) = memory_port();
        wire.lock().unwrap().quiet = true;
        links.add_queue(0, PortId(0), 3, rx).unwrap();
        links.move_queue(PortId(0), 3, 0, 1).unwrap();
        for (worker, has_it) in [(0, false), (1, true)] {
            let done = Arc::new(AtomicBool::new(false));
            let (reply, answered) = bounded(1);
            let doing = Arc::clone(&done);
            let task = QueueTask::new(move |_| {
                assert!(!doing.swap(true, Ordering::Relaxed));
                let _ = reply.send(());
            });
            links.send(worker, Command::OnQueue { port: PortId(0), queue: 3, task }).unwrap();
            assert_eq!(links.answer(worker, &answered).unwrap(), has_it.then_some(()));
            assert_eq!(done.load(Ordering::Relaxed), has_it);
        }
        lab.workers.stop();
    });
}

/// A queue breaks under a sleeping control thread: for an event that is sent after the wake-up for it.
#[test]
fn a_fault_wakes_the_control_thread() {
    play(|| {
        let mut lab = Lab::new(1, Power::Adaptive);
        let links = lab.workers.links();
        let (rx, source, wire) = memory_port();
        let mut broken = wire.lock().unwrap();
        (broken.broken, broken.quiet) = (true, true);
        drop(broken);
        arrive(&wire, 0..1);
        links.set_snapshot(&snapshot(vec![source])).unwrap();
        links.add_queue(0, PortId(0), 0, rx).unwrap();
        let mut news = mio::Events::with_capacity(4);
        let fault = loop {
            sleep(&mut lab.poll, &mut news, None).unwrap();
            if let Ok(Event::PortFault { id, .. }) = lab.told.try_recv() {
                break id;
            }
        };
        assert_eq!(fault, PortId(0));
        lab.workers.stop();
        assert!(lab.told.try_recv().is_err(), "told once");
    });
}

/// The way of sleeping changes while the worker falls asleep or spins: for a command that a spinning or sleeping worker
/// does not see.
#[test]
fn a_worker_learns_how_to_sleep() {
    play(|| {
        let lab = Lab::new(1, Power::Performance);
        let links = lab.workers.links();
        for power in [Power::Adaptive, Power::Performance, Power::Adaptive] {
            links.set_power(power).unwrap();
        }
        links.set_snapshot(&Snapshot::empty()).unwrap();
        lab.workers.stop();
    });
}
