//! The packet in a frame, as far as the guards need to know it, read from the snapshot.
//!
//! **How it works.** A host may find an IP packet behind any number of VLAN tags, and behind LLC/SNAP headers (RFC
//! 1042), in any order, so all of these are walked through. In IPv4 the UDP header is where the header length says; in
//! IPv6 it is at the end of the chain of extension headers (RFC 8200 section 4). Only first fragments have an
//! upper-layer header; the others are useless without it, so they pass.
//!
//! **What can't be decided.** If the walk comes to the end of the snapshot, to an extension header nobody knows, or to
//! an IPv6 first fragment without the upper-layer header, the packet is [`Packet::Undecided`] and both guards refuse it
//! (RFC 7113 section 3, RFC 7610 section 5). A packet is no router's if its source is not link-local or its hop limit
//! is not 255: every host must ignore such an advertisement (RFC 4861 sections 6.1.2 and 8.1).

use crate::wire::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_HEADER_BYTES, PROTOCOL_ICMPV6, PROTOCOL_UDP, TPID_C_TAG, TPID_OLD_STACKED,
    TPID_S_TAG, u16_at,
};

/// A type up to this is a length (802.3 clause 3.2.6), and LLC follows.
const MAX_LENGTH: u16 = 1500;
/// Where the first type is: behind the two addresses.
const TYPE_OFFSET: usize = 12;
/// LLC and SNAP with an OUI that means an Ethernet type follows: RFC 1042, and 802.1H.
const SNAP: [[u8; 6]; 2] = [[0xaa, 0xaa, 3, 0, 0, 0], [0xaa, 0xaa, 3, 0, 0, 0xf8]];

/// RFC 2131, 4.1.
const DHCPV4_SERVER: u16 = 67;
const DHCPV4_CLIENT: u16 = 68;
/// RFC 8415, 7.2.
const DHCPV6_SERVER: u16 = 547;
const DHCPV6_CLIENT: u16 = 546;
/// ICMPv6 types (RFC 4861 sections 4.2 and 4.5).
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;

/// The packet in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// UDP over IPv4 between these ports.
    Udp4 { from: u16, to: u16 },
    /// UDP over IPv6 between these ports.
    Udp6 { from: u16, to: u16 },
    /// ICMPv6 of this type; from the same link, if a host has to believe it.
    Icmp6 { message: u8, on_link: bool },
    /// A packet that can't be classified.
    Undecided { on_link: bool },
    /// Anything else.
    Other,
}

impl Packet {
    /// Reads the packet in the frame that begins with `snapshot`.
    pub(super) fn of(snapshot: &[u8]) -> Packet {
        read(snapshot, TYPE_OFFSET).unwrap_or(Packet::Undecided { on_link: true })
    }

    /// True unless the packet certainly is no message of a DHCP server or relay to a client. Clients look at the port
    /// that a message goes to, not at the port it comes from.
    pub(super) fn may_be_of_dhcp_server(self) -> bool {
        match self {
            Packet::Udp4 { from, to } => from == DHCPV4_SERVER || to == DHCPV4_CLIENT,
            Packet::Udp6 { from, to } => from == DHCPV6_SERVER || to == DHCPV6_CLIENT,
            Packet::Undecided { .. } => true,
            Packet::Icmp6 { .. } | Packet::Other => false,
        }
    }

    /// True unless hosts certainly do not take the packet for a router's advertisement or redirect.
    pub(super) fn may_be_of_router(self) -> bool {
        match self {
            Packet::Icmp6 { message, on_link } => on_link && matches!(message, ROUTER_ADVERTISEMENT | REDIRECT),
            Packet::Undecided { on_link } => on_link,
            Packet::Udp4 { .. } | Packet::Udp6 { .. } | Packet::Other => false,
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// `None`: the end of the snapshot came first.
fn read(bytes: &[u8], mut at: usize) -> Option<Packet> {
    loop {
        let ethertype = u16_at(bytes, at)?;
        at += 2;
        match ethertype {
            TPID_C_TAG | TPID_S_TAG | TPID_OLD_STACKED => at += 2,
            ETHERTYPE_IPV4 => return Some(ipv4(bytes.get(at..)?).unwrap_or(Packet::Undecided { on_link: false })),
            ETHERTYPE_IPV6 => return ipv6(bytes.get(at..)?),
            0..=MAX_LENGTH if SNAP.contains(bytes.get(at..)?.first_chunk()?) => at += SNAP[0].len(),
            _ => return Some(Packet::Other),
        }
    }
}

/// An IPv4 packet (RFC 791 section 3.1).
fn ipv4(packet: &[u8]) -> Option<Packet> {
    let header_bytes = usize::from(byte(packet, 0)? & 0x0f) * 4;
    let fragment_offset = u16_at(packet, 6)? & 0x1fff;
    let protocol = byte(packet, 9)?;
    if protocol != PROTOCOL_UDP || fragment_offset != 0 {
        return Some(Packet::Other);
    }
    Some(Packet::Udp4 { from: u16_at(packet, header_bytes)?, to: u16_at(packet, header_bytes + 2)? })
}

/// An IPv6 packet (RFC 8200 section 3).
fn ipv6(packet: &[u8]) -> Option<Packet> {
    let (mut next, hop_limit) = (byte(packet, 6)?, byte(packet, 7)?);
    let is_link_local = u16_at(packet, 8)? & 0xffc0 == 0xfe80;
    let on_link = is_link_local && hop_limit == 255;
    let undecided = Some(Packet::Undecided { on_link });
    let mut at = IPV6_HEADER_BYTES;
    loop {
        let Some(header) = packet.get(at..) else { return undecided };
        // Every extension header begins with the next one's number.
        let (Some(after), Some(length)) = (byte(header, 0), byte(header, 1)) else {
            return if is_last(next) { Some(Packet::Other) } else { undecided };
        };
        match next {
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6: eight bytes and the length in units of
            // eight.
            0 | 43 | 60 | 135 | 139 | 140 => at += 8 + 8 * usize::from(length),
            // Authentication: four-byte units, less two (RFC 4302 section 2.2).
            51 => at += 8 + 4 * usize::from(length),
            // Fragment: only the first one has a header of an upper layer.
            44 => match u16_at(header, 2) {
                Some(offset) if offset & 0xfff8 != 0 => return Some(Packet::Other),
                Some(_) => at += 8,
                None => return undecided,
            },
            PROTOCOL_UDP => {
                let from = u16::from_be_bytes([after, length]);
                return u16_at(header, 2).map(|to| Packet::Udp6 { from, to }).or(undecided);
            }
            PROTOCOL_ICMPV6 => return Some(Packet::Icmp6 { message: after, on_link }),
            _ => return if is_last(next) { Some(Packet::Other) } else { undecided },
        }
        next = after;
    }
}

/// True if this protocol number is known to be neither an extension header that hosts walk over nor a protocol that the
/// guards look for: TCP and other transports, tunnels, routing protocols, ESP, no next header.
fn is_last(next: u8) -> bool {
    matches!(
        next,
        1 | 2 | 4 | 6 | 33 | 41 | 46 | 47 | 50 | 59 | 88 | 89 | 94 | 97 | 103 | 108 | 112 | 115 | 132 | 136 | 137
    )
}
