//! VLAN membership of a port as configured: `vlan = { mode = "native-untagged", tag = 10, trunks = [10, "20-29"] }`.
//!
//! The result is the switch's own [`PortVlan`]; here are the words, the places and the defaults. Without a `mode`,
//! what is given decides, as in Open vSwitch (`vlan_mode` of ovs-vswitchd.conf.db(5)): `tag` alone is access, `trunks`
//! alone trunk, both native-untagged.

use std::ops::RangeInclusive;

use labsw_switch::Vid;
use labsw_switch::vlan::{PortVlan, VlanMode, VlanSet};

use super::error::ConfigError;
use super::section::{Field, Section};

/// Reads the `vlan` table of a port.
pub(super) fn read(section: &Section<'_>) -> Result<PortVlan, ConfigError> {
    section.check_keys(&["mode", "tag", "trunks"], |_| None)?;
    let tag = section.get("tag").map(|field| vlan_id(&field)).transpose()?;
    let trunks = section.get("trunks").map(|field| vlan_ranges(&field)).transpose()?;
    let mode = match section.get("mode") {
        Some(field) if field.string("a VLAN mode").is_ok_and(|word| word == "dot1q-tunnel") => {
            return Err(field.error("this version has no dot1q-tunnel mode"));
        }
        Some(field) => field.choice(&VlanMode::ALL.map(|mode| (mode.name(), mode)))?,
        None => match (tag, &trunks) {
            (Some(_), None) => VlanMode::Access,
            (None, Some(_)) => VlanMode::Trunk,
            _ => VlanMode::NativeUntagged,
        },
    };
    let tag = match mode {
        VlanMode::Access if trunks.is_some() => {
            return Err(section.error_at("trunks", "an access port has no trunks; use mode native-untagged or trunk"));
        }
        VlanMode::Access if tag.is_none() => {
            return Err(section.error("`tag` is missing; an access port needs its VLAN id (1 to 4094)"));
        }
        VlanMode::Trunk if tag.is_some() => {
            let right = "a trunk has no tag of its own; use mode native-untagged or native-tagged";
            return Err(section.error_at("tag", right));
        }
        VlanMode::NativeTagged | VlanMode::NativeUntagged => Some(tag.unwrap_or_else(|| Vid::DEFAULT.get())),
        VlanMode::Access | VlanMode::Trunk => tag,
    };
    PortVlan::new(mode, tag, &trunks.unwrap_or_default()).map_err(|error| section.error(error))
}

/// The `vlan` table of a port.
pub fn to_toml(vlan: &PortVlan) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("mode".into(), vlan.mode().name().into());
    if let Some(tag) = vlan.tag() {
        table.insert("tag".into(), i64::from(tag.get()).into());
    }
    if vlan.mode() != VlanMode::Access {
        table.insert("trunks".into(), set_to_toml(vlan.trunks()));
    }
    table
}

/// A set of VLANs as an array of the configuration: numbers and strings like `"20-29"`.
pub(super) fn set_to_toml(set: &VlanSet) -> toml::Value {
    let range = |range: RangeInclusive<u16>| match range.into_inner() {
        (low, high) if low == high => toml::Value::from(i64::from(low)),
        (low, high) => toml::Value::from(format!("{low}-{high}")),
    };
    toml::Value::Array(set.ranges().map(range).collect())
}

/// A set of VLANs, not empty.
pub(super) fn vlan_set(field: &Field<'_>) -> Result<VlanSet, ConfigError> {
    VlanSet::from_ranges(&vlan_ranges(field)?).map_err(|error| field.error(error))
}

/// One VLAN id.
fn vlan_id(field: &Field<'_>) -> Result<u16, ConfigError> {
    let id = field.integer("a VLAN id", 1..=u32::from(Vid::MAX))?;
    u16::try_from(id).map_err(|error| field.error(error))
}

/// An array of VLAN ids and ranges like `"20-29"`, not empty, each VLAN once.
fn vlan_ranges(field: &Field<'_>) -> Result<Vec<RangeInclusive<u16>>, ConfigError> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for element in field.array("an array of VLAN ids and ranges, as in [10, \"20-29\"]")? {
        let range = if element.is_string() {
            vlan_range(&element)?
        } else {
            let id = vlan_id(&element)?;
            id..=id
        };
        // Of two ranges that overlap, one holds the beginning of the other.
        let common = ranges.iter().map(|earlier| *earlier.start().max(range.start())).zip(&ranges);
        let mut common = common.filter(|(id, earlier)| earlier.contains(id) && range.contains(id));
        if let Some((id, _)) = common.next() {
            return Err(element.error(format_args!("VLAN {id} is named twice; name each VLAN once")));
        }
        ranges.push(range);
    }
    if ranges.is_empty() {
        return Err(field.error("is empty; leave the key out to mean all VLANs"));
    }
    Ok(ranges)
}

/// `"20-29"`, or one id as a string.
fn vlan_range(field: &Field<'_>) -> Result<RangeInclusive<u16>, ConfigError> {
    let text = field.string("a range of VLAN ids")?;
    let id = |part: &str| part.trim().parse::<Vid>().ok().map(Vid::get);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (id(low), id(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        _ => Err(field.error(format_args!("{text:?} is not a range of VLAN ids (as in \"20-29\", within 1 to 4094)"))),
    }
}
