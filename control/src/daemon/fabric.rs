//! The workers and the state that they share: the tables in force, the forwarding database, the counters of mirrors.

use std::collections::BTreeSet;
use std::sync::Arc;

use labsw_dataplane::fast_path::FastPath;
use labsw_dataplane::port::RxQueue;
use labsw_dataplane::stats::MirrorSnapshot;
use labsw_dataplane::worker::{Output, Shared, Snapshot};
use labsw_dataplane::workers::WorkerHandle;
use labsw_dataplane::workers::load::{LoadSnapshot, Pulse};
use labsw_dataplane::workers::{WorkerError, Workers};
use labsw_switch::tables::Tables;
use labsw_switch::{MirrorId, PortId};

use super::queues::{Placed, Queues, place};
use crate::config::SwitchConfig;

/// The workers and the state that they share.
pub(super) struct Fabric {
    pub(super) workers: Workers,
    pub(super) shared: Shared,
    /// The memory that programs in the kernel read, too, if there is one.
    pub(super) fast_path: Option<Arc<FastPath>>,
    /// The tables in force.
    pub(super) tables: Arc<Tables>,
    /// The load of each worker: now, and a second ago.
    pub(super) loads: Vec<[LoadSnapshot; 2]>,
    /// Ids of ports that a worker did not give back in time. No other port ever gets them.
    pub(super) unreturned: BTreeSet<PortId>,
}

impl Fabric {
    /// A fabric with empty tables.
    pub(super) fn new(workers: Workers, shared: Shared, fast_path: Option<Arc<FastPath>>) -> Fabric {
        let loads = workers.handles().iter().map(|worker| [worker.load(); 2]).collect();
        Fabric { workers, shared, fast_path, tables: Arc::new(Tables::empty()), loads, unreturned: BTreeSet::new() }
    }

    /// Puts tables and transmit sides in force at all workers.
    pub(super) fn set_snapshot(&mut self, tables: Tables, outputs: Arc<[Option<Output>]>) -> Result<(), WorkerError> {
        self.tables = Arc::new(tables);
        let snapshot = Snapshot { tables: Arc::clone(&self.tables), outputs };
        self.workers.links().set_snapshot(&snapshot)
    }

    /// Gives every queue of all ports to its worker. Frames of a queue that moves wait in the queue.
    pub(super) fn place_queues<'a>(
        &self,
        ports: impl Iterator<Item = (&'a str, PortId, &'a mut Queues)>,
    ) -> Result<(), WorkerError> {
        let links = self.workers.links();
        let ports: Vec<_> = ports.collect();
        let all: Vec<Placed> = ports.iter().flat_map(|(_, _, queues)| queues.places.iter().copied()).collect();
        let mut targets = place(links.count(), &all).into_iter();
        let mut outcome = Ok(());
        for (name, id, queues) in ports {
            let Queues { places, affinity, waiting } = queues;
            for (queue, ((placed, waiting), to)) in places.iter_mut().zip(waiting).zip(&mut targets).enumerate() {
                let result = match (placed.home, waiting.take()) {
                    (Some(home), _) if home == to => continue,
                    (Some(home), _) => links.move_queue(id, queue, home, to),
                    (None, Some(rx)) => links.add_queue(to, id, queue, rx),
                    (None, None) => continue,
                };
                match result {
                    Ok(()) => {
                        tracing::debug!(port = name, queue, worker = to, "queue placed");
                        placed.home = Some(to);
                        affinity.set(queue, to);
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        outcome
    }

    /// Takes the queues of a port from their workers; dropping them closes them. The port is in no table any more, or
    /// has no transmit side there. The result is an error if a worker did not give back its queues.
    pub(super) fn take_queues(
        &self,
        id: PortId,
        queues: &mut Queues,
    ) -> (Vec<Box<dyn RxQueue>>, Result<(), WorkerError>) {
        let links = self.workers.links();
        let mut outcome = Ok(());
        let mut taken: Vec<_> = queues.waiting.drain(..).flatten().collect();
        for (queue, placed) in queues.places.drain(..).enumerate() {
            let Some(home) = placed.home else { continue };
            match links.take_queue(home, id, queue) {
                Ok(rx) => taken.push(rx),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        (taken, outcome)
    }

    /// The counters of a mirror's slot.
    pub(super) fn mirror_slot(&self, id: MirrorId) -> MirrorSnapshot {
        self.shared.mirrors.get(id.index()).map(|stats| stats.snapshot()).unwrap_or_default()
    }

    /// The progress marks of all workers.
    pub(super) fn pulses(&self) -> Vec<Pulse> {
        self.workers.handles().iter().map(WorkerHandle::pulse).collect()
    }

    /// Updates, once a second, the load of workers and the ageing of addresses.
    pub(super) fn every_second(&mut self, sweep_slots: usize) {
        self.workers.rouse_if_stuck();
        for (load, worker) in self.loads.iter_mut().zip(self.workers.handles()) {
            *load = [worker.load(), load[0]];
        }
        self.shared.fdb.sweep(labsw_dataplane::clock::now_seconds(), sweep_slots);
    }
}

/// The ageing time of learned addresses, in seconds.
pub(super) fn ageing_seconds(config: &SwitchConfig) -> u32 {
    u32::try_from(config.mac_ageing.as_secs()).unwrap_or(u32::MAX)
}
