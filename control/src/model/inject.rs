//! The key `inject` of a mirror: the frames that its destination may inject into the switch, and at which rate.
//!
//! `inject = { vlan = 20, rate = "10kpps" }`, or `inject = { as_port = "dc01", sources = ["52:54:00:12:34:56"] }`.

use labsw_switch::inject::DEFAULT_RATE_FPS;
use labsw_switch::{Mac, Vid};
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mistake::AtKey;
use super::names::{self, Station};
use super::units::FrameRate;
use super::vlan::VlanId;
use super::{schema, value};

/// Most source addresses that can be named.
const MAX_SOURCES: usize = 64;

/// The frames that the destination of a mirror may inject; left out: frames that arrive on it are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Inject {
    /// Frames enter as frames of this VLAN.
    pub vlan: Option<VlanId>,
    /// Frames enter as if received on this port; this or `vlan`.
    #[serde(with = "names::Port")]
    pub as_port: Option<String>,
    /// The highest rate of injected frames; left out: 10kpps.
    pub rate: Option<FrameRate>,
    /// The source addresses that injected frames may have; empty: any.
    #[serde(with = "Sources")]
    pub sources: Vec<Source>,
}

/// A source address: not a group address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub Mac);

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        value::text(deserializer, "a MAC address", |text| match text.parse::<Mac>() {
            Ok(mac) if mac.is_group() => Err(format!("{mac} is a group address, which no frame comes from")),
            Ok(mac) => Ok(Source(mac)),
            Err(error) => Err(format!("{text:?} is {error}")),
        })
    }
}

/// A key that holds addresses that frames may come from.
struct Sources;

impl Sources {
    fn serialize<S: Serializer>(sources: &[Source], serializer: S) -> Result<S::Ok, S::Error> {
        sources.serialize(serializer)
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Source>, D::Error> {
        let sources = value::list(deserializer, "an array of MAC addresses", |_: &[Source], _| Ok(()))?;
        match sources.len() {
            0..=MAX_SOURCES => Ok(sources),
            count => Err(D::Error::custom(format_args!("names {count}; at most {MAX_SOURCES} are possible"))),
        }
    }
}

schema::described!(Sources, |generator| schema::array(&Station::json_schema(generator), Some(MAX_SOURCES)));
schema::described!(InjectConfig, |generator| {
    schema::with_one_of(Inject::json_schema(generator), &["vlan", "as_port"])
});

impl Inject {
    /// The injection policy that the keys describe.
    ///
    /// # Errors
    /// Neither of `vlan` and `as_port`, or both.
    pub fn checked(self) -> Result<InjectConfig, AtKey<&'static str>> {
        let entry = match (self.vlan, self.as_port) {
            (Some(VlanId(vid)), None) => InjectEntry::Vlan(vid),
            (None, Some(port)) => InjectEntry::Port(port),
            (Some(_), Some(_)) => {
                let wrong = "can't stand beside `vlan`; frames enter by a VLAN or as a port's, not both";
                return Err(AtKey::value("as_port", wrong));
            }
            (None, None) => {
                let wrong = "neither `vlan` nor `as_port` is there; one of them says how frames enter";
                return Err(AtKey::table(wrong));
            }
        };
        let mut sources: Vec<Mac> = self.sources.into_iter().map(|Source(mac)| mac).collect();
        sources.sort_unstable();
        sources.dedup();
        Ok(InjectConfig { entry, rate_fps: self.rate.map_or(DEFAULT_RATE_FPS, FrameRate::get), sources })
    }
}

impl From<&InjectConfig> for Inject {
    fn from(inject: &InjectConfig) -> Inject {
        Inject {
            vlan: match &inject.entry {
                InjectEntry::Vlan(vid) => Some(VlanId(*vid)),
                InjectEntry::Port(_) => None,
            },
            as_port: inject.as_port().map(str::to_owned),
            rate: FrameRate::new(inject.rate_fps),
            sources: inject.sources.iter().copied().map(Source).collect(),
        }
    }
}

/// The ingress rules that apply to injected frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectEntry {
    /// Those for frames of this VLAN.
    Vlan(Vid),
    /// Those for frames received on this port.
    Port(String),
}

/// The frames that a mirror's destination may inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectConfig {
    /// The ingress rules that apply to the frames.
    pub entry: InjectEntry,
    /// The highest rate, in frames per second.
    pub rate_fps: u32,
    /// The source addresses that the frames may have; empty: any.
    pub sources: Vec<Mac>,
}

impl InjectConfig {
    /// The port whose ingress rules apply, if it is one.
    pub fn as_port(&self) -> Option<&str> {
        match &self.entry {
            InjectEntry::Vlan(_) => None,
            InjectEntry::Port(port) => Some(port),
        }
    }
}

impl Serialize for InjectConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Inject::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for InjectConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InjectConfig, D::Error> {
        Inject::deserialize(deserializer)?.checked().map_err(D::Error::custom)
    }
}
