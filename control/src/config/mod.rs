//! The configuration: TOML in, validated typed data out.
//!
//! [`Config::load`] reads a file, [`Config::parse`] a text, [`Config::read`] a text with every mistake in it. A result
//! has been checked as far as possible without the machine (a file also for CPUs that the machine does not have):
//! types, ranges, names, unknown keys, and by [`validate()`] the references between ports, mirrors, inline sensors and
//! impairments.
//! Nothing is touched. A mistake is a [`ConfigError`], one line: `FILE:LINE:COLUMN: ports.dc01.vlan.tag: 5000 is not a
//! VLAN id (1 to 4094)`.
//!
//! The [`model`](crate::model) defines the settings.
//!
//! | file | content |
//! |---|---|
//! | `source`, `error` | places in the text, and errors that have one |
//! | `validate` | references between the nouns of a configuration |
//! | `claims` | things that two ports cannot share |
//! | `edit` | a configuration written into a file that people keep |
//! | `schema` | the JSON schema of the file, for editors |
//! | `short` | short spellings of VLANs in settings of commands |
//! | `settings` | `--set key=value` of commands, and settings of the control socket |

mod claims;
mod edit;
mod error;
mod schema;
mod settings;
mod short;
mod source;
#[cfg(test)]
mod tests;
mod validate;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::filter;

pub use error::{ConfigError, ConfigErrors, Place};
pub use settings::{Settings, split as split_setting};
use source::Source;
pub use validate::validate;

