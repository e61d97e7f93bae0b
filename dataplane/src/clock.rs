//! The clock of everything that is due at some time or measured against it: delayed frames, injected ones, copies that come back.

use rustix::time::{ClockId, clock_gettime};

/// The time, ns of the monotonic clock.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
