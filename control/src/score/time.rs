//! Points in time, as sensors write them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, written as `2026-11-30T12:00:00.000000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(SystemTime);

impl Time {
    /// The present.
    pub fn now() -> Time {
        Time(SystemTime::now())
    }

    /// Reads `2026-11-30T12:00:00.123456+0100` (Suricata), the same with `+01:00` or `Z`, or seconds since 1970
    /// (`1764500000.123456`, Zeek).
    pub fn parse(text: &str) -> Option<Time> {
        let text = text.trim();
        if let Some(seconds) = text.parse().ok().filter(|seconds: &f64| seconds.is_finite()) {
            return Time::from_seconds(seconds);
        }
        let (clock, east, offset) = match text.strip_suffix(['Z', 'z']) {
            Some(clock) => (clock, true, Duration::ZERO),
            None => {
                let at = text.rfind(['+', '-']).filter(|at| text.get(..*at).is_some_and(|date| date.contains('T')))?;
                let (clock, offset) = text.split_at_checked(at)?;
                (clock, offset.starts_with('+'), hours_and_minutes(offset.get(1..)?)?)
            }
        };
        let local = humantime::parse_rfc3339(&format!("{clock}Z")).ok()?;
        // A clock east of Greenwich is ahead.
        let time = if east { local.checked_sub(offset) } else { local.checked_add(offset) };
        time.map(Time)
    }

    /// A number of seconds since 1970, to the microsecond.
    pub fn from_seconds(seconds: f64) -> Option<Time> {
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        let micros = u64::try_from(since.as_micros()).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_micros(micros)).map(Time)
    }

    /// Nanoseconds since 1970.
    pub fn as_nanoseconds(self) -> i128 {
        match self.0.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos().cast_signed(),
            Err(earlier) => -earlier.duration().as_nanos().cast_signed(),
        }
    }

    /// A later time; this one if there is none.
    #[must_use]
    pub fn plus(self, span: Duration) -> Time {
        self.0.checked_add(span).map_or(self, Time)
    }

    /// Seconds since an earlier time; 0 if that is later.
    pub fn seconds_since(self, earlier: Time) -> f64 {
        self.0.duration_since(earlier.0).unwrap_or_default().as_secs_f64()
    }
}

/// `0100`, `01:00`, `01`.
fn hours_and_minutes(text: &str) -> Option<Duration> {
    let digits = text.replacen(':', "", 1);
    if !matches!(digits.len(), 2 | 4) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let hours: u64 = digits.get(..2)?.parse().ok()?;
    let minutes: u64 =
        digits.get(2..).filter(|minutes| !minutes.is_empty()).map_or(Some(0), |text| text.parse().ok())?;
    (minutes < 60 && hours < 24).then(|| Duration::from_secs(hours * 3600 + minutes * 60))
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", humantime::format_rfc3339_micros(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        Time::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no time, as in 2026-11-30T12:00:00Z")))
    }
}
