//! Ports: the `[ports.NAME]` tables, with the keys of all types and the keys of each type.
//!
//! A port is read in three parts, each a struct: the keys that every port has ([`PortConfig`]), those of its type
//! ([`PortKind`]), and its guards ([`Guards`]). `config::claims` checks what two ports cannot share.

use std::path::PathBuf;

use labsw_dataplane::vhost_user::Role;
use labsw_dataplane::xdp::{Queues, XdpMode};
use labsw_switch::Mac;
use labsw_switch::guard::GuardSpec;
use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::PortVlan;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::de::keys;
use super::device::DeviceSpec;
use super::guards::Guards;
use super::mistake::AtKey;
use super::names::{self, Station};
use super::reader::Reader;
use super::switch::{SwitchConfig, permission_bits};
use super::tree::{Path, Tree};
use super::{to_table, value, vlan};

/// Smallest MTU of a port, in bytes: every IPv4 host must take it (RFC 791).
pub const MTU_MIN: u32 = 68;
/// Largest MTU of a port, in bytes: the usual limit of jumbo frames.
pub const MTU_MAX: u32 = 9216;
/// MTU of a port that sets none, in bytes.
pub const MTU_DEFAULT: u32 = 1500;
/// Most receive queues that a port can ask for.
const QUEUES_MAX: u32 = 64;
/// The highest user id; the next number means "no user" to the kernel.
const UID_MAX: u32 = u32::MAX - 1;
/// Most queue pairs that a guest's port can have.
const QUEUE_PAIRS_MAX: u32 = 8;

/// One port: the keys of every type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// The name of the port, unique in the switch.
    #[serde(skip)]
    pub name: String,
    /// The type of the port, with the settings of that type.
    #[serde(skip)]
    pub kind: PortKind,
    /// Its VLANs; left out: all for a device of the host, `switch.default_vlan` for every other type.
    #[serde(default, with = "vlan")]
    pub vlan: PortVlan,
    /// Largest frame, in bytes, without Ethernet header, tags and FCS.
    #[serde(default = "default_mtu", deserialize_with = "mtu")]
    pub mtu: u32,
    /// How frames to 01-80-C2-00-00-0X are handled.
    #[serde(default)]
    pub link_local: LinkLocal,
    /// Takes mirrored frames and nothing else.
    #[serde(default)]
    pub mirror_only: bool,
    /// The port may be a source or the destination of mirrors; left out: as `switch.allow_mirror` says.
    #[serde(default = "yes")]
    pub allow_mirror: bool,
    /// The guards of the port.
    #[serde(skip)]
    pub guards: GuardSpec,
}

/// The type of a port (key `type`), with the settings of that type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PortKind {
    /// A network device of the host, through AF_XDP sockets.
    AfXdp(AfXdpConfig),
    /// A guest's virtio-net device.
    VhostUser(VhostUserConfig),
    /// A pair of virtual Ethernet devices, one end for a container.
    Veth(VethConfig),
    /// A TAP interface.
    Tap(TapConfig),
}

/// The type of a port: how it moves frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortType {
    /// A network interface of the host, through AF_XDP.
    AfXdp,
    /// A guest, through a vhost-user socket.
    VhostUser,
    /// A container, through a veth pair that the switch makes.
    Veth,
    /// The host, or a guest with an emulated NIC, through a TAP interface.
    Tap,
}

/// The settings of an `af_xdp` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AfXdpConfig {
    /// The device.
    pub device: DeviceSpec,
    /// The XDP mode: how frames get in and out of the driver.
    #[serde(default)]
    pub mode: XdpMode,
    /// The receive queues that are bound.
    #[serde(default, with = "all_or_count")]
    pub queues: Queues,
    /// The worker runs the kernel's receive loop (busy polling).
    #[serde(default)]
    pub busy_poll: bool,
}

/// The settings of a `vhost_user` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostUserConfig {
    /// The side that listens on the socket: the switch (`server`) or the guest's hypervisor (`client`).
    #[serde(default)]
    pub role: Role,
    /// The socket; left out: `NAME.sock` in `switch.vhost_user_dir`.
    #[serde(default, deserialize_with = "names::read_some_socket")]
    pub socket: Option<PathBuf>,
    /// Pairs of a receive and a transmit ring, at most 8.
    #[serde(default = "one", deserialize_with = "queue_pairs")]
    pub queue_pairs: u16,
    /// Checksum and segmentation offloads are offered to the guest.
    #[serde(default = "yes")]
    pub offloads: bool,
    /// User who owns the socket's file, by name or number; left out: the daemon's.
    #[serde(default, deserialize_with = "names::read_some_account")]
    pub owner: Option<String>,
    /// Group of the socket's file, by name or number; left out: `switch.socket_group`.
    #[serde(default, deserialize_with = "names::read_some_account")]
    pub group: Option<String>,
    /// Permission bits of the socket's file, in octal; left out: `switch.socket_mode`.
    #[serde(default, with = "permission_bits::optional")]
    pub mode: Option<u32>,
    /// The only user whose processes are served; left out: any that can open the socket.
    #[serde(default, deserialize_with = "user")]
    pub peer_uid: Option<u32>,
}

