//! Frames that wait: owned copies in blocks of memory, handed out by due time.
//!
//! **How it works.** A frame is copied behind the one before it into the current block; when that is full, a block that has
//! become free is taken, or another one is allocated. A block is free when all of its frames have gone; a few are
//! kept, the rest is given back. Frames that are due in the order they came in wait in a list, which costs the same
//! however long it is; those that overtake wait in a heap beside it.
//!
//! **Limits.** [`MAX_LINE_FRAMES`] and [`MAX_LINE_BYTES`] per store, [`MAX_DELAYED_BYTES`] for all together. A frame takes
//! whole [`GRAIN_BYTES`], so that the notes about frames (24 bytes each) are bounded by the same numbers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::frame::{MAX_FRAME_BYTES, prefetch};

/// Bytes of a block.
const BLOCK_BYTES: usize = 256 * 1024;
const _: () = assert!(BLOCK_BYTES > 2 * MAX_FRAME_BYTES as usize);
/// A frame begins at a multiple of this, bytes.
const GRAIN_BYTES: usize = 64;
/// How far ahead memory is asked for, bytes and frames.
const WRITE_AHEAD_BYTES: usize = 1024;
const READ_AHEAD_FRAMES: usize = 8;
/// Free blocks that a store keeps.
const SPARE_BLOCKS: usize = 4;
/// Most frames that wait in one port, direction and, if they came from the port, queue.
pub const MAX_LINE_FRAMES: usize = 524_288;
/// Most memory for those frames, bytes.
pub const MAX_LINE_BYTES: usize = 32 * 1024 * 1024;
/// Most memory for the delayed frames of the whole switch, bytes.
pub const MAX_DELAYED_BYTES: usize = 256 * 1024 * 1024;

/// Blocks of all stores.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

/// A frame that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) due_ns: u64,
    block: u32,
    at: u32,
    len: u32,
}

#[derive(Debug)]
struct Block {
    bytes: Box<[u8]>,
    /// Frames in it that have not gone.
    frames: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Store {
    blocks: Vec<Block>,
    /// The block that is being filled, and how far it is.
    current: Option<(u32, usize)>,
    /// Blocks without frames, except the current one.
    free: Vec<u32>,
    in_order: VecDeque<Waiting>,
    /// When the last frame of that list was due, also after it has gone.
    last_due_ns: u64,
    /// With the number of the frame: of those due at the same time the first goes first.
    overtaking: BinaryHeap<Reverse<(u64, u64, Waiting)>>,
    overtakers: u64,
}

impl Store {
    /// Number of frames that wait.
    pub(super) fn len(&self) -> usize {
        self.in_order.len() + self.overtaking.len()
    }

    /// When the next frame is due.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let overtaking = self.overtaking.peek().map(|Reverse((due_ns, ..))| *due_ns);
        self.in_order.front().map(|frame| frame.due_ns).into_iter().chain(overtaking).min()
    }

    /// Room for a frame of `len` bytes that is due then, to be filled. `None`: no memory for it.
    #[inline]
    pub(super) fn insert(&mut self, due_ns: u64, len: u32) -> Option<&mut [u8]> {
        if self.len() >= MAX_LINE_FRAMES {
            return None;
        }
        let bytes = len as usize;
        let room = bytes.max(1).next_multiple_of(GRAIN_BYTES);
        let (block, at) = match self.current {
            Some((block, used)) if used + room <= BLOCK_BYTES => (block, used),
            _ => (self.take_block(room)?, 0),
        };
        self.current = Some((block, at + room));
        #[allow(clippy::cast_possible_truncation, reason = "within a block")]
        let frame = Waiting { due_ns, block, at: at as u32, len };
        if due_ns >= self.last_due_ns {
            self.last_due_ns = due_ns;
            self.in_order.push_back(frame);
        } else {
            self.overtakers += 1;
            self.overtaking.push(Reverse((due_ns, self.overtakers, frame)));
        }
        let block = self.blocks.get_mut(block as usize)?;
        block.frames += 1;
        // What waits is more than the caches hold: memory is asked for before it is written, as in `Store::take_due` before
        // it is read.
        prefetch(block.bytes.as_ptr().wrapping_add(at + WRITE_AHEAD_BYTES));
        block.bytes.get_mut(at..at + bytes)
    }

    /// Takes out the frame that is due next, if it is at `now_ns`. Its bytes stay until [`Store::gone`].
    #[inline]
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<Waiting> {
        if let Some(later) = self.in_order.get(READ_AHEAD_FRAMES) {
            prefetch(self.bytes(later).as_ptr());
        }
        let first = self.in_order.front().map_or(u64::MAX, |frame| frame.due_ns);
        if let Some(Reverse((due_ns, ..))) = self.overtaking.peek()
            && *due_ns < first
        {
            let is_due = *due_ns <= now_ns;
            return if is_due { self.overtaking.pop().map(|Reverse((_, _, frame))| frame) } else { None };
        }
        if first <= now_ns { self.in_order.pop_front() } else { None }
    }

    /// The bytes of a frame that was taken out.
    pub(super) fn bytes(&self, frame: &Waiting) -> &[u8] {
        let block = self.blocks.get(frame.block as usize).map_or(&[][..], |block| &block.bytes);
        block.get(frame.at as usize..(frame.at + frame.len) as usize).unwrap_or_default()
    }

