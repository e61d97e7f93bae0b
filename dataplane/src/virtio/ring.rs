//! A virtqueue in guest memory, seen from the device: the operations that split and packed rings share.
//!
//! **How it works.** A [`Ring`] is a [`SplitRing`] or a [`PackedRing`], as the features say; the choice is made once
//! per burst. Both take frames that the guest transmits with `receive` and `release`, and fill its receive buffers with
//! `send` and `flush`. A frame in a chain ([`super::net`]) is the same for both.
//!
//! **Invariants.** Chains are completed strictly in the order they were made available, so VIRTIO_F_IN_ORDER can be
//! offered (one used element per chain is a batch of one), and a ring resumes from what is in guest memory after the
//! switch was stopped or killed, without an in-flight log.
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues", 6 "Reserved Feature Bits".

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use labsw_switch::forward::TxItem;

use super::chain::Direction;
use super::dirty_log::RingLog;
use super::doorbell::Doorbells;
use super::error::RingError;
use super::layout::{RingLayout, RingSetup};
use super::packed::{self, PackedRing};
use super::split::SplitRing;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::stats::PortDelta;

/// A started ring.
#[derive(Debug)]
pub enum Ring {
    /// Descriptor table, available ring, used ring.
    Split(SplitRing),
    /// One ring of descriptors that both sides write.
    Packed(PackedRing),
}

impl Ring {
    /// Starts at the position in the ring's own memory, with kicks suppressed. `direction` tells the guest's receive
    /// ring ([`Direction::ToGuest`]) from its transmit ring.
    pub fn start(setup: RingSetup, direction: Direction) -> Ring {
        if setup.layout.is_packed() {
            Ring::Packed(PackedRing::start(setup, direction))
        } else {
            Ring::Split(SplitRing::start(setup))
        }
    }

    /// The position at which a ring that starts here would resume, as GET_VRING_BASE reports it.
    pub fn resume_position(layout: &RingLayout) -> u32 {
        if layout.is_packed() { packed::resume(layout).base() } else { u32::from(layout.used_index()) }
    }

    /// The position at which the next start would resume, as GET_VRING_BASE reports it.
    pub fn base(&self) -> u32 {
        match self {
            Ring::Split(ring) => ring.base(),
            Ring::Packed(ring) => ring.base(),
        }
    }

    /// Number of descriptors read so far for chains other than a single buffer in a region of the last hits: the work
    /// that a guest can cause beyond plain frames. Tests compare it with the bounds.
    pub fn descriptors_read(&self) -> u64 {
        match self {
            Ring::Split(ring) => ring.walker.descriptors_read(),
            Ring::Packed(ring) => ring.walker.descriptors_read(),
        }
    }

    /// True if a chain can be taken, or the guest broke its ring.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        match self {
            Ring::Split(ring) => ring.is_waiting(),
            Ring::Packed(ring) => ring.is_waiting(),
        }
    }

    /// Passes over chains that another device completed while the switch was away. Only while no chain is lent.
    pub fn pass_done(&mut self) {
        match self {
            // A split ring has its position in the used index, which every device keeps.
            Ring::Split(_) => {}
            Ring::Packed(ring) => ring.pass_done(),
        }
    }

    /// Lends the frames that have arrived to `burst`, up to 64, until [`Ring::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        match self {
            Ring::Split(ring) => ring.receive(burst, stats),
            Ring::Packed(ring) => ring.receive(burst, stats),
        }
    }

    /// Completes all chains lent to the burst.
    pub fn release(&mut self) {
        match self {
            Ring::Split(ring) => ring.release(),
            Ring::Packed(ring) => ring.release(),
        }
    }

    /// Copies frames of a burst into the guest's next buffers, in order, and reports each. The guest sees them after
    /// [`Ring::flush`]. After an error no frame was reported as sent.
    pub fn send(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), RingError> {
        match self {
            Ring::Split(ring) => ring.send(burst, items, report),
            Ring::Packed(ring) => ring.send(burst, items, report),
        }
    }

    /// Shows the guest all frames written since the last call.
    pub fn flush(&mut self) {
        match self {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => ring.publish(),
        }
    }

    /// Replaces the guest's interrupt.
    pub fn set_call(&mut self, call: Option<Arc<OwnedFd>>) {
        match self {
            Ring::Split(ring) => ring.set_call(call),
            Ring::Packed(ring) => ring.set_call(call),
        }
    }

    /// Interrupts the guest, whether or not it asks for that: it may have missed an interrupt.
    pub fn interrupt(&mut self) {
        match self {
            Ring::Split(ring) => ring.doorbells.interrupt(),
            Ring::Packed(ring) => ring.doorbells.interrupt(),
        }
    }

    fn doorbells(&self) -> &Doorbells {
        match self {
            Ring::Split(ring) => &ring.doorbells,
            Ring::Packed(ring) => &ring.doorbells,
        }
    }

    /// The guest's doorbell.
    pub fn kick_fd(&self) -> Option<RawFd> {
        self.doorbells().kick.as_ref().map(|fd| fd.as_raw_fd())
    }

    /// True if the watchdog had to interrupt the worker while it rang the guest's doorbell.
    #[inline]
    pub fn doorbell_blocks(&self) -> bool {
        self.doorbells().blocks
    }

    /// Makes the ring log the pages that it writes from now on, or stop logging.
    pub fn set_log(&mut self, log: Option<RingLog>) {
        match self {
            Ring::Split(ring) => ring.log = log,
            Ring::Packed(ring) => ring.log = log,
        }
    }

    /// Names the memory of the front end that was replaced because its file was truncated, if any was.
    pub fn truncated(&self) -> Option<&'static str> {
        let (memory, log) = match self {
            Ring::Split(ring) => (ring.walker.memory(), &ring.log),
            Ring::Packed(ring) => (ring.walker.memory(), &ring.log),
        };
        if memory.poisoned() {
            Some("memory file")
        } else {
            log.as_ref().is_some_and(RingLog::poisoned).then_some("dirty log")
        }
    }

    /// Asks for a kick at the next available chain. Returns true if one is there already, or the ring must be polled.
    pub fn arm(&mut self) -> bool {
        match self {
            Ring::Split(ring) => ring.arm(),
            Ring::Packed(ring) => ring.arm(),
        }
    }

    /// Ends the effect of [`Ring::arm`]: no more kicks. Kicks that arrived stay in the eventfd. It is watched
    /// edge-triggered, so the next kick wakes the worker nevertheless, and a read could block the worker (the front end
    /// holds the same open file and can take `O_NONBLOCK` off it at any time).
    pub fn disarm(&mut self) {
        match self {
            Ring::Split(ring) => ring.suppress_kicks(),
            Ring::Packed(ring) => ring.suppress_kicks(),
        }
    }
}
