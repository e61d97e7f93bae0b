//! The settings of an endpoint, and the state that it reports.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::socket::{Credentials, SocketAccess, SocketError};
use crate::vhost_user::session::RingStatus;
use crate::virtio::memory_limit::MemoryLimit;

/// The side that listens on the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Role {
    /// The switch listens, front ends connect.
    #[default]
    Server,
    /// The front end listens, the switch connects.
    Client,
}

/// The time limits of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The time that a front end has for its first request, for the rest of a request, and to share its memory before
    /// the log explains that memory is missing.
    pub patience: Duration,
    /// The time that a front end has for its first request once another front end has asked for its place.
    pub contested: Duration,
    /// The time between two attempts to connect.
    pub retry: Duration,
    /// The wait before the next front end is served after one was disconnected for a fault; it doubles with each fault.
    pub fault_wait: Duration,
    /// The longest such wait.
    pub longest_fault_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            patience: Duration::from_secs(5),
            contested: Duration::from_millis(500),
            retry: Duration::from_millis(500),
            fault_wait: Duration::from_millis(100),
            longest_fault_wait: Duration::from_secs(60),
        }
    }
}

/// The settings of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The port, for messages.
    pub port_name: String,
    /// The socket.
    pub path: PathBuf,
    /// The side that listens on the socket.
    pub role: Role,
    /// The access to the socket's file, if the switch listens.
    pub access: SocketAccess,
    /// The only user whose processes are served; `None`: any that the socket lets connect.
    pub peer_uid: Option<u32>,
    /// Queue pairs of the port.
    pub queue_pairs: u16,
    /// Checksum and segmentation offloads are offered.
    pub offloads: bool,
    /// MTU of the port, bytes.
    pub mtu: u32,
    /// The time limits.
    pub timing: Timing,
    /// The limit of guest memory that may be mapped.
    pub memory_limit: Arc<MemoryLimit>,
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("port {port}: {source}")]
pub struct EndpointError {
    /// The port.
    pub port: String,
    /// Why.
    pub source: SocketError,
}

/// The state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// No front end, or one that is not ready.
    Waiting,
    /// At least one queue pair runs.
    Up,
    /// The last front end was disconnected for a fault; the next one is served after a wait.
    Failed,
}

/// A port's state for people and scripts.
#[derive(Clone, Debug)]
pub struct EndpointStatus {
    /// The state.
    pub state: EndpointState,
    /// True if a front end is connected.
    pub connected: bool,
    /// The process of the connected front end, if the kernel knows it.
    pub front_end: Option<Credentials>,
    /// Front ends that were refused since the port was added, because the port was in use or belongs to another user.
    pub turned_away: u64,
    /// The time until the next front end is served, after one that was disconnected for a fault.
    pub waits: Option<Duration>,
    /// Why the port is not up, if there is a reason to report.
    pub reason: Option<String>,
    /// Names of the virtio features offered.
    pub features_offered: Vec<&'static str>,
    /// Names of the features that the front end acknowledged.
    pub features_acknowledged: Vec<&'static str>,
    /// Regions of the guest's memory that are mapped.
    pub memory_regions: usize,
    /// Each ring: 2i the guest's receive ring of pair i, 2i+1 its transmit ring.
    pub rings: Vec<RingStatus>,
}
