//! The frames of a burst as filters see them ([`labsw_switch::filter`]).
//!
//! What a filter reads behind the snapshot, a guest may have changed before the frame is copied: a filter chooses frames to be
//! looked at, and is no guard.

use labsw_switch::filter::{Behind, Frames};

use super::copy::copy;
use super::{Burst, Segment};

impl Frames for Burst {
    #[inline]
    fn snapshot(&self, index: u8) -> &[u8] {
        Burst::snapshot(self, index.into())
    }

    fn wire_bytes(&self, index: u8) -> u32 {
        self.frame(index.into()).map_or(0, |frame| frame.wire_bytes)
    }

    fn behind(&self, index: u8) -> impl Behind {
        let Some(frame) = self.frame(index.into()) else { return Rest::NONE };
        let first = frame.first_segment as usize;
        let further = self.segments.get(first..first + frame.segment_count as usize).unwrap_or_default();
        Rest { offset: frame.snapshot_len.into(), rest: frame.rest, further }
    }
}

/// The bytes of a frame behind its snapshot.
struct Rest<'a> {
    /// Length of the snapshot.
    offset: u32,
    rest: Segment,
    further: &'a [Segment],
}

impl Rest<'_> {
    const NONE: Rest<'static> = Rest { offset: 0, rest: Segment::EMPTY, further: &[] };
}

impl Behind for Rest<'_> {
    fn read(&self, offset: u32, to: &mut [u8]) -> bool {
        let Some(mut skip) = offset.checked_sub(self.offset) else { return false };
        let mut left = to;
        for segment in std::iter::once(&self.rest).chain(self.further) {
            let Some(here) = segment.len.checked_sub(skip) else {
                skip -= segment.len;
                continue;
            };
            let (now, later) = left.split_at_mut(left.len().min(here as usize));
            if !now.is_empty() {
                // SAFETY: the segment is readable for its length until the burst is cleared (contract of `Burst::push`), which
                // the borrow prevents; `skip` and `now.len()` bytes together are at most that. Nothing overlaps `now`,
                // which is ours: foreign memory is behind no reference.
                unsafe { copy(segment.ptr.add(skip as usize), now.as_mut_ptr(), now.len()) };
            }
            (skip, left) = (0, later);
            if left.is_empty() {
                return true;
            }
        }
        left.is_empty()
    }
}
