//! A receive queue with an impairment: what it receives goes into a delay queue, and what is due comes out of that.

use std::sync::{Arc, Mutex};

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::TxItem;

use super::handover::line;
use super::{DelayQueue, Schedule, whole};
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::port::{Fault, FrameSink, RxQueue, Turn, lock};
use crate::stage::{self, Stage};
use crate::stats::PortDelta;

/// The impairment of one receive queue.
#[derive(Debug)]
pub(crate) struct ImpairedRx {
    /// Read by the control thread, too, while the workers stand still.
    delayed: Arc<Mutex<DelayQueue>>,
    /// Frames as the queue received them.
    received: Burst,
    /// Each frame of that burst.
    items: Vec<TxItem>,
    due_ns: u64,
}

/// A delay queue as a sink, so that offload requests are resolved on the way into it.
struct Entrance<'a> {
    delayed: &'a mut DelayQueue,
    now_ns: u64,
}

impl FrameSink for Entrance<'_> {
    fn take(&mut self, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        self.delayed.accept(self.now_ns, burst, items, report);
        Ok(())
    }
}

impl ImpairedRx {
    /// Without frames, or with those that a queue of another process had.
    pub(crate) fn new(schedule: &Arc<Schedule>) -> ImpairedRx {
        let delayed = line(schedule);
        let due_ns = lock(&delayed).next_due_ns();
        ImpairedRx { delayed, received: Burst::new(), items: whole(BURST_FRAMES).collect(), due_ns }
    }

    /// Receives in place of `rx`, as [`RxQueue::receive`]: frames that have arrived are delayed, frames that are due go
    /// into `burst`.
    #[cold]
    #[inline(never)]
    pub(crate) fn receive(
        &mut self,
        rx: &mut dyn RxQueue,
        turn: &Turn,
        burst: &mut Burst,
        stage: &mut Stage,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        if rx.is_waiting(turn) {
            self.delay(rx, turn, stage, stats)?;
        }
        let mut delayed = lock(&self.delayed);
        delayed.copy_due(turn.now_ns, burst);
        self.due_ns = delayed.next_due_ns();
        Ok(())
    }

    /// Delays the frames that have arrived.
    fn delay(
        &mut self,
        rx: &mut dyn RxQueue,
        turn: &Turn,
        stage: &mut Stage,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        let ImpairedRx { delayed, received, items, .. } = self;
        received.clear();
        rx.receive(turn, received, stats)?;
        let items = items.get(..received.len()).unwrap_or_default();
        let mut entrance = Entrance { delayed: &mut lock(delayed), now_ns: turn.arrival_ns() };
        let report = &mut TxReport { stats, losses: &mut Losses::NONE.clone() };
        if received.asking() != 0 && stage::is_needed(received, items, Offers::NONE) {
            stage.resolve(&mut entrance, received, items, Offers::NONE, report)?;
        } else if !items.is_empty() {
            entrance.take(received, items, report)?;
        }
        rx.release(received)
    }

    /// Ends the borrow that [`ImpairedRx::receive`] began.
    #[cold]
    pub(crate) fn release(&mut self, burst: &mut Burst) {
        burst.clear();
    }

    /// When the next frame is due, ns; [`NEVER`](crate::clock::NEVER): none waits.
    pub(crate) fn next_due(&self) -> u64 {
        self.due_ns
    }

    /// True if the frames are delayed by this schedule.
    pub(crate) fn follows(&self, schedule: &Arc<Schedule>) -> bool {
        lock(&self.delayed).follows(schedule)
    }

    /// Gives up the frames that wait, and counts them.
    pub(crate) fn abandon(&mut self, stats: &mut PortDelta) {
        lock(&self.delayed).clear(stats);
    }
}
