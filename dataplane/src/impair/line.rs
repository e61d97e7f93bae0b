//! A line: frames given to it, judged, kept, and lent again when they are due.

use std::sync::Arc;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::impair::Verdict;
use labsw_switch::{BURST_FRAMES, DropReason};

use super::store::{Store, Waiting};
use super::{NEVER, Schedule};
use crate::frame::{Burst, Segment};
use crate::stats::PortDelta;

/// See the module.
#[derive(Debug)]
pub(crate) struct Line {
    schedule: Arc<Schedule>,
    store: Store,
    /// Frames whose bytes are lent to a burst.
    lent: Vec<Waiting>,
    verdicts: Vec<Verdict>,
}

impl Line {
    pub(crate) fn new(schedule: Arc<Schedule>) -> Line {
        let (lent, verdicts) = (Vec::with_capacity(BURST_FRAMES), Vec::with_capacity(BURST_FRAMES));
        Line { schedule, store: Store::default(), lent, verdicts }
    }

    /// Takes copies of finished frames of a burst, as they leave; counts those it drops, and returns their mask.
    pub(crate) fn accept(&mut self, now_ns: u64, burst: &Burst, items: &[TxItem], stats: &mut PortDelta) -> u64 {
        let Line { schedule, store, verdicts, .. } = self;
        verdicts.clear();
        let bytes = |item: &TxItem| match burst.plain(item) {
            Some(frame) => frame.bytes(),
            None => burst.reader(item).map_or(0, |reader| reader.remaining()),
        };
        schedule.judge(now_ns, items.iter().map(bytes), |verdict| verdicts.push(verdict));
        let mut failed = 0;
        for (item, verdict) in items.iter().zip(verdicts) {
            if let Err(reason) = keep(store, burst, item, *verdict) {
                stats.drop(reason);
                failed |= 1 << item.frame;
            }
        }
        failed
    }

    /// When the next frame is due.
    pub(crate) fn next_due_ns(&self) -> u64 {
        self.store.next_due_ns().unwrap_or(NEVER)
    }

    /// Adds frames that are due to a burst, and returns how many. They stay lent until [`Line::returned`].
    ///
    /// # Safety
    /// The burst is cleared before [`Line::returned`] or [`Line::clear`] is called, or the line dropped.
    pub(crate) unsafe fn lend(&mut self, now_ns: u64, burst: &mut Burst) -> usize {
        while !burst.is_full()
            && let Some(frame) = self.store.take_due(now_ns)
        {
            let bytes = self.store.bytes(&frame);
            let segment = Segment { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(0) };
            // SAFETY: the bytes lie in a block of the store, which neither moves nor writes them before they are `gone`;
            // until then the burst has been cleared (caller).
            unsafe { burst.push_whole(0, segment) };
            self.lent.push(frame);
        }
        self.lent.len()
    }

    /// The frames lent are not used any more.
    pub(crate) fn returned(&mut self) {
        for frame in self.lent.drain(..) {
            self.store.gone(&frame);
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
    for due_ns in std::iter::once(due_ns).chain(copy_due_ns) {
        let bytes = if let Some(frame) = burst.plain(item) {
            let bytes = store.insert(due_ns, frame.bytes()).ok_or(DropReason::ImpairMemoryFull)?;
            // SAFETY: it is as long as the frame, and memory of our own, which no frame overlaps.
            unsafe { frame.copy_to(bytes.as_mut_ptr()) };
            bytes
        } else {
            // Too short for the tag edit, as the drivers say it.
            let mut reader = burst.reader(item).ok_or(DropReason::Runt)?;
            let bytes = store.insert(due_ns, reader.remaining()).ok_or(DropReason::ImpairMemoryFull)?;
            reader.read_to(bytes);
            bytes
        };
        if let Some(bit) = flip_bit
            && let Some(byte) = bytes.get_mut((bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
    }
    Ok(())
}

/// The first `count` frames of a burst, as they are.
pub(crate) fn whole(count: usize) -> impl Iterator<Item = TxItem> {
    (0u8..).take(count).map(|frame| TxItem::whole(frame, TagEdit::KEEP))
}
