//! `inject` of a mirror: what its destination may put into the switch, and how much of it.
//!
//! `inject = { vlan = 20, rate = "10kpps" }`, or `inject = { as_port = "dc01", sources = ["52:54:00:12:34:56"] }`.

use labsw_switch::inject::{DEFAULT_RATE_FPS, MAX_RATE_FPS};
use labsw_switch::{Mac, Vid};

use super::error::ConfigError;
use super::names;
use super::section::{Field, Section};
use super::vlan;

/// Most source addresses that can be named.
const MAX_SOURCES: usize = 64;

/// As what injected frames are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectEntry {
    /// As frames of this VLAN.
    Vlan(Vid),
    /// As received on this port.
    Port(String),
}

/// What a mirror's destination may inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectConfig {
    /// As what.
    pub entry: InjectEntry,
    /// Frames per second.
    pub rate_fps: u32,
    /// The source addresses that may occur; empty: any.
    pub sources: Vec<Mac>,
}

impl InjectConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<InjectConfig, ConfigError> {
        section.check_keys(&["vlan", "as_port", "rate", "sources"], |_| None)?;
        let entry = match (section.get("vlan"), section.get("as_port")) {
            (Some(field), None) => {
                let id = vlan::vlan_id(&field)?;
                InjectEntry::Vlan(Vid::try_from(id).map_err(|error| field.error(error))?)
            }
            (None, Some(field)) => InjectEntry::Port(field.checked("a port name", names::port)?),
            (Some(_), Some(field)) => {
                return Err(field.error("can't stand beside `vlan`; frames enter by a VLAN or as a port's, not both"));
            }
            (None, None) => {
                return Err(section.error("neither `vlan` nor `as_port` is there; one of them says how frames enter"));
            }
        };
        let rate_fps = section.get("rate").map_or(Ok(DEFAULT_RATE_FPS), |field| rate(&field))?;
        let mut sources: Vec<Mac> = Vec::new();
        if let Some(field) = section.get("sources") {
            for element in field.array("an array of MAC addresses")? {
                let text = element.string("a MAC address")?;
                let mac: Mac = text.parse().map_err(|error| element.error(format_args!("{text:?} is {error}")))?;
                if mac.is_group() {
                    return Err(element.error(format_args!("{mac} is a group address, which no frame comes from")));
                }
                sources.push(mac);
            }
            if sources.len() > MAX_SOURCES {
                return Err(field.error(format_args!("names {}; at most {MAX_SOURCES} are possible", sources.len())));
            }
        }
        sources.sort_unstable();
        sources.dedup();
        Ok(InjectConfig { entry, rate_fps, sources })
    }

    /// The port that frames are judged as received on.
    pub fn as_port(&self) -> Option<&str> {
        match &self.entry {
            InjectEntry::Vlan(_) => None,
            InjectEntry::Port(port) => Some(port),
        }
    }

    /// As a table of the configuration.
    pub fn to_toml(&self) -> toml::Table {
        let mut table = toml::Table::new();
        match &self.entry {
            InjectEntry::Vlan(vid) => table.insert("vlan".into(), i64::from(vid.get()).into()),
            InjectEntry::Port(port) => table.insert("as_port".into(), port.as_str().into()),
        };
        table.insert("rate".into(), rate_text(self.rate_fps).into());
        let sources = self.sources.iter().map(|mac| mac.to_string().into()).collect();
        table.insert("sources".into(), toml::Value::Array(sources));
        table
    }
}

/// A rate as people write it.
pub fn rate_text(rate_fps: u32) -> String {
    match rate_fps {
        rate if rate % 1_000_000 == 0 => format!("{}Mpps", rate / 1_000_000),
        rate if rate % 1000 == 0 => format!("{}kpps", rate / 1000),
        rate => format!("{rate}pps"),
    }
}

/// Reads a rate: a number with `pps`, `kpps` or `Mpps` behind it.
pub fn parse_rate(text: &str) -> Result<u32, String> {
    let units = [("kpps", 1000), ("Mpps", 1_000_000), ("mpps", 1_000_000), ("pps", 1)];
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let rate = found.and_then(|(number, factor)| number.trim_end().parse::<u32>().ok()?.checked_mul(factor));
    rate.filter(|rate| (1..=MAX_RATE_FPS).contains(rate)).ok_or_else(|| {
        format!("{text:?} is not a rate of 1pps to {}Mpps (as in 500pps, 10kpps, 1Mpps)", MAX_RATE_FPS / 1_000_000)
    })
}

fn rate(field: &Field<'_>) -> Result<u32, ConfigError> {
    parse_rate(field.string("a rate (as in 10kpps)")?).map_err(|wrong| field.error(wrong))
}
