//! Replies: one type for each form, and the objects in them other than ports, VLANs and mirrors.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    CapturePiece, ConfigChange, Counters, Events, Impairment, Injected, Inline, Inlines, Mirror, Multicast,
    MulticastTotals, OneInline, Port, RunningCapture, ShownConfig, Trace, Unconfirmed, VlanRow,
};

/// A polling worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Number of the worker, from 0.
    pub id: u32,
    /// The CPU that the worker is pinned to; null: not pinned.
    pub cpu: Option<u32>,
    /// Share of the last second spent on frames, 0 to 100.
    pub busy_percent: f64,
    /// Mean number of frames in a burst, without empty bursts, over the last second.
    pub frames_per_burst: f64,
    /// True if the worker is blocked at this moment, waiting for frames.
    pub asleep: bool,
    /// Share of the last second that the worker was blocked, 0 to 100.
    pub asleep_percent: f64,
    /// The receive queues that the worker serves, by port.
    pub queues: Vec<WorkerQueue>,
}

/// A receive queue of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerQueue {
    /// Name of the port.
    pub port: String,
    /// Number of the queue at the port, from 0.
    pub queue: u32,
    /// True if the queue was pinned to its worker by hand.
    pub pinned: bool,
}

/// The switch at a glance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Milliseconds since the daemon started, so that rates are exact whenever the answer arrives.
    pub uptime_milliseconds: u64,
    /// `adaptive` or `performance`.
    pub power: String,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The ports, by name.
    pub ports: Vec<Port>,
    /// The mirrors, by name.
    pub mirrors: Vec<Mirror>,
    /// The sensors in the wires of ports, by name; left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlines: Vec<Inline>,
    /// The impairments, by port and direction.
    pub impairments: Vec<Impairment>,
    /// Counts of multicast snooping.
    pub multicast: MulticastTotals,
    /// How often MAC addresses were seen at another port than before.
    #[serde(default)]
    pub mac_moves: u64,
    /// The configuration that waits for its confirmation, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Unconfirmed>,
}

/// An entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// VLAN id.
    pub vlan: u16,
    /// MAC address, six hexadecimal bytes with colons.
    pub mac: String,
    /// Name of the port that the address is at.
    pub port: String,
    /// True if the entry was added by hand and stays.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// True if the address was learned at a sticky port, where it stays; left out: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sticky: bool,
    /// True if frames between this address and others of which this is true pass in the kernel; left out: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fast_path: bool,
    /// Seconds since the address was last seen as a source; 0 for a static entry.
    pub age_seconds: u64,
}

/// The counters of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Name of the port.
    pub name: String,
    /// The port's counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Counters, and the time when they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since the daemon started, so that rates are exact whenever the answer arrives.
    pub uptime_milliseconds: u64,
    /// The counters, by port.
    pub ports: Vec<PortStats>,
}

/// The reply to a change that returns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The reply to `ListWorkers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// The workers, by number.
    pub workers: Vec<Worker>,
}

/// The reply to `ListPorts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The ports, by name.
    pub ports: Vec<Port>,
}

/// The reply to `ShowPort`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnePort {
    /// The port.
    pub port: Box<Port>,
}

/// The reply to `ListVlans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlans {
    /// The VLANs that ports name, in ascending order.
    pub vlans: Vec<VlanRow>,
}

/// The reply to `ListFdb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntries {
    /// The entries of the forwarding database.
    pub entries: Vec<FdbEntry>,
}

/// The reply to `FlushFdb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The number of entries that were removed.
    pub removed: u64,
}

/// The reply to `ListMirrors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirrors {
    /// The mirrors, by name.
    pub mirrors: Vec<Mirror>,
}

/// The reply to `ShowMirror`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneMirror {
    /// The mirror.
    pub mirror: Box<Mirror>,
}

/// The reply to `ListImpairments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairments {
    /// The impairments, by port and direction.
    pub impairments: Vec<Impairment>,
}

/// The reply to `CheckConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The devices that ports would wait for, one line each.
    pub awaited: Vec<String>,
}

/// The reply to `DiffConfig`, `ApplyConfig` and `RevertConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The changes that would be made, or were made.
    pub changes: Vec<ConfigChange>,
}

/// The reply to `ListCaptures`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captures {
    /// The captures that run.
    pub captures: Vec<RunningCapture>,
}

