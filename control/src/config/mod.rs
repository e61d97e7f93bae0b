//! The configuration: TOML in, validated typed data out.
//!
//! [`Config::load`] reads a file, [`Config::parse`] a text. Whatever comes out has been checked as far as it can be
//! without looking at the machine (a file is also checked for CPUs that it does not have): types, ranges, names, keys
//! that do not exist, ports that get in each other's way, mirrors from and to ports that are there. Nothing is touched.
//! The first thing wrong is one [`ConfigError`], one line: `FILE:LINE:COLUMN: ports.dc01.vlan.tag: 5000 is not a VLAN
//! id (1 to 4094)`.
//!
//! | file | what |
//! |---|---|
//! | `section` | tables and values that know their path and place |
//! | `switch`, `port`, `vlan`, `mirror`, `inject`, `impair` | the reader of each table |
//! | `frame_rate` | frames per second |
//! | `claims` | what two ports cannot share |
//! | `settings` | `--set key=value` of commands, read by the same readers |
//!
//! Keys of the contract that this version does not serve are refused by name rather than ignored.

mod claims;
mod destination;
mod error;
mod frame_rate;
mod impair;
mod inject;
mod mirror;
mod names;
mod port;
mod section;
mod settings;
mod switch;
mod vlan;

#[cfg(test)]
mod tests;

use std::path::Path;

use toml::de::DeTable;

use crate::filter;

pub use destination::MirrorTo;
pub use error::{ConfigError, Place};
pub use impair::{ImpairConfig, ImpairDirection, ProfileConfig, Settings as ImpairSettings};
pub use inject::{InjectConfig, InjectEntry, parse_rate, rate_text};
pub use mirror::{MirrorConfig, MirrorRefusal, MirrorSource};
use names::SOCKET_PATH_BYTES;
pub use port::{
    AfXdpConfig, DeviceSpec, MTU_DEFAULT, MTU_MAX, MTU_MIN, PortConfig, PortKind, Queues, TapConfig, TapEnd,
    VethConfig, VhostRole, VhostUserConfig, XdpMode, default_interface,
};
use section::{Field, Section, Source};
pub use settings::split as split_setting;
pub use switch::{Hugepages, Power, SwitchConfig};
pub use vlan::{ethertype as tunnel_ethertype, to_toml as vlan_to_toml};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The `[switch]` table.
    pub switch: SwitchConfig,
    /// The ports, in the order of the file.
    pub ports: Vec<PortConfig>,
    /// The mirrors, in the order of the file.
    pub mirrors: Vec<MirrorConfig>,
    /// The impairment profiles, in the order of the file; those built in are not among them.
    pub profiles: Vec<ProfileConfig>,
    /// The impairments, in the order of the file.
    pub impairments: Vec<ImpairConfig>,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse_here(&Config::read_text(path)?, &path.to_string_lossy())
    }

    /// Reads the text of the file at `path`.
    pub fn read_text(path: &Path) -> Result<String, ConfigError> {
        let name = path.to_string_lossy();
        let text = std::fs::read(path)
            .map_err(|error| ConfigError::new(None, "", &format!("{name}: cannot be read: {error}")))?;
        String::from_utf8(text)
            .map_err(|error| ConfigError::new(None, "", &format!("{name}: is not UTF-8 text: {error}")))
    }

    /// As [`Config::parse`], and checks that this machine has the CPUs it names.
    pub fn parse_here(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        let config = Config::parse(text, file_name)?;
        if let Some(cpu) = config.switch.missing_cpu() {
            let message = format!("this machine has no CPU {cpu}; `lscpu -e` shows those there are");
            return Err(Config::complaint_in(text, file_name, "switch.workers", &message));
        }
        Ok(config)
    }

    /// Reads and checks `text`; `file_name` is what errors call it.
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        let source = Source { file: Some(file_name), text };
        let table = DeTable::parse(text).map_err(|error| source.parse_error("", &error))?;
        let filter_bytes = filter::total_bytes(table.get_ref());
        if filter_bytes > filter::MAX_TOTAL_BYTES {
            let most = filter::MAX_TOTAL_BYTES;
            let message = format!("the filters have {filter_bytes} bytes together; at most {most} are allowed");
            return Err(source.error(0, "", &message));
        }
        let root = Section::root(source, "", &table);
        root.check_keys(&["switch", "ports", "mirrors", "profiles", "impair"], |_| None)?;
        let switch = match root.get("switch") {
            Some(field) => SwitchConfig::read(&field.section()?)?,
            None => SwitchConfig::default(),
        };
        let ports = read_ports(&root, &switch)?;
        let mirrors = read_mirrors(&root, &ports)?;
        let profiles = read_profiles(&root)?;
        let impairments = read_impairments(&root, &ports, &profiles)?;
        Ok(Config { switch, ports, mirrors, profiles, impairments })
    }

    /// A complaint about `key` (dotted, as `ports.dc01.device`) that came up after the file was read, with its place: that
    /// of the longest part of the key that the file has.
    pub fn complaint(path: &Path, key: &str, message: &str) -> ConfigError {
        Config::complaint_in(&std::fs::read_to_string(path).unwrap_or_default(), &path.to_string_lossy(), key, message)
    }

    /// As [`Config::complaint`], about the text of a file.
    pub fn complaint_in(text: &str, file_name: &str, key: &str, message: &str) -> ConfigError {
        let source = Source { file: Some(file_name), text };
        let offset = DeTable::parse(text).map_or(0, |table| section::offset_of(&table, key));
        source.error(offset, key, message)
    }

    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&PortConfig> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// The mirror called `name`.
    pub fn mirror(&self, name: &str) -> Option<&MirrorConfig> {
        self.mirrors.iter().find(|mirror| mirror.name == name)
    }

    /// The impairment of the port called `name`.
    pub fn impairment(&self, name: &str) -> Option<&ImpairConfig> {
        self.impairments.iter().find(|impairment| impairment.port == name)
    }

    /// This configuration with what a port's defaults are written out or left out alike, so that two that mean the same
    /// are equal, and in order of name.
    pub fn normalised(&self) -> Config {
        let mut config = self.clone();
        for port in &mut config.ports {
            port.normalise(&self.switch);
        }
        config.ports.sort_by(|a, b| a.name.cmp(&b.name));
        config.mirrors.sort_by(|a, b| a.name.cmp(&b.name));
        config.profiles.sort_by(|a, b| a.name.cmp(&b.name));
        config.impairments.sort_by(|a, b| a.port.cmp(&b.port));
        for mirror in &mut config.mirrors {
            mirror.sources.sort_by(|a, b| a.port.cmp(&b.port));
        }
        config
    }

    /// As a table that [`Config::parse`] reads to the same configuration (its tables in order of name).
    pub fn to_toml(&self) -> toml::Table {
        let ports = self.ports.iter().map(|port| (port.name.clone(), port.to_toml().into()));
        let mirrors = self.mirrors.iter().map(|mirror| (mirror.name.clone(), mirror.to_toml().into()));
        let profiles = self.profiles.iter().map(|profile| (profile.name.clone(), profile.to_toml().into()));
        let impairments = self.impairments.iter().map(|impair| (impair.port.clone(), impair.to_toml().into()));
        let mut table = toml::Table::new();
        table.insert("switch".into(), self.switch.to_toml().into());
        table.insert("ports".into(), toml::Value::Table(ports.collect()));
        table.insert("mirrors".into(), toml::Value::Table(mirrors.collect()));
        table.insert("profiles".into(), toml::Value::Table(profiles.collect()));
        table.insert("impair".into(), toml::Value::Table(impairments.collect()));
        table
    }
}

