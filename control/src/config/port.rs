//! The `[ports.NAME]` tables: what is attached, and as what.
//!
//! A port of the file and a port of `labsw-ctl port add` go through the same reader ([`PortConfig::from_settings`]
//! writes the settings down as TOML first), so both get the same checks and the same messages.
//! What two ports cannot share stands in [`super::claims`].

mod device;
mod guard;

use std::path::PathBuf;

use labsw_switch::Mac;
use labsw_switch::guard::GuardSpec;
use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::PortVlan;

use super::error::ConfigError;
use super::names;
use super::section::{Field, Section};
use super::settings;
use super::switch::{SwitchConfig, permission_bits, permission_text};
use super::vlan;

pub use device::DeviceSpec;

/// Smallest MTU of a port, bytes: what every IPv4 host must take (RFC 791).
pub const MTU_MIN: u32 = 68;
/// Largest MTU of a port, bytes: the usual limit of jumbo frames.
pub const MTU_MAX: u32 = 9216;
/// MTU of a port that says nothing, bytes.
pub const MTU_DEFAULT: u32 = 1500;
/// Most receive queues a port can ask for.
const QUEUES_MAX: u32 = 64;
/// The largest number of a user; the one above means "nobody said".
const UID_MAX: u32 = u32::MAX - 1;
/// Most queue pairs a guest's port can have.
const QUEUE_PAIRS_MAX: u32 = 8;

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name, unique in the switch.
    pub name: String,
    /// What is attached.
    pub kind: PortKind,
    /// Its VLANs.
    pub vlan: PortVlan,
    /// Largest frame, bytes, without Ethernet header, tags and FCS.
    pub mtu: u32,
    /// What happens to frames for 01-80-C2-00-00-0X.
    pub link_local: LinkLocal,
    /// Takes mirrored frames and nothing else.
    pub mirror_only: bool,
    /// May be a source of mirrors, or their destination.
    pub allow_mirror: bool,
    /// What it guards.
    pub guards: GuardSpec,
}

/// What is attached to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The settings of an `af_xdp` port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpConfig {
    /// The device.
    pub device: DeviceSpec,
    /// How frames get in and out of the driver.
    pub mode: XdpMode,
    /// How many receive queues are bound.
    pub queues: Queues,
    /// The worker runs the kernel's receive loop.
    pub busy_poll: bool,
}

/// The settings of a `vhost_user` port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserConfig {
    /// Who listens on the socket.
    pub role: VhostRole,
    /// The socket; `None`: [`super::SwitchConfig::default_socket`].
    pub socket: Option<PathBuf>,
    /// Pairs of a receive and a transmit ring, at most 8.
    pub queue_pairs: u16,
    /// Checksum and segmentation offloads are offered to the guest.
    pub offloads: bool,
    /// User who owns the socket's file, by name or number; `None`: the daemon's.
    pub owner: Option<String>,
    /// Group of the socket's file, by name or number; `None`: [`super::SwitchConfig::socket_group`].
    pub group: Option<String>,
    /// Permission bits of the socket's file; `None`: [`super::SwitchConfig::socket_mode`].
    pub mode: Option<u32>,
    /// The only user whose processes are served; `None`: any that can open the socket.
    pub peer_uid: Option<u32>,
}

/// The settings of a `veth` port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethConfig {
    /// The container's end, as it is created.
    pub peer: String,
    /// The switch's end; `None`: [`default_interface`].
    pub interface: Option<String>,
    /// Named network namespace the container's end is moved into.
    pub netns: Option<String>,
    /// The name of the container's end in that namespace; `None`: as it was created.
    pub peer_name: Option<String>,
    /// Queues each way, at both ends.
    pub queues: u16,
    /// MAC address of the container's end; `None`: derived from the port's name.
    pub mac: Option<Mac>,
}

/// The settings of a `tap` port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface.
    pub interface: String,
    /// Who has the end that the switch does not have.
    pub other_end: TapEnd,
    /// Number of queues, for the host.
    pub queues: u16,
    /// MAC address of the interface, for the host; `None`: derived from the port's name.
    pub mac: Option<Mac>,
    /// User who may open the interface, for a guest; a name or a number.
    pub owner: Option<String>,
    /// Group that may open the interface, for a guest; a name or a number.
    pub group: Option<String>,
}

