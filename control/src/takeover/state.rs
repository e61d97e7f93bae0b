//! The state that is handed over, as data, and the messages around it.
//!
//! Ports, mirrors and drop reasons are identified by name: ids may differ between the two processes, and versions may
//! have other reasons. A field that is added later has a default, so that a state without it can be read.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labsw_dataplane::handover::{HandoverError, Slot};
use labsw_dataplane::xdp::{MemoryHandover, PoolPorts, PoolState, XdpCounters};
use labsw_switch::fdb::FdbEntry;
use labsw_switch::{Mac, Vid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::capture::{InterfaceCounts, KeptCaptured};
use super::client::ClientRecord;
use super::counters::{MirrorCounters, PortCounters};
use super::impairment::{ImpairRecord, InjectRecord};
use super::multicast::MulticastRecord;
use super::replay::{ReplayProgress, ReplayRecord};
use super::sensor::SensorRecord;
use super::timed::{FlapRecord, TrialRecord};

/// The oldest version of the format whose reader can read a frame of this one, unless the
/// [message](Message::oldest_reader) needs a newer one.
pub const OLDEST_READER: u32 = 1;

/// One message of the protocol.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Message {
    /// The new process asks for the switch.
    Hello {
        /// Its version.
        program: String,
    },
    /// Either side refuses to go on.
    Refused {
        /// One line for people.
        reason: String,
    },
    /// The running configuration, and the one that the switch was last given, as texts.
    Welcome {
        /// The running configuration.
        config: String,
        /// The configuration last given; the difference was made at run time.
        given: String,
        /// The program file that the running process was started from.
        #[serde(default)]
        program_file: Option<String>,
        /// The control group of the service, if a service manager supervises the running process.
        #[serde(default)]
        service: Option<String>,
    },
    /// The new process was started from the same program file: there is nothing to take over.
    SameProgram,
    /// The new process is ready for the state.
    Prepare,
    /// The state that does not change any more, or is updated by [`Last`].
    State(Box<State>),
    /// The new process is ready to go on.
    Ready,
    /// The last changes; the old workers stand still.
    Last(Box<Last>),
    /// The new process has taken the last changes, too.
    Prepared,
    /// The switch belongs to the new process.
    Go,
    /// The new workers run.
    Running,
    /// State that the new process can have while its workers run already.
    Rest(Box<Rest>),
    /// The state of a port, kept for the case of a crash.
    Kept(Box<KeptPort>),
    /// The state that was kept before this message is out of date.
    Stale,
}

impl Message {
    /// The name of the message.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "hello",
            Message::Refused { .. } => "refused",
            Message::Welcome { .. } => "welcome",
            Message::SameProgram => "same program",
            Message::Prepare => "prepare",
            Message::State(_) => "state",
            Message::Ready => "ready",
            Message::Last(_) => "last",
            Message::Prepared => "prepared",
            Message::Go => "go",
            Message::Running => "running",
            Message::Rest(_) => "rest",
            Message::Kept(_) => "kept",
            Message::Stale => "stale",
        }
    }

    /// The oldest version whose reader can go on with the message: a reader leaves out fields that it does not know.
    pub fn oldest_reader(&self) -> u32 {
        match self {
            Message::State(state) => state.oldest_reader(),
            Message::Rest(_) => 2,
            _ => OLDEST_READER,
        }
    }
}

/// The state of the switch while its workers run.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The running configuration, as a text.
    pub config: String,
    /// The listening control socket.
    pub control: Slot,
    /// The listening socket for take-overs.
    pub take_over: Slot,
    /// The listening socket for metrics.
    pub metrics: Option<Slot>,
    /// Packet memory, if a port uses it.
    #[serde(default)]
    pub memory: Option<MemoryHandover>,
    /// The ports.
    pub ports: BTreeMap<String, PortState>,
    /// The forwarding database.
    pub fdb: Vec<FdbRecord>,
    /// The time within which the service manager wants a sign of life, microseconds.
    #[serde(default)]
    pub watchdog_us: Option<u64>,
    /// Clients of the control socket that go on.
    #[serde(default)]
    pub clients: Vec<ClientRecord>,
    /// The knowledge of multicast snooping, if it has a table.
    #[serde(default)]
    pub multicast: Option<MulticastRecord>,
    /// The configuration on trial.
    #[serde(default)]
    pub trial: Option<TrialRecord>,
    /// The sensors in the wires of ports, by name.
    #[serde(default)]
    pub sensors: BTreeMap<String, SensorRecord>,
    /// The replays that run.
    #[serde(default)]
    pub replays: Vec<ReplayRecord>,
}

impl State {
    /// The oldest version whose readers leave nothing of it out.
    fn oldest_reader(&self) -> u32 {
        let of_port = |port: &PortState| port.impaired || port.injects || port.flap.is_some();
        if !self.sensors.is_empty() || !self.replays.is_empty() {
            4
        } else if self.multicast.is_some() || self.trial.is_some() || self.ports.values().any(of_port) {
            3
        } else if self.clients.iter().any(ClientRecord::has_feed) {
            2
        } else {
            OLDEST_READER
        }
    }
}

/// One port.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PortState {
    /// The port is enabled.
    pub enabled: bool,
    /// The workers that the port's queues are pinned to.
    pub pins: Vec<Option<usize>>,
    /// Its impairment goes on.
    #[serde(default)]
    pub impaired: bool,
    /// The port is the destination of a mirror with `inject`, whose state goes on.
    #[serde(default)]
    pub injects: bool,
    /// Its flapping.
    #[serde(default)]
    pub flap: Option<FlapRecord>,
    /// The port's attachment; `None` while the port waits for it.
    pub attached: Option<PortHandover>,
}

