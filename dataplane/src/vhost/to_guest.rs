//! The guest's receive ring: frames are copied into the buffers it holds.
//!
//! [`SplitRing::send`] looks at the buffers for a whole burst first. A frame that fits its buffer is written straight into
//! it. For any other, the buffers of the whole frame are gathered before the first is written, so that a frame that
//! does not fit consumes nothing. Nobody waits: no buffer means the frame is lost. [`Tally`], [`write_plain`] and [`write`](fn@write)
//! serve packed rings as well.
//!
//! Reference: Virtio 1.2, 5.1.6.3 "Setting Up Receive Buffers", 5.1.6.4 "Processing of Incoming Packets" (`num_buffers`).

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use super::budget::FindBudget;
use super::chain::{Direction, Walk};
use super::from_guest::HEADER_BYTES;
use super::ring::RingError;
use super::split::{Chain, SplitRing};
use crate::frame::{Burst, FrameReader, PlainFrame, Segment};
use crate::losses::TxReport;
use crate::offload::{self, Offers};

/// What the guest has to do for a frame: the front of its virtio-net header, up to `num_buffers`.
pub(super) type Asks = [u8; offload::HEADER_BYTES];

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

/// The frames of one call that were sent, before they are reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    frames: u64,
    bytes: u64,
}

impl Tally {
    /// Counts a frame sent.
    #[inline(always)]
    pub(super) fn sent(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += u64::from(bytes);
    }

    /// Reports the frames sent.
    #[inline]
    pub(super) fn close(self, report: &mut TxReport<'_>) {
        report.stats.tx_frames += self.frames;
        report.stats.tx_bytes += self.bytes;
    }

    /// Has `send` copy the frame, whatever it looks like, and counts what became of it.
    pub(super) fn send(
        &mut self,
        burst: &Burst,
        item: &TxItem,
        accepts: Offers,
        report: &mut TxReport<'_>,
        send: impl FnOnce(&mut FrameReader<'_>, Asks) -> Result<Sent, RingError>,
    ) -> Result<(), RingError> {
        let Some(mut frame) = burst.reader(item) else {
            report.lose(item.frame, DropReason::Runt);
            return Ok(());
        };
        // The worker has finished what this guest does not accept. If it does not now, it is another driver already.
        let asked = burst.asked(item.frame.into()).encode(accepts, item.edit.growth_bytes());
        let Some(asks) = asked else {
            report.lose(item.frame, DropReason::NotConnected);
            return Ok(());
        };
        let bytes = frame.remaining();
        match send(&mut frame, asks)? {
            Sent::Done => self.sent(bytes),
            Sent::RingFull => report.lose(item.frame, DropReason::GuestRingFull),
            Sent::BufferTooSmall => report.lose(item.frame, DropReason::GuestBufferTooSmall),
        }
        Ok(())
    }
}

impl SplitRing {
    /// Copies frames of a burst into the guest's next buffers, in order, and reports each. The guest sees them after
    /// [`SplitRing::publish`]. After an error no frame was reported as sent.
    pub fn send(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), RingError> {
        let (gathered, _) = self.gather(items.len(), Direction::ToGuest)?;
        let mut taken = 0;
        let mut tally = Tally::default();
        let mut budget = FindBudget::new();
        for item in items {
            let next = self.gathered.get(..gathered).and_then(|chains| chains.get(usize::from(taken)));
            if let (Some(frame), Some(&Chain { buffer, head })) = (burst.plain(item), next)
                && buffer.len >= self.dialect.header_bytes + frame.bytes()
            {
                // SAFETY: the buffer comes from the walker, whose memory the ring keeps mapped.
                unsafe { write_plain(buffer, self.dialect.header_bytes, frame) };
                self.complete(head, self.dialect.header_bytes + frame.bytes());
                taken += 1;
                tally.sent(frame.bytes());
            } else {
                let accepts = self.dialect.accepts;
                tally.send(burst, item, accepts, report, |frame, asks| {
                    self.scatter(&mut taken, frame, asks, &mut budget)
                })?;
            }
        }
        self.next_avail = self.next_avail.wrapping_add(taken);
        tally.close(report);
        Ok(())
    }

