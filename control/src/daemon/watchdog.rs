//! The service manager's watchdog: `WATCHDOG=1` while the switch is alive.
//!
//! **How it works.** With `WatchdogSec=` in the unit, systemd expects a message at least that often, and restarts the
//! service if none comes. The control thread sends one at half that time, if every worker has made progress since the
//! last message or sleeps for want of frames ([`Pulse::beats_since`]). Otherwise the control thread looks again after a
//! quarter of that half. A worker that was only starved of its CPU, or was waking at that moment, thus costs nothing; a
//! worker that hangs ends the messages. A control thread that hangs sends none either. Before a
//! take-over, which may take seconds, the control thread sends a message early.
//!
//! A worker stuck in a guest's doorbell does not reach the time limit: it is freed within two seconds
//! ([`labsw_dataplane::watchdog`]).
//!
//! Reference: sd_watchdog_enabled(3), systemd.service(5) `WatchdogSec=`.

use std::time::{Duration, Instant};

use labsw_dataplane::workers::load::Pulse;

/// When a message is due, and the progress of the workers at the last one.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Duration,
    due: Instant,
    seen: Vec<Pulse>,
    /// A warning about a worker without progress was logged.
    warned: bool,
}

impl Watchdog {
    /// The watchdog that the service manager asks for (`WATCHDOG_USEC`); `None` if it asks for none.
    pub(super) fn from_environment(now: Instant, workers: Vec<Pulse>) -> Option<Watchdog> {
        let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())?;
        Some(Watchdog::new(patience, now, workers))
    }

    /// A watchdog for a service manager that wants a message within `patience`.
    pub(super) fn new(patience: Duration, now: Instant, workers: Vec<Pulse>) -> Watchdog {
        let every = patience / 2;
        Watchdog { every, due: now + every, seen: workers, warned: false }
    }

    /// The time within which the service manager wants a message.
    pub(super) fn patience(&self) -> Duration {
        2 * self.every
    }

    /// True if a message is to be sent `now`, given the progress of the workers.
    pub(super) fn beat(&mut self, now: Instant, workers: &[Pulse]) -> bool {
        if now < self.due {
            return false;
        }
        let stuck = workers.iter().zip(&self.seen).position(|(now, seen)| !now.beats_since(seen));
        match stuck {
            None => {
                self.due = now + self.every;
                self.seen = workers.to_vec();
                self.warned = false;
            }
            Some(worker) => {
                self.due = now + self.every / 4;
                if !self.warned {
                    tracing::error!(worker, "makes no progress; the service manager is not told that all is well");
                }
                self.warned = true;
            }
        }
        stuck.is_none()
    }

    /// True if a message may be sent early, before work that may take long: that work then has the full time.
    pub(super) fn beat_early(&mut self, now: Instant, workers: &[Pulse]) -> bool {
        let all = workers.iter().zip(&self.seen).all(|(now, seen)| now.beats_since(seen));
        if all {
            self.due = now + self.every;
            self.seen = workers.to_vec();
        }
        all
    }

    /// Time from `now` until the next call.
    pub(super) fn due_in(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use labsw_dataplane::workers::load::LoadSnapshot;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn awake(busy_ns: u64) -> Pulse {
        Pulse { load: LoadSnapshot { busy_ns, ..LoadSnapshot::default() }, ..Pulse::default() }
    }

    fn asleep() -> Pulse {
        Pulse { asleep: true, ..awake(1) }
    }

    #[test]
    fn told_at_half_the_time_while_all_workers_move_or_sleep() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(10 * SECOND, start, vec![awake(1), asleep()]);
        assert_eq!(watchdog.due_in(start), 5 * SECOND);
        assert!(!watchdog.beat(start + 4 * SECOND, &[awake(2), asleep()]), "not yet");
        assert!(watchdog.beat(start + 5 * SECOND, &[awake(2), asleep()]));
        assert!(!watchdog.beat(start + 6 * SECOND, &[awake(3), asleep()]));
        // Late, as after a long step: the next is due half the time from then.
        assert!(watchdog.beat(start + 13 * SECOND, &[awake(3), asleep()]));
        assert_eq!(watchdog.due_in(start + 13 * SECOND), 5 * SECOND);
        assert_eq!(watchdog.due_in(start + 30 * SECOND), Duration::ZERO);
    }

    #[test]
    fn told_early_unless_a_worker_has_not_moved() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(10 * SECOND, start, vec![awake(1)]);
        assert!(!watchdog.beat_early(start + SECOND, &[awake(1)]), "it may hang, or be in its turn");
        assert_eq!(watchdog.due_in(start + SECOND), 4 * SECOND, "as before");
        assert!(watchdog.beat_early(start + SECOND, &[awake(2)]));
        assert_eq!(watchdog.due_in(start + SECOND), 5 * SECOND);
        // What was said early can't be said again.
        assert!(!watchdog.beat(start + 6 * SECOND, &[awake(2)]));
    }

    #[test]
    fn a_worker_that_hangs_silences_it_and_one_that_goes_on_in_time_does_not() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(8 * SECOND, start, vec![awake(1), awake(1)]);
        assert!(!watchdog.beat(start + 4 * SECOND, &[awake(2), awake(1)]));
        assert_eq!(watchdog.due_in(start + 4 * SECOND), SECOND, "looked at again before the service manager acts");
        // It is compared with how it was at the last message, not with the last look.
        assert!(watchdog.beat(start + 5 * SECOND, &[awake(2), awake(2)]));
        for seconds in 9..100 {
            assert!(!watchdog.beat(start + seconds * SECOND, &[awake(seconds.into()), awake(2)]), "{seconds}");
        }
    }
}
