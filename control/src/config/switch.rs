//! The `[switch]` table: what concerns the daemon as a whole.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use labsw_dataplane::handle::MAX_WORKERS;
use labsw_switch::vlan::VlanSet;

use super::error::ConfigError;
use super::names;
use super::section::{Field, Section};
use super::vlan;

/// Whether an idle worker sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Poll while there is traffic, then block until there is more.
    Adaptive,
    /// Poll always.
    Performance,
}

/// Whether packet memory comes from huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// If there are any.
    Auto,
    /// Or the switch does not start.
    Required,
    /// Never.
    Off,
}

const POWER: [(&str, Power); 2] = [("adaptive", Power::Adaptive), ("performance", Power::Performance)];
const HUGEPAGES: [(&str, Hugepages); 3] =
    [("auto", Hugepages::Auto), ("required", Hugepages::Required), ("off", Hugepages::Off)];

const ALLOW_MIRROR: [(&str, bool); 2] = [("all", true), ("declared", false)];

const KEYS: [&str; 16] = [
    "workers",
    "power",
    "control_socket",
    "vhost_user_dir",
    "socket_group",
    "control_group",
    "socket_mode",
    "admin_group",
    "mac_ageing",
    "mac_table_size",
    "hugepages",
    "max_guest_memory",
    "metrics_listen",
    "protected_interfaces",
    "allow_mirror",
    "multicast_snooping",
];

/// Highest CPU number that can be named; the kernel's own limit on x86-64 (`NR_CPUS`) is 8192.
const CPU_MAX: u32 = 8191;
/// Most entries of the forwarding database that can be asked for.
const MAC_TABLE_MAX: u32 = 1 << 20;

/// The `[switch]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchConfig {
    /// CPUs of the polling workers, each once; empty: one worker that is not pinned.
    pub workers: Vec<usize>,
    /// Whether an idle worker sleeps.
    pub power: Power,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// Directory of the vhost-user sockets that have no path of their own.
    pub vhost_user_dir: PathBuf,
    /// Group of the guests' sockets, and of the control socket if it has none of its own; `None`: unchanged.
    pub socket_group: Option<String>,
    /// Group of the control socket; `None`: `socket_group`.
    pub control_group: Option<String>,
    /// Permission bits of the sockets.
    pub socket_mode: u32,
    /// Group whose members may change the switch; `None`: root alone.
    pub admin_group: Option<String>,
    /// Age at which a learned address is forgotten, whole seconds, at least 1.
    pub mac_ageing: Duration,
    /// Most addresses the forwarding database holds.
    pub mac_table_size: usize,
    /// Whether packet memory comes from huge pages.
    pub hugepages: Hugepages,
    /// Most memory of its guest that a vhost-user port maps, bytes; `None`: as much as the machine has.
    pub max_guest_memory: Option<u64>,
    /// Where metrics are served over HTTP; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Interfaces that are never opened, whatever a port says.
    pub protected_interfaces: Vec<String>,
    /// Whether ports that say nothing of it may be mirrored, and be the destination of mirrors.
    pub allow_mirror: bool,
    /// VLANs in which multicast frames go to who asked for them only.
    pub multicast_snooping: VlanSet,
}

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
            multicast_snooping: VlanSet::EMPTY,
        }
    }
}

