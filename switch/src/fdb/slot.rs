//! One slot of the forwarding database: how its two words are laid out, written and read.
//!
//! Value word, low to high: time stamp in seconds (32 bits), port (16), generation (14), sticky (1), static (1). The
//! generation says which tenancy of the slot the value belongs to. It wraps after 16384 keys; a reader would
//! have to sleep between two loads through an exact multiple of that, and wake to its own key, to be misled.

use crate::sync::{AtomicU64, Ordering};
use crate::{PortId, Vid};

/// Slots of a bucket.
pub(super) const SLOTS: usize = 4;

const PORT_SHIFT: u32 = 32;
const GENERATION_SHIFT: u32 = 48;
const GENERATION_MASK: u64 = 0x3fff << GENERATION_SHIFT;
const STICKY: u64 = 1 << 62;
const STATIC: u64 = 1 << 63;

/// The rules by which an entry ages, moves and is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Learned: ages, moves, may be evicted.
    Dynamic,
    /// Learned at a sticky port: neither ages nor moves, may be evicted.
    Sticky,
    /// Added by hand: never ages, moves, or is evicted.
    Static,
}

/// The value word of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(pub u64);

impl Value {
    #[inline]
    pub(super) fn port(self) -> PortId {
        #[allow(clippy::cast_possible_truncation, reason = "cuts out the 16 bits of the port")]
        PortId((self.0 >> PORT_SHIFT) as u16)
    }

    #[inline]
    pub(super) fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// True for an address learned at a sticky port.
    #[inline]
    pub(super) fn is_sticky(self) -> bool {
        self.0 & STICKY != 0
    }

    #[inline]
    pub(super) fn stamp(self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "cuts out the 32 bits of the stamp")]
        let stamp = self.0 as u32;
        stamp
    }

    #[inline]
    pub(super) fn with_stamp(self, now_seconds: u32) -> Value {
        Value(self.0 & !u64::from(u32::MAX) | u64::from(now_seconds))
    }

    /// The same tenancy of the slot with another port, kind and stamp.
    pub(super) fn with(self, port: PortId, kind: Kind, now_seconds: u32) -> Value {
        let flag = match kind {
            Kind::Dynamic => 0,
            Kind::Sticky => STICKY,
            Kind::Static => STATIC,
        };
        Value(flag | self.0 & GENERATION_MASK | u64::from(port.0) << PORT_SHIFT | u64::from(now_seconds))
    }

    /// The next tenancy of the slot.
    fn next_generation(self) -> Value {
        let next = (self.0 & GENERATION_MASK).wrapping_add(1 << GENERATION_SHIFT) & GENERATION_MASK;
        Value(self.0 & !GENERATION_MASK | next)
    }

    /// Seconds since the stamp; 0 if the stamp is in the future.
    #[inline]
    pub(super) fn age_seconds(self, now_seconds: u32) -> u32 {
        let age = now_seconds.wrapping_sub(self.stamp());
        if age > u32::MAX / 2 { 0 } else { age }
    }

    #[inline]
    pub(super) fn is_aged(self, ageing_seconds: u32, now_seconds: u32) -> bool {
        !self.is_fresh(now_seconds)
            && self.0 & (STATIC | STICKY) == 0
            && ageing_seconds != 0
            && self.age_seconds(now_seconds) >= ageing_seconds
    }

    /// True if the stamp is of this second, or one ahead (another worker's clock was read a little later).
    #[inline]
    pub(super) fn is_fresh(self, now_seconds: u32) -> bool {
        self.stamp().wrapping_sub(now_seconds) <= 1
    }
}

/// A key and its value.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Slot {
    key: AtomicU64,
    pub value: AtomicU64,
}

impl Slot {
    /// The key for the writer, which is alone in changing it; 0 if free.
    #[inline]
    pub(super) fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// The value for the writer; only the stamp can change under it.
    pub(super) fn value(&self) -> Value {
        Value(self.value.load(Ordering::Relaxed))
    }

    /// The value if the slot holds `key`. Orders: the first load acquires the value store of its
    /// generation, so that the key load sees at least the key := 0 before it; the key load acquires a later
    /// key, so that the last load sees that key's generation.
    #[inline]
    fn get(&self, key: u64) -> Option<Value> {
        let value = self.value.load(Ordering::Acquire);
        let holds = self.key.load(Ordering::Acquire) == key;
        let again = self.value.load(Ordering::Relaxed);
        (holds && (value ^ again) & GENERATION_MASK == 0).then_some(Value(value))
    }

    /// Key and value, if the slot is taken.
    pub(super) fn read(&self) -> Option<(u64, Value)> {
        let key = self.key();
        if key == 0 { None } else { self.get(key).map(|value| (key, value)) }
    }

    /// Frees the slot. Writer only.
    pub(super) fn clear(&self) {
        self.key.store(0, Ordering::Release);
    }

    /// Gives a free slot to `key`. Writer only. The generation changes together with the rest of the value,
    /// so that no value of the tenancy before is taken for one of this.
    pub(super) fn occupy(&self, key: u64, port: PortId, kind: Kind, now_seconds: u32) {
        let value = self.value().next_generation().with(port, kind, now_seconds);
        self.value.store(value.0, Ordering::Release);
        self.key.store(key, Ordering::Release);
    }

    /// Changes the entry of the slot's key. Writer only.
    pub(super) fn change(&self, port: PortId, kind: Kind, now_seconds: u32) {
        self.value.store(self.value().with(port, kind, now_seconds).0, Ordering::Release);
    }
}

/// VLAN of a key word; `None` for the key of a free slot.
pub(super) fn vid_of(key: u64) -> Option<Vid> {
    u16::try_from(key >> 48).ok().and_then(|vid| Vid::try_from(vid).ok())
}

#[cfg(not(all(loom, test)))]
const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is one cache line");

/// Four slots in one cache line. One whose bytes are all 0 is empty.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    pub(super) slots: [Slot; SLOTS],
}

impl Bucket {
    /// The slot that holds `key`, with its value.
    #[inline(always)]
    pub(super) fn find_slot(&self, key: u64) -> Option<(&Slot, Value)> {
        self.slots.iter().filter(|slot| slot.key() == key).find_map(|slot| slot.get(key).map(|value| (slot, value)))
    }

    pub(super) fn free_slots(&self) -> usize {
        self.slots.iter().filter(|slot| slot.key() == 0).count()
    }
}
