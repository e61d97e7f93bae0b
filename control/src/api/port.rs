//! Ports, as replies show them.

use std::collections::BTreeMap;
use std::fmt;

use labsw_dataplane::stats::PortSnapshot;
use labsw_switch::DropReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Guards, InlineState, PortDirection, Vlan};

pub use crate::model::{PortType, XdpMode};

/// The state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Frames pass.
    Up,
    /// Disabled by the administrator, without carrier, or without a connection; the reason says which.
    Down,
    /// Without fault, but the other end is not there yet.
    Waiting,
    /// Out of service until the cause is mended; the reason says what it is.
    Failed,
    /// A port of the configuration file that is still to be opened, or is being opened.
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

/// The role of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortRole {
    /// `vhost_user`: the switch listens on the socket.
    Server,
    /// `vhost_user`: the guest's hypervisor listens on the socket.
    Client,
    /// `tap`: the host has the other end.
    Host,
    /// `tap`: a guest's hypervisor opens the interface.
    Guest,
    /// `tap`: a container has the other end.
    Container,
}

impl fmt::Display for PortRole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            PortRole::Server => "server",
            PortRole::Client => "client",
            PortRole::Host => "host",
            PortRole::Guest => "guest",
            PortRole::Container => "container",
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
    /// Frames that the port took.
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames dropped, by reason; every reason is listed, also with 0 frames.
    pub drops: BTreeMap<String, u64>,
    /// `af_xdp`, `veth`: the kernel's counters at the port's sockets, by the kernel's names. Frames that the kernel
    /// dropped never reached the switch, so no other counter has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel: BTreeMap<String, u64>,
}

impl Counters {
    /// The sum of all drops.
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

/// A port: the fields of all types, then those of some types (left out of the JSON where they do not apply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub port_type: PortType,
    /// The state of the port.
    pub state: PortState,
    /// Why the port is not up, in one clause.
    pub reason: Option<String>,
    /// Every setting, by the names and with the values of the configuration. Some stand in fields of their own, too, as
    /// they are in force: the queues in use, the XDP mode granted.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// VLAN settings.
    pub vlan: Vlan,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// How link-local protocol frames are handled: `transparent` or `drop`.
    pub link_local: String,
    /// True if the port takes mirrored frames and nothing else.
    pub mirror_only: bool,
    /// True if the port may be a source or the destination of mirrors.
    pub allow_mirror: bool,
    /// True if frames to the port are finished, whatever its guest accepts; left out: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finish_checksums: bool,
    /// The guards of the port; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guards: Option<Guards>,
    /// The directions in which the port is impaired; left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impaired: Vec<PortDirection>,
    /// The mirrors that have the port as a source or as their destination; left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// The worker that serves each receive queue, in the order of the queues; left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u32>,
    /// The sensor that the port has to do with; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<PortInline>,
    /// Number of addresses learned at the port; left out: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stations: u64,
    /// The frames that passed which the port keeps; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<PortRewind>,
    /// `af_xdp`: the device as configured; `veth`: the switch's end; `tap`: the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `af_xdp`, `veth`: the mode that the kernel has granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<XdpMode>,
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
    /// `vhost_user`, `tap`: the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PortRole>,
    /// `vhost_user`: names of the negotiated virtio features; empty without a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// `vhost_user`: number of queue pairs offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_pairs: Option<u32>,
    /// `vhost_user`: true if a guest is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// `vhost_user`: the connected process, if the kernel knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_end: Option<FrontEnd>,
    /// `vhost_user`: front ends refused since the port was added, because the port was in use or belongs to another
    /// user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned_away: Option<u64>,
    /// `vhost_user`: mapped regions of the guest's memory; more after memory was plugged in.
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
    /// `veth` with `offloads`: `on` if known unicast passes in the kernel, or `off: ` and why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_path: Option<String>,
    /// `af_xdp`: what somebody else had changed on the device and the switch put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_right: Option<PutRight>,
    /// The job that takes the port down and up, while one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
}

/// A setting of a device that somebody else changed while a port had it, and that was put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutRight {
    /// The setting.
    pub what: String,
    /// How often.
    pub times: u32,
    /// How long ago it was done last.
    pub seconds_ago: u64,
}

/// A sensor, at a port that has to do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInline {
    /// Name of the sensor.
    pub name: String,
    /// The way of the frames of the port in whose wire it is.
    pub state: InlineState,
    /// Why they do not go through it, in one clause.
    pub reason: Option<String>,
}

/// The process at the other end of a guest's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontEnd {
    /// The process id; 0 for a process of another PID namespace.
    pub pid: u32,
    /// The process's user id.
    pub uid: u32,
}

/// A port that flaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flap {
    /// Milliseconds from one time that the port goes down to the next.
    pub every_milliseconds: u64,
    /// How often the port still comes up.
    pub left: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The memory of a port for frames that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRewind {
    /// The memory that it may use, in bytes.
    pub bytes: u64,
    /// The memory in use, in bytes.
    pub used_bytes: u64,
    /// The age of the oldest frame; `None`: there is none yet.
    pub oldest_seconds_ago: Option<u64>,
    /// Frames for which there was no room.
    pub missed_frames: u64,
}

impl Port {
    /// A port with the fields of all types only: up, no counters, MTU 1500, link-local frames pass.
    pub fn new(name: impl Into<String>, port_type: PortType, vlan: Vlan) -> Port {
        Port {
            name: name.into(),
            port_type,
            state: PortState::Up,
            reason: None,
            settings: Map::new(),
            vlan,
            counters: Counters::default(),
            mtu: 1500,
            link_local: "transparent".to_owned(),
            mirror_only: false,
            allow_mirror: true,
            finish_checksums: false,
            guards: None,
            impaired: Vec::new(),
            mirrors: Vec::new(),
            workers: Vec::new(),
            inline: None,
            stations: 0,
            rewind: None,
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
            fast_path: None,
            put_right: None,
            flap: None,
        }
    }
}