impl SwitchConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<SwitchConfig, ConfigError> {
        section.check_keys(&KEYS, |_| None)?;
        let mut switch = SwitchConfig::default();
        if let Some(field) = section.get("workers") {
            switch.workers = workers(&field)?;
        }
        if let Some(field) = section.get("power") {
            switch.power = field.choice(&POWER)?;
        }
        if let Some(field) = section.get("control_socket") {
            switch.control_socket = field.checked("a socket path", names::socket_path)?.into();
        }
        if let Some(field) = section.get("vhost_user_dir") {
            switch.vhost_user_dir = field.checked("a directory", names::path)?.into();
        }
        if let Some(field) = section.get("socket_group") {
            switch.socket_group = Some(field.checked("the name of a group", names::group)?);
        }
        if let Some(field) = section.get("control_group") {
            switch.control_group = Some(field.checked("the name of a group", names::group)?);
        }
        if let Some(field) = section.get("socket_mode") {
            switch.socket_mode = permission_bits(&field)?;
        }
        if let Some(field) = section.get("admin_group") {
            switch.admin_group = Some(field.checked("the name of a group", names::group)?);
        }
        if let Some(field) = section.get("mac_ageing") {
            switch.mac_ageing = whole_seconds(&field)?;
        }
        if let Some(field) = section.get("mac_table_size") {
            let entries = field.integer("a number of table entries", 16..=MAC_TABLE_MAX)?;
            switch.mac_table_size = usize::try_from(entries).map_err(|error| field.error(error))?;
        }
        if let Some(field) = section.get("hugepages") {
            switch.hugepages = field.choice(&HUGEPAGES)?;
        }
        if let Some(field) = section.get("max_guest_memory") {
            switch.max_guest_memory = Some(memory_bytes(&field)?);
        }
        if let Some(field) = section.get("metrics_listen") {
            switch.metrics_listen = Some(socket_address(&field)?);
        }
        if let Some(field) = section.get("protected_interfaces") {
            for element in field.array("an array of interface names")? {
                switch.protected_interfaces.push(element.checked("an interface name", names::interface)?);
            }
        }
        if let Some(field) = section.get("allow_mirror") {
            switch.allow_mirror = field.choice(&ALLOW_MIRROR)?;
        }
        if let Some(field) = section.get("multicast_snooping") {
            switch.multicast_snooping = multicast_snooping(&field)?;
        }
        Ok(switch)
    }

    /// The keys in which `other` differs and which only a new start of the daemon can follow.
    pub fn restart_keys(&self, other: &SwitchConfig) -> Vec<&'static str> {
        let differs = [
            ("workers", self.workers != other.workers),
            ("control_socket", self.control_socket != other.control_socket),
            ("vhost_user_dir", self.vhost_user_dir != other.vhost_user_dir),
            ("control_group", self.control_group != other.control_group),
            ("admin_group", self.admin_group != other.admin_group),
            ("mac_table_size", self.mac_table_size != other.mac_table_size),
            ("hugepages", self.hugepages != other.hugepages),
            ("max_guest_memory", self.max_guest_memory != other.max_guest_memory),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// The first of the workers' CPUs that this machine does not have.
    pub(super) fn missing_cpu(&self) -> Option<usize> {
        let missing = |cpu: usize| !std::path::Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists();
        self.workers.iter().copied().find(|cpu| missing(*cpu))
    }

    /// Path of the socket of vhost-user port `port` that names none itself.
    pub fn default_socket(&self, port: &str) -> PathBuf {
        self.vhost_user_dir.join(format!("{port}.sock"))
    }

    /// As a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let word = |text: Option<&str>| toml::Value::from(text.unwrap_or_default());
        let path = |path: &std::path::Path| toml::Value::from(path.to_string_lossy().into_owned());
        let mut table = toml::Table::new();
        if !self.workers.is_empty() {
            let cpus = self.workers.iter().map(|cpu| i64::try_from(*cpu).unwrap_or_default().into());
            table.insert("workers".into(), toml::Value::Array(cpus.collect()));
        }
        table.insert("power".into(), word(word_of(&POWER, self.power)));
        table.insert("control_socket".into(), path(&self.control_socket));
        table.insert("vhost_user_dir".into(), path(&self.vhost_user_dir));
        if let Some(group) = &self.socket_group {
            table.insert("socket_group".into(), group.as_str().into());
        }
        if let Some(group) = &self.control_group {
            table.insert("control_group".into(), group.as_str().into());
        }
        table.insert("socket_mode".into(), permission_text(self.socket_mode).into());
        if let Some(group) = &self.admin_group {
            table.insert("admin_group".into(), group.as_str().into());
        }
        table.insert("mac_ageing".into(), format!("{}s", self.mac_ageing.as_secs()).into());
        table.insert("mac_table_size".into(), i64::try_from(self.mac_table_size).unwrap_or(i64::MAX).into());
        table.insert("hugepages".into(), word(word_of(&HUGEPAGES, self.hugepages)));
        if let Some(bytes) = self.max_guest_memory {
            table.insert("max_guest_memory".into(), memory_text(bytes).into());
        }
        if let Some(address) = self.metrics_listen {
            table.insert("metrics_listen".into(), address.to_string().into());
        }
        table.insert("protected_interfaces".into(), self.protected_interfaces.clone().into());
        table.insert("allow_mirror".into(), word(word_of(&ALLOW_MIRROR, self.allow_mirror)));
        let snooping = match &self.multicast_snooping {
            none if none.is_empty() => false.into(),
            all if *all == VlanSet::ALL => true.into(),
            some => vlan::set_to_toml(some),
        };
        table.insert("multicast_snooping".into(), snooping);
        table
    }
}

