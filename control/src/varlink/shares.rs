//! The time of the control thread that the calls of one user may take, so that a user's clients do not hold up those of
//! others.
//!
//! **How it works.** Between two [`Shares::begin`] each user has [`SHARE`], however many clients they have. A client
//! whose user has used it up waits for the next round, which serves clients from the one on that was turned away first.
//!
//! **Invariant.** A call that has begun is finished. So a client waits no longer than a share and a call of each other
//! user, and than the rounds that the other clients of its own user take.

use std::time::{Duration, Instant};

/// The time that a user's calls may take in a round.
pub(super) const SHARE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// The users that were served in this round, with the time that their calls have taken.
    used: Vec<(u32, Duration)>,
    /// The place of the client that was turned away first.
    turned_away: Option<usize>,
}

impl Shares {
    /// Begins a round; returns the place of the client that comes first.
    pub(super) fn begin(&mut self) -> usize {
        self.used.clear();
        self.turned_away.take().unwrap_or_default()
    }

    /// The time that is left for the user of the client at `place`; `None`: it has to wait.
    pub(super) fn left(&mut self, user: u32, place: usize) -> Option<Duration> {
        let used = self.used.iter().find(|(known, _)| *known == user).map_or(Duration::ZERO, |(_, used)| *used);
        let left = SHARE.checked_sub(used).filter(|left| !left.is_zero());
        if left.is_none() {
            self.turned_away.get_or_insert(place);
        }
        left
    }

    /// Counts the time since `began` to a user.
    pub(super) fn charge(&mut self, user: u32, began: Instant) {
        let took = began.elapsed();
        match self.used.iter_mut().find(|(known, _)| *known == user) {
            Some((_, used)) => *used += took,
            None => self.used.push((user, took)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_has_used_up_the_share_waits_and_others_do_not() {
        let mut shares = Shares::default();
        assert_eq!((shares.begin(), shares.left(1000, 7)), (0, Some(SHARE)));
        shares.charge(1000, Instant::now().checked_sub(SHARE).unwrap());
        assert_eq!(shares.left(1000, 9), None);
        assert_eq!(shares.left(1000, 3), None);
        assert_eq!(shares.left(0, 4), Some(SHARE));
        assert_eq!((shares.begin(), shares.left(1000, 9)), (9, Some(SHARE)), "who waits comes first");
        assert_eq!(shares.begin(), 0);
    }
}
