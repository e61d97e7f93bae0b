//! Impairments in the worker: which ports and queues have one, and when their frames are due.
//!
//! Frames to a port are impaired by its transmit side ([`ImpairedTx`](crate::impair::ImpairedTx)); after each turn the
//! worker looks for frames that are due there. Frames from a port are impaired before anything is decided about them: a
//! queue with an impairment has an [`ImpairedRx`], which receives in its place.

use labsw_switch::PortId;

use super::Worker;
use super::slot::{Slot, slot};
use crate::clock::NEVER;
use crate::impair::ImpairedRx;

impl Worker {
    /// Sends delayed frames that are due.
    #[cold]
    pub(super) fn send_delayed(&mut self) {
        for at in 0..self.impaired.len() {
            let Some(&id) = self.impaired.get(at) else { break };
            if self.next_sent(id) <= self.now.now_ns {
                self.run_due_of(id);
            }
        }
    }

    /// When this worker has a delayed frame to send to this port, ns.
    fn next_sent(&self, id: PortId) -> u64 {
        let slot = self.slots.get(id.index()).and_then(Option::as_ref);
        let delay = slot.and_then(|slot| slot.output.impaired_tx());
        delay.map_or(NEVER, |delay| delay.next_due(self.now.worker))
    }

    /// When this worker has a delayed frame to send or to receive, ns.
    pub(super) fn next_delayed(&self) -> u64 {
        let sent = self.impaired.iter().map(|id| self.next_sent(*id));
        let received =
            self.queues.iter().filter_map(|queue| queue.impaired.as_ref()).map(|impaired| impaired.next_due());
        sent.chain(received).min().unwrap_or(NEVER)
    }

    /// Gives every queue the impairment that its port has, and gives up the frames of those that are over. `before` is
    /// what the ports had.
    pub(super) fn set_impairments(&mut self, before: Vec<Option<Slot>>) {
        let ids = || (0..).map(PortId);
        let is_impaired = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.output.impaired_tx().is_some());
        self.impaired.clear();
        self.impaired.extend(ids().zip(&self.slots).filter(|(_, slot)| is_impaired(slot)).map(|(id, _)| id));
        for (id, old) in ids().zip(before) {
            let Some(mut old) = old else { continue };
            let Some(over) = old.output.impaired_tx().cloned() else { continue };
            let now = self.slots.get(id.index()).and_then(Option::as_ref).and_then(|slot| slot.output.impaired_tx());
            if !now.is_some_and(|now| std::sync::Arc::ptr_eq(now, &over)) {
                over.abandon(&mut old.delta);
                old.output.stats.publish(self.now.worker, &mut old.delta);
            }
        }
        for at in 0..self.queues.len() {
            self.set_impaired_rx(at);
        }
    }

    /// Gives the queue the impairment that its port has.
    pub(super) fn set_impaired_rx(&mut self, at: usize) {
        let Some(queue) = self.queues.get_mut(at) else { return };
        let slot = slot(&mut self.slots, queue.port);
        let wanted = slot.as_ref().and_then(|slot| slot.output.impaired_rx.clone());
        match (&queue.impaired, &wanted) {
            (Some(impaired), Some(schedule)) if impaired.follows(schedule) => return,
            (None, None) => return,
            _ => {}
        }
        let over = queue.impaired.take();
        queue.impaired = wanted.as_ref().map(|schedule| Box::new(ImpairedRx::new(schedule)));
        if let (Some(mut over), Some(slot)) = (over, slot) {
            over.abandon(&mut slot.delta);
            slot.output.stats.publish(self.now.worker, &mut slot.delta);
        }
    }

    /// Gives up the frames of a queue that goes.
    pub(super) fn end_impaired_rx(&mut self, port: PortId, impaired: Option<Box<ImpairedRx>>) {
        if let (Some(mut impaired), Some(slot)) = (impaired, slot(&mut self.slots, port)) {
            impaired.abandon(&mut slot.delta);
            slot.output.stats.publish(self.now.worker, &mut slot.delta);
        }
    }
}