/// The word for `value`.
fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: T) -> Option<&'static str> {
    words.iter().find(|(_, candidate)| *candidate == value).map(|(word, _)| *word)
}

/// `true` and `false` for all VLANs and none, or an array of them.
fn multicast_snooping(field: &Field<'_>) -> Result<VlanSet, ConfigError> {
    match field.as_boolean() {
        Some(true) => Ok(VlanSet::ALL),
        Some(false) => Ok(VlanSet::EMPTY),
        None if field.is_array() => vlan::vlan_set(field),
        None => Err(field.wrong_type("true, false or an array of VLAN ids and ranges, as in [10, \"20-29\"]")),
    }
}

fn workers(field: &Field<'_>) -> Result<Vec<usize>, ConfigError> {
    let mut cpus = Vec::new();
    for element in field.array("an array of CPU numbers, as in [1, 2]")? {
        if cpus.len() == MAX_WORKERS {
            return Err(element.error(format_args!("is one worker too many; a switch has at most {MAX_WORKERS}")));
        }
        let cpu = element.integer("a CPU number", 0..=CPU_MAX)?;
        let cpu = usize::try_from(cpu).map_err(|error| element.error(error))?;
        if cpus.contains(&cpu) {
            return Err(element.error(format_args!("CPU {cpu} has a worker already; name each CPU once")));
        }
        cpus.push(cpu);
    }
    Ok(cpus)
}

/// `"127.0.0.1:9477"`, `"[::1]:9477"`.
fn socket_address(field: &Field<'_>) -> Result<SocketAddr, ConfigError> {
    let text = field.string("an address and a port, as in \"127.0.0.1:9477\"")?;
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    address.ok_or_else(|| {
        field.error(format_args!(
            "{text:?} is not an IP address and a port (as in \"127.0.0.1:9477\" or \"[::1]:9477\")"
        ))
    })
}

/// Permission bits as they are written.
pub(super) fn permission_text(bits: u32) -> String {
    format!("{bits:04o}")
}

/// `"0660"`, in octal.
pub(super) fn permission_bits(field: &Field<'_>) -> Result<u32, ConfigError> {
    let text = field.string("permission bits in octal, as in \"0660\"")?;
    let octal = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
    bits.ok_or_else(|| field.error(format_args!("{text:?} is not permission bits in octal (\"0000\" to \"0777\")")))
}

/// Units of memory, the largest first.
const MEMORY_UNITS: [(&str, u64); 2] = [("GiB", 1 << 30), ("MiB", 1 << 20)];

/// `"64GiB"`, `"512MiB"`: at least 1 MiB, at most 1 PiB.
fn memory_bytes(field: &Field<'_>) -> Result<u64, ConfigError> {
    let text = field.string("an amount of memory, as in \"64GiB\"")?;
    let split = MEMORY_UNITS.iter().find_map(|&(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), bytes)));
    let amount = split.and_then(|(number, unit)| number.parse::<u64>().ok()?.checked_mul(unit));
    amount.filter(|bytes| (1 << 20..=1 << 50).contains(bytes)).ok_or_else(|| {
        field.error(format_args!(
            "{text:?} is not an amount of memory (as in \"64GiB\" or \"512MiB\", 1MiB to 1048576GiB)"
        ))
    })
}

/// So many bytes, whole MiB, as [`memory_bytes`] reads them.
fn memory_text(bytes: u64) -> String {
    let unit = MEMORY_UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit)).unwrap_or(&MEMORY_UNITS[1]);
    format!("{}{}", bytes / unit.1, unit.0)
}

/// `"300s"`, `"5min"`: whole seconds, at least one, at most a year.
fn whole_seconds(field: &Field<'_>) -> Result<Duration, ConfigError> {
    let text = field.string("a time, as in \"300s\"")?;
    let time = humantime::parse_duration(text);
    let limits = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600);
    let time = time.ok().filter(|time| limits.contains(time) && time.subsec_nanos() == 0);
    time.ok_or_else(|| {
        field.error(format_args!("{text:?} is not a time in whole seconds (as in \"300s\", 1s to 365days)"))
    })
}