    /// Copies a frame into the next buffers, however many and of whatever form, behind the `taken` chains that were filled
    /// already.
    fn scatter(
        &mut self,
        taken: &mut u16,
        frame: &mut FrameReader<'_>,
        asks: Asks,
        budget: &mut FindBudget,
    ) -> Result<Sent, RingError> {
        let needed = self.dialect.header_bytes + frame.remaining();
        if let Some(refusal) = budget.refusal(*taken, needed) {
            return Ok(refusal);
        }
        let before = self.walker.descriptors_read();
        let found = self.find_room(*taken, needed, before + budget.for_frame())?;
        budget.spend(self.walker.descriptors_read() - before, *taken, needed, found);
        if found != Sent::Done {
            return Ok(found);
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most the ring's size")]
        let count = self.chains.len() as u16;
        // SAFETY: the segments come from the walker, whose memory the ring keeps mapped.
        unsafe { write(&self.segments, self.dialect.header_bytes, asks, frame, count) };
        *taken += count;
        for place in 0..self.chains.len() {
            if let Some(&(head, bytes)) = self.chains.get(place) {
                self.complete(head, bytes);
            }
        }
        Ok(Sent::Done)
    }

    /// Gathers the chains for `needed` bytes behind the `taken` ones, and their buffers. [`Sent::Done`]: they are found. No
    /// further chain is looked at when the walker has read `limit` descriptors.
    fn find_room(&mut self, taken: u16, needed: u32, limit: u64) -> Result<Sent, RingError> {
        self.segments.clear();
        self.chains.clear();
        let mut gathered = 0u32;
        let mut count = 0u16;
        while gathered < needed {
            if self.walker.descriptors_read() >= limit {
                return Ok(Sent::BufferTooSmall);
            }
            let place = taken.saturating_add(count);
            if self.available(place.saturating_add(1))? <= place {
                return Ok(if count == self.size { Sent::BufferTooSmall } else { Sent::RingFull });
            }
            let head = self.head(place)?;
            let missing = needed - gathered;
            let walk = self.walker.walk(head, Direction::ToGuest, u64::from(missing), &mut self.segments)?;
            let bytes = usable_bytes(walk, missing, self.dialect.header_bytes)?;
            self.chains.push((head, bytes));
            gathered += bytes;
            count += 1;
            if gathered < needed && !self.mergeable {
                return Ok(Sent::BufferTooSmall);
            }
        }
        Ok(Sent::Done)
    }
}

/// How many of the `missing` bytes of a frame a receive buffer takes, of which the walk found at least so many or all it
/// has. The standard wants each buffer to hold at least the header (Virtio 1.2, 5.1.6.3.1); without that, buffers without
/// room could make a frame look at the whole ring.
#[inline]
pub(super) fn usable_bytes(walk: Walk, missing: u32, header_bytes: u32) -> Result<u32, RingError> {
    match walk {
        Walk::WrongWay => Err(RingError::ReceiveBufferReadOnly),
        Walk::Bytes(bytes) if bytes < u64::from(missing.min(header_bytes)) => {
            Err(RingError::ReceiveBufferShort { bytes, header_bytes })
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most `missing`")]
        Walk::Bytes(bytes) => Ok(bytes.min(u64::from(missing)) as u32),
    }
}

/// Writes header and frame into one buffer, which is large enough.
///
/// # Safety
/// The buffer was translated by the walker as a range of one region, mapped writable, and is still mapped.
#[inline(always)]
pub(super) unsafe fn write_plain(buffer: Segment, header_bytes: u32, frame: PlainFrame<'_>) {
    let to = buffer.ptr.cast_mut();
    // SAFETY: the buffer is writable for `header_bytes` (10 or 12) bytes and the frame (caller), which does not overlap it:
    // see `write`.
    unsafe {
        // No flags, no segmentation, a checksum is as it is; then `num_buffers`, which a 10-byte header has not.
        to.cast::<u64>().write_unaligned(0);
        if header_bytes as usize == HEADER_BYTES {
            to.add(8).cast::<[u8; 4]>().write([0, 0, 1, 0]);
        } else {
            to.add(8).cast::<u16>().write_unaligned(0);
        }
        frame.copy_to(to.add(header_bytes as usize));
    }
}

/// Writes header and frame into the gathered `segments` of so many `buffers`, which are large enough.
///
/// # Safety
/// Each segment was translated by the walker as a range of one region, mapped writable, and is still mapped.
pub(super) unsafe fn write(
    segments: &[Segment],
    header_bytes: u32,
    asks: Asks,
    frame: &mut FrameReader<'_>,
    buffers: u16,
) {
    // A 10-byte header ends before `num_buffers`.
    let mut header = [0u8; HEADER_BYTES];
    header[..asks.len()].copy_from_slice(&asks);
    header[asks.len()..].copy_from_slice(&buffers.to_le_bytes());
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
