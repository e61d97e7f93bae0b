//! Borrowed frames: the burst, its segments, and the one copy out of it.
//!
//! **How it works.** A driver's receive fills a [`Burst`]: per frame it records where the bytes lie
//! ([`Segment`]s in foreign memory) and copies the first up to 128 bytes into the *snapshot*. Decisions
//! are made on the snapshot alone. A driver's send asks for a [`FrameReader`] and copies the frame into
//! its own buffers: snapshot bytes first (with the tag edit applied), then what follows from the segments.
//!
//! **Invariants.**
//! - Look once: the bytes that were checked are the bytes that are sent; the part of the foreign memory
//!   that the snapshot covers is never read again.
//! - Foreign memory is never a Rust reference: it is only ever the source of a raw copy, because a guest
//!   (or the kernel) may write to it at any time.
//! - The segments of a frame stay mapped from receive until the driver's release: the driver that
//!   pushed them keeps the mapping alive (guest memory in an `Arc`, UMEM for the life of the worker).

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::{TagEdit, TxItem};
pub use labsw_switch::header::SNAPSHOT_BYTES;

/// The largest frame that can pass, bytes (a 64-KiB TSO frame with its headers).
pub const MAX_FRAME_BYTES: u32 = 65_535 + 64;
/// Where the first VLAN tag stands in a frame, bytes.
const TAG_OFFSET: usize = 12;

/// A run of bytes in foreign memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// First byte; never dereferenced as a reference.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: u32,
}

/// One received frame, described.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame {
    /// Length in bytes, without any virtio-net header.
    pub len: u32,
    /// Bytes of it in the snapshot: `min(len, 128)`.
    pub snapshot_len: u8,
    /// First segment behind the snapshot, index into the burst's segments.
    first_segment: u32,
    /// Number of segments behind the snapshot.
    segment_count: u32,
    /// The driver's own handle for release (descriptor head, UMEM chunk address).
    pub token: u64,
    /// Set when an egress took the buffer itself instead of a copy; release must leave it alone.
    pub moved: bool,
}

/// Up to 64 frames received from one queue in one go.
#[derive(Debug)]
pub struct Burst {
    frames: Vec<RxFrame>,
    snapshots: Box<[[u8; SNAPSHOT_BYTES]; BURST_FRAMES]>,
    segments: Vec<Segment>,
    movable: bool,
}

