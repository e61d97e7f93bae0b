//! A port as the workers see it: receive queues, each owned by one worker, and a transmit side shared by all.
//!
//! A worker calls, per receive queue and turn: [`RxQueue::receive`] → (decide) → [`TxPort::send`] on each egress
//! → [`RxQueue::release`]. Neither half ever blocks, except on the short locks inside a transmit side, which are
//! taken once per burst and ring.
//!
//! **Faults.** The finder of a fault puts the broken half out of service ([`RxQueue::fail`]; a transmit side does it
//! itself) and tells the control thread, which resets the rest. A [`Fault`] names the connection on which it was found,
//! so that a late fault does not disconnect the next peer.
//!
//! **A driver** is these two traits and nothing else. This one moves frames through queues in memory:
//!
//! ```
//! use std::collections::VecDeque;
//! use std::os::fd::RawFd;
//! use std::sync::{Arc, Mutex};
//!
//! use labsw_dataplane::frame::Burst;
//! use labsw_dataplane::losses::TxReport;
//! use labsw_dataplane::port::{Fault, RxQueue, Turn, TxPort};
//! use labsw_dataplane::stats::PortDelta;
//! use labsw_switch::DropReason;
//! use labsw_switch::forward::{TagEdit, TxItem};
//!
//! type Frames = Arc<Mutex<VecDeque<Vec<u8>>>>;
//!
//! #[derive(Debug)]
//! struct MemoryRx(Frames);
//!
//! impl RxQueue for MemoryRx {
//!     fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
//!         let mut frames = self.0.lock().unwrap();
//!         while !burst.is_full()
//!             && let Some(frame) = frames.pop_front()
//!         {
//!             stats.received(frame.len() as u32);
//!             // A driver whose frames stay where they are lends them (`Burst::push`); this one has them copied.
//!             if !burst.push_copy(0, &frame) {
//!                 stats.drop(DropReason::Oversize);
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
//!         burst.clear();
//!         Ok(())
//!     }
//!
//!     fn arm(&mut self, _turn: &Turn) -> bool {
//!         !self.0.lock().unwrap().is_empty()
//!     }
//!
//!     fn disarm(&mut self) {}
//!
//!     fn wait_fd(&self) -> Option<RawFd> {
//!         None
//!     }
//!
//!     fn fail(&mut self) {}
//! }
//!
//! #[derive(Debug)]
//! struct MemoryTx(Frames);
//!
//! impl TxPort for MemoryTx {
//!     fn send(
//!         &self,
//!         _turn: &Turn,
//!         burst: &mut Burst,
//!         items: &[TxItem],
//!         report: &mut TxReport<'_>,
//!     ) -> Result<(), Fault> {
//!         let mut frames = self.0.lock().unwrap();
//!         for item in items {
//!             let Some(mut reader) = burst.reader(item) else {
//!                 report.lose(item.frame, DropReason::Runt);
//!                 continue;
//!             };
//!             if frames.len() == 2 {
//!                 report.lose(item.frame, DropReason::TxRingFull);
//!                 continue;
//!             }
//!             let mut frame = vec![0; reader.remaining() as usize];
//!             reader.read_to(&mut frame);
//!             report.sent(frame.len() as u32);
//!             frames.push_back(frame);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let (arrived, sent) = (Frames::default(), Frames::default());
//! arrived.lock().unwrap().extend([vec![1; 60], vec![2; 60], vec![3; 60]]);
//! let (mut rx, tx) = (MemoryRx(arrived), MemoryTx(Arc::clone(&sent)));
//! let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
//! rx.receive(&Turn::ONLY, &mut burst, &mut stats)?;
//! let items = [0, 1, 2].map(|frame| TxItem::whole(frame, TagEdit::KEEP));
//! let lost = tx.send_set(&Turn::ONLY, &mut burst, &items, &mut stats)?;
//! rx.release(&mut burst)?;
//! assert_eq!((lost, stats.rx_frames, stats.tx_frames), (0b100, 3, 2));
//! assert_eq!(*sent.lock().unwrap(), [vec![1; 60], vec![2; 60]]);
//! # Ok::<(), Fault>(())
//! ```

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use labsw_switch::forward::TxItem;

use crate::clock::NEVER;
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::stats::PortDelta;

/// A port that can't go on with its present peer. No other port is touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// The action of the peer or the device that is at fault, as one clause for people.
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

/// One turn of a worker: which worker it is, of how many, and the time at which the turn began.
///
/// Ports get the time from here and never ask the clock themselves, so that whatever one turn does happens at one time
/// and tests need not wait. Only a delay is counted from [`Turn::arrival_ns`]. The number of the worker decides which
/// of a port's transmit rings it uses. Where there are at least as many rings as workers, each worker has rings of its
/// own, so that no lock is ever waited for; otherwise all share all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The worker, from 0.
    pub worker: usize,
    /// Number of workers, at least one.
    pub workers: usize,
    /// The time in nanoseconds of the [clock](crate::clock).
    pub now_ns: u64,
    /// The clock goes on during the turn. It stands still where the driver of the turns decides the time.
    pub clock_runs: bool,
}

impl Turn {
    /// A turn of a worker that is alone, at time 0.
    pub const ONLY: Turn = Turn { worker: 0, workers: 1, now_ns: 0, clock_runs: false };

