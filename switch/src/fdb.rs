//! The forwarding database: (VLAN id, MAC) → port, shared by all workers and the control thread.
//!
//! **How it works.** A fixed table of buckets, each one cache line of four slots; a slot is a key word
//! (`vid << 48 | mac`, 0 = free) and a value word (port, static flag, generation, time stamp). A key can be
//! in two buckets, chosen by a seeded hash (Azar et al., "Balanced Allocations"), so that at the load
//! allowed here, at most one half, a new key practically always finds a free slot. Look-ups and time stamps take
//! no lock; everything else changes the table under one mutex (`fdb/writer.rs`).
//!
//! **Invariants.**
//! - A look-up never yields a port that was not the key's: a slot gets a new key by key := 0, value := with
//!   the next generation, key := new, in this order; a reader takes value, key, value and believes them only
//!   if both values have the same generation and the key is the wanted one.
//! - A key is in at most one slot: keys are put in only under the mutex, after looking at both buckets.
//! - A time stamp is refreshed by compare-and-swap against the value that was read, at most once a second;
//!   it fails if the slot was given to another key meanwhile.
//! - Eviction is fair: the evicted entry belongs to the port with the most dynamic entries, and to the learning port
//!   itself if none has more. Static entries are never evicted; sticky ones (dynamic entries of a sticky port, which
//!   neither age nor move) are, as any other of their port.
//!
//! Times are seconds of one clock modulo 2^32. An entry stamped in the (by then wrapped) future has age 0.

use std::sync::PoisonError;

use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::{Mac, PortId, Vid};

mod learned;
mod memory;
mod slot;
mod writer;

pub use learned::{FdbFull, Learned, MAX_MOVES, Moved, Moves};
use memory::Memory;
pub use memory::{Layout, MAX_CAPACITY, places};
pub use slot::Bucket;
use slot::{SLOTS, Slot, Value, vid_of};
use writer::Writer;

/// Which entries to list; `None` means any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbFilter {
    /// Only of this VLAN.
    pub vid: Option<Vid>,
    /// Only of this port.
    pub port: Option<PortId>,
}

/// One entry, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Its VLAN.
    pub vid: Vid,
    /// Its address.
    pub mac: Mac,
    /// Where frames to it go.
    pub port: PortId,
    /// True if the entry was added by hand: it never ages, never moves, and is never evicted.
    pub is_static: bool,
    /// True if the address was learned at a sticky port: the entry neither ages nor moves.
    pub is_sticky: bool,
    /// Seconds since the address was last seen; 0 for static entries.
    pub age_seconds: u32,
}

/// The forwarding database; see the module.
#[derive(Debug)]
pub struct Fdb {
    /// A power of two.
    buckets: Memory,
    seed: u64,
    /// Odd, and made from the seed.
    multiplier: u64,
    ageing_seconds: AtomicU32,
    /// Boxed so that taking the mutex does not disturb the readers of the words above.
    writer: Box<Mutex<Writer>>,
}

impl Fdb {
    /// An empty database for `capacity` entries (1 to [`MAX_CAPACITY`]; other values are brought into this
    /// range), whose dynamic entries count as absent when not seen for `ageing_seconds` (0: never). `seed`
    /// should not be guessable by those who send frames.
    pub fn new(capacity: usize, ageing_seconds: u32, seed: u64) -> Fdb {
        let buckets = (0..places(capacity)).map(|_| Bucket::default()).collect();
        Fdb::of(Memory::Own(buckets), capacity, ageing_seconds, seed)
    }

    /// Like [`Fdb::new`], in memory that somebody else reads as well ([`Fdb::layout`]): [`places`] empty buckets.
    /// `None` for another number of them.
    pub fn in_memory(buckets: &'static [Bucket], capacity: usize, ageing_seconds: u32, seed: u64) -> Option<Fdb> {
        (buckets.len() == places(capacity)).then(|| Fdb::of(Memory::Lent(buckets), capacity, ageing_seconds, seed))
    }

    fn of(buckets: Memory, capacity: usize, ageing_seconds: u32, seed: u64) -> Fdb {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        Fdb {
            buckets,
            seed,
            multiplier: seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15 | 1,
            ageing_seconds: AtomicU32::new(ageing_seconds),
            writer: Box::new(Mutex::new(Writer::new(capacity))),
        }
    }

    /// Where frames to `mac` in VLAN `vid` go. Aged entries are absent.
    #[inline(always)]
    pub fn lookup(&self, vid: Vid, mac: Mac, now_seconds: u32) -> Option<PortId> {
        let (_, value) = self.find(key_of(vid, mac))?;
        // The usual answer: seen this second.
        let is_there = value.is_fresh(now_seconds) || !value.is_aged(self.ageing_seconds(), now_seconds);
        is_there.then(|| value.port())
    }

