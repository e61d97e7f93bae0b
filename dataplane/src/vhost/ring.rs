//! A virtqueue in guest memory, seen from the device: what split and packed rings have in common.
//!
//! **How it works.** A [`Ring`] is a [`SplitRing`] or a [`PackedRing`], as the features say; which one is asked once per
//! burst. Both take what the guest transmits with `receive` and `release` and fill its receive buffers with `send` and
//! `flush`; what a frame in a chain is ([`super::from_guest`]) and how one is written into buffers
//! ([`super::to_guest`]) is the same for both.
//!
//! **Invariants.** Chains are completed strictly in the order they were made available, so VIRTIO_F_IN_ORDER can be
//! offered (one used element per chain is a batch of one), and a ring resumes from what is in guest memory after the
//! switch was stopped or killed, without an in-flight log.
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues", 6 "Reserved Feature Bits".

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use labsw_switch::forward::TxItem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub use super::budget::{BURST_BYTES, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, SEND_DESCRIPTORS};
pub use super::chain::{Direction, MAX_CHAIN_DESCRIPTORS};
pub use super::layout::{LayoutError, MAX_RING_SIZE, RingAddresses, RingLayout};
use super::memory::GuestMemory;
use super::packed::PackedRing;
use super::split::SplitRing;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::stats::PortDelta;
use crate::watchdog::bells;

/// VIRTIO_NET_F_MTU: the device tells the driver its MTU.
pub const F_MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_MRG_RXBUF: a frame may be spread over several receive buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_MQ: several queue pairs.
pub const F_MQ: u64 = 1 << 22;
/// VIRTIO_F_INDIRECT_DESC: chains may continue in a table of their own.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: each side names the index at which it wants a notification.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1: not a legacy device.
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_PACKED: the rings are packed ones.
pub const F_RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER: chains are completed in the order they were made available.
pub const F_IN_ORDER: u64 = 1 << 35;

