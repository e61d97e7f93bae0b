//! Messages of IGMP, MLD and PIM, and traffic, byte by byte and with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::header::Header;

const SOURCE_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub(super) const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The checksum of RFC 1071, the long way.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut sum: u64 = bytes.chunks(2).map(|pair| u64::from(pair[0]) * 256 + u64::from(pair[1])).sum();
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ethernet(dst: [u8; 6], vlan: Option<u16>, ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    let tag = vlan.map(|vlan| [[0x81, 0], vlan.to_be_bytes()].concat()).unwrap_or_default();
    let mut frame = [&dst, &SOURCE_MAC, tag.as_slice(), &ethertype, packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// `body` from `source` to `dst` with its IPv4 header.
pub(super) fn ipv4(vlan: Option<u16>, source: Ipv4Addr, dst: Ipv4Addr, protocol: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut header =
        [&[0x45, 0xc0], &total[..], &[0, 0, 0, 0, ttl, protocol, 0, 0], &source.octets(), &dst.octets()].concat();
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    let [_, b, c, d] = dst.octets();
    ethernet([1, 0, 0x5e, b & 0x7f, c, d], vlan, [8, 0], &[header, body.to_vec()].concat())
}

/// `body` from `source` to `dst` with its IPv6 header, and with a router alert if it is ICMPv6.
pub(super) fn ipv6(vlan: Option<u16>, source: Ipv6Addr, dst: Ipv6Addr, protocol: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let alert: &[u8] = if protocol == 58 { &[58, 0, 5, 2, 0, 0, 1, 0] } else { &[] };
    let length = u16::try_from(alert.len() + body.len()).unwrap().to_be_bytes();
    let next = if alert.is_empty() { protocol } else { 0 };
    let header = [&[0x60, 0, 0, 0], &length[..], &[next, hops], &source.octets(), &dst.octets()].concat();
    let [.., a, b, c, d] = dst.octets();
    ethernet([0x33, 0x33, a, b, c, d], vlan, [0x86, 0xdd], &[&header, alert, body].concat())
}

fn igmp(vlan: Option<u16>, source: Ipv4Addr, dst: Ipv4Addr, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&[&body]);
    body[2..4].copy_from_slice(&sum);
    ipv4(vlan, source, dst, 2, 1, &body)
}

fn icmpv6(vlan: Option<u16>, source: Ipv6Addr, dst: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&source.octets(), &dst.octets(), &length, &[0, 0, 0, 58], &body]);
    body[2..4].copy_from_slice(&sum);
    ipv6(vlan, source, dst, 58, 1, &body)
}

/// A report, done or leave of one group: `kind` of IGMP or MLD.
pub(super) fn one(vlan: Option<u16>, kind: u8, group: IpAddr) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => {
            let dst = if kind == 0x17 { Ipv4Addr::new(224, 0, 0, 2) } else { group };
            igmp(vlan, HOST_V4, dst, [&[kind, 0, 0, 0], &group.octets()[..]].concat())
        }
        IpAddr::V6(group) => {
            let dst = if kind == 132 { "ff02::2".parse().unwrap() } else { group };
            icmpv6(vlan, HOST_V6, dst, [&[kind, 0, 0, 0, 0, 0, 0, 0], &group.octets()[..]].concat())
        }
    }
}

/// A group record: its kind, the number of its sources, its group.
pub(super) type Record = (u8, u16, IpAddr);

/// A report of IGMPv3 or MLDv2, each record with a word of auxiliary data.
pub(super) fn listed(vlan: Option<u16>, is_ipv4: bool, records: &[Record]) -> Vec<u8> {
    let kind = if is_ipv4 { 0x22 } else { 143 };
    let mut body = [[kind, 0, 0, 0, 0, 0].as_slice(), &u16::try_from(records.len()).unwrap().to_be_bytes()].concat();
    for (kind, sources, group) in records {
        body.extend([*kind, 1]);
        body.extend(sources.to_be_bytes());
        match group {
            IpAddr::V4(group) => body.extend(group.octets()),
            IpAddr::V6(group) => body.extend(group.octets()),
        }
        body.resize(body.len() + usize::from(*sources) * if is_ipv4 { 4 } else { 16 } + 4, 0x0a);
    }
    if is_ipv4 {
        igmp(vlan, HOST_V4, Ipv4Addr::new(224, 0, 0, 22), body)
    } else {
        icmpv6(vlan, HOST_V6, "ff02::16".parse().unwrap(), body)
    }
}

/// A query from `source`: of all groups or of one, with this code for the time to answer, in its second or third
/// version.
pub(super) fn query(vlan: Option<u16>, source: IpAddr, group: Option<IpAddr>, code: u16, long: bool) -> Vec<u8> {
    match (source, group) {
        (IpAddr::V4(source), group) => {
            let group = if let Some(IpAddr::V4(group)) = group { Some(group) } else { None };
            let (dst, asked) = (group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1)), group.unwrap_or(Ipv4Addr::UNSPECIFIED));
            let mut body = [&[0x11, u8::try_from(code).unwrap(), 0, 0], &asked.octets()[..]].concat();
            body.resize(if long { 12 } else { 8 }, 0);
            igmp(vlan, source, dst, body)
        }
        (IpAddr::V6(source), group) => {
            let group = if let Some(IpAddr::V6(group)) = group { Some(group) } else { None };
            let dst = group.unwrap_or_else(|| "ff02::1".parse().unwrap());
            let asked = group.unwrap_or(Ipv6Addr::UNSPECIFIED);
            let [high, low] = code.to_be_bytes();
            let mut body = [&[130, 0, 0, 0, high, low, 0, 0], &asked.octets()[..]].concat();
            body.resize(if long { 28 } else { 24 }, 0);
            icmpv6(vlan, source, dst, body)
        }
    }
}

/// A hello of PIM.
pub(super) fn hello(vlan: Option<u16>, is_ipv4: bool) -> Vec<u8> {
    let mut body = vec![0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105];
    let (to_v4, to_v6): (_, Ipv6Addr) = (Ipv4Addr::new(224, 0, 0, 13), "ff02::d".parse().unwrap());
    if is_ipv4 {
        let sum = checksum(&[&body]);
        body[2..4].copy_from_slice(&sum);
        return ipv4(vlan, HOST_V4, to_v4, 103, 1, &body);
    }
    let sum = checksum(&[&HOST_V6.octets(), &to_v6.octets(), &[0, 0, 0, 10, 0, 0, 0, 103], &body]);
    body[2..4].copy_from_slice(&sum);
    ipv6(vlan, HOST_V6, to_v6, 103, 1, &body)
}

/// A datagram to a group.
pub(super) fn data(vlan: Option<u16>, group: IpAddr) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => ipv4(vlan, HOST_V4, group, 17, 8, &[0; 16]),
        IpAddr::V6(group) => ipv6(vlan, HOST_V6, group, 17, 8, &[0; 16]),
    }
}

pub(super) fn header(frame: &[u8]) -> Header {
    Header::parse(frame).unwrap()
}
