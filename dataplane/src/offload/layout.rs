//! Where the headers of a TCP frame lie: Ethernet with up to two VLAN tags, IPv4 or IPv6, TCP.
//!
//! IPv4 options and the IPv6 extension headers that may stand in every packet of a flow (hop-by-hop options, routing,
//! destination options) are walked over. A fragment is refused, and so is every other extension header: it could not be
//! repeated in each segment. Lengths in the IP header are not judged: they are written anew for each segment.
//!
//! Invariant: `l3 < l4 < header_bytes`, and `header_bytes` is at most the length of the headers given.
//!
//! References: 802.1Q clause 9; RFC 791, 3.1; RFC 8200, 4 (extension headers); RFC 9293, 3.1.

use labsw_switch::header::{TPID_C_TAG, TPID_S_TAG};

use super::request::{GsoKind, Refused};
use super::sum::get_u16;

/// The most that an IP header can say about its length, bytes: IPv4 total length, IPv6 payload length.
pub(super) const MAX_IP_BYTES: u32 = 65_535;
/// Where the checksum lies in the TCP header.
pub(super) const TCP_CHECKSUM: u16 = 16;
/// The most bytes of headers that are worked on.
pub const MAX_HEADER_BYTES: usize = 256;
/// Two MAC addresses.
const ETHERTYPE_OFFSET: usize = 12;
/// VLAN tags walked over.
const MAX_TAGS: usize = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
const IPV4_MIN_BYTES: usize = 20;
pub(super) const IPV6_BYTES: usize = 40;
const TCP_MIN_BYTES: usize = 20;
/// Of the field with flags and offset, the bits that say "fragment": more fragments, and the offset.
const IPV4_FRAGMENT: u16 = 0x3fff;

/// Where the headers lie, bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Which protocols.
    pub kind: GsoKind,
    /// The IP header.
    pub l3: usize,
    /// The TCP header.
    pub l4: usize,
    /// The payload.
    pub header_bytes: usize,
}

impl Layout {
    /// What the IP header of a frame of `frame_bytes` has to say about its length: IPv4 total length, IPv6 payload
    /// length.
    #[inline]
    pub(super) fn ip_bytes(&self, frame_bytes: u32) -> u32 {
        let base = match self.kind {
            GsoKind::Tcp4 => self.l3,
            GsoKind::Tcp6 => self.l3 + IPV6_BYTES,
        };
        frame_bytes.saturating_sub(u32::try_from(base).unwrap_or_default())
    }

    /// Finds the headers of a frame of `frame_bytes` of which `headers` is the beginning, as a frame of `kind`.
    ///
    /// # Errors
    /// [`Refused`]: it is something else, is malformed, or ends too early.
    #[inline]
    pub fn of(headers: &[u8], frame_bytes: u32, kind: GsoKind) -> Result<Layout, Refused> {
        let shown = usize::try_from(frame_bytes).map_or(headers.len(), |bytes| bytes.min(headers.len()));
        let headers = headers.get(..shown.min(MAX_HEADER_BYTES)).unwrap_or_default();
        // What lies behind `headers` is either behind the frame's end, or was not copied.
        let complete = usize::try_from(frame_bytes).is_ok_and(|bytes| bytes <= headers.len());
        Layout::find(headers, kind).ok_or(if complete { Refused::FrameCut } else { Refused::HeadersTooLong })?
    }

    /// `None` if `headers` ends too early.
    #[inline]
    fn find(headers: &[u8], kind: GsoKind) -> Option<Result<Layout, Refused>> {
        let mut at = ETHERTYPE_OFFSET;
        let mut ethertype = get_u16(headers, at)?;
        for _ in 0..MAX_TAGS {
            if ethertype == TPID_C_TAG || ethertype == TPID_S_TAG {
                at += 4;
                ethertype = get_u16(headers, at)?;
            }
        }
        let l3 = at + 2;
        let version = *headers.get(l3)?;
        let l4 = match (kind, ethertype) {
            (GsoKind::Tcp4, ETHERTYPE_IPV4) => ipv4(headers, l3, version)?,
            (GsoKind::Tcp6, ETHERTYPE_IPV6) => ipv6(headers, l3, version)?,
            _ => Err(Refused::Ethertype(ethertype)),
        };
        let l4 = match l4 {
            Ok(l4) => l4,
            Err(refused) => return Some(Err(refused)),
        };
        let tcp_bytes = usize::from(headers.get(l4 + 12)? >> 4) * 4;
        if tcp_bytes < TCP_MIN_BYTES {
            return Some(Err(Refused::Tcp));
        }
        headers.get(..l4 + tcp_bytes)?;
        Some(Ok(Layout { kind, l3, l4, header_bytes: l4 + tcp_bytes }))
    }
}

/// Where what follows the IPv4 header at `l3` begins.
#[inline]
fn ipv4(headers: &[u8], l3: usize, version: u8) -> Option<Result<usize, Refused>> {
    let bytes = usize::from(version & 0xf) * 4;
    if version >> 4 != 4 || bytes < IPV4_MIN_BYTES {
        return Some(Err(Refused::Ip));
    }
    if get_u16(headers, l3 + 6)? & IPV4_FRAGMENT != 0 {
        return Some(Err(Refused::Fragment));
    }
    Some(match *headers.get(l3 + 9)? {
        PROTOCOL_TCP => Ok(l3 + bytes),
        other => Err(Refused::Protocol(other)),
    })
}

/// Where what follows the IPv6 header at `l3` and its extensions begins.
#[inline]
fn ipv6(headers: &[u8], l3: usize, version: u8) -> Option<Result<usize, Refused>> {
    if version >> 4 != 6 {
        return Some(Err(Refused::Ip));
    }
    let mut next = *headers.get(l3 + 6)?;
    let mut at = l3 + IPV6_BYTES;
    // Ends: each round moves on by at least 8 of at most `MAX_HEADER_BYTES` bytes.
    loop {
        match next {
            PROTOCOL_TCP => return Some(Ok(at)),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                next = *headers.get(at)?;
                at += (usize::from(*headers.get(at + 1)?) + 1) * 8;
            }
            other => return Some(Err(Refused::Protocol(other))),
        }
    }
}
