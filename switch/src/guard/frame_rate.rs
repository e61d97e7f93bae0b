//! A rate of frames as storm control has it, with the burst that goes with it.

use crate::rate::Limit;

/// The highest rate, frames per second.
pub const MAX_RATE_PPS: u32 = 10_000_000;
/// The smallest burst, frames: a host that starts says several things at once.
const MIN_BURST: u64 = 8;
/// The part of a second whose frames may come at once.
const BURST_PART: u64 = 20;

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

    /// The rate with its burst.
    pub(super) fn limit(self) -> Limit {
        Limit::new(self.0, self.burst())
    }
}
