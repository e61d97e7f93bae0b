//! Moving the bytes: port drivers, rings, guest memory, packet memory (UMEM) and the polling worker.
//!
//! The nouns: a [`frame::Burst`] holds up to 64 *borrowed* frames of one receive queue: their bytes stay
//! where they are (guest memory, UMEM) until every egress port has taken its copy, then the whole burst
//! is given back. A port is [`port::RxQueue`]s, which receive bursts and belong to one worker each, and a
//! [`port::TxPort`], which sends frames of other ports' bursts and is shared by all. A worker runs the whole way of a
//! frame to completion; `docs/life-of-a-frame.md` follows one hop by hop.
//!
//! | module | holds |
//! |---|---|
//! | [`worker`] | the polling loop, and the turn that takes a burst all the way |
//! | [`workers`] | the workers as the control thread holds them: started, commanded, measured |
//! | [`watchdog`] | getting a worker out of a system call that a peer made block |
//! | [`frame`] | the burst: borrowed frames, their snapshots, and the copies out of it |
//! | [`port`] | what a port is to a worker; an example driver |
//! | [`losses`], [`stats`] | what became of frames: reasons and counters |
//! | [`clock`] | the one time that a turn hands to everything |
//! | [`virtio`], [`vhost_user`] | guests: the ring engine, and the protocol that hands rings over |
//! | [`xdp`], [`tap`] | ports of the kernel's side: AF_XDP sockets, TAP interfaces |
//! | [`flow`] | which transmit ring a frame goes to |
//! | [`fast_path`] | frames between containers that pass in the kernel |
//! | [`offload`], `stage` | checksums and segmentation, and frames made ready for ports that do not take them as they are |
//! | [`impair`] | delay queues before and behind ports |
//! | [`inline`] | sensors in the wires of ports: probes, and what they show |
//! | [`mirror`] | the transmit side of a mirror destination, and its backlog |
//! | [`capture`], [`inject`] | copies for someone who looks on; frames put in by the control thread |
//! | [`handover`] | descriptors for the process that takes over |
//! | [`backoff`], [`log_limit`], [`reaper`] | bounds on the cost that a peer can cause |
//! | `sync` | channels, threads and locks, or those that the models schedule |
//! | [`sys`] | system calls that several drivers need |

#![deny(unsafe_code)]
#![warn(unreachable_pub)]

pub mod backoff;
pub mod capture;
pub mod clock;
pub mod fast_path;
pub mod flow;
pub mod frame;
pub mod handover;
pub mod impair;
pub mod inject;
pub mod inline;
pub mod log_limit;
pub mod losses;
pub mod mirror;
pub mod offload;
pub mod port;
pub mod reaper;
mod stage;
pub mod stats;
mod sync;
pub mod sys;
pub mod tap;
pub mod vhost_user;
pub mod virtio;
pub mod watchdog;
pub mod worker;
pub mod workers;
pub mod xdp;

/// The most workers of a switch.
pub const MAX_WORKERS: usize = 64;
