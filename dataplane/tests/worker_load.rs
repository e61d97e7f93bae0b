//! A worker's account of its load is the truth: moving frames is busy, spinning and sleeping are not.
//!
//! The ports here make their own frames, on the worker's thread, so that the share of the time it is busy is known
//! whatever else the machine does.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use labsw_dataplane::clock::NEVER;
use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::port::{Fault, RxQueue, Turn};
use labsw_dataplane::stats::{MirrorStats, PortDelta, PortStats};
use labsw_dataplane::worker::{Output, Power, Shared, Snapshot};
use labsw_dataplane::workers::Workers;
use labsw_dataplane::workers::load::LoadSnapshot;
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::Tables;
use labsw_switch::{BURST_FRAMES, MAX_MIRRORS, PortId};
use mio::{Poll, Token, Waker};

const WINDOW: Duration = Duration::from_millis(600);
const FRAME: [u8; 60] = [2; 60];

static ALONE: Mutex<()> = Mutex::new(());

/// A port that takes `work` to hand out a burst, then has nothing for `pause`.
#[derive(Debug)]
struct Source {
    work: Duration,
    pause: Duration,
    quiet_until: Instant,
    /// When the turn began in which a burst was handed out, ns, until the end of that turn is known.
    handed_out_ns: Option<u64>,
    seen: Arc<Seen>,
}

/// A source's view of its worker.
#[derive(Debug, Default)]
struct Seen {
    /// Time of turns in which it handed out bursts, nanoseconds, by the times that the worker names.
    busy_ns: AtomicU64,
    /// The longest of those turns, nanoseconds.
    longest_ns: AtomicU64,
    /// Time spent on handing out bursts, nanoseconds, by the clock.
    worked_ns: AtomicU64,
    /// The timer slack of the worker's thread, nanoseconds.
    slack_ns: AtomicU64,
}

impl Source {
    /// The turn before the one at hand has ended at the time that the worker names now.
    fn end_turn(&mut self, turn: &Turn) {
        if let Some(began_ns) = self.handed_out_ns.take() {
            self.seen.busy_ns.fetch_add(turn.now_ns - began_ns, Ordering::Relaxed);
            self.seen.longest_ns.fetch_max(turn.now_ns - began_ns, Ordering::Relaxed);
        }
    }
}

impl RxQueue for Source {
    fn receive(&mut self, turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.seen.slack_ns.store(rustix::thread::current_timer_slack().unwrap(), Ordering::Relaxed);
        self.end_turn(turn);
        let begin = Instant::now();
        if begin < self.quiet_until {
            return Ok(());
        }
        while !burst.is_full() {
            stats.received(60);
            // SAFETY: the bytes are a constant's.
            assert!(unsafe { burst.push(0, &[Segment { ptr: FRAME.as_ptr(), len: 60 }]) });
        }
        while begin.elapsed() < self.work {}
        let end = Instant::now();
        self.seen.worked_ns.fetch_add(u64::try_from((end - begin).as_nanos()).unwrap(), Ordering::Relaxed);
        (self.quiet_until, self.handed_out_ns) = (end + self.pause, Some(turn.now_ns));
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        Ok(())
    }

