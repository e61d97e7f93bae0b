//! The operations of the control side on the rings of a vhost-user port, and the way they reach a ring.
//!
//! The session decides. Each [`VhostOp`] is carried out between two bursts, by the ring's worker (the guest's transmit
//! rings) or by the control thread under the ring's lock (its receive rings), and only then answered. A ring that is
//! reported stopped is therefore not touched any more, and its base is final (vhost-user.rst, "Starting and stopping
//! rings").

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::virtio::RingSetup;
use crate::virtio::dirty_log::RingLog;

/// A command to the rings of one port. Rings are numbered as in the protocol: 2i is the guest's receive ring of
/// queue pair i, 2i+1 its transmit ring.
#[derive(Debug)]
pub enum VhostOp {
    /// Starts a ring; a running one is replaced.
    StartRing {
        /// Ring number.
        index: u16,
        /// The layout of the ring and its settings.
        setup: Box<RingSetup>,
        /// True to let frames pass. A started ring that is not enabled is drained and gets nothing.
        enabled: bool,
        /// The connection that the ring belongs to; a [`Fault`](crate::port::Fault) carries it.
        connection: u64,
    },
    /// Stops a ring; answered by [`VhostReply::Stopped`].
    StopRing {
        /// Ring number.
        index: u16,
    },
    /// Enables or disables a ring.
    EnableRing {
        /// Ring number.
        index: u16,
        /// True to let frames pass.
        enabled: bool,
    },
    /// Replaces the descriptor that interrupts the guest.
    SetCall {
        /// Ring number.
        index: u16,
        /// An eventfd, or `None` if the guest polls.
        call: Option<Arc<OwnedFd>>,
    },
    /// Makes a ring log the pages that it writes from now on, or stop logging; the ring goes on meanwhile.
    SetLog {
        /// Ring number.
        index: u16,
        /// The log of the pages; `None` to stop logging.
        log: Option<RingLog>,
    },
    /// Interrupts the guest, which may have missed an interrupt.
    Interrupt {
        /// Ring number.
        index: u16,
    },
    /// Sends a RARP request as if the guest had, so that all switches learn where it is now.
    Announce {
        /// Number of the transmit ring that the request is sent for.
        index: u16,
        /// The guest's address.
        mac: [u8; 6],
    },
    /// Stops and forgets all rings: the front end is gone.
    Reset,
}

impl VhostOp {
    /// The ring that the operation is about; `None`: all rings.
    pub fn ring(&self) -> Option<u16> {
        match self {
            VhostOp::StartRing { index, .. }
            | VhostOp::StopRing { index }
            | VhostOp::EnableRing { index, .. }
            | VhostOp::SetCall { index, .. }
            | VhostOp::SetLog { index, .. }
            | VhostOp::Interrupt { index }
            | VhostOp::Announce { index, .. } => Some(*index),
            VhostOp::Reset => None,
        }
    }
}

/// The answer to a [`VhostOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VhostReply {
    /// Done.
    Done,
    /// The ring is stopped. `base` is its position in the protocol's form: for a split ring the index of the next
    /// available entry, for a packed one the next descriptor and the wrap counter, twice. `None` if it was not running.
    Stopped {
        /// The answer to GET_VRING_BASE.
        base: Option<u32>,
    },
    /// The port has no ring of that number.
    NoSuchRing,
}

/// The rings could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker does not answer: {reason}")]
pub struct RingsError {
    /// One clause for people.
    pub reason: String,
}

/// The way to the rings of one port, blocking until the operation is done: in `labswd`
/// [`PortRings`](super::PortRings), in tests the port itself.
pub trait Rings {
    /// Has `op` carried out between two bursts.
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError>;
}
