//! How busy a worker is, so that 100 % of a core can be explained.
//!
//! A turn that moved frames is busy time, one that found none is idle (spinning) time; what is left of the time is
//! sleep. The worker is the only writer; readers take differences of two snapshots. A snapshot says when it was taken:
//! a sleep may last for hours, and is not written down before it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Totals since the worker started.
#[derive(Debug)]
pub struct WorkerLoad {
    started: Instant,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
    frames: AtomicU64,
    busy_turns: AtomicU64,
    asleep: AtomicBool,
}

impl Default for WorkerLoad {
    fn default() -> WorkerLoad {
        WorkerLoad {
            started: Instant::now(),
            busy_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            busy_turns: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
        }
    }
}

/// A reading of [`WorkerLoad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// Time of all kinds, nanoseconds.
    pub elapsed_ns: u64,
    /// Time in turns that moved frames, nanoseconds.
    pub busy_ns: u64,
    /// Time in turns that found nothing, nanoseconds.
    pub idle_ns: u64,
    /// Frames received.
    pub frames: u64,
    /// Turns that moved frames.
    pub busy_turns: u64,
}

/// A worker at one look: how far it has come, and whether it has a reason not to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Its load.
    pub load: LoadSnapshot,
    /// It is blocked waiting for frames, or about to.
    pub asleep: bool,
    /// Its thread has ended.
    pub ended: bool,
}

impl Pulse {
    /// True if the worker makes progress: it has ended a turn since `earlier`, or sleeps because there is nothing to
    /// do. One that has just been woken from a sleep that began before `earlier` seems not to, until its first turn
    /// ends.
    pub fn beats_since(&self, earlier: &Pulse) -> bool {
        !self.ended && (self.asleep || !self.load.same_turn(&earlier.load))
    }
}

impl WorkerLoad {
    /// True if the worker is blocked waiting for frames, or about to.
    pub fn asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Reads all totals.
    pub fn snapshot(&self) -> LoadSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadSnapshot {
            elapsed_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            busy_ns: read(&self.busy_ns),
            idle_ns: read(&self.idle_ns),
            frames: read(&self.frames),
            busy_turns: read(&self.busy_turns),
        }
    }
}

impl LoadSnapshot {
    /// The totals added since `earlier`.
    pub fn since(&self, earlier: &LoadSnapshot) -> LoadSnapshot {
        LoadSnapshot {
            elapsed_ns: self.elapsed_ns.wrapping_sub(earlier.elapsed_ns),
            busy_ns: self.busy_ns.wrapping_sub(earlier.busy_ns),
            idle_ns: self.idle_ns.wrapping_sub(earlier.idle_ns),
            frames: self.frames.wrapping_sub(earlier.frames),
            busy_turns: self.busy_turns.wrapping_sub(earlier.busy_turns),
        }
    }

    /// Share of the time spent in turns that moved frames, percent.
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn busy_percent(&self) -> f64 {
        // A turn is written down when it ends, so one that reached into the time looked at would count too much.
        if self.elapsed_ns == 0 { 0.0 } else { (100.0 * self.busy_ns as f64 / self.elapsed_ns as f64).min(100.0) }
    }

    /// Share of the time spent blocked, percent.
    #[allow(clippy::cast_precision_loss, reason = "a percentage")]
    pub fn asleep_percent(&self) -> f64 {
        let awake_ns = self.busy_ns.saturating_add(self.idle_ns);
        let asleep_ns = self.elapsed_ns.saturating_sub(awake_ns);
        if self.elapsed_ns == 0 { 0.0 } else { 100.0 * asleep_ns as f64 / self.elapsed_ns as f64 }
    }

    /// True if the worker has ended no turn since `earlier`.
    pub fn same_turn(&self, earlier: &LoadSnapshot) -> bool {
        (self.busy_ns, self.idle_ns) == (earlier.busy_ns, earlier.idle_ns)
    }

    /// Frames received per turn that moved any.
    #[allow(clippy::cast_precision_loss, reason = "a mean")]
    pub fn frames_per_burst(&self) -> f64 {
        if self.busy_turns == 0 { 0.0 } else { self.frames as f64 / self.busy_turns as f64 }
    }
}

/// The worker's side: remembers when the last turn ended.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<WorkerLoad>,
    since: Instant,
}

impl Load {
    pub(crate) fn new(shared: Arc<WorkerLoad>) -> Load {
        Load { shared, since: Instant::now() }
    }

    /// Accounts a turn that ended `now`.
    #[inline]
    pub(crate) fn turn(&mut self, now: Instant, frames: usize) {
        let ns = self.elapsed_ns(now);
        if frames > 0 {
            add(&self.shared.busy_ns, ns);
            add(&self.shared.frames, frames as u64);
            add(&self.shared.busy_turns, 1);
        } else {
            add(&self.shared.idle_ns, ns);
        }
    }

    /// The worker is about to block.
    pub(crate) fn sleeps(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
    }

    /// A sleep ended `now`.
    pub(crate) fn slept(&mut self, now: Instant) {
        self.shared.asleep.store(false, Ordering::Relaxed);
        self.since = now;
    }

    #[inline]
    fn elapsed_ns(&mut self, now: Instant) -> u64 {
        let ns = u64::try_from((now - self.since).as_nanos()).unwrap_or(u64::MAX);
        self.since = now;
        ns
    }
}

#[inline]
fn add(total: &AtomicU64, more: u64) {
    // A single writer: no read-modify-write needed.
    total.store(total.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_beats_if_it_ended_a_turn_or_sleeps() {
        let pulse = |busy_ns, idle_ns, asleep, ended| Pulse {
            load: LoadSnapshot { elapsed_ns: 9, busy_ns, idle_ns, ..LoadSnapshot::default() },
            asleep,
            ended,
        };
        let before = pulse(5, 5, false, false);
        for (what, now, beats) in [
            ("a turn with frames", pulse(6, 5, false, false), true),
            ("a turn without", pulse(5, 6, false, false), true),
            ("asleep", pulse(5, 5, true, false), true),
            ("neither", pulse(5, 5, false, false), false),
            ("ended in a sleep", pulse(5, 5, true, true), false),
            ("ended after a turn", pulse(6, 5, false, true), false),
        ] {
            assert_eq!(now.beats_since(&before), beats, "{what}");
        }
    }
}
