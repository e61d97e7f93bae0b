//! Getting a worker out of a system call that a peer made block.
//!
//! A worker never blocks of its own: its descriptors are non-blocking. But an eventfd is shared with the front end, file
//! flags included, and a hostile one can clear `O_NONBLOCK` and fill the counter between our look and our write. The
//! control thread looks once a second whether each worker has moved; one that has not and is not asleep, or that leaves
//! a command unanswered while the control thread waits ([`crate::handle`]), gets a
//! signal whose handler does nothing. The call then fails with `EINTR`, and the port whose call it was is at fault.
//!
//! A worker that is merely starved of its CPU gets the signal too: every system call of the frame path takes `EINTR` as
//! "try again later".
//!
//! Reference: signal(7), "Interruption of system calls and library functions by signal handlers"; eventfd(2).

use std::io;

use rustix::thread::Pid;

/// A signal nobody else uses for anything: its default action is to be ignored.
const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Installs the empty handler; without `SA_RESTART`, which would put the worker back to sleep.
pub fn install() -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid (no flags, empty mask); `nothing` is async-signal-safe.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = nothing;
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Interrupts whatever system call `thread` of this process is in.
pub fn interrupt(thread: Pid) {
    let (process, thread) = (rustix::process::getpid().as_raw_nonzero().get(), thread.as_raw_nonzero().get());
    // SAFETY: tgkill takes numbers only; it fails harmlessly if the thread has ended. The handler was installed before the
    // worker started (`WorkerHandle::spawn`), so the signal does nothing but interrupt.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_write_that_blocks_is_interrupted() {
        install().unwrap();
        let full = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let (tell, told) = channel();
        let writer = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            rustix::io::write(&full, &1u64.to_ne_bytes())
        });
        let thread = told.recv().unwrap();
        while !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
            interrupt(thread);
        }
        assert_eq!(writer.join().unwrap(), Err(rustix::io::Errno::INTR));
    }
}
