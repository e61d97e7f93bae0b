//! The table that forwarding reads: for each key (a group, or the routers of a VLAN) a set of ports, without a lock.
//!
//! **How it works.** A key has one of 16 slots in two buckets, chosen by a seeded hash. The key word is 63 bits of
//! that hash: two keys with the same bits would share their ports, one chance in 2^38 for a full table, and the seed is
//! unknown outside. Only the holder of the table's mutex writes: a new slot gets its ports first and its key last.
//!
//! **Races.** A reader may find a key and read the ports of another key that the slot was given to meanwhile. The
//! current frame then goes to other ports of its own VLAN; the audience narrows a flood list and never adds to it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{MAX_PORTS, PortId, Vid};

const WORDS: usize = MAX_PORTS / 64;
/// Slots of a bucket: the keys of one cache line.
const BUCKET: usize = 8;

/// A set of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet([u64; WORDS]);

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: PortId) {
        if let Some(word) = self.0.get_mut(port.index() / 64) {
            *word |= 1 << (port.index() % 64);
        }
    }

    /// True if the port is in the set.
    #[inline]
    pub fn contains(&self, port: PortId) -> bool {
        self.0.get(port.index() / 64).is_some_and(|word| word >> (port.index() % 64) & 1 == 1)
    }

    /// Adds all ports of another set.
    #[inline]
    pub(super) fn extend(&mut self, other: &PortSet) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }
}

impl FromIterator<PortId> for PortSet {
    fn from_iter<T: IntoIterator<Item = PortId>>(ports: T) -> PortSet {
        let mut set = PortSet::default();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }
}

/// A slot that a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

#[derive(Debug)]
pub(super) struct Slots {
    seed: u64,
    /// A power of two of buckets; 0: free.
    keys: Box<[AtomicU64]>,
    ports: Box<[[AtomicU64; WORDS]]>,
}

impl Slots {
    /// Room for twice `capacity` keys, so that one practically always finds a slot.
    pub(super) fn new(capacity: usize, seed: u64) -> Slots {
        let slots = (2 * capacity).next_power_of_two().max(2 * BUCKET);
        let empty = || std::array::from_fn(|_| AtomicU64::new(0));
        Slots {
            seed,
            keys: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            ports: (0..slots).map(|_| empty()).collect(),
        }
    }

    /// The ports of a key.
    pub(super) fn get(&self, vid: Vid, address: &IpAddr) -> Option<PortSet> {
        let slot = self.find(self.key(vid, address))?;
        let words = self.ports.get(slot.0)?;
        Some(PortSet(std::array::from_fn(|at| words.get(at).map_or(0, |word| word.load(Ordering::Relaxed)))))
    }

    /// Gives a key without a slot a slot, with these ports. `None` if there is no room. The caller holds the mutex.
    pub(super) fn insert(&self, vid: Vid, address: &IpAddr, ports: PortSet) -> Option<Slot> {
        let key = self.key(vid, address);
        let slot = self.free(key)?;
        self.set(slot, ports);
        self.keys.get(slot.0)?.store(key, Ordering::Release);
        Some(slot)
    }

    /// Changes the ports of a slot. The caller holds the mutex.
    pub(super) fn set(&self, slot: Slot, ports: PortSet) {
        if let Some(words) = self.ports.get(slot.0) {
            words.iter().zip(ports.0).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        }
    }

    /// Frees a slot. The caller holds the mutex.
    pub(super) fn remove(&self, slot: Slot) {
        if let Some(key) = self.keys.get(slot.0) {
            key.store(0, Ordering::Release);
        }
    }

    fn key(&self, vid: Vid, address: &IpAddr) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, vid, address).hash(&mut hasher);
        hasher.finish() | 1
    }

    fn find(&self, key: u64) -> Option<Slot> {
        self.candidates(key).find(|at| self.keys.get(at.0).is_some_and(|word| word.load(Ordering::Acquire) == key))
    }

    /// A free slot for `key`, in the bucket that has more of them.
    fn free(&self, key: u64) -> Option<Slot> {
        let is_free = |at: &Slot| self.keys.get(at.0).is_some_and(|word| word.load(Ordering::Relaxed) == 0);
        let slots: Vec<Slot> = self.candidates(key).collect();
        let buckets = slots.chunks(BUCKET);
        let roomiest = buckets.max_by_key(|bucket| bucket.iter().filter(|at| is_free(at)).count())?;
        roomiest.iter().copied().find(is_free)
    }

    /// The slots that a key may have, bucket by bucket.
    fn candidates(&self, key: u64) -> impl Iterator<Item = Slot> {
        let mask = self.keys.len() / BUCKET - 1;
        #[allow(clippy::cast_possible_truncation, reason = "some bits of a hash")]
        let buckets = [(key >> 1) as usize & mask, (key >> 33) as usize & mask];
        buckets.into_iter().flat_map(|bucket| (bucket * BUCKET..(bucket + 1) * BUCKET).map(Slot))
    }
}
