//! The memory of the forwarding database: its own, or lent by somebody who looks keys up as well.
//!
//! **The second reader.** Programs of the switch in the kernel pass frames between two known addresses. They read the
//! database itself, so they know nothing that it does not know, and forget at once whatever it forgets. Such a reader
//! finds a key from the [`Layout`], as [`Fdb::lookup`](super::Fdb::lookup) does: it takes value, key, value, and
//! believes them only if the key is the wanted one and both values have the same generation. It changes time stamps
//! only, by compare-and-swap against the value that it read.

use std::ops::Deref;

use super::slot::{Bucket, SLOTS};

/// The most entries a database can be made for.
pub const MAX_CAPACITY: usize = 1 << 20;

/// The buckets of a database.
#[derive(Debug)]
pub(super) enum Memory {
    Own(Box<[Bucket]>),
    Lent(&'static [Bucket]),
}

impl Deref for Memory {
    type Target = [Bucket];

    #[inline(always)]
    fn deref(&self) -> &[Bucket] {
        match self {
            Memory::Own(buckets) => buckets,
            Memory::Lent(buckets) => buckets,
        }
    }
}

/// How keys are found in the table of a database. A key `k` (VLAN id in bits 48 to 59, address below) is in bucket
/// `h mod buckets` or `(h >> 32) mod buckets`, where `h` is the exclusive or of both halves of the 128-bit product
/// `(k ^ seed) * multiplier`. A bucket is four slots of 16 bytes: the key, then the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Taken into every key.
    pub seed: u64,
    /// The factor.
    pub multiplier: u64,
    /// The number of buckets, a power of two.
    pub buckets: usize,
}

/// The number of buckets of a database for `capacity` entries.
pub fn places(capacity: usize) -> usize {
    (2 * capacity.clamp(1, MAX_CAPACITY)).div_ceil(SLOTS).next_power_of_two()
}
