//! Ports as they are shown.

use std::collections::BTreeMap;
use std::fmt;

use labsw_dataplane::stats::PortSnapshot;
use labsw_switch::DropReason;
use serde::{Deserialize, Serialize};

use super::{Guards, Vlan};

pub use crate::model::PortType;

/// What a port is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Frames pass.
    Up,
    /// Switched off by the administrator, without carrier, or nobody is connected; the reason says which.
    Down,
    /// In order, but the other end is not there yet.
    Waiting,
    /// Out of service until something is mended; the reason says what.
    Failed,
    /// A port of the configuration file whose turn to be opened has not come yet, or is now.
    Opening,
}

impl fmt::Display for PortState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            PortState::Up => "up",
            PortState::Down => "down",
            PortState::Waiting => "waiting",
            PortState::Failed => "failed",
            PortState::Opening => "opening",
        })
    }
}

/// Frames and bytes of a port since it was added. `rx` is from the port into the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames received from the port, dropped ones included.
    pub rx_frames: u64,
    /// Bytes of those frames.
    pub rx_bytes: u64,
    /// Frames the port took.
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames dropped, by reason; every reason is there, also those never seen.
    pub drops: BTreeMap<String, u64>,
    /// `af_xdp`, `veth`: what the kernel counted at the port's sockets, by its own names. Frames that it dropped never
    /// were the switch's, so they are in no other counter.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel: BTreeMap<String, u64>,
}

impl Counters {
    /// All drops together.
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

impl From<&PortSnapshot> for Counters {
    fn from(snapshot: &PortSnapshot) -> Counters {
        let drops = DropReason::ALL.iter().zip(snapshot.drops);
        Counters {
            rx_frames: snapshot.rx_frames,
            rx_bytes: snapshot.rx_bytes,
            tx_frames: snapshot.tx_frames,
            tx_bytes: snapshot.tx_bytes,
            drops: drops.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            kernel: BTreeMap::new(),
        }
    }
}

/// A port: what all types have, then what only some have (left out of the JSON where it does not apply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub port_type: PortType,
    /// What it is doing.
    pub state: PortState,
    /// Why it is waiting or failed, one clause.
    pub reason: Option<String>,
    /// VLAN settings.
    pub vlan: Vlan,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// What happens to link-local protocol frames: `transparent` or `drop`.
    pub link_local: String,
    /// Whether the port only sends mirrored frames.
    pub mirror_only: bool,
    /// Whether the port may be a source of mirrors, or their destination.
    pub allow_mirror: bool,
    /// What the port guards; left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guards: Option<Guards>,
    /// `af_xdp`: the device as configured; `veth`: the switch's end; `tap`: the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `af_xdp`, `veth`: `zero_copy`, `copy` or `skb`, as the kernel granted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<String>,
    /// `af_xdp`, `veth`: why this mode and no faster one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode_reason: Option<String>,
    /// `af_xdp`: `effective`, `ineffective: ` and why, or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_poll: Option<String>,
    /// `af_xdp`, `veth`, `tap`: number of queues in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
    /// `vhost_user`: path of the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// `vhost_user`: `server` or `client`; `tap`: who has the other end, `host` or `guest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `vhost_user`: names of the negotiated virtio features; empty while nobody is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// `vhost_user`: number of queue pairs offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_pairs: Option<u32>,
    /// `vhost_user`: whether a guest is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// `vhost_user`: the process that is connected, if the kernel knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_end: Option<FrontEnd>,
    /// `vhost_user`: front ends that were turned away since the port was added, because it was in use or not theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_away: Option<u64>,
    /// `vhost_user`: regions of the guest's memory that are mapped; more after memory was plugged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_regions: Option<u32>,
    /// Name of the host's network interface behind the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `veth`: name of the container's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// `veth`: namespace of the container's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// It goes down and up by itself, for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
}

/// The process that has a guest's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontEnd {
    /// Process; 0: one of another PID namespace.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// A port that flaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flap {
    /// From one time it goes down to the next.
    pub every_milliseconds: u64,
    /// How many times it still comes up.
    pub left: u32,
}

impl Port {
    /// A port that has only what all types have: up, no counters, MTU 1500, link-local frames pass.
    pub fn new(name: impl Into<String>, port_type: PortType, vlan: Vlan) -> Port {
        Port {
            name: name.into(),
            port_type,
            state: PortState::Up,
            reason: None,
            vlan,
            counters: Counters::default(),
            mtu: 1500,
            link_local: "transparent".to_owned(),
            mirror_only: false,
            allow_mirror: true,
            guards: None,
            device: None,
            xdp_mode: None,
            xdp_mode_reason: None,
            busy_poll: None,
            queues: None,
            socket: None,
            role: None,
            features: None,
            queue_pairs: None,
            connected: None,
            front_end: None,
            turned_away: None,
            memory_regions: None,
            interface: None,
            peer: None,
            netns: None,
            flap: None,
        }
    }
}
