//! Exponential back-off: after repeated failures, the waits between attempts grow.
//!
//! The first wait is short, each further one twice as long as the one before, up to a limit. A quiet while after a wait
//! (no failure for as long as the longest wait) makes the next wait short again. Time is an argument.

use std::time::{Duration, Instant};

/// How long to wait after a failure, and until when.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The wait after the next failure, if it comes before a quiet while.
    next: Duration,
    /// The end of the last wait.
    until: Option<Instant>,
}

impl Backoff {
    /// A back-off that waits for `first` after the first failure, and never longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, next: first, until: None }
    }

    /// Records a failure at `now` and returns when the wait for the next attempt ends.
    pub fn failed(&mut self, now: Instant) -> Instant {
        if !self.is_fresh(now) {
            self.next = self.first;
        }
        let until = now + self.next;
        self.next = (2 * self.next).min(self.longest);
        self.until = Some(until);
        until
    }

    /// True if the last failure is so recent that a further one makes the wait longer.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until + self.longest)
    }

    /// When the wait ends; `None`: there is nothing to wait for at `now`.
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// Forgets all failures.
    pub fn clear(&mut self) {
        (self.next, self.until) = (self.first, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut now = Instant::now();
        assert_eq!(backoff.waits_until(now), None);
        let mut expected = FIRST;
        for _ in 0..15 {
            let until = backoff.failed(now);
            assert_eq!(until - now, expected);
            assert_eq!(backoff.waits_until(now), Some(until));
            assert_eq!(backoff.waits_until(until), None);
            now = until + Duration::from_secs(1);
            expected = (2 * expected).min(LONGEST);
        }
        assert_eq!(expected, LONGEST);
    }

    #[test]
    fn a_quiet_while_or_a_word_makes_the_next_wait_short_again() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let now = Instant::now();
        let until = backoff.failed(now);
        // Not quite quiet for long enough.
        let now = until + LONGEST - Duration::from_millis(1);
        let until = backoff.failed(now);
        assert_eq!(until - now, 2 * FIRST);
        let now = until + LONGEST;
        assert_eq!(backoff.failed(now) - now, FIRST);
        backoff.clear();
        assert_eq!(backoff.waits_until(now), None);
        assert_eq!(backoff.failed(now) - now, FIRST);
    }
}
