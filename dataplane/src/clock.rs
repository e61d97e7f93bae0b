//! The clock of the data plane: nanoseconds of the machine's monotonic clock, handed to whatever is due at some time or
//! measured against it.
//!
//! A worker reads the clock once a turn and hands the time on in [`Turn`](crate::port::Turn); the forwarding database,
//! storm control, injection, impairments, echoes and timers all live by that one time. The control thread reads the
//! same clock, so does a process that takes over, and so do the switch's programs in the kernel: times that one of them
//! has noted are good for the others.
//!
//! The clock is read through the C library: rustix's own way to it does not run under valgrind, where benches count
//! instructions.

#![allow(unsafe_code, reason = "clock_gettime(2)")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Pairs of readings from which the closest is chosen.
const PAIRS: usize = 8;

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

/// The time that an instant stands for.
pub fn at(instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(zero()).as_nanos()).unwrap_or(NEVER)
}

/// The instant of a time; `None`: there is none so late.
pub fn instant(ns: u64) -> Option<Instant> {
    zero().checked_add(Duration::from_nanos(ns))
}

/// The instant at which the machine's monotonic clock was 0, as the standard library has it: the same clock, whose
/// numbers the library keeps for itself.
fn zero() -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(find_zero)
}

fn find_zero() -> Instant {
    let pairs = (0..PAIRS).map(|_| {
        let before = Instant::now();
        let read = machine_time();
        (before.elapsed(), before.checked_sub(read).unwrap_or(before))
    });
    pairs.min_by_key(|(apart, _)| *apart).map_or_else(Instant::now, |(_, zero)| zero)
}

/// The time of the machine's monotonic clock.
fn machine_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, which lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    #[test]
    fn the_time_is_that_of_the_machine_so_that_another_process_can_read_it() {
        let of_machine = || Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
        let slack = Duration::from_millis(1);
        let (before, now, after) = (of_machine(), Duration::from_nanos(now_ns()), of_machine());
        assert!(before <= now + slack && now <= after + slack, "{before:?} {now:?} {after:?}");
        let one = Instant::now();
        assert_eq!(at(one + Duration::from_secs(5)) - at(one), 5_000_000_000);
        assert_eq!(instant(at(one)), Some(one));
    }
}
