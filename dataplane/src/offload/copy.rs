//! Copying and summing in one pass: a payload that has to be copied anyway costs no second look for its checksum.
//!
//! The bytes pass in blocks of 64 through registers, from where they are written and summed. [`copy_and_sum_raw`] reads
//! foreign memory, the only place of this module that does, and is the only `unsafe` one. What it returns is the sum of
//! what it read; should a guest change the bytes meanwhile, copy and sum may disagree, and the guest has spoilt the
//! checksum of its own frame.

use super::sum::{BLOCK_BYTES, Lanes, Sum};

/// Copies `from` to the front of `to` and returns its sum. Bytes that `to` has no room for are neither copied nor
/// summed.
#[inline]
pub fn copy_and_sum(to: &mut [u8], from: &[u8]) -> Sum {
    let len = to.len().min(from.len());
    // SAFETY: both are references to at least `len` bytes, and a mutable one overlaps nothing.
    unsafe { copy_and_sum_raw(to.as_mut_ptr(), from.as_ptr(), len) }
}

/// Copies `len` bytes and returns their sum.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline]
pub unsafe fn copy_and_sum_raw(to: *mut u8, from: *const u8, len: usize) -> Sum {
    let mut lanes = Lanes::default();
    let whole = len - len % BLOCK_BYTES;
    let mut at = 0;
    while at < whole {
        // SAFETY: `at + 64 <= whole <= len`, for which the caller vouches. Byte arrays have no alignment.
        unsafe {
            let block = from.add(at).cast::<[u8; BLOCK_BYTES]>().read();
            to.add(at).cast::<[u8; BLOCK_BYTES]>().write(block);
            lanes.add(&block);
        }
        at += BLOCK_BYTES;
    }
    let mut tail = [0; BLOCK_BYTES];
    let left = len - whole;
    // SAFETY: the `left` bytes from `whole` on are the rest of `len` (caller); `left` is less than the tail's 64 bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(from.add(whole), tail.as_mut_ptr(), left);
        std::ptr::copy_nonoverlapping(tail.as_ptr(), to.add(whole), left);
    }
    lanes.add(&tail);
    Sum::of_lanes(&lanes, len)
}
