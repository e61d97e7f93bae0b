//! Jobs of the control thread that go on with the new process at the same times, as data.

use std::time::{Duration, Instant};

use labsw_dataplane::clock;
use serde::{Deserialize, Serialize};

/// The flapping of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlapRecord {
    /// The period.
    pub every_ns: u64,
    /// How often the port still comes up.
    pub left: u32,
    /// When the port changes next.
    pub due: Due,
}

/// A configuration on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// The name of its file.
    pub file: String,
    /// The time that it was given.
    pub time_ns: u64,
    /// When it is taken back.
    pub due: Due,
    /// The configuration that ran before, as a text.
    pub running: String,
    /// The configuration that the switch had been given before, as a text.
    pub given: String,
    /// The ports that were switched off.
    pub off: Vec<String>,
}

/// A time at which something is due, on the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Due(u64);

impl Due {
    /// This time.
    pub fn at(instant: Instant) -> Due {
        Due(clock::at(instant))
    }

    /// The time, if it is over or comes before `most` has passed.
    pub fn within(self, most: Duration) -> Option<Instant> {
        clock::instant(self.0).filter(|due| due.saturating_duration_since(Instant::now()) <= most)
    }
}

/// A duration in whole nanoseconds.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_after_the_way_and_one_too_far_away_is_none() {
        let second = Duration::from_secs(1);
        for instant in [Instant::now(), Instant::now() + second] {
            let text = serde_json::to_string(&Due::at(instant)).unwrap();
            let read: Due = serde_json::from_str(&text).unwrap();
            assert_eq!(read.within(second), Some(instant));
        }
        assert_eq!(Due::at(Instant::now() + 5 * second).within(second), None);
        assert_eq!(Due(u64::MAX).within(second), None);
        assert!(Due(0).within(second).is_some(), "long over");
    }
}
