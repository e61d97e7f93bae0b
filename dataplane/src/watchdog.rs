//! Getting a worker out of a system call that a peer made block.
//!
//! A worker never blocks of its own accord: its descriptors are non-blocking. But an eventfd is shared with the front
//! end, file flags included, and a hostile one can clear `O_NONBLOCK` and fill the counter between our look and our
//! write. The write of a doorbell is therefore watched ([`bells`]): a thread that hangs in one for 5 to 10 ms gets a
//! signal whose handler does nothing. The write then fails with `EINTR`, and the port whose doorbell it was is at
//! fault.
//!
//! The control thread is a second line: once a second it looks whether each worker has moved; one that has not and is
//! not asleep, or that leaves a command unanswered while the control thread waits ([`crate::workers`]), gets the same
//! signal.
//!
//! A transmit ring's lock may be held by the worker that hangs, so others, and the control thread, can come to wait for
//! it: a thread that waits long has all workers woken. The control thread takes such a lock only with
//! [`lock_patiently`].
//!
//! A worker that is merely starved of its CPU gets the signal too: every system call of the frame path takes `EINTR` as
//! "try again later".
//!
//! Reference: eventfd(2).

pub mod bells;
mod signal;

use std::io;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

pub use signal::interrupt;

/// How long an acknowledgement or a lock is waited for. A worker that needs longer is starved of its CPU.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A worker that has not answered for this long may hang, and is woken while the control thread waits: its
/// once-a-second look can't do that meanwhile.
pub const ROUSE_AFTER: Duration = Duration::from_millis(500);
/// Between two looks at a lock that is held: it is held for a burst.
const LOOK_AGAIN: Duration = Duration::from_micros(20);

/// Installs the handler that interrupts system calls, then starts the thread that watches doorbells.
pub fn install() -> io::Result<()> {
    signal::install()?;
    bells::start()
}

/// Locks without ever hanging: calls `rouse` while a worker holds the lock for a long time, and gives up after
/// [`PATIENCE`]. The state that a panicking thread left is used unchanged.
pub fn lock_patiently<'a, T>(mutex: &'a Mutex<T>, rouse: &mut dyn FnMut()) -> Option<MutexGuard<'a, T>> {
    let begin = Instant::now();
    let mut rouse_at = begin + ROUSE_AFTER;
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        let now = Instant::now();
        if now - begin >= PATIENCE {
            return None;
        }
        if now >= rouse_at {
            rouse_at = now + ROUSE_AFTER;
            rouse();
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_its_holder_roused() {
        let mutex = Mutex::new(7);
        assert_eq!(lock_patiently(&mutex, &mut || unreachable!()).as_deref(), Some(&7));
        let (rouse, roused) = channel();
        let (held, holds) = channel();
        std::thread::scope(|scope| {
            let mutex = &mutex;
            scope.spawn(move || {
                let _guard = mutex.lock().unwrap();
                held.send(()).unwrap();
                roused.recv().unwrap();
            });
            holds.recv().unwrap();
            assert!(lock_patiently(mutex, &mut || rouse.send(()).unwrap()).is_some());
            // The state that a panic left is used as it is.
            let poison = scope.spawn(|| {
                let _guard = mutex.lock().unwrap();
                panic!("on purpose");
            });
            assert!(poison.join().is_err() && mutex.is_poisoned());
        });
        assert_eq!(lock_patiently(&mutex, &mut || unreachable!()).as_deref(), Some(&7));
    }

    #[test]
    fn a_lock_that_is_never_given_up_is_given_up_on() {
        let mutex = Mutex::new(());
        let (_guard, mut roused, begin) = (mutex.lock().unwrap(), 0, Instant::now());
        assert!(lock_patiently(&mutex, &mut || roused += 1).is_none());
        assert!(begin.elapsed() >= PATIENCE && roused >= 5);
    }

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
