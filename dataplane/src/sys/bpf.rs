//! bpf(2): loading the switch's own few instructions, attaching them as links, and maps of sockets.
//!
//! **How it works.** Programs are arrays of [`Instruction`]s written out by hand, so that no compiler or object file is
//! needed. An attachment is a BPF link: it goes when its descriptor is closed, so nothing is left behind even by
//! `kill -9`. Only [`programs`](super::programs) calls this.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`.

#![allow(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// Commands and constants of `include/uapi/linux/bpf.h`.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
/// Processes can map the map.
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Some helpers are for programs under a GPL-compatible licence only; the kernel's name for ours.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    code: u8,
    /// Destination register in the low, source register in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// Sets the distance of a jump.
    pub(super) fn set_offset(&mut self, offset: i16) {
        self.offset = offset;
    }
}

/// `rX = …` etc.; the opcodes are spelled out where a program is written.
pub(super) const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    // The kernel's bit fields `dst_reg:4, src_reg:4` lie the other way round on big-endian machines.
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Instruction { code, registers, offset, immediate }
}

/// The kind of a program that is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramKind {
    /// `BPF_PROG_TYPE_…`.
    pub(super) program_type: u32,
    /// `BPF_…` of `enum bpf_attach_type`, or 0 where it does not matter.
    pub(super) attach_type: u32,
    /// `BPF_F_…`.
    pub(super) flags: u32,
    /// The name that `bpftool prog` shows.
    pub(super) name: [u8; 16],
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

#[repr(C)]
struct LinkUpdate {
    link: RawFd,
    program: RawFd,
    flags: u32,
    old_program: RawFd,
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

/// Loads a program.
pub(super) fn load(instructions: &[Instruction], kind: ProgramKind) -> io::Result<OwnedFd> {
    let attr = ProgramLoad {
        program_type: kind.program_type,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: kind.flags,
        name: kind.name,
        ifindex: 0,
        expected_attach_type: kind.attach_type,
    };
    // SAFETY: `attr` and the instructions and licence it points to live across the call; the count is the slice's.
    unsafe { bpf(BPF_PROG_LOAD, &attr) }.and_then(owned)
}

/// Attaches a program to an interface.
pub(super) fn link(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate { program: program.as_raw_fd(), ifindex, attach_type, flags };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }.and_then(owned)
}

/// Puts another program in the place of the one that a link attaches, at once for the next frame.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &attr) }.map(drop)
}

/// Makes a map from queues to AF_XDP sockets.
pub(super) fn socket_map(queues: u32) -> io::Result<OwnedFd> {
    let attr = MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_bytes: 4, value_bytes: 4, entries: queues, flags: 0 };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_MAP_CREATE, &attr) }.and_then(owned)
}

/// Makes a map of one value of `bytes` that a process can map.
pub(super) fn shared_table(bytes: u32) -> io::Result<OwnedFd> {
    let attr =
        MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_bytes: 4, value_bytes: bytes, entries: 1, flags: BPF_F_MMAPABLE };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_MAP_CREATE, &attr) }.and_then(owned)
}

/// Puts a socket, bound to that queue, into a map of sockets.
pub(super) fn put_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd();
    let attr = MapElement {
        map: map.as_raw_fd(),
        _pad: 0,
        key: (&raw const queue).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    // SAFETY: `attr` and the key and value it points to live across the call; the key and value of a map that
    // `socket_map` made are four bytes each, which are all that the kernel reads.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }.map(drop)
}

/// The name of the loaded program with this id, if it has one and the caller may see it.
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

/// bpf(2).
///
/// # Safety
/// `A` is laid out as the kernel expects for `command`; whatever it points to is valid across the call.
unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<A>()` bytes of `attr` and takes what is missing behind them as zero; rest:
    // caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that a bpf(2) command returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
