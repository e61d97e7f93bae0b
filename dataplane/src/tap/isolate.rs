//! Keeps the host's own stack off an interface whose frames are a guest's.
//!
//! **How it works.** The packet socket gets a copy of every received frame; after that the frame would go on to the
//! host's protocols. A two-instruction program at the interface's ingress hook (tcx) drops it there. The same program
//! at the egress hook drops what the host sends by itself; the switch's own frames go past the hook
//! (`PACKET_QDISC_BYPASS`). Both attachments are BPF links and go with their descriptors.
//!
//! Reference: kernel `Documentation/bpf`, `include/uapi/linux/bpf.h` (`BPF_TCX_INGRESS`); Linux 6.6 or newer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::bpf::{self, ProgramKind, instruction};

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const TCX_DROP: i32 = 2;

/// While this lives, the host neither hears nor says anything on the interface.
#[derive(Debug)]
pub(super) struct Isolation {
    _links: [OwnedFd; 2],
}

impl Isolation {
    pub(super) fn hold(ifindex: u32) -> io::Result<Isolation> {
        let instructions = [
            instruction(0xb7, 0, 0, 0, TCX_DROP), // r0 = what to do
            instruction(0x95, 0, 0, 0, 0),        // return r0
        ];
        let kind = ProgramKind {
            program_type: BPF_PROG_TYPE_SCHED_CLS,
            attach_type: 0,
            flags: 0,
            name: *b"labsw_host_off\0\0",
        };
        let program = bpf::load(&instructions, kind)?;
        let link = |hook| bpf::link(program.as_fd(), ifindex, hook, 0);
        Ok(Isolation { _links: [link(BPF_TCX_INGRESS)?, link(BPF_TCX_EGRESS)?] })
    }
}
