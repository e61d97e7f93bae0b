//! The frames of a burst as filters see them ([`labsw_switch::filter`]).
//!
//! A guest may change the bytes after the snapshot between the filter's look and the copy: a filter chooses
//! frames to be looked at, and is no guard.

use labsw_switch::filter::{Behind, Frames, add_difference};

use super::copy::copy;
use super::{Burst, SNAPSHOT_BYTES, Segment};

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

    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn difference(&self, at: usize, value: &[u8; 16]) -> Option<[u8; 16]> {
        let (mut found, mut shortest) = ([0; 16], u32::MAX);
        // The snapshot's bytes after the end of its frame are of an earlier frame; the end of this function asks
        // whether one of them counted.
        for (frame, snapshot) in self.frames().iter().zip(self.snapshots.iter()) {
            add_difference(&mut found, snapshot.0.get(at..)?.first_chunk()?, value);
            shortest = shortest.min(frame.snapshot_len.into());
        }
        (at <= SNAPSHOT_BYTES && at + 16 <= shortest as usize).then_some(found)
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
                // SAFETY: the segment is readable for its length until the burst is cleared (contract of
                // `Burst::push`), which the borrow prevents; `skip` and `now.len()` bytes together are at most that.
                // Nothing overlaps `now`, which is ours: foreign memory is behind no reference.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    /// A burst of frames in segments of these lengths; byte `n` of all their memory is `n` as far as that fits.
    fn burst(memory: &[u8], frames: &[&[usize]]) -> Burst {
        let (mut burst, mut at) = (Burst::new(), 0);
        for (token, lens) in (0u64..).zip(frames) {
            let segments = lens.iter().map(|len| {
                let bytes = &memory[at..at + len];
                at += len;
                Segment { ptr: bytes.as_ptr(), len: *len as u32 }
            });
            let segments: Vec<Segment> = segments.collect();
            // SAFETY: `memory` outlives the burst in every test.
            assert!(unsafe { burst.push(token, &segments) });
        }
        burst
    }

    /// Every run of 4 bytes behind the snapshot is read from wherever it lies, and none beyond the end.
    #[test]
    fn what_is_behind_the_snapshot_is_read_across_segments() {
        let memory: Vec<u8> = (0..700u32).map(|n| (n % 251) as u8).collect();
        for lens in [&[300][..], &[128, 172], &[100, 20, 3, 1, 0, 76, 100], &[14, 286], &[129, 1, 1, 1, 168]] {
            let burst = burst(&memory, &[lens]);
            for offset in 128..=300 {
                let mut got = [0; 4];
                let read = burst.behind(0).read(offset, &mut got);
                assert_eq!(read, offset <= 296, "offset {offset} of {lens:?}");
                if read {
                    assert_eq!(got, memory[offset as usize..][..4], "offset {offset} of {lens:?}");
                }
            }
            assert!(!burst.behind(0).read(127, &mut [0]), "that is the snapshot");
        }
    }

    /// Bytes that a snapshot holds of an earlier, longer frame are of no frame of this burst.
    #[test]
    fn a_short_frame_is_not_taken_for_the_one_before_it() {
        let memory = [7; 200];
        let mut burst = burst(&memory, &[&[60], &[60]]);
        assert_eq!(burst.difference(40, &[7; 16]), Some([0; 16]));
        assert_eq!(burst.difference(40, &[6; 16]), Some([1; 16]));
        assert_eq!(burst.difference(45, &[7; 16]), None);
        burst.clear();
        for len in [60, 50] {
            // SAFETY: `memory` outlives the burst.
            unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len }) };
        }
        assert_eq!(burst.difference(34, &[7; 16]), Some([0; 16]));
        assert_eq!(burst.difference(40, &[7; 16]), None);
        assert_eq!(burst.difference(usize::MAX, &[7; 16]), None);
    }
}
