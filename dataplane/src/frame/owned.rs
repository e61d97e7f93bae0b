//! Frames of a burst in memory of its own: copies of the switch's frames, and copies of frames that a guest could
//! change.

#![allow(unsafe_code, reason = "foreign memory is only ever copied raw")]

use super::copy::copy;
use super::{Burst, MAX_FRAME_BYTES, RxFrame, Segment};

impl Burst {
    /// Adds a frame that is a copy of these bytes, kept by the burst. Returns false, and adds nothing, if the burst is
    /// full or the frame is too long ([`MAX_FRAME_BYTES`]).
    pub fn push_copy(&mut self, token: u64, bytes: &[u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        if self.is_full() || len > MAX_FRAME_BYTES {
            return false;
        }
        let Some(place) = self.arena.reserve(bytes.len()) else { return false };
        // SAFETY: `place` is writable for `bytes.len()` bytes of our own, which no reference covers; the arena leaves
        // them alone until the burst is cleared.
        unsafe {
            copy(bytes.as_ptr(), place, bytes.len());
            self.push_whole(token, Segment { ptr: place, len })
        }
    }

    /// Copies these frames (bit = index) into memory of the burst's own, each byte read once, so that all takers of a
    /// frame see the same bytes, whatever its sender writes meanwhile. Frames that the snapshot holds whole cannot
    /// change anyway, nor can frames in packet memory.
    pub fn copy_frames(&mut self, frames: u64) {
        // Short frames are the usual ones where there are many.
        if frames == 0 || self.movable || self.frames().iter().fold(0, |any, frame| any | frame.rest.len) == 0 {
            return;
        }
        let is_long = |frame: &RxFrame| u64::from(frame.rest.len > 0);
        let mut left = frames & self.frames().iter().rev().fold(0, |set, frame| set << 1 | is_long(frame));
        while left != 0 {
            self.copy_rest(left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }

    /// Copies the bytes behind the snapshot of one frame.
    #[inline]
    fn copy_rest(&mut self, index: usize) {
        let Some(frame) = self.frames.get_mut(index) else { return };
        let len = frame.len - u32::from(frame.snapshot_len);
        let Some(place) = self.arena.reserve(len as usize) else { return };
        // SAFETY: `rest` is readable for its length until the burst is cleared (contract of `Burst::push`), and is the
        // first of the `len` bytes behind the snapshot, for which there is room at `place`.
        unsafe { copy(frame.rest.ptr, place, frame.rest.len as usize) };
        if frame.segment_count > 0 {
            let first = frame.first_segment as usize;
            let further = self.segments.get(first..first + frame.segment_count as usize).unwrap_or_default();
            let mut at = frame.rest.len as usize;
            for segment in further {
                // SAFETY: as above: the segments are the bytes behind `rest`, and all together are `len` bytes.
                unsafe { copy(segment.ptr, place.add(at), segment.len as usize) };
                at += segment.len as usize;
            }
            frame.segment_count = 0;
        }
        frame.rest = Segment { ptr: place, len };
        frame.plain = self.asking >> index & 1 == 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use labsw_switch::forward::{TagEdit, TxItem};

    use super::*;

    fn read(burst: &Burst, frame: u8) -> Vec<u8> {
        let mut reader = burst.reader(&TxItem::whole(frame, TagEdit::KEEP)).unwrap();
        let mut bytes = vec![0; reader.remaining() as usize];
        reader.read_to(&mut bytes);
        bytes
    }

    #[test]
    fn a_burst_of_the_longest_frames_is_copied_and_none_overlaps_another() {
        let mut burst = Burst::new();
        for round in 0..2 {
            let frames: Vec<_> = (round..round + 64u8).map(|fill| vec![fill; MAX_FRAME_BYTES as usize]).collect();
            assert!(frames.iter().all(|bytes| burst.push_copy(0, bytes)));
            assert!(!burst.push_copy(0, &[0; 60]), "it is full");
            assert!((0..64).zip(&frames).all(|(at, bytes)| read(&burst, at) == *bytes));
            assert!(burst.arena.pieces.len() <= super::super::arena::MAX_PIECES);
            burst.clear();
        }
        assert!(!burst.push_copy(0, &[0; MAX_FRAME_BYTES as usize + 1]) && burst.is_empty());
    }

    #[test]
    fn a_copied_frame_is_in_one_piece_and_no_longer_what_its_sender_writes() {
        let mut memory = [vec![1u8; 100], vec![2; 500], vec![3; 9]];
        let sent = memory.concat();
        let segments = memory.each_mut().map(|piece| Segment { ptr: piece.as_mut_ptr(), len: piece.len() as u32 });
        let mut burst = Burst::new();
        for _ in 0..2 {
            // SAFETY: `memory` outlives the burst.
            assert!(unsafe { burst.push(7, &segments) });
        }
        burst.copy_frames(0b10 | 1 << 63);
        for segment in &segments {
            // SAFETY: it is memory of this test.
            unsafe { segment.ptr.cast_mut().write_bytes(9, segment.len as usize) };
        }
        assert_eq!(read(&burst, 1), sent);
        assert_ne!(read(&burst, 0), sent);
        assert!(burst.plain(&TxItem::whole(1, TagEdit::KEEP)).is_some());
        assert_eq!(burst.frame(1).map(|frame| (frame.token, frame.is_takeable())), Some((7, false)));
    }
}
