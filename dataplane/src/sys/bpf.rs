//! bpf(2): loading the switch's own few instructions, and attaching them as links.
//!
//! **How it works.** Programs are arrays of [`Instruction`]s written out by hand, so that no compiler or object file is
//! needed. An attachment is a BPF link: it goes when its descriptor is closed, so nothing is left behind even by
//! `kill -9`.
//!
//! References: `bpf(2)`, kernel `include/uapi/linux/bpf.h`.

#![allow(unsafe_code, reason = "bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
/// Some helpers are for programs under a GPL-compatible licence only; the kernel's name for ours.
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination register in the low, source register in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `rX = …` etc.; the opcodes are spelled out where a program is written.
pub(crate) const fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    // The kernel's bit fields `dst_reg:4, src_reg:4` lie the other way round on big-endian machines.
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Instruction { code, registers, offset, immediate }
}

/// The kind of a program that is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramKind {
    /// `BPF_PROG_TYPE_…`.
    pub(crate) program_type: u32,
    /// `BPF_…` of `enum bpf_attach_type`, or 0 where it does not matter.
    pub(crate) attach_type: u32,
    /// `BPF_F_…`.
    pub(crate) flags: u32,
    /// The name that `bpftool prog` shows.
    pub(crate) name: [u8; 16],
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

/// Loads a program.
pub(crate) fn load(instructions: &[Instruction], kind: ProgramKind) -> io::Result<OwnedFd> {
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
pub(crate) fn link(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate { program: program.as_raw_fd(), ifindex, attach_type, flags };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }.and_then(owned)
}

/// bpf(2).
///
/// # Safety
/// `A` is laid out as the kernel expects for `command`; whatever it points to is valid across the call.
pub(crate) unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<A>()` bytes of `attr` and takes what is missing behind them as zero; rest:
    // caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that a bpf(2) command returned.
pub(crate) fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