/// Who has the other end of a TAP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapEnd {
    /// The host has the network interface.
    Host,
    /// A guest's hypervisor opens the interface.
    Guest,
}

/// How frames get in and out of a network driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The first of the others that works.
    Auto,
    /// The NIC reads and writes packet memory itself.
    ZeroCopy,
    /// The driver copies.
    Copy,
    /// The kernel's generic hook copies; works on every device.
    Skb,
}

/// How many receive queues are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// All the device has.
    All,
    /// So many: the device's channels are set to that.
    Count(u16),
}

/// Who listens on a vhost-user socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VhostRole {
    /// The switch.
    Server,
    /// The guest's hypervisor.
    Client,
}

const XDP_MODES: [(&str, XdpMode); 4] =
    [("auto", XdpMode::Auto), ("zero_copy", XdpMode::ZeroCopy), ("copy", XdpMode::Copy), ("skb", XdpMode::Skb)];
const ROLES: [(&str, VhostRole); 2] = [("server", VhostRole::Server), ("client", VhostRole::Client)];
const TAP_ENDS: [(&str, TapEnd); 2] = [("host", TapEnd::Host), ("guest", TapEnd::Guest)];
const LINK_LOCAL: [(&str, LinkLocal); 2] = [("transparent", LinkLocal::Transparent), ("drop", LinkLocal::Drop)];

/// The keys every port has.
const COMMON_KEYS: [&str; 6] = ["type", "vlan", "mtu", "link_local", "mirror_only", "allow_mirror"];
/// The types, and the keys each has besides.
const TYPES: [(&str, &[&str]); 4] = [
    ("af_xdp", &["device", "mode", "queues", "busy_poll"]),
    ("vhost_user", &["role", "socket", "queue_pairs", "offloads", "owner", "group", "mode", "peer_uid"]),
    ("veth", &["peer", "interface", "netns", "peer_name", "queues", "mac"]),
    ("tap", &["interface", "for", "queues", "mac", "owner", "group"]),
];

impl PortConfig {
    /// A port from a command: `labsw-ctl port add NAME --type TYPE --set KEY=VALUE…`.
    ///
    /// A value is a TOML value, or anything else as a bare string; a key may be dotted (`vlan.tag`). What is left out may be
    /// as `switch` says.
    pub fn from_settings(
        name: &str,
        type_name: &str,
        set: &[(String, String)],
        switch: &SwitchConfig,
    ) -> Result<PortConfig, ConfigError> {
        let type_setting = ("type".to_owned(), settings::quoted(type_name));
        let set: Vec<_> = std::iter::once(type_setting).chain(set.iter().cloned()).collect();
        settings::read(&format!("ports.{name}"), &set, |section| {
            names::port(name).map_err(|wrong| section.error(format_args!("{name:?} is not a port name: {wrong}")))?;
            PortConfig::read(name, section, switch)
        })
    }

    pub(super) fn read(name: &str, section: &Section<'_>, switch: &SwitchConfig) -> Result<PortConfig, ConfigError> {
        let (type_name, own_keys) = port_type(section)?;
        let known: Vec<&str> = COMMON_KEYS.iter().chain(&guard::KEYS).chain(own_keys).copied().collect();
        section.check_keys(&known, |key| {
            let others: Vec<&str> =
                TYPES.iter().filter(|(_, keys)| keys.contains(&key)).map(|(name, _)| *name).collect();
            let others = match others.as_slice() {
                [] => return None,
                [one] => (*one).to_owned(),
                [most @ .., last] => format!("{} and {last}", most.join(", ")),
            };
            Some(format!("is a key of type {others}; this port is of type {type_name}"))
        })?;
        let vlan = match section.get("vlan") {
            Some(field) => vlan::read(&field.section()?)?,
            None => PortVlan::default(),
        };
        let mtu = section.get("mtu").map(|field| field.integer("an MTU in bytes", MTU_MIN..=MTU_MAX)).transpose()?;
        let link_local = section.get("link_local").map(|field| field.choice(&LINK_LOCAL)).transpose()?;
        let mirror_only = section.get("mirror_only").map(|field| field.boolean()).transpose()?;
        let allow_mirror = section.get("allow_mirror").map(|field| field.boolean()).transpose()?;
        let kind = match type_name {
            "af_xdp" => read_af_xdp(section)?,
            "vhost_user" => read_vhost_user(section)?,
            "tap" => read_tap(name, section)?,
            _ => read_veth(name, section)?,
        };
        Ok(PortConfig {
            name: name.to_owned(),
            kind,
            vlan,
            mtu: mtu.unwrap_or(MTU_DEFAULT),
            link_local: link_local.unwrap_or(LinkLocal::Transparent),
            mirror_only: mirror_only.unwrap_or(false),
            allow_mirror: allow_mirror.unwrap_or(switch.allow_mirror),
            guards: guard::read(section)?,
        })
    }