/// The reply to a request that was carried out: a variant for each form of reply.
///
/// serde reads a variant by the name of the method that was called, and writes every variant as the `parameters` of the
/// reply message. So this enum is the one place that says which method has which reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To a change that returns nothing.
    #[serde(
        rename(serialize = "parameters", deserialize = "AddPort"),
        alias = "SetPort",
        alias = "DeletePort",
        alias = "FlapPort",
        alias = "SetPortState",
        alias = "AddFdb",
        alias = "DeleteFdb",
        alias = "SetMirror",
        alias = "DeleteMirror",
        alias = "SetInline",
        alias = "DeleteInline",
        alias = "SetImpairment",
        alias = "ClearImpairment",
        alias = "PinQueue",
        alias = "ConfirmConfig"
    )]
    Done(Done),
    /// To `GetStatus`.
    #[serde(rename(serialize = "parameters", deserialize = "GetStatus"))]
    Status(Status),
    /// To `ListWorkers`.
    #[serde(rename(serialize = "parameters", deserialize = "ListWorkers"))]
    Workers(Workers),
    /// To `ListPorts`.
    #[serde(rename(serialize = "parameters", deserialize = "ListPorts"))]
    Ports(Ports),
    /// To `ShowPort`.
    #[serde(rename(serialize = "parameters", deserialize = "ShowPort"))]
    Port(OnePort),
    /// To `ListVlans`.
    #[serde(rename(serialize = "parameters", deserialize = "ListVlans"))]
    Vlans(Vlans),
    /// To `ListFdb`.
    #[serde(rename(serialize = "parameters", deserialize = "ListFdb"))]
    Fdb(FdbEntries),
    /// To `ListMulticast`.
    #[serde(rename(serialize = "parameters", deserialize = "ListMulticast"))]
    Multicast(Multicast),
    /// To `FlushFdb`.
    #[serde(rename(serialize = "parameters", deserialize = "FlushFdb"))]
    Removed(Removed),
    /// To `ListMirrors`.
    #[serde(rename(serialize = "parameters", deserialize = "ListMirrors"))]
    Mirrors(Mirrors),
    /// To `ShowMirror`.
    #[serde(rename(serialize = "parameters", deserialize = "ShowMirror"))]
    Mirror(OneMirror),
    /// To `ListInlines`.
    #[serde(rename(serialize = "parameters", deserialize = "ListInlines"))]
    Inlines(Inlines),
    /// To `ShowInline`.
    #[serde(rename(serialize = "parameters", deserialize = "ShowInline"))]
    Inline(OneInline),
    /// To `ListImpairments`.
    #[serde(rename(serialize = "parameters", deserialize = "ListImpairments"))]
    Impairments(Impairments),
    /// To `Inject`.
    #[serde(rename(serialize = "parameters", deserialize = "Inject"))]
    Injected(Injected),
    /// To `GetStats`.
    #[serde(rename(serialize = "parameters", deserialize = "GetStats"))]
    Stats(Stats),
    /// To `TraceFrame`.
    #[serde(rename(serialize = "parameters", deserialize = "TraceFrame"))]
    Trace(Trace),
    /// To `ShowConfig`.
    #[serde(rename(serialize = "parameters", deserialize = "ShowConfig"))]
    Config(ShownConfig),
    /// To `CheckConfig`.
    #[serde(rename(serialize = "parameters", deserialize = "CheckConfig"))]
    Awaited(Awaited),
    /// To `DiffConfig`, `ApplyConfig` and `RevertConfig`.
    #[serde(
        rename(serialize = "parameters", deserialize = "DiffConfig"),
        alias = "ApplyConfig",
        alias = "RevertConfig"
    )]
    Changes(Changes),
    /// To `Capture`.
    #[serde(rename(serialize = "parameters", deserialize = "Capture"))]
    CapturePiece(CapturePiece),
    /// To `ListCaptures`.
    #[serde(rename(serialize = "parameters", deserialize = "ListCaptures"))]
    Captures(Captures),
    /// To `Monitor`.
    #[serde(rename(serialize = "parameters", deserialize = "Monitor"))]
    Events(Events),
}

impl Reply {
    /// Reads the parameters of the reply to `method`.
    ///
    /// # Errors
    /// [`UnexpectedReply`] if the parameters do not have the form of this method's reply.
    pub fn parse(method: &'static str, parameters: Map<String, Value>) -> Result<Reply, UnexpectedReply> {
        let reply = Map::from_iter([(method.to_owned(), Value::Object(parameters))]);
        Reply::deserialize(Value::Object(reply)).map_err(|error| UnexpectedReply { method, reason: error.to_string() })
    }
}

/// The other end answered in a form that the method does not have.
#[derive(Debug, thiserror::Error)]
#[error("the answer to {method} is not of the expected form: {reason}")]
pub struct UnexpectedReply {
    /// Name of the method.
    pub method: &'static str,
    /// The message of the JSON reader.
    pub reason: String,
}
