//! A rate of frames with a bounded burst, shared by all workers without a lock: one atomic word.
//!
//! **How it works.** The generic cell rate algorithm (ITU-T I.371, annex A; the same as a token bucket): the word is
//! the time at which a sender that keeps exactly to the rate would send its next frame. A frame is allowed if that time
//! is no further ahead than the burst; then the word moves on by one interval. So there is no refilling, and a bucket
//! that nobody uses costs nothing.
//!
//! **Invariants.** In any span of `t` seconds at most `rate · t + burst` frames pass, whatever the workers do at the
//! same time. A clock that goes backwards, or that another worker read a little earlier, gives nothing away.
//!
//! Time is kept in 1/1024 ns and intervals are rounded up: a rate is never exceeded, and is missed by less than 0.1 %
//! up to a million frames a second. Time wraps after 208 days; a word that is further ahead than burst and clocks can
//! explain is that of a bucket that was unused for months, and counts as full.

use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of a nanosecond.
const TICKS_PER_NS: u64 = 1024;
const TICKS_PER_SECOND: u64 = 1_000_000_000 * TICKS_PER_NS;

/// A rate and its burst, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    interval_ticks: u64,
    burst_ticks: u64,
}

impl Limit {
    /// So many frames per second (0 counts as 1), of which `burst_frames` may come at once.
    pub(crate) fn new(frames_per_second: u32, burst_frames: u64) -> Limit {
        let interval_ticks = TICKS_PER_SECOND.div_ceil(u64::from(frames_per_second.max(1)));
        Limit { interval_ticks, burst_ticks: interval_ticks.saturating_mul(burst_frames) }
    }
}

/// The bucket; see the module. A new one is full.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When the next frame would come from a sender that keeps to the rate.
    next_ticks: AtomicU64,
}

impl Bucket {
    /// The state of the bucket.
    pub(crate) fn next_ticks(&self) -> u64 {
        self.next_ticks.load(Ordering::Relaxed)
    }

    /// Goes on in the state of another bucket.
    pub(crate) fn go_on(&self, next_ticks: u64) {
        self.next_ticks.store(next_ticks, Ordering::Relaxed);
    }

    /// Takes a token at `now_ns` if there is one; says whether there was. A dry run leaves it.
    pub(crate) fn take(&self, limit: Limit, now_ns: u64, dry: bool) -> bool {
        let Limit { interval_ticks, burst_ticks } = limit;
        let now = now_ns.wrapping_mul(TICKS_PER_NS);
        let after = |next: u64| {
            let ahead = match next.wrapping_sub(now) {
                // In the past, which wraps round.
                ahead if ahead > burst_ticks.saturating_add(TICKS_PER_SECOND) => 0,
                ahead => ahead,
            };
            let ahead = ahead.saturating_add(interval_ticks);
            (ahead <= burst_ticks).then(|| now.wrapping_add(ahead))
        };
        if dry {
            return after(self.next_ticks.load(Ordering::Relaxed)).is_some();
        }
        // Nothing else is ordered by it.
        self.next_ticks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }
}
