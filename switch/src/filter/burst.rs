//! A filter over the frames of a burst: the program runs once for frames with equal deciding bytes.
//!
//! Frames come in runs of one conversation, and a program that rejects a frame has usually read only a few bytes of it:
//! of `tcp port 445` and a UDP datagram, the type and the protocol. [`Filter::judge`] tells which bytes decided; a
//! later frame with the same bytes there has the same verdict. They are compared in up to [`WINDOWS`] windows of 16
//! bytes: first those of all frames of a burst at once, without a decision for each; only if they differ somewhere,
//! frame by frame. If the deciding bytes do not fit there, or something else mattered, the program runs for every
//! frame.

use std::sync::Arc;

use super::{Behind, Filter, Frame};
use crate::tag_edit::TagEdit;

/// Windows in which frames are compared.
const WINDOWS: usize = 2;
/// Length of a window, bytes.
const WINDOW_BYTES: usize = 16;

/// The frames of a burst, as far as filters look at them.
pub trait Frames {
    /// The first bytes of the frame at `index`, as received; none if there is no such frame. See
    /// [`crate::header::SNAPSHOT_BYTES`].
    fn snapshot(&self, index: u8) -> &[u8];
    /// Its length on the wire, bytes.
    fn wire_bytes(&self, index: u8) -> u32;
    /// The rest of it.
    fn behind(&self, index: u8) -> impl Behind;
    /// How many frames there are.
    fn count(&self) -> usize;
    /// In which bits (1) any frame's 16 bytes at `at` differ from `value`. `None` if a snapshot ends before them.
    fn difference(&self, at: usize, value: &[u8; 16]) -> Option<[u8; 16]>;
}

/// Frames that lie in one piece.
impl<T: AsRef<[u8]>> Frames for [T] {
    fn snapshot(&self, index: u8) -> &[u8] {
        self.get(usize::from(index)).map_or(&[], AsRef::as_ref)
    }

    fn wire_bytes(&self, index: u8) -> u32 {
        u32::try_from(self.snapshot(index).len()).unwrap_or(u32::MAX)
    }

    fn behind(&self, _index: u8) -> impl Behind {
        super::Nothing
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn difference(&self, at: usize, value: &[u8; 16]) -> Option<[u8; 16]> {
        let mut found = [0; 16];
        for frame in self {
            add_difference(&mut found, frame.as_ref().get(at..)?.first_chunk()?, value);
        }
        Some(found)
    }
}

/// Adds to `found` the bits in which `bytes` differ from `value`.
#[inline(always)]
pub fn add_difference(found: &mut [u8; 16], bytes: &[u8; 16], value: &[u8; 16]) {
    for ((found, byte), value) in found.iter_mut().zip(bytes).zip(value) {
        *found |= byte ^ value;
    }
}

/// Applies a filter to bursts, and remembers the last verdict.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    /// Whose verdict it is: held, so that no other filter can be taken for it.
    filter: Option<Arc<Filter>>,
    edit: TagEdit,
    wanted: bool,
    alike: Alike,
}

impl Picker {
    /// Those of `set` (bit = index in the burst) that `filter` wants as they are with `edit`.
    pub fn pick(&mut self, filter: &Arc<Filter>, set: u64, edit: TagEdit, frames: &(impl Frames + ?Sized)) -> u64 {
        if set == 0 {
            return 0;
        }
        if self.edit != edit || !self.filter.as_ref().is_some_and(|known| Arc::ptr_eq(known, filter)) {
            *self = Picker { filter: Some(Arc::clone(filter)), edit, ..Picker::default() };
        }
        if self.alike.match_all(set, frames) {
            return if self.wanted { set } else { 0 };
        }
        self.pick_each(filter, set, frames)
    }