    /// This port with some settings changed, as in `labsw-ctl port set NAME KEY=VALUE…`. A new `vlan.mode` begins with an
    /// empty `vlan` table, so that the tag of an access port does not stick to a trunk.
    pub fn with_settings(&self, set: &[(String, String)]) -> Result<PortConfig, ConfigError> {
        if set.iter().any(|(key, _)| key == "type") {
            let path = format!("ports.{}.type", self.name);
            let message = format!("is {} for good; remove the port and add it anew", self.type_name());
            return Err(ConfigError::new(None, &path, &message));
        }
        let mut table = self.to_toml();
        table.remove("type");
        if set.iter().any(|(key, _)| key == "vlan" || key == "vlan.mode") {
            table.remove("vlan");
        }
        if set.iter().any(|(key, _)| key == "storm") {
            table.remove("storm");
        }
        let mut merged: Vec<(String, String)> = Vec::new();
        for (key, value) in &table {
            match value {
                toml::Value::Table(inner) => {
                    merged.extend(inner.iter().map(|(inner, value)| (format!("{key}.{inner}"), value.to_string())));
                }
                value => merged.push((key.clone(), value.to_string())),
            }
        }
        merged.retain(|(key, _)| set.iter().all(|(changed, _)| changed != key));
        merged.extend(set.iter().cloned());
        // Every key is there, so nothing is as a switch says.
        PortConfig::from_settings(&self.name, self.type_name(), &merged, &SwitchConfig::default())
    }

    /// Whether both are attached to the same, in the same way.
    pub fn is_attached_like(&self, other: &PortConfig, switch: &SwitchConfig) -> bool {
        let [mut one, mut two] = [self.clone(), other.clone()];
        one.normalise(switch);
        two.normalise(switch);
        one.kind == two.kind
    }

    /// Leaves out what is said of the attachment and is the default anyway.
    pub(super) fn normalise(&mut self, switch: &SwitchConfig) {
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

    /// Whether a guest is attached to it.
    pub fn is_vhost_user(&self) -> bool {
        matches!(self.kind, PortKind::VhostUser(_))
    }

    /// The type, as the configuration calls it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            PortKind::AfXdp(_) => "af_xdp",
            PortKind::VhostUser(_) => "vhost_user",
            PortKind::Veth(_) => "veth",
            PortKind::Tap(_) => "tap",
        }
    }

    /// As a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("type".into(), self.type_name().into());
        let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
        match &self.kind {
            PortKind::AfXdp(AfXdpConfig { device, mode, queues, busy_poll }) => {
                set("device", device.to_string().into());
                set("mode", word_of(&XDP_MODES, *mode));
                set("queues", queues.to_toml());
                set("busy_poll", (*busy_poll).into());
            }
            PortKind::VhostUser(VhostUserConfig {
                role,
                socket,
                queue_pairs,
                offloads,
                owner,
                group,
                mode,
                peer_uid,
            }) => {
                set("role", word_of(&ROLES, *role));
                set("queue_pairs", i64::from(*queue_pairs).into());
                set("offloads", (*offloads).into());
                if let Some(socket) = socket {
                    set("socket", socket.to_string_lossy().into_owned().into());
                }
                let mode = &mode.map(permission_text);
                for (key, value) in [("owner", owner), ("group", group), ("mode", mode)] {
                    if let Some(value) = value {
                        set(key, value.as_str().into());
                    }
                }
                if let Some(uid) = peer_uid {
                    set("peer_uid", i64::from(*uid).into());
                }
            }
            PortKind::Veth(VethConfig { peer, interface, netns, peer_name, queues, mac }) => {
                set("peer", peer.as_str().into());
                set("queues", i64::from(*queues).into());
                let mac = &mac.map(|mac| mac.to_string());
                for (key, value) in [("interface", interface), ("netns", netns), ("peer_name", peer_name), ("mac", mac)]
                {
                    if let Some(value) = value {
                        set(key, value.as_str().into());
                    }
                }
            }
            PortKind::Tap(TapConfig { interface, other_end, queues, mac, owner, group }) => {
                set("interface", interface.as_str().into());
                set("for", word_of(&TAP_ENDS, *other_end));
                if *other_end == TapEnd::Host {
                    set("queues", i64::from(*queues).into());
                }
                let mac = mac.map(|mac| mac.to_string());
                for (key, value) in [("mac", &mac), ("owner", owner), ("group", group)] {
                    if let Some(value) = value {
                        set(key, value.as_str().into());
                    }
                }
            }
        }
        set("vlan", vlan::to_toml(&self.vlan).into());
        set("mtu", i64::from(self.mtu).into());
        set("link_local", word_of(&LINK_LOCAL, self.link_local));
        set("mirror_only", self.mirror_only.into());
        set("allow_mirror", self.allow_mirror.into());
        guard::to_toml(&self.guards, &mut table);
        table
    }
}

