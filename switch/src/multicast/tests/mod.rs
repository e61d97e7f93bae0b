//! Frames byte by byte: what they are taken for, and what broken ones are; the table at its limits. `model` plays
//! random sequences against a naive model.

use proptest::prelude::*;

use super::message::{Change, Invalid, Message, Query, parse};
use super::*;
use crate::vlan::VlanSet;
use crate::{PortId, Vid};

mod frames;
mod model;
mod record;

use frames::{HOST_V4, HOST_V6, data, header, hello, ipv4, ipv6, listed, one, query};

const A: PortId = PortId(0);
const B: PortId = PortId(1);
const ROUTER: PortId = PortId(1023);
const ON: Option<u16> = Some(10);

fn vid() -> Vid {
    Vid::try_from(10).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn look_at(frame: &[u8]) -> Look {
    look(&header(frame), &frame[..frame.len().min(128)])
}

fn read(frame: &[u8]) -> Result<Message<'_>, Invalid> {
    parse(&header(frame), frame)
}

fn changes(frame: &[u8]) -> Vec<(IpAddr, Change)> {
    match read(frame) {
        Ok(Message::Report(report)) => report.changes().collect(),
        other => panic!("not a report: {other:?}"),
    }
}

fn observe(snooping: &Snooping, port: PortId, frame: &[u8], now: u32) {
    snooping.observe(vid(), port, &header(frame), frame, now);
}

fn ports(ports: &[PortId]) -> Option<PortSet> {
    Some(ports.iter().copied().collect())
}

#[test]
fn whom_a_frame_may_interest() {
    let (v4, v6) = (ip("239.1.2.3"), ip("ff05::1234"));
    let (hosts_v4, hosts_v6) = (Look::HostMessage(Family::Ipv4), Look::HostMessage(Family::Ipv6));
    for (frame, expected) in [
        (data(None, v4), Look::Group(v4)),
        (data(ON, v6), Look::Group(v6)),
        (data(None, ip("224.0.1.0")), Look::Group(ip("224.0.1.0"))),
        (data(None, ip("224.0.0.251")), Look::Everyone),
        (data(None, ip("ff02::1:ff00:1")), Look::Everyone),
        (data(None, ip("ff01::1")), Look::Everyone),
        (data(None, ip("ff03::1")), Look::Group(ip("ff03::1"))),
        (one(ON, 0x12, v4), hosts_v4),
        (one(None, 0x16, v4), hosts_v4),
        (one(None, 0x17, v4), hosts_v4),
        (listed(None, true, &[]), hosts_v4),
        (one(None, 131, v6), hosts_v6),
        (one(ON, 132, v6), hosts_v6),
        (listed(None, false, &[]), hosts_v6),
        (query(None, HOST_V4.into(), None, 5, true), Look::RouterMessage),
        (query(ON, HOST_V4.into(), Some(v4), 5, true), Look::RouterMessage),
        (query(None, HOST_V6.into(), None, 5, true), Look::RouterMessage),
        (hello(ON, true), Look::RouterMessage),
        (hello(None, false), Look::RouterMessage),
        // Reports that came over a router, and other kinds of message.
        (ipv4(None, HOST_V4, "239.1.2.3".parse().unwrap(), 2, 2, &[0x16, 0, 0, 0, 239, 1, 2, 3]), Look::Group(v4)),
        (ipv4(None, HOST_V4, "224.0.0.9".parse().unwrap(), 2, 1, &[0x13; 8]), Look::Everyone),
        (ipv6(None, HOST_V6, "ff05::1234".parse().unwrap(), 58, 9, &[143; 8]), Look::Group(v6)),
    ] {
        assert_eq!(look_at(&frame), expected, "{frame:02x?}");
    }
    // The address of another group, of none, or no IP at all.
    let group = data(None, v4);
    for (at, value) in [(5, 4), (3, 0x81), (0, 0xff), (12, 9), (14, 0x65), (30, 10)] {
        let mut other = group.clone();
        other[at] = value;
        assert_eq!(look_at(&other), Look::Everyone, "byte {at} is {value}");
    }
    // 23 bits of an IPv4 group are in the address.
    assert_eq!(look_at(&data(None, ip("239.129.2.3"))), Look::Group(ip("239.129.2.3")));
}

