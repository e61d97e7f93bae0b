//! What multicast snooping knows, as it is shown.

use serde::{Deserialize, Serialize};

/// A port that asked for a group, or at which a router is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastPort {
    /// Name of the port.
    pub port: String,
    /// Seconds since it last said so.
    pub age_seconds: u64,
}

/// A group that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastGroup {
    /// VLAN id.
    pub vlan: u16,
    /// IP address of the group.
    pub group: String,
    /// Who asked for it, by id of the port.
    pub ports: Vec<MulticastPort>,
}

/// A VLAN with a router, for one of IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastRouters {
    /// VLAN id.
    pub vlan: u16,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `in_force`, or why frames still go to everyone: `no_querier`, `learning` or `full`.
    pub state: String,
    /// IP address of who asks hosts what they want.
    pub querier: Option<String>,
    /// Where routers are.
    pub ports: Vec<MulticastPort>,
}

/// Counts of multicast snooping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MulticastTotals {
    /// Groups known.
    pub groups: u64,
    /// Control messages that were not whole or not right, and taught nothing.
    pub invalid_messages: u64,
    /// Memberships for which there was no room.
    pub refused_memberships: u64,
}

/// Everything multicast snooping knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Multicast {
    /// Groups, by VLAN and address.
    pub groups: Vec<MulticastGroup>,
    /// VLANs with a router, by VLAN and family.
    pub routers: Vec<MulticastRouters>,
    /// The counts.
    pub totals: MulticastTotals,
}
