//! The `[inline.NAME]` tables: sensors in the wires of ports.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mirror::MirrorConfig;
use super::mistake::AtKey;
use super::port::PortConfig;
use super::reader::Reader;
use super::tree::Tree;
use super::{names, schema, to_table, value};

/// Most sensors of a switch: each has two ports of its own.
pub const MAX_INLINES: usize = labsw_switch::MAX_PORTS / 3;

/// A sensor in the wire of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineConfig {
    /// The name of the inline sensor, unique among them.
    #[serde(skip)]
    pub name: String,
    /// The port in whose wire the sensor is.
    #[serde(with = "names::Port")]
    pub of: String,
    /// The two ports of the sensor: the one on the side of that port, then the one on the side of the switch.
    #[serde(with = "TwoPorts")]
    pub through: [String; 2],
    /// The treatment of the port's frames while the sensor lets none pass: they go past it (open), or are dropped
    /// (closed).
    pub on_failure: OnFailure,
}

/// The treatment of a port's frames while its sensor lets none pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnFailure {
    /// They go past the sensor.
    Open,
    /// They are dropped.
    Closed,
}

impl OnFailure {
    /// Both.
    pub const ALL: [OnFailure; 2] = [OnFailure::Open, OnFailure::Closed];

    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
        }
    }
}

impl std::fmt::Display for OnFailure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.name())
    }
}

/// Why a sensor can't be where it is wanted, beside the ports, the mirrors and the other sensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InlineRefusal {
    /// The port has to do with another sensor.
    #[error("{port:?} is already used by inline {other:?}; a port has to do with one sensor only")]
    Taken {
        /// The port.
        port: String,
        /// The other sensor.
        other: String,
    },
    /// A mirror sends copies to the port.
    #[error("{port:?} is the destination of mirror {mirror:?}, which takes no other traffic")]
    Destination {
        /// The port.
        port: String,
        /// The mirror.
        mirror: String,
    },
    /// The port is reserved for copies of mirrors.
    #[error("{0:?} is mirror_only, so it takes no other traffic")]
    MirrorOnly(String),
    /// A mirror injects frames as those of a port of the sensor.
    #[error("mirror {mirror:?} injects frames as those of {port:?}, which would pass for what the sensor let through")]
    InjectedAs {
        /// The port.
        port: String,
        /// The mirror.
        mirror: String,
    },
}

impl InlineConfig {
    /// The JSON schema of the table.
    pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema::table(&[InlineConfig::json_schema(generator)])
    }

    /// Reads the table of the sensor `name`. Returns nothing if there is a mistake.
    pub fn read(name: &str, tree: &Tree, reader: &mut Reader) -> Option<InlineConfig> {
        let inline = InlineConfig { name: name.to_owned(), ..reader.read::<InlineConfig>(tree)? };
        let [near, far] = &inline.through;
        let wrong = if near == far {
            format!("{near:?} is named twice; a sensor has one port on either side")
        } else if inline.through.contains(&inline.of) {
            format!("{:?} is also `of`; a sensor has two ports of its own", inline.of)
        } else {
            return Some(inline);
        };
        reader.note_key(&AtKey::value("through", wrong));
        None
    }

    /// The three ports, each with the key that names it.
    fn ports(&self) -> [(&'static str, &str); 3] {
        let [near, far] = &self.through;
        [("of", &self.of), ("through", near), ("through", far)]
    }

    /// True if the port is one of the three.
    pub fn names(&self, port: &str) -> bool {
        self.ports().iter().any(|(_, name)| *name == port)
    }

    /// True if the port is one of the sensor's two.
    pub fn is_at(&self, port: &str) -> bool {
        self.through.iter().any(|name| name == port)
    }

    /// The first key that names a port outside `ports`, and the name.
    pub fn missing_port(&self, ports: &[&str]) -> Option<(&'static str, &str)> {
        self.ports().into_iter().find(|(_, name)| !ports.contains(name))
    }

    /// Checks this sensor against `others` (one of the same name is skipped), the mirrors and the ports. The error
    /// begins with the key that is wrong.
    pub fn check_beside<'a>(
        &self,
        others: impl IntoIterator<Item = &'a InlineConfig> + Clone,
        mirrors: impl IntoIterator<Item = &'a MirrorConfig> + Clone,
        ports: impl IntoIterator<Item = &'a PortConfig> + Clone,
    ) -> Result<(), (&'static str, InlineRefusal)> {
        for (key, port) in self.ports() {
            let taken = |other: &&InlineConfig| other.name != self.name && other.names(port);
            if let Some(other) = others.clone().into_iter().find(taken) {
                return Err((key, InlineRefusal::Taken { port: port.to_owned(), other: other.name.clone() }));
            }
            mirrors.clone().into_iter().try_for_each(|mirror| self.check_mirror(mirror))?;
            let port = ports.clone().into_iter().find(|config| config.name == port);
            port.map_or(Ok(()), |port| self.check_port(port))?;
        }
        Ok(())
    }

    /// Checks that a mirror takes nothing for itself that the sensor needs.
    pub fn check_mirror(&self, mirror: &MirrorConfig) -> Result<(), (&'static str, InlineRefusal)> {
        let name = || mirror.name.clone();
        for (key, port) in self.ports() {
            if mirror.to.port() == Some(port) {
                return Err((key, InlineRefusal::Destination { port: port.to_owned(), mirror: name() }));
            }
            if mirror.enters_as() == Some(port) && self.is_at(port) {
                return Err((key, InlineRefusal::InjectedAs { port: port.to_owned(), mirror: name() }));
            }
        }
        Ok(())
    }

    /// Checks the settings of a port that the sensor may need.
    pub fn check_port(&self, port: &PortConfig) -> Result<(), (&'static str, InlineRefusal)> {
        let used = self.ports().into_iter().find(|(_, name)| *name == port.name && port.mirror_only);
        used.map_or(Ok(()), |(key, name)| Err((key, InlineRefusal::MirrorOnly(name.to_owned()))))
    }

    /// The sensor as a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        to_table(self)
    }
}

/// A key that holds the names of two ports.
struct TwoPorts;

impl TwoPorts {
    fn serialize<S: Serializer>(ports: &[String; 2], serializer: S) -> Result<S::Ok, S::Error> {
        ports.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[String; 2], D::Error> {
        let what = "an array of two port names: the sensor's on the side of the port, and on that of the switch";
        let ports = value::list(deserializer, what, |_: &[PortName], _| Ok(()))?;
        let count = ports.len();
        let ports = <[PortName; 2]>::try_from(ports).map_err(|_| {
            D::Error::custom(format!(
                "names {count} ports; a sensor has two: one on the side of the port, one on that of the switch"
            ))
        })?;
        Ok(ports.map(|PortName(name)| name))
    }
}

schema::described!(TwoPorts, |_| {
    let mut array = schema::array(&names::port_schema(), Some(2));
    array.insert("minItems".to_owned(), 2.into());
    array
});

/// The name of a port, in a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
struct PortName(#[serde(with = "names::Port")] String);