#[test]
fn what_messages_say() {
    let (v4, v6) = (ip("239.1.2.3"), ip("ff05::1234"));
    for (kind, group, change) in [
        (0x12, v4, Change::Join),
        (0x16, v4, Change::Join),
        (0x17, v4, Change::Leave),
        (131, v6, Change::Join),
        (132, v6, Change::Leave),
    ] {
        assert_eq!(changes(&one(ON, kind, group)), [(group, change)]);
    }
    assert_eq!(changes(&one(None, 0x16, ip("224.0.0.251"))), []);
    for group in [v4, v6] {
        let records: Vec<_> = (0..8).flat_map(|kind| [(kind, 0, group), (kind, 3, group)]).collect();
        let records = [records.as_slice(), &[(2, 0, ip(if group == v4 { "224.0.0.5" } else { "ff02::5" }))]].concat();
        use Change::{Join, Leave};
        // IS_IN(x), IS_EX(), IS_EX(x), TO_IN(), TO_IN(x), TO_EX(), TO_EX(x), ALLOW(x); nothing of the others.
        let expected = [Join, Join, Join, Leave, Join, Join, Join, Join].map(|change| (group, change));
        assert_eq!(changes(&listed(ON, group == v4, &records)), expected);
    }
    for (source, group, code, long, response_seconds) in [
        (IpAddr::from(HOST_V4), None, 0, false, 10),
        (HOST_V4.into(), None, 11, false, 2),
        (HOST_V4.into(), Some(v4), 255, false, 26),
        (HOST_V4.into(), None, 0, true, 0),
        (HOST_V4.into(), None, 127, true, 13),
        (HOST_V4.into(), None, 0x80, true, 13),
        (HOST_V4.into(), None, 0xff, true, 3175),
        (ip("0.0.0.0"), None, 10, true, 1),
        (HOST_V6.into(), None, 1001, false, 2),
        (HOST_V6.into(), Some(v6), 0xffff, false, 66),
        (HOST_V6.into(), None, 0x7fff, true, 33),
        (HOST_V6.into(), None, 0x8000, true, 33),
        (HOST_V6.into(), None, 0xffff, true, 8388),
    ] {
        let expected = Query { source, general: group.is_none(), response_seconds };
        assert_eq!(read(&query(ON, source, group, code, long)), Ok(Message::Query(expected)), "{code}");
    }
    assert_eq!(read(&hello(None, true)), Ok(Message::Hello(Family::Ipv4)));
    assert_eq!(read(&hello(ON, false)), Ok(Message::Hello(Family::Ipv6)));
}

#[test]
fn who_may_not_say_it_is_not_heard() {
    let v4 = "239.1.2.3".parse().unwrap();
    let report: [u8; 8] = [0x16, 0, 0xf8, 0xfa, 239, 1, 2, 3];
    assert!(read(&ipv4(None, HOST_V4, v4, 2, 1, &report)).is_ok());
    assert_eq!(read(&ipv4(None, HOST_V4, v4, 2, 2, &report)), Err(Invalid), "TTL 2");
    assert_eq!(read(&ipv4(None, v4, v4, 2, 1, &report)), Err(Invalid), "from a group");
    assert_eq!(read(&ipv4(None, HOST_V4, v4, 3, 1, &report)), Err(Invalid), "another protocol");
    assert_eq!(read(&one(None, 0x16, ip("10.1.2.3"))), Err(Invalid), "no group");
    assert_eq!(read(&query(None, ip("fe80::"), Some(ip("2001:db8::1")), 1, true)), Err(Invalid), "no group");
    assert!(read(&query(None, ip("fe81::1"), None, 1, true)).is_ok());
    for source in ["::", "2001:db8::1"] {
        assert_eq!(read(&query(None, ip(source), None, 1, true)), Err(Invalid), "{source}");
    }
}

