//! Lines for frames that etherparse builds, for broken ones, and for random ones.

use std::net::Ipv6Addr;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep,
    UdpHeader, VlanId,
};
use proptest::prelude::*;

use super::line;

const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

fn whole(frame: &[u8]) -> String {
    line(frame, frame.len(), false)
}

fn udp(ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let step: PacketBuilderStep<UdpHeader> =
        PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(ports[0], ports[1]);
    let mut frame = Vec::new();
    step.write(&mut frame, payload).unwrap();
    frame
}

fn tcp_step() -> PacketBuilderStep<etherparse::TcpHeader> {
    PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(51234, 445, 1000, 64240)
}

#[test]
fn tcp_has_flags_numbers_and_the_length_on_the_wire() {
    let mut frame = Vec::new();
    tcp_step().syn().write(&mut frame, &[]).unwrap();
    let expected = "IP 10.0.0.1.51234 > 10.0.0.2.445: Flags [S], seq 1000, win 64240, length 0";
    assert_eq!(whole(&frame), expected);
    // Padded to the least length of a frame.
    frame.resize(60, 0);
    assert_eq!(whole(&frame), expected);

    frame.clear();
    tcp_step().psh().ack(7).write(&mut frame, &[0; 20]).unwrap();
    let expected = "IP 10.0.0.1.51234 > 10.0.0.2.445: Flags [P.], seq 1000:1020, ack 7, win 64240, length 20";
    assert_eq!(whole(&frame), expected);
    // The capture kept only the headers.
    assert_eq!(line(&frame[..54], frame.len(), false), expected);
    assert_eq!(
        line(&frame[..40], frame.len(), false),
        "IP 10.0.0.1 > 10.0.0.2: TCP, length 40 [cut in the TCP header]"
    );
    let expected = format!("52:54:00:00:00:01 > 52:54:00:00:00:02, {expected}");
    assert_eq!(line(&frame, frame.len(), true), expected);
}

#[test]
fn tags_are_named_outer_first() {
    let mut frame = Vec::new();
    let vlan = |id| VlanId::try_new(id).unwrap();
    let tagged = PacketBuilder::ethernet2(A, B).double_vlan(vlan(100), vlan(20));
    tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).icmpv4_echo_request(1, 2).write(&mut frame, &[0; 56]).unwrap();
    let expected = "vlan 100, vlan 20, IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 64";
    assert_eq!(whole(&frame), expected);
}

#[test]
fn arp_is_told_in_words() {
    let packet = |operation, sender: [u8; 4], target: [u8; 4]| {
        let packet =
            ArpEthIpv4Packet { operation, sender_mac: A, sender_ipv4: sender, target_mac: [0; 6], target_ipv4: target };
        let mut frame = [&[0xff; 6], &A[..], &[8, 6]].concat();
        frame.extend(packet.to_bytes());
        whole(&frame)
    };
    let (own, other) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    assert_eq!(packet(ArpOperation::REQUEST, own, other), "ARP, request who-has 10.0.0.2 tell 10.0.0.1");
    assert_eq!(packet(ArpOperation::REPLY, own, other), "ARP, reply 10.0.0.1 is-at 52:54:00:00:00:01");
    assert_eq!(packet(ArpOperation::REQUEST, own, own), "ARP, announcement 10.0.0.1 is-at 52:54:00:00:00:01");
    assert_eq!(packet(ArpOperation::REQUEST, [0; 4], own), "ARP, probe 10.0.0.1 from 52:54:00:00:00:01");
}

