//! The headers before a copy: Ethernet, IPv4 or IPv6, and GRE with ERSPAN, or UDP with VXLAN.

use std::net::IpAddr;

use super::{RemoteSpec, Tunnel};
use crate::Mac;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP, TCI_VID_MASK, TPID_C_TAG, internet_sum, u16_at};

/// Longest header: Ethernet with a tag, IPv6, and 16 bytes of the tunnel.
pub const HEAD_BYTES: usize = 14 + 4 + 40 + 16;

const PROTOCOL_GRE: u8 = 47;
const HOP_LIMIT: u8 = 64;
/// Packets are not fragmented on the way; the receiver could not put them together fast enough.
const DONT_FRAGMENT: u16 = 0x4000;
/// A sequence number is there (RFC 2890 2).
const GRE_SEQUENCE: u16 = 0x1000;
const ETHERTYPE_ERSPAN_II: u16 = 0x88be;
const ERSPAN_VERSION_II: u16 = 1;
/// The VLAN tag of the copy was there and is gone; is there still (ERSPAN's `En`).
const ERSPAN_STRIPPED: u16 = 2;
const ERSPAN_KEPT: u16 = 3;
const VXLAN_PORT: u16 = 4789;
const VXLAN_HAS_VNI: u32 = 0x0800_0000;
/// Source ports of VXLAN are 0xc000 to 0xffff (RFC 7348 5).
const FIRST_PORT: u16 = 0xc000;

/// Headers; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_BYTES],
    len: usize,
}

impl Head {
    /// See [`Remote::head`](super::Remote::head).
    pub(super) fn new(
        spec: &RemoteSpec,
        station: Mac,
        sequence: u32,
        copy: &[u8],
        is_cut: bool,
        tag: Option<u16>,
    ) -> Head {
        let mut head = Head { bytes: [0; HEAD_BYTES], len: 0 };
        head.ethernet(spec, station);
        let ip_at = head.len;
        let protocol = match spec.tunnel {
            Tunnel::Erspan(_) => PROTOCOL_GRE,
            Tunnel::Vxlan(_) => PROTOCOL_UDP,
        };
        // The caller sees to it that a packet is no longer than IP can say.
        let payload_bytes = u16::try_from(spec.tunnel.header_bytes() as usize + copy.len()).unwrap_or(u16::MAX);
        match (spec.source, spec.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                head.put(&[0x45, 0]);
                head.put_u16(payload_bytes.saturating_add(20));
                head.put_u16(0);
                head.put_u16(DONT_FRAGMENT);
                head.put(&[HOP_LIMIT, protocol, 0, 0]);
                head.put(&source.octets());
                head.put(&destination.octets());
                let checksum = !internet_sum(&[head.from(ip_at)]);
                head.set_u16(ip_at + 10, checksum);
            }
            (source, destination) => {
                head.put(&[0x60, 0, 0, 0]);
                head.put_u16(payload_bytes);
                head.put(&[protocol, HOP_LIMIT]);
                for address in [source, destination] {
                    head.put(&as_v6(address));
                }
            }
        }
        match spec.tunnel {
            Tunnel::Erspan(session) => head.erspan(spec, session, sequence, is_cut, tag),
            Tunnel::Vxlan(vni) => head.vxlan(spec, vni, payload_bytes, copy),
        }
        head
    }

    /// The headers.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn ethernet(&mut self, spec: &RemoteSpec, station: Mac) {
        self.put(&station.octets());
        self.put(&spec.mac.octets());
        if let Some(vid) = spec.vlan {
            self.put_u16(TPID_C_TAG);
            self.put_u16(vid.get());
        }
        self.put_u16(if spec.source.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
    }

    fn erspan(&mut self, spec: &RemoteSpec, session: u16, sequence: u32, is_cut: bool, tag: Option<u16>) {
        self.put_u16(GRE_SEQUENCE);
        self.put_u16(ETHERTYPE_ERSPAN_II);
        self.put(&sequence.to_be_bytes());
        let (vid, class, kind) = match tag {
            None => (0, 0, 0),
            Some(tci) => (tci & TCI_VID_MASK, tci >> 13, if spec.strip_tag { ERSPAN_STRIPPED } else { ERSPAN_KEPT }),
        };
        self.put_u16(ERSPAN_VERSION_II << 12 | vid);
        self.put_u16(class << 13 | kind << 11 | u16::from(is_cut) << 10 | session & 0x3ff);
        // No index of a port.
        self.put(&[0; 4]);
    }

    fn vxlan(&mut self, spec: &RemoteSpec, vni: u32, udp_bytes: u16, copy: &[u8]) {
        let udp_at = self.len;
        self.put_u16(FIRST_PORT | hash(copy));
        self.put_u16(VXLAN_PORT);
        self.put_u16(udp_bytes);
        self.put_u16(0);
        self.put(&VXLAN_HAS_VNI.to_be_bytes());
        self.put(&(vni << 8).to_be_bytes());
        if spec.source.is_ipv6() {
            // Linux takes no packet without a checksum over IPv6, unless it is told to.
            let pseudo = [&as_v6(spec.source)[..], &as_v6(spec.destination)].concat();
            let lengths = [0, 0, udp_bytes.to_be_bytes()[0], udp_bytes.to_be_bytes()[1], 0, 0, 0, PROTOCOL_UDP];
            let checksum = match !internet_sum(&[&pseudo, &lengths, self.from(udp_at), copy]) {
                0 => 0xffff,
                checksum => checksum,
            };
            self.set_u16(udp_at + 6, checksum);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn put_u16(&mut self, number: u16) {
        self.put(&number.to_be_bytes());
    }

    fn set_u16(&mut self, at: usize, number: u16) {
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }

    fn from(&self, at: usize) -> &[u8] {
        self.bytes.get(at..self.len).unwrap_or_default()
    }
}

/// The octets of an IPv6 address; an IPv4 address is never asked for.
fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// 14 bits by which receivers spread packets, alike for both directions of a conversation: of the MAC addresses, and of
/// the addresses of an untagged IPv4 packet.
fn hash(copy: &[u8]) -> u16 {
    let places = [0, 2, 4, 6, 8, 10, 26, 28, 30, 32];
    let folded = places.iter().fold(0u16, |hash, at| hash ^ u16_at(copy, *at).unwrap_or_default());
    (folded ^ folded >> 7) & 0x3fff
}
