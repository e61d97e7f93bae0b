//! The groups and routers that multicast snooping knows, as replies show them.

use serde::{Deserialize, Serialize};

/// A port with members of a group, or with a multicast router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastPort {
    /// Name of the port.
    pub port: String,
    /// Seconds since the last such message from the port.
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

/// A VLAN with a router, for one of IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastRouters {
    /// VLAN id.
    pub vlan: u16,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `in_force`, or why frames still go to all ports: `no_querier`, `learning` or `full`.
    pub state: String,
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