// SAFETY: a Burst is moved to its worker's thread while empty; the pointers it holds later are to process-wide
// mappings, which are valid from any thread. Upheld by the worker, which clears it after every release.
unsafe impl Send for Burst {}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    /// An empty burst; the only allocation of its life.
    pub fn new() -> Burst {
        Burst {
            frames: Vec::with_capacity(BURST_FRAMES),
            snapshots: Box::new([[0; SNAPSHOT_BYTES]; BURST_FRAMES]),
            segments: Vec::with_capacity(4 * BURST_FRAMES),
            movable: false,
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.frames.clear();
        self.segments.clear();
        self.movable = false;
    }

    /// Says that the frames lie in chunks of the worker's packet memory, so that an AF_XDP egress may take a whole
    /// chunk ([`Burst::take`]) instead of a copy; the token of each frame is then the UMEM address of its first byte.
    #[inline]
    pub fn set_movable(&mut self) {
        self.movable = true;
    }

    /// Whether [`Burst::set_movable`] was called since the last clear.
    #[inline]
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// Number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether no further frame fits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.frames.len() >= BURST_FRAMES
    }

    /// Adds a frame made of `segments` (in order; empty ones are skipped) and takes its snapshot.
    /// Returns false, and adds nothing, if the burst is full.
    ///
    /// # Safety
    /// Each segment is readable for its whole length until [`Burst::clear`].
    #[inline]
    pub unsafe fn push(&mut self, token: u64, segments: &[Segment]) -> bool {
        let slot = self.frames.len();
        let Some(snapshot) = self.snapshots.get_mut(slot) else { return false };
        let first_segment = self.segments.len();
        let mut taken = 0usize;
        let mut len = 0u32;
        for segment in segments {
            len += segment.len;
            let here = (SNAPSHOT_BYTES - taken).min(segment.len as usize);
            // SAFETY: `segment` is readable for `len` bytes (caller) and `taken + here <= 128` by the line above.
            unsafe { copy(segment.ptr, snapshot.as_mut_ptr().add(taken), here) };
            taken += here;
            if here < segment.len as usize {
                // SAFETY: `here` is less than the segment's length, so the result is inside it.
                let ptr = unsafe { segment.ptr.add(here) };
                #[allow(clippy::cast_possible_truncation, reason = "here <= 128")]
                self.segments.push(Segment { ptr, len: segment.len - here as u32 });
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "taken <= 128; a burst has far fewer than 2^32 segments")]
        self.frames.push(RxFrame {
            len,
            snapshot_len: taken as u8,
            first_segment: first_segment as u32,
            segment_count: (self.segments.len() - first_segment) as u32,
            token,
            moved: false,
        });
        true
    }

    /// The frame at `index`.
    #[inline]
    pub fn frame(&self, index: usize) -> Option<&RxFrame> {
        self.frames.get(index)
    }

    /// Marks the buffer of the frame at `index` as taken over by an egress, and returns its token.
    /// `None` if there is no such frame or it was taken before.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<u64> {
        let frame = self.frames.get_mut(index).filter(|frame| !frame.moved)?;
        frame.moved = true;
        Some(frame.token)
    }

    /// All frames, in order of arrival.
    #[inline]
    pub fn frames(&self) -> &[RxFrame] {
        &self.frames
    }

    /// The snapshot of the frame at `index`: its first up to 128 bytes.
    #[inline]
    pub fn snapshot(&self, index: usize) -> &[u8] {
        match (self.frames.get(index), self.snapshots.get(index)) {
            (Some(frame), Some(bytes)) => bytes.get(..usize::from(frame.snapshot_len)).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Reads a frame as it leaves. `None` if there is no such frame, or it is too short for the edit.
    #[inline]
    pub fn reader(&self, item: &TxItem) -> Option<FrameReader<'_>> {
        let index = usize::from(item.frame);
        let frame = self.frames.get(index)?;
        let snapshot = self.snapshot(index);
        let first = frame.first_segment as usize;
        let segments = self.segments.get(first..first + frame.segment_count as usize)?;
        let len = frame.len.checked_add_signed(item.edit.growth_bytes())?;
        let remaining = if item.snap_bytes == 0 { len } else { len.min(item.snap_bytes.into()) };
        let (pieces, tag_left) = if item.edit == TagEdit::KEEP {
            ([snapshot, &[]], 0)
        } else {
            let rest = snapshot.get(TAG_OFFSET + usize::from(item.edit.strip_bytes)..)?;
            ([snapshot.get(..TAG_OFFSET)?, rest], if item.edit.insert.is_some() { 4 } else { 0 })
        };
        Some(FrameReader {
            pieces,
            tag: item.edit.insert.unwrap_or_default(),
            tag_left,
            segments,
            segment_done: 0,
            remaining,
        })
    }
}

/// Reads one outgoing frame front to back: MACs, inserted tag, rest of the snapshot, segments.
#[derive(Clone, Debug)]
pub struct FrameReader<'a> {
    /// Snapshot before and behind the place of the tag.
    pieces: [&'a [u8]; 2],
    tag: [u8; 4],
    tag_left: u8,
    segments: &'a [Segment],
    /// Bytes of `segments[0]` already read.
    segment_done: u32,
    remaining: u32,
}

impl FrameReader<'_> {
    /// Bytes not yet read; before the first read, the length of the outgoing frame.
    #[inline]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Copies the next `room` bytes (or what is left, if less) to `to` and returns how many that were.
    ///
    /// # Safety
    /// `to` is writable for `room` bytes and does not overlap this frame.
    #[inline]
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
                // SAFETY: `tag_left` counts the unread bytes at the end of the four-byte tag; `here <= left` are writable at `to`.
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
            let Some(segment) = self.segments.first() else { break };
            let here = ((segment.len - self.segment_done) as usize).min(left);
            // SAFETY: the segment is readable for `len` bytes until the burst is cleared (contract of `Burst::push`), which
            // this reader's borrow of the burst prevents; `segment_done + here <= len`; `here <= left` are writable at `to`.
            unsafe {
                copy(segment.ptr.add(self.segment_done as usize), to, here);
                to = to.add(here);
            }
            left -= here;
            #[allow(clippy::cast_possible_truncation, reason = "here <= segment.len, a u32")]
            let done = here as u32;
            self.segment_done += done;
            if self.segment_done == segment.len {
                self.segments = self.segments.get(1..).unwrap_or_default();
                self.segment_done = 0;
            }
        }
        want
    }
}

/// The one copy routine of the frame path.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's contract is that of `copy_nonoverlapping`.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}
