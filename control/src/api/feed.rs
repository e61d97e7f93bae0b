//! Streams of replies to one client that sent one request.

use std::fmt::Debug;
use std::time::Instant;

use serde_json::Value;

use super::Reply;

/// A stream of replies to one client, each sent when there is news. Dropped when the client disconnects.
pub trait Feed: Debug + Send {
    /// The latest time for the next call of [`Feed::next`], if that is known.
    fn due(&self) -> Option<Instant>;

    /// The next reply, if there is one, and true if it is the last.
    fn next(&mut self, now: Instant) -> Option<(Reply, bool)>;

    /// Ends the stream: the replies that are left still come, up to the last.
    fn finish(&mut self, now: Instant);

    /// The state with which another process goes on ([`Handler::go_on`](super::Handler::go_on)); `None` if none can.
    fn hand_over(&self) -> Option<Value> {
        None
    }
}
