//! The guest's receive ring: frames are copied into the buffers it holds.
//!
//! [`SplitRing::send`] first gathers the buffers for a whole frame, then writes; so a frame that does not fit consumes
//! nothing. Nobody waits: no buffer means the frame is lost. [`write`] does the
//! writing, for packed rings as well.
//!
//! Reference: Virtio 1.2, 5.1.6.3 "Setting Up Receive Buffers", 5.1.6.4 "Processing of Incoming Packets" (`num_buffers`).

use super::chain::{Direction, Walk};
use super::from_guest::HEADER_BYTES;
use super::ring::RingError;
use super::split::SplitRing;
use crate::frame::{FrameReader, Segment};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the guest's buffers.
    Done,
    /// The guest has no free buffers for it.
    RingFull,
    /// It would not fit the guest's buffers even if all were free.
    BufferTooSmall,
}

impl SplitRing {
    /// Copies a frame into the guest's next buffers.
    #[inline]
    pub fn send(&mut self, frame: &mut FrameReader<'_>) -> Result<Sent, RingError> {
        let needed = self.header_bytes + frame.remaining();
        self.segments.clear();
        self.chains.clear();
        let mut gathered = 0u32;
        let mut count = 0u16;
        while gathered < needed {
            if self.available(count.saturating_add(1))? <= count {
                return Ok(if count == self.size { Sent::BufferTooSmall } else { Sent::RingFull });
            }
            let head = self.head(count)?;
            let missing = needed - gathered;
            let bytes = match self.walker.walk(head, Direction::ToGuest, u64::from(missing), &mut self.segments)? {
                #[allow(clippy::cast_possible_truncation, reason = "at most `missing`")]
                Walk::Bytes(bytes) => bytes.min(u64::from(missing)) as u32,
                Walk::WrongWay => return Err(RingError::ReceiveBufferReadOnly),
            };
            self.chains.push((head, bytes));
            gathered += bytes;
            count += 1;
            if gathered < needed && !self.mergeable {
                return Ok(Sent::BufferTooSmall);
            }
        }
        // SAFETY: the segments come from the walker, whose memory the ring keeps mapped.
        unsafe { write(&self.segments, self.header_bytes, frame, count) };
        self.next_avail = self.next_avail.wrapping_add(count);
        for place in 0..self.chains.len() {
            if let Some(&(head, bytes)) = self.chains.get(place) {
                self.complete(head, bytes);
            }
        }
        Ok(Sent::Done)
    }
}

/// Writes header and frame into the gathered `segments` of so many `buffers`, which are large enough.
///
/// # Safety
/// Each segment was translated by the walker as a range of one region, mapped writable, and is still mapped.
// Always: called once for each kind of ring, in the loop over a burst.
#[inline(always)]
pub(super) unsafe fn write(segments: &[Segment], header_bytes: u32, frame: &mut FrameReader<'_>, buffers: u16) {
    // All zero: no flags, no segmentation; a checksum is as it is. A 10-byte header ends before `num_buffers`.
    let mut header = [0u8; HEADER_BYTES];
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    let mut header = header.get(..header_bytes as usize).unwrap_or_default();
    for segment in segments {
        let (mut to, mut room) = (segment.ptr.cast_mut(), segment.len);
        if !header.is_empty() {
            let here = header.len().min(room as usize);
            // SAFETY: the segment is writable for `len` bytes (caller); `here` is at most that.
            unsafe {
                std::ptr::copy_nonoverlapping(header.as_ptr(), to, here);
                to = to.add(here);
            }
            header = header.get(here..).unwrap_or_default();
            #[allow(clippy::cast_possible_truncation, reason = "at most 12")]
            let done = here as u32;
            room -= done;
        }
        // SAFETY: `to` is writable for the `room` bytes left of the segment. It does not overlap the frame: that
        // lies in the memory of another port, mapped elsewhere, or in the snapshot (a frame never leaves by the
        // port it came in on).
        unsafe { frame.read(to, room) };
    }
}
