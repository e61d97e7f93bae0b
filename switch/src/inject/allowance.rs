//! The rate at which one mirror destination may inject.

use crate::rate::{Bucket, Limit};

/// Slowest rate, frames per second.
pub const MIN_RATE_FPS: u32 = 1;
/// Fastest rate, frames per second.
pub const MAX_RATE_FPS: u32 = 1_000_000_000;
/// Frames that may come at once, at least.
const MIN_BURST_FRAMES: u64 = 64;
/// The part of a second whose frames may come at once: a hundredth.
const BURSTS_PER_SECOND: u64 = 100;

/// A rate, and how much of it is used up.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Limit,
    bucket: Bucket,
}

impl Allowance {
    /// A full allowance of `rate_fps` frames per second.
    pub(super) fn new(rate_fps: u32) -> Allowance {
        let rate_fps = rate_fps.clamp(MIN_RATE_FPS, MAX_RATE_FPS);
        let burst_frames = (u64::from(rate_fps) / BURSTS_PER_SECOND).max(MIN_BURST_FRAMES);
        Allowance { limit: Limit::new(rate_fps, burst_frames), bucket: Bucket::default() }
    }

    /// How much of it is used up, as a number.
    pub(super) fn used(&self) -> u64 {
        self.bucket.next_ticks()
    }

    /// Goes on where another allowance of the same rate stood.
    pub(super) fn go_on(&self, used: u64) {
        self.bucket.go_on(used);
    }

    /// Takes room for one more frame if there is any, or only looks if `dry`. Returns true if there was room.
    pub(super) fn take(&self, now_ns: u64, dry: bool) -> bool {
        self.bucket.take(self.limit, now_ns, dry)
    }
}