#[test]
fn a_table_that_is_full_keeps_nobody_from_what_it_wants() {
    let snooping = Snooping::new(7);
    let group = |n: u32| IpAddr::from(Ipv4Addr::from(0xef01_0000 + n));
    observe(&snooping, ROUTER, &query(ON, HOST_V4.into(), None, 10, false), 100);
    let most = u32::try_from(MAX_GROUPS).unwrap();
    for n in 0..most {
        observe(&snooping, A, &one(ON, 0x16, group(n)), 101);
    }
    snooping.sweep(102);
    assert_eq!((snooping.counters(), snooping.groups(102).len()), (Counters::default(), MAX_GROUPS));
    assert!((0..most).all(|n| snooping.audience(vid(), Look::Group(group(n))) == ports(&[A, ROUTER])));
    assert_eq!(snooping.audience(vid(), Look::Group(group(most))), ports(&[ROUTER]));
    // One too many, then a port more in a group there is.
    observe(&snooping, B, &one(ON, 0x16, group(most)), 110);
    assert_eq!(snooping.counters().refused, 1);
    assert_eq!(snooping.audience(vid(), Look::Group(group(most))), None, "everyone");
    assert_eq!(snooping.audience(vid(), Look::Group(group(0))), None, "everyone");
    assert_eq!(snooping.routers(110)[0].state, State::Full);
    observe(&snooping, B, &one(ON, 0x16, group(0)), 110);
    assert_eq!((snooping.counters().refused, snooping.groups(110)[0].members.len()), (1, 2));
    // The others end first, then it is in force again.
    observe(&snooping, ROUTER, &query(ON, HOST_V4.into(), None, 10, false), 300);
    snooping.sweep(101 + MEMBERSHIP_SECONDS);
    assert_eq!(snooping.groups(361).len(), 1);
    assert_eq!(snooping.audience(vid(), Look::Group(group(0))), None);
    snooping.sweep(110 + MEMBERSHIP_SECONDS);
    assert_eq!(snooping.audience(vid(), Look::Group(group(0))), ports(&[ROUTER]));
    assert!(snooping.groups(370).is_empty());
}

#[test]
fn who_says_again_that_it_leaves_does_not_stay_longer() {
    let snooping = Snooping::new(7);
    let group = ip("239.1.2.3");
    observe(&snooping, A, &one(ON, 0x16, group), 0);
    for now in [10, 11, 12] {
        observe(&snooping, A, &one(ON, 0x17, group), now);
        snooping.sweep(now);
        assert_eq!(snooping.groups(now).len(), 1);
    }
    snooping.sweep(10 + LEAVE_SECONDS);
    assert!(snooping.groups(13).is_empty());
    // One that had but a second left is not given three.
    observe(&snooping, A, &one(ON, 0x16, group), 20);
    observe(&snooping, A, &one(ON, 0x17, group), 20 + MEMBERSHIP_SECONDS - 1);
    snooping.sweep(20 + MEMBERSHIP_SECONDS);
    assert!(snooping.groups(280).is_empty());
    // And who is contradicted in time stays.
    observe(&snooping, A, &one(ON, 0x16, group), 300);
    observe(&snooping, A, &one(ON, 0x17, group), 301);
    observe(&snooping, A, &one(ON, 0x16, group), 303);
    snooping.sweep(310);
    assert_eq!(snooping.groups(310).len(), 1);
}

#[test]
fn vlans_without_snooping_and_ports_that_go_are_forgotten() {
    let snooping = Snooping::new(7);
    observe(&snooping, ROUTER, &query(ON, HOST_V6.into(), None, 10, false), 0);
    observe(&snooping, A, &one(ON, 131, ip("ff05::1")), 0);
    observe(&snooping, B, &one(ON, 131, ip("ff05::1")), 3);
    snooping.sweep(5);
    let group = Look::Group(ip("ff05::1"));
    let ages = |now| snooping.groups(now)[0].members.iter().map(|m| (m.port, m.age_seconds)).collect::<Vec<_>>();
    assert_eq!(ages(7), [(A, 7), (B, 4)]);
    snooping.forget_port(A, 7);
    assert_eq!(snooping.audience(vid(), group), ports(&[B, ROUTER]));
    snooping.forget_port(ROUTER, 7);
    assert_eq!((snooping.audience(vid(), group), snooping.routers(7)), (None, vec![]));
    assert_eq!(ages(7), [(B, 4)]);
    snooping.retain_vlans(&VlanSet::EMPTY, 8);
    assert_eq!(snooping.groups(8), []);
}

