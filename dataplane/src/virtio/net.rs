//! A virtio-net frame in a chain of descriptors, for split and packed rings.
//!
//! **From the guest.** [`lend_whole`] and [`lend`] add the frame in a chain to a burst, borrowed, with the offloads
//! that its header asks for. A chain that merely holds a bad frame has a drop reason and is completed with the others.
//!
//! **To the guest.** [`write_plain`] writes a frame into a buffer that holds all of it, [`write()`] into any number of
//! buffers; [`Tally`] counts the results for the frames of one call. [`usable_bytes`] says how much of a frame a buffer
//! takes.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission", 5.1.6.3 "Setting Up Receive Buffers", 5.1.6.4 "Processing of
//! Incoming Packets" (`num_buffers`).

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use super::budget::Taken;
use super::chain::Walk;
use super::error::RingError;
use super::features::{F_MRG_RXBUF, F_VERSION_1};
use super::header::{GSO_NONE, HEADER_BYTES, NEEDS_CSUM};
use super::sent::Sent;
use crate::frame::{Burst, FrameReader, MAX_FRAME_BYTES, PlainFrame, Segment};
use crate::losses::TxReport;
use crate::offload::{self, Offers};

/// The virtio-net header format of a guest, and the offloads in both directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetFormat {
    /// Length of the virtio-net header, bytes: 12, or 10 for a legacy guest without mergeable buffers.
    pub(super) header_bytes: u32,
    /// The offloads that the guest may ask for in frames that it sends.
    pub(super) may_ask: Offers,
    /// The offloads that the guest accepts in frames that it receives.
    pub(super) accepts: Offers,
}

impl NetFormat {
    /// The format of a guest that acknowledged `features`.
    pub(super) fn of(features: u64) -> NetFormat {
        let header_bytes = if features & (F_MRG_RXBUF | F_VERSION_1) != 0 { 12 } else { 10 };
        NetFormat { header_bytes, may_ask: Offers::by_guest(features), accepts: Offers::to_guest(features) }
    }
}

/// The most bytes, header included, that a chain with a frame may hold.
#[inline]
pub(super) fn most_bytes(header_bytes: u32) -> u64 {
    u64::from(MAX_FRAME_BYTES + header_bytes)
}

/// Adds the frame in a chain of a single buffer to `burst`, or returns why not. `id` is the ring's id for the chain.
///
/// # Safety
/// The buffer was translated by the walker as a whole range of one mapped region, which stays mapped until the burst is
/// cleared.
// Always: called once for each kind of ring, in the loop over a burst.
#[inline(always)]
pub(super) unsafe fn lend_whole(
    buffer: Segment,
    id: u64,
    format: &NetFormat,
    burst: &mut Burst,
    taken: &mut Taken,
) -> Option<DropReason> {
    let header_bytes = format.header_bytes;
    let bytes = buffer.len.checked_sub(header_bytes).filter(|&bytes| bytes <= MAX_FRAME_BYTES);
    let Some(frame_bytes) = bytes else {
        return Some(DropReason::BadChain);
    };
    taken.bytes(frame_bytes);
    // SAFETY: the buffer is readable for at least the 10 bytes of the shortest header.
    let front = unsafe { buffer.ptr.cast::<[u8; 8]>().read() };
    // SAFETY: the header lies in front of the frame in the same buffer, so the rest of it is readable (caller).
    unsafe {
        let frame = Segment { ptr: buffer.ptr.add(header_bytes as usize), len: frame_bytes };
        if asks(front) {
            // The rest of the header, which was not read yet.
            let [c, d] = buffer.ptr.add(front.len()).cast::<[u8; 2]>().read();
            return lend_asking(id, &[frame], front, [c, d], format, burst);
        }
        burst.push_whole(id, frame);
    }
    None
}

/// Adds the frame in a chain of any form to `burst`, or returns why not. `walk` and `segments` are the outcome of the
/// walk, `id` is the ring's id for the chain.
///
/// # Safety
/// The same as for [`lend_whole`], for each segment.
pub(super) unsafe fn lend(
    walk: Walk,
    id: u64,
    segments: &mut [Segment],
    format: &NetFormat,
    burst: &mut Burst,
    taken: &mut Taken,
) -> Option<DropReason> {
    let header_bytes = format.header_bytes;
    let bytes = match walk {
        Walk::Bytes(bytes) if bytes <= most_bytes(header_bytes) => u32::try_from(bytes).ok(),
        Walk::Bytes(_) | Walk::WrongWay => None,
    };
    let Some(frame_bytes) = bytes.and_then(|bytes| bytes.checked_sub(header_bytes)) else {
        return Some(DropReason::BadChain);
    };
    taken.bytes(frame_bytes);
    let [header @ .., _, _] = take_header(segments, header_bytes);
    // SAFETY: the caller's promise.
    unsafe {
        let [front @ .., c, d] = header;
        if asks(front) {
            return lend_asking(id, segments, front, [c, d], format, burst);
        }
        burst.push(id, segments);
    }
    None
}

/// True if the header asks for an offload of the frame.
#[inline(always)]
fn asks([flags, gso_type, ..]: [u8; 8]) -> bool {
    flags & NEEDS_CSUM != 0 || gso_type != GSO_NONE
}

/// Adds a frame and the offloads that its header asks for to `burst`, or returns why not.
///
/// # Safety
/// The same as for [`lend_whole`], for each segment.
// Never: it would make the usual case longer.
#[inline(never)]
unsafe fn lend_asking(
    id: u64,
    segments: &[Segment],
    front: [u8; 8],
    back: [u8; 2],
    format: &NetFormat,
    burst: &mut Burst,
) -> Option<DropReason> {
    // SAFETY: the caller's promise.
    unsafe { burst.push(id, segments) };
    let mut header = [0; offload::HEADER_BYTES];
    header[..8].copy_from_slice(&front);
    header[8..].copy_from_slice(&back);
    burst.ask(&header, format.may_ask).err().map(|refused| refused.drop_reason())
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

/// The offloads that the guest has to finish for a frame: the front of its virtio-net header, up to `num_buffers`.
pub(super) type Asks = [u8; offload::HEADER_BYTES];

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

    /// Copies a frame of any form with `send`, and counts the result.
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
        // The worker has finished the offloads that this guest does not accept. If one is left, another driver has
        // taken over.
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

/// Number of the `missing` bytes of a frame that a receive buffer takes; the walk found at least as many bytes, or the
/// whole buffer. The standard wants each buffer to hold at least the header (Virtio 1.2, 5.1.6.3.1); without that rule,
/// buffers without room could make a frame look at the whole ring.
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
    // SAFETY: the buffer is writable for `header_bytes` (10 or 12) bytes and the frame (caller), which does not overlap
    // it: see `write`.
    unsafe {
        // No flags, no segmentation, a finished checksum; then `num_buffers`, which a 10-byte header does not have.
        to.cast::<u64>().write_unaligned(0);
        if header_bytes as usize == HEADER_BYTES {
            to.add(8).cast::<[u8; 4]>().write([0, 0, 1, 0]);
        } else {
            to.add(8).cast::<u16>().write_unaligned(0);
        }
        frame.copy_to(to.add(header_bytes as usize));
    }
}

/// Writes header and frame into the gathered `segments` of `buffers` buffers, which are large enough.
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
