//! IPv4 and IPv6 packets, and TCP, UDP, ICMP and IGMP in them.
//!
//! Lengths are those of the payload on the wire, also where the capture kept only its beginning.
//!
//! References: RFC 791, 8200 (IP), 9293 (TCP), 768 (UDP), 792, 4443, 4861 (ICMP, neighbour discovery), 3376 (IGMP).

use std::fmt::Display;
use std::net::Ipv6Addr;

use etherparse::icmpv4::DestUnreachableHeader as Unreachable4;
use etherparse::icmpv6::DestUnreachableCode as Unreachable6;
use etherparse::{
    Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, IpNumber, LaxIpPayloadSlice, LaxIpv4Slice, LaxIpv6Slice,
    TcpSlice, TransportSlice, UdpSlice,
};

use super::application;

/// An IPv4 packet; the capture lacks the last `missing` bytes of the frame.
pub(super) fn version_4(packet: &LaxIpv4Slice<'_>, transport: Option<&TransportSlice<'_>>, missing: usize) -> String {
    let header = packet.header();
    let (from, to) = (header.source_addr(), header.destination_addr());
    let line = packet_line("IP", &from, &to, packet.payload(), transport, missing);
    if !packet.is_payload_fragmented() {
        return line;
    }
    let (id, offset) = (header.identification(), u32::from(header.fragments_offset().value()) * 8);
    let more = if header.more_fragments() { "+" } else { "" };
    format!("{line} (fragment {id}@{offset}{more})")
}

/// An IPv6 packet; see [`version_4`].
pub(super) fn version_6(packet: &LaxIpv6Slice<'_>, transport: Option<&TransportSlice<'_>>, missing: usize) -> String {
    let header = packet.header();
    let (from, to) = (header.source_addr(), header.destination_addr());
    let line = packet_line("IP6", &from, &to, packet.payload(), transport, missing);
    if packet.is_payload_fragmented() { format!("{line} (fragment)") } else { line }
}

fn packet_line(
    name: &str,
    from: &dyn Display,
    to: &dyn Display,
    payload: &LaxIpPayloadSlice<'_>,
    transport: Option<&TransportSlice<'_>>,
    missing: usize,
) -> String {
    let length = payload.payload.len() + if payload.incomplete { missing } else { 0 };
    match transport {
        Some(TransportSlice::Tcp(segment)) => {
            let (source, destination) = (segment.source_port(), segment.destination_port());
            let data = length.saturating_sub(segment.header_slice().len());
            format!("{name} {from}.{source} > {to}.{destination}: {}", tcp(segment, data))
        }
        Some(TransportSlice::Udp(datagram)) => {
            let (source, destination) = (datagram.source_port(), datagram.destination_port());
            format!("{name} {from}.{source} > {to}.{destination}: {}", udp(datagram))
        }
        Some(TransportSlice::Icmpv4(message)) => {
            format!("{name} {from} > {to}: ICMP {}, length {length}", icmp_4(message))
        }
        Some(TransportSlice::Icmpv6(message)) => {
            format!("{name} {from} > {to}: ICMP6 {}, length {length}", icmp_6(message))
        }
        Some(TransportSlice::Igmp(message)) => {
            format!("{name} {from} > {to}: IGMP {}, length {length}", igmp(message.type_u8()))
        }
        None => format!("{name} {from} > {to}: {}, length {length}", protocol(payload.ip_number)),
    }
}

fn protocol(number: IpNumber) -> String {
    number.keyword_str().map_or_else(|| format!("protocol {}", number.0), str::to_owned)
}

