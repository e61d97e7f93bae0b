//! Changes: the methods that only root and members of the admin group may call, and their parameters.

use labsw_switch::Mac;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ConfigText, Inject, InjectFrame, PortDirection, PortType, Source};

/// The requests that change the switch, for peers that may do so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a port → [`Reply::Done`](super::Reply::Done).
    AddPort {
        /// Name of the new port.
        name: String,
        /// Its type.
        port_type: PortType,
        /// Keys and values as in the configuration. A table replaces the whole table, a key with a dot (`vlan.tag`) sets
        /// one value of it, null makes a key one that was never set.
        settings: Map<String, Value>,
    },
    /// Changes settings of a port → [`Reply::Done`](super::Reply::Done).
    SetPort {
        /// Name of the port.
        name: String,
        /// As for [`Change::AddPort`].
        settings: Map<String, Value>,
    },
    /// Removes a port → [`Reply::Done`](super::Reply::Done).
    DeletePort {
        /// Name of the port.
        name: String,
    },
    /// Has a port go down and up again, so many times → [`Reply::Done`](super::Reply::Done).
    FlapPort {
        /// Name of the port.
        name: String,
        /// From one time it goes down to the next.
        every_milliseconds: u64,
        /// How many times it goes down.
        count: u32,
    },
    /// Switches a port on or off → [`Reply::Done`](super::Reply::Done).
    SetPortState {
        /// Name of the port.
        name: String,
        /// Whether frames shall pass.
        up: bool,
    },
    /// Adds or replaces a static entry → [`Reply::Done`](super::Reply::Done).
    AddFdb {
        /// VLAN id, 1 to 4094.
        vlan: u16,
        /// A unicast address.
        mac: Mac,
        /// Name of the port.
        port: String,
    },
    /// Removes an entry, static or learned → [`Reply::Done`](super::Reply::Done).
    DeleteFdb {
        /// VLAN id, 1 to 4094.
        vlan: u16,
        /// The address.
        mac: Mac,
    },
    /// Removes learned entries → [`Reply::Removed`](super::Reply::Removed).
    FlushFdb {
        /// Only this VLAN.
        vlan: Option<u16>,
        /// Only entries at this port.
        port: Option<String>,
    },
    /// Makes or replaces a mirror → [`Reply::Done`](super::Reply::Done).
    SetMirror {
        /// Name of the mirror.
        name: String,
        /// What to copy; not empty.
        sources: Vec<Source>,
        /// Only these VLANs; empty: all.
        vlans: Vec<u16>,
        /// Only frames that this expression selects; `None`: all.
        filter: Option<String>,
        /// Bytes copied of each frame; 0: all.
        snaplen: u32,
        /// Name of the destination port.
        to: Option<String>,
        /// The VLAN that copies go to; this or `to`.
        to_vlan: Option<u16>,
        /// Take the VLAN even if it is the one of untagged frames of a port.
        force: bool,
        /// What that port may inject.
        inject: Option<Inject>,
    },
    /// Removes a mirror → [`Reply::Done`](super::Reply::Done).
    DeleteMirror {
        /// Name of the mirror.
        name: String,
    },
    /// Sets or replaces the impairment of a port → [`Reply::Done`](super::Reply::Done).
    SetImpairment {
        /// Name of the port.
        port: String,
        /// Keys and values as in the configuration.
        settings: Map<String, Value>,
    },
    /// Ends the impairment of a port → [`Reply::Done`](super::Reply::Done).
    ClearImpairment {
        /// Name of the port.
        port: String,
        /// Only in this direction.
        direction: Option<PortDirection>,
    },
    /// Has a port receive frames → [`Reply::Injected`](super::Reply::Injected).
    Inject {
        /// Name of the port.
        port: String,
        /// The injection they belong to; none: a new one.
        injection: Option<u64>,
        /// The frames.
        frames: Vec<InjectFrame>,
        /// Whether the injection is over; frames that wait are dropped.
        end: bool,
    },
    /// Applies a configuration, as a whole or not at all → [`Reply::Changes`](super::Reply::Changes).
    ApplyConfig {
        /// The configuration.
        config: ConfigText,
        /// What was changed at run time stays.
        keep_runtime: bool,
    },
    /// Has a receive queue served by this worker until the port goes → [`Reply::Done`](super::Reply::Done).
    PinQueue {
        /// Name of the port.
        port: String,
        /// Number of the queue at the port, from 0.
        queue: u32,
        /// Number of the worker.
        worker: u32,
    },
}

