//! Borrowed frames: the burst, its segments, and the one copy out of it.
//!
//! **How it works.** A driver's receive fills a [`Burst`]: per frame it records where the bytes lie
//! ([`Segment`]s in foreign memory) and copies the first up to 128 bytes into the *snapshot*. Decisions
//! are made on the snapshot alone. A driver's send asks for a [`FrameReader`] and copies the frame into
//! its own buffers: snapshot bytes first (with the tag edit applied), then the rest from the segments. The offloads
//! that its sender requested ([`Asked`]: checksum, segmentation) are kept beside the frame; most frames have none.
//!
//! **Invariants.**
//! - Look once: the bytes that were checked are the bytes that are sent; the part of the foreign memory
//!   that the snapshot covers is never read again.
//! - Foreign memory is never a Rust reference: it is only ever the source of a raw copy, because a guest
//!   (or the kernel) may write to it at any time.
//! - The segments of a frame stay mapped from receive until the driver's release: the driver that
//!   pushed them keeps the mapping alive (guest memory in an `Arc`, UMEM for the life of the worker).

#![allow(unsafe_code, reason = "foreign memory is only ever copied raw")]

mod arena;
mod copy;
mod filter;
mod lend;
mod limits;
mod owned;
mod reader;

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::TxItem;
pub use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_switch::wire::TAG_OFFSET;

use crate::offload::{Asked, HEADER_BYTES, Offers, Refused};
use arena::Arena;
use copy::{copy, copy_short};

pub(crate) use copy::prefetch;
pub(crate) use lend::Lender;
pub use limits::{MAX_BURST_SEGMENTS, MAX_FRAME_BYTES};
pub use reader::{FrameReader, PlainFrame};

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
    /// Length on a wire, bytes: of a frame still to be cut, that of its longest segment.
    pub wire_bytes: u32,
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
    /// It lies in the snapshot and one piece behind that, and nothing is left to do for it.
    plain: bool,
}

impl RxFrame {
    const NONE: RxFrame = RxFrame {
        token: 0,
        rest: Segment::EMPTY,
        len: 0,
        wire_bytes: 0,
        first_segment: 0,
        segment_count: 0,
        snapshot_len: 0,
        moved: false,
        scattered: false,
        plain: true,
    };
}

