//! The configuration of an impairment, its limits, and the built-in profiles.

use super::rates::{MAX_RATE_STEP_NS, MIN_RATE_STEP_NS, Rates};

/// Longest delay with jitter added, ns: ten seconds.
pub const MAX_DELAY_NS: u64 = 10_000_000_000;
/// Slowest link, bits per second.
pub const MIN_RATE_BITS_PER_SECOND: u64 = 8_000;
/// Fastest link, bits per second.
pub const MAX_RATE_BITS_PER_SECOND: u64 = 100_000_000_000;
/// Most frames that wait for a slow link.
pub const MAX_QUEUE_FRAMES: u32 = 65_536;
/// Most bytes that wait for a slow link.
pub const MAX_QUEUE_BYTES: u32 = 16 * 1024 * 1024;
/// Most retransmissions that can be lost.
pub const MAX_LOST_RETRANSMISSIONS: u32 = 255;
/// Highest number of a segment that can be lost.
pub const MAX_LOST_SEGMENT: u32 = 65_535;

/// How often something happens, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);
    /// Always.
    pub const ALWAYS: Chance = Chance(1_000_000);
    /// The number of parts in a whole.
    pub(super) const ONE_IN: u64 = 1_000_000;

    /// So many times in a million; `None` if that is more than always.
    pub const fn new(per_million: u32) -> Option<Chance> {
        if per_million <= Chance::ALWAYS.0 { Some(Chance(per_million)) } else { None }
    }

    /// So many percent, at most 100.
    pub const fn percent(percent: u8) -> Chance {
        Chance(if percent < 100 { percent as u32 * 10_000 } else { Chance::ALWAYS.0 })
    }

    /// How many times in a million.
    pub const fn per_million(self) -> u32 {
        self.0
    }

    /// 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Chance::ALWAYS.0)
    }
}

/// How frames are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each with the same chance.
    Random(Chance),
    /// In bursts: a good and a bad state, changed after each frame with these chances.
    GilbertElliott {
        /// From good to bad.
        enter: Chance,
        /// From bad to good.
        leave: Chance,
        /// Loss in the bad state.
        loss_bad: Chance,
        /// Loss in the good state.
        loss_good: Chance,
    },
}

/// A slow link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSpec {
    /// How fast it is.
    pub rates: Rates,
    /// Bytes that may wait.
    pub queue_bytes: u32,
    /// Frames that may wait.
    pub queue_frames: u32,
}

impl RateSpec {
    /// Frames that may wait if nothing else is said.
    pub const QUEUE_FRAMES: u32 = 1000;
    /// Bytes that may wait if nothing else is said: that many full frames.
    pub const QUEUE_BYTES: u32 = 1_514_000;

    /// A link of this rate with the usual queue.
    pub const fn new(bits_per_second: u64) -> RateSpec {
        let rates = Rates::constant(bits_per_second);
        RateSpec { rates, queue_bytes: RateSpec::QUEUE_BYTES, queue_frames: RateSpec::QUEUE_FRAMES }
    }
}

/// The data segment of each TCP connection that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLoss {
    /// Its number, from 1 on.
    pub number: u32,
    /// How many of its retransmissions are lost, too.
    pub retransmissions: u32,
}

/// A time in which all frames are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// How long after the start of the impairment it begins, ns.
    pub after_ns: u64,
    /// How long it lasts, ns.
    pub lasts_ns: u64,
}

impl Outage {
    /// True while it lasts, `since_ns` after the start.
    pub(super) fn is_at(&self, since_ns: u64) -> bool {
        since_ns.checked_sub(self.after_ns).is_some_and(|into_ns| into_ns < self.lasts_ns)
    }
}

/// The faults applied to the frames of one port in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImpairSpec {
    /// How long a frame is under way, ns.
    pub delay_ns: u64,
    /// By how much that varies, to either side, ns.
    pub jitter_ns: u64,
    /// Which frames are lost.
    pub loss: Loss,
    /// Which frames arrive twice.
    pub duplicate: Chance,
    /// Which frames are not delayed and so overtake those that are.
    pub reorder: Chance,
    /// Which frames arrive with a wrong bit.
    pub corrupt: Chance,
    /// How fast the link is; `None`: not limited.
    pub rate: Option<RateSpec>,
    /// When all frames are lost, once.
    pub outage: Option<Outage>,
    /// Which data segment of each TCP connection is lost.
    pub segment: Option<SegmentLoss>,
    /// The seed of all random numbers.
    pub seed: u64,
}

