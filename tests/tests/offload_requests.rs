//! Proves that a guest cannot use an offload request to change what the switch decided on. A checksum is written into a
//! frame after the decision; its value is the guest's choice, through two bytes of payload. Each case sends what a rule
//! forbids, plainly and then as a checksum: a tag of another VLAN, a source address, the port of a DHCP server, a
//! link-local destination, a router advertisement. None leaves the switch. What real drivers ask for still does. A
//! guest that takes unfinished checksums gets finished ones as soon as its port has `finish_checksums`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::checksum::{request, sum, with_checksum};
use labsw_tests::hostile::{F_CSUM, F_GUEST_CSUM, FrontEnd, Script};
use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;

const SECOND: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(100);
const ME: Mac = mac_of(0x42);
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const EVIL: &str = r#"
[ports.evil]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
macs = ["02:00:00:00:00:42"]
dhcp_guard = true
ra_guard = true
link_local = "drop"
"#;
const UP: (&str, &str) = ("up", r#"vlan = { mode = "native-untagged", tag = 10, trunks = [20] }"#);

const fn mac_of(last: u8) -> Mac {
    [0x02, 0, 0, 0, 0, last]
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 9, 10, 0, 0, 8];
    let checksum = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&packet, payload].concat()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(8 + payload.len()).unwrap();
    [&[from, to, bytes, 0].map(u16::to_be_bytes).concat(), payload].concat()
}

/// A message from a router's address to all nodes, its type being the first byte of `message`.
fn icmp6(message: &[u8]) -> Vec<u8> {
    let address = |first: u16, last: u8| [&first.to_be_bytes()[..], &[0; 13], &[last]].concat();
    let bytes = u16::try_from(message.len()).unwrap().to_be_bytes();
    let header = [0x60, 0, 0, 0, bytes[0], bytes[1], ICMPV6, 255];
    [&header[..], &address(0xfe80, 0x42), &address(0xff02, 1), message].concat()
}

fn frame(dst: Mac, src: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    Frame::new(dst, src).ethertype(ethertype).payload(payload).build()
}

/// A rule, a frame that it forbids, and a frame that two bytes at `field` would make into that.
struct Case {
    rule: &'static str,
    forbidden: Vec<u8>,
    disguised: Vec<u8>,
    field: u16,
}

fn cases() -> Vec<Case> {
    let body = [0x5a; 60];
    let tagged = |ethertype| frame(BROADCAST, ME, ethertype, &[&[0, 20, 8, 0], &body[..]].concat());
    let dhcp = |from, to| frame(BROADCAST, ME, ETHERTYPE_IPV4, &ipv4(UDP, &udp(from, to, &body)));
    let to = |last| frame([0x01, 0x80, 0xc2, 0, last, 3], ME, 0x0026, &body);
    let router =
        |kind| frame([0x33, 0x33, 0, 0, 0, 1], ME, ETHERTYPE_IPV6, &icmp6(&[&[kind, 0, 0, 0], &body[..]].concat()));
    let case = |rule, forbidden: Vec<u8>, disguised: Vec<u8>, field: u16| {
        let at = usize::from(field);
        let wanted = u16::from_be_bytes([forbidden[at], forbidden[at + 1]]);
        Case { rule, disguised: with_checksum(disguised, at, wanted), forbidden, field }
    };
    vec![
        case("a tag of another VLAN", tagged(0x8100), tagged(0x88b5), 12),
        case(
            "a source that is not pinned",
            frame(BROADCAST, mac(1), 0x88b5, &body),
            frame(BROADCAST, ME, 0x88b5, &body),
            10,
        ),
        case("the port of a DHCP server", dhcp(67, 9), dhcp(1234, 9), 34),
        case("the port of a DHCP client", dhcp(1067, 68), dhcp(1067, 9), 36),
        case("a link-local destination", to(0), to(1), 4),
        case("a router advertisement", router(134), router(1), 54),
    ]
}

/// Whether the frame, or what the guest made of it, comes out.
fn arrives(up: &RawSocket, body: u8) -> Option<Vec<u8>> {
    up.recv_matching(QUIET, |frame| {
        frame.ends_with(&[body; 8]) || frame[frame.len() - 20..frame.len() - 12] == [body; 8]
    })
}

