//! The rings of a vhost-user port that lives in the workers, as its session reaches them.
//!
//! The guest's transmit rings are receive queues of the port: an operation on one travels to its worker as a
//! [`QueueTask`] and is carried out between two turns. The guest's receive rings are operated on right here, under
//! their locks.
//!
//! **Invariant.** An operation has been carried out, or has failed, when [`Rings::operate`] returns.

use std::any::Any;
use std::sync::Arc;

use labsw_switch::PortId;

use super::operation::{Rings, RingsError, VhostOp, VhostReply};
use super::port::{VhostRx, VhostTx};
use crate::sync::channel::{Receiver, bounded};
use crate::watchdog::PATIENCE;
use crate::worker::{Command, QueueTask};
use crate::workers::{Links, QueueAffinity, WorkerError};

/// The rings of a vhost-user port that lives in the workers.
#[derive(Debug)]
pub struct PortRings {
    links: Links,
    port: PortId,
    tx: Arc<VhostTx>,
    affinity: QueueAffinity,
}

impl PortRings {
    /// The rings of `port`: those that frames leave by, and those that its queues are, which lie with the workers in
    /// `affinity`.
    pub fn new(links: Links, port: PortId, tx: Arc<VhostTx>, affinity: QueueAffinity) -> PortRings {
        PortRings { links, port, tx, affinity }
    }

    /// Has the worker of a queue carry out an operation; its answer comes later.
    fn ask(&self, queue: usize, worker: usize, op: VhostOp) -> Result<Receiver<VhostReply>, WorkerError> {
        let (reply, answered) = bounded(1);
        let task = QueueTask::new(move |rx| {
            let rx: &mut dyn Any = rx;
            if let Some(rx) = rx.downcast_mut::<VhostRx>() {
                // The thread that asked may have given up.
                let _ = reply.send(rx.operate(op));
            }
        });
        self.links.send(worker, Command::OnQueue { port: self.port, queue, task })?;
        Ok(answered)
    }

    /// Carries out an operation on the guest's receive rings.
    fn operate_tx(&self, op: VhostOp) -> Result<VhostReply, RingsError> {
        let reply = self.tx.operate(op, &mut || self.links.rouse());
        reply.ok_or_else(|| RingsError { reason: format!("a ring was in use for {} s", PATIENCE.as_secs()) })
    }

    fn operate_rx(&self, queue: usize, op: VhostOp) -> Result<VhostReply, RingsError> {
        let Some(worker) = self.affinity.get(queue) else { return Ok(VhostReply::NoSuchRing) };
        let answer = self.ask(queue, worker, op).and_then(|answered| self.answer(queue, worker, &answered));
        answer.map_err(|error| RingsError { reason: error.to_string() })
    }

    fn answer(&self, queue: usize, worker: usize, answered: &Receiver<VhostReply>) -> Result<VhostReply, WorkerError> {
        self.links.answer(worker, answered)?.ok_or(WorkerError::NoQueue { worker, queue })
    }

    /// Stops all rings, whatever fails.
    fn reset(&self) -> Result<VhostReply, RingsError> {
        let affinity = (0..self.affinity.count()).filter_map(|queue| Some((queue, self.affinity.get(queue)?)));
        // All workers are asked before the first is waited for.
        let asked: Vec<_> =
            affinity.map(|(queue, worker)| (queue, worker, self.ask(queue, worker, VhostOp::Reset))).collect();
        let mut outcome = self.operate_tx(VhostOp::Reset);
        for (queue, worker, asked) in asked {
            let answer = asked.and_then(|answered| self.answer(queue, worker, &answered));
            outcome = outcome.and_then(|_| answer.map_err(|error| RingsError { reason: error.to_string() }));
        }
        outcome
    }
}

impl Rings for PortRings {
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError> {
        match op.ring() {
            None => self.reset(),
            Some(index) if index % 2 == 0 => self.operate_tx(op),
            Some(index) => self.operate_rx(usize::from(index / 2), op),
        }
    }
}
