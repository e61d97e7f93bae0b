//! Frames on their way out: read front to back, tag edit applied.
//!
//! A [`PlainFrame`] leaves as it came and lies in one piece, the usual case; a [`FrameReader`] reads any other. Both
//! take the part that the snapshot covers from the snapshot, and the rest from foreign memory, each byte once.

use super::copy::{copy, copy_short};
use super::{SNAPSHOT_BYTES, Segment};

/// A frame that leaves as it came, in two pieces: its snapshot, and the bytes behind.
#[derive(Clone, Copy, Debug)]
pub struct PlainFrame<'a> {
    snapshot: &'a [u8],
    rest: Segment,
    len: u32,
}

impl<'a> PlainFrame<'a> {
    #[inline(always)]
    pub(super) fn new(snapshot: &'a [u8], rest: Segment, len: u32) -> PlainFrame<'a> {
        PlainFrame { snapshot, rest, len }
    }

    /// Length in bytes.
    #[inline]
    pub fn bytes(&self) -> u32 {
        self.len
    }

    /// Copies the frame to `to`.
    ///
    /// # Safety
    /// `to` is writable for [`PlainFrame::bytes`] bytes and does not overlap the frame.
    #[inline(always)]
    pub unsafe fn copy_to(&self, to: *mut u8) {
        let PlainFrame { snapshot, rest, .. } = self;
        // SAFETY: snapshot and `rest` together are the frame, for which there is room (caller); a snapshot has at most
        // 128 bytes. `rest` is readable until the burst is cleared (contract of `Burst::push`), which the borrow
        // prevents.
        unsafe {
            copy_short(snapshot.as_ptr(), to, snapshot.len());
            if rest.len > 0 {
                copy(rest.ptr, to.add(snapshot.len()), rest.len as usize);
            }
        }
    }

    /// Copies the frame to the front of `to`. Returns false, and copies nothing, if there is no room.
    #[inline(always)]
    pub fn copy_into(&self, to: &mut [u8]) -> bool {
        let fits = to.len() >= self.len as usize;
        if fits {
            // SAFETY: `to` has room for the frame. Nothing overlaps it: the snapshot is behind a shared reference, and
            // foreign memory is behind none.
            unsafe { self.copy_to(to.as_mut_ptr()) };
        }
        fits
    }
}

/// Reads one outgoing frame front to back: MACs, inserted tag, rest of the snapshot, segments.
#[derive(Clone, Copy, Debug)]
pub struct FrameReader<'a> {
    /// Snapshot before and behind the place of the tag.
    pieces: [&'a [u8]; 2],
    tag: [u8; 4],
    tag_left: u8,
    /// The rest of the segment at hand.
    rest: Segment,
    segments: &'a [Segment],
    remaining: u32,
}

impl<'a> FrameReader<'a> {
    /// `pieces` are the snapshot's before and behind the place of the `tag`; `rest` and then `segments` follow.
    #[inline]
    pub(super) fn new(
        pieces: [&'a [u8]; 2],
        tag: Option<[u8; 4]>,
        rest: Segment,
        segments: &'a [Segment],
        remaining: u32,
    ) -> FrameReader<'a> {
        let tag_left = if tag.is_some() { 4 } else { 0 };
        FrameReader { pieces, tag: tag.unwrap_or_default(), tag_left, rest, segments, remaining }
    }

    /// Bytes not yet read; before the first read, the length of the outgoing frame.
    #[inline]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Fills `pieces` with the unread part of the frame, in order, for a gathering system call (writev(2)). Returns the
    /// number of pieces, or `None` if there is too little room. The pieces are readable as long as this reader is
    /// neither moved nor read from.
    pub fn gather(&self, pieces: &mut [Segment]) -> Option<usize> {
        let whole = |bytes: &[u8]| Segment { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
        let [before, behind] = self.pieces;
        let tag = self.tag.get(self.tag.len() - usize::from(self.tag_left)..).unwrap_or_default();
        let parts = [whole(before), whole(tag), whole(behind), self.rest];
        let (mut used, mut left) = (0, self.remaining);
        for part in parts.iter().chain(self.segments) {
            let len = part.len.min(left);
            if len > 0 {
                *pieces.get_mut(used)? = Segment { ptr: part.ptr, len };
                used += 1;
                left -= len;
            }
        }
        Some(used)
    }

    /// Copies the next `room` bytes (or the rest, if it is less) to `to` and returns their number.
    ///
    /// # Safety
    /// `to` is writable for `room` bytes and does not overlap this frame.
    pub unsafe fn read(&mut self, mut to: *mut u8, room: u32) -> u32 {
        let want = room.min(self.remaining);
        let mut left = want as usize;
        self.remaining -= want;
        for piece in 0..2 {
            let bytes = self.pieces[piece];
            if !bytes.is_empty() && left > 0 {
                let here = bytes.len().min(left);
                // SAFETY: `here` is within `bytes`, and within the `left` bytes still writable at `to` (caller).
                unsafe {
                    copy(bytes.as_ptr(), to, here);
                    to = to.add(here);
                }
                self.pieces[piece] = bytes.get(here..).unwrap_or_default();
                left -= here;
            }
            if piece == 0 && self.tag_left > 0 && left > 0 {
                let here = usize::from(self.tag_left).min(left);
                // SAFETY: `tag_left` counts the unread bytes at the end of the four-byte tag; `here <= left` are
                // writable at `to`.
                unsafe {
                    copy(self.tag.as_ptr().add(4 - usize::from(self.tag_left)), to, here);
                    to = to.add(here);
                }
                #[allow(clippy::cast_possible_truncation, reason = "here <= 4")]
                let done = here as u8;
                self.tag_left -= done;
                left -= here;
            }
        }
        while left > 0 {
            if self.rest.len == 0 {
                let Some((&next, further)) = self.segments.split_first() else { break };
                (self.rest, self.segments) = (next, further);
            }
            let here = (self.rest.len as usize).min(left);
            // SAFETY: `rest` is readable for its length until the burst is cleared (contract of `Burst::push`), which
            // this reader's borrow of the burst prevents; `here` is at most that; `here <= left` are writable at `to`.
            unsafe {
                copy(self.rest.ptr, to, here);
                to = to.add(here);
                self.rest.ptr = self.rest.ptr.add(here);
            }
            left -= here;
            #[allow(clippy::cast_possible_truncation, reason = "here <= rest.len, a u32")]
            let done = here as u32;
            self.rest.len -= done;
        }
        want
    }

    /// Skips the next `count` bytes, or the rest if it is less.
    pub fn skip(&mut self, count: usize) {
        let mut unwanted = [0; SNAPSHOT_BYTES];
        let mut left = count;
        while left > 0 && self.remaining > 0 {
            let here = left.min(unwanted.len());
            self.read_to(unwanted.get_mut(..here).unwrap_or_default());
            left -= here;
        }
    }

    /// Like [`FrameReader::read`], into memory of our own.
    pub fn read_to(&mut self, to: &mut [u8]) -> u32 {
        let room = u32::try_from(to.len()).unwrap_or(u32::MAX);
        // SAFETY: `to` is writable for `room` bytes. Nothing overlaps it: the snapshot is behind a shared reference,
        // and foreign memory is behind none.
        unsafe { self.read(to.as_mut_ptr(), room) }
    }
}
