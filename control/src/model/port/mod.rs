//! Ports: the `[ports.NAME]` tables, with the keys of all types and the keys of each type.
//!
//! A port is read in three parts, each a struct: the keys that every port has ([`PortConfig`]), those of its type
//! ([`PortKind`]), and its guards ([`Guards`]). `types` has the table of all types; `config::claims` checks what two
//! ports cannot share.

use std::sync::LazyLock;

use labsw_switch::Mac;
use labsw_switch::guard::GuardSpec;
use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::PortVlan;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::de::keys;
use super::guards::Guards;
use super::names::Station;
use super::reader::Reader;
use super::rewind::Kept;
use super::schema::Words;
use super::switch::SwitchConfig;
use super::tree::Tree;
use super::{schema, to_table, value, vlan};

mod claim;
mod guest;
mod nic;
mod tap;
mod types;
mod veth;

pub use claim::Claim;
pub use types::*;

/// Smallest MTU of a port, in bytes: every IPv4 host must take it (RFC 791).
pub const MTU_MIN: u32 = 68;
/// Largest MTU of a port, in bytes: the usual limit of jumbo frames.
pub const MTU_MAX: u32 = 9216;
/// MTU of a port that sets none, in bytes.
pub const MTU_DEFAULT: u32 = 1500;
/// Most receive queues that a port can ask for.
const QUEUES_MAX: u32 = 64;

/// One port: the keys of every type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// The name of the port, unique in the switch.
    #[serde(skip)]
    pub name: String,
    /// The type of the port, with the settings of that type.
    #[serde(skip)]
    pub kind: PortKind,
    /// The VLANs of the port; left out: all for a device of the host, `switch.default_vlan` for every other type.
    #[serde(default, with = "vlan::Membership")]
    #[schemars(extend("default" = null))]
    pub vlan: PortVlan,
    /// Largest frame, in bytes, without Ethernet header, tags and FCS.
    #[serde(default = "default_mtu", with = "Mtu")]
    pub mtu: u32,
    /// Frames to 01-80-C2-00-00-0X (STP, LLDP, 802.1X and the like) are flooded, or dropped.
    #[serde(default)]
    #[schemars(with = "Words<LinkLocal>")]
    pub link_local: LinkLocal,
    /// The port takes mirrored frames and nothing else.
    #[serde(default)]
    pub mirror_only: bool,
    /// The port may be a source or the destination of mirrors; left out: as `switch.allow_mirror` says.
    #[serde(default = "yes")]
    #[schemars(extend("default" = null))]
    pub allow_mirror: bool,
    /// Memory for the frames that passed, as in `"64MiB"`, or `"off"`; left out: as `switch.rewind` says.
    #[serde(default, with = "Kept")]
    #[schemars(extend("default" = null))]
    pub rewind: Option<u64>,
    /// Frames to the port have finished checksums and are cut, even if its guest accepts to do that.
    #[serde(default)]
    pub finish_checksums: bool,
    /// The guards of the port.
    #[serde(skip)]
    pub guards: GuardSpec,
}

/// The key for the type of a port.
#[derive(Deserialize)]
struct TypeKey {
    #[serde(rename = "type")]
    port_type: PortType,
}

