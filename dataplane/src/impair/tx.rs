//! A port's transmit side with an impairment before it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::TxItem;
use labsw_switch::impair::Counts;

use super::line::whole;
use super::{Line, NEVER, Schedule, now_ns};
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::port::{Fault, Lane, TxPort, lock};
use crate::stats::PortDelta;

/// The frames on their way to a port. It can outlive the transmit side behind it.
#[derive(Debug)]
pub struct TxLine {
    leaving: Mutex<Leaving>,
    /// When the next frame is due, for those who do not hold the lock.
    due_ns: AtomicU64,
    /// The worker that gave it frames last: it lets them go.
    keeper: AtomicUsize,
    schedule: Arc<Schedule>,
}

/// What is sent from.
#[derive(Debug)]
struct Leaving {
    line: Line,
    burst: Burst,
    /// Each frame of a burst.
    items: Vec<TxItem>,
    /// Of the burst at hand. They are counted, and nobody asks for more: the frames were taken long before.
    losses: Losses,
}

impl TxLine {
    /// Without frames, by this schedule.
    pub fn new(schedule: Schedule) -> TxLine {
        let schedule = Arc::new(schedule);
        TxLine {
            leaving: Mutex::new(Leaving {
                line: Line::new(Arc::clone(&schedule)),
                burst: Burst::new(),
                items: whole(BURST_FRAMES).collect(),
                losses: Losses::NONE,
            }),
            due_ns: AtomicU64::new(NEVER),
            keeper: AtomicUsize::new(0),
            schedule,
        }
    }

    /// What became of frames so far.
    pub fn counts(&self) -> Counts {
        self.schedule.counts()
    }
}

/// A transmit side that delays, loses and changes frames before the port's own gets them. It accepts finished frames only.
#[derive(Clone, Debug)]
pub struct ImpairedTx {
    inner: Arc<dyn TxPort>,
    way: Arc<TxLine>,
}

impl ImpairedTx {
    /// The line `way` before `inner`.
    pub fn new(inner: Arc<dyn TxPort>, way: Arc<TxLine>) -> ImpairedTx {
        ImpairedTx { inner, way }
    }

    /// Whether frames of the one are frames of the other.
    pub(crate) fn is_same_way(&self, other: &ImpairedTx) -> bool {
        Arc::ptr_eq(&self.way, &other.way)
    }

    /// When `worker` has to let the next frame go; [`NEVER`] if another worker does, or there is none.
    pub(crate) fn due_ns(&self, worker: usize) -> u64 {
        if self.way.keeper.load(Ordering::Relaxed) == worker { self.way.due_ns.load(Ordering::Relaxed) } else { NEVER }
    }

    /// Sends the frames that are due.
    pub(crate) fn release(&self, now_ns: u64, stats: &mut PortDelta) -> Result<(), Fault> {
        self.release_of(&mut lock(&self.way.leaving), now_ns, stats)
    }

    /// Gives up the frames that wait, and counts them.
    pub(crate) fn abandon(&self, stats: &mut PortDelta) {
        lock(&self.way.leaving).line.clear(stats);
        self.way.due_ns.store(NEVER, Ordering::Relaxed);
    }

    fn release_of(&self, leaving: &mut Leaving, now_ns: u64, stats: &mut PortDelta) -> Result<(), Fault> {
        let Leaving { line, burst, items, losses } = leaving;
        let mut outcome = Ok(());
        while line.next_due_ns() <= now_ns && outcome.is_ok() {
            burst.clear();
            // SAFETY: the burst is cleared before the frames are returned.
            let count = unsafe { line.lend(now_ns, burst) };
            // One flow stays on one ring, whichever worker lets its frames go.
            let items = items.get(..count).unwrap_or_default();
            losses.clear();
            outcome = self.inner.send(Lane::ONLY, burst, items, 0, &mut TxReport { stats, losses });
            burst.clear();
            line.returned();
        }
        self.way.due_ns.store(line.next_due_ns(), Ordering::Relaxed);
        outcome
    }
}

impl TxPort for ImpairedTx {
    fn send(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        _sole: u64,
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        let mut leaving = lock(&self.way.leaving);
        self.way.keeper.store(lane.worker, Ordering::Relaxed);
        let now_ns = now_ns();
        leaving.line.accept(now_ns, burst, items, report);
        self.release_of(&mut leaving, now_ns, report.stats)
    }

    fn tick(&self) -> Result<(), Fault> {
        self.inner.tick()
    }

    fn tick_within(&self) -> Option<Duration> {
        self.inner.tick_within()
    }
}
