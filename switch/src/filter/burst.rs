//! A filter over the frames of a burst: the program runs for frames that differ where it looks, and only for those.
//!
//! Frames come in runs of one conversation, and what a program looks at before it says no is a few bytes: of `tcp port 445`
//! and a UDP datagram, the type and the protocol. [`Filter::judge`] tells which bytes decided; a later frame with the same
//! bytes there has the same verdict. They are compared in up to [`WINDOWS`] windows of 16 bytes. If they do not fit there, or
//! something else mattered, every frame is run.

use super::{Behind, Filter, Frame};
use crate::forward::TagEdit;

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
}

/// A frame as others are compared with it: the bytes that decided about it.
struct Alike {
    windows: [Window; WINDOWS],
    /// It can't be compared.
    unlike: bool,
}

/// The deciding bytes within 16 that follow each other.
#[derive(Clone, Copy)]
struct Window {
    at: usize,
    mask: u128,
    value: u128,
}

impl Filter {
    /// Those of `set` (bit = index in the burst) that are wanted as they are with `edit`.
    pub fn pick(&self, set: u64, edit: TagEdit, frames: &(impl Frames + ?Sized)) -> u64 {
        let (mut left, mut wanted) = (set, 0);
        while left != 0 {
            let first = lowest(left);
            let (is_wanted, alike) = self.judge_first(first, edit, frames);
            let mut run = 0;
            loop {
                run |= left & left.wrapping_neg();
                left &= left.wrapping_sub(1);
                if left == 0 || !alike.matches(frames.snapshot(lowest(left))) {
                    break;
                }
            }
            if is_wanted {
                wanted |= run;
            }
        }
        wanted
    }

    #[inline(never)]
    fn judge_first(&self, index: u8, edit: TagEdit, frames: &(impl Frames + ?Sized)) -> (bool, Alike) {
        let snapshot = frames.snapshot(index);
        let (wire_bytes, behind) = (frames.wire_bytes(index), frames.behind(index));
        let (wanted, deciding) = self.judge(&Frame { snapshot, wire_bytes, edit, behind });
        (wanted, Alike::new(snapshot, deciding))
    }
}

/// The lowest member of a set that has one.
#[inline(always)]
fn lowest(set: u64) -> u8 {
    #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
    let lowest = set.trailing_zeros() as u8;
    lowest
}

impl Alike {
    /// `deciding` are bytes of the snapshot (bit = offset).
    fn new(snapshot: &[u8], deciding: Option<u128>) -> Alike {
        let mut windows = [Window { at: 0, mask: 0, value: 0 }; WINDOWS];
        let Some(mut left) = deciding else { return Alike { windows, unlike: true } };
        for window in &mut windows {
            if left == 0 {
                break;
            }
            // The window ends with the last deciding byte it can hold, so that it lies in every frame that has that byte.
            let first = left.trailing_zeros() as usize;
            let within = left >> first & 0xffff;
            let end = first + (u128::BITS - within.leading_zeros()) as usize;
            let at = end.saturating_sub(WINDOW_BYTES);
            let Some(bytes) = Window::bytes(snapshot, at) else { return Alike { windows, unlike: true } };
            let spread =
                |mask: u128, byte: usize| if left >> (at + byte) & 1 == 1 { mask | 0xff << (8 * byte) } else { mask };
            let mask = (0..WINDOW_BYTES.min(end - at)).fold(0, spread);
            *window = Window { at, mask, value: bytes & mask };
            left &= u32::try_from(end).ok().and_then(|end| u128::MAX.checked_shl(end)).unwrap_or(0);
        }
        Alike { windows, unlike: left != 0 }
    }

    /// Whether a frame has the deciding bytes.
    #[inline(always)]
    fn matches(&self, snapshot: &[u8]) -> bool {
        !self.unlike && self.windows.iter().all(|window| window.matches(snapshot))
    }
}

impl Window {
    #[inline(always)]
    fn matches(&self, snapshot: &[u8]) -> bool {
        self.mask == 0 || Window::bytes(snapshot, self.at).is_some_and(|bytes| (bytes ^ self.value) & self.mask == 0)
    }

    #[inline(always)]
    fn bytes(snapshot: &[u8], at: usize) -> Option<u128> {
        Some(u128::from_le_bytes(*snapshot.get(at..)?.first_chunk::<WINDOW_BYTES>()?))
    }
}
