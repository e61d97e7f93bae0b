//! Replies, and the objects in them other than ports, VLANs and mirrors.

use serde::{Deserialize, Serialize, Serializer};

use super::{
    CapturePiece, ConfigChange, Counters, Events, Impairment, Injected, Mirror, Multicast, MulticastTotals, Port,
    RunningCapture, ShownConfig, Trace, VlanRow,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// The impairments, by port and direction.
    pub impairments: Vec<Impairment>,
    /// Counts of multicast snooping.
    pub multicast: MulticastTotals,
    /// How often MAC addresses were seen at another port than before.
    #[serde(default)]
    pub mac_moves: u64,
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

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The change was made.
    Done,
    /// To `GetStatus`.
    Status(Status),
    /// To `ListWorkers`.
    Workers(Vec<Worker>),
    /// To `ListPorts`.
    Ports(Vec<Port>),
    /// To `ShowPort`.
    Port(Box<Port>),
    /// To `ListVlans`.
    Vlans(Vec<VlanRow>),
    /// To `ListFdb`.
    Fdb(Vec<FdbEntry>),
    /// To `ListMulticast`.
    Multicast(Multicast),
    /// To `FlushFdb`: how many entries were removed.
    Removed(u64),
    /// To `ListMirrors`.
    Mirrors(Vec<Mirror>),
    /// To `ShowMirror`.
    Mirror(Box<Mirror>),
    /// To `ListImpairments`.
    Impairments(Vec<Impairment>),
    /// To `Inject`.
    Injected(Injected),
    /// To `GetStats`.
    Stats(Stats),
    /// To `TraceFrame`.
    Trace(Trace),
    /// To `ShowConfig`.
    Config(ShownConfig),
    /// To `CheckConfig`: the devices that ports would wait for, one line each.
    Awaited(Vec<String>),
    /// To `DiffConfig` and `ApplyConfig`: the changes that would be made, or were made.
    Changes(Vec<ConfigChange>),
    /// To `Capture`.
    CapturePiece(CapturePiece),
    /// To `ListCaptures`.
    Captures(Vec<RunningCapture>),
    /// To `Monitor`.
    Events(Events),
}

/// The parameters of the reply message.
impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reply::Done => serializer.collect_map(std::iter::empty::<(&str, ())>()),
            Reply::Status(status) => status.serialize(serializer),
            Reply::Workers(workers) => serializer.collect_map([("workers", workers)]),
            Reply::Ports(ports) => serializer.collect_map([("ports", ports)]),
            Reply::Port(port) => serializer.collect_map([("port", port)]),
            Reply::Vlans(vlans) => serializer.collect_map([("vlans", vlans)]),
            Reply::Fdb(entries) => serializer.collect_map([("entries", entries)]),
            Reply::Multicast(multicast) => multicast.serialize(serializer),
            Reply::Removed(removed) => serializer.collect_map([("removed", removed)]),
            Reply::Mirrors(mirrors) => serializer.collect_map([("mirrors", mirrors)]),
            Reply::Mirror(mirror) => serializer.collect_map([("mirror", mirror)]),
            Reply::Impairments(impairments) => serializer.collect_map([("impairments", impairments)]),
            Reply::Injected(injected) => injected.serialize(serializer),
            Reply::Stats(stats) => stats.serialize(serializer),
            Reply::Trace(trace) => trace.serialize(serializer),
            Reply::Config(config) => config.serialize(serializer),
            Reply::Awaited(lines) => serializer.collect_map([("awaited", lines)]),
            Reply::Changes(changes) => serializer.collect_map([("changes", changes)]),
            Reply::CapturePiece(piece) => piece.serialize(serializer),
            Reply::Captures(captures) => serializer.collect_map([("captures", captures)]),
            Reply::Events(events) => events.serialize(serializer),
        }
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
