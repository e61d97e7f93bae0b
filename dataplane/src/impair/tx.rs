//! A port's transmit side with an impairment before it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::TxItem;
use labsw_switch::impair::Counts;

use super::{DelayQueue, Schedule, whole};
use crate::clock::NEVER;
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::port::{Fault, Turn, TxPort, lock};
use crate::stats::PortDelta;

/// The frames on their way to a port. They can outlive the port's transmit side.
#[derive(Debug)]
pub struct TxDelay {
    pub(super) leaving: Mutex<Leaving>,
    /// The time at which the next frame is due, readable without the lock.
    pub(super) due_ns: AtomicU64,
    /// The worker that gave it frames last: that worker sends those that are due.
    owner: AtomicUsize,
    pub(super) schedule: Arc<Schedule>,
}

/// The delay queue, and the parts with which its frames are sent.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) delayed: DelayQueue,
    burst: Burst,
    /// Each frame of a burst.
    items: Vec<TxItem>,
    /// The losses of the current burst. The port counts them; the reasons have no reader any more.
    losses: Losses,
}

impl TxDelay {
    /// Without frames, by this schedule.
    pub fn new(schedule: Schedule) -> TxDelay {
        let schedule = Arc::new(schedule);
        let leaving = Leaving {
            delayed: DelayQueue::new(Arc::clone(&schedule)),
            burst: Burst::new(),
            items: whole(BURST_FRAMES).collect(),
            losses: Losses::NONE,
        };
        TxDelay { leaving: Mutex::new(leaving), due_ns: AtomicU64::new(NEVER), owner: AtomicUsize::new(0), schedule }
    }

    /// The outcome for all frames so far.
    pub fn counts(&self) -> Counts {
        self.schedule.counts()
    }

    /// Gives up the frames that wait, and counts them.
    pub(crate) fn abandon(&self, stats: &mut PortDelta) {
        lock(&self.leaving).delayed.clear(stats);
        self.due_ns.store(NEVER, Ordering::Relaxed);
    }

    /// When `worker` has to send the next frame; [`NEVER`] if another worker does, or none waits.
    #[inline]
    pub(crate) fn next_due(&self, worker: usize) -> u64 {
        if self.owner.load(Ordering::Relaxed) == worker { self.due_ns.load(Ordering::Relaxed) } else { NEVER }
    }
}

/// A transmit side that delays, loses and changes frames before the port's own gets them. It accepts finished frames
/// only.
#[derive(Clone, Debug)]
pub struct ImpairedTx {
    port: Arc<dyn TxPort>,
    delay: Arc<TxDelay>,
}

impl ImpairedTx {
    /// The impairment `delay` before `port`.
    pub fn new(port: Arc<dyn TxPort>, delay: Arc<TxDelay>) -> ImpairedTx {
        ImpairedTx { port, delay }
    }

    /// Sends the frames that are due.
    fn send_due(&self, leaving: &mut Leaving, turn: &Turn, stats: &mut PortDelta) -> Result<(), Fault> {
        let Leaving { delayed, burst, items, losses } = leaving;
        // One flow stays on one ring, whichever worker sends its frames.
        let turn = &Turn { worker: 0, workers: 1, ..*turn };
        let mut outcome = Ok(());
        while delayed.next_due_ns() <= turn.now_ns && outcome.is_ok() {
            losses.clear();
            let report = &mut TxReport { stats, losses };
            outcome = delayed.send_due(turn.now_ns, burst, |burst| {
                let items = items.get(..burst.len()).unwrap_or_default();
                self.port.send(turn, burst, items, report)
            });
        }
        self.delay.due_ns.store(delayed.next_due_ns(), Ordering::Relaxed);
        outcome
    }
}

impl TxPort for ImpairedTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let mut leaving = lock(&self.delay.leaving);
        self.delay.owner.store(turn.worker, Ordering::Relaxed);
        leaving.delayed.accept(turn.arrival_ns(), burst, items, report);
        self.send_due(&mut leaving, turn, report.stats)
    }

    fn next_due(&self, turn: &Turn) -> u64 {
        self.delay.next_due(turn.worker).min(self.port.next_due(turn))
    }

    fn run_due(&self, turn: &Turn, stats: &mut PortDelta) -> Result<(), Fault> {
        if self.delay.next_due(turn.worker) <= turn.now_ns {
            self.send_due(&mut lock(&self.delay.leaving), turn, stats)?;
        }
        self.port.run_due(turn, stats)
    }
}
