//! Offloads in software: what a guest left to its "network card" is finished here.
//!
//! A guest that was offered checksum, TCP and UDP segmentation offload sends frames that are not finished: the checksum
//! field holds the sum of the pseudo-header only, and one frame carries the payload of up to 64 KiB of segments. Such a
//! frame travels with its [`Request`]; only an egress that cannot pass the request on resolves it:
//!
//! - [`Request`] is the virtio-net header, checked and typed, and back; [`Offers`] is what one side may ask for, and
//!   [`Request::resolve`] compares the two. [`Asked`] is a request that fits its frame, as the frame carries it.
//! - [`finish_checksum`] completes a partial checksum; [`Sum`] is the arithmetic.
//! - [`Cutter`] cuts a frame into segments; it finds its way by [`Layout`].
//! - [`Coalescer`] is the reverse: it merges segments of one flow into one frame with a request.
//!
//! **Invariants.**
//! - Pure functions over bytes: nothing here holds or reads foreign memory. The headers are the caller's own copy,
//!   taken once.
//! - No allocation, and no panic on any input: an impossible request is [`Refused`] with a reason.
//! - What the switch decides by is never written: a checksum is only finished where TCP or UDP keeps one, behind the
//!   ports of the outermost header ([`Asked::admit`]).
//! - A checksum that nobody asked to finish is never touched. A sum that the guest left wrong stays wrong.
//!
//! References: Virtio 1.2, 5.1.6 "Device Operation"; RFC 1071, RFC 1624 (checksums); RFC 9293 (TCP), RFC 791, RFC 8200,
//! RFC 3168 (CWR). Where these leave a choice, the one of the Linux kernel's software segmentation is taken, with which
//! `tests/offload_kernel.rs` compares byte by byte.

mod asked;
mod coalesce;
mod finish;
mod gso;
mod layout;
mod refused;
mod request;
mod segment;
mod sum;
#[cfg(any(test, feature = "testkit"))]
pub mod whole;

pub use asked::Asked;
pub use coalesce::{Coalescer, Merged};
pub use finish::finish_checksum;
pub use gso::{Gso, GsoKind, MAX_SEGMENTS, MAX_UDP_SEGMENTS_PASSED, MIN_SEGMENT_BYTES, Partial};
pub use layout::{Layout, MAX_HEADER_BYTES, OUTER_BYTES};
pub use refused::Refused;
pub use request::{HEADER_BYTES, Offers, Request, Resolution};
pub use segment::{Cut, Cutter};
pub use sum::Sum;
