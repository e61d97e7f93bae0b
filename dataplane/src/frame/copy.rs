//! Copies between foreign memory and ours, and hints to the caches.

use super::SNAPSHOT_BYTES;

/// The copy routine of the frame path.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline(always)]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's contract is that of `copy_nonoverlapping`.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}

/// The copy routine for at most 128 bytes: in line, two pieces of a fixed size, which overlap unless the length is
/// twice that.
///
/// # Safety
/// The contract of [`copy`], and `len` is at most 128.
#[inline(always)]
pub(super) unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    debug_assert!(len <= SNAPSHOT_BYTES);
    // SAFETY: `both` copies the first and the last `N` bytes of `len`, and is called with `N <= len <= 2 * N`, so all
    // of what the caller promised and nothing else.
    unsafe {
        match len {
            64.. => both::<64>(from, to, len),
            32.. => both::<32>(from, to, len),
            16.. => both::<16>(from, to, len),
            8.. => both::<8>(from, to, len),
            4.. => both::<4>(from, to, len),
            2.. => both::<2>(from, to, len),
            1 => copy(from, to, 1),
            0 => {}
        }
    }
}

/// Copies the first and the last `N` bytes of `len`.
///
/// # Safety
/// The contract of [`copy`], and `N` is at most `len`.
#[inline(always)]
unsafe fn both<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `N` bytes at offset 0, and at `len - N`, are inside the `len` bytes that are readable and writable
    // (caller).
    unsafe {
        copy(from, to, N);
        copy(from.add(len - N), to.add(len - N), N);
    }
}

/// Has the processor fetch the cache line at `ptr`. A hint: it may be any address.
#[inline(always)]
pub(crate) fn prefetch(ptr: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching has no effect but on caches, and does not fault, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}
