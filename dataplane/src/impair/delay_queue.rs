//! The delay queue: frames are given to it, judged, kept as owned copies, and handed out when they are due.

use std::sync::Arc;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::impair::Verdict;
use labsw_switch::{BURST_FRAMES, DropReason};

use super::Schedule;
use super::store::{READ_AHEAD_BYTES, Run, Store, WRITE_AHEAD_BYTES, room};
use crate::clock::NEVER;
use crate::frame::{Burst, prefetch};
use crate::losses::TxReport;
use crate::stats::PortDelta;

/// The frames of one port and direction (and queue, if they came from the port) that wait; see the module.
#[derive(Debug)]
pub(crate) struct DelayQueue {
    schedule: Arc<Schedule>,
    pub(super) store: Store,
    /// Frames that are due, while they are handed out.
    due: Vec<Run>,
    verdicts: Vec<Verdict>,
}

impl DelayQueue {
    pub(crate) fn new(schedule: Arc<Schedule>) -> DelayQueue {
        let (due, verdicts) = (Vec::with_capacity(BURST_FRAMES), Vec::with_capacity(BURST_FRAMES));
        DelayQueue { schedule, store: Store::default(), due, verdicts }
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
        let frames = items.iter().filter(is_selected).map(|item| (bytes(item), schedule.segment(burst, item)));
        let common = schedule.judge(now_ns, count, frames, |verdict| verdicts.push(verdict));
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

    /// Has `send` take the frames that are due, as many as one burst holds.
    pub(crate) fn send_due<R>(&mut self, now_ns: u64, burst: &mut Burst, send: impl FnOnce(&mut Burst) -> R) -> R {
        self.take_due(now_ns);
        let DelayQueue { store, due, .. } = self;
        let outcome = burst.lend(
            |lender| {
                for run in &*due {
                    for bytes in store.frames(run) {
                        prefetch(bytes.as_ptr().wrapping_add(READ_AHEAD_BYTES));
                        lender.push(bytes);
                    }
                }
            },
            send,
        );
        due.drain(..).for_each(|run| store.gone(&run));
        outcome
    }

    /// Adds copies of the frames that are due to an empty burst.
    pub(crate) fn copy_due(&mut self, now_ns: u64, burst: &mut Burst) {
        self.take_due(now_ns);
        let DelayQueue { store, due, .. } = self;
        for bytes in due.iter().flat_map(|run| store.frames(run)) {
            prefetch(bytes.as_ptr().wrapping_add(READ_AHEAD_BYTES));
            burst.push_copy(0, bytes);
        }
        due.drain(..).for_each(|run| store.gone(&run));
    }

    /// Fills `due`, with as many frames as one burst holds.
    fn take_due(&mut self, now_ns: u64) {
        #[allow(clippy::cast_possible_truncation, reason = "64")]
        let mut room = BURST_FRAMES as u32;
        while room > 0
            && let Some(run) = self.store.take_due(now_ns, room)
        {
            room -= run.count();
            self.due.push(run);
        }
    }

    /// Gives up all frames that wait, and counts them.
    pub(crate) fn clear(&mut self, stats: &mut PortDelta) {
        stats.drop_many(DropReason::ImpairCleared, self.store.clear() as u64);
    }

    /// True if the queue's schedule is this one.
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

/// Copies the leading run of frames of equal length, as they leave, into the store; returns their number.
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
        // More frames wait than the caches hold: memory is prefetched before it is written, as it is before it is read.
        prefetch(bytes.as_ptr().wrapping_add(WRITE_AHEAD_BYTES));
        frame.copy_into(bytes);
        kept += 1;
    }
    Ok(kept)
}

/// Copies a frame, as it leaves, into the store.
#[inline]
fn put<'s>(store: &'s mut Store, burst: &Burst, item: &TxItem, due_ns: u64) -> Result<&'s mut [u8], DropReason> {
    if let Some(frame) = burst.plain(item) {
        let bytes = insert(store, due_ns, frame.bytes())?;
        frame.copy_into(bytes);
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