/// The settings of a `veth` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VethConfig {
    /// The container's end, as it is created.
    #[serde(deserialize_with = "names::read_interface")]
    pub peer: String,
    /// The switch's end; left out: [`default_interface`].
    #[serde(default, deserialize_with = "names::read_some_interface")]
    pub interface: Option<String>,
    /// Named network namespace the container's end is moved into.
    #[serde(default, deserialize_with = "names::read_some_netns")]
    pub netns: Option<String>,
    /// The name of the container's end in that namespace; left out: as it was created.
    #[serde(default, deserialize_with = "names::read_some_interface")]
    pub peer_name: Option<String>,
    /// Queues each way, at both ends.
    #[serde(default = "one", deserialize_with = "queues")]
    pub queues: u16,
    /// MAC address of the container's end; left out: derived from the port's name.
    #[serde(default, with = "station")]
    pub mac: Option<Mac>,
}

/// The settings of a `tap` port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapConfig {
    /// The interface; left out: the name of the port.
    #[serde(deserialize_with = "names::read_interface")]
    pub interface: String,
    /// The user of the other end of the interface.
    #[serde(rename = "for", default)]
    pub other_end: TapEnd,
    /// Number of queues, for the host or a container.
    #[serde(default = "one", deserialize_with = "queues", skip_serializing_if = "is_one")]
    pub queues: u16,
    /// MAC address of the interface, for the host or a container; left out: derived from the port's name.
    #[serde(default, with = "station")]
    pub mac: Option<Mac>,
    /// Named network namespace the interface is moved into, for a container.
    #[serde(default, deserialize_with = "names::read_some_netns")]
    pub netns: Option<String>,
    /// The name of the interface in that namespace; left out: `interface`.
    #[serde(default, deserialize_with = "names::read_some_interface")]
    pub peer_name: Option<String>,
    /// User who may open the interface, for a guest; a name or a number.
    #[serde(default, deserialize_with = "names::read_some_account")]
    pub owner: Option<String>,
    /// Group that may open the interface, for a guest; a name or a number.
    #[serde(default, deserialize_with = "names::read_some_account")]
    pub group: Option<String>,
}

/// The user of the other end of a TAP interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// The key for the type of a port.
#[derive(Deserialize)]
struct TypeKey {
    #[serde(rename = "type")]
    port_type: PortType,
}

impl PortType {
    /// Every type.
    pub const ALL: [PortType; 4] = [PortType::AfXdp, PortType::VhostUser, PortType::Veth, PortType::Tap];

    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            PortType::AfXdp => "af_xdp",
            PortType::VhostUser => "vhost_user",
            PortType::Veth => "veth",
            PortType::Tap => "tap",
        }
    }

    /// The keys that only ports of some types have, this one among them.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            PortType::AfXdp => keys::<AfXdpConfig>(),
            PortType::VhostUser => keys::<VhostUserConfig>(),
            PortType::Veth => keys::<VethConfig>(),
            PortType::Tap => keys::<TapConfig>(),
        }
    }

    /// Reads the keys of this type.
    fn read(self, tree: &Tree, reader: &mut Reader) -> Option<PortKind> {
        match self {
            PortType::AfXdp => reader.part(tree).map(PortKind::AfXdp),
            PortType::VhostUser => reader.part(tree).map(PortKind::VhostUser),
            PortType::Veth => reader.part(tree).map(PortKind::Veth),
            PortType::Tap => reader.part(tree).map(PortKind::Tap),
        }
    }
}

impl std::fmt::Display for PortType {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.name())
    }
}

impl Default for PortKind {
    /// A guest's port, which needs no settings.
    fn default() -> PortKind {
        PortKind::VhostUser(VhostUserConfig {
            role: Role::Server,
            socket: None,
            queue_pairs: 1,
            offloads: true,
            owner: None,
            group: None,
            mode: None,
            peer_uid: None,
        })
    }
}

impl PortKind {
    /// The type.
    pub fn port_type(&self) -> PortType {
        match self {
            PortKind::AfXdp(_) => PortType::AfXdp,
            PortKind::VhostUser(_) => PortType::VhostUser,
            PortKind::Veth(_) => PortType::Veth,
            PortKind::Tap(_) => PortType::Tap,
        }
    }

    /// Checks keys that contradict each other, or the name of the port.
    fn check(&self, port: &str) -> Result<(), AtKey<String>> {
        match self {
            PortKind::AfXdp(_) => Ok(()),
            PortKind::VhostUser(guest) => guest.check(),
            PortKind::Veth(veth) => veth.check(port),
            PortKind::Tap(tap) => tap.check(),
        }
    }
}

impl VhostUserConfig {
    fn check(&self) -> Result<(), AtKey<String>> {
        let of_file = [("owner", self.owner.is_some()), ("group", self.group.is_some()), ("mode", self.mode.is_some())];
        match of_file.into_iter().find(|(_, given)| *given && self.role == Role::Client) {
            Some((key, _)) => {
                Err(AtKey::key(key, "is a key of role = \"server\"; the front end makes this socket".to_owned()))
            }
            None => Ok(()),
        }
    }
}