/// `Flags [S.], seq 1:11, ack 2, win 502, length 10`, where `data` is the length.
fn tcp(segment: &TcpSlice<'_>, data: usize) -> String {
    let flags = [
        (segment.fin(), 'F'),
        (segment.syn(), 'S'),
        (segment.rst(), 'R'),
        (segment.psh(), 'P'),
        (segment.ack(), '.'),
        (segment.urg(), 'U'),
        (segment.ece(), 'E'),
        (segment.cwr(), 'W'),
    ];
    let flags: String = flags.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
    let flags = if flags.is_empty() { "none".to_owned() } else { flags };
    let first = segment.sequence_number();
    let seq = match u32::try_from(data) {
        Ok(length) if length > 0 => format!(", seq {first}:{}", first.wrapping_add(length)),
        _ if segment.syn() || segment.fin() || segment.rst() => format!(", seq {first}"),
        _ => String::new(),
    };
    let ack = if segment.ack() { format!(", ack {}", segment.acknowledgment_number()) } else { String::new() };
    format!("Flags [{flags}]{seq}{ack}, win {}, length {data}", segment.window_size())
}

fn udp(datagram: &UdpSlice<'_>) -> String {
    const HEADER_BYTES: usize = 8;
    let ports = [datagram.source_port(), datagram.destination_port()];
    let length = usize::from(datagram.length()).saturating_sub(HEADER_BYTES);
    match application::message(ports, datagram.payload()) {
        Some(message) => format!("{message}, length {length}"),
        None => format!("UDP, length {length}"),
    }
}

fn icmp_4(message: &Icmpv4Slice<'_>) -> String {
    match message.icmp_type() {
        Icmpv4Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv4Type::DestinationUnreachable(why) => match why {
            Unreachable4::Network => "network unreachable".to_owned(),
            Unreachable4::Host => "host unreachable".to_owned(),
            Unreachable4::Protocol => "protocol unreachable".to_owned(),
            Unreachable4::Port => "port unreachable".to_owned(),
            Unreachable4::FragmentationNeeded { next_hop_mtu } => format!("fragmentation needed, mtu {next_hop_mtu}"),
            Unreachable4::NetworkProhibited | Unreachable4::HostProhibited | Unreachable4::FilterProhibited => {
                "unreachable: prohibited".to_owned()
            }
            _ => "unreachable".to_owned(),
        },
        Icmpv4Type::TimeExceeded(_) => "time exceeded".to_owned(),
        Icmpv4Type::Redirect(_) => "redirect".to_owned(),
        _ => format!("type {} code {}", message.type_u8(), message.code_u8()),
    }
}

fn icmp_6(message: &Icmpv6Slice<'_>) -> String {
    // Solicitations and advertisements name the address that they are about.
    let target = || {
        let bytes = message.payload().get(..16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.map(|bytes| format!(" {}", Ipv6Addr::from(bytes))).unwrap_or_default()
    };
    match message.icmp_type() {
        Icmpv6Type::EchoRequest(echo) => format!("echo request, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::EchoReply(echo) => format!("echo reply, id {}, seq {}", echo.id, echo.seq),
        Icmpv6Type::RouterSolicitation => "router solicitation".to_owned(),
        Icmpv6Type::RouterAdvertisement(_) => "router advertisement".to_owned(),
        Icmpv6Type::NeighborSolicitation => format!("neighbor solicitation, who has{}", target()),
        Icmpv6Type::NeighborAdvertisement(_) => format!("neighbor advertisement, tgt is{}", target()),
        Icmpv6Type::PacketTooBig { mtu } => format!("packet too big, mtu {mtu}"),
        Icmpv6Type::DestinationUnreachable(Unreachable6::Port) => "port unreachable".to_owned(),
        Icmpv6Type::DestinationUnreachable(_) => "unreachable".to_owned(),
        Icmpv6Type::TimeExceeded(_) => "time exceeded".to_owned(),
        _ => match message.type_u8() {
            130 => "multicast listener query".to_owned(),
            131 | 143 => "multicast listener report".to_owned(),
            132 => "multicast listener done".to_owned(),
            other => format!("type {other} code {}", message.code_u8()),
        },
    }
}

fn igmp(kind: u8) -> String {
    match kind {
        0x11 => "query".to_owned(),
        0x12 | 0x16 | 0x22 => "report".to_owned(),
        0x17 => "leave".to_owned(),
        other => format!("type {other:#04x}"),
    }
}