#[test]
fn version_6_and_neighbour_discovery() {
    let (from, to) = ("fe80::1".parse::<Ipv6Addr>().unwrap(), "ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap());
    let ip = || PacketBuilder::ethernet2(A, B).ipv6(from.octets(), to.octets(), 255);
    let mut frame = Vec::new();
    ip().tcp(1, 2, 3, 4).syn().write(&mut frame, &[]).unwrap();
    assert_eq!(whole(&frame), "IP6 fe80::1.1 > ff02::1:ff00:2.2: Flags [S], seq 3, win 4, length 0");
    frame.clear();
    let target = "fe80::2".parse::<Ipv6Addr>().unwrap().octets();
    ip().icmpv6_raw(135, 0, [0; 4]).write(&mut frame, &target).unwrap();
    let expected = "IP6 fe80::1 > ff02::1:ff00:2: ICMP6 neighbor solicitation, who has fe80::2, length 24";
    assert_eq!(whole(&frame), expected);
}

#[test]
fn questions_and_answers_of_dns() {
    let message = |flags: u16, answers: u16, kind: u16| {
        let mut message = [[0x12, 0x34], flags.to_be_bytes(), [0, 1], answers.to_be_bytes(), [0; 2], [0; 2]].concat();
        message.extend(b"\x03www\x07example\x00");
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        message
    };
    let ends = |frame: Vec<u8>| whole(&frame).split_once(": ").unwrap().1.to_owned();
    assert_eq!(ends(udp([5000, 53], &message(0x100, 0, 1))), "DNS 4660 A? www.example, length 29");
    assert_eq!(ends(udp([53, 5000], &message(0x8180, 2, 28))), "DNS 4660 AAAA www.example: 2 answers, length 29");
    assert_eq!(ends(udp([53, 5000], &message(0x8183, 0, 99))), "DNS 4660 type 99 www.example: no such name, length 29");
    // A name that points to itself, one that is too long, and one that is cut off.
    for name in [&b"\xc0\x0c"[..], &[63; 64 * 5], b"\x03ww"] {
        let mut message = message(0x100, 0, 1);
        message.truncate(12);
        message.extend(name);
        assert_eq!(ends(udp([5000, 53], &message)), format!("UDP, length {}", message.len()));
    }
    assert_eq!(ends(udp([5000, 5001], &message(0, 0, 1))), "UDP, length 29");
}

#[test]
fn dhcp_says_who_gets_which_address() {
    let message = |yours: [u8; 4], options: &[u8]| {
        let mut message = vec![0; 236];
        message[16..20].copy_from_slice(&yours);
        message[28..34].copy_from_slice(&A);
        message.extend([0x63, 0x82, 0x53, 0x63]);
        message.extend(options);
        let ports = [68, 67];
        whole(&udp(ports, &message)).split_once(": ").unwrap().1.to_owned()
    };
    let discover = message([0; 4], b"\x00\x35\x01\x01\x0c\x03web\xff");
    assert_eq!(discover, "DHCP discover from 52:54:00:00:00:01, host web, length 250");
    let request = message([0; 4], &[53, 1, 3, 50, 4, 10, 0, 0, 5, 255]);
    assert_eq!(request, "DHCP request 10.0.0.5 from 52:54:00:00:00:01, length 250");
    let ack = message([10, 0, 0, 5], &[53, 1, 5, 255]);
    assert_eq!(ack, "DHCP ack 10.0.0.5 to 52:54:00:00:00:01, length 244");
    assert_eq!(message([0; 4], &[53, 200, 1]), "UDP, length 243");
}

#[test]
fn fragments_and_other_protocols() {
    let mut ip = Ipv4Header::new(100, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    ip.identification = 7;
    ip.fragment_offset = 185.try_into().unwrap();
    let frame = [&B[..], &A, &EtherType::IPV4.0.to_be_bytes(), &ip.to_bytes(), &[0; 100]].concat();
    assert_eq!(whole(&frame), "IP 10.0.0.1 > 10.0.0.2: UDP, length 100 (fragment 7@1480)");
    ip.fragment_offset = 0.try_into().unwrap();
    ip.protocol = IpNumber(47);
    let frame = [&B[..], &A, &EtherType::IPV4.0.to_be_bytes(), &ip.to_bytes(), &[0; 100]].concat();
    assert_eq!(whole(&frame), "IP 10.0.0.1 > 10.0.0.2: GRE, length 100");
    let ip = Ipv6Header { payload_length: 8, next_header: IpNumber(253), ..Ipv6Header::default() };
    let frame = [&B[..], &A, &EtherType::IPV6.0.to_be_bytes(), &ip.to_bytes(), &[0; 8]].concat();
    assert!(whole(&frame).starts_with("IP6 :: > ::: "), "{}", whole(&frame));
}

#[test]
fn frames_without_ip_show_their_stations() {
    let frame = |ethertype: u16, payload: &[u8]| whole(&[&B[..], &A, &ethertype.to_be_bytes(), payload].concat());
    let stations = "52:54:00:00:00:01 > 52:54:00:00:00:02";
    assert_eq!(frame(0x88cc, &[0; 46]), format!("{stations}, lldp, length 60"));
    assert_eq!(frame(0x1234, &[0; 46]), format!("{stations}, ethertype 0x1234, length 60"));
    assert_eq!(frame(38, &[0x42, 0x42, 3]), format!("{stations}, STP, length 17"));
    assert_eq!(frame(0x0800, &[0x45; 10]), format!("{stations}, ipv4, length 24 [broken IP header]"));
    assert_eq!(whole(&[1, 2, 3]), "no whole Ethernet header, length 3");
}

proptest! {
    #[test]
    fn no_frame_makes_it_fail(
        ethertype in prop::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x8100, 0x88e5, 0x88cc, 40]),
        start in prop::sample::select(vec![0x45u8, 0x4f, 0x60, 0]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        protocol in prop::sample::select(vec![1u8, 2, 6, 17, 44, 51, 58, 0]),
        missing in 0usize..2000,
    ) {
        let mut frame = [&B[..], &A, &ethertype.to_be_bytes(), &[start], &rest].concat();
        for at in [20, 23] {
            if let Some(byte) = frame.get_mut(at) {
                *byte = protocol;
            }
        }
        let text = line(&frame, frame.len() + missing, true);
        prop_assert!(!text.is_empty() && text.len() < 2000, "{}", text.len());
    }
}
