//! The `[mirrors.NAME]` tables: what is copied, and where to.

use labsw_switch::Vid;
use labsw_switch::vlan::VlanSet;

use super::destination::MirrorTo;
use super::error::ConfigError;
use super::inject::InjectConfig;
use super::names;
use super::port::PortConfig;
use super::section::{Field, Section};
use super::settings;
use super::vlan;
use crate::filter::Expression;

/// Shortest copy: an Ethernet header.
const SNAPLEN_MIN: u32 = 14;
/// Shortest copy to a VLAN: an Ethernet header with its tag, and the two bytes behind it without which Linux drops a tagged frame
/// (`skb_vlan_untag`).
const SNAPLEN_MIN_TAGGED: u32 = 20;
/// Longest copy that is still shorter than a whole frame can be.
const SNAPLEN_MAX: u32 = 65535;

/// As much of a filter is repeated in a complaint, characters.
const SHOWN_CHARS: usize = 80;

const KEYS: [&str; 8] = ["sources", "vlans", "filter", "snaplen", "to", "to_vlan", "force", "inject"];

/// Why a session can't be beside the others and of these ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorRefusal {
    /// It has the destination of another as a source.
    #[error("{port:?} is the destination of mirror {other:?}, so it can't be a source")]
    SourceIsDestination {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// Its destination is a source of another.
    #[error("{port:?} is a source of mirror {other:?}, so it can't be a destination")]
    DestinationIsSource {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// It has a port as a source that only sends copies.
    #[error("{0:?} is mirror_only, so it can't be a source")]
    SourceOnlySends(String),
    /// It has a port as a source that may not be mirrored.
    #[error(
        "{0:?} can't be a source: its allow_mirror is false; set allow_mirror = true at the port if it may be mirrored"
    )]
    SourceNotAllowed(String),
    /// Its destination may not be one.
    #[error(
        "{0:?} can't be a destination: its allow_mirror is false; set allow_mirror = true at the port if it may be one"
    )]
    DestinationNotAllowed(String),
    /// Its VLAN is the one of untagged frames of a port.
    #[error(
        "VLAN {vid} is the VLAN of untagged frames of port {port:?}, which would be cut off; take a VLAN that no port uses, or force it"
    )]
    VlanInUse {
        /// The VLAN.
        vid: Vid,
        /// The port.
        port: String,
    },
    /// What it injects would be judged as received on a port that only gets copies.
    #[error("as_port: {0:?} is a mirror destination, which takes nothing in; name a port of the lab, or use `vlan`")]
    InjectAsDestination(String),
    /// What it injects would be judged as received on a port that may not be used so.
    #[error(
        "as_port: allow_mirror of {0:?} is false; set allow_mirror = true at the port if frames may be injected as its"
    )]
    InjectAsNotAllowed(String),
    /// Its destination is what another injects as.
    #[error("frames are injected as those of {port:?} by mirror {other:?}, so it can't be a destination")]
    DestinationIsEntry {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// Another mirror to the same destination says otherwise.
    #[error(
        "mirror {other:?} to {port:?} injects otherwise; one destination injects in one way, and one mirror to it is enough to say so"
    )]
    InjectsOtherwise {
        /// The destination.
        port: String,
        /// The other mirror.
        other: String,
    },
}

impl MirrorRefusal {
    /// The key of the mirror's table that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            MirrorRefusal::DestinationIsSource { .. }
            | MirrorRefusal::DestinationIsEntry { .. }
            | MirrorRefusal::DestinationNotAllowed(_) => "to",
            MirrorRefusal::VlanInUse { .. } => "to_vlan",
            MirrorRefusal::InjectAsDestination(_)
            | MirrorRefusal::InjectAsNotAllowed(_)
            | MirrorRefusal::InjectsOtherwise { .. } => "inject",
            MirrorRefusal::SourceIsDestination { .. }
            | MirrorRefusal::SourceOnlySends(_)
            | MirrorRefusal::SourceNotAllowed(_) => "sources",
        }
    }
}

/// One mirror session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// Its name, unique among the mirrors.
    pub name: String,
    /// What is copied: each port once, never empty.
    pub sources: Vec<MirrorSource>,
    /// Frames of these VLANs only; `None`: all.
    pub vlans: Option<VlanSet>,
    /// Frames that it selects only; `None`: all.
    pub filter: Option<Expression>,
    /// Copies end after this many bytes; 0: whole frames.
    pub snaplen: u32,
    /// Who gets the copies.
    pub to: MirrorTo,
    /// What that port may inject; `None`: what this mirror says of it is nothing.
    pub inject: Option<InjectConfig>,
}

/// A port whose frames are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSource {
    /// The port, or `*` for every port but destinations and those that may not be mirrored.
    pub port: String,
    /// Frames received from it.
    pub rx: bool,
    /// Frames sent to it.
    pub tx: bool,
}