impl Change {
    /// Name of the method, without the interface.
    pub fn method(&self) -> &'static str {
        match self {
            Change::AddPort { .. } => "AddPort",
            Change::SetPort { .. } => "SetPort",
            Change::DeletePort { .. } => "DeletePort",
            Change::SetPortState { .. } => "SetPortState",
            Change::FlapPort { .. } => "FlapPort",
            Change::AddFdb { .. } => "AddFdb",
            Change::DeleteFdb { .. } => "DeleteFdb",
            Change::FlushFdb { .. } => "FlushFdb",
            Change::SetMirror { .. } => "SetMirror",
            Change::DeleteMirror { .. } => "DeleteMirror",
            Change::SetImpairment { .. } => "SetImpairment",
            Change::ClearImpairment { .. } => "ClearImpairment",
            Change::Inject { .. } => "Inject",
            Change::PinQueue { .. } => "PinQueue",
            Change::ApplyConfig { .. } => "ApplyConfig",
        }
    }

    /// The parameters, as they travel.
    pub(super) fn to_parameters(&self) -> Value {
        match self {
            Change::AddPort { name, port_type, settings } => {
                json!({"name": name, "type": port_type.name(), "settings": settings})
            }
            Change::SetPort { name, settings } => json!({"name": name, "settings": settings}),
            Change::DeletePort { name } | Change::DeleteMirror { name } => json!({"name": name}),
            Change::SetImpairment { port, settings } => json!({"port": port, "settings": settings}),
            Change::ClearImpairment { port, direction } => without_nulls(json!({"port": port, "direction": direction})),
            Change::Inject { port, injection, frames, end } => {
                without_nulls(json!({"port": port, "injection": injection, "frames": frames, "end": end}))
            }
            Change::PinQueue { port, queue, worker } => json!({"port": port, "queue": queue, "worker": worker}),
            Change::ApplyConfig { config, keep_runtime } => config_parameters(config, *keep_runtime),
            Change::SetPortState { name, up } => json!({"name": name, "up": up}),
            Change::FlapPort { name, every_milliseconds, count } => {
                json!({"name": name, "every_milliseconds": every_milliseconds, "count": count})
            }
            Change::AddFdb { vlan, mac, port } => json!({"vlan": vlan, "mac": mac.to_string(), "port": port}),
            Change::DeleteFdb { vlan, mac } => json!({"vlan": vlan, "mac": mac.to_string()}),
            Change::FlushFdb { vlan, port } => without_nulls(json!({"vlan": vlan, "port": port})),
            Change::SetMirror { name, sources, vlans, filter, snaplen, to, to_vlan, force, inject } => {
                let sources: Vec<String> = sources.iter().map(Source::to_string).collect();
                let fixed = without_nulls(json!({
                    "name": name, "sources": sources, "vlans": vlans, "filter": filter, "snaplen": snaplen, "to": to,
                    "to_vlan": to_vlan, "force": force.then_some(true)
                }));
                with(fixed, "inject", inject.as_ref())
            }
        }
    }
}

/// An object with one more field, if it has a value.
pub(super) fn with<T: Serialize>(mut object: Value, key: &str, value: Option<&T>) -> Value {
    if let (Value::Object(fields), Some(value)) = (&mut object, value) {
        fields.insert(key.to_owned(), json!(value));
    }
    object
}

pub(super) fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

pub(super) fn config_parameters(config: &ConfigText, keep_runtime: bool) -> Value {
    json!({"file": config.file, "text": config.text, "keep_runtime": keep_runtime})
}