proptest! {
    #[test]
    fn a_message_with_a_bit_flipped_or_cut_short_teaches_nothing(
        which in 0usize..8, bit in 0usize..8 * 200, cut in 1usize..200,
    ) {
        let (v4, v6) = (ip("239.1.2.3"), ip("ff05::1234"));
        let frame = [
            one(None, 0x16, v4), one(None, 132, v6),
            listed(None, true, &[(4, 0, v4), (1, 2, v4)]), listed(None, false, &[(4, 0, v6), (1, 2, v6)]),
            query(None, HOST_V4.into(), None, 5, true), query(None, HOST_V6.into(), None, 5, true),
            hello(None, true), hello(None, false),
        ][which].clone();
        let packet = &frame[14..];
        let packet_bytes = if packet[0] >> 4 == 4 { u16::from_be_bytes([packet[2], packet[3]]) }
            else { 40 + u16::from_be_bytes([packet[4], packet[5]]) };
        let packet_bytes = usize::from(packet_bytes);
        let cut = packet_bytes - 1 - cut % packet_bytes;
        prop_assert_eq!(read(&frame[..14 + cut]), Err(Invalid));
        let bit = bit % (8 * packet_bytes);
        // Traffic class and flow label of IPv6, and what a router alert says, are in no checksum.
        let uncovered = packet[0] >> 4 == 6 && (4..32).contains(&bit) || packet[6] == 0 && packet[0] >> 4 == 6 && (42 * 8..48 * 8).contains(&bit);
        let mut flipped = frame.clone();
        flipped[14 + bit / 8] ^= 0x80 >> (bit % 8);
        prop_assert_eq!(read(&flipped).is_ok(), uncovered, "bit {} of {:02x?}", bit, frame);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..160), kind in 0u8..6) {
        // Often enough so far like a message that the rest is looked at.
        let mut frame = match kind {
            0 => one(None, 0x16, ip("239.1.2.3")),
            1 => listed(None, true, &[(4, 0, ip("239.1.2.3"))]),
            2 => listed(None, false, &[(4, 0, ip("ff05::1"))]),
            3 => query(None, HOST_V6.into(), None, 5, true),
            _ => Vec::new(),
        };
        let keep = frame.len().min(usize::from(bytes.first().copied().unwrap_or(0)));
        frame.splice(keep.., bytes);
        if let Ok(header) = crate::header::Header::parse(&frame) {
            let _ = look(&header, &frame[..frame.len().min(128)]);
            if let Ok(Message::Report(report)) = parse(&header, &frame) {
                prop_assert!(report.changes().all(|(group, _)| is_selective(&group)));
            }
        }
    }
}

#[test]
fn injected_messages_count_as_what_they_entered() {
    use std::sync::Arc;

    use crate::fdb::Fdb;
    use crate::forward::{Egress, Forwarder};
    use crate::inject::{IngressAs, InjectSpec, Injection};
    use crate::tables::{PortRules, Tables};
    use crate::{DropReason, Mac};

    let span = PortId(2);
    for (entry, expected) in [(IngressAs::Vlan(vid()), (10, span)), (IngressAs::Port(A), (1, A))] {
        let spec = InjectSpec { ingress: entry, rate_fps: 1000, sources: Vec::<Mac>::new() };
        let inject = Some(Arc::new(Injection::new(spec, 0x5eed)));
        let rules = |port| PortRules {
            mirror_only: port == span,
            inject: inject.clone().filter(|_| port == span),
            ..PortRules::default()
        };
        let snooping = Arc::new(Snooping::new(7));
        let ports = [A, B, span].map(|port| (port, rules(port))).to_vec();
        let tables = Tables::build(ports, vec![]).unwrap().with_snooping(VlanSet::ALL, Arc::clone(&snooping));
        let fdb = Fdb::new(16, 300, 1);
        let by = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 0 };
        let frame = query(None, HOST_V4.into(), None, 10, false);
        let mut egress = Egress::new();
        let mut lost = |_: u8, _: PortId, reason: DropReason| panic!("{reason:?}");
        by.ingress(span).frame(0, &frame, 60, &mut egress, &mut lost);
        assert_eq!(egress.messages(), 1);
        by.observe(span, &frame);
        let routers = snooping.routers(0);
        assert_eq!((routers.len(), routers[0].vid.get(), routers[0].ports[0].port), (1, expected.0, expected.1));
    }
}