/// The word for `value` as a TOML value.
fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: T) -> toml::Value {
    words.iter().find(|(_, candidate)| *candidate == value).map_or("", |(word, _)| *word).into()
}

/// The type of a port, and the keys that type has.
fn port_type(section: &Section<'_>) -> Result<(&'static str, &'static [&'static str]), ConfigError> {
    let names = TYPES.map(|(name, keys)| (name, (name, keys)));
    section.require("type", "one of af_xdp, vhost_user, veth, tap")?.choice(&names)
}

fn read_af_xdp(section: &Section<'_>) -> Result<PortKind, ConfigError> {
    let what = "\"pci:0000:03:00.1\", \"mac:52:54:00:12:34:56\" or \"name:enp3s0f1\"";
    let device = section.require("device", what)?;
    let device = device.string(what)?.parse().map_err(|wrong| device.error(wrong))?;
    let mode = section.get("mode").map(|field| field.choice(&XDP_MODES)).transpose()?;
    let queues = section.get("queues").map(|field| read_queues(&field)).transpose()?;
    let busy_poll = section.get("busy_poll").map(|field| field.boolean()).transpose()?;
    Ok(PortKind::AfXdp(AfXdpConfig {
        device,
        mode: mode.unwrap_or(XdpMode::Auto),
        queues: queues.unwrap_or(Queues::All),
        busy_poll: busy_poll.unwrap_or(false),
    }))
}

fn read_queues(field: &Field<'_>) -> Result<Queues, ConfigError> {
    if field.is_string() {
        return field.choice(&[("all", Queues::All)]);
    }
    read_count(field, "\"all\" or a number of queues").map(Queues::Count)
}

fn read_count(field: &Field<'_>, what: &str) -> Result<u16, ConfigError> {
    let count = field.integer(what, 1..=QUEUES_MAX)?;
    u16::try_from(count).map_err(|error| field.error(error))
}

fn read_vhost_user(section: &Section<'_>) -> Result<PortKind, ConfigError> {
    let role = section.get("role").map(|field| field.choice(&ROLES)).transpose()?;
    let socket = section.get("socket").map(|field| field.checked("a socket path", names::socket_path)).transpose()?;
    let queue_pairs = match section.get("queue_pairs") {
        Some(field) => {
            let count = field.integer("a number of queue pairs", 1..=QUEUE_PAIRS_MAX)?;
            u16::try_from(count).map_err(|error| field.error(error))?
        }
        None => 1,
    };
    let offloads = section.get("offloads").map(|field| field.boolean()).transpose()?.unwrap_or(true);
    let (role, socket) = (role.unwrap_or(VhostRole::Server), socket.map(PathBuf::from));
    if role == VhostRole::Client
        && let Some(field) = ["owner", "group", "mode"].into_iter().find_map(|key| section.get(key))
    {
        return Err(field.key_error("is a key of role = \"server\"; the front end makes this socket"));
    }
    let (owner, group) = (account(section, "owner")?, account(section, "group")?);
    let mode = section.get("mode").map(|field| permission_bits(&field)).transpose()?;
    let peer_uid = section.get("peer_uid").map(|field| field.integer("a user's number", 0..=UID_MAX)).transpose()?;
    Ok(PortKind::VhostUser(VhostUserConfig { role, socket, queue_pairs, offloads, owner, group, mode, peer_uid }))
}