    /// Like [`Picker::pick`], frame by frame.
    #[inline(never)]
    fn pick_each(&mut self, filter: &Filter, set: u64, frames: &(impl Frames + ?Sized)) -> u64 {
        let (mut left, mut picked) = (set, 0);
        while left != 0 {
            #[allow(clippy::cast_possible_truncation, reason = "at most 63")]
            let index = left.trailing_zeros() as u8;
            let snapshot = frames.snapshot(index);
            if !self.alike.matches(snapshot) {
                let (wire_bytes, behind) = (frames.wire_bytes(index), frames.behind(index));
                let (wanted, deciding) = filter.judge(&Frame { snapshot, wire_bytes, edit: self.edit, behind });
                (self.wanted, self.alike) = (wanted, Alike::new(snapshot, deciding));
            }
            let lowest = left & left.wrapping_neg();
            left ^= lowest;
            picked |= if self.wanted { lowest } else { 0 };
        }
        picked
    }
}

/// The bytes that decided about a frame.
#[derive(Clone, Debug, Default)]
struct Alike {
    windows: [Window; WINDOWS],
    /// Windows that are used; 0: nothing is comparable.
    used: usize,
}

/// The deciding bytes among 16 that follow each other.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    at: usize,
    mask: [u8; WINDOW_BYTES],
    value: [u8; WINDOW_BYTES],
}

impl Alike {
    /// `deciding` are bytes of the snapshot (bit = offset).
    fn new(snapshot: &[u8], deciding: Option<u128>) -> Alike {
        Alike::compact(snapshot, deciding).unwrap_or_default()
    }

    /// `None` if they do not fit, or there are none.
    fn compact(snapshot: &[u8], deciding: Option<u128>) -> Option<Alike> {
        let mut left = deciding?;
        let mut alike = Alike::default();
        while left != 0 {
            // The window ends with the last deciding byte it can hold, so that it lies in every frame that has that
            // byte.
            let first = left.trailing_zeros();
            let end = u128::BITS - (left & (0xffff << first)).leading_zeros();
            let at = end.saturating_sub(16);
            let mut mask = [0; WINDOW_BYTES];
            for (byte, place) in (at..end).zip(&mut mask) {
                *place = if left >> byte & 1 == 1 { 0xff } else { 0 };
            }
            let at = at as usize;
            let value = *snapshot.get(at..)?.first_chunk()?;
            *alike.windows.get_mut(alike.used)? = Window { at, mask, value };
            alike.used += 1;
            left &= u128::MAX.checked_shl(end).unwrap_or(0);
        }
        Some(alike)
    }

    /// True if a frame has these bytes.
    #[inline(always)]
    fn matches(&self, snapshot: &[u8]) -> bool {
        let windows = self.windows.get(..self.used).unwrap_or_default();
        !windows.is_empty() && windows.iter().all(|window| window.matches(snapshot))
    }

    /// True if `set` is the whole burst and all of its frames have these bytes.
    #[inline(always)]
    fn match_all(&self, set: u64, frames: &(impl Frames + ?Sized)) -> bool {
        let windows = self.windows.get(..self.used).unwrap_or_default();
        let whole = 1u64.checked_shl(u32::try_from(frames.count()).unwrap_or(64)).unwrap_or(0).wrapping_sub(1);
        set == whole && !windows.is_empty() && windows.iter().all(|window| window.matches_all(frames))
    }
}

impl Window {
    #[inline(always)]
    fn matches(&self, snapshot: &[u8]) -> bool {
        let bytes = snapshot.get(self.at..).and_then(|rest| rest.first_chunk());
        bytes.is_some_and(|bytes| {
            let mut found = [0; WINDOW_BYTES];
            add_difference(&mut found, bytes, &self.value);
            self.allows(&found)
        })
    }

    #[inline(always)]
    fn matches_all(&self, frames: &(impl Frames + ?Sized)) -> bool {
        frames.difference(self.at, &self.value).is_some_and(|difference| self.allows(&difference))
    }

    /// True if no deciding byte differs.
    #[inline(always)]
    fn allows(&self, difference: &[u8; WINDOW_BYTES]) -> bool {
        difference.iter().zip(&self.mask).fold(0, |found, (byte, mask)| found | (byte & mask)) == 0
    }
}

#[cfg(test)]
mod tests;
