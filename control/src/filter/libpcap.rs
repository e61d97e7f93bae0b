//! libpcap's compiler (pcap_compile(3PCAP)), which keeps no state between calls since version 1.8.
//!
//! This binding replaces the `pcap` crate, which returns the instructions as text only, and loads the library at build
//! time to ask for its version.
//!
//! Invariant: on every path a handle is closed and a program freed; no memory of libpcap's is kept.

#![allow(unsafe_code, reason = "a C library")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};

use labsw_switch::filter::Insn;

use super::CompileError;

/// `DLT_EN10MB`.
const ETHERNET: c_int = 1;
/// The value that a filter returns for a selected frame: more bytes than any frame has.
const SNAPLEN: c_int = 262_144;
/// `PCAP_NETMASK_UNKNOWN`: there is no netmask, so `ip broadcast` is refused.
const NETMASK: c_uint = u32::MAX;

/// `struct bpf_program`.
#[repr(C)]
struct Program {
    count: c_uint,
    insns: *mut RawInsn,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawInsn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `pcap_t`.
#[repr(C)]
struct Pcap {
    _opaque: [u8; 0],
}

#[link(name = "pcap")]
unsafe extern "C" {
    fn pcap_open_dead(linktype: c_int, snaplen: c_int) -> *mut Pcap;
    fn pcap_compile(
        handle: *mut Pcap,
        program: *mut Program,
        expression: *const c_char,
        optimize: c_int,
        netmask: c_uint,
    ) -> c_int;
    fn pcap_freecode(program: *mut Program);
    fn pcap_geterr(handle: *mut Pcap) -> *const c_char;
    fn pcap_close(handle: *mut Pcap);
}

/// An Ethernet capture without an interface.
struct Dead(*mut Pcap);

impl Drop for Dead {
    fn drop(&mut self) {
        // SAFETY: `pcap_open_dead` gave it, and it is closed nowhere else.
        unsafe { pcap_close(self.0) }
    }
}

/// The program that libpcap makes of an expression. Neither is checked here; [`super::compile`] does that.
///
/// # Errors
/// libpcap refuses the expression.
pub fn compile(expression: &str) -> Result<Vec<Insn>, CompileError> {
    let text = CString::new(expression).map_err(|_| CompileError::Character('\0'))?;
    // SAFETY: takes two integers.
    let handle = Dead(unsafe { pcap_open_dead(ETHERNET, SNAPLEN) });
    if handle.0.is_null() {
        std::mem::forget(handle);
        return Err(CompileError::Refused("libpcap: out of memory".to_owned()));
    }
    let mut program = Program { count: 0, insns: std::ptr::null_mut() };
    // SAFETY: the handle is open, `program` is writable, `text` ends with a zero byte.
    if unsafe { pcap_compile(handle.0, &mut program, text.as_ptr(), 1, NETMASK) } != 0 {
        // SAFETY: the handle is open; its message ends with a zero byte and stays until the next call.
        let message = unsafe { CStr::from_ptr(pcap_geterr(handle.0)) };
        return Err(CompileError::Refused(message.to_string_lossy().into_owned()));
    }
    let insns = if program.insns.is_null() {
        &[]
    } else {
        // SAFETY: pcap_compile made an array of `count` instructions, which is ours until it is given back below.
        unsafe { std::slice::from_raw_parts(program.insns, program.count as usize) }
    };
    let copy = insns.iter().map(|insn| Insn { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k }).collect();
    // SAFETY: pcap_compile filled it; `insns` is not used any more.
    unsafe { pcap_freecode(&mut program) };
    Ok(copy)
}

/// The result of libpcap's own interpreter for a frame: the reference of the tests.
#[cfg(test)]
pub(super) fn reference(program: &[Insn], frame: &[u8], wire_bytes: u32) -> u32 {
    unsafe extern "C" {
        fn bpf_filter(insns: *const RawInsn, frame: *const u8, wire_bytes: c_uint, here: c_uint) -> c_uint;
    }
    let raw = |insn: &Insn| RawInsn { code: insn.code, jt: insn.jt, jf: insn.jf, k: insn.k };
    let program: Vec<RawInsn> = program.iter().map(raw).collect();
    let here = c_uint::try_from(frame.len()).unwrap_or(0);
    // SAFETY: a program that passed our checks ends with a return and jumps forward only; `here` bytes are readable.
    unsafe { bpf_filter(program.as_ptr(), frame.as_ptr(), wire_bytes, here) }
}
