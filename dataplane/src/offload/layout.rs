//! Where the headers of a frame lie: Ethernet with up to four VLAN tags, IPv4 or IPv6, and what IP carries.
//!
//! [`Layout::of`] finds the headers of a TCP or UDP frame that is to be cut. [`judge_checksum`] says whether an
//! unfinished checksum lies where TCP or UDP keeps one: directly behind the outermost IP header, or inside a tunnel.
//! The switch writes a checksum after it has decided about the frame, so a checksum anywhere else could change what was
//! decided on: addresses, VLAN tags, ports, the type of an ICMPv6 message.
//!
//! IPv4 options and the IPv6 extension headers that may stand in every packet of a flow (hop-by-hop options, routing,
//! destination options) are walked over. A fragment is refused, and so is every other extension header: it could not be
//! repeated in each segment. Lengths in the IP header are not judged: they are rewritten for each segment.
//!
//! Invariants: `l3 < l4 < header_bytes`, and `header_bytes` is at most the length of the headers given. A checksum that
//! [`judge_checksum`] allows lies at least [`OUTER_BYTES`] + 6 bytes behind the outermost IP header, or is the checksum
//! field of the TCP or UDP header there.
//!
//! References: 802.1Q clause 9; RFC 791, 3.1; RFC 8200, 4 (extension headers); RFC 9293, 3.1; RFC 768.

use labsw_switch::wire::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_FRAGMENT, PROTOCOL_TCP, PROTOCOL_UDP, TAG_OFFSET, TPID_C_TAG, TPID_S_TAG,
    u16_at,
};

use super::gso::{GsoKind, Partial};
use super::refused::Refused;

/// The most that an IP header can say about its length, bytes: IPv4 total length, IPv6 payload length.
pub(super) const MAX_IP_BYTES: u32 = 65_535;
/// Where the checksum lies in the TCP header.
pub(super) const TCP_CHECKSUM: u16 = 16;
/// Where the checksum lies in the UDP header.
pub(super) const UDP_CHECKSUM: u16 = 6;
/// The most bytes of headers that are worked on.
pub const MAX_HEADER_BYTES: usize = 256;
/// VLAN tags walked over.
const MAX_TAGS: usize = 4;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_GRE: u8 = 47;
const PROTOCOL_MPLS: u8 = 137;
/// Bytes behind the outermost IP header that decisions read: the ports of UDP, the type of an ICMPv6 message.
pub const OUTER_BYTES: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
const IPV4_MIN_BYTES: usize = 20;
pub(super) const IPV6_BYTES: usize = 40;
const TCP_MIN_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// Where the headers lie, bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which protocols.
    pub kind: GsoKind,
    /// IPv6, and not IPv4.
    pub v6: bool,
    /// The IP header.
    pub l3: usize,
    /// The TCP or UDP header.
    pub l4: usize,
    /// The payload.
    pub header_bytes: usize,
}

impl Layout {
    /// Where the checksum lies in the TCP or UDP header.
    #[inline]
    pub(super) fn checksum(&self) -> u16 {
        if self.kind == GsoKind::Udp { UDP_CHECKSUM } else { TCP_CHECKSUM }
    }

    /// The length field of the IP header in a frame of `frame_bytes`: IPv4 total length, IPv6 payload length.
    #[inline]
    pub(super) fn ip_bytes(&self, frame_bytes: u32) -> u32 {
        let base = if self.v6 { self.l3 + IPV6_BYTES } else { self.l3 };
        frame_bytes.saturating_sub(u32::try_from(base).unwrap_or_default())
    }

    /// Finds the headers of a frame of `frame_bytes` of which `headers` is the beginning, as a frame of `kind`.
    ///
    /// # Errors
    /// [`Refused`]: it is something else, is malformed, or ends too early.
    #[inline]
    pub fn of(headers: &[u8], frame_bytes: u32, kind: GsoKind) -> Result<Layout, Refused> {
        shown(headers, frame_bytes, |headers| Layout::find(headers, kind))
    }

    /// `None` if `headers` ends too early.
    #[inline]
    fn find(headers: &[u8], kind: GsoKind) -> Option<Result<Layout, Refused>> {
        let (ethertype, l3) = network(headers)?;
        let carried = match (kind, ethertype) {
            (GsoKind::Tcp4 | GsoKind::Udp, ETHERTYPE_IPV4) => ipv4(headers, l3)?,
            (GsoKind::Tcp6 | GsoKind::Udp, ETHERTYPE_IPV6) => ipv6(headers, l3)?,
            _ => Err(Refused::Ethertype(ethertype)),
        };
        let (l4, bytes) = match (carried, kind) {
            (Ok((PROTOCOL_TCP, l4)), GsoKind::Tcp4 | GsoKind::Tcp6) => {
                (l4, usize::from(headers.get(l4 + 12)? >> 4) * 4)
            }
            (Ok((PROTOCOL_UDP, l4)), GsoKind::Udp) => (l4, UDP_BYTES),
            (Ok((other, _)), _) => return Some(Err(Refused::Protocol(other))),
            (Err(refused), _) => return Some(Err(refused)),
        };
        if kind != GsoKind::Udp && bytes < TCP_MIN_BYTES {
            return Some(Err(Refused::Tcp));
        }
        headers.get(..l4 + bytes)?;
        Some(Ok(Layout { kind, v6: ethertype == ETHERTYPE_IPV6, l3, l4, header_bytes: l4 + bytes }))
    }
}

