//! The `[switch]` table: settings of the daemon as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use labsw_dataplane::MAX_WORKERS;
use labsw_dataplane::worker::Power;
use labsw_dataplane::xdp::Hugepages;
use labsw_switch::Vid;
use labsw_switch::vlan::VlanSet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::rewind::{DEFAULT_SUM, Kept, KeptInAll};
use super::schema::Words;
use super::units::{Size, Span};
use super::vlan::VlanId;
use super::{names, schema, value, vlan};

/// Highest CPU number that can be named; the kernel's own limit on x86-64 (`NR_CPUS`) is 8192.
const CPU_MAX: u32 = 8191;
/// Most entries of the forwarding database that can be asked for.
const MAC_TABLE_MAX: u32 = 1 << 20;

/// The `[switch]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchConfig {
    /// CPUs of the polling workers, each once; empty: one worker that is not pinned.
    #[serde(with = "Cpus", skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<usize>,
    /// The power mode: `adaptive` lets an idle worker sleep.
    #[schemars(with = "Words<Power>")]
    pub power: Power,
    /// Path of the control socket.
    #[serde(with = "names::Socket")]
    pub control_socket: PathBuf,
    /// Directory of the vhost-user sockets that have no path of their own.
    #[serde(with = "names::Directory")]
    pub vhost_user_dir: PathBuf,
    /// Group of the guests' sockets, and of the control socket if it has none of its own; left out: unchanged.
    #[serde(with = "names::Group")]
    pub socket_group: Option<String>,
    /// Group of the control socket; left out: `socket_group`.
    #[serde(with = "names::Group")]
    pub control_group: Option<String>,
    /// Permission bits of the sockets, in octal.
    #[serde(with = "PermissionBits")]
    pub socket_mode: u32,
    /// Group whose members may change the switch; left out: only root may.
    #[serde(with = "names::Group")]
    pub admin_group: Option<String>,
    /// Time after which a learned address is forgotten; whole seconds, at least 1.
    #[serde(with = "WholeSeconds")]
    pub mac_ageing: Duration,
    /// Most addresses that the forwarding database holds.
    #[serde(with = "TableEntries")]
    pub mac_table_size: usize,
    /// The use of huge pages for packet memory.
    #[schemars(with = "Words<Hugepages>")]
    pub hugepages: Hugepages,
    /// Most guest memory that one vhost-user port maps; left out: as much as the machine has.
    #[serde(with = "Memory")]
    pub max_guest_memory: Option<u64>,
    /// Address and port at which metrics are served over HTTP; left out: nowhere.
    #[serde(with = "Address")]
    pub metrics_listen: Option<SocketAddr>,
    /// Interfaces that are never opened, whatever a port names.
    #[serde(with = "Interfaces")]
    pub protected_interfaces: Vec<String>,
    /// The default of the ports' `allow_mirror`.
    #[serde(with = "AllowMirror")]
    pub allow_mirror: bool,
    /// The default of the ports' `rewind`, as in `"64MiB"`; left out: `"off"`.
    #[serde(with = "Kept")]
    pub rewind: Option<u64>,
    /// Most memory that the ports' `rewind` takes together.
    #[serde(with = "KeptInAll")]
    pub max_rewind_memory: u64,
    /// The VLAN of guests', containers' and TAP ports without VLAN settings: they are access ports in it.
    pub default_vlan: VlanId,
    /// The kernel fast path between containers' ports with `offloads`.
    #[serde(skip_serializing_if = "Accelerate::is_auto")]
    pub accelerate: Accelerate,
    /// VLANs in which multicast frames go only to ports that asked for them.
    #[serde(with = "vlan::AllOrList")]
    pub multicast_snooping: VlanSet,
}

/// The use of the kernel fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Accelerate {
    /// Frames pass in the kernel where nothing prevents it.
    #[default]
    Auto,
    /// Every frame takes the way through the switch.
    Off,
}

