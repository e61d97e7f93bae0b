//! A rate in frames per second with a bounded burst, shared by all workers without a lock.
//!
//! **How it works.** The generic cell rate algorithm (ITU-T I.371, annex A; the same as a token bucket): what is kept
//! is when a sender that keeps exactly to the rate would send its next frame. A frame is allowed if that is not further
//! ahead than the burst; then it moves on by one interval.
//!
//! Time is kept in 1/1024 ns, so that an interval is exact to 0.1 % at the highest rate. It wraps after 208 days; a
//! state that can't be (further ahead than the burst) is that of a sender that has been silent for so long, and counts
//! as silence.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slowest rate, frames per second.
pub const MIN_RATE_FPS: u32 = 1;
/// Fastest rate, frames per second.
pub const MAX_RATE_FPS: u32 = 1_000_000_000;
/// Parts of a nanosecond.
const TICKS_PER_NS: u64 = 1024;
/// Frames that may come at once, at least.
const MIN_BURST_FRAMES: u64 = 64;
/// How much of a second's frames may come at once: a hundredth.
const BURSTS_PER_SECOND: u64 = 100;

/// See the module.
#[derive(Debug)]
pub struct Allowance {
    interval_ticks: u64,
    burst_ticks: u64,
    /// When the next frame would come from a sender that keeps to the rate.
    next_ticks: AtomicU64,
}

impl Allowance {
    /// A full allowance of so many frames per second.
    pub fn new(rate_fps: u32) -> Allowance {
        let rate = u64::from(rate_fps.clamp(MIN_RATE_FPS, MAX_RATE_FPS));
        let interval_ticks = 1_000_000_000 * TICKS_PER_NS / rate;
        let burst_frames = (rate / BURSTS_PER_SECOND).max(MIN_BURST_FRAMES);
        Allowance { interval_ticks, burst_ticks: interval_ticks * burst_frames, next_ticks: AtomicU64::new(0) }
    }

    /// Whether one more frame may come; if so, and not `dry`, it has come.
    pub fn take(&self, now_ns: u64, dry: bool) -> bool {
        let now = now_ns.wrapping_mul(TICKS_PER_NS);
        let mut next = self.next_ticks.load(Ordering::Relaxed);
        loop {
            let mut ahead = next.wrapping_sub(now);
            if ahead > self.burst_ticks {
                // In the past, which wraps round.
                ahead = 0;
            }
            if ahead + self.interval_ticks > self.burst_ticks {
                return false;
            }
            if dry {
                return true;
            }
            let after = now.wrapping_add(ahead + self.interval_ticks);
            match self.next_ticks.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => next = other,
            }
        }
    }
}
