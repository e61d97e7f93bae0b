//! Impairments carried out: frames of one port and direction kept, changed, doubled or lost, as a schedule says.
//!
//! **How it works.** The schedule is [`labsw_switch::impair`]; here are the frames. A [`DelayQueue`] asks the schedule
//! about each frame ([`DelayQueue::accept`]), keeps an owned copy of those that pass in its [`store`], and lends them
//! again, in bursts, when they are due. Everything is impaired as it would be on a wire: frames are cut and their
//! checksums finished before they enter a delay queue (a flipped bit would otherwise be covered by a checksum made
//! later).
//!
//! - To the port (tx): an [`ImpairedTx`] stands before the port's transmit side and is one itself. All workers share
//!   its [`TxDelay`], under a lock held for a burst. The worker that gave it frames last sends those that are due; the
//!   lock is held meanwhile, so that two workers can't swap frames.
//! - From the port (rx): each receive queue has an [`ImpairedRx`] at its worker, which receives in its place. The delay
//!   queues of a port share one [`Schedule`], so that its rate and its seed are those of the port.
//!
//! Time is that of the worker's [`Turn`](crate::port::Turn), and a delay is counted from its
//! [`arrival_ns`](crate::port::Turn::arrival_ns): nothing here asks the clock.
//!
//! An impairment may be for some frames only. The others go the same way and are due at once, so they overtake those
//! that wait.
//!
//! **Invariants.**
//! - A port without an impairment has none of this in its way.
//! - Memory is bounded: see [`store`]. What finds no room is dropped as `impair_memory_full`; what is given up before
//!   it was due (the impairment changed, the queue or port went) as `impair_cleared`.
//! - Borrowed frames end at [`DelayQueue::accept`], so no descriptor is held over a turn.

mod delay_queue;
mod handover;
mod rx;
mod store;
mod tx;

use std::sync::{Arc, Mutex, Weak};

use labsw_switch::filter::{Filter, Picker};
use labsw_switch::forward::TxItem;
use labsw_switch::impair::segments::Segment;
use labsw_switch::impair::{Contradiction, Counts, ImpairSpec, Impairment, Verdict};

use crate::clock;
use crate::frame::Burst;
use crate::port::lock;

pub(crate) use delay_queue::{DelayQueue, whole};
pub(crate) use handover::pack;
pub use handover::unpack;
pub(crate) use rx::ImpairedRx;
use store::Store;
pub use store::{MAX_DELAYED_BYTES, MAX_LINE_BYTES, MAX_LINE_FRAMES};
pub use tx::{ImpairedTx, TxDelay};

/// The schedule of one port and direction, shared by its delay queues.
#[derive(Debug)]
pub struct Schedule {
    impairment: Mutex<Impairment>,
    /// It tells TCP segments apart.
    reads_segments: bool,
    /// The frames it is for; `None`: all.
    filter: Option<Arc<Filter>>,
    /// The delay queues of receive queues that follow it.
    lines: Mutex<Vec<Weak<Mutex<DelayQueue>>>>,
    /// Frames that waited in another process, for receive queues to come.
    inherited: Mutex<Vec<Store>>,
}

impl Schedule {
    /// A link without a past, which begins now.
    ///
    /// # Errors
    /// [`Contradiction`]: it is out of range or contradicts itself.
    pub fn new(spec: ImpairSpec) -> Result<Schedule, Contradiction> {
        let impairment = Mutex::new(Impairment::new(spec)?.begun_at(clock::now_ns()));
        let reads_segments = spec.segment.is_some();
        Ok(Schedule { impairment, reads_segments, filter: None, lines: Mutex::default(), inherited: Mutex::default() })
    }

    /// For frames that this filter selects; others pass.
    #[must_use]
    pub fn only(self, filter: Option<Filter>) -> Schedule {
        Schedule { filter: filter.map(Arc::new), ..self }
    }

    /// Those of `items` that it is for (bit = index in the burst).
    fn selected(&self, burst: &Burst, items: &[TxItem]) -> u64 {
        let Some(filter) = &self.filter else { return u64::MAX };
        let alike = items.chunk_by(|a, b| a.edit == b.edit);
        let mut picker = Picker::default();
        let mut pick = |items: &[TxItem]| {
            let set = items.iter().fold(0, |set, item| set | 1 << item.frame);
            items.first().map_or(0, |first| picker.pick(filter, set, first.edit, burst))
        };
        alike.fold(0, |selected, items| selected | pick(items))
    }

    /// Counts of frames by fate so far, in all delay queues together.
    pub fn counts(&self) -> Counts {
        lock(&self.impairment).counts()
    }

    /// The TCP segment in a frame, if the schedule tells them apart.
    fn segment(&self, burst: &Burst, item: &TxItem) -> Option<Segment> {
        if self.reads_segments { Segment::read(burst.snapshot(item.frame.into())) } else { None }
    }

    /// Verdicts about `count` frames of these lengths, perhaps with TCP segments, in order: one for all of them
    /// (returned), or one for each.
    fn judge(
        &self,
        now_ns: u64,
        count: usize,
        frames: impl Iterator<Item = (u32, Option<Segment>)>,
        mut each: impl FnMut(Verdict),
    ) -> Option<Verdict> {
        let mut impairment = lock(&self.impairment);
        let common = impairment.common_verdict(now_ns, count as u64);
        if common.is_none() {
            frames.for_each(|(bytes, segment)| each(impairment.verdict_about(now_ns, bytes, segment)));
        }
        common
    }
}
