//! The observer of a decision: it is told of drops, and of each step if it wants to know.
//!
//! The worker counts drops; code that explains a decision (`trace`) or shows lost frames (`capture --drops`) needs more
//! of the same decision. All of them pass an [`Observer`] to [`Ingress::frame`](super::Ingress::frame), which is
//! compiled for each of them: events that an observer does not want cost nothing.

use crate::fdb::Learned;
use crate::header::Header;
use crate::inject::IngressAs;
use crate::inline::Part;
use crate::{DropReason, PortId, Vid};

/// Is told about the decision of each frame.
pub trait Observer {
    /// The decision is only asked about: nothing is learned from the frame, and no allowance is used up.
    const DRY_RUN: bool = false;

    /// The `frame`-th frame of the burst, or its copy for one egress, was dropped; it counts at `port`.
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason);

    /// The decision about the `frame`-th frame took a step. `step` is worked out only for an observer that wants it.
    #[inline(always)]
    fn step(&mut self, _frame: u8, _step: impl FnOnce() -> Step) {}
}

/// A function that is told of drops.
impl<F: FnMut(u8, PortId, DropReason)> Observer for F {
    #[inline(always)]
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason) {
        self(frame, port, reason);
    }
}

/// A step of a decision. A frame that is decided as the one before it takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its header was read.
    Header(Header),
    /// It came from a mirror destination, was admitted there, and goes on as a frame of this ingress.
    Injected(IngressAs),
    /// It came from a port with a sensor in its wire, or from a port of a sensor, that takes this part.
    Inline(Part),
    /// It is for the switch itself, and goes no further: a message between neighbours at a mirror destination whose
    /// copies go to another machine.
    Own,
    /// It is in this VLAN.
    Vlan(Vid),
    /// The guards of the port let it pass, except those asked later: addresses beyond a limit, floods, isolation.
    Guarded,
    /// Its source address was learned with this result; `None`: the port does not learn.
    Source(Option<Learned>),
    /// Its destination is a group address.
    Group,
    /// Its VLAN is an RSPAN VLAN: nothing is learned, and every port that names the VLAN in its trunks gets it.
    Rspan,
    /// Only those ports of its VLAN that want this group get it.
    Snooped,
    /// The port of its destination is not known.
    Unknown,
    /// Its destination is at this port.
    Known {
        /// The port.
        at: PortId,
        /// True if the entry is static.
        is_static: bool,
        /// Seconds since the address was last seen as a source.
        age_seconds: u32,
    },
}
