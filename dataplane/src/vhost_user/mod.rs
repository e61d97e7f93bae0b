//! vhost-user ports: the switch is the back end of a guest's virtio-net device.
//!
//! Three parts, from the rings outwards:
//! - the workers' side: [`VhostRx`] and [`VhostTx`] drive the rings of [`crate::virtio`];
//! - the session ([`session`]): what each request of the front end means, a pure state machine that
//!   reaches the rings through [`Rings`] as [`VhostOp`]s; what is offered is in `features`;
//! - the endpoint ([`endpoint`]): the socket, driven by the control thread's event loop, and the byte
//!   stream on it ([`message`]).
//!
//! References: QEMU `docs/interop/vhost-user.rst`; Virtio 1.2, 5.1 "Network Device".

mod announce;
pub mod endpoint;
mod features;
pub mod message;
pub mod operation;
pub mod port;
pub mod request;
pub mod rings;
pub mod session;

pub use endpoint::{
    Endpoint, EndpointConfig, EndpointError, EndpointHandover, EndpointState, EndpointStatus, Role, Timing,
};
pub use operation::{Rings, RingsError, VhostOp, VhostReply};
pub use port::{VhostPort, VhostRx, VhostTx};
pub use rings::PortRings;
