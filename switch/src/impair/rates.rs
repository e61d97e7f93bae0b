//! The rate of a slow link: constant, or in steps that follow one another from the start of the impairment.
//!
//! **How it works.** The steps repeat, unless the last one goes on for ever. When a frame has left is worked out, not
//! waited for: whole rounds of steps are skipped with a division, the rest is walked through. So the work for a frame
//! is bounded by the number of steps ([`MAX_RATE_STEPS`]), however long it takes to leave.
//!
//! Work is counted in nanobits: bits times nanoseconds per second. A rate of one bit per second does one nanobit in a
//! nanosecond.

/// Most steps of a rate.
pub const MAX_RATE_STEPS: usize = 16;
/// Shortest step, ns: a millisecond.
pub const MIN_RATE_STEP_NS: u64 = 1_000_000;
/// Longest step, ns: a day.
pub const MAX_RATE_STEP_NS: u64 = 86_400_000_000_000;

/// A rate, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStep {
    /// Bits per second; a frame counts from behind its Ethernet header (of 14 bytes) to its end.
    pub bits_per_second: u64,
    /// How long, ns; [`RateStep::FOR_EVER`] in the last step only.
    pub lasts_ns: u64,
}

impl RateStep {
    /// To the end of the impairment.
    pub const FOR_EVER: u64 = u64::MAX;
}

/// The rates of a link, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Those behind `count` are all alike.
    steps: [RateStep; MAX_RATE_STEPS],
    count: u8,
}

impl Rates {
    /// One rate for ever.
    pub const fn constant(bits_per_second: u64) -> Rates {
        let unused = RateStep { bits_per_second: 0, lasts_ns: 0 };
        let mut steps = [unused; MAX_RATE_STEPS];
        steps[0] = RateStep { bits_per_second, lasts_ns: RateStep::FOR_EVER };
        Rates { steps, count: 1 }
    }

    /// These rates, in this order. `None` if there are none, or too many.
    pub fn new(list: &[RateStep]) -> Option<Rates> {
        let Rates { mut steps, .. } = Rates::constant(0);
        let count = u8::try_from(list.len()).ok().filter(|count| *count > 0)?;
        steps.get_mut(..list.len())?.copy_from_slice(list);
        Some(Rates { steps, count })
    }

