//! Impairments in the worker: which ports and queues have one, and when their frames are due.
//!
//! Frames to a port are impaired by its transmit side ([`ImpairedTx`](crate::impair::ImpairedTx)); after each turn the
//! worker looks for frames that are due there. Frames from a port are impaired before anything is decided about them: a
//! queue with an impairment has an [`ImpairedRx`], which receives in its place.

use std::sync::Arc;

use labsw_switch::PortId;

use super::command::ControlEnds;
use super::ports::{Ports, Slot};
use super::queue::Queue;
use crate::clock::NEVER;
use crate::impair::ImpairedRx;
use crate::port::Turn;

/// The ports with an impairment before their transmit side.
#[derive(Debug)]
pub(super) struct Impairments(Vec<PortId>);

impl Impairments {
    pub(super) fn new() -> Impairments {
        Impairments(Vec::new())
    }

    /// Sends delayed frames that are due.
    #[inline]
    pub(super) fn send_due(&self, turn: &Turn, ports: &mut Ports, control: &ControlEnds) {
        if !self.0.is_empty() {
            self.look_for_due(turn, ports, control);
        }
    }

    #[cold]
    fn look_for_due(&self, turn: &Turn, ports: &mut Ports, control: &ControlEnds) {
        for &id in &self.0 {
            if next_sent(id, turn, ports) <= turn.now_ns {
                ports.run_due(id, turn, control);
            }
        }
    }

    /// When this worker has a delayed frame to send or to receive, ns.
    pub(super) fn next_due(&self, turn: &Turn, ports: &Ports, queues: &[Queue]) -> u64 {
        let sent = self.0.iter().map(|id| next_sent(*id, turn, ports));
        let received = queues.iter().filter_map(|queue| queue.impaired.as_ref()).map(|impaired| impaired.next_due());
        sent.chain(received).min().unwrap_or(NEVER)
    }

    /// Gives every queue the impairment that its port has, and gives up the frames of impairments that are over.
    /// `before` has the slots that `ports` had.
    pub(super) fn set(&mut self, before: Vec<Option<Slot>>, ports: &mut Ports, queues: &mut [Queue], worker: usize) {
        self.0.clear();
        self.0.extend(ports.iter().filter(|(_, slot)| slot.output.impaired_tx().is_some()).map(|(id, _)| id));
        for (id, old) in (0..).map(PortId).zip(before) {
            let Some(mut old) = old else { continue };
            let Some(over) = old.output.impaired_tx().cloned() else { continue };
            let now = ports.get(id).and_then(|slot| slot.output.impaired_tx());
            if !now.is_some_and(|now| Arc::ptr_eq(now, &over)) {
                over.abandon(&mut old.delta);
                old.publish(worker);
            }
        }
        for queue in queues {
            set_rx(queue, ports, worker);
        }
    }
}

/// When this worker has a delayed frame to send to this port, ns.
fn next_sent(id: PortId, turn: &Turn, ports: &Ports) -> u64 {
    let delay = ports.get(id).and_then(|slot| slot.output.impaired_tx());
    delay.map_or(NEVER, |delay| delay.next_due(turn.worker))
}

/// Gives the queue the impairment that its port has.
pub(super) fn set_rx(queue: &mut Queue, ports: &mut Ports, worker: usize) {
    let wanted = ports.get(queue.port).and_then(|slot| slot.output.impaired_rx.clone());
    match (&queue.impaired, &wanted) {
        (Some(impaired), Some(schedule)) if impaired.follows(schedule) => return,
        (None, None) => return,
        _ => {}
    }
    end_rx(queue, ports, worker);
    queue.impaired = wanted.as_ref().map(|schedule| Box::new(ImpairedRx::new(schedule)));
}

/// Ends the impairment of a queue, if it has one, and gives up the frames that wait there.
pub(super) fn end_rx(queue: &mut Queue, ports: &mut Ports, worker: usize) {
    if let (Some(mut impaired), Some(slot)) = (queue.impaired.take(), ports.get_mut(queue.port)) {
        impaired.abandon(&mut slot.delta);
        slot.publish(worker);
    }
}