    fn arm(&mut self, turn: &Turn) -> bool {
        self.end_turn(turn);
        Instant::now() >= self.quiet_until
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    fn fail(&mut self) {}

    fn next_due(&self, turn: &Turn) -> u64 {
        if self.pause < WINDOW { turn.now_ns + u64::try_from(self.pause.as_nanos()).unwrap() } else { NEVER }
    }
}

/// The source's account of a while.
#[derive(Debug)]
struct Account {
    /// Bounds of the time of turns with frames, nanoseconds: the source and the worker are not read at one instant.
    busy_ns: std::ops::RangeInclusive<u64>,
    /// The least time spent on handing out bursts, nanoseconds.
    worked_ns: u64,
    /// The timer slack of the worker's thread, nanoseconds.
    slack_ns: u64,
}

/// The load over a while of a worker that serves a source, and the source's own account.
fn load(power: Power, work: Duration, pause: Duration) -> (LoadSnapshot, Account) {
    // One worker at a time, so that it has a CPU to itself.
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = Shared {
        fdb: Arc::new(Fdb::new(16, 300, 1)),
        mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect(),
    };
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let (events, _told) = unbounded();
    let worker = Workers::spawn(&[None], power, &shared, &events, &waker).unwrap();
    let output = Output::new(None, Arc::new(PortStats::new(1)));
    let snapshot = Snapshot { tables: Arc::new(Tables::empty()), outputs: vec![Some(output)].into() };
    worker.links().set_snapshot(&snapshot).unwrap();
    let seen = Arc::new(Seen::default());
    let quiet_until = Instant::now() + if pause < WINDOW { Duration::ZERO } else { pause };
    let source = Source { work, pause, quiet_until, handed_out_ns: None, seen: Arc::clone(&seen) };
    worker.links().add_queue(0, PortId(0), 0, Box::new(source)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // The source's account before and after each look at the worker's.
    let busy_ns = || seen.busy_ns.load(Ordering::Relaxed);
    let begin = (busy_ns(), worker.handles()[0].load(), busy_ns());
    let worked_before = seen.worked_ns.load(Ordering::Relaxed);
    std::thread::sleep(WINDOW);
    let worked_ns = seen.worked_ns.load(Ordering::Relaxed) - worked_before;
    let end = (busy_ns(), worker.handles()[0].load(), busy_ns());
    worker.stop();
    // The end of a turn is known to the worker first, and to the source in the next turn.
    let longest_ns = seen.longest_ns.load(Ordering::Relaxed);
    let least = end.0.saturating_sub(begin.2).saturating_sub(longest_ns);
    let busy_ns = least..=end.2 - begin.0 + longest_ns;
    let account = Account { busy_ns, worked_ns, slack_ns: seen.slack_ns.load(Ordering::Relaxed) };
    (end.1.since(&begin.1), account)
}

#[test]
fn a_saturated_worker_is_busy() {
    for power in [Power::Adaptive, Power::Performance] {
        let (load, account) = load(power, Duration::from_micros(20), Duration::ZERO);
        assert!(load.busy_percent() > 97.0, "{power:?}: {load:?}");
        assert!(load.frames == load.busy_turns * BURST_FRAMES as u64, "{load:?}");
        assert_eq!(account.slack_ns, 1, "timer slack of a worker's thread");
    }
}

#[test]
fn spinning_is_not_busy() {
    let (load, _) = load(Power::Performance, Duration::ZERO, Duration::from_secs(3600));
    assert!(load.busy_percent() == 0.0 && load.idle_ns > load.elapsed_ns / 2, "{load:?}");
}

#[test]
fn sleeping_is_not_busy() {
    let (load, _) = load(Power::Adaptive, Duration::ZERO, Duration::from_secs(3600));
    assert!(load.busy_percent() == 0.0 && load.idle_ns < load.elapsed_ns / 100, "{load:?}");
    let window = u64::try_from(WINDOW.as_nanos()).unwrap();
    assert!(load.elapsed_ns >= window, "a sleep that goes on is time, too: {load:?}");
}

#[test]
#[allow(clippy::cast_precision_loss, reason = "a percentage")]
fn half_the_time_is_half() {
    let half = Duration::from_millis(5);
    for power in [Power::Adaptive, Power::Performance] {
        let (load, account) = load(power, half, half);
        assert!(account.busy_ns.contains(&load.busy_ns), "{power:?}: {account:?}: {load:?}");
        // A turn with a burst is the handing out and next to nothing else, unless the CPU is taken away in it.
        let turn_ns = u64::try_from(half.as_nanos()).unwrap();
        assert!(account.worked_ns >= 2 * turn_ns, "{power:?}: {account:?}");
        assert!(load.busy_ns + 2 * turn_ns >= account.worked_ns, "{power:?}: {account:?}: {load:?}");
        let share = 100.0 * load.busy_ns as f64 / load.elapsed_ns as f64;
        assert!((load.busy_percent() - share).abs() < 0.01, "{power:?}: {share} %: {load:?}");
    }
}
