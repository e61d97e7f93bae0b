//! Virtqueues and guest memory, seen from the device: the ring engine. It knows no socket and no protocol.
//!
//! From the bytes outwards: a guest's memory is mapped and guarded ([`memory`], [`memory_limit`], [`sigbus`]); a ring's
//! parts in it are checked once (`layout`); chains of descriptors are followed (`chain`) within bounds (`budget`); what
//! a frame in a chain is (`net`) is the same for split rings (`split`) and packed ones (`packed`); a [`Ring`] is
//! either.
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues" and 5.1 "Network Device".

mod budget;
mod chain;
mod doorbell;
mod error;
pub mod features;
mod layout;
pub mod memory;
pub mod memory_limit;
mod net;
mod packed;
mod ring;
pub mod sigbus;
mod split;

pub use budget::{BURST_BYTES, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, SEND_DESCRIPTORS};
pub use chain::Direction;
pub use error::RingError;
pub use layout::{LayoutError, MAX_CHAIN_DESCRIPTORS, MAX_RING_SIZE, RingAddresses, RingLayout, RingSetup};
pub use net::Sent;
pub use ring::Ring;
