//! Positions in a packed ring, and the one at which a device resumes.
//!
//! **Resuming.** The ring holds no used index, and a front end learns none from a switch that was killed. But only the
//! device ever changes a slot's USED bit: the bit equals the wrap counter in all slots that are done, and in no other.
//! For that to hold, a chain of several slots has the bit flipped in all of them, the first one last. The offset field
//! of the device event suppression area, which drivers ignore unless its flags say otherwise, remembers where a burst
//! began, so that nothing behind that place is mistaken while the slots of one chain or frame are being written. The
//! switch does not look at the front end's word; it cannot take over rings that another device began and left with
//! chains of several slots in them. All this is defined by what a killed process leaves: by the order of its stores.
//!
//! **Slots that another device completed.** While no switch is connected, QEMU itself completes what the guest
//! transmits (`virtio_net_drop_tx_queue_data`), and begins at slot 0 of a packed ring instead of the place at which the
//! switch stopped. The driver reclaims such a slot only when the switch gets there. A slot that is done before the
//! switch took it is therefore passed over. A chain of several slots that QEMU completed in this way cannot be told
//! from its first slot, and stays.
//!
//! Reference: Virtio 1.2, 2.8.1 "Driver and Device Ring Wrap Counters".

use std::sync::atomic::Ordering;

use crate::virtio::layout::RingLayout;

/// Descriptor flag, in a slot's word: available.
pub(super) const AVAIL: u64 = 1 << (48 + 7);
/// Descriptor flag, in a slot's word: used.
pub(super) const USED: u64 = 1 << (48 + 15);
/// The wrap counter in a 16-bit position.
pub(super) const WRAP: u16 = 1 << 15;

/// A position in a packed ring: slot and lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio) struct Position {
    pub(super) index: u16,
    pub(super) wrap: bool,
}

impl Position {
    /// The position `slots` slots (at most `size`) further on.
    #[inline]
    pub(super) fn after(self, slots: u16, size: u16) -> Position {
        // Both are at most 32768, and the index is less.
        let index = self.index + slots;
        if index < size {
            Position { index, wrap: self.wrap }
        } else {
            Position { index: index - size, wrap: !self.wrap }
        }
    }

    /// The position in the form of the ring's own structures.
    pub(super) fn word(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// The position in the form of GET_VRING_BASE: next available and next used, which are the same between bursts.
    pub(in crate::virtio) fn base(self) -> u32 {
        u32::from(self.word()) * 0x1_0001
    }

    /// True if a slot with this word, at this position, is available.
    #[inline]
    pub(super) fn is_available(self, word: u64) -> bool {
        (word & AVAIL != 0) == self.wrap && (word & USED != 0) != self.wrap
    }

    /// True if a slot with this word, at this position, is done in this lap.
    #[inline]
    pub(super) fn is_done(self, word: u64) -> bool {
        (word & USED != 0) == self.wrap
    }
}

/// The position at which a new device resumes: after the slots that are done, counted from the start of the last burst.
/// In a ring never used before, all zero, this passes over a whole lap that never was, to the first slot of the next.
pub(in crate::virtio) fn resume(layout: &RingLayout) -> Position {
    let [offset, _] = layout.device_event();
    let word = offset.load(Ordering::Acquire);
    let mut at = Position { index: word & !WRAP, wrap: word & WRAP != 0 };
    if at.index >= layout.size {
        at = Position { index: 0, wrap: false };
    }
    skip_done(layout, at, layout.size)
}

/// The first position from `at` on that is not done, at most `slots` further.
pub(super) fn skip_done(layout: &RingLayout, mut at: Position, slots: u16) -> Position {
    for _ in 0..slots {
        if !at.is_done(layout.slot(at.index).load(Ordering::Acquire)) {
            break;
        }
        at = at.after(1, layout.size);
    }
    at
}
