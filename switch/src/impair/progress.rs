//! The state of an impairment, saved for a take-over: in the next process the same random numbers, times and counts
//! follow.

use super::segments::Tracked;
use super::{Counts, Impairment};

/// Where an impairment stands. Times are those of a clock that both processes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Progress {
    begun_ns: u64,
    loss: (u64, bool),
    duplicate: u64,
    corrupt: u64,
    reorder: u64,
    /// The random numbers of the jitter, and its sweep.
    jitter: Option<(u64, (u64, u64, bool))>,
    /// When the link of the rate is free, and the carry.
    queue: Option<(u64, u64)>,
    /// The frames in that queue: when each has left, and its bytes.
    queued: Vec<(u64, u32)>,
    /// The TCP connections of which a segment is lost.
    segments: Vec<Tracked>,
    now_ns: u64,
    last_due_ns: u64,
    counts: Counts,
}

impl Impairment {
    /// Where the impairment stands.
    pub fn progress(&self) -> Progress {
        Progress {
            begun_ns: self.begun_ns,
            loss: self.loss.progress(),
            duplicate: self.duplicate.state(),
            corrupt: self.corrupt.state(),
            reorder: self.reorder.state(),
            jitter: self.jitter.as_ref().map(|jitter| jitter.progress()),
            queue: self.queue.as_ref().map(|queue| queue.progress()),
            queued: self.queue.as_ref().map(|queue| queue.frames().collect()).unwrap_or_default(),
            segments: self.segments.as_ref().map(|segments| segments.tracked().collect()).unwrap_or_default(),
            now_ns: self.now_ns,
            last_due_ns: self.last_due_ns,
            counts: self.counts,
        }
    }

    /// Goes on where an impairment of the same specification stood.
    pub fn go_on(&mut self, progress: &Progress) {
        self.begun_ns = progress.begun_ns;
        self.loss.go_on(progress.loss);
        if let Some(segments) = &mut self.segments {
            segments.go_on(&progress.segments);
        }
        self.duplicate.go_on(progress.duplicate);
        self.corrupt.go_on(progress.corrupt);
        self.reorder.go_on(progress.reorder);
        if let (Some(jitter), Some((random, sweep))) = (&mut self.jitter, progress.jitter) {
            jitter.go_on(random, sweep);
        }
        if let (Some(queue), Some((free_ns, carry))) = (&mut self.queue, progress.queue) {
            queue.go_on(&progress.queued, free_ns, carry);
        }
        self.now_ns = progress.now_ns;
        self.last_due_ns = progress.last_due_ns;
        self.counts = progress.counts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;
    use crate::impair::segments::Segment;
    use crate::impair::{Chance, ImpairSpec, Loss, Outage, RateSpec, SegmentLoss, Verdict};

    #[test]
    fn an_impairment_goes_on_as_if_it_had_stayed() {
        let percent = Chance::percent;
        let loss = Loss::GilbertElliott {
            enter: percent(5),
            leave: percent(20),
            loss_bad: percent(90),
            loss_good: percent(1),
        };
        let spec = ImpairSpec {
            delay_ns: 5_000_000,
            jitter_ns: 2_000_000,
            loss,
            duplicate: percent(3),
            reorder: percent(2),
            corrupt: percent(4),
            rate: Some(RateSpec::new(100_000_000)),
            outage: Some(Outage { after_ns: 100_000_000, lasts_ns: 20_000_000 }),
            segment: Some(SegmentLoss { number: 5, retransmissions: 1 }),
            seed: 7,
        };
        let mut outages = 0;
        let times = (0..4000u64).map(|at| (at * 70_000, 60 + u32::try_from(at * 31 % 1400).unwrap()));
        let mut stays = Impairment::new(spec).unwrap().begun_at(50_000_000);
        let mut moves = stays.clone();
        for (at, (now_ns, bytes)) in times.enumerate() {
            if at % 500 == 250 {
                let mut other = Impairment::new(ImpairSpec { seed: 99, ..spec }).unwrap();
                other.go_on(&moves.progress());
                moves = other;
            }
            let segment = Some(Segment::of(u64::try_from(at % 50).unwrap(), u32::try_from(at).unwrap(), 1));
            let verdict = stays.verdict_about(now_ns, bytes, segment);
            outages += u32::from(verdict == Verdict::Drop(DropReason::ImpairOutage));
            assert_eq!(verdict, moves.verdict_about(now_ns, bytes, segment), "frame {at}");
        }
        assert_eq!(outages, 286, "20 ms of one frame in 70 us");
        assert_eq!(stays.progress().segments.len(), 50);
        let counts = stays.counts();
        assert_eq!(counts, moves.counts());
        assert!(counts.lost > 0 && counts.duplicated > 0 && counts.corrupted > 0 && counts.reordered > 0, "{counts:?}");
    }

    #[test]
    fn numbers_that_make_no_sense_do_no_harm() {
        let rate = Some(RateSpec { queue_frames: 2, ..RateSpec::new(1_000_000) });
        let spec = ImpairSpec { delay_ns: 10, jitter_ns: 10, rate, ..ImpairSpec::NONE };
        let mut impairment = Impairment::new(spec).unwrap();
        let (most, full) = (u64::MAX, Verdict::Drop(DropReason::ImpairQueueFull));
        let progress = Progress {
            jitter: Some((1, (most, 0, true))),
            queue: Some((most, most)),
            queued: vec![(most, u32::MAX); 100],
            now_ns: most,
            last_due_ns: most,
            ..Progress::default()
        };
        impairment.go_on(&progress);
        let passed = (0..10).filter(|now_ns| impairment.verdict(*now_ns, 1500) != full).count();
        assert_eq!((passed, impairment.counts().frames), (10, 10), "the clock is held at its end, where nothing waits");
    }
}
