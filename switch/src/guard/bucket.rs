//! A token bucket that several workers share: one atomic word.
//!
//! **How it works.** The word is the time at which the bucket will be full again if nothing is taken (the theoretical
//! arrival time of the generic cell rate algorithm, ITU-T I.371 annex A). A token costs the interval between two
//! frames; it is there if that time is no further ahead than the burst allows. So there is no refilling, and a bucket
//! nobody uses costs nothing.
//!
//! **Invariants.** In any span of `t` seconds at most `rate · t + burst` frames pass, whatever the workers do at the
//! same time. A clock that goes backwards gives nothing away. The interval is in whole nanoseconds, rounded up: the
//! rate is never exceeded, and missed by less than 1 % at the highest.

use std::sync::atomic::{AtomicU64, Ordering};

/// The highest rate of a bucket, frames per second.
pub const MAX_RATE_PPS: u32 = 10_000_000;
/// The smallest burst, frames: a host that starts says several things at once.
const MIN_BURST: u64 = 8;
/// A burst is what the rate allows in this part of a second.
const BURST_PART: u64 = 20;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Frames per second, 1 to [`MAX_RATE_PPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate(u32);

impl FrameRate {
    /// `None` if it is out of range.
    pub fn new(frames_per_second: u32) -> Option<FrameRate> {
        (1..=MAX_RATE_PPS).contains(&frames_per_second).then_some(FrameRate(frames_per_second))
    }

    /// Frames per second.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The most frames at once: those of a twentieth of a second, at least 8.
    pub fn burst(self) -> u64 {
        (u64::from(self.0) / BURST_PART).max(MIN_BURST)
    }

    /// Nanoseconds between two frames.
    fn interval_ns(self) -> u64 {
        NS_PER_SECOND.div_ceil(u64::from(self.0))
    }
}

/// The bucket; see the module. A new one is full.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Takes a token at `now_ns` if there is one; says whether there was. A dry run leaves it.
    pub(super) fn take(&self, rate: FrameRate, now_ns: u64, dry: bool) -> bool {
        let interval_ns = rate.interval_ns();
        let horizon_ns = now_ns.saturating_add(rate.burst().saturating_mul(interval_ns));
        let after = |full_at_ns: u64| {
            let after_ns = full_at_ns.max(now_ns).saturating_add(interval_ns);
            (after_ns <= horizon_ns).then_some(after_ns)
        };
        if dry {
            return after(self.full_at_ns.load(Ordering::Relaxed)).is_some();
        }
        // Nothing else is ordered by it.
        self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }
}
