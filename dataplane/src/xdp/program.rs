//! The XDP program of a port: every frame to the socket of its queue, or nowhere.
//!
//! **How it works.** Six eBPF instructions: `bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP)`. The map (XSKMAP)
//! has one slot per receive queue. What no socket takes is *dropped*, so nothing of the lab leaks into the host's stack.
//! Loaded and attached with bpf(2) itself. The attachment is a BPF link: it goes when its descriptor is
//! closed, so nothing is left behind even by `kill -9`.
//!
//! **Limits.** A program somebody else attached is never replaced. Native ("driver") attachment needs a driver with XDP;
//! generic ("skb") attachment works on every device, is slower, and excludes zero copy.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`, `Documentation/bpf/map_xskmap.rst`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// Commands and constants of `include/uapi/linux/bpf.h` and `if_link.h`.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
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
/// The redirect helper is for programs under a GPL-compatible licence only; the kernel's name for ours.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the generic path, on any device.
    Generic,
}

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    /// Destination register in the low, source register in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `rX = …` etc.; the opcodes are spelled out in the program below.
const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    // The kernel's bit fields `dst_reg:4, src_reg:4` lie the other way round on big-endian machines.
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Instruction { code, registers, offset, immediate }
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
        let link = create_link(program.as_raw_fd(), ifindex, attachment).map_err(ProgramError::Attach)?;
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
        // SAFETY: `attr` and the key and value it points to live across the call; the map's key and value are four bytes each.
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

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
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
    let mut attr = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: 6,
        instructions: instructions.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        // Frames in several buffers pass through the program as well; without this, devices with a large MTU refuse it.
        flags: BPF_F_XDP_HAS_FRAGS,
        name: *b"labsw_to_socket\0",
        ifindex: 0,
        expected_attach_type: BPF_ATTACH_TYPE_XDP,
    };
    // SAFETY: `attr` and the instructions and licence it points to live across the call; the count is the array's.
    let loaded = unsafe { bpf(BPF_PROG_LOAD, &attr) };
    match loaded {
        // A kernel before 5.18 does not know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            attr.flags = 0;
            // SAFETY: as above.
            unsafe { bpf(BPF_PROG_LOAD, &attr) }.and_then(owned)
        }
        other => other.and_then(owned),
    }
}

fn create_link(program: RawFd, ifindex: u32, attachment: Attachment) -> io::Result<OwnedFd> {
    let flags = match attachment {
        Attachment::Native => XDP_FLAGS_DRV_MODE,
        Attachment::Generic => XDP_FLAGS_SKB_MODE,
    };
    let attr = LinkCreate { program, ifindex, attach_type: BPF_ATTACH_TYPE_XDP, flags };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }.and_then(owned)
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
    // SAFETY: `attr.info` points to `INFO_BYTES` writable bytes that live across the call; being zero, they ask for nothing
    // to be stored elsewhere.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }.ok()?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.get(NAME_AT..)?.split(|&byte| byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty())
}

/// bpf(2).
///
/// # Safety
/// `A` is laid out as the kernel expects for `command`; whatever it points to is valid across the call.
unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<A>()` bytes of `attr` and takes what is missing behind them as zero; rest: caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
