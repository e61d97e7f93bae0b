//! Impairments: the effects of a bad link on frames, as a schedule that is worked out frame by frame.
//!
//! **How it works.** An [`Impairment`] is one link in one direction. [`Impairment::verdict`] is asked once per frame,
//! in order of arrival, and says whether the frame is lost, when it is due at the other end, whether a second copy is,
//! and which bit is wrong. A frame meets the stages in this order:
//!
//! ```text
//! outage → loss → TCP segment → duplicate → corrupt → rate (bounded queue) → delay ± jitter, or none if it is to
//!                                                                           overtake (reorder)
//! ```
//!
//! Nothing is held here but numbers: the caller keeps the frames ([`Verdict::Pass`] says until when).
//!
//! **Repeatable.** Chance comes from the seed alone. Each stage has a stream of random numbers of its own, and takes
//! from it for every frame, lost or not. So with the same seed the frames that are lost, doubled, corrupted and
//! overtaking are the same ones, counted from the first frame, whatever their times are, and turning one stage on
//! changes nothing in another. Where a bit is flipped depends on the lengths of the frames too; due times and full
//! queues on their times.
//!
//! Outage and rates follow the time since the start of the impairment ([`Impairment::begun_at`]), the loss of segments
//! the sequence numbers of TCP ([`segments`]).
//!
//! **Order.** Frames become due in the order they came in, except those that `reorder` lets overtake. Jitter keeps the
//! order and its distribution at the same time: see [`jitter`].
//!
//! **Invariants.** Times never go backwards: a clock that does is held. Memory is that of the queue's numbers, at most
//! [`MAX_QUEUE_FRAMES`], and of at most [`segments::MAX_CONNECTIONS`] connections. No panic, no overflow, on any input.
//!
//! References: E. N. Gilbert, "Capacity of a burst-noise channel", 1960; E. O. Elliott, "Estimates of error rates for
//! codes on burst-noise channels", 1963; tc-netem(8) for the names.

pub mod jitter;
mod loss;
mod progress;
mod queue;
mod random;
pub mod rates;
pub mod segments;
mod spec;

#[cfg(test)]
mod tests;

pub use progress::Progress;
pub use spec::{
    Chance, Contradiction, ImpairSpec, Loss, MAX_DELAY_NS, MAX_LOST_RETRANSMISSIONS, MAX_LOST_SEGMENT, MAX_QUEUE_BYTES,
    MAX_QUEUE_FRAMES, MAX_RATE_BITS_PER_SECOND, MIN_RATE_BITS_PER_SECOND, Outage, Profile, RateSpec, SegmentLoss,
};

use crate::DropReason;
use jitter::Jitter;
use loss::LossProcess;
use queue::Queue;
use random::Random;
use segments::{Segment, Segments};

/// The fate of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is lost, for this reason.
    Drop(DropReason),
    /// It passes.
    Pass {
        /// When it leaves, on the clock of `now_ns`.
        due_ns: u64,
        /// When a second copy leaves, not before the first one's turn.
        copy_due_ns: Option<u64>,
        /// The bit to be flipped, in it and in its copy: byte `bit / 8`, and in it the bit of value `1 << (bit % 8)`.
        flip_bit: Option<u32>,
    },
}

/// Counts of frames by fate, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Counts {
    /// All that were asked about.
    pub frames: u64,
    /// Passed, but not at once.
    pub delayed: u64,
    /// Lost.
    pub lost: u64,
    /// Found the queue of the rate full.
    pub queue_full: u64,
    /// Passed with a copy.
    pub duplicated: u64,
    /// Passed with a wrong bit.
    pub corrupted: u64,
    /// Passed, and were let overtake.
    pub reordered: u64,
}

/// One link in one direction; see the module.
#[derive(Clone, Debug)]
pub struct Impairment {
    spec: ImpairSpec,
    /// It has no other stage than a delay without jitter.
    only_delays: bool,
    /// When it began: outage and rates are counted from there.
    begun_ns: u64,
    loss: LossProcess,
    segments: Option<Segments>,
    duplicate: Random,
    corrupt: Random,
    reorder: Random,
    queue: Option<Queue>,
    jitter: Option<Jitter>,
    /// The latest `now_ns`.
    now_ns: u64,
    /// When the last frame is due that did not overtake.
    last_due_ns: u64,
    counts: Counts,
}

impl Impairment {
    /// A link without a past, that begins at the start of the clock.
    ///
    /// # Errors
    /// [`Contradiction`]: the specification is out of range or contradicts itself.
    pub fn new(spec: ImpairSpec) -> Result<Impairment, Contradiction> {
        spec.check()?;
        let ImpairSpec { delay_ns, seed, .. } = spec;
        Ok(Impairment {
            spec,
            only_delays: spec == ImpairSpec { delay_ns, seed, ..ImpairSpec::NONE },
            begun_ns: 0,
            loss: LossProcess::new(spec.loss, Random::new(spec.seed, 1)),
            segments: spec.segment.map(|loss| Segments::new(loss, spec.seed)),
            duplicate: Random::new(spec.seed, 2),
            corrupt: Random::new(spec.seed, 3),
            reorder: Random::new(spec.seed, 4),
            queue: spec.rate.map(Queue::new),
            jitter: (spec.jitter_ns > 0).then(|| Jitter::new(spec.jitter_ns, Random::new(spec.seed, 5))),
            now_ns: 0,
            last_due_ns: 0,
            counts: Counts::default(),
        })
    }

