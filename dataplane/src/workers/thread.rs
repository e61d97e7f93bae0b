//! The start of a worker's thread, besides pinning it to its CPU: exact timers, and giving up privileges.
//!
//! **Privileges.** What a worker may keep is for the program to know: [`set_confinement`] names a function that every
//! worker calls when it is set up. Without one a worker keeps what it inherited.
//!
//! **Timer slack.** The kernel may let a sleep with a time-out end late by the thread's timer slack, 50 µs unless
//! asked otherwise, to gather several wake-ups. A worker's time-outs are few and each has a frame waiting behind it (a
//! transmit ring to be tried again), so it asks for the least there is.
//!
//! Reference: prctl(2), `PR_SET_TIMERSLACK`.

use std::io;
use std::num::NonZeroU64;
use std::sync::OnceLock;

use rustix::thread::set_current_timer_slack;

/// The least timer slack; zero would stand for the default.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::MIN;

/// Gives up privileges of the calling thread.
pub type Confinement = fn() -> io::Result<()>;

static CONFINEMENT: OnceLock<Confinement> = OnceLock::new();

/// Names the function that workers started from now on call. The first one stays.
pub fn set_confinement(confinement: Confinement) {
    let _ = CONFINEMENT.set(confinement);
}

/// Gives up the rights that a worker does not need.
pub(crate) fn confine() -> io::Result<()> {
    CONFINEMENT.get().map_or(Ok(()), |confinement| confinement())
}

/// Has the time-outs of the calling thread end as exactly as the kernel can.
pub fn exact_timers() -> io::Result<()> {
    Ok(set_current_timer_slack(Some(TIMER_SLACK_NS))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::current_timer_slack;

    #[test]
    fn the_slack_is_that_of_this_thread_only() {
        let inherited = current_timer_slack().unwrap();
        let asked = std::thread::spawn(|| {
            exact_timers().unwrap();
            current_timer_slack().unwrap()
        });
        assert_eq!(asked.join().unwrap(), TIMER_SLACK_NS.get());
        assert_eq!(current_timer_slack().unwrap(), inherited);
        assert_ne!(inherited, TIMER_SLACK_NS.get(), "the test would see nothing");
    }
}
