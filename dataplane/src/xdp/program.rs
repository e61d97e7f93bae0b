//! The XDP program of a port: redirects every frame to the socket of its queue, or drops it.
//!
//! **How it works.** Six eBPF instructions: `bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP)`. The map
//! (XSKMAP) has one slot per receive queue. What no socket takes is *dropped*, so nothing of the lab leaks into the
//! host's stack. Loaded and attached by whoever may ([`crate::sys::programs`]).
//!
//! **Limits.** The program of another owner is never replaced. Native ("driver") attachment needs a driver with XDP;
//! generic ("skb") attachment works on every device, is slower, and excludes zero copy.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`, `Documentation/bpf/map_xskmap.rst`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::programs::{self, Call, Hook};

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the generic path, on any device.
    Generic,
}

/// The attached program and its map of sockets. Detached when dropped.
#[derive(Debug)]
pub(super) struct Program {
    /// Queue → socket.
    sockets: OwnedFd,
    /// Keeps the program attached.
    link: OwnedFd,
}

impl Program {
    /// Its map and its attachment.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.sockets.as_fd(), self.link.as_fd()]
    }

    /// The program that another process attached.
    pub(super) fn adopt([sockets, link]: [OwnedFd; 2]) -> Program {
        Program { sockets, link }
    }

    /// Loads a program for `queues` receive queues and attaches it to the interface.
    pub(super) fn attach(ifindex: u32, queues: u32, attachment: Attachment) -> Result<Program, ProgramError> {
        let [sockets, program] = programs::ask(Call::LoadToSockets { queues }, &[]).map_err(ProgramError::Load)?;
        let hook = match attachment {
            Attachment::Native => Hook::XdpNative,
            Attachment::Generic => Hook::XdpGeneric,
        };
        let attach = Call::Attach { ifindex, hook };
        let [link] = programs::ask(attach, &[program.as_fd()]).map_err(ProgramError::Attach)?;
        Ok(Program { sockets, link })
    }

    /// From now on frames of `queue` go to `socket`, which must be bound to that queue.
    pub(super) fn direct(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let [] = programs::ask(Call::Direct { queue }, &[self.sockets.as_fd(), socket])?;
        Ok(())
    }
}

/// Which step failed.
#[derive(Debug)]
pub(super) enum ProgramError {
    /// Creating the map or loading the program.
    Load(io::Error),
    /// Attaching it to the device.
    Attach(io::Error),
}
