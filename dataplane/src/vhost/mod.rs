//! vhost-user ports: the switch is the back end of a guest's virtio-net device.
//!
//! Three parts, from the bytes outwards:
//! - the workers' side: [`VhostRx`] and [`VhostTx`] drive rings ([`ring`]; [`split`], [`packed`], [`chain`],
//!   [`from_guest`], [`to_guest`]) that lie in guest memory ([`layout`], [`memory`], guarded by [`sigbus`]);
//! - the session ([`session`]): what each request of the front end means, a pure state machine that
//!   reaches the rings through [`Rings`] as [`VhostOp`]s; what is offered is in [`features`];
//! - the endpoint ([`endpoint`]): the socket, driven by the control thread's event loop, and the byte
//!   stream on it ([`message`]).
//!
//! References: QEMU `docs/interop/vhost-user.rst`; Virtio 1.2, 2.7 "Split Virtqueues", 2.8 "Packed Virtqueues" and 5.1 "Network Device".

mod budget;
pub mod chain;
pub mod endpoint;
mod features;
pub mod from_guest;
pub mod layout;
pub mod memory;
pub mod memory_limit;
pub mod message;
pub mod operation;
pub mod packed;
pub mod port;
pub mod request;
pub mod ring;
pub mod session;
pub mod sigbus;
pub mod split;
pub mod to_guest;

pub use endpoint::{Endpoint, EndpointConfig, EndpointError, EndpointState, EndpointStatus, Role, Timing};
pub use operation::{Rings, RingsError, VhostOp, VhostReply};
pub use port::{VhostPort, VhostRx, VhostTx};