/// A user or group, by name or number, if it is set.
fn account(section: &Section<'_>, key: &str) -> Result<Option<String>, ConfigError> {
    section.get(key).map(|field| field.checked("the name or number of an account", names::group)).transpose()
}

fn read_veth(name: &str, section: &Section<'_>) -> Result<PortKind, ConfigError> {
    let what = "an interface name";
    let peer = section.require("peer", "the interface name of the container's end")?;
    let peer = peer.checked(what, names::interface)?;
    let interface = section.get("interface").map(|field| field.checked(what, names::interface)).transpose()?;
    let netns = section.get("netns").map(|f| f.checked("the name of a network namespace", names::netns)).transpose()?;
    let peer_name = section.get("peer_name").map(|field| field.checked(what, names::interface)).transpose()?;
    if peer_name.is_some() && netns.is_none() {
        return Err(section.error_at("peer_name", "needs `netns`; without one the end for the container is `peer`"));
    }
    if interface.as_deref().unwrap_or(&default_interface(name)) == peer {
        return Err(section.error_at("interface", format_args!("both ends would be {peer:?}; name the switch's end")));
    }
    let queues = section.get("queues").map(|field| read_count(&field, "a number of queues")).transpose()?;
    let mac = read_mac(section)?;
    Ok(PortKind::Veth(VethConfig { peer, interface, netns, peer_name, queues: queues.unwrap_or(1), mac }))
}

fn read_tap(name: &str, section: &Section<'_>) -> Result<PortKind, ConfigError> {
    let interface = match section.get("interface") {
        Some(field) => field.checked("an interface name", names::interface)?,
        None => {
            let unfit = |wrong| format!("the port's name is no interface name ({wrong}); set `interface`");
            names::interface(name).map_err(|wrong| section.error_at("interface", unfit(wrong)))?;
            name.to_owned()
        }
    };
    let other_end = section.get("for").map(|field| field.choice(&TAP_ENDS)).transpose()?.unwrap_or(TapEnd::Host);
    let (theirs, of) = match other_end {
        TapEnd::Host => (["owner", "group"], "\"guest\"; the host's end needs none"),
        TapEnd::Guest => (["queues", "mac"], "\"host\"; a guest's NIC has its own"),
    };
    if let Some(field) = theirs.into_iter().find_map(|key| section.get(key)) {
        return Err(field.key_error(format_args!("is a key of for = {of}")));
    }
    let queues = match section.get("queues") {
        Some(field) => {
            let count = field.integer("a number of queues", 1..=QUEUES_MAX)?;
            u16::try_from(count).map_err(|error| field.error(error))?
        }
        None => 1,
    };
    let mac = read_mac(section)?;
    let (owner, group) = (account(section, "owner")?, account(section, "group")?);
    Ok(PortKind::Tap(TapConfig { interface, other_end, queues, mac, owner, group }))
}

/// The MAC address of a port's station, if it is set.
fn read_mac(section: &Section<'_>) -> Result<Option<Mac>, ConfigError> {
    let mac = section.get("mac").map(|field| field.checked("a MAC address", station)).transpose()?;
    Ok(mac.and_then(|mac| mac.parse().ok()))
}

/// The MAC address of one station.
fn station(text: &str) -> Result<(), String> {
    match text.parse::<Mac>() {
        Ok(mac) if !mac.is_group() && mac != Mac::default() => Ok(()),
        Ok(_) => Err("it is not the address of one device".to_owned()),
        Err(wrong) => Err(wrong.to_string()),
    }
}

/// Name of the switch's end of veth port `port` that names none itself: `lsw-` and the port's name; of a name that is
/// too long for an interface, its first characters and a checksum of all of it.
pub fn default_interface(port: &str) -> String {
    let whole = format!("lsw-{port}");
    if whole.len() <= names::INTERFACE_NAME_BYTES {
        return whole;
    }
    let start: String = port.chars().take(6).collect();
    // FNV-1a, folded to 16 bits: equal in every run, so that leftovers of a killed one are found again.
    let hash = port.bytes().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("lsw-{start}.{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

impl Queues {
    fn to_toml(self) -> toml::Value {
        match self {
            Queues::All => "all".into(),
            Queues::Count(count) => i64::from(count).into(),
        }
    }
}