    /// The steps, at least one.
    pub fn steps(&self) -> &[RateStep] {
        self.steps.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// True if every step lasts as long as it may.
    pub(super) fn last_as_they_may(&self) -> bool {
        let may = |step: &RateStep| (MIN_RATE_STEP_NS..=MAX_RATE_STEP_NS).contains(&step.lasts_ns);
        self.steps()
            .split_last()
            .is_some_and(|(last, before)| before.iter().all(may) && (may(last) || last.lasts_ns == RateStep::FOR_EVER))
    }

    /// The time that `nanobits` take from `begin_ns` after the start on, ns, and the nanobits left for less than one.
    pub(super) fn time(&self, begin_ns: u64, mut nanobits: u128) -> (u64, u64) {
        let steps = self.steps();
        let ends = steps.last().is_some_and(|last| last.lasts_ns == RateStep::FOR_EVER);
        let (mut at_ns, mut took_ns) = (begin_ns, 0u64);
        if !ends {
            let round_ns: u64 = steps.iter().map(|step| step.lasts_ns).sum::<u64>().max(1);
            let round: u128 = steps.iter().map(RateStep::nanobits).sum::<u128>().max(1);
            at_ns %= round_ns;
            took_ns = u64::try_from(nanobits / round).unwrap_or(u64::MAX).saturating_mul(round_ns);
            nanobits %= round;
        }
        // Once from the step at `at_ns` to the last, and, as less than a round is left, at most once to that step
        // again.
        for step in steps.iter().chain(steps) {
            if at_ns >= step.lasts_ns {
                at_ns -= step.lasts_ns;
                continue;
            }
            let (rate, left_ns) = (u128::from(step.bits_per_second.max(1)), step.lasts_ns - at_ns);
            let in_step_ns = u64::try_from(nanobits / rate).unwrap_or(u64::MAX);
            if in_step_ns < left_ns || step.lasts_ns == RateStep::FOR_EVER {
                let carry = u64::try_from(nanobits % rate).unwrap_or(0);
                return (took_ns.saturating_add(in_step_ns), carry);
            }
            nanobits -= u128::from(left_ns) * rate;
            (took_ns, at_ns) = (took_ns.saturating_add(left_ns), 0);
        }
        (took_ns, 0)
    }
}

impl RateStep {
    fn nanobits(&self) -> u128 {
        u128::from(self.bits_per_second) * u128::from(self.lasts_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(bits_per_second: u64, lasts_ns: u64) -> RateStep {
        RateStep { bits_per_second, lasts_ns }
    }

    /// Nanosecond by nanosecond.
    fn slowly(rates: &Rates, begin_ns: u64, mut nanobits: u128) -> (u64, u64) {
        let rate_at = |mut at_ns: u64| {
            for step in rates.steps().iter().cycle() {
                match at_ns.checked_sub(step.lasts_ns) {
                    Some(left_ns) => at_ns = left_ns,
                    None => return u128::from(step.bits_per_second),
                }
            }
            unreachable!("a cycle has no end")
        };
        let mut took_ns = 0;
        while let Some(left) = nanobits.checked_sub(rate_at(begin_ns + took_ns)) {
            (nanobits, took_ns) = (left, took_ns + 1);
        }
        (took_ns, u64::try_from(nanobits).unwrap())
    }

    proptest! {
        #[test]
        fn the_time_is_that_of_every_nanosecond_by_itself(
            steps in proptest::collection::vec((1..50u64, 1..20u64), 1..6),
            for_ever in any::<bool>(),
            begin_ns in 0..300u64,
            nanobits in 0..10_000u128,
        ) {
            let mut steps: Vec<_> = steps.into_iter().map(|(rate, ns)| step(rate, ns)).collect();
            if for_ever {
                steps.last_mut().unwrap().lasts_ns = RateStep::FOR_EVER;
            }
            let rates = Rates::new(&steps).unwrap();
            prop_assert_eq!(rates.time(begin_ns, nanobits), slowly(&rates, begin_ns, nanobits));
        }

        #[test]
        fn any_numbers_do_no_harm(
            steps in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..MAX_RATE_STEPS),
            begin_ns in any::<u64>(),
            nanobits in any::<u64>(),
        ) {
            let steps: Vec<_> = steps.into_iter().map(|(rate, ns)| step(rate, ns)).collect();
            let rates = Rates::new(&steps).unwrap();
            if rates.last_as_they_may() {
                rates.time(begin_ns, u128::from(nanobits) << 2);
            }
        }
    }

    #[test]
    fn there_is_a_bound_to_steps_and_to_their_times() {
        let good = step(1_000_000, MIN_RATE_STEP_NS);
        assert_eq!(Rates::new(&[]), None);
        assert_eq!(Rates::new(&[good; MAX_RATE_STEPS + 1]), None);
        let may = |steps: &[RateStep]| Rates::new(steps).unwrap().last_as_they_may();
        let for_ever = step(1_000_000, RateStep::FOR_EVER);
        assert!(may(&[good; MAX_RATE_STEPS]) && may(&[good, for_ever]) && !may(&[for_ever, good]));
        for ns in [0, MIN_RATE_STEP_NS - 1, MAX_RATE_STEP_NS + 1] {
            assert!(!may(&[good, step(1_000_000, ns)]) && !may(&[step(1_000_000, ns), good]), "{ns}");
        }
        // The longest frame on the slowest link that there can be, in steps of a day.
        let slow = Rates::new(&[step(8000, MAX_RATE_STEP_NS); MAX_RATE_STEPS]).unwrap();
        let work = u128::from(u32::MAX) * 8_000_000_000;
        assert_eq!(slow.time(u64::MAX, work).0, u64::try_from(work / 8000).unwrap());
    }
}
