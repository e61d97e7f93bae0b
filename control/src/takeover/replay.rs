//! Replays that go on with the new process, as data. The file is the client's: it goes on to send frames.

use serde::{Deserialize, Serialize};

use super::counters::PortCounters;
use super::impairment::Stretch;

/// A replay, in the part that only the control thread changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// Its number, by which the client knows it.
    pub number: u64,
    /// The port on which the frames are received.
    pub port: String,
    /// The port's counters when the replay began.
    pub before: PortCounters,
    /// When the first frame was due, on the machine's clock; `None`: there was none yet.
    pub start_ns: Option<u64>,
    /// The frames that the client has given.
    pub given: u64,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// The number of the replay.
    pub number: u64,
    /// The frames that were received on the port.
    pub received: u64,
    /// The frames that are not due yet.
    pub waiting: Stretch,
}
