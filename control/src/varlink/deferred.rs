//! Calls that others work on while their client waits: a helper thread compiles their filters ([`super::prepare`]), or
//! the owner of the server has them carried out.
//!
//! A connection holds at most one such call. A client that disconnects does not end the work: the answer has no
//! receiver then.

use crate::api::{Peer, Request};

/// The connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The place of the client.
    pub(super) slot: usize,
    /// Distinguishes the client from earlier ones in the same place.
    pub(super) serial: u64,
}

/// A request that the [`Handler`](crate::api::Handler) defers.
#[derive(Debug)]
pub struct DeferredCall {
    /// The place for the answer.
    pub caller: Caller,
    /// The client.
    pub peer: Peer,
    /// The request.
    pub request: Request,
}

/// A part of a held call that others do.
#[derive(Debug)]
pub(super) enum Deferred {
    /// The helper thread compiles the filters of the request.
    Filters(Request),
    /// The owner of the server has the request of this peer carried out.
    Whole(Peer, Request),
}
