//! Noticing within milliseconds that a thread hangs in a peer's doorbell.
//!
//! **How it works.** Each thread that rings doorbells has a [`Bell`]: a counter that is odd while a write is under way
//! ([`ring`]). A thread of its own looks at all counters every [`LOOK_EVERY`]; one that is odd and has not changed
//! since the last look belongs to a thread that hangs, and that thread is [interrupted](interrupt). After
//! [`QUIET_LOOKS`] looks without any change the watching thread sleeps until the next write, so an idle switch stays
//! idle.
//!
//! **Ordering.** A ringing thread makes its counter odd and then reads [`WATCHING`]; the watching thread clears
//! [`WATCHING`] and then reads the counters. All four are sequentially consistent, so at least one sees the other.
//!
//! A thread that was merely descheduled in its write is interrupted, too; a write that does not block takes no notice.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::thread::Thread;
use std::time::Duration;

use rustix::thread::Pid;

use super::signal::interrupt;
use crate::MAX_WORKERS;

/// The time between two looks. A hanging thread is found at the second one.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Looks without any change after which the watching thread sleeps.
const QUIET_LOOKS: u32 = 20;
/// Every worker, the control thread, and some to spare for tests. A thread beyond them is found by
/// [`rouse_if_stuck`](crate::workers::Workers::rouse_if_stuck).
const BELLS: usize = MAX_WORKERS + 64;

static ALL: [Bell; BELLS] = [const { Bell { owner: AtomicI32::new(0), writes: AtomicU32::new(0) } }; BELLS];
/// The watching thread looks, or is about to.
static WATCHING: AtomicBool = AtomicBool::new(false);
static WATCHER: OnceLock<Thread> = OnceLock::new();

/// The doorbell writes of one thread. A cache line each.
#[derive(Debug)]
#[repr(align(64))]
struct Bell {
    /// Thread id; 0: free.
    owner: AtomicI32,
    /// Twice the number of writes that ended; one more while a write is under way.
    writes: AtomicU32,
}

/// A thread's hold on its bell, if one was free.
struct Hold(Option<&'static Bell>);

impl Hold {
    fn take() -> Hold {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let free = |bell: &&Bell| bell.owner.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Hold(ALL.iter().find(free))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(bell) = self.0 {
            bell.owner.store(0, Ordering::Relaxed);
        }
    }
}

thread_local! {
    static HELD: Hold = Hold::take();
}

/// Does a write that a peer may have made block. If it does, it fails with `EINTR` after two looks at most.
#[inline]
pub fn ring<T>(write: impl Fn() -> T) -> T {
    let watched = |hold: &Hold| {
        let Some(bell) = hold.0 else { return write() };
        let before = bell.writes.load(Ordering::Relaxed);
        bell.writes.store(before.wrapping_add(1), Ordering::SeqCst);
        if !WATCHING.load(Ordering::SeqCst) {
            wake();
        }
        let outcome = write();
        bell.writes.store(before.wrapping_add(2), Ordering::Release);
        outcome
    };
    HELD.try_with(watched).unwrap_or_else(|_| write())
}

/// Has the watching thread look again.
#[cold]
fn wake() {
    if !WATCHING.swap(true, Ordering::SeqCst)
        && let Some(watcher) = WATCHER.get()
    {
        watcher.unpark();
    }
}

/// Starts the watching thread, once in a process.
pub(super) fn start() -> std::io::Result<()> {
    if WATCHER.get().is_none() {
        let thread = std::thread::Builder::new().name("doorbells".to_owned()).spawn(watch)?;
        // Another thread was faster: two threads watch then, which does no harm.
        let _ = WATCHER.set(thread.thread().clone());
    }
    Ok(())
}

/// The watching thread's life.
fn watch() {
    let mut seen = [0; BELLS];
    let mut quiet = 0;
    loop {
        std::thread::sleep(LOOK_EVERY);
        quiet = if look(&mut seen) { 0 } else { quiet + 1 };
        if quiet >= QUIET_LOOKS {
            WATCHING.store(false, Ordering::SeqCst);
            if look(&mut seen) {
                WATCHING.store(true, Ordering::SeqCst);
            }
            while !WATCHING.load(Ordering::SeqCst) {
                std::thread::park();
            }
            quiet = 0;
        }
    }
}

/// Looks at all bells, interrupts threads that hang, and returns true if anything has been rung since the last look, or
/// is being rung.
fn look(seen: &mut [u32; BELLS]) -> bool {
    let mut rung = false;
    for (bell, seen) in ALL.iter().zip(seen) {
        let now = bell.writes.load(Ordering::SeqCst);
        let under_way = now % 2 == 1;
        if now == *seen
            && under_way
            && let Some(thread) = Pid::from_raw(bell.owner.load(Ordering::Relaxed))
        {
            interrupt(thread);
        }
        rung |= under_way || now != *seen;
        *seen = now;
    }
    rung
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_write_that_hangs_ends_within_some_looks_and_others_take_no_notice() {
        crate::watchdog::install().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                let free = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
                let mut rung = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(ring(|| rustix::io::write(&free, &1u64.to_ne_bytes())), Ok(8));
                    rung += 1;
                }
                rung
            });
            for round in 0..20 {
                // Also covers a pause long enough for the watching thread to sleep.
                std::thread::sleep(if round % 10 == 9 { LOOK_EVERY * (QUIET_LOOKS + 5) } else { LOOK_EVERY });
                if round == 8 {
                    stop.store(true, Ordering::Relaxed);
                }
                let full = eventfd(0, EventfdFlags::empty()).unwrap();
                rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
                let begin = Instant::now();
                assert_eq!(ring(|| rustix::io::write(&full, &1u64.to_ne_bytes())), Err(Errno::INTR));
                // On an idle machine within 10 ms; the test's may be busy.
                assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
            }
            assert!(others.join().unwrap() > 0);
        });
    }
}
