//! The groups and routers that multicast snooping knows, as replies show them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A port with members of a group, or with a multicast router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastPort {
    /// Name of the port.
    pub port: String,
    /// Seconds since the port's last report (a member) or query (a router).
    pub age_seconds: u64,
}

/// A group with at least one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastGroup {
    /// VLAN id.
    pub vlan: u16,
    /// IP address of the group.
    pub group: String,
    /// The ports with members, by id of the port.
    pub ports: Vec<MulticastPort>,
}

/// The IP version of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MulticastFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl fmt::Display for MulticastFamily {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            MulticastFamily::Ipv4 => "ipv4",
            MulticastFamily::Ipv6 => "ipv6",
        })
    }
}

/// The delivery of group frames: to members and routers only (`in_force`), or why they still go to all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MulticastState {
    /// Frames go to members and routers only.
    InForce,
    /// No querier asks the hosts for their groups.
    NoQuerier,
    /// The hosts have time to answer.
    Learning,
    /// A membership found no room.
    Full,
}

impl fmt::Display for MulticastState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            MulticastState::InForce => "in_force",
            MulticastState::NoQuerier => "no_querier",
            MulticastState::Learning => "learning",
            MulticastState::Full => "full",
        })
    }
}

/// A VLAN with a router, for one of IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastRouters {
    /// VLAN id.
    pub vlan: u16,
    /// The IP version.
    pub family: MulticastFamily,
    /// The delivery of group frames.
    pub state: MulticastState,
    /// IP address of the querier.
    pub querier: Option<String>,
    /// The ports with routers.
    pub ports: Vec<MulticastPort>,
}

/// Counts of multicast snooping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastTotals {
    /// Groups known.
    pub groups: u64,
    /// Control messages that were cut short or malformed, and were ignored.
    pub invalid_messages: u64,
    /// Memberships for which there was no room.
    pub refused_memberships: u64,
}

/// The whole state of multicast snooping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multicast {
    /// Groups, by VLAN and address.
    pub groups: Vec<MulticastGroup>,
    /// VLANs with a router, by VLAN and family.
    pub routers: Vec<MulticastRouters>,
    /// The counts.
    pub totals: MulticastTotals,
}
