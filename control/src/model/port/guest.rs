//! The keys of a `vhost_user` port: a guest's virtio-net device.

use std::path::PathBuf;

pub use labsw_dataplane::vhost_user::Role as VhostRole;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::claim::Claim;
use super::types::{PortKind, TypeSettings};
use super::{one, yes};
use crate::model::mistake::AtKey;
use crate::model::schema::{self, Words};
use crate::model::switch::{PermissionBits, SwitchConfig};
use crate::model::{names, value};

/// The highest user id; the next number means "no user" to the kernel.
const UID_MAX: u32 = u32::MAX - 1;
/// Most queue pairs that a guest's port can have.
const QUEUE_PAIRS_MAX: u32 = 8;

/// The settings of a `vhost_user` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VhostUserConfig {
    /// The side that listens on the socket: the switch (`server`) or the guest's hypervisor (`client`).
    #[serde(default)]
    #[schemars(with = "Words<VhostRole>")]
    pub role: VhostRole,
    /// The socket; left out: `NAME.sock` in `switch.vhost_user_dir`.
    #[serde(default, with = "names::Socket")]
    pub socket: Option<PathBuf>,
    /// Pairs of a receive and a transmit ring, at most 8.
    #[serde(default = "one", with = "QueuePairs")]
    pub queue_pairs: u16,
    /// Checksum and segmentation offloads are offered to the guest.
    #[serde(default = "yes")]
    pub offloads: bool,
    /// User who owns the socket's file, by name or number; left out: the daemon's.
    #[serde(default, with = "names::Account")]
    pub owner: Option<String>,
    /// Group of the socket's file, by name or number; left out: `switch.socket_group`.
    #[serde(default, with = "names::Account")]
    pub group: Option<String>,
    /// Permission bits of the socket's file, in octal; left out: `switch.socket_mode`.
    #[serde(default, with = "PermissionBits")]
    pub mode: Option<u32>,
    /// The only user whose processes are served; left out: any that can open the socket.
    #[serde(default, with = "User")]
    pub peer_uid: Option<u32>,
}

value::numbers! {
    /// A key that holds a number of queue pairs.
    QueuePairs, "a number of queue pairs", 1..=QUEUE_PAIRS_MAX;
    /// A key that holds a user's number.
    User, "a user's number", 0..=UID_MAX;
}

impl Default for VhostUserConfig {
    fn default() -> VhostUserConfig {
        VhostUserConfig {
            role: VhostRole::Server,
            socket: None,
            queue_pairs: 1,
            offloads: true,
            owner: None,
            group: None,
            mode: None,
            peer_uid: None,
        }
    }
}

impl Default for PortKind {
    /// A guest's port, which needs no settings.
    fn default() -> PortKind {
        PortKind::VhostUser(VhostUserConfig::default())
    }
}

impl VhostUserConfig {
    /// Path of the socket of this port.
    pub fn socket_of(&self, port: &str, switch: &SwitchConfig) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| switch.default_socket(port))
    }
}

impl TypeSettings for VhostUserConfig {
    fn normalise(&mut self, port: &str, switch: &SwitchConfig) {
        self.socket.take_if(|path| *path == switch.default_socket(port));
    }

    fn claims(&self, port: &str, switch: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        vec![("socket", Claim::Socket(self.socket_of(port, switch)))]
    }

    fn check(&self, _: &str) -> Result<(), AtKey<String>> {
        let of_file = [("owner", self.owner.is_some()), ("group", self.group.is_some()), ("mode", self.mode.is_some())];
        match of_file.into_iter().find(|(_, given)| *given && self.role == VhostRole::Client) {
            Some((key, _)) => {
                Err(AtKey::key(key, "is a key of role = \"server\"; the front end makes this socket".to_owned()))
            }
            None => Ok(()),
        }
    }
}
