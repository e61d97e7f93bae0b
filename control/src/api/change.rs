//! Changes: the methods that only root and members of the admin group may call, and their parameters.

use labsw_switch::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parameters::{mac, name, optional_vlan, vlan};
use super::{AppliedConfig, InjectFrame, InlineSettings, MirrorSettings, PortDirection, PortType};

/// The requests that change the switch, for peers that may do so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Change {
    /// Adds a port → [`Reply::Done`](super::Reply::Done).
    AddPort {
        /// Name of the new port.
        #[serde(deserialize_with = "name")]
        name: String,
        /// Its type.
        #[serde(rename = "type")]
        port_type: PortType,
        /// Keys and values as in the configuration. A table replaces the whole table, a key with a dot (`vlan.tag`)
        /// sets one value of a table, null unsets a key.
        #[serde(default)]
        settings: Map<String, Value>,
    },
    /// Changes settings of a port → [`Reply::Done`](super::Reply::Done).
    SetPort {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        name: String,
        /// The settings, as for [`Change::AddPort`].
        settings: Map<String, Value>,
        /// Unsets all settings that are not given.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replace: bool,
    },
    /// Removes a port → [`Reply::Done`](super::Reply::Done).
    DeletePort {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// Takes a port down and up again, `count` times → [`Reply::Done`](super::Reply::Done).
    FlapPort {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        name: String,
        /// Milliseconds from one time that the port goes down to the next.
        every_milliseconds: u64,
        /// How often the port goes down.
        count: u32,
    },
    /// Enables or disables a port → [`Reply::Done`](super::Reply::Done).
    SetPortState {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        name: String,
        /// True to let frames pass.
        up: bool,
    },
    /// Adds or replaces a static entry → [`Reply::Done`](super::Reply::Done).
    AddFdb {
        /// VLAN id, 1 to 4094.
        #[serde(deserialize_with = "vlan")]
        vlan: u16,
        /// A unicast address.
        #[serde(with = "mac")]
        mac: Mac,
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        port: String,
    },
    /// Removes an entry, static or learned → [`Reply::Done`](super::Reply::Done).
    DeleteFdb {
        /// VLAN id, 1 to 4094.
        #[serde(deserialize_with = "vlan")]
        vlan: u16,
        /// The address.
        #[serde(with = "mac")]
        mac: Mac,
    },
    /// Removes learned entries → [`Reply::Removed`](super::Reply::Removed).
    FlushFdb {
        /// Only this VLAN.
        #[serde(default, deserialize_with = "optional_vlan", skip_serializing_if = "Option::is_none")]
        vlan: Option<u16>,
        /// Only entries at this port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// Makes a mirror, or changes the given settings of one → [`Reply::Done`](super::Reply::Done).
    SetMirror(MirrorSettings),
    /// Removes a mirror → [`Reply::Done`](super::Reply::Done).
    DeleteMirror {
        /// Name of the mirror.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// Puts a sensor into the wire of a port, or changes the given settings of one →
    /// [`Reply::Done`](super::Reply::Done).
    SetInline(InlineSettings),
    /// Takes a sensor out of the wire of a port → [`Reply::Done`](super::Reply::Done).
    DeleteInline {
        /// Name of the sensor.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// Impairs a port, or changes the given settings of its impairment → [`Reply::Done`](super::Reply::Done).
    SetImpairment {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        port: String,
        /// Keys and values as in the configuration. A direction that the settings do not name stays as it is; a profile
        /// replaces all former settings.
        settings: Map<String, Value>,
        /// Unsets all settings of the direction that are not given.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replace: bool,
    },
    /// Ends the impairment of a port → [`Reply::Done`](super::Reply::Done).
    ClearImpairment {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        port: String,
        /// Only in this direction.
        #[serde(skip_serializing_if = "Option::is_none")]
        direction: Option<PortDirection>,
    },
    /// Injects frames as received on a port → [`Reply::Injected`](super::Reply::Injected).
    Inject {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        port: String,
        /// The injection that the frames belong to; none: a new one.
        #[serde(skip_serializing_if = "Option::is_none")]
        injection: Option<u64>,
        /// For a new injection: one that runs, and from whose first frame the times of this one are counted, too.
        #[serde(skip_serializing_if = "Option::is_none")]
        beside: Option<u64>,
        /// The frames.
        #[serde(default)]
        frames: Vec<InjectFrame>,
        /// True to end the injection; waiting frames are dropped.
        #[serde(default)]
        end: bool,
    },
    /// Applies a configuration, as a whole or not at all → [`Reply::Changes`](super::Reply::Changes).
    ApplyConfig(AppliedConfig),
    /// Keeps the configuration that waits for its confirmation → [`Reply::Done`](super::Reply::Done).
    ConfirmConfig,
    /// Takes back the configuration that waits for its confirmation → [`Reply::Changes`](super::Reply::Changes).
    RevertConfig,
    /// Pins a receive queue to this worker until the port goes → [`Reply::Done`](super::Reply::Done).
    PinQueue {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        port: String,
        /// Number of the queue at the port, from 0.
        queue: u32,
        /// Number of the worker.
        worker: u32,
    },
}
