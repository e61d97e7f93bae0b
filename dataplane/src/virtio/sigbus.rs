//! Surviving a guest that truncates its memory while it is in use.
//!
//! A page of a shared file mapping beyond the end of the file raises SIGBUS when touched. The handler looks the address
//! up in a table of all mapped guest regions, maps anonymous zero pages over the whole region, marks it poisoned and
//! lets the access go on; its port notices at the next burst boundary and reports a fault. Any other SIGBUS gets the
//! default action: the process dies.
//!
//! **Invariants.**
//! - The handler is async-signal-safe: atomics, `mmap`, `madvise`, `sigaction` and `raise` only; no locks, no
//!   allocation.
//! - A region costs one mapping before a fault and one after: whatever pages a guest has touched, it can't drive the
//!   process against the kernel's limit on mappings (`vm.max_map_count`), at which `mmap` fails and the process would
//!   die.
//! - A region is registered from before its first access until after its last: a user of the region holds it in an
//!   `Arc`. The slot of a faulting address therefore never changes while the handler looks at it, and slots that do
//!   change (their `version` is odd or moves) can be skipped.
//!
//! Reference: mmap(2) "SIGBUS"; signal-safety(7).

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Guest regions that can be mapped at the same time in one process.
const SLOTS: usize = 8192;

struct Slot {
    taken: AtomicBool,
    /// Odd while the fields below are being written.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    poisoned: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        poisoned: AtomicBool::new(false),
    }
}; SLOTS];

/// Slots in use are below this.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);
static POISONINGS: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();

/// Number of times that a region had to be replaced since the process began: a port checks its regions only if the
/// number has changed.
#[inline]
pub fn poisonings() -> usize {
    // Relaxed: the counter only triggers a look at the flags, and a thread sees its own handler's store.
    POISONINGS.load(Ordering::Relaxed)
}

/// Installs the handler, once per process.
pub fn install() -> io::Result<()> {
    let result = INSTALLED.get_or_init(|| {
        // SAFETY: an all-zero sigaction is valid (no flags, empty mask, default handler).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `action` is initialised and `on_sigbus` is async-signal-safe with the SA_SIGINFO signature.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
        }
    });
    result.map_err(io::Error::from_raw_os_error)
}

/// A registered region; dropping it ends the registration.
#[derive(Debug)]
pub struct RegionGuard {
    slot: usize,
}

impl RegionGuard {
    /// Registers the mapping `start .. start + bytes`, which is the whole of it. `None` if the table is full.
    pub fn new(start: usize, bytes: usize) -> Option<RegionGuard> {
        let index = TABLE.iter().position(|slot| !slot.taken.swap(true, Ordering::AcqRel))?;
        let slot = TABLE.get(index)?;
        slot.write(start, start.checked_add(bytes)?);
        HIGH_WATER.fetch_max(index + 1, Ordering::Release);
        Some(RegionGuard { slot: index })
    }

    /// True if the region had to be replaced.
    pub fn poisoned(&self) -> bool {
        TABLE.get(self.slot).is_some_and(|slot| slot.poisoned.load(Ordering::Acquire))
    }
}

impl Drop for RegionGuard {
    fn drop(&mut self) {
        if let Some(slot) = TABLE.get(self.slot) {
            slot.write(0, 0);
            // Release: the cleared fields come before the slot can be taken again (AcqRel swap in `new`).
            slot.taken.store(false, Ordering::Release);
        }
    }
}

impl Slot {
    /// Changes the slot; only its owner calls this.
    fn write(&self, start: usize, end: usize) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Pairs with the acquire fence in `read`: a reader that sees a new field also sees the odd version.
        fence(Ordering::Release);
        self.poisoned.store(false, Ordering::Relaxed);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        // Pairs with the acquire load in `read`: a reader that sees the even version sees the fields.
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The slot's range, unless it is changing.
    fn read(&self) -> Option<(usize, usize)> {
        let before = self.version.load(Ordering::Acquire);
        let fields = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = self.version.load(Ordering::Relaxed);
        (before == after && before.is_multiple_of(2)).then_some(fields)
    }
}

/// Replaces the registered region that `address` belongs to. False if there is none. Async-signal-safe.
fn replace_region(address: usize) -> bool {
    let count = HIGH_WATER.load(Ordering::Acquire).min(SLOTS);
    for slot in TABLE.iter().take(count) {
        let Some((start, end)) = slot.read() else { continue };
        if address < start || address >= end {
            continue;
        }
        let place = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is the live mapping of a guest region (registered; see the file's invariants), whose
        // contents nobody relies on: guest memory may change at any time. Two threads may do this one after the other.
        let mapped = unsafe {
            libc::mmap(
                place,
                end - start,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return false;
        }
        // SAFETY: the mapping made right above. What is written to it until the port is reset are frames of others,
        // which no core dump needs; should the advice fail, they are in it.
        unsafe { libc::madvise(place, end - start, libc::MADV_DONTDUMP) };
        slot.poisoned.store(true, Ordering::Release);
        POISONINGS.fetch_add(1, Ordering::Release);
        return true;
    }
    false
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: errno is the calling thread's own; SA_SIGINFO guarantees a valid `info`.
    let (errno, code, address) = unsafe { (*libc::__errno_location(), (*info).si_code, (*info).si_addr()) };
    // Only a fault carries an address; a SIGBUS sent by a process does not.
    if code > 0 && replace_region(address.addr()) {
        // SAFETY: as above; the interrupted code must not see the handler's errno.
        unsafe { *libc::__errno_location() = errno };
        return;
    }
    // SAFETY: an all-zero sigaction is the default action; sigaction and raise are async-signal-safe. The signal is
    // blocked while its handler runs and kills the process on return.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_clean() {
        let guard = RegionGuard::new(0x1000, 0x2000).unwrap();
        assert!(!guard.poisoned());
        assert_eq!(TABLE[guard.slot].read(), Some((0x1000, 0x3000)));
        let slot = guard.slot;
        TABLE[slot].poisoned.store(true, Ordering::Release);
        assert!(guard.poisoned());
        drop(guard);
        assert_eq!(TABLE[slot].read(), Some((0, 0)));
        assert!(!TABLE[slot].poisoned.load(Ordering::Acquire));
    }

    #[test]
    fn an_unknown_address_is_nobodys() {
        assert!(!replace_region(8));
    }
}