impl MirrorConfig {
    /// A mirror from a command: `labsw-ctl mirror set NAME --source PORT[:rx|:tx|:both]… --vlan N… --filter EXPR --to PORT`. `more` are
    /// further keys with their values, as TOML: `to_vlan` and what goes with it, `inject`.
    pub fn from_parts(
        name: &str,
        sources: &[String],
        vlans: &[u16],
        filter: Option<&str>,
        snaplen: u32,
        to: Option<&str>,
        more: &[(String, String)],
    ) -> Result<MirrorConfig, ConfigError> {
        let array = |elements: Vec<String>| format!("[{}]", elements.join(", "));
        let mut set = vec![
            ("sources".to_owned(), array(sources.iter().map(|source| settings::quoted(source)).collect())),
            ("snaplen".to_owned(), snaplen.to_string()),
        ];
        set.extend(to.map(|to| ("to".to_owned(), settings::quoted(to))));
        if !vlans.is_empty() {
            set.push(("vlans".to_owned(), array(vlans.iter().map(u16::to_string).collect())));
        }
        set.extend_from_slice(more);
        set.extend(filter.map(|filter| ("filter".to_owned(), settings::quoted(filter))));
        settings::read(&format!("mirrors.{name}"), &set, |section| {
            names::port(name).map_err(|wrong| section.error(format_args!("{name:?} is not a mirror name: {wrong}")))?;
            MirrorConfig::read(name, section)
        })
    }

    pub(super) fn read(name: &str, section: &Section<'_>) -> Result<MirrorConfig, ConfigError> {
        section.check_keys(&KEYS, |_| None)?;
        let sources = read_sources(&section.require("sources", "an array of PORT[:rx|:tx|:both]")?)?;
        let to = MirrorTo::read(section)?;
        let vlans = section.get("vlans").map(|field| vlan::vlan_set(&field)).transpose()?;
        let filter = section.get("filter").map(|field| read_filter(&field)).transpose()?;
        let snaplen_min = if to.vlan().is_some() { SNAPLEN_MIN_TAGGED } else { SNAPLEN_MIN };
        let snaplen = section.get("snaplen").map(|field| read_snaplen(&field, snaplen_min)).transpose()?;
        if let Some(to) = to.port()
            && sources.iter().any(|source| source.port == to)
        {
            return Err(section.error_at("to", format_args!("{to:?} is also a source; a mirror cannot feed itself")));
        }
        if let Some(vid) = to.vlan()
            && vlans.as_ref().is_some_and(|vlans: &VlanSet| vlans.contains(vid))
        {
            let reason = format_args!("VLAN {vid} is also one of `vlans`; a mirror cannot feed itself");
            return Err(section.error_at("to_vlan", reason));
        }
        let inject = match section.get("inject") {
            Some(field) => Some(InjectConfig::read(&field.section()?)?),
            None => None,
        };
        if inject.is_some() && to.vlan().is_some() {
            let reason = "can't stand beside `to_vlan`; only a port that takes nothing but copies can inject";
            return Err(section.error_at("inject", reason));
        }
        if let Some(to) = to.port()
            && inject.as_ref().is_some_and(|inject| inject.as_port() == Some(to))
        {
            return Err(section.error_at("inject", MirrorRefusal::InjectAsDestination(to.to_owned())));
        }
        Ok(MirrorConfig { name: name.to_owned(), sources, vlans, filter, snaplen: snaplen.unwrap_or(0), to, inject })
    }

    /// The first key that names a port which is not in `ports`, and that port.
    pub fn missing_port(&self, ports: &[&str]) -> Option<(&'static str, &str)> {
        let absent = |name: &str| name != "*" && !ports.contains(&name);
        let source = self.sources.iter().find(|source| absent(&source.port)).map(|s| ("sources", s.port.as_str()));
        let to = || self.to.port().filter(|port| absent(port)).map(|port| ("to", port));
        let entry = || self.enters_as().filter(|port| absent(port)).map(|port| ("inject", port));
        source.or_else(to).or_else(entry)
    }

    /// The port as whose its destination injects.
    pub fn enters_as(&self) -> Option<&str> {
        self.inject.as_ref().and_then(InjectConfig::as_port)
    }

