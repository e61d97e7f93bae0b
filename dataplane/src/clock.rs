//! The clock of everything that is due at some time or measured against it: delayed frames, injected ones, copies that come back.

use std::sync::OnceLock;
use std::time::Instant;

/// The time, ns since it was first asked for. Through the C library: rustix's own way to the clock does not run under valgrind,
/// where benches count instructions.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