pub use crate::model::port::*;
pub use crate::model::{
    Accelerate, DeviceSpec, Diagnostic, Hugepages, ImpairConfig, ImpairDirection, ImpairSettings, InjectConfig,
    InjectEntry, InlineConfig, MirrorConfig, MirrorRefusal, MirrorSource, MirrorTo, OnFailure, Power, ProfileConfig,
    SwitchConfig,
};
use crate::model::{MAX_INLINES, Path as KeyPath, Reader, Tree, names};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The `[switch]` table.
    pub switch: SwitchConfig,
    /// The ports, in the order of the file.
    pub ports: Vec<PortConfig>,
    /// The mirrors, in the order of the file.
    pub mirrors: Vec<MirrorConfig>,
    /// The sensors in the wires of ports, in the order of the file.
    pub inlines: Vec<InlineConfig>,
    /// The impairment profiles, in the order of the file; without the built-in ones.
    pub profiles: Vec<ProfileConfig>,
    /// The impairments, in the order of the file.
    pub impairments: Vec<ImpairConfig>,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse_here(&Config::read_text(path)?, &path.to_string_lossy())
    }

    /// The same as [`Config::load`], with every mistake.
    pub fn load_all(path: &Path) -> Result<Config, ConfigErrors> {
        Config::read_here(&Config::read_text(path)?, &path.to_string_lossy())
    }

    /// Reads the text of the file at `path`.
    pub fn read_text(path: &Path) -> Result<String, ConfigError> {
        let name = path.to_string_lossy();
        let file = File::open(path)
            .map_err(|error| ConfigError::new(None, "", &format!("{name}: cannot be read: {error}")))?;
        Config::read_from(file, &name)
    }

    /// Reads the text of a file, at most [`MAX_FILE_BYTES`]; `name` is its name in errors.
    pub fn read_from(file: impl Read, name: &str) -> Result<String, ConfigError> {
        let wrong = |message: &str| ConfigError::new(None, "", &format!("{name}: {message}"));
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(wrong(&format!("has more than {MAX_FILE_BYTES} bytes")));
        }
        String::from_utf8(text).map_err(|error| wrong(&format!("is not UTF-8 text: {error}")))
    }

    /// The same as [`Config::parse`], and checks that this machine has the CPUs of the workers.
    pub fn parse_here(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        Config::read_here(text, file_name).map_err(first)
    }

    /// The same as [`Config::read`], and checks that this machine has the CPUs of the workers.
    pub fn read_here(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
        let config = Config::read(text, file_name)?;
        match config.switch.missing_cpu() {
            None => Ok(config),
            Some(cpu) => {
                let message = format!("this machine has no CPU {cpu}; `lscpu -e` shows those there are");
                Err(Config::complaint_in(text, file_name, "switch.workers", &message).into())
            }
        }
    }

    /// Reads and checks `text`; `file_name` is its name in errors.
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        Config::read(text, file_name).map_err(first)
    }

    /// Reads and checks `text`; `file_name` is its name in errors.
    ///
    /// # Errors
    /// Every mistake (the first [`MAX_DIAGNOSTICS`](crate::model::MAX_DIAGNOSTICS) of them), in the order of the text.
    pub fn read(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
        let source = Source { file: Some(file_name), text };
        let tree = source.tree()?;
        let filter_bytes = tree.bytes_of("filter");
        if filter_bytes > filter::MAX_TOTAL_BYTES {
            let most = filter::MAX_TOTAL_BYTES;
            let message = format!("the filters have {filter_bytes} bytes together; at most {most} are allowed");
            return Err(source.error(0, "", &message).into());
        }
        let mut reader = Reader::default();
        let config = read_tables(&tree, &mut reader);
        let mut found = reader.finish();
        let ports: Vec<&str> = tree.get("ports").into_iter().flat_map(Tree::keys).collect();
        found.extend(validate::among(&config, &ports));
        if found.is_empty() {
            return Ok(config);
        }
        found.sort_by_key(|diagnostic| tree.place(&diagnostic.path, diagnostic.of_key));
        found.truncate(crate::model::MAX_DIAGNOSTICS);
        Err(ConfigErrors(found.iter().map(|diagnostic| source.diagnosed(&tree, diagnostic)).collect()))
    }

    /// An error about `key` (dotted, as `ports.dc01.device`) that was found after the file was read. Its place is that
    /// of the longest part of the key that the file has.
    pub fn complaint(path: &Path, key: &str, message: &str) -> ConfigError {
        Config::complaint_in(&Config::read_text(path).unwrap_or_default(), &path.to_string_lossy(), key, message)
    }

    /// The same as [`Config::complaint`], for the text of a file.
    pub fn complaint_in(text: &str, file_name: &str, key: &str, message: &str) -> ConfigError {
        let source = Source { file: Some(file_name), text };
        let offset = source.tree().map_or(0, |tree| tree.place(&source::path_of(&tree, key), true));
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

    /// The inline sensor called `name`.
    pub fn inline(&self, name: &str) -> Option<&InlineConfig> {
        self.inlines.iter().find(|inline| inline.name == name)
    }

    /// The impairment of the port called `name`.
    pub fn impairment(&self, name: &str) -> Option<&ImpairConfig> {
        self.impairments.iter().find(|impairment| impairment.port == name)
    }

    /// This configuration in a normal form: attachments' settings equal to their defaults are left out, and tables are
    /// in order of name. Two configurations that mean the same have the same normal form.
    pub fn normalised(&self) -> Config {
        let mut config = self.clone();
        for port in &mut config.ports {
            port.normalise(&self.switch);
        }
        config.ports.sort_by(|a, b| a.name.cmp(&b.name));
        config.mirrors.sort_by(|a, b| a.name.cmp(&b.name));
        config.inlines.sort_by(|a, b| a.name.cmp(&b.name));
        config.profiles.sort_by(|a, b| a.name.cmp(&b.name));
        config.impairments.sort_by(|a, b| a.port.cmp(&b.port));
        for mirror in &mut config.mirrors {
            mirror.sources.sort_by(|a, b| a.port.cmp(&b.port));
        }
        config
    }

    /// The text of a file, changed so that it reads as this configuration: comments, order and spelling stay.
    /// `file_name` is its name in errors.
    ///
    /// # Errors
    /// The mistakes of the text.
    pub fn written_into(&self, text: &str, file_name: &str) -> Result<String, ConfigErrors> {
        edit::written_into(self, text, file_name)
    }

    /// The configuration as a table that [`Config::parse`] reads as the same configuration (tables in order of name).
    pub fn to_toml(&self) -> toml::Table {
        let ports = self.ports.iter().map(|port| (port.name.clone(), port.to_toml().into()));
        let mirrors = self.mirrors.iter().map(|mirror| (mirror.name.clone(), mirror.to_toml().into()));
        let inlines = self.inlines.iter().map(|inline| (inline.name.clone(), inline.to_toml().into()));
        let profiles = self.profiles.iter().map(|profile| (profile.name.clone(), profile.to_toml().into()));
        let impairments = self.impairments.iter().map(|impair| (impair.port.clone(), impair.to_toml().into()));
        let mut table = toml::Table::new();
        table.insert("switch".into(), self.switch.to_toml().into());
        table.insert("ports".into(), toml::Value::Table(ports.collect()));
        table.insert("mirrors".into(), toml::Value::Table(mirrors.collect()));
        if !self.inlines.is_empty() {
            table.insert("inline".into(), toml::Value::Table(inlines.collect()));
        }
        table.insert("profiles".into(), toml::Value::Table(profiles.collect()));
        table.insert("impair".into(), toml::Value::Table(impairments.collect()));
        table
    }
}