    /// Records that `mac` in VLAN `vid` was seen as a source on `port`.
    #[inline(always)]
    pub fn learn(&self, vid: Vid, mac: Mac, port: PortId, now_seconds: u32) -> Learned {
        if mac.is_group() {
            return Learned::Group;
        }
        let key = key_of(vid, mac);
        match self.find(key) {
            // The usual answer.
            Some((_, value)) if value.port() == port && value.is_fresh(now_seconds) => Learned::Known,
            found => self.learn_more(key, port, now_seconds, found),
        }
    }

    /// The outcome that [`Fdb::learn`] would return; changes nothing.
    pub fn would_learn(&self, vid: Vid, mac: Mac, port: PortId, now_seconds: u32) -> Learned {
        if mac.is_group() {
            return Learned::Group;
        }
        let (key, ageing) = (key_of(vid, mac), self.ageing_seconds());
        match self.find(key).map(|(_, value)| value) {
            Some(value) if value.is_static() && value.port() != port => Learned::Static,
            Some(value) if value.is_sticky() && value.port() != port => Learned::Sticky,
            Some(value) if value.port() == port && (value.is_static() || value.is_fresh(now_seconds)) => Learned::Known,
            Some(value) if value.port() == port && !value.is_aged(ageing, now_seconds) => Learned::Refreshed,
            _ => self.with_writer(|writer| {
                writer.would_learn(&self.buckets, self.pair(key), key, port, ageing, now_seconds)
            }),
        }
    }

    /// The entry of one address; aged entries are absent.
    pub fn entry(&self, vid: Vid, mac: Mac, now_seconds: u32) -> Option<FdbEntry> {
        let key = key_of(vid, mac);
        let (_, value) = self.find(key)?;
        self.entry_of(key, value, now_seconds)
    }

    /// The rest of [`Fdb::learn`]: `found` is the entry in the database, which is wrong, old or missing.
    #[cold]
    #[inline(never)]
    fn learn_more(&self, key: u64, port: PortId, now_seconds: u32, found: Option<(&Slot, Value)>) -> Learned {
        let ageing = self.ageing_seconds();
        match found {
            Some((_, value)) if value.is_static() && value.port() == port => Learned::Known,
            Some((_, value)) if value.is_static() => Learned::Static,
            Some((_, value)) if value.is_sticky() && value.port() != port => Learned::Sticky,
            Some((slot, value)) if value.port() == port && !value.is_aged(ageing, now_seconds) => {
                let refreshed = value.with_stamp(now_seconds).0;
                // Losing the race means that another thread wrote a newer truth, or the same stamp.
                let _ = slot.value.compare_exchange(value.0, refreshed, Ordering::Release, Ordering::Relaxed);
                Learned::Refreshed
            }
            _ => self.with_writer(|writer| writer.learn(&self.buckets, self.pair(key), key, port, ageing, now_seconds)),
        }
    }

    /// Adds a static entry, in place of whatever the database knew about the address.
    ///
    /// # Errors
    /// [`FdbFull`] if only static entries could be evicted.
    pub fn add_static(&self, vid: Vid, mac: Mac, port: PortId) -> Result<(), FdbFull> {
        let key = key_of(vid, mac);
        self.with_writer(|writer| writer.add_static(&self.buckets, self.pair(key), key, port))
    }

    /// Removes one entry, static or not; returns whether there was one.
    pub fn remove(&self, vid: Vid, mac: Mac) -> bool {
        let key = key_of(vid, mac);
        self.with_writer(|writer| writer.remove(self.pair(key), key))
    }

    /// Removes the dynamic entries of `vid` and `port` (`None`: any), except sticky ones; returns their number.
    pub fn flush(&self, vid: Option<Vid>, port: Option<PortId>) -> usize {
        self.remove_dynamic(vid, port, false)
    }

    /// Like [`Fdb::flush`], and removes sticky entries too.
    pub fn flush_with_sticky(&self, vid: Option<Vid>, port: Option<PortId>) -> usize {
        self.remove_dynamic(vid, port, true)
    }

    fn remove_dynamic(&self, vid: Option<Vid>, port: Option<PortId>, sticky_too: bool) -> usize {
        self.remove_where(|key, value| {
            !value.is_static()
                && (sticky_too || !value.is_sticky())
                && vid.is_none_or(|vid| vid_of(key) == Some(vid))
                && port.is_none_or(|port| value.port() == port)
        })
    }

    /// Removes every entry of a port, static ones too, its limit and its stickiness; returns how many entries. For a
    /// port that goes away.
    pub fn remove_port(&self, port: PortId) -> usize {
        self.set_port_limit(port, None);
        self.set_port_sticky(port, false, 0);
        self.remove_where(|_, value| value.port() == port)
    }

    /// The entries selected by `filter` that have not aged, in no particular order. Runs along with changes:
    /// an entry changed meanwhile may be missed.
    pub fn entries(&self, filter: FdbFilter, now_seconds: u32) -> Vec<FdbEntry> {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        slots
            .filter_map(|slot| {
                let (key, value) = slot.read()?;
                let entry = self.entry_of(key, value, now_seconds)?;
                let wanted =
                    filter.vid.is_none_or(|vid| vid == entry.vid) && filter.port.is_none_or(|port| port == entry.port);
                wanted.then_some(entry)
            })
            .collect()
    }

