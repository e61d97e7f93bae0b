//! Impairments in the worker: frames from a port that has one, and the time at which delayed frames are due.
//!
//! What goes to a port is impaired by its transmit side ([`ImpairedTx`](crate::impair::ImpairedTx)); the worker looks, after each
//! turn, whether frames are due there. What comes from a port is impaired here, before anything is decided about it: a
//! queue with an impairment has an [`Incoming`], which receives in its place; it is kept out of line, away from the code
//! of queues without.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use labsw_switch::PortId;
use labsw_switch::forward::TxItem;

use super::slot::slot;
use super::stage::{self, Stage};
use super::{Event, Worker};
use crate::frame::Burst;
use crate::impair::{self, Line, NEVER, Schedule, now_ns};
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::port::{Fault, Lane, RxQueue, TxPort, lock};
use crate::stats::PortDelta;

/// The impairment of one receive queue.
#[derive(Debug)]
pub(super) struct Incoming {
    line: Sink,
    /// What the queue received.
    received: Burst,
    /// Each frame of it.
    items: Vec<TxItem>,
    due_ns: u64,
}

/// A line as something that frames are sent to, so that requests are resolved on the way.
#[derive(Debug)]
struct Sink(Mutex<Line>);

impl TxPort for Sink {
    fn send(
        &self,
        _lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        _sole: u64,
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        lock(&self.0).accept(now_ns(), burst, items, report);
        Ok(())
    }
}

impl Incoming {
    pub(super) fn new(schedule: &Arc<Schedule>) -> Incoming {
        Incoming {
            line: Sink(Mutex::new(Line::new(Arc::clone(schedule)))),
            received: Burst::new(),
            items: impair::whole(labsw_switch::BURST_FRAMES).collect(),
            due_ns: NEVER,
        }
    }

    /// As [`RxQueue::receive`]: what has arrived goes into the line, and what is due comes out of it.
    #[cold]
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        rx: &mut dyn RxQueue,
        burst: &mut Burst,
        stage: &mut Stage,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        if rx.is_waiting() {
            self.received.clear();
            rx.receive(&mut self.received, stats)?;
            let report = &mut TxReport { stats, losses: &mut Losses::NONE.clone() };
            let items = self.items.get(..self.received.len()).unwrap_or_default();
            if self.received.asking() != 0 && stage::is_needed(&self.received, items, Offers::NONE) {
                stage.resolve(&self.line, Lane::ONLY, &self.received, items, Offers::NONE, report)?;
            } else if !items.is_empty() {
                self.line.send(Lane::ONLY, &mut self.received, items, 0, report)?;
            }
            rx.release(&mut self.received)?;
        }
        let mut line = lock(&self.line.0);
        // SAFETY: the worker clears the burst, by `release`, before the queue receives again or is given up.
        unsafe { line.lend(now_ns(), burst) };
        self.due_ns = line.next_due_ns();
        Ok(())
    }

    /// As [`RxQueue::release`].
    #[cold]
    #[inline(never)]
    pub(super) fn release(&mut self, burst: &mut Burst) {
        burst.clear();
        lock(&self.line.0).returned();
    }

    /// Whether a frame is due.
    #[cold]
    #[inline(never)]
    pub(super) fn is_due(&self) -> bool {
        self.due_ns != NEVER && self.due_ns <= now_ns()
    }

    fn follows(&self, schedule: &Arc<Schedule>) -> bool {
        lock(&self.line.0).follows(schedule)
    }

    fn clear(&self, stats: &mut PortDelta) {
        lock(&self.line.0).clear(stats);
    }
}

impl Worker {
    /// Sends delayed frames that are due.
    #[cold]
    pub(super) fn release_due(&mut self) {
        let now_ns = now_ns();
        for at in 0..self.delayed.len() {
            let Some(&id) = self.delayed.get(at) else { break };
            let Some(slot) = slot(&mut self.slots, id) else { continue };
            let Some(tx) = slot.output.delayed_tx().filter(|tx| tx.due_ns(self.lane.worker) <= now_ns) else {
                continue;
            };
            let outcome = tx.release(now_ns, &mut slot.delta);
            slot.output.stats.publish(self.lane.worker, &mut slot.delta);
            if let Err(fault) = outcome {
                self.notify(Event::PortFault { id, fault });
            }
        }
    }

    /// How long until this worker has a delayed frame to send or to receive.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let sent = self.delayed.iter().filter_map(|port| self.slots.get(port.index())?.as_ref()?.output.delayed_tx());
        let sent = sent.map(|tx| tx.due_ns(self.lane.worker));
        let received = self.queues.iter().filter_map(|queue| queue.incoming.as_ref()).map(|incoming| incoming.due_ns);
        impair::until(sent.chain(received).min()?)
    }

    /// Gives every queue the impairment that its port has, and gives up the frames of those that are over. `before` is what
    /// the ports had.
    pub(super) fn set_impairments(&mut self, before: Vec<Option<super::Slot>>) {
        let ids = || (0..).map(PortId);
        self.delayed.clear();
        let delayed = |slot: &Option<super::Slot>| slot.as_ref().is_some_and(|slot| slot.output.delayed_tx().is_some());
        self.delayed.extend(ids().zip(&self.slots).filter(|(_, slot)| delayed(slot)).map(|(id, _)| id));
        for (id, old) in ids().zip(before) {
            let Some(mut old) = old else { continue };
            let Some(over) = old.output.delayed_tx() else { continue };
            let kept = self.slots.get(id.index()).and_then(Option::as_ref).and_then(|slot| slot.output.delayed_tx());
            if !kept.is_some_and(|kept| kept.is_same_way(over)) {
                over.abandon(&mut old.delta);
                old.output.stats.publish(self.lane.worker, &mut old.delta);
            }
        }
        for at in 0..self.queues.len() {
            self.set_incoming(at);
        }
    }

    /// Gives the queue the impairment that its port has.
    pub(super) fn set_incoming(&mut self, at: usize) {
        let Some(queue) = self.queues.get_mut(at) else { return };
        let slot = slot(&mut self.slots, queue.port);
        let wanted = slot.as_ref().and_then(|slot| slot.output.impaired_rx.clone());
        match (&queue.incoming, &wanted) {
            (Some(incoming), Some(schedule)) if incoming.follows(schedule) => return,
            (None, None) => return,
            _ => {}
        }
        let over = queue.incoming.take();
        queue.incoming = wanted.as_ref().map(|schedule| Box::new(Incoming::new(schedule)));
        if let (Some(over), Some(slot)) = (over, slot) {
            over.clear(&mut slot.delta);
            slot.output.stats.publish(self.lane.worker, &mut slot.delta);
        }
    }

    /// Gives up the frames of a queue that goes.
    pub(super) fn end_incoming(&mut self, port: PortId, incoming: Option<Box<Incoming>>) {
        if let (Some(incoming), Some(slot)) = (incoming, slot(&mut self.slots, port)) {
            incoming.clear(&mut slot.delta);
            slot.output.stats.publish(self.lane.worker, &mut slot.delta);
        }
    }
}
