//! A configuration on trial: what [`confirm`](super::confirm) has to know to keep it or to take it back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use labsw_dataplane::handover::HandoverError;

use crate::api::{Error, Unconfirmed};
use crate::config::Config;
use crate::takeover::timed::{Due, TrialRecord, nanoseconds};

/// Shortest time of a trial.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest time of a trial.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The configuration that waits for its confirmation, and the way back from it.
pub(super) struct Trial {
    /// The name of the file that was applied.
    pub(super) file: String,
    /// The time that it was given.
    pub(super) time: Duration,
    /// When it is taken back.
    pub(super) due: Instant,
    /// The configuration that ran before.
    pub(super) running: Config,
    /// The configuration that the switch had been given before; the difference was made at run time.
    pub(super) given: Config,
    /// The ports that were switched off.
    pub(super) off: BTreeSet<String>,
}

impl Trial {
    /// Checks the time that a configuration is to be on trial.
    pub(super) fn check(file: &str, time: Duration) -> Result<(), Error> {
        if (SHORTEST..=LONGEST).contains(&time) {
            return Ok(());
        }
        let [time, shortest, longest] = [time, SHORTEST, LONGEST].map(humantime::format_duration);
        Err(Error::refused(file, format!("confirm: {time} is not between {shortest} and {longest}")))
    }

    /// The trial, for another process.
    pub(super) fn record(&self) -> TrialRecord {
        let text = |config: &Config| config.to_toml().to_string();
        TrialRecord {
            file: self.file.clone(),
            time_ns: nanoseconds(self.time),
            due: Due::at(self.due),
            running: text(&self.running),
            given: text(&self.given),
            off: self.off.iter().cloned().collect(),
        }
    }

    /// The trial that another process had.
    ///
    /// # Errors
    /// The record is garbled, or this version can't read the configurations to go back to.
    pub(super) fn taken_over(record: TrialRecord) -> Result<Trial, HandoverError> {
        let TrialRecord { file, time_ns, due, running, given, off } = record;
        let time = Duration::from_nanos(time_ns);
        let due = due.within(time).filter(|_| Trial::check(&file, time).is_ok());
        let due = due.ok_or_else(|| HandoverError::new("the time of the configuration on trial is garbled"))?;
        let read = |text: &str| Config::parse_here(text, "configuration before the trial").map_err(HandoverError::new);
        let (running, given) = (read(&running)?, read(&given)?);
        Ok(Trial { file, time, due, running, given, off: off.into_iter().collect() })
    }

    /// The time until the configuration is taken back.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// The trial as `status` shows it.
    pub(super) fn show(&self, now: Instant) -> Unconfirmed {
        let milliseconds_left = u64::try_from(self.due_in(now).as_millis()).unwrap_or(u64::MAX);
        Unconfirmed { file: self.file.clone(), milliseconds_left }
    }
}
