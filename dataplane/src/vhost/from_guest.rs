//! The guest's transmit ring: frames come out of it borrowed.
//!
//! [`SplitRing::receive`] takes up to 64 chains, checks each and lends its buffers to the burst; [`SplitRing::release`]
//! completes them all, in order. [`lend`] says what a frame in a chain is, for packed rings as well, and notes what its
//! header leaves to do. A chain that merely holds a bad frame is counted and completed with the others; a broken ring is an
//! error, after which the ring must not be used any more.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission".

use labsw_switch::{BURST_FRAMES, DropReason};

use super::budget::{BURST_BYTES, TakeBudget};
use super::chain::{Direction, Walk};
use super::ring::{F_MRG_RXBUF, F_VERSION_1, RingError};
use super::split::{Chain, SplitRing};
use crate::frame::{Burst, MAX_FRAME_BYTES, Segment};
use crate::offload::{self, Offers};
use crate::stats::PortDelta;

/// The largest virtio-net header, bytes.
pub(super) const HEADER_BYTES: usize = 12;
/// Header flag: the checksum is unfinished.
const NEEDS_CSUM: u8 = 1;
/// No segmentation asked for.
const GSO_NONE: u8 = 0;

/// How the guest speaks of its frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// Length of the virtio-net header, bytes: 12, or 10 for a legacy guest without mergeable buffers.
    pub(super) header_bytes: u32,
    /// What it may ask for in the frames it sends.
    pub(super) may_ask: Offers,
    /// What it accepts in the frames it receives.
    pub(super) accepts: Offers,
}

impl Dialect {
    /// Of a guest that acknowledged `features`.
    pub(super) fn of(features: u64) -> Dialect {
        let header_bytes = if features & (F_MRG_RXBUF | F_VERSION_1) != 0 { 12 } else { 10 };
        Dialect { header_bytes, may_ask: Offers::by_guest(features), accepts: Offers::to_guest(features) }
    }
}

