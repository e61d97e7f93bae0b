//! The switch's programs in the kernel: which there are, and who loads and attaches them.
//!
//! **How it works.** One program hands each frame that a device receives to the AF_XDP socket of its queue, one keeps
//! the host off an interface, three are the kernel fast path (`steering`). The kernel asks for CAP_BPF when one is
//! loaded, and bpf(2) is a large part of the kernel to leave to a process that reads what guests write. A program that
//! gives both up names a function that has another process do what is asked ([`set_agent`]); without one it is done
//! here.
//!
//! **Invariant.** What is loaded and attached lives as long as the descriptors that the asker gets: nobody else keeps
//! any.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`, `if_link.h`, `Documentation/bpf/map_xskmap.rst`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use super::bpf::{self, Instruction, ProgramKind, instruction};
use super::steering::{self, Place};

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// In front of the program named in the request; there is none, so in front of all.
const BPF_F_BEFORE: u32 = 1 << 3;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
const XDP_DROP: i32 = 1;
const TCX_DROP: i32 = 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Hook {
    /// In the driver, before a socket buffer is made.
    XdpNative,
    /// In the generic receive path, on any device.
    XdpGeneric,
    /// Before the host's protocols, behind packet sockets; Linux 6.6 or newer.
    Ingress,
    /// On what the host sends by itself; Linux 6.6 or newer.
    Egress,
}

/// A request to whoever may load and attach programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Call {
    /// A map for the sockets of so many queues, and the XDP program that hands frames to them.
    LoadToSockets {
        /// Receive queues of the device.
        queues: u32,
    },
    /// The program that drops everything, for [`Hook::Ingress`] and [`Hook::Egress`].
    LoadHostOff,
    /// A link that attaches a program (the descriptor that goes with this) to an interface of the namespace.
    Attach {
        /// Index of the interface.
        ifindex: u32,
        /// Where.
        hook: Hook,
    },
    /// From now on a link attaches another program. The link's and the program's descriptor go with this.
    Replace,
    /// From now on frames of a queue go to a socket that is bound to it. The map's and the socket's descriptor go with
    /// this.
    Direct {
        /// The receive queue.
        queue: u32,
    },
    /// The map with the forwarding database, of so many bytes.
    MakeTable {
        /// Its length.
        bytes: u32,
    },
    /// The program that passes frames of a container on; the map's descriptor goes with this.
    LoadFromStation {
        /// Where the forwarding database is.
        place: Place,
        /// The port of the container.
        port: u16,
        /// Index of the interface by which all other frames leave.
        around: u32,
    },
    /// The program that sends frames out by another interface.
    LoadOnward {
        /// Its index.
        to: u32,
    },
    /// The program that drops frames that did not come from one of these programs.
    LoadMarkedOnly,
    /// The name of the loaded program with this id.
    Name {
        /// The kernel's number of it.
        id: u32,
    },
}

/// The answer to a request.
#[derive(Debug, Default)]
pub struct Made {
    /// A map and its program, a program, or a link.
    pub descriptors: Vec<OwnedFd>,
    /// The name that was asked for, if there is one and it may be seen.
    pub name: Option<String>,
}

