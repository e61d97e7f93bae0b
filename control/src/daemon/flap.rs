//! Ports that flap: down and up again, so many times, at a steady pace.
//!
//! The job is the port's: who asked for it may go away, and it ends with the port, with `port up` or `port down`, or by
//! itself, with the port up. A port is down for the first half of each period and up for the second. The control loop
//! wakes for the next change; one that was kept busy goes on from there, and leaves none out.

use std::time::{Duration, Instant};

use crate::api::{self, Error};

/// Shortest period: every change is put in force at all workers.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest period.
const LONGEST: Duration = Duration::from_secs(3600);
/// Most times.
const MOST: u32 = 1_000_000;

/// A port's job.
pub(super) struct Flap {
    every: Duration,
    /// How many times it still comes up.
    left: u32,
    /// When it changes next.
    due: Instant,
}

impl Flap {
    /// As it is shown.
    pub(super) fn show(&self) -> api::Flap {
        let every_milliseconds = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        api::Flap { every_milliseconds, left: self.left }
    }

    /// A job of the port `name` that begins now, with the port down.
    ///
    /// # Errors
    /// A period or a count that is out of range.
    pub(super) fn new(name: &str, every: Duration, count: u32) -> Result<Flap, Error> {
        let refused = |reason: String| Err(Error::refused(format!("port {name:?}"), reason));
        if !(SHORTEST..=LONGEST).contains(&every) {
            let every = humantime::format_duration(every);
            let [shortest, longest] = [SHORTEST, LONGEST].map(humantime::format_duration);
            return refused(format!("every: {every} is not between {shortest} and {longest}"));
        }
        if !(1..=MOST).contains(&count) {
            return refused(format!("count: {count} is not between 1 and {MOST}"));
        }
        Ok(Flap { every, left: count, due: Instant::now() + every / 2 })
    }

    /// Whether the port changes by now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// How long until the port changes.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// The port changes now; returns whether the job is over.
    pub(super) fn turn(&mut self, up: bool, now: Instant) -> bool {
        self.left -= u32::from(up).min(self.left);
        self.due = (self.due + self.every / 2).max(now);
        self.left == 0
    }
}
