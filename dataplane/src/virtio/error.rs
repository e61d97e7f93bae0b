//! The rules of a virtqueue that a guest can break.
//!
//! After a [`RingError`] the ring must not be used any more; its port is reset.

use super::layout::MAX_CHAIN_DESCRIPTORS;

/// The rule that a guest broke.
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
