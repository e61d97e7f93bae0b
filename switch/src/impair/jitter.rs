//! Jitter that keeps the order of frames and has the distribution that was asked for, at any frame rate.
//!
//! Delays drawn for each frame by itself can't have both: as soon as frames are closer together than the jitter, a
//! frame with a short delay must wait for the one before with a long delay, and all delays move to the upper end. So
//! the delay is a function of time, as that of a real queue is: the offset goes straight from one end of ±jitter to
//! the other, turns round, and goes back, each time with a random duration between [`SHORTEST_SWEEP`] and
//! [`LONGEST_SWEEP`] jitters. Along a straight line every offset is equally frequent, so the delays are uniform between
//! delay − jitter and delay + jitter, and the median is the delay. The shortest way down takes twice its height: due
//! times go on at half the speed of arrival at least, and never backwards.
//!
//! After a silence longer than [`LONGEST_SILENCE`] jitters it begins somewhere at random, so frames far apart have
//! delays that are independent of each other.

use super::random::Random;

/// Least duration of a sweep, in jitters; its height is two jitters.
pub const SHORTEST_SWEEP: f64 = 4.0;
/// Most duration of a sweep, in jitters.
pub const LONGEST_SWEEP: f64 = 8.0;
/// After this many jitters without a frame, counted from the end of the last sweep, the next sweep begins at random.
pub const LONGEST_SILENCE: u64 = 16;

/// The jitter of one link.
#[derive(Clone, Debug)]
pub(super) struct Jitter {
    jitter_ns: u64,
    random: Random,
    begin_ns: u64,
    /// 0 at first: before any frame.
    end_ns: u64,
    rising: bool,
}

impl Jitter {
    pub(super) fn new(jitter_ns: u64, random: Random) -> Jitter {
        Jitter { jitter_ns, random, begin_ns: 0, end_ns: 0, rising: false }
    }

    /// Where the random numbers stand, and the sweep: its begin, its end, and true if it rises.
    pub(super) fn progress(&self) -> (u64, (u64, u64, bool)) {
        (self.random.state(), (self.begin_ns, self.end_ns, self.rising))
    }

    /// Goes on where another jitter stood; a sweep that does not end after its begin is left out.
    pub(super) fn go_on(&mut self, random: u64, (begin_ns, end_ns, rising): (u64, u64, bool)) {
        self.random.go_on(random);
        if begin_ns < end_ns {
            (self.begin_ns, self.end_ns, self.rising) = (begin_ns, end_ns, rising);
        }
    }

    /// The offset of a frame at `now_ns`, which never goes backwards: from −jitter to +jitter.
    pub(super) fn offset_ns(&mut self, now_ns: u64) -> i64 {
        let silence = self.jitter_ns.saturating_mul(LONGEST_SILENCE);
        if self.end_ns == 0 || now_ns > self.end_ns.saturating_add(silence) {
            let duration = self.duration();
            self.rising = self.random.next() & 1 == 1;
            self.begin_ns = now_ns.saturating_sub(whole(self.random.unit() * duration));
            self.end_ns = self.begin_ns.saturating_add(whole(duration)).max(now_ns.saturating_add(1));
        }
        while now_ns >= self.end_ns {
            self.begin_ns = self.end_ns;
            self.rising = !self.rising;
            self.end_ns = self.begin_ns.saturating_add(whole(self.duration()));
            if self.end_ns == u64::MAX {
                break;
            }
        }
        let share = exact(now_ns.saturating_sub(self.begin_ns)) / exact(self.end_ns - self.begin_ns);
        let along = (2.0 * share - 1.0) * exact(self.jitter_ns);
        #[allow(clippy::cast_possible_truncation, reason = "at most the jitter, and a cast of floats saturates")]
        let offset = (if self.rising { along } else { -along }).round() as i64;
        offset
    }

    /// Length of the next sweep, ns; at least 4.
    fn duration(&mut self) -> f64 {
        (SHORTEST_SWEEP + self.random.unit() * (LONGEST_SWEEP - SHORTEST_SWEEP)) * exact(self.jitter_ns)
    }
}

#[allow(clippy::cast_precision_loss, reason = "times of a sweep are far below 2^53 ns, which is 104 days")]
fn exact(ns: u64) -> f64 {
    ns as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and a cast of floats saturates")]
fn whole(ns: f64) -> u64 {
    ns as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impair::random;

    /// A pause of some sweeps, and one so long that a new sweep begins at random.
    #[test]
    fn offsets_stay_within_the_jitter_after_pauses_too() {
        for jitter_ns in [10, 1_000, 5_000_000] {
            let (mut jitter, mut steps) = (Jitter::new(jitter_ns, Random::new(3, 5)), Random::new(3, 6));
            let (mut now, mut early, mut late) = (1u64 << 40, 0, 0);
            for step in 0..20_000 {
                let most = if step % 50 == 0 { 3 * LONGEST_SILENCE } else { LONGEST_SILENCE };
                now += random::scaled(steps.next(), jitter_ns * most);
                let offset = jitter.offset_ns(now);
                assert!(offset.unsigned_abs() <= jitter_ns, "{offset} of {jitter_ns}");
                early += u32::from(offset < 0);
                late += u32::from(offset > 0);
            }
            assert!(early > 8000 && late > 8000, "{early} early, {late} late");
        }
        let mut jitter = Jitter::new(1 << 40, Random::new(3, 5));
        // The clock's end is the end of the last sweep.
        let offset = [u64::MAX - (1 << 43), u64::MAX - 1, u64::MAX].map(|now| jitter.offset_ns(now));
        assert!(offset.iter().all(|offset| offset.unsigned_abs() <= 1 << 40));
    }

    #[test]
    fn due_times_go_on_at_half_the_speed_of_arrival_at_least_and_offsets_stay_within_the_jitter() {
        for jitter_ns in [1, 10, 1_000, 5_000_000, 5_000_000_000] {
            let (mut jitter, mut steps) = (Jitter::new(jitter_ns, Random::new(3, 5)), Random::new(3, 6));
            let (mut now, mut due) = (1u64 << 40, 0);
            for _ in 0..100_000 {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
                let step = (steps.unit() * exact(jitter_ns)) as u64;
                now += step;
                let offset = jitter.offset_ns(now);
                assert!(offset.unsigned_abs() <= jitter_ns);
                let next = now.saturating_add_signed(offset);
                // Two roundings.
                assert!(next + 1 >= due + step / 2, "jitter {jitter_ns} ns: due {due}, then {next}, {step} ns later");
                due = next;
            }
        }
    }
}
