//! What a port is to the workers: receive queues, each owned by one worker, and a transmit side shared by all.
//!
//! A worker calls, per receive queue and turn: [`RxQueue::receive`] → (decide) → [`TxPort::send`] on each egress →
//! [`RxQueue::release`]. Neither half ever blocks, except on the short locks inside a transmit side, which are taken
//! once per burst and ring.
//!
//! **Faults.** Whoever meets one puts the half concerned out of service ([`RxQueue::fail`]; a transmit side does it
//! itself) and tells the control thread, which resets the rest. A [`Fault`] names the connection it was met on, so that
//! a late one does not throw out the next peer.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use labsw_switch::forward::TxItem;

use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::stats::PortDelta;
use crate::vhost::VhostRx;

/// A port that can't go on with its present peer. No other port is touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// One clause for people: what the peer or the device did.
    pub reason: String,
    /// Which peer ([`next_connection`]).
    pub connection: u64,
}

impl Fault {
    /// A fault of this connection for this reason.
    pub fn new(connection: u64, reason: impl Into<String>) -> Fault {
        Fault { reason: reason.into(), connection }
    }
}

/// A number for a new connection of a port with a peer or a device, different from all others of this process.
pub fn next_connection() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Which worker sends, of how many; it decides which of a port's transmit rings the worker uses. Where there are at
/// least as many rings as workers each worker has rings of its own, so that no lock is ever waited for; otherwise all
/// share all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The worker, from 0.
    pub worker: usize,
    /// Number of workers, at least one.
    pub workers: usize,
}

impl Lane {
    /// The lane of a worker that is alone.
    pub const ONLY: Lane = Lane { worker: 0, workers: 1 };

    /// How many of `rings` this worker uses.
    #[inline]
    pub fn count(self, rings: usize) -> usize {
        if rings < self.workers { rings } else { (rings - self.worker).div_ceil(self.workers) }
    }

    /// The `nth` of those.
    #[inline]
    pub fn ring(self, nth: usize, rings: usize) -> usize {
        if rings < self.workers { nth } else { self.worker + nth * self.workers }
    }
}

/// The receiving half of one queue, owned by one worker.
pub trait RxQueue: Send + std::fmt::Debug {
    /// Whether anything may have arrived: a look so cheap that a worker with many silent queues has time left for the
    /// others. [`RxQueue::receive`] is called only after a yes.
    fn is_waiting(&self) -> bool {
        true
    }

    /// Appends what has arrived to the empty `burst`, up to 64 frames, and counts it. The frames stay borrowed until
    /// [`RxQueue::release`] is called with the same burst.
    fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault>;

    /// Gives the frames of `burst` back to where they came from, except those marked as moved, and clears it.
    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault>;

    /// Work that has to be done even without traffic. Called at most every few milliseconds.
    fn tick(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// How long the queue can go without a tick while nothing arrives; `None`: for ever. Asked before each sleep, right
    /// after a tick.
    fn tick_within(&self) -> Option<Duration> {
        None
    }

    /// Asks the peer for a notification on the next frame. Returns true if a frame is already waiting (then don't sleep).
    fn arm(&mut self) -> bool;

    /// Ends what [`RxQueue::arm`] began.
    fn disarm(&mut self);

    /// The descriptor that becomes readable when the armed queue has work. Valid until the queue changes or is dropped.
    fn wait_fd(&self) -> Option<RawFd>;

    /// Lets go of the peer after a fault: nothing is received until the control thread has seen to it.
    fn fail(&mut self);

    /// The vhost-user queue behind this, if it is one.
    fn as_vhost(&mut self) -> Option<&mut VhostRx> {
        None
    }
}

/// The transmit side of a port, shared by all workers.
pub trait TxPort: Send + Sync + std::fmt::Debug {
    /// Sends frames of a burst and reports each as sent or as lost for a reason. Frames of one flow leave in order.
    ///
    /// `sole` has a bit set for each frame that has no other taker, so that its buffer may be moved ([`Burst::take`]).
    /// All frames of one call are published to the peer before it returns (one index store and at most one doorbell per
    /// ring).
    ///
    /// # Errors
    /// A [`Fault`]: the part concerned is out of service, and the frames that had not left before are lost as
    /// `not_connected`.
    fn send(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault>;

    /// As [`TxPort::send`], for callers who need no reasons: returns the set of lost frames (bit = index in the burst).
    ///
    /// # Errors
    /// As [`TxPort::send`].
    fn send_set(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        let mut losses = Losses::NONE;
        self.send(lane, burst, items, sole, &mut TxReport { stats, losses: &mut losses })?;
        Ok(losses.frames())
    }

    /// What may be left to do in the frames it is given; all others have to be finished.
    fn offers(&self) -> Offers {
        Offers::NONE
    }

    /// Work that has to be done even without traffic (reap completions, kick a stuck ring). Any worker calls it at any
    /// time; what another worker is at already is left to that one.
    fn tick(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// How long the port can go without a tick while nothing is sent; `None`: for ever. Asked before each sleep of any
    /// worker, right after a tick.
    fn tick_within(&self) -> Option<Duration> {
        None
    }
}

/// Locks; what a panicking thread left is used as it is.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ring_has_one_worker_if_there_are_enough_and_all_otherwise() {
        for workers in 1..10 {
            for rings in 0..20 {
                let mut users = vec![0; rings];
                for worker in 0..workers {
                    let lane = Lane { worker, workers };
                    (0..lane.count(rings)).for_each(|nth| users[lane.ring(nth, rings)] += 1);
                    assert!(rings == 0 || lane.count(rings) > 0);
                }
                let each = if rings >= workers { 1 } else { workers };
                assert!(users.iter().all(|&count| count == each), "{rings} rings, {workers} workers: {users:?}");
            }
        }
    }
}
