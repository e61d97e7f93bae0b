//! VLAN settings of ports as they are shown: mode, tag, trunks, and who is in which VLAN.
//!
//! VLAN ids are 1 to 4094 (802.1Q table 9-2 reserves 0 and 4095).

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The highest VLAN id that can be used.
const MAX_VLAN_ID: u16 = 4094;

/// A number or text that is no VLAN id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a VLAN id (1 to 4094)")]
pub struct InvalidVlanId;

/// Reads a VLAN id, 1 to 4094.
///
/// # Errors
/// [`InvalidVlanId`] for anything else.
pub fn parse_vlan_id(text: &str) -> Result<u16, InvalidVlanId> {
    text.parse().ok().filter(|&vlan| is_vlan_id(vlan)).ok_or(InvalidVlanId)
}

/// Whether this is 1 to 4094.
pub(super) fn is_vlan_id(vlan: u16) -> bool {
    (1..=MAX_VLAN_ID).contains(&vlan)
}

/// How a port takes part in VLANs, with the names of Open vSwitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanMode {
    /// Everything untagged, in VLAN `tag`.
    Access,
    /// Tagged frames of `trunks` only.
    Trunk,
    /// A trunk whose untagged frames are in VLAN `tag`; it leaves tagged.
    NativeTagged,
    /// A trunk whose untagged frames are in VLAN `tag`; it leaves untagged.
    NativeUntagged,
    /// Everything, tagged or not, in VLAN `tag`; it leaves as it came.
    Dot1qTunnel,
}

impl fmt::Display for VlanMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            VlanMode::Access => "access",
            VlanMode::Trunk => "trunk",
            VlanMode::NativeTagged => "native-tagged",
            VlanMode::NativeUntagged => "native-untagged",
            VlanMode::Dot1qTunnel => "dot1q-tunnel",
        })
    }
}

/// The VLAN settings of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// The mode.
    pub mode: VlanMode,
    /// The VLAN of untagged frames; a trunk has none.
    pub tag: Option<u16>,
    /// The VLANs that pass tagged; empty for an access or tunnel port.
    pub trunks: VlanList,
    /// Of a tunnel port, the customer VLANs that may pass, 0 for untagged frames; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cvlans: Option<VlanList>,
    /// Of a tunnel port, the TPID of the tag in front of the customer's: 0x88a8 or 0x8100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<String>,
}

impl Vlan {
    /// Settings of a port that is no tunnel.
    pub fn new(mode: VlanMode, tag: Option<u16>, trunks: VlanList) -> Vlan {
        Vlan { mode, tag, trunks, cvlans: None, ethertype: None }
    }
}

/// One element of a [`VlanList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VlanItem {
    /// One VLAN, a number in JSON.
    Id(u16),
    /// Adjacent VLANs, first and last with a hyphen between, a string in JSON.
    Range(String),
}

/// A set of VLANs, written as in the configuration: `[10, "20-29"]`, ascending, ranges as long as possible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VlanList(pub Vec<VlanItem>);

impl VlanList {
    /// The list of these VLAN ids, in any order.
    pub fn from_ids(ids: impl IntoIterator<Item = u16>) -> VlanList {
        let mut ids: Vec<u16> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let runs = ids.chunk_by(|left, right| left.checked_add(1) == Some(*right));
        VlanList(
            runs.filter_map(|run| match run {
                [] => None,
                [one] => Some(VlanItem::Id(*one)),
                [first, .., last] => Some(VlanItem::Range(format!("{first}-{last}"))),
            })
            .collect(),
        )
    }

    /// The list of the VLAN ids in these ranges, in any order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> VlanList {
        VlanList::from_ids(ranges.into_iter().flatten())
    }
}

impl fmt::Display for VlanList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            match item {
                VlanItem::Id(id) => write!(out, "{separator}{id}")?,
                VlanItem::Range(range) => write!(out, "{separator}{range}")?,
            }
        }
        Ok(())
    }
}

/// A port in a VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanMember {
    /// Name of the port.
    pub port: String,
    /// Whether frames of this VLAN leave the port with a tag.
    pub tagged: bool,
}

/// A VLAN that at least one port names, and its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanRow {
    /// VLAN id.
    pub vlan: u16,
    /// Its members, by name.
    pub ports: Vec<VlanMember>,
}