/// Why a specification makes no sense. The text names the error and the remedy; [`Contradiction::key`] returns its
/// place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Too slow an arrival.
    #[error("delay and jitter together are longer than the {} s a frame is kept at most", MAX_DELAY_NS / 1_000_000_000)]
    DelayTooLong,
    /// Frames would arrive before they were sent.
    #[error("jitter is larger than delay; a frame can't arrive before it was sent")]
    JitterAboveDelay,
    /// Nothing to overtake.
    #[error("reorder needs a delay: without one no frame waits that could be overtaken")]
    ReorderWithoutDelay,
    /// Too slow or too fast.
    #[error("rate is not between {} kbit and {} gbit", MIN_RATE_BITS_PER_SECOND / 1000, MAX_RATE_BITS_PER_SECOND / 1_000_000_000)]
    RateOutOfRange,
    /// A step of the rate that is too short or too long.
    #[error("rate has a step that does not last {} ms to {} h", MIN_RATE_STEP_NS / 1_000_000, MAX_RATE_STEP_NS / 3_600_000_000_000)]
    RateStep,
    /// An outage that never is.
    #[error("outage lasts no time")]
    NoOutage,
    /// There is no such segment.
    #[error("lose_segment is not between 1 and {MAX_LOST_SEGMENT}")]
    SegmentNumber,
    /// Too many retransmissions.
    #[error("lose_retransmissions is more than {MAX_LOST_RETRANSMISSIONS}")]
    Retransmissions,
    /// No queue, or one that is too long.
    #[error("queue_frames is not between 1 and {MAX_QUEUE_FRAMES}")]
    QueueFrames,
    /// No queue, or one that is too long.
    #[error("queue_bytes is not between 1 and {MAX_QUEUE_BYTES}")]
    QueueBytes,
}

impl Contradiction {
    /// The key of the configuration that is to be changed.
    pub fn key(&self) -> &'static str {
        match self {
            Contradiction::DelayTooLong => "delay",
            Contradiction::JitterAboveDelay => "jitter",
            Contradiction::ReorderWithoutDelay => "reorder",
            Contradiction::RateOutOfRange | Contradiction::RateStep => "rate",
            Contradiction::NoOutage => "outage",
            Contradiction::SegmentNumber => "lose_segment",
            Contradiction::Retransmissions => "lose_retransmissions",
            Contradiction::QueueFrames => "queue_frames",
            Contradiction::QueueBytes => "queue_bytes",
        }
    }
}

impl ImpairSpec {
    /// A perfect link.
    pub const NONE: ImpairSpec = ImpairSpec {
        delay_ns: 0,
        jitter_ns: 0,
        loss: Loss::NONE,
        duplicate: Chance::NEVER,
        reorder: Chance::NEVER,
        corrupt: Chance::NEVER,
        rate: None,
        outage: None,
        segment: None,
        seed: 0,
    };

    /// Returns true if no frame is affected.
    pub fn is_none(&self) -> bool {
        *self == ImpairSpec { seed: self.seed, ..ImpairSpec::NONE }
    }

    /// Checks that the settings do not contradict each other.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), Contradiction> {
        let wrong = |condition: bool, what: Contradiction| if condition { Err(what) } else { Ok(()) };
        wrong(self.delay_ns.saturating_add(self.jitter_ns) > MAX_DELAY_NS, Contradiction::DelayTooLong)?;
        wrong(self.jitter_ns > self.delay_ns, Contradiction::JitterAboveDelay)?;
        wrong(self.reorder != Chance::NEVER && self.delay_ns == 0, Contradiction::ReorderWithoutDelay)?;
        wrong(self.outage.is_some_and(|outage| outage.lasts_ns == 0), Contradiction::NoOutage)?;
        if let Some(SegmentLoss { number, retransmissions }) = self.segment {
            wrong(!(1..=MAX_LOST_SEGMENT).contains(&number), Contradiction::SegmentNumber)?;
            wrong(retransmissions > MAX_LOST_RETRANSMISSIONS, Contradiction::Retransmissions)?;
        }
        let Some(rate) = self.rate else { return Ok(()) };
        let rates = MIN_RATE_BITS_PER_SECOND..=MAX_RATE_BITS_PER_SECOND;
        let steps = rate.rates.steps();
        wrong(!steps.iter().all(|step| rates.contains(&step.bits_per_second)), Contradiction::RateOutOfRange)?;
        wrong(!rate.rates.last_as_they_may(), Contradiction::RateStep)?;
        wrong(!(1..=MAX_QUEUE_FRAMES).contains(&rate.queue_frames), Contradiction::QueueFrames)?;
        wrong(!(1..=MAX_QUEUE_BYTES).contains(&rate.queue_bytes), Contradiction::QueueBytes)
    }
}

/// A specification with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// The faults.
    pub spec: ImpairSpec,
}

impl Profile {
    /// Those that need no configuration.
    pub const BUILT_IN: [Profile; 3] = [
        // A link without impairments.
        Profile { name: "default", spec: ImpairSpec::NONE },
        // A slow line: 50 Mbit/s, 25 ms.
        Profile {
            name: "constrained",
            spec: ImpairSpec { delay_ns: 25_000_000, rate: Some(RateSpec::new(50_000_000)), ..ImpairSpec::NONE },
        },
        // A bad radio link: one frame in twenty lost, 20 ms ± 10 ms.
        Profile {
            name: "lossy",
            spec: ImpairSpec {
                delay_ns: 20_000_000,
                jitter_ns: 10_000_000,
                loss: Loss::Random(Chance::percent(5)),
                ..ImpairSpec::NONE
            },
        },
    ];

    /// The built-in one of this name.
    pub fn built_in(name: &str) -> Option<Profile> {
        Profile::BUILT_IN.into_iter().find(|profile| profile.name == name)
    }
}