    /// Checks this mirror against `others` (one of its own name is passed over) and the ports: it must not copy its own
    /// copies, nor those of another mirror, and a port may not allow it.
    pub fn check_beside<'m, 'p>(
        &self,
        others: impl IntoIterator<Item = &'m MirrorConfig>,
        ports: impl IntoIterator<Item = &'p PortConfig> + Clone,
    ) -> Result<(), MirrorRefusal> {
        let port = |name: &str| ports.clone().into_iter().find(|port| port.name == name);
        for other in others.into_iter().filter(|other| other.name != self.name) {
            let name = || other.name.clone();
            if let Some(to) = other.to.port() {
                let to = to.to_owned();
                if self.sources.iter().any(|source| source.port == to) {
                    return Err(MirrorRefusal::SourceIsDestination { port: to, other: name() });
                }
                if self.enters_as() == Some(&to) {
                    return Err(MirrorRefusal::InjectAsDestination(to));
                }
            }
            let Some(to) = self.to.port() else { continue };
            let to = to.to_owned();
            if other.sources.iter().any(|source| source.port == to) {
                return Err(MirrorRefusal::DestinationIsSource { port: to, other: name() });
            }
            if other.enters_as() == Some(&to) {
                return Err(MirrorRefusal::DestinationIsEntry { port: to, other: name() });
            }
            let both = self.inject.as_ref().zip(other.inject.as_ref()).filter(|_| self.to == other.to);
            if both.is_some_and(|(own, others)| own != others) {
                return Err(MirrorRefusal::InjectsOtherwise { port: to, other: name() });
            }
        }
        for source in self.sources.iter().filter_map(|source| port(&source.port)) {
            if source.mirror_only {
                return Err(MirrorRefusal::SourceOnlySends(source.name.clone()));
            }
            if !source.allow_mirror {
                return Err(MirrorRefusal::SourceNotAllowed(source.name.clone()));
            }
        }
        if let Some(entry) = self.enters_as().and_then(&port) {
            if entry.mirror_only {
                return Err(MirrorRefusal::InjectAsDestination(entry.name.clone()));
            }
            if !entry.allow_mirror {
                return Err(MirrorRefusal::InjectAsNotAllowed(entry.name.clone()));
            }
        }
        if let Some(to) = self.to.port().and_then(&port).filter(|to| !to.allow_mirror) {
            return Err(MirrorRefusal::DestinationNotAllowed(to.name.clone()));
        }
        ports.clone().into_iter().try_for_each(|port| self.check_vlan_beside(port))
    }

    /// Checks that the VLAN of its copies is not the one of untagged frames of `port`, or is forced.
    pub fn check_vlan_beside(&self, port: &PortConfig) -> Result<(), MirrorRefusal> {
        match self.to.vlan().filter(|vid| port.vlan.tag() == Some(*vid) && !self.to.is_forced()) {
            Some(vid) => Err(MirrorRefusal::VlanInUse { vid, port: port.name.clone() }),
            None => Ok(()),
        }
    }

    /// Whether `port` is a source by name, the destination, or what it injects as.
    pub fn names(&self, port: &str) -> bool {
        self.to.port() == Some(port)
            || self.enters_as() == Some(port)
            || self.sources.iter().any(|source| source.port == port)
    }

    /// As a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let sources = self.sources.iter().map(|source| source.to_string().into()).collect();
        table.insert("sources".into(), toml::Value::Array(sources));
        if let Some(vlans) = &self.vlans {
            table.insert("vlans".into(), vlan::set_to_toml(vlans));
        }
        if let Some(filter) = &self.filter {
            table.insert("filter".into(), filter.text().into());
        }
        table.insert("snaplen".into(), i64::from(self.snaplen).into());
        self.to.write(&mut table);
        if let Some(inject) = &self.inject {
            table.insert("inject".into(), inject.to_toml().into());
        }
        table
    }
}

fn read_filter(field: &Field<'_>) -> Result<Expression, ConfigError> {
    let text = field.string("an expression in tcpdump's syntax")?;
    Expression::new(text).map_err(|wrong| {
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        field.error(format_args!("{:?}: {wrong}", shown + more))
    })
}

fn read_snaplen(field: &Field<'_>, least: u32) -> Result<u32, ConfigError> {
    let snaplen = field.integer("a length in bytes", 0..=SNAPLEN_MAX)?;
    if (1..least).contains(&snaplen) {
        return Err(field.error(format_args!("{snaplen} cuts into the Ethernet header; use 0 or at least {least}")));
    }
    Ok(snaplen)
}

fn read_sources(field: &Field<'_>) -> Result<Vec<MirrorSource>, ConfigError> {
    let mut sources: Vec<MirrorSource> = Vec::new();
    for element in field.array("an array of PORT[:rx|:tx|:both]")? {
        let text = element.string("PORT, PORT:rx, PORT:tx or PORT:both")?;
        let source = MirrorSource::parse(text).map_err(|wrong| element.error(wrong))?;
        match sources.iter_mut().find(|earlier| earlier.port == source.port) {
            Some(earlier) => {
                earlier.rx |= source.rx;
                earlier.tx |= source.tx;
            }
            None => sources.push(source),
        }
    }
    if sources.is_empty() {
        return Err(field.error("is empty; name a port, or \"*\" for every port"));
    }
    Ok(sources)
}

impl MirrorSource {
    /// `PORT`, `PORT:rx`, `PORT:tx` or `PORT:both`; PORT may be `*`. The error says what would be right.
    pub fn parse(text: &str) -> Result<MirrorSource, String> {
        let (port, direction) = text.split_once(':').unwrap_or((text, "both"));
        let (rx, tx) = match direction {
            "both" => (true, true),
            "rx" => (true, false),
            "tx" => (false, true),
            _ => return Err(format!("{text:?} has no direction rx, tx or both behind the colon")),
        };
        if port != "*" {
            names::port(port).map_err(|wrong| format!("{port:?} is not a port name: {wrong}"))?;
        }
        Ok(MirrorSource { port: port.to_owned(), rx, tx })
    }
}

impl std::fmt::Display for MirrorSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = match (self.rx, self.tx) {
            (true, false) => "rx",
            (false, true) => "tx",
            _ => "both",
        };
        write!(out, "{}:{direction}", self.port)
    }
}