impl VethConfig {
    fn check(&self, port: &str) -> Result<(), AtKey<String>> {
        if self.peer_name.is_some() && self.netns.is_none() {
            let wrong = "needs `netns`; without one the end for the container is `peer`";
            return Err(AtKey::value("peer_name", wrong.to_owned()));
        }
        if self.interface.as_deref().unwrap_or(&default_interface(port)) == self.peer {
            let wrong = format!("both ends would be {:?}; name the switch's end", self.peer);
            return Err(AtKey::value("interface", wrong));
        }
        Ok(())
    }
}

impl TapConfig {
    fn check(&self) -> Result<(), AtKey<String>> {
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

impl PortConfig {
    /// The keys of ports of any type, without `type`.
    pub fn keys() -> Vec<&'static str> {
        let of_types = PortType::ALL.into_iter().flat_map(PortType::keys);
        keys::<PortConfig>().iter().chain(keys::<Guards>()).chain(of_types).copied().collect()
    }

    /// Reads the table of port `name`; `switch` has defaults for keys that are left out. Returns nothing if there is a
    /// mistake.
    pub fn read(name: &str, tree: &Tree, switch: &SwitchConfig, reader: &mut Reader) -> Option<PortConfig> {
        let before = reader.mistakes();
        let TypeKey { port_type } = reader.part(tree)?;
        check_keys(tree, port_type, reader);
        let mut tree = tree.clone();
        tree.set_default("allow_mirror", Tree::boolean(switch.allow_mirror));
        if port_type == PortType::Tap && tree.get("interface").is_none() {
            if let Err(wrong) = names::interface(name) {
                let wrong = format!("the port's name is no interface name ({wrong}); set `interface`");
                reader.note(&Path::of(["interface"]), false, wrong);
            }
            tree.set("interface", Tree::text(names::interface(name).map_or("tap", |()| name)));
        }
        let mut common = reader.part::<PortConfig>(&tree);
        // A device of the host leads to other switches. Every other port leads to one machine, which is in one VLAN,
        // and in more only if the configuration says so.
        if let Some(common) = common.as_mut().filter(|_| port_type != PortType::AfXdp && tree.get("vlan").is_none()) {
            common.vlan = PortVlan::access(switch.default_vlan.0);
        }
        let kind = port_type.read(&tree, reader);
        let guards = reader.part::<Guards>(&tree).map(|guards| guards.spec(tree.get("mac_limit").is_some()));
        if let Some(Err(wrong)) = kind.as_ref().map(|kind| kind.check(name)) {
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
        match &mut self.kind {
            PortKind::VhostUser(VhostUserConfig { socket, .. }) => {
                socket.take_if(|path| *path == switch.default_socket(&self.name));
            }
            PortKind::Veth(VethConfig { peer, interface, peer_name, .. }) => {
                interface.take_if(|name| *name == default_interface(&self.name));
                peer_name.take_if(|name| *name == *peer);
            }
            PortKind::AfXdp(_) | PortKind::Tap(_) => {}
        }
    }

    /// True if a guest is attached by vhost-user.
    pub fn is_vhost_user(&self) -> bool {
        matches!(self.kind, PortKind::VhostUser(_))
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
        let others = PortType::ALL.into_iter().filter(|other| other.keys().contains(&key)).map(PortType::name);
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

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_one(number: &u16) -> bool {
    *number == 1
}

fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    value::integer(deserializer, "an MTU in bytes", MTU_MIN..=MTU_MAX)
}

fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    value::integer(deserializer, "a user's number", 0..=UID_MAX).map(Some)
}

fn queues<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    value::small_integer(deserializer, "a number of queues", 1..=QUEUES_MAX)
}

fn queue_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    value::small_integer(deserializer, "a number of queue pairs", 1..=QUEUE_PAIRS_MAX)
}

/// The address of one station.
mod station {
    use super::{Deserialize, Deserializer, Mac, Serialize, Serializer, Station};

    pub fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
        mac.map(Station).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
        Station::deserialize(deserializer).map(|Station(mac)| Some(mac))
    }
}

/// `"all"` or a number of queues.
mod all_or_count {
    use super::{Deserializer, Error, QUEUES_MAX, Queues, Serializer, Visitor};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    pub fn serialize<S: Serializer>(queues: &Queues, serializer: S) -> Result<S::Ok, S::Error> {
        match queues {
            Queues::All => serializer.serialize_str("all"),
            Queues::Count(count) => serializer.serialize_u32(*count),
        }
    }

    struct AllOrCount;

    impl Visitor<'_> for AllOrCount {
        type Value = Queues;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(out, "\"all\" or a number of queues (1 to {QUEUES_MAX})")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Queues, E> {
            match u32::try_from(number) {
                Ok(count) if (1..=QUEUES_MAX).contains(&count) => Ok(Queues::Count(count)),
                _ => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
            }
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Queues, E> {
            self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Queues, E> {
            if text == "all" { Ok(Queues::All) } else { Err(E::custom(format_args!("{text:?} is not one of all"))) }
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Queues, D::Error> {
        deserializer.deserialize_any(AllOrCount)
    }
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