impl Accelerate {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn is_auto(&self) -> bool {
        *self == Accelerate::Auto
    }
}

/// The keys that only a restart of the daemon can change.
const RESTART_KEYS: [&str; 8] = [
    "workers",
    "control_socket",
    "vhost_user_dir",
    "control_group",
    "admin_group",
    "mac_table_size",
    "hugepages",
    "max_guest_memory",
];

impl Default for SwitchConfig {
    fn default() -> SwitchConfig {
        SwitchConfig {
            workers: Vec::new(),
            power: Power::Adaptive,
            control_socket: PathBuf::from("/run/labsw/control.sock"),
            vhost_user_dir: PathBuf::from("/run/labsw/vhost"),
            socket_group: None,
            control_group: None,
            socket_mode: 0o660,
            admin_group: None,
            mac_ageing: Duration::from_secs(300),
            mac_table_size: 65536,
            hugepages: Hugepages::Auto,
            max_guest_memory: None,
            metrics_listen: None,
            protected_interfaces: Vec::new(),
            allow_mirror: true,
            rewind: None,
            max_rewind_memory: DEFAULT_SUM,
            default_vlan: VlanId(Vid::DEFAULT),
            accelerate: Accelerate::Auto,
            multicast_snooping: VlanSet::EMPTY,
        }
    }
}

impl SwitchConfig {
    /// The keys in which `other` differs and that only a restart of the daemon can change.
    pub fn restart_keys(&self, other: &SwitchConfig) -> Vec<&'static str> {
        let (own, others) = (self.to_toml(), other.to_toml());
        RESTART_KEYS.into_iter().filter(|key| own.get(*key) != others.get(*key)).collect()
    }

    /// The first of the workers' CPUs that this machine does not have.
    pub(crate) fn missing_cpu(&self) -> Option<usize> {
        let missing = |cpu: usize| !std::path::Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists();
        self.workers.iter().copied().find(|cpu| missing(*cpu))
    }

    /// Path of the socket of vhost-user port `port` if the port names none.
    pub fn default_socket(&self, port: &str) -> PathBuf {
        self.vhost_user_dir.join(format!("{port}.sock"))
    }

    /// The JSON schema of the `[switch]` table.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema::table(&[SwitchConfig::json_schema(generator)])
    }

    /// The settings as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        super::to_table(self)
    }
}

value::numbers! {
    /// A key that holds a number of table entries.
    TableEntries, "a number of table entries", 16..=MAC_TABLE_MAX;
}

/// A key that holds CPUs, each once.
struct Cpus;

impl Cpus {
    fn serialize<S: Serializer>(cpus: &[usize], serializer: S) -> Result<S::Ok, S::Error> {
        cpus.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
        struct Cpu(usize);

        impl<'de> Deserialize<'de> for Cpu {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cpu, D::Error> {
                value::small_integer(deserializer, "a CPU number", 0..=CPU_MAX).map(Cpu)
            }
        }

        let cpus = value::list(deserializer, "an array of CPU numbers, as in [1, 2]", |earlier: &[Cpu], Cpu(cpu)| {
            if earlier.len() == MAX_WORKERS {
                return Err(format!("is one worker too many; a switch has at most {MAX_WORKERS}"));
            }
            match earlier.iter().any(|Cpu(earlier)| earlier == cpu) {
                true => Err(format!("CPU {cpu} has a worker already; name each CPU once")),
                false => Ok(()),
            }
        })?;
        Ok(cpus.into_iter().map(|Cpu(cpu)| cpu).collect())
    }
}

schema::described!(Cpus, |_| {
    let mut array = schema::array(&schema::integer(&(0..=CPU_MAX)), Some(MAX_WORKERS));
    array.insert("uniqueItems".to_owned(), true.into());
    array
});

/// A key that holds names of interfaces.
struct Interfaces;