#[test]
fn no_request_changes_what_was_decided_on() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("orq");
    let switch = lab.start("", &[UP], EVIL);
    let up = lab.socket("up");
    let mut script = Script::default();
    script.features |= F_CSUM;
    let mut evil = FrontEnd::start(&switch.vhost_socket("evil"), script);
    switch.wait_port_up("evil");

    let mut refused = 0;
    for Case { rule, forbidden, disguised, field } in cases() {
        evil.send_frame(&forbidden);
        assert_eq!(arrives(&up, 0x5a), None, "{rule}, plainly");
        evil.send_with_header(&request(field, 0), &disguised);
        assert_eq!(arrives(&up, 0x5a), None, "{rule}, by a checksum");
        refused += 1;
        wait_for(&format!("the count of {rule}"), SECOND, || {
            (switch.drops("evil", "bad_offload") == refused).then_some(())
        });
    }
    // A place that decisions do not read, and yet none of a checksum: the IPv4 source address, the middle of TCP.
    let tcp = frame(BROADCAST, ME, ETHERTYPE_IPV4, &ipv4(6, &[0x5a; 60]));
    for (start, offset) in [(26, 0), (34, 0), (34, 18), (40, 16), (14, 36)] {
        evil.send_with_header(&request(start, offset), &tcp);
        assert_eq!(arrives(&up, 0x5a), None, "{start} + {offset}");
        refused += 1;
    }
    wait_for("all counts", SECOND, || (switch.drops("evil", "bad_offload") == refused).then_some(()));
    switch.stop();
}

#[test]
fn what_drivers_ask_for_is_done() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("ord");
    let switch = lab.start("", &[UP], EVIL);
    let up = lab.socket("up");
    let mut script = Script::default();
    script.features |= F_CSUM;
    let mut guest = FrontEnd::start(&switch.vhost_socket("evil"), script);
    switch.wait_port_up("evil");

    let tcp = ipv4(6, &[0x6b; 60]);
    let plain = frame(BROADCAST, ME, ETHERTYPE_IPV4, &tcp);
    let datagram = frame(BROADCAST, ME, ETHERTYPE_IPV4, &ipv4(UDP, &udp(4000, 5000, &[0x6b; 60])));
    // VXLAN: behind UDP eight bytes, then a frame.
    let inner = frame(BROADCAST, mac(7), ETHERTYPE_IPV4, &tcp);
    let vxlan = udp(40_000, 4789, &[&[8, 0, 0, 0, 0, 0, 7, 0], &inner[..]].concat());
    let tunnel = frame(BROADCAST, ME, ETHERTYPE_IPV4, &ipv4(UDP, &vxlan));
    for (what, sent, start, offset) in
        [("TCP", plain, 34, 16), ("UDP", datagram, 34, 6), ("TCP in VXLAN", tunnel, 84, 16)]
    {
        guest.send_with_header(&request(start, offset), &sent);
        let mut expected = sent.clone();
        let (from, field) = (usize::from(start), usize::from(start + offset));
        let checksum = !sum(&[&sent[from..]]);
        expected[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(arrives(&up, 0x6b), Some(expected), "{what}");
    }
    assert_eq!(switch.drops("evil", "bad_offload"), 0);
    switch.stop();
}

#[test]
fn checksums_are_finished_from_the_moment_a_port_wants_it() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("orf");
    let vlan = r#"vlan = { mode = "access", tag = 10 }"#;
    let port = |name| format!("[ports.{name}]\ntype = \"vhost_user\"\n{vlan}\n");
    let switch = lab.start("", &[UP], &[port("one"), port("two")].concat());
    let [mut one, mut two] = [("one", F_CSUM), ("two", F_CSUM | F_GUEST_CSUM)].map(|(name, features)| {
        let mut script = Script::default();
        script.features |= features;
        let guest = FrontEnd::start(&switch.vhost_socket(name), script);
        switch.wait_port_up(name);
        guest
    });
    let unfinished = frame(BROADCAST, ME, ETHERTYPE_IPV4, &ipv4(UDP, &udp(4000, 5000, &[0x6b; 60])));
    let mut finished = unfinished.clone();
    finished[40..42].copy_from_slice(&(!sum(&[&unfinished[34..]])).to_be_bytes());
    for (setting, expected) in [("", &unfinished), ("true", &finished), ("false", &unfinished)] {
        if !setting.is_empty() {
            switch.ctl(&["port", "set", "two", &format!("finish_checksums={setting}")]);
        }
        one.send_with_header(&request(34, 6), &unfinished);
        let received = std::iter::from_fn(|| two.receive_frame(SECOND)).find(|frame| frame.ends_with(&[0x6b; 60]));
        assert_eq!(received.as_ref(), Some(expected), "finish_checksums {setting:?}");
        let shown = switch.ctl(&["port", "show", "two"]);
        assert_eq!(shown["finish_checksums"].as_bool().unwrap_or(false), setting == "true", "{shown}");
    }
    switch.stop();
}
