//! Varlink: the protocol of the control socket, server and client.
//!
//! Each message is a JSON object followed by a zero byte, over a unix stream socket. A call names a method and its
//! parameters; each call gets one reply, several with `more`, none with `oneway`; replies come in the order of the
//! calls. Reference: <https://varlink.org/Method-Call>.

pub mod client;
mod connection;
pub mod credentials;
mod deferred;
mod message;
mod prepare;
mod seats;
mod server;
mod service;
mod shares;

#[cfg(test)]
mod tests;

pub use client::{CallError, Client};
pub use deferred::{Caller, DeferredCall};
pub use server::Server;
