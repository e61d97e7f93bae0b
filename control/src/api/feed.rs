//! Replies that come by themselves, to one client that asked for them once.

use std::fmt::Debug;
use std::time::Instant;

use super::Reply;

/// Replies that come when there is something to say, to one client. Dropped when the client goes.
pub trait Feed: Debug + Send {
    /// When to ask for the next one at the latest, if that is known.
    fn due(&self) -> Option<Instant>;

    /// The next reply, if there is one, and whether it is the last.
    fn next(&mut self, now: Instant) -> Option<(Reply, bool)>;

    /// Nothing new is wanted: what is left is to come, up to the last.
    fn finish(&mut self, now: Instant);
}