    /// The link, beginning at this time.
    #[must_use]
    pub fn begun_at(self, now_ns: u64) -> Impairment {
        Impairment { begun_ns: now_ns, ..self }
    }

    /// The configuration.
    pub fn spec(&self) -> &ImpairSpec {
        &self.spec
    }

    /// Decides the fate of a frame of `frame_bytes` (Ethernet header included, no check sequence) that arrives at
    /// `now_ns` and is no TCP segment.
    pub fn verdict(&mut self, now_ns: u64, frame_bytes: u32) -> Verdict {
        self.verdict_about(now_ns, frame_bytes, None)
    }

    /// Like [`Impairment::verdict`], of a frame that is perhaps a TCP segment. It is looked at only if
    /// [`ImpairSpec::segment`] is set.
    pub fn verdict_about(&mut self, now_ns: u64, frame_bytes: u32, segment: Option<Segment>) -> Verdict {
        self.now_ns = self.now_ns.max(now_ns);
        let now_ns = self.now_ns;
        // Every stage takes its numbers for every frame: see the module.
        let lost = self.loss.next();
        let doubled = self.duplicate.hits(self.spec.duplicate);
        let overtakes = self.reorder.hits(self.spec.reorder);
        let flip_bit = self.flip(frame_bytes);
        let segment_lost = self.segments.as_mut().zip(segment).is_some_and(|(all, segment)| all.loses(&segment));
        self.counts.frames += 1;
        let since_ns = now_ns.saturating_sub(self.begun_ns);
        let is_out = self.spec.outage.is_some_and(|outage| outage.is_at(since_ns));
        if is_out || lost || segment_lost {
            self.counts.lost += 1;
            return Verdict::Drop(if is_out { DropReason::ImpairOutage } else { DropReason::ImpairLoss });
        }
        let Some(sent_ns) = self.enqueue(now_ns, frame_bytes) else {
            self.counts.queue_full += 1;
            return Verdict::Drop(DropReason::ImpairQueueFull);
        };
        let due_ns = self.due(sent_ns, overtakes);
        // A copy that finds the queue full is not made; the frame itself is not lost by that.
        let copy_due_ns =
            doubled.then(|| self.enqueue(now_ns, frame_bytes)).flatten().map(|sent_ns| self.due(sent_ns, overtakes));
        let Counts { delayed, duplicated, corrupted, reordered, .. } = &mut self.counts;
        *delayed += u64::from(due_ns > now_ns);
        *duplicated += u64::from(copy_due_ns.is_some());
        *corrupted += u64::from(flip_bit.is_some());
        *reordered += u64::from(overtakes);
        Verdict::Pass { due_ns, copy_due_ns, flip_bit }
    }

    /// Counts of frames by fate, so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The verdict about `frames` frames that arrive together at `now_ns`, if it is the same for all, whatever they
    /// are: where nothing but a constant delay is asked for.
    pub fn common_verdict(&mut self, now_ns: u64, frames: u64) -> Option<Verdict> {
        if !self.only_delays {
            return None;
        }
        self.now_ns = self.now_ns.max(now_ns);
        let due_ns = self.due(self.now_ns, false);
        self.counts.frames += frames;
        if due_ns > self.now_ns {
            self.counts.delayed += frames;
        }
        Some(Verdict::Pass { due_ns, copy_due_ns: None, flip_bit: None })
    }

    fn flip(&mut self, frame_bytes: u32) -> Option<u32> {
        if self.spec.corrupt == Chance::NEVER {
            return None;
        }
        let (hit, place) = (self.corrupt.hits(self.spec.corrupt), self.corrupt.next());
        let bits = u64::from(frame_bytes) * 8;
        (hit && bits > 0).then(|| u32::try_from(random::scaled(place, bits)).unwrap_or(0))
    }

    /// When the frame has left the rate's queue, `None` if that is full.
    fn enqueue(&mut self, now_ns: u64, frame_bytes: u32) -> Option<u64> {
        match &mut self.queue {
            None => Some(now_ns),
            Some(queue) => queue.enqueue(self.begun_ns, now_ns, frame_bytes),
        }
    }

    fn due(&mut self, sent_ns: u64, overtakes: bool) -> u64 {
        if overtakes {
            return sent_ns;
        }
        let delay_ns = match &mut self.jitter {
            None => self.spec.delay_ns,
            Some(jitter) => self.spec.delay_ns.saturating_add_signed(jitter.offset_ns(sent_ns)),
        };
        self.last_due_ns = self.last_due_ns.max(sent_ns.saturating_add(delay_ns));
        self.last_due_ns
    }
}
