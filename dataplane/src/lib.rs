//! Moving the bytes: port drivers, rings, guest memory, packet memory (UMEM) and the polling worker.
//!
//! The nouns: a [`frame::Burst`] holds up to 64 *borrowed* frames of one receive queue: their bytes stay
//! where they are (guest memory, UMEM) until every egress port has taken its copy, then the whole burst
//! is given back. A port is [`port::RxQueue`]s, which receive bursts and belong to one worker each, and a
//! [`port::TxPort`], which sends frames of other ports' bursts and is shared by all. A worker runs the whole way of a
//! frame to completion.

pub mod backoff;
mod bpf;
pub mod capture;
pub mod clock;
pub mod flow;
pub mod frame;
pub mod handle;
pub mod impair;
pub mod inject;
mod isolate;
pub mod load;
pub mod log_limit;
pub mod losses;
pub mod mirror_tx;
pub mod offload;
pub mod port;
pub mod raw;
pub mod reaper;
pub mod socket;
mod stage;
pub mod stats;
pub mod tap;
pub mod thread;
pub mod vhost_user;
pub mod virtio;
pub mod watchdog;
pub mod worker;
pub mod xdp;
