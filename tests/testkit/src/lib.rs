//! The test kit: what tests and benches of more than one crate are made of. No program contains any of it.
//!
//! * [`model`]: a deliberately naive switch, and the terms in which it is compared with the real one.
//! * [`offload_frames`]: frames with unfinished checksums and oversized payloads, and a naive judge of the result.
//! * [`request`]: request numbers of the vhost-user protocol.
//! * `guest` (feature `dataplane`): a guest's virtio-net driver in plain memory, split and packed rings.
//! * `frontend` (feature `dataplane`): a vhost-user front end that sends exactly what it is told, and an endpoint with
//!   an event loop.
//! * `station` (feature `dataplane`): such a guest at the port of a running switch.
//! * `xdp_lab` (feature `dataplane`): network namespaces, veth pairs and raw sockets around AF_XDP ports. Needs root.
//!
//! **Invariant.** The naive parts share no code with the code they judge.
#![allow(missing_docs, reason = "test support: modules and types say what they are, the names of fields the rest")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "test support: a failure here is a failed test, and its numbers are small"
)]

#[cfg(feature = "dataplane")]
pub mod frontend;
#[cfg(feature = "dataplane")]
pub mod guest;
pub mod model;
pub mod offload_frames;
pub mod request;
#[cfg(feature = "dataplane")]
pub mod station;
#[cfg(feature = "dataplane")]
pub mod xdp_lab;
