//! What a port guards: `storm`, `mac_limit`, `sticky`, `macs`, `isolated`, `dhcp_guard`, `ra_guard`.
//!
//! All of it is off if left out, and each key has a value that says so, which ends it at run time.

use labsw_switch::Mac;
use labsw_switch::fdb::MAX_CAPACITY;
use labsw_switch::guard::{FrameRate, GuardSpec, LimitAction, MAX_PINNED, MacLimit, Storm};

use super::{station, word_of};
use crate::config::error::ConfigError;
use crate::config::frame_rate;
use crate::config::section::{Field, Section};

/// The keys of a port's guards.
pub(super) const KEYS: [&str; 8] =
    ["storm", "mac_limit", "mac_limit_action", "sticky", "macs", "isolated", "dhcp_guard", "ra_guard"];
const ACTIONS: [(&str, LimitAction); 2] = [("drop", LimitAction::Drop), ("alert", LimitAction::Alert)];

/// Reads the guards of a port's table.
pub(super) fn read(section: &Section<'_>) -> Result<GuardSpec, ConfigError> {
    let flag = |key| section.get(key).map_or(Ok(false), |field| field.boolean());
    let storm = section.get("storm").map(|field| read_storm(&field)).transpose()?.unwrap_or_default();
    let action = section.get("mac_limit_action").map(|field| field.choice(&ACTIONS)).transpose()?;
    let mac_limit = match section.get("mac_limit") {
        Some(field) if field.is_string() => field.choice(&[("off", None)])?,
        Some(field) => {
            let most = u32::try_from(MAX_CAPACITY).unwrap_or(u32::MAX);
            let addresses = field.integer("a number of addresses, or \"off\"", 1..=most)?;
            Some(MacLimit { addresses, action: action.unwrap_or_default() })
        }
        None if action.is_some() => {
            return Err(section.error_at("mac_limit_action", "is there without `mac_limit`; set that too"));
        }
        None => None,
    };
    let macs = section.get("macs").map(|field| read_macs(&field)).transpose()?.unwrap_or_default();
    if let Some(limit) = mac_limit
        && macs.len() > limit.addresses as usize
    {
        let (pinned, limit) = (macs.len(), limit.addresses);
        return Err(section.error_at("macs", format_args!("names {pinned} addresses, but mac_limit is {limit}")));
    }
    Ok(GuardSpec {
        storm,
        mac_limit,
        sticky: flag("sticky")?,
        macs,
        isolated: flag("isolated")?,
        dhcp: flag("dhcp_guard")?,
        ra: flag("ra_guard")?,
    })
}

fn read_storm(field: &Field<'_>) -> Result<Storm, ConfigError> {
    let section = field.section()?;
    section.check_keys(&["broadcast", "multicast", "unknown_unicast"], |_| None)?;
    let rate = |key| section.get(key).map_or(Ok(None), |field| frame_rate::read(&field));
    Ok(Storm {
        broadcast: rate("broadcast")?,
        multicast: rate("multicast")?,
        unknown_unicast: rate("unknown_unicast")?,
    })
}

/// Addresses of stations, each once; ascending.
fn read_macs(field: &Field<'_>) -> Result<Vec<Mac>, ConfigError> {
    let mut macs: Vec<Mac> = Vec::new();
    for element in field.array("an array of MAC addresses, as in [\"52:54:00:12:34:56\"]")? {
        let text = element.checked("a MAC address", station)?;
        let Ok(mac) = text.parse() else { continue };
        if macs.contains(&mac) {
            return Err(element.error(format_args!("{mac} is named twice; name each address once")));
        }
        if macs.len() == MAX_PINNED {
            return Err(element.error(format_args!("a port can be pinned to at most {MAX_PINNED} addresses")));
        }
        macs.push(mac);
    }
    macs.sort_unstable();
    Ok(macs)
}

/// Writes down what is guarded.
pub(super) fn to_toml(guards: &GuardSpec, table: &mut toml::Table) {
    let Storm { broadcast, multicast, unknown_unicast } = guards.storm;
    let rates = [("broadcast", broadcast), ("multicast", multicast), ("unknown_unicast", unknown_unicast)];
    let rate = |(key, rate): (&str, Option<FrameRate>)| Some((key.to_owned(), frame_rate::text(rate?).into()));
    let storm: toml::Table = rates.into_iter().filter_map(rate).collect();
    let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
    if !storm.is_empty() {
        set("storm", storm.into());
    }
    if let Some(MacLimit { addresses, action }) = guards.mac_limit {
        set("mac_limit", i64::from(addresses).into());
        set("mac_limit_action", word_of(&ACTIONS, action));
    }
    if !guards.macs.is_empty() {
        set("macs", guards.macs.iter().map(Mac::to_string).collect::<Vec<_>>().into());
    }
    let flags = [
        ("sticky", guards.sticky),
        ("isolated", guards.isolated),
        ("dhcp_guard", guards.dhcp),
        ("ra_guard", guards.ra),
    ];
    for (key, _) in flags.into_iter().filter(|(_, on)| *on) {
        set(key, true.into());
    }
}
