//! Bounds on the work that a guest's rings can cause in one burst.
//!
//! **How it works.** A frame in a single descriptor costs as much as its bytes, and a burst has at most 64 frames. A
//! guest may cut a frame into many descriptors, some of them empty; each chain then has at most
//! [`MAX_CHAIN_DESCRIPTORS`](super::layout::MAX_CHAIN_DESCRIPTORS). All chains together are charged to a budget:
//! - taking frames out of a transmit ring, [`Taken`]: when it is spent, the burst ends early. Nothing is lost, the next
//!   turn goes on there.
//! - finding room in a receive ring, [`FindBudget`]: a frame that needs too many reads is dropped, as if the guest's
//!   buffers were too small for it. The place and size of a frame that found no room are remembered, so that a larger
//!   frame at the same place is refused without a look.
//!
//! **Invariants.** No limit here depends on the size of a ring or on another number that a guest chooses.

use super::sent::Sent;
use crate::stats::PortDelta;

/// Descriptors after the first of each chain that one burst of a transmit ring may read before it ends early.
pub const BURST_DESCRIPTORS: u64 = 512;
/// Bytes of frames after which a burst of a transmit ring ends early: 16 of the largest frames.
pub const BURST_BYTES: u64 = 1 << 20;
/// Descriptors that are read to find room for one frame in a receive ring before the frame is dropped.
pub const FRAME_DESCRIPTORS: u64 = 1024;
/// Descriptors that are read to find room for the frames of one call, without those of frames in a single buffer. Twice
/// the number that 64 of the largest frames need in a ring of 2-KiB buffers.
pub const SEND_DESCRIPTORS: u64 = 4096;

/// The bytes of frames taken out of a transmit ring in one burst, before they are counted, and the burst's cost so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    bytes: u64,
    descriptors: u64,
}

impl Taken {
    /// Adds the bytes of a frame.
    #[inline(always)]
    pub(super) fn bytes(&mut self, bytes: u32) {
        self.bytes += u64::from(bytes);
    }

    /// Charges a chain for which `read` descriptors were read. The first is free: every chain has one.
    #[inline]
    pub(super) fn charge_descriptors(&mut self, read: u64) {
        self.descriptors += read.saturating_sub(1);
    }

    /// True if the bytes alone end the burst.
    #[inline(always)]
    pub(super) fn is_long(&self) -> bool {
        self.bytes >= BURST_BYTES
    }

    /// True if the burst is to end.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.descriptors >= BURST_DESCRIPTORS || self.is_long()
    }

    /// Counts the burst, of `frames` frames, as received.
    #[inline]
    pub(super) fn close(self, frames: usize, stats: &mut PortDelta) {
        stats.rx_frames += frames as u64;
        stats.rx_bytes += self.bytes;
    }
}

/// The reads left to find room for the frames of one call, and the last frame that found none.
#[derive(Debug)]
pub(super) struct FindBudget {
    left: u64,
    /// The place in the ring, the bytes (with header) and the result of a frame that found no room.
    refused: Option<(u16, u32, Sent)>,
}

impl FindBudget {
    pub(super) fn new() -> FindBudget {
        FindBudget { left: SEND_DESCRIPTORS, refused: None }
    }

    /// The result for a frame of `needed` bytes at this place of the ring, if it is known without a look.
    pub(super) fn refusal(&self, place: u16, needed: u32) -> Option<Sent> {
        if self.left == 0 {
            return Some(Sent::BufferTooSmall);
        }
        self.refused.filter(|&(at, least, _)| at == place && needed >= least).map(|(_, _, sent)| sent)
    }

    /// Number of descriptors that may be read for the next frame.
    pub(super) fn for_frame(&self) -> u64 {
        self.left.min(FRAME_DESCRIPTORS)
    }

    /// Charges the reads for a frame of `needed` bytes at this place, and records its result.
    pub(super) fn spend(&mut self, read: u64, place: u16, needed: u32, sent: Sent) {
        self.left = self.left.saturating_sub(read);
        if sent != Sent::Done {
            self.refused = Some((place, needed, sent));
        }
    }
}
