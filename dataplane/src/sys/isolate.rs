//! Keeps the host's own stack off an interface that is the switch's.
//!
//! **How it works.** A two-instruction program at the interface's egress hook (tcx) drops what the host sends by itself
//! ([`Silence`]); the switch's own frames go past the hook: AF_XDP transmits below it, and packet sockets with
//! `PACKET_QDISC_BYPASS` do. At the ingress hook the same program drops what was received, after a packet socket got
//! its copy and before the host's protocols do ([`Isolation`] is both); an AF_XDP port needs no such, its XDP program
//! lets nothing through. The program goes in front of all others at its hook. Attachments are BPF links and go with
//! their descriptors, also by `kill -9`.
//!
//! Reference: kernel `Documentation/bpf`, `include/uapi/linux/bpf.h` (`BPF_TCX_INGRESS`); Linux 6.6 or newer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::programs::{self, Call, Hook};

/// While this lives, the host says nothing on the interface.
#[derive(Debug)]
pub struct Silence {
    link: OwnedFd,
}

/// While this lives, the host neither hears nor says anything on the interface.
#[derive(Debug)]
pub(crate) struct Isolation {
    links: [OwnedFd; 2],
}

impl Silence {
    /// Silences the interface with this index, in the network namespace of this process.
    ///
    /// # Errors
    /// The kernel's: one before Linux 6.6 has no such hook.
    pub fn hold(ifindex: u32) -> io::Result<Silence> {
        Ok(Silence { link: attach(&load()?, ifindex, Hook::Egress)? })
    }

    /// Its attachment.
    pub(crate) fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// The attachment that another process made.
    pub(crate) fn adopt(link: OwnedFd) -> Silence {
        Silence { link }
    }
}

impl Isolation {
    /// Isolates the interface with this index, in the network namespace of this process.
    pub(crate) fn hold(ifindex: u32) -> io::Result<Isolation> {
        let program = load()?;
        let link = |hook| attach(&program, ifindex, hook);
        Ok(Isolation { links: [link(Hook::Ingress)?, link(Hook::Egress)?] })
    }
}

impl Isolation {
    /// Its attachments, at the ingress and the egress hook.
    pub(crate) fn links(&self) -> [BorrowedFd<'_>; 2] {
        self.links.each_ref().map(AsFd::as_fd)
    }

    /// The attachments that another process made.
    pub(crate) fn adopt(links: [OwnedFd; 2]) -> Isolation {
        Isolation { links }
    }
}

fn load() -> io::Result<OwnedFd> {
    let [program] = programs::ask(Call::LoadHostOff, &[])?;
    Ok(program)
}

fn attach(program: &OwnedFd, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let [link] = programs::ask(Call::Attach { ifindex, hook }, &[program.as_fd()])?;
    Ok(link)
}
