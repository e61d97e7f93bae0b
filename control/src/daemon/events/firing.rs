//! Guards that fire: told when they begin, and once a minute while they go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use labsw_switch::PortId;

/// How long a guard that goes on firing is silent.
const SILENCE: Duration = Duration::from_secs(60);

/// The counts of guards: by port, drop reason, and `None` for frames that are only reported.
#[derive(Default)]
pub(in crate::daemon) struct Firing {
    counts: BTreeMap<(PortId, Option<&'static str>), Count>,
}

/// The count of one guard.
#[derive(Default)]
struct Count {
    /// The count at the last look.
    seen: u64,
    /// The count at the last event.
    told: u64,
    /// When that was; `None`: it is quiet.
    told_at: Option<Instant>,
}

impl Count {
    /// Takes a new look; how many frames there are to be told.
    fn look(&mut self, count: u64, now: Instant) -> Option<u64> {
        if count < self.seen {
            // Another port has the slot.
            *self = Count::default();
        }
        if count == std::mem::replace(&mut self.seen, count) {
            self.told_at = None;
            return None;
        }
        if self.told_at.is_some_and(|at| now < at + SILENCE) {
            return None;
        }
        self.told_at = Some(now);
        Some(count - std::mem::replace(&mut self.told, count)).filter(|frames| *frames > 0)
    }
}

impl Firing {
    /// Forgets the guards of all ports but these.
    pub(in crate::daemon) fn retain(&mut self, is_there: impl Fn(PortId) -> bool) {
        self.counts.retain(|(id, _), _| is_there(*id));
    }

    /// Takes a look at the count of a guard; the number of frames to tell, if it is to be told.
    pub(in crate::daemon) fn look(
        &mut self,
        port: PortId,
        reason: Option<&'static str>,
        count: u64,
        now: Instant,
    ) -> Option<u64> {
        self.counts.entry((port, reason)).or_default().look(count, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_told_when_it_begins_and_once_a_minute_while_it_goes_on() {
        let mut count = Count::default();
        let begin = Instant::now();
        let mut look = |frames, second| count.look(frames, begin + Duration::from_secs(second));
        assert_eq!(look(0, 0), None);
        assert_eq!(look(5, 1), Some(5));
        assert_eq!((2..60).filter_map(|second| look(5 + second, second)).count(), 0);
        assert_eq!(look(100, 61), Some(95), "a minute later, with all that came meanwhile");
        assert_eq!(look(100, 62), None);
        assert_eq!(look(101, 63), Some(1), "it was quiet for a second");
        assert_eq!(look(7, 64), Some(7), "another port has the slot");
    }
}