    /// Gives up the bytes of a frame that was taken out.
    pub(super) fn gone(&mut self, frame: &Waiting) {
        let Some(block) = self.blocks.get_mut(frame.block as usize) else { return };
        block.frames = block.frames.saturating_sub(1);
        if block.frames > 0 {
            return;
        }
        match &mut self.current {
            // Filled again from the front, while it is still in the caches.
            Some((current, used)) if *current == frame.block => *used = 0,
            _ => {
                self.free.push(frame.block);
                self.give_back();
            }
        }
    }

    /// Gives up all frames; returns how many that were. None of them is lent.
    pub(super) fn clear(&mut self) -> usize {
        let frames = self.len();
        *self = Store::default();
        frames
    }

    /// A block to be filled from its front, with that much room.
    #[cold]
    fn take_block(&mut self, room: usize) -> Option<u32> {
        if room > BLOCK_BYTES {
            return None;
        }
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        let another = |blocks: usize| (blocks < MAX_DELAYED_BYTES / BLOCK_BYTES).then_some(blocks + 1);
        if self.blocks.len() >= MAX_LINE_BYTES / BLOCK_BYTES
            || BLOCKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another).is_err()
        {
            return None;
        }
        self.blocks.push(Block { bytes: vec![0; BLOCK_BYTES].into_boxed_slice(), frames: 0 });
        u32::try_from(self.blocks.len() - 1).ok()
    }

    /// Gives free blocks at the end of the list back, except a few.
    fn give_back(&mut self) {
        while self.free.len() > SPARE_BLOCKS
            && let Some(last) = self.blocks.len().checked_sub(1)
            && let Some(at) = self.free.iter().position(|block| *block as usize == last)
        {
            self.free.swap_remove(at);
            self.blocks.pop();
            BLOCKS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        BLOCKS.fetch_sub(self.blocks.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(store: &mut Store, due_ns: u64, byte: u8, len: u32) -> bool {
        store.insert(due_ns, len).map(|bytes| bytes.fill(byte)).is_some()
    }

    fn take(store: &mut Store, now_ns: u64) -> Option<(u64, u8)> {
        let frame = store.take_due(now_ns)?;
        let bytes = store.bytes(&frame);
        let byte = bytes[0];
        assert!(bytes.len() == frame.len as usize && bytes.iter().all(|other| *other == byte), "overwritten");
        store.gone(&frame);
        Some((frame.due_ns, byte))
    }

    #[test]
    fn frames_come_out_when_they_are_due_and_in_the_order_they_came_in_if_at_the_same_time() {
        let mut store = Store::default();
        for (due, byte) in [(50, 1), (50, 2), (10, 3), (60, 4), (10, 5), (55, 6)] {
            assert!(insert(&mut store, due, byte, 100));
        }
        assert_eq!((store.len(), store.next_due_ns()), (6, Some(10)));
        assert_eq!(take(&mut store, 9), None);
        let order: Vec<_> = std::iter::from_fn(|| take(&mut store, 60)).collect();
        assert_eq!(order, [(10, 3), (10, 5), (50, 1), (50, 2), (55, 6), (60, 4)]);
        assert_eq!((store.len(), store.next_due_ns()), (0, None));
    }

    #[test]
    fn no_frame_is_overwritten_while_it_waits_and_memory_stays_what_is_needed() {
        let mut store = Store::default();
        // 500 frames of up to 9000 bytes are under way at any time: at most 4.5 MB.
        let mut number = 0u64;
        for now in 0..20_000u64 {
            let due = now + if now % 7 == 0 { 100 } else { 500 };
            let len = 60 + u32::try_from(now * 7919 % 8940).unwrap();
            assert!(insert(&mut store, due, (now % 251) as u8, len));
            while let Some((due, byte)) = take(&mut store, now) {
                let sent = [due.wrapping_sub(500) % 251, due.wrapping_sub(100) % 251];
                assert!(sent.contains(&byte.into()));
                number += 1;
            }
            assert!(store.blocks.len() <= 24, "{} blocks", store.blocks.len());
        }
        assert!(number > 19_000);
        assert_eq!(store.clear(), 20_000 - usize::try_from(number).unwrap());
    }

    #[test]
    fn a_store_takes_so_many_frames_and_bytes_and_no_more() {
        let mut store = Store::default();
        assert!((0..MAX_LINE_FRAMES).all(|_| insert(&mut store, 1, 1, 60)));
        assert!(!insert(&mut store, 1, 1, 60));
        assert_eq!(store.blocks.len(), MAX_LINE_FRAMES * GRAIN_BYTES / BLOCK_BYTES);
        while take(&mut store, 1).is_some() {}
        // Six of the longest frames fit no block, three do.
        let most = MAX_LINE_BYTES / BLOCK_BYTES * (BLOCK_BYTES / 65_600);
        assert_eq!((0..10_000).filter(|_| insert(&mut store, 1, 1, 65_599)).count(), most);
        assert!(store.blocks.len() <= MAX_LINE_BYTES / BLOCK_BYTES);
        store.clear();
        assert!(insert(&mut store, 1, 1, 65_599), "there is room again");
    }
}