/// The most bytes of a file: as many as a call on the control socket, which carries the text of one, may have.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The most profiles of a configuration.
const MAX_PROFILES: usize = 256;

/// The first of several errors.
fn first(errors: ConfigErrors) -> ConfigError {
    errors.0.into_iter().next().unwrap_or_else(|| ConfigError::new(None, "", "cannot be read"))
}

/// Reads all nouns.
fn read_tables(tree: &Tree, reader: &mut Reader) -> Config {
    reader.check_keys(tree, &["switch", "ports", "mirrors", "inline", "profiles", "impair"], |_| None);
    reader.set_prefix(KeyPath::of(["switch"]));
    let switch = tree.get("switch").and_then(|table| reader.read(table)).unwrap_or_default();
    let ports = named_tables(tree, reader, ["ports", "port"], labsw_switch::MAX_PORTS, |name, table, reader| {
        PortConfig::read(name, table, &switch, reader)
    });
    let mirrors = named_tables(tree, reader, ["mirrors", "mirror"], labsw_switch::MAX_MIRRORS, MirrorConfig::read);
    let inlines = named_tables(tree, reader, ["inline", "inline"], MAX_INLINES, InlineConfig::read);
    let profiles = named_tables(tree, reader, ["profiles", "profile"], MAX_PROFILES, ProfileConfig::read);
    let names: Vec<&str> = tree.get("ports").into_iter().flat_map(Tree::keys).collect();
    let impaired = |port: &str, table: &Tree, reader: &mut Reader| {
        if !names.contains(&port) {
            reader.note(&KeyPath::default(), true, validate::no_port(port, &names));
            return None;
        }
        ImpairConfig::read(port, table, &profiles, reader)
    };
    let impairments = named_tables(tree, reader, ["impair", "port"], labsw_switch::MAX_PORTS, impaired);
    Config { switch, ports, mirrors, inlines, profiles, impairments }
}

/// `an` or `a`, for a kind of noun.
fn article(what: &str) -> &'static str {
    if what.starts_with('i') { "an" } else { "a" }
}

/// Reads the tables of `key`, at most `limit`, each with a legal name of its own; `what` is the kind of noun.
fn named_tables<T>(
    root: &Tree,
    reader: &mut Reader,
    [key, what]: [&str; 2],
    limit: usize,
    read: impl Fn(&str, &Tree, &mut Reader) -> Option<T>,
) -> Vec<T> {
    let group = KeyPath::of([key]);
    reader.set_prefix(group.clone());
    let Some(tables) = root.get(key).filter(|tables| reader.is_table(tables)) else {
        return Vec::new();
    };
    if let Some(excess) = tables.keys().nth(limit) {
        let wrong = format!("is one {what} too many; a switch has at most {limit}");
        reader.note(&KeyPath::of([excess]), true, wrong);
    }
    let mut found = Vec::new();
    for name in tables.keys().take(limit) {
        reader.set_prefix(group.key(name));
        if let Err(wrong) = names::port(name) {
            reader.note(&KeyPath::default(), true, format!("{name:?} is not {} {what} name: {wrong}", article(what)));
            continue;
        }
        let table = tables.get(name).filter(|table| reader.is_table(table));
        found.extend(table.and_then(|table| read(name, table, reader)));
    }
    found
}
