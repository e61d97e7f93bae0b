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
use labsw_switch::forward::TxItem;
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

impl Segment {
    /// No bytes.
    pub const EMPTY: Segment = Segment { ptr: std::ptr::null(), len: 0 };
}

/// One received frame, described.
#[derive(Clone, Copy, Debug)]
pub struct RxFrame {
    /// The driver's own handle for release (descriptor head, UMEM chunk address).
    pub token: u64,
    /// The bytes behind the snapshot, up to the end of the segment the snapshot ends in.
    rest: Segment,
    /// Length in bytes, without any virtio-net header.
    pub len: u32,
    /// First segment behind `rest`, index into the burst's segments.
    first_segment: u32,
    /// Number of segments behind `rest`.
    segment_count: u32,
    /// Bytes of it in the snapshot: `min(len, 128)`.
    pub snapshot_len: u8,
    /// Set when an egress took the buffer itself instead of a copy; release must leave it alone.
    pub moved: bool,
    /// It came in several pieces: its token stands for the first, and no egress may take it.
    scattered: bool,
}

impl RxFrame {
    const NONE: RxFrame = RxFrame {
        token: 0,
        rest: Segment::EMPTY,
        len: 0,
        first_segment: 0,
        segment_count: 0,
        snapshot_len: 0,
        moved: false,
        scattered: false,
    };
}

impl RxFrame {
    /// Whether an egress may take its buffer ([`Burst::take`]), if the burst is movable.
    #[inline]
    pub fn is_takeable(&self) -> bool {
        !self.moved && !self.scattered
    }
}

/// The first bytes of a frame, in cache lines of their own.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Snapshot([u8; SNAPSHOT_BYTES]);

/// Up to 64 frames received from one queue in one go.
#[derive(Debug)]
pub struct Burst {
    count: usize,
    frames: Box<[RxFrame; BURST_FRAMES]>,
    snapshots: Box<[Snapshot; BURST_FRAMES]>,
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
    /// An empty burst; allocates once, and once more should its frames be scattered over very many segments.
    pub fn new() -> Burst {
        Burst {
            count: 0,
            frames: Box::new([RxFrame::NONE; BURST_FRAMES]),
            snapshots: Box::new([Snapshot([0; SNAPSHOT_BYTES]); BURST_FRAMES]),
            segments: Vec::with_capacity(4 * BURST_FRAMES),
            movable: false,
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.count = 0;
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
        self.count
    }

    /// Whether it holds no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether no further frame fits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.count >= BURST_FRAMES
    }

    /// Adds a frame that lies in one piece, and takes its snapshot. Returns false, and adds nothing, if the burst is full.
    ///
    /// # Safety
    /// The segment is readable for its whole length until [`Burst::clear`].
    #[inline(always)]
    pub unsafe fn push_whole(&mut self, token: u64, segment: Segment) -> bool {
        let (Some(frame), Some(snapshot)) = (self.frames.get_mut(self.count), self.snapshots.get_mut(self.count))
        else {
            return false;
        };
        #[allow(clippy::cast_possible_truncation, reason = "128")]
        let taken = segment.len.min(SNAPSHOT_BYTES as u32);
        // SAFETY: `segment` is readable for `taken` bytes and more (caller), a snapshot is writable for 128.
        unsafe { copy_short(segment.ptr, snapshot.0.as_mut_ptr(), taken as usize) };
        // SAFETY: `taken` is at most the segment's length.
        let rest = Segment { ptr: unsafe { segment.ptr.add(taken as usize) }, len: segment.len - taken };
        #[allow(clippy::cast_possible_truncation, reason = "taken <= 128")]
        let snapshot_len = taken as u8;
        *frame = RxFrame { token, rest, len: segment.len, snapshot_len, ..RxFrame::NONE };
        self.count += 1;
        true
    }

