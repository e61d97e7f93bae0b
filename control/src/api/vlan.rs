//! VLAN settings of ports, as replies show them: mode, tag, trunks, and the members of each VLAN.
//!
//! VLAN ids are 1 to 4094 (802.1Q table 9-2 reserves 0 and 4095).

use serde::{Deserialize, Serialize};

pub use crate::model::Vlan;

/// The highest VLAN id that can be used.
const MAX_VLAN_ID: u16 = 4094;

/// The error for a number or text that is not a VLAN id.
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

/// True for 1 to 4094.
pub(super) fn is_vlan_id(vlan: u16) -> bool {
    (1..=MAX_VLAN_ID).contains(&vlan)
}

/// A port in a VLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanMember {
    /// Name of the port.
    pub port: String,
    /// True if frames of this VLAN leave the port with a tag.
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
