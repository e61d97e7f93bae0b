//! The safe interface for lending: a burst describes bytes that the switch owns, for as long as one call takes.
//!
//! Code that made or kept frames sends them by [`Burst::lend`]: the burst is filled with borrowed bytes, handed to a
//! closure, and cleared before the call returns. The borrow checker thus guards the contract that [`Burst::push`] asks
//! of its callers.

#![allow(unsafe_code, reason = "foreign memory is only ever copied raw")]

use std::marker::PhantomData;

use super::{BURST_FRAMES, Burst, Segment};
use crate::offload::Asked;

/// A burst that is being filled with bytes borrowed for `'a`.
pub(crate) struct Lender<'b, 'a> {
    burst: &'b mut Burst,
    lent: PhantomData<&'a [u8]>,
}

/// Clears the burst, also if its user panics.
struct Cleared<'b>(&'b mut Burst);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Burst {
    /// Has `fill` put frames into the emptied burst and `send` do something with it; then the burst is empty again.
    pub(crate) fn lend<'a, R>(
        &mut self,
        fill: impl FnOnce(&mut Lender<'_, 'a>),
        send: impl FnOnce(&mut Burst) -> R,
    ) -> R {
        let cleared = Cleared(self);
        cleared.0.clear();
        fill(&mut Lender { burst: &mut *cleared.0, lent: PhantomData });
        let this = cleared.0.frames.as_ptr();
        let outcome = send(&mut *cleared.0);
        if cleared.0.frames.as_ptr() != this {
            // The burst was exchanged for another one, which would keep the bytes beyond their time.
            std::process::abort();
        }
        outcome
    }
}

impl<'a> Lender<'_, 'a> {
    /// Adds a frame. Returns false, and adds nothing, if the burst is full.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &'a [u8]) -> bool {
        // SAFETY: the bytes are borrowed for longer than `Burst::lend` takes, which clears the burst.
        unsafe { self.burst.push_whole(0, segment(bytes)) }
    }

    /// Adds a frame that lies in several pieces, at most 64. Returns false, and adds nothing, if the burst is full.
    pub(crate) fn push_pieces(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> bool {
        let (mut segments, mut count) = ([Segment::EMPTY; BURST_FRAMES], 0);
        for (place, piece) in segments.iter_mut().zip(pieces) {
            *place = segment(piece);
            count += 1;
        }
        // SAFETY: the pieces are borrowed for longer than `Burst::lend` takes, which clears the burst.
        unsafe { self.burst.push(0, segments.get(..count).unwrap_or_default()) }
    }

    /// Adds the frame at `index` of another burst unchanged, with the offloads that are left to finish. Returns false,
    /// and adds nothing, if this burst is full or there is no such frame.
    pub(crate) fn push_from(&mut self, other: &'a Burst, index: usize) -> bool {
        // SAFETY: the other burst is borrowed for longer than `Burst::lend` takes, so it is cleared after this one.
        unsafe { self.burst.push_from(other, index) }
    }

    /// Records the offloads that are left to finish for the last frame.
    pub(crate) fn set_asked(&mut self, asked: Asked) {
        self.burst.set_asked(asked);
    }
}

fn segment(bytes: &[u8]) -> Segment {
    Segment { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_that_was_lent_to_is_empty_afterwards_whatever_happened() {
        let (mut burst, memory) = (Burst::new(), [7; 300]);
        let seen = burst.lend(
            |lender| {
                assert!(lender.push(&memory) && lender.push_pieces(memory.chunks(100)));
            },
            |burst| (burst.len(), burst.snapshot(1).to_vec()),
        );
        assert_eq!(seen, (2, vec![7; 128]));
        assert!(burst.is_empty());
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            burst.lend(|lender| assert!(lender.push(&memory)), |_| std::panic::resume_unwind(Box::new(())));
        }));
        assert!(failed.is_err() && burst.is_empty());
    }
}