    /// Adds a frame made of `segments` (in order; empty ones are skipped) and takes its snapshot.
    /// Returns false, and adds nothing, if the burst is full.
    ///
    /// # Safety
    /// Each segment is readable for its whole length until [`Burst::clear`].
    pub unsafe fn push(&mut self, token: u64, segments: &[Segment]) -> bool {
        let (Some(frame), Some(snapshot)) = (self.frames.get_mut(self.count), self.snapshots.get_mut(self.count))
        else {
            return false;
        };
        let mut rest = Segment::EMPTY;
        let first_segment = self.segments.len();
        let mut taken = 0usize;
        let mut len = 0u32;
        for segment in segments {
            len += segment.len;
            let here = (SNAPSHOT_BYTES - taken).min(segment.len as usize);
            // SAFETY: `segment` is readable for `len` bytes (caller) and `taken + here <= 128` by the line above.
            unsafe { copy(segment.ptr, snapshot.0.as_mut_ptr().add(taken), here) };
            taken += here;
            if here < segment.len as usize {
                // SAFETY: `here` is less than the segment's length, so the result is inside it.
                let ptr = unsafe { segment.ptr.add(here) };
                #[allow(clippy::cast_possible_truncation, reason = "here <= 128")]
                let left = Segment { ptr, len: segment.len - here as u32 };
                if rest.len == 0 { rest = left } else { self.segments.push(left) }
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "taken <= 128; a burst has far fewer than 2^32 segments")]
        let described = RxFrame {
            token,
            rest,
            len,
            first_segment: first_segment as u32,
            segment_count: (self.segments.len() - first_segment) as u32,
            snapshot_len: taken as u8,
            moved: false,
            scattered: segments.len() > 1,
        };
        *frame = described;
        self.count += 1;
        true
    }

    /// The frame at `index`.
    #[inline]
    pub fn frame(&self, index: usize) -> Option<&RxFrame> {
        self.frames().get(index)
    }

    /// Marks the buffer of the frame at `index` as taken over by an egress, and returns its token.
    /// `None` if there is no such frame, it was taken before, or it came in several pieces.
    #[inline]
    pub fn take(&mut self, index: usize) -> Option<u64> {
        let frame = self.frames.get_mut(..self.count)?.get_mut(index)?;
        if !frame.is_takeable() {
            return None;
        }
        frame.moved = true;
        Some(frame.token)
    }

    /// All frames, in order of arrival.
    #[inline]
    pub fn frames(&self) -> &[RxFrame] {
        self.frames.get(..self.count).unwrap_or_default()
    }

    /// All frames, in order of arrival, each with its snapshot.
    #[inline]
    pub fn snapshots(&self) -> impl Iterator<Item = (&RxFrame, &[u8])> {
        self.frames().iter().zip(self.snapshots.iter()).map(|(frame, snapshot)| (frame, snapshot.of(frame)))
    }

    /// The snapshot of the frame at `index`: its first up to 128 bytes.
    #[inline]
    pub fn snapshot(&self, index: usize) -> &[u8] {
        match (self.frame(index), self.snapshots.get(index)) {
            (Some(frame), Some(snapshot)) => snapshot.of(frame),
            _ => &[],
        }
    }

