//! The `[mirrors.NAME]` tables: sources and destination of mirrored frames.

use labsw_switch::Vid;
use labsw_switch::vlan::VlanSet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::de::keys;
use super::destination::{Destination, MirrorTo};
use super::inject::InjectConfig;
use super::mistake::AtKey;
use super::names;
use super::port::PortConfig;
use super::reader::Reader;
use super::tree::Tree;
use super::vlan::{EMPTY, VlanList};
use super::{schema, to_table, value};
use crate::filter::Expression;

/// Shortest copy: an Ethernet header.
const SNAPLEN_MIN: u32 = 14;
/// Shortest copy to a VLAN: an Ethernet header with its tag, and two more bytes, without which Linux drops a tagged
/// frame (`skb_vlan_untag`).
const SNAPLEN_MIN_TAGGED: u32 = 20;
/// Longest copy that is still shorter than a whole frame can be.
const SNAPLEN_MAX: u32 = 65535;

/// Why a session can't exist beside the others and the ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorRefusal {
    /// A source is the destination of another mirror.
    #[error("{port:?} is the destination of mirror {other:?}, so it can't be a source")]
    SourceIsDestination {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// The destination is a source of another mirror.
    #[error("{port:?} is a source of mirror {other:?}, so it can't be a destination")]
    DestinationIsSource {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// A source is a port that only sends copies.
    #[error("{0:?} is mirror_only, so it can't be a source")]
    SourceOnlySends(String),
    /// A source may not be mirrored.
    #[error(
        "{0:?} can't be a source: its allow_mirror is false; set allow_mirror = true at the port if it may be mirrored"
    )]
    SourceNotAllowed(String),
    /// The destination may not be one.
    #[error(
        "{0:?} can't be a destination: its allow_mirror is false; set allow_mirror = true at the port if it may be one"
    )]
    DestinationNotAllowed(String),
    /// The destination VLAN is the VLAN of untagged frames at a port.
    #[error(
        "VLAN {vid} is the VLAN of untagged frames of port {port:?}, which would be cut off; take a VLAN that no port uses, or force it"
    )]
    VlanInUse {
        /// The VLAN.
        vid: Vid,
        /// The port.
        port: String,
    },
    /// Injected frames would enter as received on a mirror destination, which takes no frames in.
    #[error("as_port: {0:?} is a mirror destination, which takes nothing in; name a port of the lab, or use `vlan`")]
    InjectAsDestination(String),
    /// Injected frames would enter as received on a port that does not allow it.
    #[error(
        "as_port: allow_mirror of {0:?} is false; set allow_mirror = true at the port if frames may be injected as its"
    )]
    InjectAsNotAllowed(String),
    /// The destination is a port as which another mirror injects.
    #[error("frames are injected as those of {port:?} by mirror {other:?}, so it can't be a destination")]
    DestinationIsEntry {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// Another mirror to the same destination has other `inject` settings.
    #[error(
        "mirror {other:?} to {port:?} injects otherwise; one destination injects in one way, and one mirror to it is enough to say so"
    )]
    InjectsOtherwise {
        /// The destination.
        port: String,
        /// The other mirror.
        other: String,
    },
    /// Another mirror to the same port sends its copies elsewhere from there.
    #[error("mirror {other:?} sends to {port:?} in another way; all copies that leave by a port go to one place")]
    SendsOtherwise {
        /// The port.
        port: String,
        /// The other mirror.
        other: String,
    },
}

impl MirrorRefusal {
    /// The key of the mirror's table that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            MirrorRefusal::DestinationIsSource { .. }
            | MirrorRefusal::DestinationIsEntry { .. }
            | MirrorRefusal::SendsOtherwise { .. }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The name of the mirror, unique among the mirrors.
    #[serde(skip)]
    pub name: String,
    /// The sources of mirrored frames: each port once, never empty.
    #[serde(with = "Sources")]
    pub sources: Vec<MirrorSource>,
    /// Only frames of these VLANs; left out: all.
    #[serde(default, with = "Vlans")]
    pub vlans: Option<VlanSet>,
    /// Only frames that match this expression in tcpdump's syntax; left out: all.
    #[serde(default, with = "Filter")]
    pub filter: Option<Expression>,
    /// Copies end after this many bytes; 0: whole frames.
    #[serde(default, with = "Snaplen")]
    pub snaplen: u32,
    /// The destination of the copies.
    #[serde(skip)]
    pub to: MirrorTo,
    /// The frames that the destination may inject; left out: frames that arrive on it are dropped.
    #[serde(default)]
    pub inject: Option<InjectConfig>,
}

