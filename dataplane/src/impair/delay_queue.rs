//! The delay queue: frames are given to it, judged, kept as owned copies, and lent again when they are due.

use std::sync::Arc;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::impair::Verdict;
use labsw_switch::{BURST_FRAMES, DropReason};

use super::Schedule;
use super::store::{READ_AHEAD_BYTES, Run, Store, WRITE_AHEAD_BYTES, room};
use crate::clock::NEVER;
use crate::frame::{Burst, Segment, prefetch};
use crate::losses::TxReport;
use crate::stats::PortDelta;

/// The frames of one port and direction (and queue, if they came from the port) that wait; see the module.
#[derive(Debug)]
pub(crate) struct DelayQueue {
    schedule: Arc<Schedule>,
    store: Store,
    /// Frames whose bytes are lent to a burst.
    lent: Vec<Run>,
    verdicts: Vec<Verdict>,
}

impl DelayQueue {
    pub(crate) fn new(schedule: Arc<Schedule>) -> DelayQueue {
        let (lent, verdicts) = (Vec::with_capacity(BURST_FRAMES), Vec::with_capacity(BURST_FRAMES));
        DelayQueue { schedule, store: Store::default(), lent, verdicts }
    }

    /// Takes copies of finished frames of a burst, as they leave, and reports those it drops.
    pub(crate) fn accept(&mut self, now_ns: u64, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) {
        let DelayQueue { schedule, store, verdicts, .. } = self;
        verdicts.clear();
        let bytes = |item: &TxItem| match burst.plain(item) {
            Some(frame) => frame.bytes(),
            None => burst.reader(item).map_or(0, |reader| reader.remaining()),
        };
        let selected = schedule.selected(burst, items);
        let is_selected = |item: &&TxItem| selected >> item.frame & 1 == 1;
        let is_for_all = selected == u64::MAX;
        let count = if is_for_all { items.len() } else { items.iter().filter(is_selected).count() };
        let lengths = items.iter().filter(is_selected).map(bytes);
        let common = schedule.judge(now_ns, count, lengths, |verdict| verdicts.push(verdict));
        let mut note = |item: &TxItem, kept: Result<(), DropReason>| {
            if let Err(reason) = kept {
                report.lose(item.frame, reason);
            }
        };
        if is_for_all && let Some(Verdict::Pass { due_ns, copy_due_ns: None, flip_bit: None }) = common {
            let mut items = items;
            while let Some((first, others)) = items.split_first() {
                let kept = put_alike(store, burst, items, due_ns);
                items = kept.as_ref().map_or(others, |count| items.get((*count).max(1)..).unwrap_or_default());
                note(first, kept.map(drop));
            }
            return;
        }
        let mut verdicts = verdicts.iter();
        for item in items {
            let judged = if is_selected(&item) { common.or_else(|| verdicts.next().copied()) } else { None };
            let verdict = judged.unwrap_or(Verdict::Pass { due_ns: now_ns, copy_due_ns: None, flip_bit: None });
            note(item, keep(store, burst, item, verdict));
        }
    }

    /// When the next frame is due.
    pub(crate) fn next_due_ns(&self) -> u64 {
        self.store.next_due_ns().unwrap_or(NEVER)
    }

    /// Adds frames that are due to a burst, and returns how many. They stay lent until [`DelayQueue::returned`].
    ///
    /// # Safety
    /// The burst is cleared before [`DelayQueue::returned`] or [`DelayQueue::clear`] is called, or the queue dropped.
    pub(crate) unsafe fn lend(&mut self, now_ns: u64, burst: &mut Burst) -> usize {
        let mut room = u32::try_from(BURST_FRAMES - burst.len().min(BURST_FRAMES)).unwrap_or(0);
        let before = burst.len();
        while room > 0
            && let Some(run) = self.store.take_due(now_ns, room)
        {
            for bytes in self.store.frames(&run) {
                prefetch(bytes.as_ptr().wrapping_add(READ_AHEAD_BYTES));
                let segment = Segment { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(0) };
                // SAFETY: the bytes lie in a block of the store, which neither moves nor writes them before they are `gone`;
                // until then the burst has been cleared (caller).
                unsafe { burst.push_whole(0, segment) };
            }
            room -= run.count();
            self.lent.push(run);
        }
        burst.len() - before
    }