    /// A frame that leaves as it came and lies in one piece: the usual one. All others are read by [`Burst::reader`].
    #[inline(always)]
    pub fn plain(&self, item: &TxItem) -> Option<PlainFrame<'_>> {
        let index = usize::from(item.frame);
        let (frame, snapshot) = (self.frame(index)?, self.snapshots.get(index)?);
        let plain = item.edit.keeps() && item.snap_bytes == 0 && frame.segment_count == 0;
        plain.then_some(PlainFrame { snapshot: snapshot.of(frame), rest: frame.rest, len: frame.len })
    }

    /// Reads a frame as it leaves. `None` if there is no such frame, or it is too short for the edit.
    pub fn reader(&self, item: &TxItem) -> Option<FrameReader<'_>> {
        let index = usize::from(item.frame);
        let (frame, snapshot) = (self.frame(index)?, self.snapshots.get(index)?.of(self.frame(index)?));
        let segments = if frame.segment_count == 0 {
            &[]
        } else {
            let first = frame.first_segment as usize;
            self.segments.get(first..first + frame.segment_count as usize)?
        };
        let (pieces, tag, len) = if item.edit.keeps() {
            ([snapshot, &[]], None, frame.len)
        } else {
            let rest = snapshot.get(TAG_OFFSET + usize::from(item.edit.strip_bytes)..)?;
            let len = frame.len.checked_add_signed(item.edit.growth_bytes())?;
            ([snapshot.get(..TAG_OFFSET)?, rest], item.edit.insert, len)
        };
        Some(FrameReader {
            pieces,
            tag: tag.unwrap_or_default(),
            tag_left: if tag.is_some() { 4 } else { 0 },
            rest: frame.rest,
            segments,
            remaining: if item.snap_bytes == 0 { len } else { len.min(item.snap_bytes.into()) },
        })
    }
}

impl Snapshot {
    #[inline]
    fn of(&self, frame: &RxFrame) -> &[u8] {
        self.0.get(..usize::from(frame.snapshot_len)).unwrap_or_default()
    }
}

/// A frame that leaves as it came, in two pieces: its snapshot, and the bytes behind.
#[derive(Clone, Copy, Debug)]
pub struct PlainFrame<'a> {
    snapshot: &'a [u8],
    rest: Segment,
    len: u32,
}

impl PlainFrame<'_> {
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
        // SAFETY: snapshot and `rest` together are the frame, for which there is room (caller); a snapshot has at most 128
        // bytes. `rest` is readable until the burst is cleared (contract of `Burst::push`), which the borrow prevents.
        unsafe {
            copy_short(snapshot.as_ptr(), to, snapshot.len());
            if rest.len > 0 {
                copy(rest.ptr, to.add(snapshot.len()), rest.len as usize);
            }
        }
    }
}

/// Reads one outgoing frame front to back: MACs, inserted tag, rest of the snapshot, segments.
#[derive(Clone, Copy, Debug)]
pub struct FrameReader<'a> {
    /// Snapshot before and behind the place of the tag.
    pieces: [&'a [u8]; 2],
    tag: [u8; 4],
    tag_left: u8,
    /// What is left of the segment at hand.
    rest: Segment,
    segments: &'a [Segment],
    remaining: u32,
}

impl FrameReader<'_> {
    /// Bytes not yet read; before the first read, the length of the outgoing frame.
    #[inline]
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Where what is left of the frame lies, in order, for a system call that gathers: fills `pieces` from the front and
    /// returns how many are used, or `None` if there are not enough. They are readable as long as this reader is neither
    /// moved nor read from.
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

    /// Copies the next `room` bytes (or what is left, if less) to `to` and returns how many that were.
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
                // SAFETY: `tag_left` counts the unread bytes at the end of the four-byte tag; `here <= left` are writable
                // at `to`.
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
            // SAFETY: `rest` is readable for its length until the burst is cleared (contract of `Burst::push`), which this
            // reader's borrow of the burst prevents; `here` is at most that; `here <= left` are writable at `to`.
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
}

/// The copy routine of the frame path.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's contract is that of `copy_nonoverlapping`.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}

/// The copy routine for at most 128 bytes: in line, two pieces of a fixed size, which overlap unless the length is twice
/// that.
///
/// # Safety
/// As for [`copy`], and `len` is at most 128.
#[inline(always)]
unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) {
    debug_assert!(len <= SNAPSHOT_BYTES);
    // SAFETY: `both` copies the first and the last `N` bytes of `len`, and is called with `N <= len <= 2 * N`, so all of
    // what the caller promised and nothing else.
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
/// As for [`copy`], and `N` is at most `len`.
#[inline(always)]
unsafe fn both<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `N` bytes at offset 0, and at `len - N`, are inside the `len` bytes that are readable and writable (caller).
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
