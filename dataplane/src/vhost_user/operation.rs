//! What the control side asks of the rings of a vhost-user port, and how it gets there.
//!
//! The session decides; each [`VhostOp`] is carried out between two bursts, by the ring's worker (the guest's transmit
//! rings) or by the control thread under the ring's lock (its receive rings), and only then answered. So a ring that is
//! reported stopped is not touched any more, and its base is final (vhost-user.rst, "Starting and stopping rings").

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::virtio::RingSetup;
use crate::virtio::dirty_log::RingLog;

/// A command to the rings of one port. Rings are numbered as in the protocol: 2i is the guest's receive ring of
/// queue pair i, 2i+1 its transmit ring.
#[derive(Debug)]
pub enum VhostOp {
    /// Puts a ring to work; one that runs already is replaced.
    StartRing {
        /// Ring number.
        index: u16,
        /// Where it lies and how it is used.
        setup: Box<RingSetup>,
        /// Whether frames pass; a started ring that is not enabled is drained and gets nothing.
        enabled: bool,
        /// Whose ring it is: what a [`Fault`](crate::port::Fault) will say.
        connection: u64,
    },
    /// Stops a ring; answered by [`VhostReply::Stopped`].
    StopRing {
        /// Ring number.
        index: u16,
    },
    /// Lets frames pass, or not.
    EnableRing {
        /// Ring number.
        index: u16,
        /// As in [`VhostOp::StartRing`].
        enabled: bool,
    },
    /// Replaces the descriptor that interrupts the guest.
    SetCall {
        /// Ring number.
        index: u16,
        /// An eventfd, or `None` if the guest polls.
        call: Option<Arc<OwnedFd>>,
    },
    /// Has a ring mark the pages it writes from now on, or no longer; the ring goes on meanwhile.
    SetLog {
        /// Ring number.
        index: u16,
        /// Where it marks them; `None`: nowhere.
        log: Option<RingLog>,
    },
    /// Sends a RARP request as if the guest had, so that all switches learn where it is now.
    Announce {
        /// Number of the transmit ring it is sent for.
        index: u16,
        /// The guest's address.
        mac: [u8; 6],
    },
    /// Stops and forgets all rings: the front end is gone.
    Reset,
}

impl VhostOp {
    /// The ring it is about; `None`: all of them.
    pub fn ring(&self) -> Option<u16> {
        match self {
            VhostOp::StartRing { index, .. }
            | VhostOp::StopRing { index }
            | VhostOp::EnableRing { index, .. }
            | VhostOp::SetCall { index, .. }
            | VhostOp::SetLog { index, .. }
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
    /// The ring is stopped; `base` is where it stands, as the protocol has it: of a split ring the index of the next
    /// available entry, of a packed one the next descriptor and the wrap counter, twice. `None` if it was not running.
    Stopped {
        /// For GET_VRING_BASE.
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