    /// Removes aged entries from the next `slots` places of the table, going on where the last call
    /// stopped; returns how many were removed. Bounds the time the mutex is held.
    pub fn sweep(&self, now_seconds: u32, slots: usize) -> usize {
        let ageing = self.ageing_seconds();
        self.with_writer(|writer| writer.sweep(&self.buckets, slots.div_ceil(SLOTS), ageing, now_seconds))
    }

    /// Addresses that have moved between ports since this was last asked. However many move, few are kept.
    pub fn take_moves(&self) -> Moves {
        self.with_writer(Writer::take_moves)
    }

    /// How often addresses have moved between ports.
    pub fn moved(&self) -> u64 {
        self.with_writer(|writer| writer.moved())
    }

    /// Number of entries, static ones and aged ones not yet swept included.
    pub fn len(&self) -> usize {
        self.with_writer(|writer| writer.len())
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of dynamic entries of `port`, aged ones not yet swept included.
    pub fn len_of_port(&self, port: PortId) -> usize {
        self.with_writer(|writer| writer.dynamic_of(port))
    }

    /// Limits the dynamic entries of `port`; `None` lifts the limit. Entries it already has stay.
    pub fn set_port_limit(&self, port: PortId, limit: Option<u32>) {
        self.with_writer(|writer| writer.set_limit(port, limit));
    }

    /// Makes `port` sticky, or not: addresses learned there, from now on or earlier and not aged, neither age nor move,
    /// until they are flushed with [`Fdb::flush_with_sticky`].
    pub fn set_port_sticky(&self, port: PortId, sticky: bool, now_seconds: u32) {
        let ageing = self.ageing_seconds();
        self.with_writer(|writer| writer.set_sticky(&self.buckets, port, sticky, ageing, now_seconds));
    }

    /// Sets after how many seconds a dynamic entry that was not seen counts as absent (0: never).
    pub fn set_ageing(&self, ageing_seconds: u32) {
        self.ageing_seconds.store(ageing_seconds, Ordering::Relaxed);
    }

    /// After how many seconds a dynamic entry that was not seen counts as absent (0: never).
    #[inline]
    pub fn ageing_seconds(&self) -> u32 {
        self.ageing_seconds.load(Ordering::Relaxed)
    }

    /// How keys are found in the table.
    pub fn layout(&self) -> Layout {
        Layout { seed: self.seed, multiplier: self.multiplier, buckets: self.buckets.len() }
    }

    fn remove_where(&self, mut selected: impl FnMut(u64, Value) -> bool) -> usize {
        self.with_writer(|writer| writer.remove_where(&self.buckets, &mut selected))
    }

    /// Runs `change` under the mutex. A thread that died inside left each slot whole, so poison is ignored.
    fn with_writer<T>(&self, change: impl FnOnce(&mut Writer) -> T) -> T {
        change(&mut self.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An entry in the form in which entries are listed, unless it has aged.
    fn entry_of(&self, key: u64, value: Value, now_seconds: u32) -> Option<FdbEntry> {
        let is_static = value.is_static();
        let entry = FdbEntry {
            vid: vid_of(key)?,
            mac: Mac::from_u64(key),
            port: value.port(),
            is_static,
            is_sticky: value.is_sticky(),
            age_seconds: if is_static { 0 } else { value.age_seconds(now_seconds) },
        };
        (!value.is_aged(self.ageing_seconds(), now_seconds)).then_some(entry)
    }

    /// The slot that holds a key, with its value. The second bucket is worked out only if the first does not have it.
    #[inline(always)]
    fn find(&self, key: u64) -> Option<(&Slot, Value)> {
        let hash = hash(key, self.seed, self.multiplier);
        self.bucket(hash).find_slot(key).or_else(|| self.bucket(hash >> 32).find_slot(key))
    }

    /// The two buckets a key can be in; they may be the same.
    fn pair(&self, key: u64) -> [&Bucket; 2] {
        let hash = hash(key, self.seed, self.multiplier);
        [self.bucket(hash), self.bucket(hash >> 32)]
    }

    #[inline(always)]
    fn bucket(&self, hash: u64) -> &Bucket {
        #[allow(clippy::cast_possible_truncation, reason = "either half of the hash is as good; cut by the mask")]
        &self.buckets[hash as usize & (self.buckets.len() - 1)]
    }
}

/// A seeded hash: one full multiplication, both halves folded (as in wyhash).
#[inline]
fn hash(key: u64, seed: u64, multiplier: u64) -> u64 {
    let product = u128::from(key ^ seed) * u128::from(multiplier);
    #[allow(clippy::cast_possible_truncation, reason = "folds the two halves")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

/// Key word of an entry; never 0, because no VLAN is.
#[inline]
fn key_of(vid: Vid, mac: Mac) -> u64 {
    u64::from(vid.get()) << 48 | mac.to_u64()
}

#[cfg(test)]
#[cfg(loom)]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