impl PortConfig {
    /// The keys of ports of any type, without `type`.
    pub fn keys() -> Vec<&'static str> {
        let of_types = PortType::ALL.iter().flat_map(|port_type| port_type.keys());
        keys::<PortConfig>().iter().chain(keys::<Guards>()).chain(of_types).copied().collect()
    }

    /// The JSON schema of a port's table: one for each type.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        let of_type = |port_type: PortType| {
            let type_key = json_schema!({
                "properties": { "type": { "const": port_type.name(), "description": "How the port moves bytes." } },
                "required": ["type"]
            });
            let [common, guards] = [PortConfig::json_schema(generator), Guards::json_schema(generator)];
            let mut table = schema::table(&[type_key, common, port_type.schema(generator), guards]);
            table.insert("title".to_owned(), port_type.name().into());
            table
        };
        json_schema!({ "oneOf": PortType::ALL.iter().copied().map(of_type).collect::<Vec<_>>() })
    }

    /// The default of a key of a port, unless it depends on other settings.
    pub fn default_of(port_type: PortType, key: &str) -> Option<&'static Value> {
        static SCHEMA: LazyLock<Value> = LazyLock::new(|| schema::document("A port", PortConfig::schema));
        let mut tables = SCHEMA["oneOf"].as_array()?.iter();
        tables.find(|table| table["title"] == port_type.name())?["properties"].get(key)?.get("default")
    }

    /// Reads the table of port `name`; `switch` has defaults for keys that are left out. Returns nothing if there is a
    /// mistake.
    pub fn read(name: &str, tree: &Tree, switch: &SwitchConfig, reader: &mut Reader) -> Option<PortConfig> {
        let before = reader.mistakes();
        let TypeKey { port_type } = reader.part(tree)?;
        check_keys(tree, port_type, reader);
        let mut tree = tree.clone();
        tree.set_default("allow_mirror", Tree::boolean(switch.allow_mirror));
        tree.set_default("rewind", Tree::text(&Kept::text(switch.rewind)));
        port_type.fill_in(name, &mut tree, reader);
        let mut common = reader.part::<PortConfig>(&tree);
        let one_vlan = !port_type.leads_to_switches() && tree.get("vlan").is_none();
        if let Some(common) = common.as_mut().filter(|_| one_vlan) {
            common.vlan = PortVlan::access(switch.default_vlan.0);
        }
        let kind = port_type.read(&tree, reader);
        let guards = reader.part::<Guards>(&tree).map(|guards| guards.spec(tree.get("mac_limit").is_some()));
        if let Some(Err(wrong)) = kind.as_ref().map(|kind| kind.settings().check(name)) {
            reader.note_key(&wrong);
        }
        if let Some(Err(wrong)) = &guards {
            reader.note_key(wrong);
        }
        let port = PortConfig { name: name.to_owned(), kind: kind?, guards: guards?.ok()?, ..common? };
        (reader.mistakes() == before).then_some(port)
    }

    /// True if both ports are attached to the same device, socket or interface with the same settings.
    pub fn is_attached_like(&self, other: &PortConfig, switch: &SwitchConfig) -> bool {
        let [mut one, mut two] = [self.clone(), other.clone()];
        one.normalise(switch);
        two.normalise(switch);
        one.kind == two.kind
    }

    /// Removes settings of the attachment that are equal to their defaults.
    pub(crate) fn normalise(&mut self, switch: &SwitchConfig) {
        self.kind.settings_mut().normalise(&self.name, switch);
    }

    /// The name of the type in the configuration.
    pub fn type_name(&self) -> &'static str {
        self.kind.port_type().name()
    }

    /// The port as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = to_table(self);
        table.extend(to_table(&self.kind));
        table.extend(to_table(&Guards::written(&self.guards)));
        table
    }
}

/// Notes keys that a port of this type does not have.
fn check_keys(tree: &Tree, port_type: PortType, reader: &mut Reader) {
    let parts = [keys::<TypeKey>(), keys::<PortConfig>(), keys::<Guards>(), port_type.keys()];
    reader.check_keys(tree, &parts.concat(), |key| {
        let others = PortType::ALL.iter().filter(|other| other.keys().contains(&key)).map(|other| other.name());
        let others = match others.collect::<Vec<_>>().as_slice() {
            [] => return None,
            [one] => (*one).to_owned(),
            [most @ .., last] => format!("{} and {last}", most.join(", ")),
        };
        Some(format!("is a key of type {others}; this port is of type {port_type}"))
    });
}

fn default_mtu() -> u32 {
    MTU_DEFAULT
}

fn yes() -> bool {
    true
}

fn one() -> u16 {
    1
}

value::numbers! {
    /// A key that holds an MTU.
    Mtu, "an MTU in bytes", MTU_MIN..=MTU_MAX;
    /// A key that holds a number of queues.
    QueueCount, "a number of queues", 1..=QUEUES_MAX;
}

/// A key that holds the address of one station, or is left out.
struct StationKey;

impl StationKey {
    fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        mac.map(Station).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        Station::deserialize(deserializer).map(|Station(mac)| Some(mac))
    }
}

schema::described!(StationKey, Station::json_schema);