/// The tables of `key`, at most `limit`, each with a name of its own that is legal.
fn named_tables<'a>(root: &Section<'a>, key: &str, what: &str, limit: usize) -> Result<Vec<Field<'a>>, ConfigError> {
    let Some(field) = root.get(key) else {
        return Ok(Vec::new());
    };
    let fields = field.section()?.fields();
    if let Some(excess) = fields.get(limit) {
        return Err(excess.key_error(format_args!("is one {what} too many; a switch has at most {limit}")));
    }
    for field in &fields {
        let name = field.key;
        names::port(name).map_err(|wrong| field.key_error(format_args!("{name:?} is not a {what} name: {wrong}")))?;
    }
    Ok(fields)
}

fn read_ports(root: &Section<'_>, switch: &SwitchConfig) -> Result<Vec<PortConfig>, ConfigError> {
    let mut ports: Vec<PortConfig> = Vec::new();
    for field in named_tables(root, "ports", "port", labsw_switch::MAX_PORTS)? {
        let section = field.section()?;
        let port = PortConfig::read(field.key, &section, switch)?;
        port.conflict(&ports, switch).map_err(|(key, message)| section.error_at(key, message))?;
        ports.push(port);
    }
    Ok(ports)
}

fn read_mirrors(root: &Section<'_>, ports: &[PortConfig]) -> Result<Vec<MirrorConfig>, ConfigError> {
    let port_names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let mut mirrors: Vec<MirrorConfig> = Vec::new();
    for field in named_tables(root, "mirrors", "mirror", labsw_switch::MAX_MIRRORS)? {
        let section = field.section()?;
        let mirror = MirrorConfig::read(field.key, &section)?;
        if let Some((key, name)) = mirror.missing_port(&port_names) {
            return Err(section.error_at(key, no_port(name, &port_names)));
        }
        mirror.check_beside(&mirrors, ports).map_err(|refusal| section.error_at(refusal.key(), &refusal))?;
        mirrors.push(mirror);
    }
    Ok(mirrors)
}

/// The most profiles of a configuration.
const MAX_PROFILES: usize = 256;

fn read_profiles(root: &Section<'_>) -> Result<Vec<ProfileConfig>, ConfigError> {
    let fields = named_tables(root, "profiles", "profile", MAX_PROFILES)?;
    fields.iter().map(|field| ProfileConfig::read(field.key, &field.section()?)).collect()
}

fn read_impairments(
    root: &Section<'_>,
    ports: &[PortConfig],
    profiles: &[ProfileConfig],
) -> Result<Vec<ImpairConfig>, ConfigError> {
    let port_names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let mut impairments = Vec::new();
    for field in named_tables(root, "impair", "port", labsw_switch::MAX_PORTS)? {
        if !port_names.contains(&field.key) {
            return Err(field.key_error(no_port(field.key, &port_names)));
        }
        impairments.push(ImpairConfig::read(field.key, &field.section()?, profiles)?);
    }
    Ok(impairments)
}

/// What to say of a port that is not there.
fn no_port(name: &str, ports: &[&str]) -> String {
    match section::nearest(name, ports) {
        Some(near) => format!("there is no port {name:?}; did you mean {near:?}?"),
        None => format!("there is no port {name:?}; add it under [ports], or name one that is there"),
    }
}
