//! A set of VLAN ids: one bit per id of the 12-bit space, 512 bytes. Bits 0 and 4095 are never set.

use std::ops::RangeInclusive;

use super::{Vid, VlanError};

const WORDS: usize = 64;

/// A set of VLAN ids, 1 to 4094.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanSet([u64; WORDS]);

impl Default for VlanSet {
    fn default() -> VlanSet {
        VlanSet::EMPTY
    }
}

impl VlanSet {
    /// No VLAN.
    pub const EMPTY: VlanSet = VlanSet([0; WORDS]);
    /// Every VLAN, 1 to 4094.
    pub const ALL: VlanSet = {
        let mut words = [u64::MAX; WORDS];
        words[0] &= !1;
        words[WORDS - 1] &= !(1 << 63);
        VlanSet(words)
    };

    /// The VLANs in `ranges`, which may overlap.
    ///
    /// # Errors
    /// [`VlanError::VidOutOfRange`] and [`VlanError::EmptyRange`].
    pub fn from_ranges(ranges: &[RangeInclusive<u16>]) -> Result<VlanSet, VlanError> {
        let mut set = VlanSet::EMPTY;
        for range in ranges {
            let (start, end) = (Vid::try_from(*range.start())?, Vid::try_from(*range.end())?);
            if start > end {
                return Err(VlanError::EmptyRange { start: start.get(), end: end.get() });
            }
            range.clone().filter_map(|vid| Vid::try_from(vid).ok()).for_each(|vid| set.insert(vid));
        }
        Ok(set)
    }

    /// Adds a VLAN.
    pub fn insert(&mut self, vid: Vid) {
        if let Some(word) = self.0.get_mut(vid.index() / 64) {
            *word |= 1 << (vid.index() % 64);
        }
    }

    /// True if `vid` is in the set.
    #[inline]
    pub fn contains(&self, vid: Vid) -> bool {
        self.0.get(vid.index() / 64).is_some_and(|word| word >> (vid.index() % 64) & 1 != 0)
    }

    /// The bitmap: VLAN `v` is bit `v % 64` of word `v / 64`.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    /// True if no VLAN is in the set.
    pub fn is_empty(&self) -> bool {
        *self == VlanSet::EMPTY
    }

    /// Number of VLANs.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The VLANs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Vid> + '_ {
        (1..=Vid::MAX).filter_map(|vid| Vid::try_from(vid).ok()).filter(|vid| self.contains(*vid))
    }

    /// The VLANs as ascending ranges with gaps between them.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        let mut vids = self.iter().map(Vid::get).peekable();
        std::iter::from_fn(move || {
            let start = vids.next()?;
            let mut end = start;
            while let Some(next) = vids.next_if_eq(&(end + 1)) {
                end = next;
            }
            Some(start..=end)
        })
    }
}

impl FromIterator<Vid> for VlanSet {
    fn from_iter<T: IntoIterator<Item = Vid>>(vids: T) -> VlanSet {
        let mut set = VlanSet::EMPTY;
        vids.into_iter().for_each(|vid| set.insert(vid));
        set
    }
}