impl RxFrame {
    /// True if an egress may take the buffer ([`Burst::take`]), if the burst is movable.
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
    /// The offload state of the frames in `asking`; for other frames the entry is of an earlier burst.
    asked: Box<[Asked; BURST_FRAMES]>,
    /// The frames (bit = index) with a requested offload or a verified checksum.
    asking: u64,
    /// Segments that the frames of the burst will become where they are cut.
    segments_asked: u32,
    movable: bool,
    /// The frames (bit = index) with one taker: its egress may move the buffer.
    exclusive: u64,
    /// Bytes of frames that the burst itself has copied.
    arena: Arena,
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
            asked: Box::new([Asked::default(); BURST_FRAMES]),
            asking: 0,
            segments_asked: 0,
            movable: false,
            exclusive: 0,
            arena: Arena::default(),
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.count = 0;
        self.segments.clear();
        self.asking = 0;
        self.segments_asked = 0;
        self.movable = false;
        self.exclusive = 0;
        self.arena.reset();
    }

    /// Says that the frames lie in chunks of the worker's packet memory, so that an AF_XDP egress may take a whole
    /// chunk ([`Burst::take`]) instead of a copy; the token of each frame is then the UMEM address of its first byte.
    #[inline]
    pub fn set_movable(&mut self) {
        self.movable = true;
    }

    /// True if [`Burst::set_movable`] was called since the last clear.
    #[inline]
    pub fn is_movable(&self) -> bool {
        self.movable
    }

    /// Names the frames (bit = index) that no port gets besides the one that is sent to next.
    #[inline]
    pub fn set_exclusive(&mut self, frames: u64) {
        self.exclusive = frames;
    }

    /// The frames (bit = index) named by [`Burst::set_exclusive`] since the last clear.
    #[inline]
    pub fn exclusive(&self) -> u64 {
        self.exclusive
    }

    /// True if the egress that is sent to may [take](Burst::take) the buffer of this frame instead of a copy.
    #[inline]
    pub fn may_take(&self, frame: u8) -> bool {
        self.movable && self.exclusive >> (usize::from(frame) % BURST_FRAMES) & 1 == 1
    }

    /// Number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if it holds no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if no further frame fits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.count >= BURST_FRAMES
    }

    /// Adds a frame that lies in one piece, and takes its snapshot. Returns false, and adds nothing, if the burst is
    /// full.
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
        let len = segment.len;
        *frame = RxFrame { token, rest, len, wire_bytes: len, snapshot_len, ..RxFrame::NONE };
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
            wire_bytes: len,
            first_segment: first_segment as u32,
            segment_count: (self.segments.len() - first_segment) as u32,
            snapshot_len: taken as u8,
            moved: false,
            scattered: segments.len() > 1,
            plain: self.segments.len() == first_segment,
        };
        *frame = described;
        self.count += 1;
        true
    }

    /// Records the offloads that the last frame's virtio-net header asks for, from a sender with `offers`; if they are
    /// refused, the frame is taken out of the burst again.
    ///
    /// # Errors
    /// The errors of [`Asked::admit`], and [`Refused::SegmentsOfBurst`] beyond [`MAX_BURST_SEGMENTS`].
    #[inline(never)]
    pub fn ask(&mut self, header: &[u8; HEADER_BYTES], offers: Offers) -> Result<(), Refused> {
        let Some(last) = self.count.checked_sub(1) else { return Ok(()) };
        let frame_bytes = self.frame(last).map_or(0, |frame| frame.len);
        let admitted = Asked::admit(header, self.snapshot(last), frame_bytes, offers).and_then(|asked| {
            let segments = self.segments_asked + asked.segments();
            let fits = segments <= MAX_BURST_SEGMENTS;
            fits.then_some((asked, segments)).ok_or(Refused::SegmentsOfBurst(MAX_BURST_SEGMENTS))
        });
        match admitted {
            Ok((asked, segments)) => {
                self.segments_asked = segments;
                self.set_asked(asked);
                Ok(())
            }
            Err(refused) => {
                self.count = last;
                Err(refused)
            }
        }
    }

    /// Records the offloads that are left to finish for the last frame.
    pub(crate) fn set_asked(&mut self, asked: Asked) {
        let Some(last) = self.count.checked_sub(1) else { return };
        if asked != Asked::default()
            && let Some(place) = self.asked.get_mut(last)
        {
            *place = asked;
            self.asking |= 1 << last;
            if let Some(frame) = self.frames.get_mut(last) {
                frame.wire_bytes = asked.wire_bytes(frame.len);
                frame.plain = false;
            }
        }
    }

    /// The frames (bit = index) for which something is left to do or to say: [`Burst::asked`] of all others is nothing.
    #[inline]
    pub fn asking(&self) -> u64 {
        self.asking
    }

    /// The offload state of the frame at `index`.
    #[inline]
    pub fn asked(&self, index: usize) -> Asked {
        let asks = self.asking >> (index % BURST_FRAMES) & 1 == 1;
        self.asked.get(index).filter(|_| asks).copied().unwrap_or_default()
    }

    /// Adds the frame at `index` of another burst unchanged, with the offloads that are left to finish. Returns false,
    /// and adds nothing, if this burst is full or there is no such frame.
    ///
    /// # Safety
    /// The other burst is cleared after this one.
    pub(crate) unsafe fn push_from(&mut self, other: &Burst, index: usize) -> bool {
        let (Some(frame), Some(from)) = (other.frame(index), other.snapshots.get(index)) else { return false };
        let (Some(place), Some(snapshot)) = (self.frames.get_mut(self.count), self.snapshots.get_mut(self.count))
        else {
            return false;
        };
        let (first, count) = (frame.first_segment as usize, frame.segment_count as usize);
        let Some(segments) = other.segments.get(first..first + count) else { return false };
        #[allow(clippy::cast_possible_truncation, reason = "a burst has far fewer than 2^32 segments")]
        let first_segment = self.segments.len() as u32;
        *place = RxFrame { first_segment, ..*frame };
        *snapshot = *from;
        self.segments.extend_from_slice(segments);
        self.count += 1;
        self.set_asked(other.asked(index));
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

    /// A frame that leaves as it came, lies in one piece and is finished: the usual one. All others are read by
    /// [`Burst::reader`].
    #[inline(always)]
    pub fn plain(&self, item: &TxItem) -> Option<PlainFrame<'_>> {
        let index = usize::from(item.frame);
        let (frame, snapshot) = (self.frame(index)?, self.snapshots.get(index)?);
        let plain = item.edit.keeps() && item.snap_bytes == 0 && frame.plain;
        plain.then(|| PlainFrame::new(snapshot.of(frame), frame.rest, frame.len))
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
        let remaining = if item.snap_bytes == 0 { len } else { len.min(item.snap_bytes.into()) };
        Some(FrameReader::new(pieces, tag, frame.rest, segments, remaining))
    }
}

impl Snapshot {
    #[inline]
    fn of(&self, frame: &RxFrame) -> &[u8] {
        self.0.get(..usize::from(frame.snapshot_len)).unwrap_or_default()
    }
}
