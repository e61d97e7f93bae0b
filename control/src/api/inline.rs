//! Sensors in the wires of ports, as requests set them and replies show them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parameters::name;
use crate::model::OnFailure;

/// The settings of an inline sensor that a request changes: keys of its table, and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InlineSettings {
    /// Name of the sensor.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The port in whose wire the sensor is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The sensor's two ports: on the side of that port, and on the side of the switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<Vec<String>>,
    /// The treatment of frames while the sensor lets none pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Unset all settings that are not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

impl InlineSettings {
    /// The given keys of the table.
    pub fn to_keys(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut keys)) = serde_json::to_value(self) else { return Map::new() };
        keys.retain(|key, _| key != "name" && key != "replace");
        keys
    }
}

/// The way of the frames of a port with a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InlineState {
    /// Through the sensor.
    Through,
    /// Past the sensor, which lets no frames pass.
    Bypassed,
    /// Nowhere: the sensor lets no frames pass.
    Closed,
}

impl InlineState {
    /// All states.
    pub const ALL: [InlineState; 3] = [InlineState::Through, InlineState::Bypassed, InlineState::Closed];
}

impl fmt::Display for InlineState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            InlineState::Through => "through",
            InlineState::Bypassed => "bypassed",
            InlineState::Closed => "closed",
        })
    }
}

/// A sensor in the wire of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inline {
    /// Name.
    pub name: String,
    /// The way of the port's frames.
    pub state: InlineState,
    /// Why they do not go through the sensor, in one clause.
    pub reason: Option<String>,
    /// The port in whose wire the sensor is.
    pub of: String,
    /// The sensor's two ports: on the side of that port, and on the side of the switch.
    pub through: Vec<String>,
    /// The treatment of frames while the sensor lets none pass.
    pub on_failure: OnFailure,
}

/// The reply to `ListInlines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inlines {
    /// The sensors, by name.
    pub inlines: Vec<Inline>,
}

/// The reply to `ShowInline`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneInline {
    /// The sensor.
    pub inline: Box<Inline>,
}