impl SplitRing {
    /// Lends the frames that have arrived to `burst`, up to 64, fewer if they are costly, until [`SplitRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        let (gathered, bytes) = self.gather(BURST_FRAMES, Direction::FromGuest)?;
        self.lent_count = if bytes > BURST_BYTES { self.affordable(gathered) } else { gathered };
        let mut budget = TakeBudget::default();
        for (place, chain) in self.gathered.iter().take(self.lent_count).enumerate() {
            let id = u64::from(chain.head);
            if chain.buffer.len > 0 {
                // SAFETY: the buffer comes from the walker, and rings are dropped between bursts only.
                if let Some(reason) = unsafe { lend_whole(chain.buffer, id, &self.dialect, burst, stats) } {
                    stats.drop(reason);
                }
                continue;
            }
            self.segments.clear();
            let before = self.walker.descriptors_read();
            let until = most_bytes(self.dialect.header_bytes) + 1;
            let walk = self.walker.walk(chain.head, Direction::FromGuest, until, &mut self.segments)?;
            // SAFETY: as above, each segment.
            if let Some(reason) = unsafe { lend(walk, id, &mut self.segments, &self.dialect, burst, stats) } {
                stats.drop(reason);
            }
            budget.charge_descriptors(self.walker.descriptors_read() - before);
            budget.charge_bytes(walk.bytes());
            if budget.is_spent() {
                self.lent_count = place + 1;
                break;
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let taken = self.lent_count as u16;
        self.next_avail = self.next_avail.wrapping_add(taken);
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// How many of the first `count` chains in `gathered` a burst may have, at least one, whose single buffers hold too many
    /// bytes together.
    #[cold]
    fn affordable(&self, count: usize) -> usize {
        let mut bytes = 0;
        let fits = |chain: &&Chain| {
            bytes += u64::from(chain.buffer.len);
            bytes <= BURST_BYTES
        };
        self.gathered.iter().take(count).take_while(fits).count().max(1)
    }

    /// Completes all chains lent to the burst.
    pub fn release(&mut self) {
        for place in 0..self.lent_count {
            if let Some(&Chain { head, .. }) = self.gathered.get(place) {
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

/// Adds the frame in a chain of a single buffer to `burst`, or says why not. `id` is what the ring calls the chain.
///
/// # Safety
/// The buffer was translated by the walker as a whole range of one mapped region, which stays mapped until the burst is
/// cleared.
// Always: called once for each kind of ring, in the loop over a burst.
#[inline(always)]
pub(super) unsafe fn lend_whole(
    buffer: Segment,
    id: u64,
    dialect: &Dialect,
    burst: &mut Burst,
    stats: &mut PortDelta,
) -> Option<DropReason> {
    let header_bytes = dialect.header_bytes;
    let bytes = buffer.len.checked_sub(header_bytes).filter(|&bytes| bytes <= MAX_FRAME_BYTES);
    let Some(frame_bytes) = bytes else {
        stats.received(0);
        return Some(DropReason::BadChain);
    };
    stats.received(frame_bytes);
    // SAFETY: the buffer is readable for at least the 10 bytes of the shortest header.
    let front = unsafe { buffer.ptr.cast::<[u8; 8]>().read() };
    // SAFETY: the header lies in front of the frame in the same buffer, so the rest of it is readable (caller).
    unsafe {
        let frame = Segment { ptr: buffer.ptr.add(header_bytes as usize), len: frame_bytes };
        if asks(front) {
            // What was not read yet.
            let [c, d] = buffer.ptr.add(front.len()).cast::<[u8; 2]>().read();
            return lend_asking(id, &[frame], front, [c, d], dialect, burst);
        }
        burst.push_whole(id, frame);
    }
    None
}

/// Adds the frame in a chain of any form to `burst`, or says why not. `walk` and `segments` are what the walk found, and
/// `id` is what the ring calls the chain.
///
/// # Safety
/// As for [`lend_whole`], each segment.
pub(super) unsafe fn lend(
    walk: Walk,
    id: u64,
    segments: &mut [Segment],
    dialect: &Dialect,
    burst: &mut Burst,
    stats: &mut PortDelta,
) -> Option<DropReason> {
    let header_bytes = dialect.header_bytes;
    let bytes = match walk {
        Walk::Bytes(bytes) if bytes <= most_bytes(header_bytes) => u32::try_from(bytes).ok(),
        Walk::Bytes(_) | Walk::WrongWay => None,
    };
    let Some(frame_bytes) = bytes.and_then(|bytes| bytes.checked_sub(header_bytes)) else {
        stats.received(0);
        return Some(DropReason::BadChain);
    };
    stats.received(frame_bytes);
    let [header @ .., _, _] = take_header(segments, header_bytes);
    // SAFETY: the caller's promise.
    unsafe {
        let [front @ .., c, d] = header;
        if asks(front) {
            return lend_asking(id, segments, front, [c, d], dialect, burst);
        }
        burst.push(id, segments);
    }
    None
}

/// Whether something is left to do for the frame behind this header.
#[inline(always)]
fn asks([flags, gso_type, ..]: [u8; 8]) -> bool {
    flags & NEEDS_CSUM != 0 || gso_type != GSO_NONE
}

/// Adds a frame and what its header asks for to `burst`, or says why not.
///
/// # Safety
/// As for [`lend_whole`], each segment.
// Never: it would make the usual case longer.
#[inline(never)]
unsafe fn lend_asking(
    id: u64,
    segments: &[Segment],
    front: [u8; 8],
    back: [u8; 2],
    dialect: &Dialect,
    burst: &mut Burst,
) -> Option<DropReason> {
    // SAFETY: the caller's promise.
    unsafe { burst.push(id, segments) };
    let mut header = [0; offload::HEADER_BYTES];
    header[..8].copy_from_slice(&front);
    header[8..].copy_from_slice(&back);
    burst.ask(&header, dialect.may_ask).err().map(|refused| refused.drop_reason())
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