impl Interfaces {
    fn serialize<S: Serializer>(interfaces: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        interfaces.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Interface(#[serde(with = "names::Interface")] String);

        let interfaces = value::list(deserializer, "an array of interface names", |_: &[Interface], _| Ok(()))?;
        Ok(interfaces.into_iter().map(|Interface(name)| name).collect())
    }
}

schema::described!(Interfaces, |generator| schema::array(&names::Interface::json_schema(generator), None));

/// A key that holds `"127.0.0.1:9477"`, `"[::1]:9477"`.
struct Address;

impl Address {
    fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        address.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        value::text(deserializer, "an address and a port, as in \"127.0.0.1:9477\"", |text| {
            let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
            address.map(Some).ok_or_else(|| {
                format!("{text:?} is not an IP address and a port (as in \"127.0.0.1:9477\" or \"[::1]:9477\")")
            })
        })
    }
}

schema::described!(Address, |_| schema::text(r"([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}"));

/// A key that holds `"0660"`, in octal.
pub(super) struct PermissionBits;

/// Fields that hold permission bits, always or if they are there.
pub(super) trait Bits: Sized {
    /// The field with these bits.
    fn of(bits: u32) -> Self;
    /// The bits.
    fn bits(&self) -> Option<u32>;
}

impl Bits for u32 {
    fn of(bits: u32) -> u32 {
        bits
    }

    fn bits(&self) -> Option<u32> {
        Some(*self)
    }
}

impl Bits for Option<u32> {
    fn of(bits: u32) -> Option<u32> {
        Some(bits)
    }

    fn bits(&self) -> Option<u32> {
        *self
    }
}

impl PermissionBits {
    pub(super) fn serialize<T: Bits, S: Serializer>(field: &T, serializer: S) -> Result<S::Ok, S::Error> {
        match field.bits() {
            Some(bits) => serializer.collect_str(&format_args!("{bits:04o}")),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: Bits, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        value::text(deserializer, "permission bits in octal, as in \"0660\"", |text| {
            let octal = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
            bits.map(T::of).ok_or_else(|| format!("{text:?} is not permission bits in octal (\"0000\" to \"0777\")"))
        })
    }
}

schema::described!(PermissionBits, |_| schema::text("0*[0-7]{1,3}"));

/// A key that holds `"64GiB"`, `"512M"`: at least 1 MiB, at most 1 PiB.
struct Memory;

impl Memory {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.and_then(Size::new).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        value::text(deserializer, "an amount of memory, as in \"64GiB\"", |text| {
            let bytes = text.parse().ok().map(|size: Size| size.bytes());
            bytes.filter(|bytes| (1 << 20..=1 << 50).contains(bytes)).map(Some).ok_or_else(|| {
                format!("{text:?} is not an amount of memory (as in \"64GiB\" or \"512MiB\", 1MiB to 1024TiB)")
            })
        })
    }
}

schema::described!(Memory, Size::json_schema);

/// A key that holds `"300s"`, `"5min"`: whole seconds, at least one, at most a year.
struct WholeSeconds;

impl WholeSeconds {
    fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", time.as_secs()))
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        value::text(deserializer, "a time, as in \"300s\"", |text| {
            let limits = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);
            let time = text.parse().ok().map(|span: Span| Duration::from(span));
            let time = time.filter(|time| limits.contains(time) && time.subsec_nanos() == 0);
            time.ok_or_else(|| format!("{text:?} is not a time in whole seconds (as in \"300s\", 1s to 365days)"))
        })
    }
}

schema::described!(WholeSeconds, Span::json_schema);

/// A key that holds `"all"` or `"declared"`.
struct AllowMirror;

/// Which ports may be mirrored that do not say.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Allow {
    All,
    Declared,
}

impl AllowMirror {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
    fn serialize<S: Serializer>(all: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        if *all { Allow::All } else { Allow::Declared }.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        Allow::deserialize(deserializer).map(|allow| matches!(allow, Allow::All))
    }
}

schema::described!(AllowMirror, Words::<Allow>::json_schema);
