//! Detects mirror copies that come back, from a loop cable or a tool that bridges the frames that it sees.
//!
//! **How it works.** The hash of each copy is recorded before it is sent: of its first [`SNAPSHOT_BYTES`] and its
//! length as they go out, tag edit and snap length included, padded to the shortest frame a wire carries. A frame whose
//! hash was recorded within the last [`ECHO_NS`] is a copy that came back. The table has [`ECHO_SLOTS`] places in sets
//! of four; a full set forgets its oldest hash.
//!
//! **What it can't tell.** A frame that is sent on purpose exactly as it was copied within that time is taken for a
//! loop. A tool that changes the frames that it sends back (another address, another length, segments merged) is not
//! detected. Two different frames are taken for each other once in 2⁵² looks: 14 bits choose the set, 40 are
//! compared with four places.
//!
//! **Invariants.** No lock: a place is one atomic word, and one that is overwritten by two workers at once forgets one
//! of two copies.
//!
//! **Another process** gets the seed and the hashes that are young enough ([`Echoes::young`]). If it was compiled with
//! another hash function, it goes on without them.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::header::SNAPSHOT_BYTES;

/// Copies that are remembered at most.
pub const ECHO_SLOTS: usize = 65_536;
/// How long a copy is remembered, ns: two seconds.
pub const ECHO_NS: u64 = 2_000_000_000;
/// Places that a hash can be in.
const WAYS: usize = 4;
/// The shortest frame on a wire, without its check sequence: drivers pad shorter ones with zeros.
const MIN_WIRE_BYTES: u32 = 60;
/// Time is noted in units of 2 to the power of this, ns: 17 ms.
const TIME_SHIFT: u32 = 24;
/// Bits of the time; it wraps after 3 days.
const TIME_BITS: u32 = 24;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// See the module.
#[derive(Debug)]
pub struct Echoes {
    /// Goes into every hash.
    seed: AtomicU64,
    /// The upper 40 bits of a hash, and the time it was noted; 0: free.
    slots: Box<[AtomicU64]>,
}

impl Echoes {
    /// Nothing was sent yet.
    pub(super) fn new(seed: u64) -> Echoes {
        Echoes { seed: AtomicU64::new(seed), slots: (0..ECHO_SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Records that a copy of `frame_bytes` is sent that begins with `start`: all of it, or at least
    /// [`SNAPSHOT_BYTES`].
    pub fn note(&self, start: &[u8], frame_bytes: u32, now_ns: u64) {
        let (set, mark) = self.place(start, frame_bytes);
        let now = time(now_ns);
        let age = |word: u64| if word == 0 { u64::MAX } else { now.wrapping_sub(word) & TIME_MASK };
        let same = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) & !TIME_MASK == mark;
        let oldest = || set.iter().max_by_key(|slot| age(slot.load(Ordering::Relaxed)));
        if let Some(slot) = set.iter().find(same).or_else(oldest) {
            slot.store(mark | now, Ordering::Relaxed);
        }
    }

    /// Returns true if the frame that begins with `start` is a copy that was sent a short time ago.
    pub fn is_echo(&self, start: &[u8], frame_bytes: u32, now_ns: u64) -> bool {
        let (set, mark) = self.place(start, frame_bytes);
        let now = time(now_ns);
        set.iter().map(|slot| slot.load(Ordering::Relaxed)).any(|word| word & !TIME_MASK == mark && is_young(word, now))
    }

    /// The seed, and a number that says which hash function is used.
    pub(super) fn hashing(&self) -> (u64, u64) {
        (self.seed.load(Ordering::Relaxed), self.hasher().finish())
    }

    /// The copies that may still come back: place and word of each.
    pub(super) fn young(&self, now_ns: u64) -> impl Iterator<Item = (usize, u64)> {
        let words = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).enumerate();
        words.filter(move |(_, word)| *word != 0 && is_young(*word, time(now_ns)))
    }

    /// Uses another seed, which other copies were noted with.
    pub(super) fn reseed(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
    }

    /// Takes in the word of a place; false: there is no such place.
    pub(super) fn put(&self, place: usize, word: u64) -> bool {
        self.slots.get(place).map(|slot| slot.store(word, Ordering::Relaxed)).is_some()
    }

    fn hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed.load(Ordering::Relaxed));
        hasher
    }

    /// The places where a frame's hash can be, and its mark there.
    fn place(&self, start: &[u8], frame_bytes: u32) -> (&[AtomicU64], u64) {
        let mut bytes = [0; SNAPSHOT_BYTES];
        let known = start.len().min(SNAPSHOT_BYTES);
        for (to, from) in bytes.iter_mut().zip(start) {
            *to = *from;
        }
        let mut hasher = self.hasher();
        hasher.write(bytes.get(..known.max(MIN_WIRE_BYTES as usize)).unwrap_or_default());
        hasher.write_u32(frame_bytes.max(MIN_WIRE_BYTES));
        let hash = hasher.finish();
        // The lower bits choose the set. A mark is never 0, which is a free place.
        let sets = ECHO_SLOTS / WAYS;
        let first = usize::try_from(hash & TIME_MASK).unwrap_or(0) % sets * WAYS;
        let mark = (hash & !TIME_MASK).max(1 << TIME_BITS);
        (self.slots.get(first..first + WAYS).unwrap_or_default(), mark)
    }
}

/// True if a copy was noted a short time ago.
fn is_young(word: u64, now: u64) -> bool {
    // Another worker may have noted it a moment later than this one read its clock.
    let age = now.wrapping_add(1).wrapping_sub(word) & TIME_MASK;
    age <= (ECHO_NS >> TIME_SHIFT) + 1
}

/// A time in the form in which the table holds it.
fn time(now_ns: u64) -> u64 {
    now_ns >> TIME_SHIFT & TIME_MASK
}
