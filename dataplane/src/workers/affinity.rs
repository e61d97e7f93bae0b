//! Which worker serves each receive queue of a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which worker has each receive queue of a port. Written under the switch's lock only.
#[derive(Clone, Debug)]
pub struct QueueAffinity(Arc<[AtomicUsize]>);

impl QueueAffinity {
    /// The affinity of a port whose queues have these workers, by queue.
    pub fn new(workers: impl IntoIterator<Item = usize>) -> QueueAffinity {
        QueueAffinity(workers.into_iter().map(AtomicUsize::new).collect())
    }

    /// Number of queues.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The worker that has `queue`.
    pub fn get(&self, queue: usize) -> Option<usize> {
        self.0.get(queue).map(|worker| worker.load(Ordering::Relaxed))
    }

    /// `queue` is now with `worker`.
    pub fn set(&self, queue: usize, worker: usize) {
        if let Some(home) = self.0.get(queue) {
            home.store(worker, Ordering::Relaxed);
        }
    }
}
