//! Frames that wait: owned copies in blocks of memory, handed out by due time.
//!
//! **How it works.** A frame is copied behind the one before it into the current block; when that is full, a block that
//! has become free is taken, or another one is allocated. A block is free when all of its frames have gone; a few are
//! kept, the rest is given back. Frames that are due in the order they came in wait in a list, which costs the same
//! however long it is; those that overtake wait in a heap beside it. Frames of one length that came in together, and
//! are due together, share one note, a [`Run`]: what waits is more than the caches hold, so each byte less is time
//! saved.
//!
//! **Limits.** [`MAX_LINE_FRAMES`] and [`MAX_LINE_BYTES`] per store, [`MAX_DELAYED_BYTES`] for all together. A frame
//! takes whole [`GRAIN_BYTES`], so that the notes about frames (at most 24 bytes each) are bounded by the same numbers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::frame::MAX_FRAME_BYTES;

/// Bytes of a block.
const BLOCK_BYTES: usize = 256 * 1024;
const _: () = assert!(BLOCK_BYTES > 2 * MAX_FRAME_BYTES as usize);
/// A frame begins at a multiple of this, bytes.
const GRAIN_BYTES: usize = 64;
/// How far ahead memory is asked for, bytes.
pub(super) const WRITE_AHEAD_BYTES: usize = 1024;
pub(super) const READ_AHEAD_BYTES: usize = 1024;
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

/// Frames that wait, of one length and due at one time, one behind the other in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) due_ns: u64,
    block: u32,
    at: u32,
    /// Bytes of each frame.
    len: u32,
    /// Number of frames.
    count: u32,
}

impl Run {
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of a block that frames of it take.
    #[allow(clippy::cast_possible_truncation, reason = "a block's bytes at most")]
    fn room(&self, frames: u32) -> u32 {
        frames * room(self.len) as u32
    }
}

/// Bytes of a block that a frame takes.
pub(super) fn room(len: u32) -> usize {
    (len as usize).max(1).next_multiple_of(GRAIN_BYTES)
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
    in_order: VecDeque<Run>,
    /// When the last frame of that list was due, also after it has gone.
    last_due_ns: u64,
    /// With the number of the frame: of those due at the same time the first goes first.
    overtaking: BinaryHeap<Reverse<(u64, u64, Run)>>,
    overtakers: u64,
    /// Frames that wait.
    waiting: usize,
}

