//! The first look at a multicast frame: the ports to which it may be of interest. It takes the header snapshot and must
//! be cheap; a frame without a certain answer is for all ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, is_selective, message};
use crate::Mac;
use crate::header::Header;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMPV6};

/// Whom a multicast frame may interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Everyone; nothing can be learned from it.
    Everyone,
    /// Everyone; a query, or a hello of a router.
    RouterMessage,
    /// Routers: a report or a leave.
    HostMessage(Family),
    /// Members of this group, and routers.
    Group(IpAddr),
}

impl Look {
    /// True if the frame may be a control message to learn from.
    pub fn is_message(self) -> bool {
        matches!(self, Look::RouterMessage | Look::HostMessage(_))
    }
}

/// Looks at the frame with this header that begins with `snapshot`.
pub fn look(header: &Header, snapshot: &[u8]) -> Look {
    let packet = snapshot.get(usize::from(header.l3_offset)..).unwrap_or_default();
    let found = match header.ethertype {
        ETHERTYPE_IPV4 => look_at_ipv4(header.dst, packet),
        ETHERTYPE_IPV6 => look_at_ipv6(header.dst, packet),
        _ => None,
    };
    found.unwrap_or(Look::Everyone)
}

fn look_at_ipv4(dst: Mac, packet: &[u8]) -> Option<Look> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let [version_and_length, .., a, b, c, d] = *fixed;
    let group = Ipv4Addr::new(a, b, c, d);
    if version_and_length >> 4 != 4 || !group.is_multicast() || dst != Mac::new([1, 0, 0x5e, b & 0x7f, c, d]) {
        return None;
    }
    let [_, _, _, _, _, _, flags, fragment, ttl, protocol, ..] = *fixed;
    if protocol == message::PROTOCOL_IGMP && ttl == 1 && flags & 0x3f == 0 && fragment == 0 {
        let header_bytes = usize::from(version_and_length & 0xf) * 4;
        return Some(match *packet.get(header_bytes)? {
            message::IGMP_QUERY => Look::RouterMessage,
            message::IGMPV1_REPORT | message::IGMPV2_REPORT | message::IGMPV2_LEAVE | message::IGMPV3_REPORT => {
                Look::HostMessage(Family::Ipv4)
            }
            _ => Look::Everyone,
        });
    }
    if protocol == message::PROTOCOL_PIM && group == message::ALL_PIM_ROUTERS_V4 {
        return Some(Look::RouterMessage);
    }
    let group = group.into();
    is_selective(&group).then_some(Look::Group(group))
}

fn look_at_ipv6(dst: Mac, packet: &[u8]) -> Option<Look> {
    let fixed: &[u8; 40] = packet.first_chunk()?;
    let group = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    let [.., a, b, c, d] = group.octets();
    if fixed[0] >> 4 != 6 || !group.is_multicast() || dst != Mac::new([0x33, 0x33, a, b, c, d]) {
        return None;
    }
    let (mut next, mut at) = (fixed[6], fixed.len());
    if next == message::HOP_BY_HOP {
        next = *packet.get(at)?;
        at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
    }
    let hop_limit = fixed[7];
    if next == PROTOCOL_ICMPV6 && hop_limit == 1 {
        match packet.get(at) {
            Some(&message::MLD_QUERY) => return Some(Look::RouterMessage),
            Some(&(message::MLDV1_REPORT | message::MLDV1_DONE | message::MLDV2_REPORT)) => {
                return Some(Look::HostMessage(Family::Ipv6));
            }
            _ => {}
        }
    }
    if next == message::PROTOCOL_PIM && group == message::ALL_PIM_ROUTERS_V6 {
        return Some(Look::RouterMessage);
    }
    let group = group.into();
    is_selective(&group).then_some(Look::Group(group))
}
