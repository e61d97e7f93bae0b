//! Virtqueues and guest memory, seen from the device: the ring engine. It knows no socket and no protocol.
//!
//! From the bytes outwards: a guest's memory is mapped and guarded (`mapping`, [`memory`], [`memory_limit`],
//! [`sigbus`]); a ring's parts in it are checked once (`layout`); chains of descriptors are followed (`chain`) within
//! bounds (`budget`); a frame in a chain (`net`) looks the same in split rings (`split`) and packed ones (`packed`); a
//! [`Ring`] is either. While a front end saves or moves its guest, rings mark the pages they write ([`dirty_log`]).
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues" and 5.1 "Network Device".

mod budget;
mod chain;
pub mod dirty_log;
mod doorbell;
mod error;
pub mod features;
pub mod header;
mod layout;
mod mapping;
pub mod memory;
pub mod memory_limit;
mod net;
mod packed;
mod ring;
mod sent;
pub mod sigbus;
mod split;

pub use budget::{BURST_BYTES, BURST_DESCRIPTORS, FRAME_DESCRIPTORS, SEND_DESCRIPTORS};
pub use chain::Direction;
pub use error::RingError;
pub use layout::{LayoutError, MAX_CHAIN_DESCRIPTORS, MAX_RING_SIZE, RingAddresses, RingLayout, RingSetup};
pub use ring::Ring;
pub use sent::Sent;
