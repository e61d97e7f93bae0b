//! Where the received frames of one queue lie while they are lent: room for a burst of the largest frames.
//!
//! **How it works.** One anonymous mapping, made once. Pages that no frame ever reached cost nothing, so ordinary
//! frames use a page or two per slot of the 4.4 MiB. Slots do not begin at the same place of a page, so that the
//! headers of a burst do not compete for the same lines of the cache.
//!
//! **Invariant.** A slot is written only while no burst holds it: by `receive`, into a burst that was empty.

#![allow(unsafe_code, reason = "system calls that gather and scatter")]

use std::ffi::c_void;
use std::io;
use std::ptr::{NonNull, null_mut};

use labsw_switch::BURST_FRAMES;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::frame::MAX_FRAME_BYTES;

/// Free bytes in front of a frame in its slot, for a tag that comes beside it.
pub(super) const HEADROOM_BYTES: usize = 4;
/// Room for a frame in a slot, bytes: one more than a frame may have, so that a longer one shows.
pub(super) const ROOM_BYTES: usize = MAX_FRAME_BYTES as usize + 1;
/// From one slot to the next, bytes: whole cache lines, and not whole pages.
const STRIDE_BYTES: usize = (HEADROOM_BYTES + ROOM_BYTES).next_multiple_of(4096) + 320;

/// The slots of a queue.
#[derive(Debug)]
pub(super) struct Buffers {
    start: NonNull<u8>,
}

// SAFETY: the mapping is the process's, valid from any thread, and goes only with its owner.
unsafe impl Send for Buffers {}

impl Buffers {
    const BYTES: usize = STRIDE_BYTES * BURST_FRAMES;

    pub(super) fn new() -> io::Result<Buffers> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap_anonymous(null_mut(), Self::BYTES, access, flags) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Buffers { start })
    }

    /// The slot of the `nth` frame of a burst: [`HEADROOM_BYTES`] and then [`ROOM_BYTES`], writable. `None` behind the
    /// last one.
    #[inline]
    pub(super) fn slot(&self, nth: usize) -> Option<*mut u8> {
        // SAFETY: `nth` is less than the number of slots in the mapping.
        (nth < BURST_FRAMES).then(|| unsafe { self.start.as_ptr().add(nth * STRIDE_BYTES) })
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping is exactly this long, and its only owner goes; the worker releases a burst before it
        // drops the queue.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), Self::BYTES) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn slots_lie_apart_and_hold_the_largest_frame() {
        let buffers = Buffers::new().unwrap();
        for nth in 0..BURST_FRAMES {
            let slot = buffers.slot(nth).unwrap();
            // SAFETY: the first and the last byte of a slot.
            unsafe {
                slot.write(u8::try_from(nth).unwrap());
                slot.add(HEADROOM_BYTES + ROOM_BYTES - 1).write(0xff);
            }
        }
        for nth in 0..BURST_FRAMES {
            // SAFETY: as above.
            assert_eq!(usize::from(unsafe { buffers.slot(nth).unwrap().read() }), nth);
        }
        assert!(buffers.slot(BURST_FRAMES).is_none());
    }
}
