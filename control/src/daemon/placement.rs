//! Queues given to the workers that [`queues`](super::queues) says, and pinned by hand.

use labsw_dataplane::workers::WorkerError;

use super::Switch;
use crate::api::Error;

impl Switch {
    /// Gives every queue to the worker it belongs to. Frames of a queue that moves wait in it.
    pub(super) fn place_queues(&mut self) -> Result<(), WorkerError> {
        let Switch { ports, fabric, .. } = self;
        fabric.place_queues(ports.iter_mut().map(|(name, port)| (name.as_str(), port.id, &mut port.queues)))
    }

    /// Pins a queue to a worker until its port goes.
    pub(super) fn pin_queue(&mut self, name: &str, queue: u32, worker: u32) -> Result<(), Error> {
        let count = self.fabric.workers.handles().len();
        let port = self.ports.get_mut(name).ok_or_else(|| Error::not_found("port", name))?;
        let queues = port.queues.places.len();
        let index = usize::try_from(queue).unwrap_or(usize::MAX);
        let placed = port.queues.places.get_mut(index).ok_or_else(|| {
            let reason = match queues {
                0 => "has no receive queues while it is out of service".to_owned(),
                _ => format!("there is no queue {queue}; it has {}", numbers("queue", queues)),
            };
            Error::refused(format!("port {name:?}"), reason)
        })?;
        let to = usize::try_from(worker).ok().filter(|worker| *worker < count).ok_or_else(|| {
            let reason = format!("there is no such worker; the switch has {}", numbers("worker", count));
            Error::refused(format!("worker {worker}"), reason)
        })?;
        let before = placed.pinned.replace(to);
        self.place_queues().map_err(|error| {
            let port = self.ports.get_mut(name);
            if let Some(placed) = port.and_then(|port| port.queues.places.get_mut(index)) {
                placed.pinned = before;
            }
            Error::refused("worker", error.to_string())
        })
    }
}

/// `queue 0`, `queues 0 to 3`.
fn numbers(what: &str, count: usize) -> String {
    if count == 1 { format!("{what} 0") } else { format!("{what}s 0 to {}", count.saturating_sub(1)) }
}
