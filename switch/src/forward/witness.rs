//! Who is told what becomes of a frame while it is decided about.
//!
//! The worker counts drops; whoever explains a decision (`trace`) or shows what was lost (`capture --drops`) wants to know more of
//! the same decision. All of them pass a [`Witness`] to [`Ingress::frame`](super::Ingress::frame), which is compiled for each of
//! them: what a witness does not want costs nothing.

use crate::fdb::Learned;
use crate::header::Header;
use crate::inject::Entry;
use crate::{DropReason, PortId, Vid};

/// Is told what is decided about frames.
pub trait Witness {
    /// The decision is only asked about: nothing is learned from the frame, and no allowance is used up.
    const DRY_RUN: bool = false;

    /// The `frame`-th frame of the burst, or its copy for one egress, was dropped; it counts at `port`.
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason);

    /// Something was found out about the `frame`-th frame, on its way to a decision. `step` is worked out only for who wants it.
    #[inline(always)]
    fn step(&mut self, _frame: u8, _step: impl FnOnce() -> Step) {}
}

/// A function that is told of drops.
impl<F: FnMut(u8, PortId, DropReason)> Witness for F {
    #[inline(always)]
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason) {
        self(frame, port, reason);
    }
}

/// Something found out about a frame. Of a frame that is decided as the one before it was, nothing is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its header.
    Header(Header),
    /// It came from a mirror destination, passed the gate there, and goes on so.
    Injected(Entry),
    /// The VLAN it is in.
    Vlan(Vid),
    /// What the port guards lets it pass, but for what is judged later: addresses beyond a limit, floods, isolation.
    Guarded,
    /// What learning its source address comes to; `None`: the port does not learn.
    Source(Option<Learned>),
    /// Its destination is a group address.
    Group,
    /// Its VLAN is an RSPAN VLAN: nothing is learned, and every port that names the VLAN in its trunks gets it.
    Rspan,
    /// Of its VLAN, only the ports that want this group get it.
    Snooped,
    /// Where its destination is, is not known.
    Unknown,
    /// Its destination is at this port.
    Known {
        /// The port.
        at: PortId,
        /// Whether a static entry says so.
        is_static: bool,
        /// Seconds since the address was last seen as a source.
        age_seconds: u32,
    },
}
