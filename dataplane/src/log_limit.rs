//! A limit for log lines that a peer can cause.
//!
//! In each period of [`PERIOD`] the first [`LINES`] lines are written; the others are counted, and one line at the end
//! of the period says how many there were. A period begins with its first line. Time is an argument.

use std::time::{Duration, Instant};

/// Lines that are written in one period.
pub const LINES: u32 = 10;
/// The length of a period.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Counts the lines of one source.
#[derive(Clone, Debug, Default)]
pub struct LogLimit {
    /// When the period began; `None`: there was no line since the last one ended.
    since: Option<Instant>,
    written: u32,
    withheld: u64,
}

impl LogLimit {
    /// Returns true if the line at hand may be written. [`LogLimit::ended`] is to be asked first.
    pub fn admit(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let admitted = self.written < LINES;
        if admitted {
            self.written += 1;
        } else {
            self.withheld += 1;
        }
        admitted
    }

    /// Ends a period that is over, and returns how many lines of it were withheld, if any were.
    pub fn ended(&mut self, now: Instant) -> Option<u64> {
        self.since.filter(|since| now >= *since + PERIOD)?;
        let withheld = std::mem::take(self).withheld;
        (withheld > 0).then_some(withheld)
    }

    /// When [`LogLimit::ended`] will have something to say.
    pub fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.withheld > 0).map(|since| since + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        assert_eq!((limit.due(), limit.ended(start)), (None, None));
        let admitted = (0..25).filter(|_| limit.admit(start)).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.due(), Some(start + PERIOD));
        assert_eq!(limit.ended(start + PERIOD - Duration::from_millis(1)), None);
        assert_eq!(limit.ended(start + PERIOD), Some(15));
        assert_eq!((limit.due(), limit.ended(start + 2 * PERIOD)), (None, None));
        assert!(limit.admit(start + 2 * PERIOD), "a new period");
    }

    #[test]
    fn a_source_with_few_lines_is_never_reported() {
        let mut limit = LogLimit::default();
        let mut now = Instant::now();
        for _ in 0..50 {
            assert_eq!(limit.ended(now), None);
            assert!(limit.admit(now));
            assert_eq!(limit.due(), None);
            now += Duration::from_secs(1);
        }
    }
}
