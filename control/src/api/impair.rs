//! Impairments, as replies show them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::ImpairSettings;
use crate::model::de::keys;

/// A direction of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortDirection {
    /// Frames from the port.
    #[default]
    Rx,
    /// Frames to the port.
    Tx,
}

impl PortDirection {
    /// Both directions.
    pub const ALL: [PortDirection; 2] = [PortDirection::Rx, PortDirection::Tx];

    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            PortDirection::Rx => "rx",
            PortDirection::Tx => "tx",
        }
    }
}

impl fmt::Display for PortDirection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// The impairment of one direction of a port. Settings are written as in the configuration, and left out if they are
/// not set. The counters start at 0 when the impairment is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Name of the port.
    pub port: String,
    /// The direction of the impaired frames, from the port or to it.
    pub direction: PortDirection,
    /// The profile that the settings began with.
    pub profile: Option<String>,
    /// The frames that are impaired, in tcpdump's syntax; null: all.
    pub filter: Option<String>,
    /// The settings, of the profile and the impairment together; the seed is the one in use, given or random.
    #[serde(flatten)]
    pub settings: ImpairSettings,
    /// Frames that the impairment was applied to.
    pub frames: u64,
    /// Frames that were delayed.
    pub delayed: u64,
    /// Frames lost by `loss`, `gemodel`, `outage` or `lose_segment`.
    pub lost: u64,
    /// Frames that were duplicated.
    pub duplicated: u64,
    /// Frames that passed with a wrong bit.
    pub corrupted: u64,
    /// Frames that overtook others.
    pub reordered: u64,
    /// Frames that found the queue of `rate` full.
    pub queue_full: u64,
}

impl Impairment {
    /// The settings that are set, by name; without the seed.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let set = serde_json::to_value(self.settings).unwrap_or_default();
        let text = |key: &'static str| match &set[key] {
            Value::Null => None,
            Value::String(text) => Some((key, text.clone())),
            number => Some((key, number.to_string())),
        };
        let keys = keys::<ImpairSettings>().iter().copied().filter(|key| *key != "seed");
        keys.filter_map(text).chain(self.filter.clone().map(|filter| ("filter", filter))).collect()
    }
}
