//! The signal that interrupts a system call of one thread.
//!
//! The handler does nothing and is installed without `SA_RESTART`, so an interrupted system call fails with `EINTR`.
//!
//! Reference: signal(7), "Interruption of system calls and library functions by signal handlers".

#![allow(unsafe_code, reason = "signals")]

use std::io;

use rustix::thread::Pid;

/// A signal without another use: its default action is to be ignored.
const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Installs the empty handler, without `SA_RESTART`, which would put the worker back to sleep.
pub(super) fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid (no flags, empty mask); `nothing` is async-signal-safe.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = nothing;
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut())
    };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Interrupts whatever system call `thread` of this process is in.
pub fn interrupt(thread: Pid) {
    let (process, thread) = (rustix::process::getpid().as_raw_nonzero().get(), thread.as_raw_nonzero().get());
    // SAFETY: tgkill takes numbers only; it fails harmlessly if the thread has ended. The handler was installed before
    // the worker started (`WorkerHandle::spawn`), so the signal does nothing but interrupt.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL) };
}