/// The state of a port that is kept for the case of a crash.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptPort {
    /// The settings that the port had, as a text.
    pub settings: String,
    /// The port.
    pub port: PortState,
}

/// The attachment of a port: the name of its type, and the state that only the type's own file reads and writes.
#[derive(Debug, Serialize, Deserialize)]
pub struct PortHandover(BTreeMap<String, Value>);

impl PortHandover {
    /// The state of an attachment of this type. `None` if the state can't be written, which no type here allows.
    pub fn new(port_type: &str, state: &impl Serialize) -> Option<PortHandover> {
        Some(PortHandover([(port_type.to_owned(), serde_json::to_value(state).ok()?)].into()))
    }

    /// Reads the state of an attachment of this type.
    ///
    /// # Errors
    /// The state is of another type, or garbled.
    pub fn read<T: DeserializeOwned>(mut self, port_type: &str) -> Result<T, HandoverError> {
        let state = self.0.remove(port_type);
        let state =
            state.ok_or_else(|| HandoverError::new("the state that was handed over is not of the port's type"))?;
        T::deserialize(state).map_err(|error| HandoverError::new(format!("the state of the port is garbled: {error}")))
    }
}

/// The changes since [`State`], and all counters.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Last {
    /// Counters of ports, by name.
    pub counters: BTreeMap<String, PortCounters>,
    /// Counters of mirror sessions, by name.
    pub mirrors: BTreeMap<String, MirrorCounters>,
    /// Who has which chunk of packet memory.
    #[serde(default)]
    pub memory: Option<PoolRecord>,
    /// The kernel's counts of sockets of ports that are closed.
    #[serde(default)]
    pub kernel_before: BTreeMap<String, XdpCounters>,
    /// Copies of mirrors that wait for room, by port.
    #[serde(default)]
    pub backlogs: BTreeMap<String, Vec<KeptFrame>>,
    /// Addresses that the forwarding database has forgotten.
    pub forgotten: Vec<(u16, u64)>,
    /// New entries, and entries that moved to another port.
    pub learned: Vec<FdbRecord>,
    /// The counts of captures, by number, for each interface.
    #[serde(default)]
    pub captures: Vec<(u64, Vec<InterfaceCounts>)>,
    /// Impairments, by port.
    #[serde(default)]
    pub impairments: BTreeMap<String, ImpairRecord>,
    /// The sensors in the wires of ports, by name.
    #[serde(default)]
    pub sensors: BTreeMap<String, SensorRecord>,
    /// How far each replay is.
    #[serde(default)]
    pub replays: Vec<ReplayProgress>,
    /// The file of the frames that impairments delay, of the copies that gates know, and of the frames of replays.
    #[serde(default)]
    pub delayed: Option<Slot>,
    /// The gates of mirrors that inject, by destination.
    #[serde(default)]
    pub gates: BTreeMap<String, InjectRecord>,
    /// The news of multicast snooping.
    #[serde(default)]
    pub multicast: Option<MulticastRecord>,
}

/// State that the new process can have while its workers run already.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Rest {
    /// Captured frames that wait to be sent to the client, by the number of the capture.
    #[serde(default)]
    pub captures: Vec<(u64, Vec<KeptCaptured>)>,
}

/// A frame that waits in a backlog.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFrame {
    /// The worker that kept it.
    worker: usize,
    /// The frame in base64.
    frame: String,
}

impl KeptFrame {
    /// A list of these frames.
    pub fn list(frames: Vec<(usize, Vec<u8>)>) -> Vec<KeptFrame> {
        frames.into_iter().map(|(worker, frame)| KeptFrame { worker, frame: STANDARD.encode(frame) }).collect()
    }

    /// The worker and the frame; `None` if the base64 is invalid.
    pub fn bytes(&self) -> Option<(usize, Vec<u8>)> {
        Some((self.worker, STANDARD.decode(&self.frame).ok()?))
    }
}

/// Who has which chunk of packet memory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// In base64: two bytes a chunk, little-endian. As numbers they would take milliseconds in which no worker runs.
    owners: String,
    ports: PoolPorts,
}

impl From<PoolState> for PoolRecord {
    fn from(PoolState { owners, ports }: PoolState) -> PoolRecord {
        let bytes: Vec<u8> = owners.into_iter().flat_map(u16::to_le_bytes).collect();
        PoolRecord { owners: STANDARD.encode(bytes), ports }
    }
}

impl PoolRecord {
    /// The state; `None`: it is garbled.
    pub fn state(&self) -> Option<PoolState> {
        let bytes = STANDARD.decode(&self.owners).ok()?;
        let (owners, rest) = bytes.as_chunks();
        let owners = owners.iter().map(|owner| u16::from_le_bytes(*owner)).collect();
        rest.is_empty().then(|| PoolState { owners, ports: self.ports.clone() })
    }
}

/// One entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRecord {
    /// VLAN.
    pub vid: u16,
    /// Address, in the form of [`Mac::to_u64`].
    pub mac: u64,
    /// Name of the port.
    pub port: String,
    /// The entry was added by hand.
    pub is_static: bool,
    /// Seconds since the address was last seen.
    pub age: u32,
}

impl FdbRecord {
    /// The record of an entry at the port of this name.
    pub fn new(entry: &FdbEntry, port: &str) -> FdbRecord {
        let &FdbEntry { vid, mac, is_static, age_seconds, .. } = entry;
        FdbRecord { vid: vid.get(), mac: mac.to_u64(), port: port.to_owned(), is_static, age: age_seconds }
    }

    /// The entry's key in the database; `None` if the VLAN id is invalid.
    pub fn key(&self) -> Option<(Vid, Mac)> {
        Some((Vid::try_from(self.vid).ok()?, Mac::from_u64(self.mac)))
    }
}

#[cfg(test)]
mod tests;