/// Judges where the frame of `frame_bytes` that begins with `headers` asks for a checksum; see the module.
///
/// # Errors
/// [`Refused`]: the frame is not IP, is a fragment, ends too early, or has no checksum there.
pub(super) fn judge_checksum(headers: &[u8], frame_bytes: u32, partial: Partial) -> Result<(), Refused> {
    let Partial { start, offset } = partial;
    let (protocol, l4) = shown(headers, frame_bytes, |headers| {
        let (ethertype, l3) = network(headers)?;
        match ethertype {
            ETHERTYPE_IPV4 => ipv4(headers, l3),
            ETHERTYPE_IPV6 => ipv6(headers, l3),
            _ => Some(Err(Refused::Ethertype(ethertype))),
        }
    })?;
    let fits = match (protocol, usize::from(start)) {
        (PROTOCOL_TCP, at) if at == l4 => offset == TCP_CHECKSUM,
        (PROTOCOL_UDP, at) if at == l4 => offset == UDP_CHECKSUM,
        (PROTOCOL_UDP | PROTOCOL_IPV4 | PROTOCOL_IPV6 | PROTOCOL_GRE | PROTOCOL_MPLS, at) => {
            at >= l4 + OUTER_BYTES && matches!(offset, TCP_CHECKSUM | UDP_CHECKSUM)
        }
        (_, _) => false,
    };
    if fits { Ok(()) } else { Err(Refused::ChecksumPlace { start, offset, protocol }) }
}

/// Gives `find` the headers of a frame of `frame_bytes` of which `headers` is the beginning. `find` answers `None`
/// where they end too early, because the frame does or because no more of it was copied.
#[inline]
fn shown<T>(
    headers: &[u8],
    frame_bytes: u32,
    find: impl FnOnce(&[u8]) -> Option<Result<T, Refused>>,
) -> Result<T, Refused> {
    let bytes = usize::try_from(frame_bytes).unwrap_or(usize::MAX);
    let end = bytes.min(headers.len()).min(MAX_HEADER_BYTES);
    let missing = if bytes <= headers.len() { Refused::FrameCut } else { Refused::HeadersTooLong };
    find(headers.get(..end).unwrap_or_default()).unwrap_or(Err(missing))
}

/// The ethertype behind the VLAN tags, and where the packet begins. `None` if `headers` ends too early.
#[inline]
fn network(headers: &[u8]) -> Option<(u16, usize)> {
    let mut at = TAG_OFFSET;
    let mut ethertype = u16_at(headers, at)?;
    for _ in 0..MAX_TAGS {
        if ethertype != TPID_C_TAG && ethertype != TPID_S_TAG {
            break;
        }
        at += 4;
        ethertype = u16_at(headers, at)?;
    }
    Some((ethertype, at + 2))
}

/// The protocol that the IPv4 packet at `l3` carries, and where that begins. `None` if `headers` ends too early.
#[inline]
fn ipv4(headers: &[u8], l3: usize) -> Option<Result<(u8, usize), Refused>> {
    let version = *headers.get(l3)?;
    let bytes = usize::from(version & 0xf) * 4;
    if version >> 4 != 4 || bytes < IPV4_MIN_BYTES {
        return Some(Err(Refused::Ip));
    }
    if u16_at(headers, l3 + 6)? & IPV4_FRAGMENT != 0 {
        return Some(Err(Refused::Fragment));
    }
    Some(Ok((*headers.get(l3 + 9)?, l3 + bytes)))
}

/// The protocol that the IPv6 packet at `l3` carries behind its extension headers, and where that begins. `None` if
/// `headers` ends too early.
#[inline]
fn ipv6(headers: &[u8], l3: usize) -> Option<Result<(u8, usize), Refused>> {
    if *headers.get(l3)? >> 4 != 6 {
        return Some(Err(Refused::Ip));
    }
    let mut next = *headers.get(l3 + 6)?;
    let mut at = l3 + IPV6_BYTES;
    // Ends: each round moves on by at least 8 of at most `MAX_HEADER_BYTES` bytes.
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
        next = *headers.get(at)?;
        at += (usize::from(*headers.get(at + 1)?) + 1) * 8;
    }
    Some(Ok((next, at)))
}