    /// The frames lent are not used any more.
    pub(crate) fn returned(&mut self) {
        for run in self.lent.drain(..) {
            self.store.gone(&run);
        }
    }

    /// Gives up all frames that wait, and counts them.
    pub(crate) fn clear(&mut self, stats: &mut PortDelta) {
        self.lent.clear();
        stats.drop_many(DropReason::ImpairCleared, self.store.clear() as u64);
    }

    /// Whether its schedule is this one.
    pub(crate) fn follows(&self, schedule: &Arc<Schedule>) -> bool {
        Arc::ptr_eq(&self.schedule, schedule)
    }
}

/// Keeps a frame as its verdict says.
fn keep(store: &mut Store, burst: &Burst, item: &TxItem, verdict: Verdict) -> Result<(), DropReason> {
    let (due_ns, copy_due_ns, flip_bit) = match verdict {
        Verdict::Drop(reason) => return Err(reason),
        Verdict::Pass { due_ns, copy_due_ns, flip_bit } => (due_ns, copy_due_ns, flip_bit),
    };
    let flip = |bytes: &mut [u8]| {
        if let Some(bit) = flip_bit
            && let Some(byte) = bytes.get_mut((bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
    };
    flip(put(store, burst, item, due_ns)?);
    if let Some(due_ns) = copy_due_ns {
        flip(put(store, burst, item, due_ns)?);
    }
    Ok(())
}

/// Copies the first of these frames and those that follow it and are as long, as they leave, into the store; returns how many.
#[inline]
fn put_alike(store: &mut Store, burst: &Burst, items: &[TxItem], due_ns: u64) -> Result<usize, DropReason> {
    let len_of = |item: &TxItem| burst.plain(item).map(|frame| frame.bytes());
    let Some((first, others)) = items.split_first() else { return Ok(0) };
    let Some(len) = len_of(first) else { return put(store, burst, first, due_ns).and(Ok(1)) };
    let count = 1 + others.iter().take_while(|item| len_of(item) == Some(len)).count();
    let bytes = store.insert(due_ns, len, count).ok_or(DropReason::ImpairMemoryFull)?;
    let mut kept = 0;
    for (bytes, item) in bytes.chunks_exact_mut(room(len)).zip(items) {
        let Some(frame) = burst.plain(item) else { break };
        // What waits is more than the caches hold: memory is asked for before it is written, as it is before it is read.
        prefetch(bytes.as_ptr().wrapping_add(WRITE_AHEAD_BYTES));
        // SAFETY: there is room for the frame, and it is memory of our own, which no frame overlaps.
        unsafe { frame.copy_to(bytes.as_mut_ptr()) };
        kept += 1;
    }
    Ok(kept)
}

/// Copies a frame, as it leaves, into the store.
#[inline]
fn put<'s>(store: &'s mut Store, burst: &Burst, item: &TxItem, due_ns: u64) -> Result<&'s mut [u8], DropReason> {
    if let Some(frame) = burst.plain(item) {
        let bytes = insert(store, due_ns, frame.bytes())?;
        // SAFETY: it is as long as the frame, and memory of our own, which no frame overlaps.
        unsafe { frame.copy_to(bytes.as_mut_ptr()) };
        return Ok(bytes);
    }
    // Too short for the tag edit, as the drivers say it.
    let mut reader = burst.reader(item).ok_or(DropReason::Runt)?;
    let bytes = insert(store, due_ns, reader.remaining())?;
    reader.read_to(bytes);
    Ok(bytes)
}

/// Room for one frame.
#[inline]
fn insert(store: &mut Store, due_ns: u64, len: u32) -> Result<&mut [u8], DropReason> {
    let bytes = store.insert(due_ns, len, 1).and_then(|bytes| bytes.get_mut(..len as usize));
    let bytes = bytes.ok_or(DropReason::ImpairMemoryFull)?;
    prefetch(bytes.as_ptr().wrapping_add(WRITE_AHEAD_BYTES));
    Ok(bytes)
}

/// The first `count` frames of a burst, as they are.
pub(crate) fn whole(count: usize) -> impl Iterator<Item = TxItem> {
    (0u8..).take(count).map(|frame| TxItem::whole(frame, TagEdit::KEEP))
}
