//! IGMP and MLD snooping: multicast frames go to the ports that asked for their group, and to routers.
//!
//! **How it works.** In a VLAN where snooping is on, each multicast frame is looked at ([`look`](fn@look)): is it a
//! report, which is for routers, or traffic of a group? [`Snooping::audience`] returns the ports that get it. Reports,
//! leaves and queries are read as a whole ([`message`]) after their burst was decided, and teach [`Snooping::observe`]
//! the groups of each port and the ports of routers; a message takes effect from the next burst on.
//!
//! **All ports get all groups** as long as no querier is known in the VLAN (without one, hosts do not repeat their
//! reports), until the hosts had the time to answer its first query, and while the table is full. Always for all ports
//! are: broadcast, other protocols than IP, groups of link-local scope (224.0.0.0/24, ff02::/16), frames with a second
//! VLAN tag (a customer's), and queries.
//!
//! **Granularity.** Groups by IP address, hosts by port. Sources (IGMPv3, MLDv2) are not kept: a host that wants some
//! source of a group gets the group, until it leaves the group or stops reporting it.
//!
//! **Invariants.** A frame never leaves the VLAN's own ports: the audience only narrows the flood list. A malformed
//! message teaches nothing. All state expires.
//!
//! References: RFC 4541 (snooping switches), 1112, 2236, 3376 (IGMP), 2710, 3810 (MLD), 7761 (PIM hello).

mod look;
pub mod message;
mod slots;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use look::{Look, look};
pub use slots::PortSet;
pub use table::{Counters, Garbled, GroupEntry, Member, Record, RouterEntry, Snooping, State};

/// How long a report counts, seconds (RFC 3376 8.4, RFC 3810 9.4, with default timers).
pub const MEMBERSHIP_SECONDS: u32 = 260;
/// How long a query or a hello counts, seconds (RFC 3376 8.5, RFC 3810 9.5, with default timers).
pub const ROUTER_SECONDS: u32 = 255;
/// How long members behind the same port have to contradict a leave, seconds: two queries of the router a second apart
/// (RFC 3376 8.8), and one for times being kept in whole seconds.
pub const LEAVE_SECONDS: u32 = 3;
/// The most groups of all VLANs together.
pub const MAX_GROUPS: usize = 4096;
/// The most ports in groups, all groups together.
pub const MAX_MEMBERS: usize = 65_536;
/// The longest frame of which the message is read: the largest MTU with a header of two tags, bytes.
pub const MAX_MESSAGE_BYTES: usize = 9216 + 22;

/// Which protocol a group belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IGMP.
    Ipv4,
    /// MLD.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    #[inline]
    pub fn of(address: &IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        }
    }

    /// The address that is no group.
    fn unspecified(self) -> IpAddr {
        match self {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    fn index(self) -> usize {
        match self {
            Family::Ipv4 => 0,
            Family::Ipv6 => 1,
        }
    }
}

/// True if frames of a group go only to ports that asked for it. Groups of link-local scope and below always flood.
#[inline]
pub fn is_selective(group: &IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0xf > 2,
    }
}

#[cfg(test)]
mod tests;
