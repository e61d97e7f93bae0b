//! The clock of the data plane: nanoseconds since its start, handed to whatever is due at some time or measured against
//! it.
//!
//! A worker reads the clock once a turn and hands the time on in [`Turn`](crate::port::Turn); the forwarding database,
//! storm control, injection, impairments, echoes and timers all live by that one time. The control thread reads the
//! same clock.
//!
//! The clock is read through the C library: rustix's own way to it does not run under valgrind, where benches count
//! instructions.

use std::sync::OnceLock;
use std::time::Instant;

/// A time that does not come.
pub const NEVER: u64 = u64::MAX;

/// The time now.
pub fn now_ns() -> u64 {
    at(Instant::now())
}

/// The time now in whole seconds, as the forwarding database counts them.
pub fn now_seconds() -> u32 {
    seconds(now_ns())
}

/// The whole seconds of a time, as the forwarding database counts them: modulo 2³².
#[allow(clippy::cast_possible_truncation, reason = "modulo 2^32")]
pub(crate) fn seconds(ns: u64) -> u32 {
    (ns / 1_000_000_000) as u32
}

/// The time that an instant stands for; 0 before the start of the clock, which is when it was first asked for.
pub(crate) fn at(instant: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = instant.saturating_duration_since(*START.get_or_init(|| instant));
    u64::try_from(since.as_nanos()).unwrap_or(NEVER)
}