    /// The time by which every frame that was received in this turn so far had arrived, ns. A frame may arrive after
    /// the turn began, and a delay that were counted from the beginning would be too short.
    pub fn arrival_ns(&self) -> u64 {
        if self.clock_runs { crate::clock::now_ns().max(self.now_ns) } else { self.now_ns }
    }

    /// How many of `rings` this worker uses.
    #[inline]
    pub fn count(&self, rings: usize) -> usize {
        if rings < self.workers { rings } else { (rings - self.worker).div_ceil(self.workers) }
    }

    /// The `nth` of those.
    #[inline]
    pub fn ring(&self, nth: usize, rings: usize) -> usize {
        if rings < self.workers { nth } else { self.worker + nth * self.workers }
    }
}

/// The receiving half of one queue, owned by one worker.
pub trait RxQueue: Any + Send + std::fmt::Debug {
    /// True if anything may have arrived: a look so cheap that a worker with many silent queues has time left for the
    /// others. [`RxQueue::receive`] is called only after a yes.
    fn is_waiting(&self, _turn: &Turn) -> bool {
        true
    }

    /// Appends what has arrived to the empty `burst`, up to 64 frames, and counts it. The frames stay borrowed until
    /// [`RxQueue::release`] is called with the same burst.
    fn receive(&mut self, turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault>;

    /// Gives the frames of `burst` back to where they came from, except those marked as moved, and clears it.
    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault>;

    /// The time (ns) by which the queue needs [`RxQueue::run_due`] even if nothing arrives; [`NEVER`] if it does not.
    /// Asked before each sleep, right after a `run_due`.
    fn next_due(&self, _turn: &Turn) -> u64 {
        NEVER
    }

    /// Does timed work, even without traffic. While there is traffic the worker calls it every few milliseconds, even
    /// before `next_due`.
    fn run_due(&mut self, _turn: &Turn) -> Result<(), Fault> {
        Ok(())
    }

    /// Asks the peer for a notification on the next frame. Returns true if a frame is already waiting (then don't
    /// sleep).
    fn arm(&mut self, turn: &Turn) -> bool;

    /// Ends the effect of [`RxQueue::arm`].
    fn disarm(&mut self);

    /// The descriptor that becomes readable when the armed queue has work. Valid until the queue changes or is dropped.
    fn wait_fd(&self) -> Option<RawFd>;

    /// Lets go of the peer after a fault: nothing is received until the control thread has seen to it.
    fn fail(&mut self);
}

/// The transmit side of a port, shared by all workers.
pub trait TxPort: Send + Sync + std::fmt::Debug {
    /// Sends frames of a burst and reports each as sent or as lost for a reason. Frames of one flow leave in order.
    ///
    /// The buffer of a frame that no other port gets may be moved ([`Burst::may_take`]). All frames of one call are
    /// published to the peer before it returns (one index store and at most one doorbell per ring).
    ///
    /// # Errors
    /// A [`Fault`]: the part concerned is out of service, and the frames that had not left before are lost as
    /// `not_connected`.
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault>;

    /// Like [`TxPort::send`], for callers who need no reasons: returns the set of lost frames (bit = index in the
    /// burst).
    ///
    /// # Errors
    /// The errors of [`TxPort::send`].
    fn send_set(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], stats: &mut PortDelta) -> Result<u64, Fault> {
        let mut losses = Losses::NONE;
        self.send(turn, burst, items, &mut TxReport { stats, losses: &mut losses })?;
        Ok(losses.frames())
    }

    /// The offloads that may be left to do in the frames given to the port; all others have to be finished.
    fn offers(&self) -> Offers {
        Offers::NONE
    }

    /// The time (ns) by which this worker must call [`TxPort::run_due`] even if nothing is sent; [`NEVER`] if it need
    /// not. Asked before each sleep of any worker, right after a `run_due`.
    fn next_due(&self, _turn: &Turn) -> u64 {
        NEVER
    }

    /// Does timed work, even without traffic: sends frames that waited, reaps completions, kicks a stuck ring. Any
    /// worker calls it at any time; work that another worker is at already is left to that one. The outcome for frames
    /// that had waited is counted in `stats`.
    fn run_due(&self, _turn: &Turn, _stats: &mut PortDelta) -> Result<(), Fault> {
        Ok(())
    }
}

/// Takes frames of a burst: a port, or whatever else frames are prepared for (a capture, an impairment).
pub(crate) trait FrameSink {
    /// Takes the frames of `items`, and reports those it loses. As [`TxPort::send`], except that no buffer may be
    /// moved.
    fn take(&mut self, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault>;
}

/// A port as a sink.
pub(crate) struct PortSink<'a> {
    pub(crate) tx: &'a dyn TxPort,
    pub(crate) turn: &'a Turn,
}

impl FrameSink for PortSink<'_> {
    fn take(&mut self, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        self.tx.send(self.turn, burst, items, report)
    }
}

/// Locks the mutex; the state that a panicking thread left is used unchanged.
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
                    let turn = Turn { worker, workers, ..Turn::ONLY };
                    (0..turn.count(rings)).for_each(|nth| users[turn.ring(nth, rings)] += 1);
                    assert!(rings == 0 || turn.count(rings) > 0);
                }
                let each = if rings >= workers { 1 } else { workers };
                assert!(users.iter().all(|&count| count == each), "{rings} rings, {workers} workers: {users:?}");
            }
        }
    }
}
