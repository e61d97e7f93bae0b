//! Sensors in the wires of ports that go on with the new process, as data.

use serde::{Deserialize, Serialize};

/// The state of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorRecord {
    /// The key of its probes.
    pub key: u64,
    /// The directions in which probes come through, a bit for each.
    pub alive: usize,
    /// The port's frames go through it.
    pub through: bool,
}
