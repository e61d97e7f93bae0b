//! Notifications of a virtqueue: the two eventfds of a ring, and the rule for when an index passes the event index.
//!
//! **Invariant.** The front end shares the eventfds, file flags included: the kick is never read, and the call is
//! written only after a look whether the write can block. Should that be raced, [`crate::watchdog`] gets the worker
//! out.
//!
//! Reference: Virtio 1.2, 2.7.7 "Used Buffer Notification Suppression", 2.7.10; eventfd(2).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::watchdog::bells;

/// The two eventfds of a ring.
#[derive(Debug)]
pub(super) struct Doorbells {
    /// The guest's doorbell.
    pub(super) kick: Option<Arc<OwnedFd>>,
    /// The guest's interrupt.
    pub(super) call: Option<Arc<OwnedFd>>,
    /// The watchdog had to interrupt the worker while it rang the guest's doorbell ([`crate::watchdog`]).
    pub(super) blocks: bool,
}

impl Doorbells {
    pub(super) fn new(kick: Option<Arc<OwnedFd>>, call: Option<Arc<OwnedFd>>) -> Doorbells {
        Doorbells { kick, call, blocks: false }
    }

    /// Interrupts the guest; never blocks for long.
    pub(super) fn interrupt(&mut self) {
        let Some(call) = &self.call else { return };
        // The front end shares the file and can make a write to a full counter block, so look first. A full counter
        // means that the guest has yet to look; an error means a dead peer, noticed at its socket.
        let mut ready = [PollFd::new(call, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut ready, Some(&now)) == Ok(1)
            && bells::ring(|| rustix::io::write(call, &1u64.to_ne_bytes())) == Err(Errno::INTR)
        {
            self.blocks = true;
        }
    }
}

/// True if the move of an index from `old` to `new` passed `event` (Virtio 1.2, 2.7.7.2).
#[inline]
pub(super) fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
