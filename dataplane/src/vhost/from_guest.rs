//! The guest's transmit ring: frames come out of it borrowed.
//!
//! [`SplitRing::receive`] takes up to 64 chains, checks each and lends its buffers to the burst; [`SplitRing::release`]
//! completes them all, in order. [`lend`] says what a frame in a chain is, for packed rings as well. A chain that merely holds a bad frame is counted and completed with the others; a broken
//! ring is an error, after which the ring must not be used any more.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission".

use labsw_switch::{BURST_FRAMES, DropReason};

use super::chain::{Direction, Walk};
use super::ring::RingError;
use super::split::SplitRing;
use crate::frame::{Burst, MAX_FRAME_BYTES, Segment};
use crate::stats::PortDelta;

/// The largest virtio-net header, bytes.
pub(super) const HEADER_BYTES: usize = 12;
/// Header flag: the checksum is unfinished.
const NEEDS_CSUM: u8 = 1;
/// No segmentation asked for.
const GSO_NONE: u8 = 0;

impl SplitRing {
    /// Lends the frames that have arrived to `burst`, up to 64, until [`SplitRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        #[allow(clippy::cast_possible_truncation, reason = "64")]
        const BURST: u16 = BURST_FRAMES as u16;
        self.lent_count = 0;
        for _ in 0..self.available(BURST)?.min(BURST) {
            let head = self.head(0)?;
            self.next_avail = self.next_avail.wrapping_add(1);
            if let Some(place) = self.lent.get_mut(self.lent_count) {
                *place = head;
                self.lent_count += 1;
            }
            if let Some(reason) = self.borrow(head, burst, stats)? {
                stats.drop(reason);
            }
        }
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// Adds the frame in the chain at `head` to `burst`, or says why not.
    #[inline]
    fn borrow(&mut self, head: u16, burst: &mut Burst, stats: &mut PortDelta) -> Result<Option<DropReason>, RingError> {
        self.segments.clear();
        let until = most_bytes(self.header_bytes) + 1;
        let walk = self.walker.walk(head, Direction::FromGuest, until, &mut self.segments)?;
        // SAFETY: the segments come from the walker, and rings are dropped between bursts only.
        Ok(unsafe { lend(walk, head, &mut self.segments, self.header_bytes, burst, stats) })
    }

    /// Completes all chains lent to the burst.
    pub fn release(&mut self) {
        for place in 0..self.lent_count {
            if let Some(&head) = self.lent.get(place) {
                self.complete(head, 0);
            }
        }
        self.lent_count = 0;
        self.publish();
    }
}

/// The most bytes, header included, that a chain with a frame may hold.
#[inline]
pub(super) fn most_bytes(header_bytes: u32) -> u64 {
    u64::from(MAX_FRAME_BYTES + header_bytes)
}

/// Adds the frame in a chain to `burst`, or says why not. `walk` and `segments` are what the walk found, and `id` is what
/// the ring calls the chain.
///
/// # Safety
/// Each segment was translated by the walker as a whole range of one mapped region, which stays mapped until the burst
/// is cleared.
// Always: called once for each kind of ring, in the loop over a burst.
#[inline(always)]
pub(super) unsafe fn lend(
    walk: Walk,
    id: u16,
    segments: &mut [Segment],
    header_bytes: u32,
    burst: &mut Burst,
    stats: &mut PortDelta,
) -> Option<DropReason> {
    let bytes = match walk {
        Walk::Bytes(bytes) if bytes <= most_bytes(header_bytes) => u32::try_from(bytes).ok(),
        Walk::Bytes(_) | Walk::WrongWay => None,
    };
    let Some(frame_bytes) = bytes.and_then(|bytes| bytes.checked_sub(header_bytes)) else {
        stats.received(0);
        return Some(DropReason::BadChain);
    };
    stats.received(frame_bytes);
    let [flags, gso, ..] = take_header(segments, header_bytes);
    // No offload is offered, so none may be asked for.
    if flags & NEEDS_CSUM != 0 || gso != GSO_NONE {
        return Some(DropReason::BadOffload);
    }
    // SAFETY: the caller's promise.
    unsafe { burst.push(u64::from(id), segments) };
    None
}

/// Reads the virtio-net header of `header_bytes` (10 or 12) off the front of `segments`, which hold at least that many.
#[inline]
fn take_header(segments: &mut [Segment], header_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut left = header_bytes;
    let mut to = header.as_mut_ptr();
    for segment in segments {
        let here = segment.len.min(left);
        // SAFETY: the segment is readable for `len` bytes (walker); the pieces together are at most `HEADER_BYTES`.
        unsafe {
            std::ptr::copy_nonoverlapping(segment.ptr, to, here as usize);
            to = to.add(here as usize);
            segment.ptr = segment.ptr.add(here as usize);
        }
        segment.len -= here;
        left -= here;
        if left == 0 {
            break;
        }
    }
    header
}
