//! The keys of a `tap` port: a TAP interface, for the host, a guest or a container.

use labsw_switch::Mac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::types::TypeSettings;
use super::{QueueCount, StationKey, one};
use crate::model::mistake::AtKey;
use crate::model::names;
use crate::model::reader::Reader;
use crate::model::switch::SwitchConfig;
use crate::model::tree::{Path, Tree};

/// The settings of a `tap` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TapConfig {
    /// The interface; left out: the name of the port.
    #[serde(with = "names::Interface")]
    #[schemars(default, extend("default" = null))]
    pub interface: String,
    /// The user of the other end of the interface.
    #[serde(rename = "for", default)]
    pub other_end: TapEnd,
    /// Number of queues, for the host or a container.
    #[serde(default = "one", with = "QueueCount", skip_serializing_if = "is_one")]
    pub queues: u16,
    /// MAC address of the interface, for the host or a container; left out: derived from the port's name.
    #[serde(default, with = "StationKey")]
    pub mac: Option<Mac>,
    /// Named network namespace the interface is moved into, for a container.
    #[serde(default, with = "names::Netns")]
    pub netns: Option<String>,
    /// The name of the interface in that namespace; left out: `interface`.
    #[serde(default, with = "names::Interface")]
    pub peer_name: Option<String>,
    /// User who may open the interface, for a guest; a name or a number.
    #[serde(default, with = "names::Account")]
    pub owner: Option<String>,
    /// Group that may open the interface, for a guest; a name or a number.
    #[serde(default, with = "names::Account")]
    pub group: Option<String>,
}

/// The user of the other end of a TAP interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TapEnd {
    /// The host has the network interface.
    #[default]
    Host,
    /// A guest's hypervisor opens the interface.
    Guest,
    /// A container has the network interface.
    Container,
}

impl TapEnd {
    /// The value of `for`.
    pub fn name(self) -> &'static str {
        match self {
            TapEnd::Host => "host",
            TapEnd::Guest => "guest",
            TapEnd::Container => "container",
        }
    }
}

impl TypeSettings for TapConfig {
    fn fill_in(port: &str, tree: &mut Tree, reader: &mut Reader) {
        if tree.get("interface").is_none() {
            if let Err(wrong) = names::interface(port) {
                let wrong = format!("the port's name is no interface name ({wrong}); set `interface`");
                reader.note(&Path::of(["interface"]), false, wrong);
            }
            tree.set("interface", Tree::text(names::interface(port).map_or("tap", |()| port)));
        }
    }

    fn claims(&self, _: &str, _: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        vec![("interface", Claim::here(&self.interface))]
    }

    fn check(&self, _: &str) -> Result<(), AtKey<String>> {
        let owned = [("owner", self.owner.is_some()), ("group", self.group.is_some())];
        let held = [("queues", self.queues != 1), ("mac", self.mac.is_some())];
        let moved = [("netns", self.netns.is_some()), ("peer_name", self.peer_name.is_some())];
        let (of_guest, of_container) = ("\"guest\"; the host's end needs none", "\"container\"");
        let foreign = match self.other_end {
            TapEnd::Host => [(owned, of_guest), (moved, of_container)],
            TapEnd::Guest => [(held, "\"host\"; a guest's NIC has its own"), (moved, of_container)],
            TapEnd::Container => [(owned, "\"guest\"; a container's end needs none"), ([("", false); 2], "")],
        };
        let given = |(keys, of): ([(&'static str, bool); 2], &'static str)| keys.map(|(key, given)| (key, given, of));
        if let Some((key, _, of)) = foreign.into_iter().flat_map(given).find(|(_, given, _)| *given) {
            return Err(AtKey::key(key, format!("is a key of for = {of}")));
        }
        if self.peer_name.is_some() && self.netns.is_none() {
            let wrong = "needs `netns`; without one the container takes `interface`";
            return Err(AtKey::value("peer_name", wrong.to_owned()));
        }
        Ok(())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_one(number: &u16) -> bool {
    *number == 1
}
