//! The keys of a `veth` port: a pair of virtual Ethernet devices, one end for a container.

use labsw_switch::Mac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::types::TypeSettings;
use super::{QueueCount, StationKey, one};
use crate::model::mistake::AtKey;
use crate::model::names;
use crate::model::switch::SwitchConfig;

/// The settings of a `veth` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VethConfig {
    /// The container's end, as it is created.
    #[serde(with = "names::Interface")]
    pub peer: String,
    /// The switch's end; left out: `lsw-` and the name of the port.
    #[serde(default, with = "names::Interface")]
    pub interface: Option<String>,
    /// Named network namespace the container's end is moved into.
    #[serde(default, with = "names::Netns")]
    pub netns: Option<String>,
    /// The name of the container's end in that namespace; left out: as it was created.
    #[serde(default, with = "names::Interface")]
    pub peer_name: Option<String>,
    /// Queues each way, at both ends.
    #[serde(default = "one", with = "QueueCount")]
    pub queues: u16,
    /// The container's end keeps its offloads on, and known unicast may pass in the kernel.
    #[serde(default, skip_serializing_if = "is_no")]
    pub offloads: bool,
    /// MAC address of the container's end; left out: derived from the port's name.
    #[serde(default, with = "StationKey")]
    pub mac: Option<Mac>,
}

impl VethConfig {
    /// Name of the switch's end of this port.
    pub fn interface_of(&self, port: &str) -> String {
        self.interface.clone().unwrap_or_else(|| default_interface(port))
    }
}

impl TypeSettings for VethConfig {
    fn normalise(&mut self, port: &str, _: &SwitchConfig) {
        let VethConfig { peer, interface, peer_name, .. } = self;
        interface.take_if(|name| *name == default_interface(port));
        peer_name.take_if(|name| *name == *peer);
    }

    fn claims(&self, port: &str, _: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        let mut claims = vec![("interface", Claim::here(&self.interface_of(port))), ("peer", Claim::here(&self.peer))];
        if self.netns.is_some() {
            let (key, name) = self.peer_name.as_ref().map_or(("peer", &self.peer), |name| ("peer_name", name));
            claims.push((key, Claim::Interface { name: name.clone(), netns: self.netns.clone() }));
        }
        if self.offloads {
            claims.push(("offloads", Claim::here(&tap_interface(port))));
        }
        claims
    }

    fn check(&self, port: &str) -> Result<(), AtKey<String>> {
        if self.peer_name.is_some() && self.netns.is_none() {
            let wrong = "needs `netns`; without one the end for the container is `peer`";
            return Err(AtKey::value("peer_name", wrong.to_owned()));
        }
        if self.interface_of(port) == self.peer {
            let wrong = format!("both ends would be {:?}; name the switch's end", self.peer);
            return Err(AtKey::value("interface", wrong));
        }
        Ok(())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_no(value: &bool) -> bool {
    !value
}

/// Name of the TAP interface that stands behind the switch's end of veth port `port`, if the port has `offloads`.
pub fn tap_interface(port: &str) -> String {
    default_interface(port).replacen("lsw-", "lst-", 1)
}

/// Name of the switch's end of veth port `port` if the port names none: `lsw-` and the port's name. A name that is too
/// long for an interface is cut, and gets a checksum of the whole name.
pub fn default_interface(port: &str) -> String {
    let whole = format!("lsw-{port}");
    if whole.len() <= names::INTERFACE_NAME_BYTES {
        return whole;
    }
    let start: String = port.chars().take(6).collect();
    // FNV-1a, folded to 16 bits: equal in every run, so that a run recognises leftovers of a killed one.
    let hash = port.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("lsw-{start}.{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
