//! VLAN membership of a port as configured: `vlan = { mode = "native-untagged", tag = 10, trunks = [10, "20-29"] }`.
//!
//! The result is the switch's own [`PortVlan`]; here are the words, the places and the defaults. Without a `mode`,
//! what is given decides, as in Open vSwitch (`vlan_mode` of ovs-vswitchd.conf.db(5)): `tag` alone is access, `trunks`
//! alone trunk, both native-untagged. A tunnel port says so by its mode, and may say more:
//! `vlan = { mode = "dot1q-tunnel", tag = 100, cvlans = [0, "10-19"], ethertype = "0x88a8" }`.

use std::ops::RangeInclusive;

use labsw_switch::Vid;
use labsw_switch::header::{TPID_C_TAG, TPID_S_TAG};
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanMode, VlanSet};

use super::error::ConfigError;
use super::section::{Field, Section};

/// TPIDs of the tag that a tunnel port puts in front.
const ETHERTYPES: [(&str, u16); 2] = [("0x88a8", TPID_S_TAG), ("0x8100", TPID_C_TAG)];

/// Reads the `vlan` table of a port.
pub(super) fn read(section: &Section<'_>) -> Result<PortVlan, ConfigError> {
    section.check_keys(&["mode", "tag", "trunks", "cvlans", "ethertype"], |_| None)?;
    let tag = section.get("tag").map(|field| vlan_id(&field)).transpose()?;
    let trunks = section.get("trunks").map(|field| vlan_ranges(&field, Vid::DEFAULT.get())).transpose()?;
    let mode = match section.get("mode") {
        Some(field) => field.choice(&VlanMode::ALL.map(|mode| (mode.name(), mode)))?,
        None => match (tag, &trunks) {
            (Some(_), None) => VlanMode::Access,
            (None, Some(_)) => VlanMode::Trunk,
            _ => VlanMode::NativeUntagged,
        },
    };
    if mode == VlanMode::Dot1qTunnel {
        return read_tunnel(section, tag);
    }
    if let Some(field) = ["cvlans", "ethertype"].iter().find_map(|key| section.get(key)) {
        return Err(field.key_error("is a key of a tunnel port; set mode = \"dot1q-tunnel\", or leave it out"));
    }
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
        VlanMode::Access | VlanMode::Trunk | VlanMode::Dot1qTunnel => tag,
    };
    PortVlan::new(mode, tag, &trunks.unwrap_or_default()).map_err(|error| section.error(error))
}

/// The rest of the table of a tunnel port.
fn read_tunnel(section: &Section<'_>, tag: Option<u16>) -> Result<PortVlan, ConfigError> {
    if section.get("trunks").is_some() {
        return Err(section.error_at("trunks", "a tunnel port has no trunks; `cvlans` lists its customer's VLANs"));
    }
    let Some(tag) = tag else {
        return Err(section.error("`tag` is missing; a tunnel port needs the VLAN id of the tunnel (1 to 4094)"));
    };
    let tag = Vid::try_from(tag).map_err(|error| section.error_at("tag", error))?;
    let cvlans = section.get("cvlans").map(|field| customer_vlans(&field)).transpose()?;
    let tpid = section.get("ethertype").map(|field| field.choice(&ETHERTYPES)).transpose()?;
    Ok(PortVlan::tunnel_in(tag, Tunnel { cvlans, tpid: tpid.unwrap_or(TPID_S_TAG) }))
}

/// An array of customer VLAN ids and ranges; 0 stands for untagged frames.
fn customer_vlans(field: &Field<'_>) -> Result<CustomerVlans, ConfigError> {
    let (untagged, tagged): (Vec<_>, Vec<_>) =
        vlan_ranges(field, 0)?.into_iter().partition(|range| *range.start() == 0);
    let tagged = VlanSet::from_ranges(&tagged).map_err(|error| field.error(error))?;
    Ok(CustomerVlans { untagged: !untagged.is_empty(), tagged })
}

/// The `vlan` table of a port.
pub fn to_toml(vlan: &PortVlan) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("mode".into(), vlan.mode().name().into());
    if let Some(tag) = vlan.tag() {
        table.insert("tag".into(), i64::from(tag.get()).into());
    }
    if !vlan.mode().has_one_vlan() {
        table.insert("trunks".into(), set_to_toml(vlan.trunks()));
    }
    if let Some(tunnel) = vlan.tunnel() {
        if let Some(CustomerVlans { untagged, tagged }) = &tunnel.cvlans {
            let mut listed = toml::value::Array::new();
            if *untagged {
                listed.push(0.into());
            }
            if let toml::Value::Array(tagged) = set_to_toml(tagged) {
                listed.extend(tagged);
            }
            table.insert("cvlans".into(), toml::Value::Array(listed));
        }
        table.insert("ethertype".into(), ethertype(tunnel).into());
    }
    table
}

/// The TPID of the tag that a tunnel port puts in front, in words.
pub fn ethertype(tunnel: &Tunnel) -> &'static str {
    ETHERTYPES.iter().find(|(_, tpid)| *tpid == tunnel.tpid).map_or("", |(word, _)| *word)
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
    VlanSet::from_ranges(&vlan_ranges(field, Vid::DEFAULT.get())?).map_err(|error| field.error(error))
}

/// One VLAN id.
pub(super) fn vlan_id(field: &Field<'_>) -> Result<u16, ConfigError> {
    id_from(field, Vid::DEFAULT.get())
}

/// A VLAN id that is `lowest` or higher.
fn id_from(field: &Field<'_>, lowest: u16) -> Result<u16, ConfigError> {
    let id = field.integer("a VLAN id", lowest.into()..=u32::from(Vid::MAX))?;
    u16::try_from(id).map_err(|error| field.error(error))
}

/// An array of VLAN ids (`lowest` or higher) and ranges like `"20-29"`, not empty, each VLAN once.
fn vlan_ranges(field: &Field<'_>, lowest: u16) -> Result<Vec<RangeInclusive<u16>>, ConfigError> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for element in field.array("an array of VLAN ids and ranges, as in [10, \"20-29\"]")? {
        let range = if element.is_string() {
            vlan_range(&element)?
        } else {
            let id = id_from(&element, lowest)?;
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
