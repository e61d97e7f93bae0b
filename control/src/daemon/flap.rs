//! Flapping ports: a port goes down and up again, a given number of times, at a steady pace.
//!
//! The job belongs to the port, not to the client that asked for it. It ends with the port, by `port up` or `port
//! down`, or by itself with the port up. A port is down for the first half of each period and up for the second. The
//! control loop wakes for each change; after a delay the job goes on with the change that is due and leaves none out.

use std::time::{Duration, Instant};

use labsw_dataplane::handover::HandoverError;

use crate::api::{self, Error};
use crate::takeover::timed::{Due, FlapRecord, nanoseconds};

/// Shortest period: every change is put in force at all workers.
const SHORTEST: Duration = Duration::from_millis(20);
/// Longest period.
const LONGEST: Duration = Duration::from_secs(3600);
/// Highest count.
const MOST: u32 = 1_000_000;

/// The flapping job of a port.
pub(super) struct Flap {
    every: Duration,
    /// How often the port still comes up.
    left: u32,
    /// When the port changes next.
    due: Instant,
}

impl Flap {
    /// The job as `port show` shows it.
    pub(super) fn show(&self) -> api::Flap {
        let every_milliseconds = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
        api::Flap { every_milliseconds, left: self.left }
    }

    /// The job, for another process.
    pub(super) fn record(&self) -> FlapRecord {
        FlapRecord { every_ns: nanoseconds(self.every), left: self.left, due: Due::at(self.due) }
    }

    /// The job that another process had for the port `name`.
    ///
    /// # Errors
    /// The record is garbled.
    pub(super) fn taken_over(name: &str, record: &FlapRecord) -> Result<Flap, HandoverError> {
        let new = Flap::new(name, Duration::from_nanos(record.every_ns), record.left).ok();
        let flap = new.and_then(|new| Some(Flap { due: record.due.within(new.every)?, ..new }));
        flap.ok_or_else(|| HandoverError::new("the state of its flapping is garbled"))
    }

    /// A job for the port `name` that begins now, with the port going down.
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

    /// True if the port's next change is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// When the port changes next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Records that the port changes now; returns true if the job is over.
    pub(super) fn turn(&mut self, up: bool, now: Instant) -> bool {
        self.left -= u32::from(up).min(self.left);
        self.due = (self.due + self.every / 2).max(now);
        self.left == 0
    }
}