/// What a guest did to break its ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// More entries available than the ring has.
    #[error("the available index {available} is {ahead} ahead of {next} in a ring of {size}")]
    AvailRanAway {
        /// The guest's index.
        available: u16,
        /// Where the switch is.
        next: u16,
        /// The difference.
        ahead: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// The available ring names a descriptor that does not exist.
    #[error("the available ring names descriptor {head} of {size}")]
    HeadOutside {
        /// Descriptor index.
        head: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A chain leads out of its table.
    #[error("a descriptor chain leads to entry {next} of a table of {entries}")]
    NextOutside {
        /// Descriptor index.
        next: u16,
        /// Entries of the table.
        entries: u32,
    },
    /// A chain loops.
    #[error("a descriptor chain is longer than its table of {limit} entries (a loop)")]
    ChainTooLong {
        /// Entries of the table.
        limit: u32,
    },
    /// A chain is longer than any driver needs.
    #[error("a descriptor chain of more than {MAX_CHAIN_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    /// A buffer lies outside the guest's memory.
    #[error("{len} bytes at guest address {address:#x} are not inside one region of the guest's memory")]
    OutsideMemory {
        /// Guest-physical address.
        address: u64,
        /// Length in bytes.
        len: u32,
    },
    /// An indirect descriptor although the feature is off.
    #[error("an indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor that continues.
    #[error("an indirect descriptor that also has a next one")]
    IndirectNotLast,
    /// An indirect table in an indirect table.
    #[error("an indirect descriptor inside an indirect table")]
    IndirectNested,
    /// An indirect table of impossible length.
    #[error("an indirect table of {len} bytes")]
    IndirectLength {
        /// Length in bytes.
        len: u32,
    },
    /// More slots of a packed ring available than it has.
    #[error("chains of {slots} descriptors are available at once in a packed ring of {size}")]
    SlotsRanAway {
        /// Slots of the chains at hand.
        slots: u32,
        /// Slots of the ring.
        size: u16,
    },
    /// A receive buffer that may not be written.
    #[error("a read-only descriptor in the receive ring")]
    ReceiveBufferReadOnly,
    /// A receive buffer that is shorter than the least the standard allows.
    #[error("a receive buffer of {bytes} bytes, in which the virtio-net header of {header_bytes} does not fit")]
    ReceiveBufferShort {
        /// Its length.
        bytes: u64,
        /// Length of the header.
        header_bytes: u32,
    },
}

/// All a ring needs to start.
#[derive(Clone, Debug)]
pub struct RingSetup {
    /// Where it lies.
    pub layout: RingLayout,
    /// The features acknowledged by the driver.
    pub features: u64,
    /// The guest's doorbell, an eventfd; `None`: the ring has to be polled.
    pub kick: Option<Arc<OwnedFd>>,
    /// The guest's interrupt, an eventfd; `None`: the guest polls.
    pub call: Option<Arc<OwnedFd>>,
}

/// The two eventfds of a ring.
#[derive(Debug)]
pub(super) struct Doorbells {
    /// The guest's doorbell.
    pub(super) kick: Option<Arc<OwnedFd>>,
    /// The guest's interrupt.
    pub(super) call: Option<Arc<OwnedFd>>,
    /// The worker had to be interrupted to get out of ringing the guest's doorbell ([`crate::watchdog`]).
    pub(super) blocks: bool,
}

impl Doorbells {
    pub(super) fn new(kick: Option<Arc<OwnedFd>>, call: Option<Arc<OwnedFd>>) -> Doorbells {
        Doorbells { kick, call, blocks: false }
    }

    /// Interrupts the guest, without ever blocking on it for long.
    pub(super) fn interrupt(&mut self) {
        let Some(call) = &self.call else { return };
        // The front end shares the file and can make a write to a full counter block, so look first. A full counter means
        // that the guest has yet to look; an error means a dead peer, noticed at its socket.
        let mut ready = [PollFd::new(call, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut ready, Some(&now)) == Ok(1)
            && bells::ring(|| rustix::io::write(call, &1u64.to_ne_bytes())) == Err(Errno::INTR)
        {
            self.blocks = true;
        }
    }
}

/// A started ring.
#[derive(Debug)]
pub enum Ring {
    /// Descriptor table, available ring, used ring.
    Split(SplitRing),
    /// One ring of descriptors that both sides write.
    Packed(PackedRing),
}

impl Ring {
    /// Starts where the ring's own memory says it stands, with kicks suppressed. `direction` says which of the guest's
    /// rings it is: its receive ring is [`Direction::ToGuest`].
    pub fn start(setup: RingSetup, direction: Direction) -> Ring {
        if setup.layout.is_packed() {
            Ring::Packed(PackedRing::start(setup, direction))
        } else {
            Ring::Split(SplitRing::start(setup))
        }
    }

    /// Where the next start would resume, as GET_VRING_BASE reports it.
    pub fn base(&self) -> u32 {
        match self {
            Ring::Split(ring) => ring.base(),
            Ring::Packed(ring) => ring.base(),
        }
    }

    /// How many descriptors were read so far of chains that are not a single buffer in a region hit lately: the work that a
    /// guest can cause beyond that of plain frames. Tests hold it against the bounds.
    pub fn descriptors_read(&self) -> u64 {
        match self {
            Ring::Split(ring) => ring.walker.descriptors_read(),
            Ring::Packed(ring) => ring.walker.descriptors_read(),
        }
    }

    /// Whether a chain can be taken, or the guest broke its ring.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        match self {
            Ring::Split(ring) => ring.is_waiting(),
            Ring::Packed(ring) => ring.is_waiting(),
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

    /// Whether the worker had to be interrupted to get out of ringing the guest's doorbell.
    #[inline]
    pub fn doorbell_blocks(&self) -> bool {
        self.doorbells().blocks
    }

    /// The memory the ring lies in.
    pub fn memory(&self) -> &GuestMemory {
        match self {
            Ring::Split(ring) => ring.walker.memory(),
            Ring::Packed(ring) => ring.walker.memory(),
        }
    }

    /// Asks for a kick at the next available chain. Returns true if one is there already, or the ring must be polled.
    pub fn arm(&mut self) -> bool {
        match self {
            Ring::Split(ring) => ring.arm(),
            Ring::Packed(ring) => ring.arm(),
        }
    }

    /// Ends what [`Ring::arm`] began: no more kicks. Those that came stay in the eventfd: it is watched edge-triggered, so
    /// the next kick wakes us all the same, and a read could block the worker (the front end holds the same open file
    /// and can take `O_NONBLOCK` off it at any time).
    pub fn disarm(&mut self) {
        match self {
            Ring::Split(ring) => ring.suppress_kicks(),
            Ring::Packed(ring) => ring.suppress_kicks(),
        }
    }
}

/// Whether `event` was passed when an index moved from `old` to `new` (Virtio 1.2, 2.7.7.2).
#[inline]
pub(super) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
