//! The outcome of one send: frames a port took are counted, and each frame it lost has its one reason.
//!
//! **How it works.** The caller of a port ([`TxPort::send`](crate::port::TxPort::send)) lends the port a [`TxReport`].
//! The port counts the frames that it takes ([`TxReport::sent`]) and names a reason for each other frame
//! ([`TxReport::lose`]), which counts the frame as dropped and keeps the reason beside the frame. Mirrors, captures and
//! backlogs read the reasons afterwards ([`Losses`]).
//!
//! **Invariant.** A frame is lost once at most, so the frames in [`Losses`] are the drops that the send counted, except
//! those a backlog has [recovered](TxReport::recover).
//!
//! **Cost.** A send without a loss reads and writes none of this, except one word that is set to zero before it.

use labsw_switch::forward::TxItem;
use labsw_switch::{BURST_FRAMES, DropReason};

use crate::stats::PortDelta;

/// The frames of one send that were lost, and the reason of each.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Bit = index in the burst.
    frames: u64,
    /// By index in the burst; meaningless for frames that are not lost.
    reasons: [DropReason; BURST_FRAMES],
}

impl Default for Losses {
    fn default() -> Losses {
        Losses::NONE
    }
}

impl Losses {
    /// No frame is lost.
    pub const NONE: Losses = Losses { frames: 0, reasons: [DropReason::NotConnected; BURST_FRAMES] };

    /// Forgets all losses.
    #[inline]
    pub fn clear(&mut self) {
        self.frames = 0;
    }

    /// The lost frames (bit = index in the burst).
    #[inline]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// True if no frame is lost.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The reason for which a frame is lost; `None` if it is not.
    #[inline]
    pub fn reason(&self, frame: u8) -> Option<DropReason> {
        let is_lost = self.frames & frame_bit(frame) != 0;
        self.reasons.get(usize::from(frame)).copied().filter(|_| is_lost)
    }

    /// The frames that are lost because the port was full (bit = index in the burst).
    #[cold]
    pub fn full(&self) -> u64 {
        let is_full = |frame: &u8| self.reason(*frame).is_some_and(DropReason::is_full);
        (0..64).filter(is_full).fold(0, |set, frame| set | frame_bit(frame))
    }

    /// Remembers that a frame is lost, and why, without counting it.
    #[cold]
    pub(crate) fn insert(&mut self, frame: u8, reason: DropReason) {
        self.frames |= frame_bit(frame);
        if let Some(place) = self.reasons.get_mut(usize::from(frame)) {
            *place = reason;
        }
    }
}

/// Where a port reports the outcome of one send.
#[derive(Debug)]
pub struct TxReport<'a> {
    /// The port's counters.
    pub stats: &'a mut PortDelta,
    /// The frames that were lost.
    pub losses: &'a mut Losses,
}

impl TxReport<'_> {
    /// Counts one frame of `bytes` that the port took.
    #[inline(always)]
    pub fn sent(&mut self, bytes: u32) {
        self.stats.sent(bytes);
    }

    /// Counts a frame as dropped and remembers why. The first reason of a frame stands.
    #[cold]
    pub fn lose(&mut self, frame: u8, reason: DropReason) {
        if self.losses.frames & frame_bit(frame) == 0 {
            self.stats.drop(reason);
            self.losses.insert(frame, reason);
        }
    }

    /// Loses every frame of `items` for one reason.
    #[cold]
    pub fn lose_all(&mut self, items: &[TxItem], reason: DropReason) {
        items.iter().for_each(|item| self.lose(item.frame, reason));
    }

    /// A lost frame is kept after all and will be sent: it counts as sent, `bytes` long, and not as dropped.
    pub(crate) fn recover(&mut self, frame: u8, bytes: u32) {
        if let Some(reason) = self.losses.reason(frame) {
            self.stats.undrop(reason);
            self.losses.frames &= !frame_bit(frame);
        }
        self.stats.sent(bytes);
    }
}

/// The set of one frame.
#[inline]
fn frame_bit(frame: u8) -> u64 {
    1u64.checked_shl(frame.into()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use labsw_switch::forward::TagEdit;

    use super::*;

    fn count(stats: &PortDelta, reason: DropReason) -> u64 {
        stats.drops[reason as usize]
    }

    #[test]
    fn a_lost_frame_is_counted_once_and_under_its_first_reason() {
        let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
        let mut report = TxReport { stats: &mut stats, losses: &mut losses };
        report.lose(63, DropReason::Runt);
        report.lose(0, DropReason::TxRingFull);
        let items: Vec<_> = [0, 1, 63].map(|frame| TxItem::whole(frame, TagEdit::KEEP)).into();
        report.lose_all(&items, DropReason::NotConnected);
        assert_eq!(losses.frames(), 1 << 63 | 0b11);
        let reasons = [0, 1, 2, 63, 64].map(|frame| losses.reason(frame));
        let expected =
            [Some(DropReason::TxRingFull), Some(DropReason::NotConnected), None, Some(DropReason::Runt), None];
        assert_eq!(reasons, expected);
        assert_eq!(losses.full(), 1);
        assert_eq!(stats.drops.iter().sum::<u64>(), 3);
        losses.clear();
        assert!(losses.is_empty() && losses.reason(0).is_none() && losses.full() == 0);
    }

    #[test]
    fn a_recovered_frame_is_no_loss_and_counts_as_sent() {
        let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
        let mut report = TxReport { stats: &mut stats, losses: &mut losses };
        report.lose(3, DropReason::TxRingFull);
        report.lose(4, DropReason::TxRingFull);
        report.recover(3, 100);
        assert_eq!((losses.frames(), losses.reason(3)), (1 << 4, None));
        assert_eq!((count(&stats, DropReason::TxRingFull), stats.tx_frames, stats.tx_bytes), (1, 1, 100));
    }
}