/// A port whose frames are mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSource {
    /// The port, or `*` for every port except destinations and ports that may not be mirrored.
    pub port: String,
    /// Mirrors frames received from the port.
    pub rx: bool,
    /// Mirrors frames sent to the port.
    pub tx: bool,
}

impl MirrorConfig {
    /// The keys of a mirror's table.
    pub fn keys() -> Vec<&'static str> {
        [keys::<MirrorConfig>(), keys::<Destination>()].concat()
    }

    /// The JSON schema of a mirror's table.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        let parts = [MirrorConfig::json_schema(generator), Destination::json_schema(generator)];
        schema::with_one_of(schema::table(&parts), &["to", "to_vlan", "to_remote"])
    }

    /// Reads the table of mirror `name`. Returns nothing if there is a mistake.
    pub fn read(name: &str, tree: &Tree, reader: &mut Reader) -> Option<MirrorConfig> {
        let before = reader.mistakes();
        reader.check_keys(tree, &MirrorConfig::keys(), |_| None);
        let mirror = reader.part::<MirrorConfig>(tree);
        let to = reader.part::<Destination>(tree).map(Destination::checked);
        if let Some(Err(wrong)) = &to {
            reader.note_key(wrong);
        }
        let mirror = MirrorConfig { name: name.to_owned(), to: to?.ok()?, ..mirror? };
        if let Err(wrong) = mirror.check() {
            reader.note_key(&wrong);
        }
        (reader.mistakes() == before).then_some(mirror)
    }

    /// Checks keys that depend on each other.
    fn check(&self) -> Result<(), AtKey<String>> {
        let snaplen_min = if self.to.vlan().is_some() { SNAPLEN_MIN_TAGGED } else { SNAPLEN_MIN };
        if (1..snaplen_min).contains(&self.snaplen) {
            let wrong = format!("{} cuts into the Ethernet header; use 0 or at least {snaplen_min}", self.snaplen);
            return Err(AtKey::value("snaplen", wrong));
        }
        if let Some(to) = self.to.port() {
            if self.sources.iter().any(|source| source.port == to) {
                let wrong = format!("{to:?} is also a source; a mirror cannot feed itself");
                return Err(AtKey::value(self.to.key(), wrong));
            }
            if self.enters_as() == Some(to) {
                return Err(AtKey::value("inject", MirrorRefusal::InjectAsDestination(to.to_owned()).to_string()));
            }
        }
        match &self.to {
            MirrorTo::Port(_) => {}
            MirrorTo::Remote(_) => {
                if self.inject.is_some() {
                    let wrong = "can't stand beside `to_remote`; only a port to which plain copies go can inject";
                    return Err(AtKey::key("inject", wrong.to_owned()));
                }
            }
            MirrorTo::Vlan { vid, .. } => {
                if self.vlans.as_ref().is_some_and(|vlans| vlans.contains(*vid)) {
                    let wrong = format!("VLAN {vid} is also one of `vlans`; a mirror cannot feed itself");
                    return Err(AtKey::value("to_vlan", wrong));
                }
                if self.inject.is_some() {
                    let wrong = "can't stand beside `to_vlan`; only a port that takes nothing but copies can inject";
                    return Err(AtKey::key("inject", wrong.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The first key that names a port outside `ports`, and the name.
    pub fn missing_port(&self, ports: &[&str]) -> Option<(&'static str, &str)> {
        let absent = |name: &str| name != "*" && !ports.contains(&name);
        let source = self.sources.iter().find(|source| absent(&source.port)).map(|s| ("sources", s.port.as_str()));
        let to = || self.to.port().filter(|port| absent(port)).map(|port| (self.to.key(), port));
        let entry = || self.enters_as().filter(|port| absent(port)).map(|port| ("inject", port));
        source.or_else(to).or_else(entry)
    }

    /// The port as which the destination injects, if there is one.
    pub fn enters_as(&self) -> Option<&str> {
        self.inject.as_ref().and_then(InjectConfig::as_port)
    }

    /// Checks this mirror against the ports and `others` (a mirror of the same name is skipped): it must not copy its
    /// own copies nor those of another mirror, and every port must allow its part.
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
            if other.to.port() == Some(&to) && other.to.remote() != self.to.remote() {
                return Err(MirrorRefusal::SendsOtherwise { port: to, other: name() });
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

    /// Checks that the VLAN of the copies is not the VLAN of untagged frames at `port`, or is forced.
    pub fn check_vlan_beside(&self, port: &PortConfig) -> Result<(), MirrorRefusal> {
        match self.to.vlan().filter(|vid| port.vlan.tag() == Some(*vid) && !self.to.is_forced()) {
            Some(vid) => Err(MirrorRefusal::VlanInUse { vid, port: port.name.clone() }),
            None => Ok(()),
        }
    }

    /// True if `port` is a source by name, the destination, or the port as which frames are injected.
    pub fn names(&self, port: &str) -> bool {
        self.to.port() == Some(port)
            || self.enters_as() == Some(port)
            || self.sources.iter().any(|source| source.port == port)
    }

    /// The mirror as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = to_table(self);
        table.extend(to_table(&Destination::from(&self.to)));
        table
    }
}

value::numbers! {
    /// A key that holds a length of copies.
    Snaplen, "a length in bytes", 0..=SNAPLEN_MAX;
}

/// A key that holds sources, each port once.
struct Sources;

impl Sources {
    fn serialize<S: Serializer>(sources: &[MirrorSource], serializer: S) -> Result<S::Ok, S::Error> {
        sources.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MirrorSource>, D::Error> {
        let what = "an array of PORT[:rx|:tx|:both]";
        let mut sources: Vec<MirrorSource> = Vec::new();
        for source in value::list(deserializer, what, |_: &[MirrorSource], _| Ok(()))? {
            match sources.iter_mut().find(|earlier| earlier.port == source.port) {
                Some(earlier) => {
                    earlier.rx |= source.rx;
                    earlier.tx |= source.tx;
                }
                None => sources.push(source),
            }
        }
        match sources.is_empty() {
            true => Err(D::Error::custom("is empty; name a port, or \"*\" for every port")),
            false => Ok(sources),
        }
    }
}

schema::described!(Sources, |_| {
    let mut array = schema::array(&schema::text("(\\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,31})(:(rx|tx|both))?"), None);
    array.insert("minItems".to_owned(), 1.into());
    array
});

/// A key that holds VLANs; left out: all.
struct Vlans;

impl Vlans {
    fn serialize<S: Serializer>(vlans: &Option<VlanSet>, serializer: S) -> Result<S::Ok, S::Error> {
        vlans.as_ref().map(VlanList::from).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VlanSet>, D::Error> {
        let list = VlanList::deserialize(deserializer)?;
        if list.is_empty() { Err(D::Error::custom(EMPTY)) } else { Ok(Some(list.into())) }
    }
}

schema::described!(Vlans, VlanList::json_schema);

/// A key that holds a filter expression that compiles.
struct Filter;

impl Filter {
    fn serialize<S: Serializer>(filter: &Option<Expression>, serializer: S) -> Result<S::Ok, S::Error> {
        filter.as_ref().map(Expression::text).serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Expression>, D::Error> {
        value::text(deserializer, "an expression in tcpdump's syntax", |text| {
            Expression::new(text).map(Some).map_err(|wrong| format!("{text:?}: {wrong}"))
        })
    }
}

schema::described!(Filter, |_| json_schema!({ "type": "string" }));

impl Serialize for MirrorSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MirrorSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MirrorSource, D::Error> {
        value::text(deserializer, "PORT, PORT:rx, PORT:tx or PORT:both", MirrorSource::parse)
    }
}

impl MirrorSource {
    /// Reads `PORT`, `PORT:rx`, `PORT:tx` or `PORT:both`; PORT may be `*`. The error says how to write it right.
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
