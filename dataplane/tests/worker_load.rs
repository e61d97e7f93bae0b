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
    /// When the last turn ended, about; `None` after a sleep. A worker whose CPU is taken away between two turns, and
    /// that finds frames when it runs again, is busy for that time: the frames waited.
    last_turn: Option<Instant>,
    seen: Arc<Seen>,
}

/// A source's view of its worker.
#[derive(Debug, Default)]
struct Seen {
    /// Time of turns in which it handed out bursts, nanoseconds.
    worked_ns: AtomicU64,
    /// The timer slack of the worker's thread, nanoseconds.
    slack_ns: AtomicU64,
}

impl RxQueue for Source {
    fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.seen.slack_ns.store(rustix::thread::current_timer_slack().unwrap(), Ordering::Relaxed);
        let begin = Instant::now();
        let last_turn = self.last_turn.replace(begin);
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
        let worked = end - last_turn.unwrap_or(begin);
        self.seen.worked_ns.fetch_add(u64::try_from(worked.as_nanos()).unwrap(), Ordering::Relaxed);
        (self.quiet_until, self.last_turn) = (end + self.pause, Some(end));
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        Ok(())
    }

    fn arm(&mut self, _turn: &Turn) -> bool {
        self.last_turn = None;
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

/// The load over a while of a worker that serves a source; the percentage of the time that the source worked; and the
/// timer slack of the worker's thread.
fn load(power: Power, work: Duration, pause: Duration) -> (LoadSnapshot, f64, u64) {
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
    let source = Source { work, pause, quiet_until, last_turn: None, seen: Arc::clone(&seen) };
    worker.links().add_queue(0, PortId(0), 0, Box::new(source)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let (before, worked_before) = (worker.handles()[0].load(), seen.worked_ns.load(Ordering::Relaxed));
    std::thread::sleep(WINDOW);
    let load = worker.handles()[0].load().since(&before);
    let worked_ns = seen.worked_ns.load(Ordering::Relaxed) - worked_before;
    worker.stop();
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    let worked = 100.0 * worked_ns as f64 / load.elapsed_ns as f64;
    (load, worked, seen.slack_ns.load(Ordering::Relaxed))
}

#[test]
fn a_saturated_worker_is_busy() {
    for power in [Power::Adaptive, Power::Performance] {
        let (load, _, slack) = load(power, Duration::from_micros(20), Duration::ZERO);
        assert!(load.busy_percent() > 97.0, "{power:?}: {load:?}");
        assert!(load.frames == load.busy_turns * BURST_FRAMES as u64, "{load:?}");
        assert_eq!(slack, 1, "timer slack of a worker's thread");
    }
}

#[test]
fn spinning_is_not_busy() {
    let (load, _, _) = load(Power::Performance, Duration::ZERO, Duration::from_secs(3600));
    assert!(load.busy_percent() == 0.0 && load.idle_ns > load.elapsed_ns / 2, "{load:?}");
}

#[test]
fn sleeping_is_not_busy() {
    let (load, _, _) = load(Power::Adaptive, Duration::ZERO, Duration::from_secs(3600));
    assert!(load.busy_percent() == 0.0 && load.idle_ns < load.elapsed_ns / 100, "{load:?}");
    let window = u64::try_from(WINDOW.as_nanos()).unwrap();
    assert!(load.elapsed_ns >= window, "a sleep that goes on is time, too: {load:?}");
}

#[test]
fn half_the_time_is_half() {
    let half = Duration::from_millis(5);
    for power in [Power::Adaptive, Power::Performance] {
        let (load, worked, _) = load(power, half, half);
        // The two are not read at the same instant.
        assert!((load.busy_percent() - worked).abs() < 10.0, "{power:?}: worked {worked} %: {load:?}");
    }
}