impl Store {
    /// Number of frames that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// When the next frame is due.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let overtaking = self.overtaking.peek().map(|Reverse((due_ns, ..))| *due_ns);
        self.in_order.front().map(|frame| frame.due_ns).into_iter().chain(overtaking).min()
    }

    /// Room for frames of `len` bytes that are due then, one behind the other, to be filled: for up to `most`, at least
    /// for one. `None`: no memory for any. Each takes [`room`].
    #[inline]
    pub(super) fn insert(&mut self, due_ns: u64, len: u32, most: usize) -> Option<&mut [u8]> {
        if self.waiting >= MAX_LINE_FRAMES {
            return None;
        }
        let room = room(len);
        let (block, at) = match self.current {
            Some((block, used)) if used + room <= BLOCK_BYTES => (block, used),
            _ => (self.take_block(room)?, 0),
        };
        // One at a time overtakes, so that none needs to be taken out of the heap in parts.
        let most = if due_ns < self.last_due_ns { 1 } else { most.min(MAX_LINE_FRAMES - self.waiting) };
        let count = if at + most * room <= BLOCK_BYTES { most } else { (BLOCK_BYTES - at) / room };
        let end = at + count * room;
        self.current = Some((block, end));
        #[allow(clippy::cast_possible_truncation, reason = "within a block")]
        self.note(Run { due_ns, block, at: at as u32, len, count: count as u32 });
        let block = self.blocks.get_mut(block as usize)?;
        block.frames += count;
        block.bytes.get_mut(at..end)
    }

    /// Adds frames that wait.
    #[inline]
    fn note(&mut self, frames: Run) {
        self.waiting += frames.count as usize;
        if frames.due_ns < self.last_due_ns {
            self.overtakers += 1;
            self.overtaking.push(Reverse((frames.due_ns, self.overtakers, frames)));
            return;
        }
        self.last_due_ns = frames.due_ns;
        let Run { due_ns, block, at, len, count } = frames;
        match self.in_order.back_mut() {
            Some(run)
                if (run.due_ns, run.block, run.len) == (due_ns, block, len) && run.at + run.room(run.count) == at =>
            {
                run.count += count;
            }
            _ => self.in_order.push_back(frames),
        }
    }

    /// Takes out the frames that are due next, at most `most` (one or more) of them, if they are at `now_ns`. Their
    /// bytes stay until [`Store::gone`].
    pub(super) fn take_due(&mut self, now_ns: u64, most: u32) -> Option<Run> {
        let first = self.in_order.front_mut();
        let first_due_ns = first.as_ref().map_or(u64::MAX, |run| run.due_ns);
        let taken = match self.overtaking.peek() {
            Some(Reverse((due_ns, ..))) if *due_ns < first_due_ns => {
                if *due_ns <= now_ns {
                    self.overtaking.pop().map(|Reverse((.., run))| run)
                } else {
                    None
                }
            }
            _ => match first {
                Some(run) if run.due_ns <= now_ns && run.count > most => {
                    let taken = Run { count: most, ..*run };
                    run.at += run.room(most);
                    run.count -= most;
                    Some(taken)
                }
                Some(run) if run.due_ns <= now_ns => self.in_order.pop_front(),
                _ => None,
            },
        }?;
        self.waiting -= taken.count as usize;
        Some(taken)
    }

    /// The bytes of each frame of a run that was taken out.
    pub(super) fn frames(&self, run: &Run) -> impl Iterator<Item = &[u8]> {
        let block = self.blocks.get(run.block as usize).map_or(&[][..], |block| &block.bytes);
        let bytes = block.get(run.at as usize..(run.at + run.room(run.count)) as usize).unwrap_or_default();
        bytes.chunks_exact(room(run.len)).filter_map(|frame| frame.get(..run.len as usize))
    }

    /// Gives up the bytes of a run that was taken out.
    pub(super) fn gone(&mut self, run: &Run) {
        let Some(block) = self.blocks.get_mut(run.block as usize) else { return };
        block.frames = block.frames.saturating_sub(run.count as usize);
        if block.frames > 0 {
            return;
        }
        match &mut self.current {
            // Filled again from the front, while it is still in the caches.
            Some((current, used)) if *current == run.block => *used = 0,
            _ => {
                self.free.push(run.block);
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

    /// The frames that wait, in the order in which they come out.
    pub(super) fn waiting(&self) -> Vec<(u64, &[u8])> {
        let mut overtaking: Vec<_> = self.overtaking.iter().map(|Reverse(note)| *note).collect();
        overtaking.sort_unstable();
        let runs = self.in_order.iter().copied().chain(overtaking.into_iter().map(|(.., run)| run));
        let mut runs: Vec<Run> = runs.collect();
        runs.sort_by_key(|run| run.due_ns);
        let mut frames = Vec::with_capacity(self.waiting);
        for run in &runs {
            frames.extend(self.frames(run).map(|bytes| (run.due_ns, bytes)));
        }
        frames
    }

    /// Adds frames; returns how many found no room.
    pub(super) fn fill(&mut self, frames: &[(u64, &[u8])]) -> usize {
        let mut lost = 0;
        for (due_ns, bytes) in frames {
            let room = u32::try_from(bytes.len()).ok().and_then(|len| self.insert(*due_ns, len, 1));
            match room.and_then(|room| room.get_mut(..bytes.len())) {
                Some(room) => room.copy_from_slice(bytes),
                None => lost += 1,
            }
        }
        lost
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
        store.insert(due_ns, len, 1).map(|bytes| bytes.fill(byte)).is_some()
    }

    fn take(store: &mut Store, now_ns: u64) -> Option<(u64, u8)> {
        let run = store.take_due(now_ns, 1)?;
        let frames: Vec<&[u8]> = store.frames(&run).collect();
        let (&[bytes], 1) = (&frames[..], run.count) else { panic!("{} frames of {run:?}", frames.len()) };
        let byte = bytes[0];
        assert!(bytes.len() == run.len as usize && bytes.iter().all(|other| *other == byte), "overwritten");
        store.gone(&run);
        Some((run.due_ns, byte))
    }

    #[test]
    fn frames_share_a_note_while_they_are_alike_and_side_by_side_and_can_be_taken_in_parts() {
        let mut store = Store::default();
        // Due time, byte, length; the fifth overtakes, and lies between the fourth and the sixth.
        for (due, byte, len) in
            [(50, 1, 60), (50, 2, 60), (50, 3, 60), (50, 4, 61), (10, 5, 61), (50, 6, 61), (51, 7, 61), (51, 8, 61)]
        {
            assert!(insert(&mut store, due, byte, len));
        }
        assert_eq!(store.in_order.iter().map(|run| run.count).collect::<Vec<_>>(), [3, 1, 1, 2]);
        let mut take = |most| {
            let run = store.take_due(100, most)?;
            let bytes = store.frames(&run).map(|frame| (frame[0], frame.len())).collect::<Vec<_>>();
            store.gone(&run);
            Some((bytes, store.len()))
        };
        assert_eq!(take(64), Some((vec![(5, 61)], 7)));
        assert_eq!(take(2), Some((vec![(1, 60), (2, 60)], 5)));
        assert_eq!(take(2), Some((vec![(3, 60)], 4)));
        assert_eq!(take(2), Some((vec![(4, 61)], 3)));
        assert_eq!(take(2), Some((vec![(6, 61)], 2)));
        assert_eq!(take(2), Some((vec![(7, 61), (8, 61)], 0)));
        assert_eq!(take(2), None);
        assert_eq!(store.blocks[0].frames, 0);
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
    fn several_frames_go_in_at_once_as_far_as_there_is_room_in_the_block_and_in_the_line() {
        let mut store = Store::default();
        let mut rooms = |due_ns, len, most| store.insert(due_ns, len, most).map_or(0, |bytes| bytes.len() / room(len));
        assert_eq!((rooms(50, 1500, 3), rooms(50, 65_000, 5), rooms(50, 65_000, 5)), (3, 3, 4));
        assert_eq!(rooms(49, 60, 3), 1, "it overtakes");
        store.clear();
        let mut count = 0;
        while let Some(bytes) = store.insert(1, 60, 1000) {
            count += bytes.len() / room(60);
        }
        assert_eq!((count, store.len()), (MAX_LINE_FRAMES, MAX_LINE_FRAMES));
        while let Some(run) = store.take_due(1, 64) {
            count -= store.frames(&run).count();
            store.gone(&run);
        }
        assert_eq!((count, store.len()), (0, 0));
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
