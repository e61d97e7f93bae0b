//! Memory of a burst's own, for frames that must not change any more.
//!
//! Bytes are placed one behind the other in large pieces of memory, which are allocated when first needed and kept.
//! Nothing that was placed is written again before [`Arena::reset`], so pointers to it stay good until then, whatever
//! else is placed.

use std::cell::UnsafeCell;

use labsw_switch::BURST_FRAMES;

use super::limits::MAX_FRAME_BYTES;

/// Bytes of one piece of memory.
const PIECE_BYTES: usize = 256 * 1024;
const _: () = assert!(PIECE_BYTES > MAX_FRAME_BYTES as usize);
/// Most pieces: a burst of the longest frames.
pub(super) const MAX_PIECES: usize = BURST_FRAMES.div_ceil(PIECE_BYTES / MAX_FRAME_BYTES as usize);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pub(super) pieces: Vec<Box<[UnsafeCell<u8>]>>,
    /// The piece that is being filled, and how far.
    at: usize,
    used: usize,
}

impl Arena {
    /// Forgets everything that was placed.
    #[inline]
    pub(super) fn reset(&mut self) {
        (self.at, self.used) = (0, 0);
    }

    /// Room for `len` bytes, writable until the next reset. `None`: a burst never needs that much.
    #[inline]
    pub(super) fn reserve(&mut self, len: usize) -> Option<*mut u8> {
        if self.used + len > PIECE_BYTES {
            (self.at, self.used) = (self.at + 1, 0);
        }
        if self.at >= self.pieces.len() {
            self.grow()?;
        }
        let room = self.pieces.get(self.at)?.get(self.used..self.used + len)?;
        self.used += len;
        Some(UnsafeCell::raw_get(room.as_ptr()))
    }

    #[cold]
    fn grow(&mut self) -> Option<()> {
        let may = self.pieces.len() < MAX_PIECES;
        may.then(|| self.pieces.push((0..PIECE_BYTES).map(|_| UnsafeCell::new(0)).collect()))
    }
}
