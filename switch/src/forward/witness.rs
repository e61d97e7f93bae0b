//! Who is told what becomes of a frame while it is decided about.
//!
//! The worker counts drops; whoever explains a decision (`trace`) or shows what was lost (`capture --drops`) wants to know more of
//! the same decision. All of them pass a [`Witness`] to [`Ingress::frame`](super::Ingress::frame), which is compiled for each of
//! them: what a witness does not want costs nothing.

use crate::{DropReason, PortId};

/// Is told what is decided about frames.
pub trait Witness {
    /// The decision is only asked about: nothing is learned from the frame, and no allowance is used up.
    const DRY_RUN: bool = false;

    /// The `frame`-th frame of the burst, or its copy for one egress, was dropped; it counts at `port`.
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason);
}

/// A function that is told of drops.
impl<F: FnMut(u8, PortId, DropReason)> Witness for F {
    #[inline(always)]
    fn dropped(&mut self, frame: u8, port: PortId, reason: DropReason) {
        self(frame, port, reason);
    }
}