/// Does what is asked, with the descriptors that go with it.
pub type Agent = fn(Call, &[BorrowedFd<'_>]) -> io::Result<Made>;

static AGENT: OnceLock<Agent> = OnceLock::new();

/// Names the function that does what is asked from now on. The first one stays.
pub fn set_agent(agent: Agent) {
    let _ = AGENT.set(agent);
}

/// Has something done, by whoever may.
pub(crate) fn ask<const N: usize>(call: Call, descriptors: &[BorrowedFd<'_>]) -> io::Result<[OwnedFd; N]> {
    let made = AGENT.get().map_or(do_here as Agent, |agent| *agent)(call, descriptors)?;
    made.descriptors.try_into().map_err(|_| io::Error::other("another number of descriptors than was asked for"))
}

/// The name of the loaded program with this id, if it has one and whoever may ask can see it.
pub(crate) fn name_of(id: u32) -> Option<String> {
    AGENT.get().map_or(do_here as Agent, |agent| *agent)(Call::Name { id }, &[]).ok()?.name
}

/// Does what is asked with the rights of the calling thread.
///
/// # Errors
/// Those of bpf(2), and [`io::ErrorKind::InvalidInput`] for another number of descriptors than goes with the call.
pub fn do_here(call: Call, descriptors: &[BorrowedFd<'_>]) -> io::Result<Made> {
    let made = |descriptors| Ok(Made { descriptors, name: None });
    match (call, descriptors) {
        (Call::LoadToSockets { queues }, []) => {
            let sockets = bpf::socket_map(queues)?;
            let program = load_to_sockets(sockets.as_raw_fd())?;
            made(vec![sockets, program])
        }
        (Call::LoadHostOff, []) => made(vec![load_host_off()?]),
        (Call::Attach { ifindex, hook }, [program]) => made(vec![attach(*program, ifindex, hook)?]),
        (Call::Replace, [link, program]) => {
            bpf::replace(*link, *program)?;
            made(Vec::new())
        }
        (Call::Direct { queue }, [sockets, socket]) => {
            bpf::put_socket(sockets.as_fd(), queue, socket.as_fd())?;
            made(Vec::new())
        }
        (Call::MakeTable { bytes }, []) => made(vec![bpf::shared_table(bytes)?]),
        (Call::LoadFromStation { place, port, around }, [table]) => {
            let text = steering::from_station(table.as_raw_fd(), place, port, around);
            made(vec![load_at_tcx(&text, *b"labsw_fast_path\0")?])
        }
        (Call::LoadOnward { to }, []) => made(vec![load_at_tcx(&steering::onward(to), *b"labsw_onward\0\0\0\0")?]),
        (Call::LoadMarkedOnly, []) => made(vec![load_at_tcx(&steering::marked_only(), *b"labsw_marked\0\0\0\0")?]),
        (Call::Name { id }, []) => Ok(Made { name: bpf::name_of(id), ..Made::default() }),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// `bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP)`.
fn load_to_sockets(map: RawFd) -> io::Result<OwnedFd> {
    let instructions = [
        instruction(0x61, 2, 1, RX_QUEUE_INDEX, 0),        // r2 = ctx->rx_queue_index
        instruction(0x18, 1, BPF_PSEUDO_MAP_FD, 0, map),   // r1 = the map of sockets, low half
        instruction(0x00, 0, 0, 0, 0),                     //      high half
        instruction(0xb7, 3, 0, 0, XDP_DROP),              // r3 = what to do without a socket
        instruction(0x85, 0, 0, 0, BPF_FUNC_REDIRECT_MAP), // r0 = bpf_redirect_map(r1, r2, r3)
        instruction(0x95, 0, 0, 0, 0),                     // return r0
    ];
    let mut kind = ProgramKind {
        program_type: BPF_PROG_TYPE_XDP,
        attach_type: BPF_XDP,
        // Frames in several buffers pass through the program as well; without this, devices with a large MTU refuse it.
        flags: BPF_F_XDP_HAS_FRAGS,
        name: *b"labsw_to_socket\0",
    };
    match bpf::load(&instructions, kind) {
        // A kernel before 5.18 does not know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            kind.flags = 0;
            bpf::load(&instructions, kind)
        }
        other => other,
    }
}

fn load_host_off() -> io::Result<OwnedFd> {
    let instructions = [
        instruction(0xb7, 0, 0, 0, TCX_DROP), // r0 = what to do
        instruction(0x95, 0, 0, 0, 0),        // return r0
    ];
    load_at_tcx(&instructions, *b"labsw_host_off\0\0")
}

fn load_at_tcx(instructions: &[Instruction], name: [u8; 16]) -> io::Result<OwnedFd> {
    bpf::load(instructions, ProgramKind { program_type: BPF_PROG_TYPE_SCHED_CLS, attach_type: 0, flags: 0, name })
}

fn attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let (place, flags) = match hook {
        Hook::XdpNative => (BPF_XDP, XDP_FLAGS_DRV_MODE),
        Hook::XdpGeneric => (BPF_XDP, XDP_FLAGS_SKB_MODE),
        Hook::Ingress => (BPF_TCX_INGRESS, BPF_F_BEFORE),
        Hook::Egress => (BPF_TCX_EGRESS, BPF_F_BEFORE),
    };
    bpf::link(program, ifindex, place, flags)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The right is asked for later, so that this needs none.
    #[test]
    fn calls_with_other_descriptors_than_theirs_are_refused() {
        let (one, _) = std::io::pipe().unwrap();
        let some = [one.as_fd(), one.as_fd(), one.as_fd()];
        let cases = [
            (Call::LoadToSockets { queues: 1 }, 1),
            (Call::LoadHostOff, 1),
            (Call::Attach { ifindex: 1, hook: Hook::Egress }, 0),
            (Call::Attach { ifindex: 1, hook: Hook::Egress }, 2),
            (Call::Replace, 1),
            (Call::Replace, 3),
            (Call::Direct { queue: 0 }, 1),
            (Call::Direct { queue: 0 }, 3),
            (Call::Name { id: 1 }, 1),
            (Call::MakeTable { bytes: 64 }, 1),
            (Call::LoadFromStation { place: Place { seed: 1, multiplier: 1, buckets: 1 }, port: 0, around: 1 }, 0),
            (Call::LoadOnward { to: 1 }, 1),
            (Call::LoadMarkedOnly, 1),
        ];
        for (call, count) in cases {
            let refused = do_here(call, &some[..count]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{call:?} with {count}");
        }
    }

    #[test]
    fn a_descriptor_of_something_else_is_no_program() {
        let (one, _) = std::io::pipe().unwrap();
        for hook in [Hook::XdpNative, Hook::XdpGeneric, Hook::Ingress, Hook::Egress] {
            assert!(do_here(Call::Attach { ifindex: 1, hook }, &[one.as_fd()]).is_err());
        }
        assert!(do_here(Call::Direct { queue: 0 }, &[one.as_fd(), one.as_fd()]).is_err());
        assert!(do_here(Call::Replace, &[one.as_fd(), one.as_fd()]).is_err());
    }
}
