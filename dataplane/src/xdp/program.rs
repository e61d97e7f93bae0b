//! The XDP program of a port: redirects every frame to the socket of its queue, or drops it.
//!
//! **How it works.** Six eBPF instructions: `bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP)`. The map
//! (XSKMAP) has one slot per receive queue. What no socket takes is *dropped*, so nothing of the lab leaks into the
//! host's stack. Loaded and attached with bpf(2) itself ([`crate::sys::bpf`]).
//!
//! **Limits.** The program of another owner is never replaced. Native ("driver") attachment needs a driver with XDP;
//! generic ("skb") attachment works on every device, is slower, and excludes zero copy.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`, `Documentation/bpf/map_xskmap.rst`.

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::sys::bpf::{self, ProgramKind, bpf, instruction, owned};

// Commands and constants of `include/uapi/linux/bpf.h` and `if_link.h`.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_ATTACH_TYPE_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
const XDP_DROP: i32 = 1;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

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
    _link: OwnedFd,
}

impl Program {
    /// Loads a program for `queues` receive queues and attaches it to the interface.
    pub(super) fn attach(ifindex: u32, queues: u32, attachment: Attachment) -> Result<Program, ProgramError> {
        let sockets = create_map(queues).map_err(ProgramError::Load)?;
        let program = load(sockets.as_raw_fd()).map_err(ProgramError::Load)?;
        let link = create_link(program.as_fd(), ifindex, attachment).map_err(ProgramError::Attach)?;
        Ok(Program { sockets, _link: link })
    }

    /// From now on frames of `queue` go to `socket`, which must be bound to that queue.
    pub(super) fn direct(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let attr = MapElement {
            map: self.sockets.as_raw_fd(),
            _pad: 0,
            key: (&raw const queue).addr() as u64,
            value: (&raw const value).addr() as u64,
            flags: 0,
        };
        // SAFETY: `attr` and the key and value it points to live across the call; the map's key and value are four
        // bytes each.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }.map(drop)
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

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapElement {
    map: RawFd,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn create_map(queues: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_bytes: 4, value_bytes: 4, entries: queues, flags: 0 };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_MAP_CREATE, &attr) }.and_then(owned)
}

fn load(map: RawFd) -> io::Result<OwnedFd> {
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
        attach_type: BPF_ATTACH_TYPE_XDP,
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

fn create_link(program: BorrowedFd<'_>, ifindex: u32, attachment: Attachment) -> io::Result<OwnedFd> {
    let flags = match attachment {
        Attachment::Native => XDP_FLAGS_DRV_MODE,
        Attachment::Generic => XDP_FLAGS_SKB_MODE,
    };
    bpf::link(program, ifindex, BPF_ATTACH_TYPE_XDP, flags)
}

/// The name of the loaded program with this id, if it has one and we may see it.
pub(super) fn name_of(id: u32) -> Option<String> {
    /// `struct bpf_prog_info` up to and including the name.
    const INFO_BYTES: usize = 80;
    const NAME_AT: usize = 64;
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Info {
        program: RawFd,
        info_bytes: u32,
        info: u64,
    }
    // SAFETY: the structure holds no pointers.
    let program = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &ById { id, next: 0, flags: 0 }) }.and_then(owned).ok()?;
    let mut info = [0u64; INFO_BYTES / 8];
    let attr = Info { program: program.as_raw_fd(), info_bytes: 80, info: info.as_mut_ptr().addr() as u64 };
    // SAFETY: `attr.info` points to `INFO_BYTES` writable bytes that live across the call; being zero, they ask for
    // nothing to be stored elsewhere.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }.ok()?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.get(NAME_AT..)?.split(|&byte| byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty())
}
