//! IGMP and MLD snooping with a real kernel's memberships: a querier is played with raw frames, the member is a socket.
//! Traffic of a group reaches its members and the router and nobody else, and everyone again when snooping is switched
//! off.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use labsw_tests::checksum::sum;
use labsw_tests::packet::{Frame, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::Lab;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(8);
const QUIET: Duration = Duration::from_millis(40);
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x12, 0x34);
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

/// All in VLAN 10, the last one tagged.
const PORTS: [(&str, &str); 4] = [
    ("member", r#"vlan = { mode = "access", tag = 10 }"#),
    ("other", r#"vlan = { mode = "access", tag = 10 }"#),
    ("router", r#"vlan = { mode = "access", tag = 10 }"#),
    ("far", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
];

fn put_sum(bytes: &mut [u8], at: usize, others: &[&[u8]]) {
    let total = sum(&[others, &[&*bytes]].concat());
    bytes[at..at + 2].copy_from_slice(&(!total).to_be_bytes());
}

fn ipv4(dst: Ipv4Addr, protocol: u8, ttl: u8, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let addresses = [ROUTER_V4.octets(), dst.octets()].concat();
    let mut header = [&[0x45, 0][..], &total, &[0, 0, 0, 0, ttl, protocol, 0, 0], &addresses].concat();
    put_sum(&mut header, 10, &[]);
    let [_, b, c, d] = dst.octets();
    let payload = [header, body.to_vec()].concat();
    Frame::new([1, 0, 0x5e, b & 0x7f, c, d], mac(0xfe)).ethertype(0x0800).payload(&payload).build()
}

fn ipv6(dst: Ipv6Addr, next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let payload = [&[0x60, 0, 0, 0], &length[..], &[next, hops], &ROUTER_V6.octets(), &dst.octets(), body].concat();
    let [.., a, b, c, d] = dst.octets();
    Frame::new([0x33, 0x33, a, b, c, d], mac(0xfe)).ethertype(0x86dd).payload(&payload).build()
}

/// General queries that hosts answer within 200 ms.
fn queries() -> [Vec<u8>; 2] {
    let mut igmp = [0x11, 2, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    put_sum(&mut igmp, 2, &[]);
    let mut mld = [&[130, 0, 0, 0, 0, 200, 0, 0], &[0; 16][..], &[2, 125, 0, 0]].concat();
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    put_sum(&mut mld, 2, &[&ROUTER_V6.octets(), &all_nodes.octets(), &[0, 0, 0, 28, 0, 0, 0, 58]]);
    // A host takes no query without a router alert.
    let mld = [&[58, 0, 5, 2, 0, 0, 1, 0], mld.as_slice()].concat();
    [ipv4(Ipv4Addr::new(224, 0, 0, 1), 2, 1, &igmp), ipv6(all_nodes, 0, 1, &mld)]
}

/// A datagram to a group, marked with `number`.
fn data(group: IpAddr, number: u8) -> Vec<u8> {
    let body = [&[0x20, 0, 0x20, 0, 0, 40, 0, 0][..], &[number; 32]].concat();
    match group {
        IpAddr::V4(group) => ipv4(group, 17, 4, &body),
        IpAddr::V6(group) => ipv6(group, 17, 4, &body),
    }
}

const V4: IpAddr = IpAddr::V4(GROUP_V4);
const V6: IpAddr = IpAddr::V6(GROUP_V6);
/// A group that nobody asks for.
const UNASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 9, 9, 9));
const EVERYONE_BUT_ROUTER: [&str; 3] = ["member", "other", "far"];

struct Bed<'a> {
    switch: &'a Labswd<'a>,
    sockets: Vec<(&'static str, RawSocket)>,
    number: u8,
}

impl Bed<'_> {
    fn at(&self, port: &str) -> &RawSocket {
        &self.sockets.iter().find(|(name, _)| *name == port).unwrap().1
    }

    /// Sends to a group from a port; it arrives at exactly these, as it was.
    fn reaches(&mut self, from: &str, group: IpAddr, arrivals: &[&str]) {
        self.number += 1;
        let frame = data(group, self.number);
        self.at(from).send(&frame);
        for (name, socket) in &self.sockets {
            let found = socket.recv_matching(if arrivals.contains(name) { PATIENCE } else { QUIET }, |got| {
                got.ends_with(&frame[frame.len() - 32..])
            });
            assert_eq!(found.is_some(), arrivals.contains(name), "{group} from {from} at {name}");
            let tag: &[u8] = if *name == "far" { &[0x81, 0, 0, 10] } else { &[] };
            let expected = [&frame[..12], tag, &frame[12..]].concat();
            assert!(found.is_none_or(|found| found == expected), "{group} from {from} at {name}");
        }
    }

    fn listed(&self) -> Value {
        self.switch.ctl(&["mcast", "list"])
    }

    /// Waits until the groups of both families are listed with these ports.
    fn wait_members(&self, members: &[&str]) {
        let expected: Vec<_> = if members.is_empty() { vec![] } else { vec![members; 2] };
        wait_for(&format!("members {members:?}"), PATIENCE, || {
            let listed = self.listed();
            let wanted = |group: &&Value| [json!(GROUP_V4), json!(GROUP_V6)].contains(&group["group"]);
            let groups: Vec<_> = listed["groups"].as_array().unwrap().iter().filter(wanted).collect();
            let names = |group: &&Value| -> Vec<String> {
                let ports = group["ports"].as_array().unwrap().iter();
                ports.map(|port| port["port"].as_str().unwrap().to_owned()).collect()
            };
            let found: Vec<_> = groups.iter().map(names).collect();
            (found == expected).then_some(())
        });
    }
}

/// What the switch knows of groups and routers, without ages.
fn known(switch: &Labswd<'_>) -> Value {
    let mut listed = switch.ctl(&["mcast", "list"]);
    for list in ["groups", "routers"] {
        let entries = listed[list].as_array_mut().unwrap().iter_mut();
        let ports = entries.flat_map(|entry| entry["ports"].as_array_mut().unwrap());
        ports.for_each(|port| drop(port["age_seconds"].take()));
    }
    listed
}

/// Whether this is a report of the group, of IGMPv3 or MLDv2.
fn is_report(frame: &[u8]) -> bool {
    let is = |at: usize, expected: &[u8]| frame.get(at..at + expected.len()) == Some(expected);
    is(0, &[1, 0, 0x5e, 0, 0, 22]) || is(0, &[0x33, 0x33, 0, 0, 0, 0x16])
}

#[test]
fn groups_go_to_members_and_routers_only() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("mc");
    let before = "multicast_snooping = [10]";
    let mut switch = lab.start(before, &PORTS, "");
    let sockets = PORTS.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
    let mut bed = Bed { switch: &switch, sockets, number: 0 };
    lab.peers.address("member", "10.9.0.1/24");
    lab.peers.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/member/disable_ipv6", "0").unwrap());
    let index = lab.peers.links().iter().find(|link| link["ifname"] == "member").unwrap()["ifindex"].as_u64().unwrap();
    let index = u32::try_from(index).unwrap();
    let join = || {
        lab.peers.enter(|| {
            let sockets = (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("[::]:0").unwrap());
            sockets.0.join_multicast_v4(&GROUP_V4, &Ipv4Addr::new(10, 9, 0, 1)).unwrap();
            sockets.1.join_multicast_v6(&GROUP_V6, index).unwrap();
            sockets
        })
    };

    // Nobody asks: everyone gets everything, and it is known who asked for what.
    let member = join();
    bed.wait_members(&["member"]);
    for group in [V4, V6, UNASKED] {
        bed.reaches("router", group, &EVERYONE_BUT_ROUTER);
    }
    assert!(bed.at("other").recv_matching(PATIENCE, is_report).is_some(), "reports go to everyone, too");
    assert_eq!(bed.listed()["routers"], json!([]));

    a_querier_narrows_who_gets_groups(&mut bed);
    let Bed { sockets, number, .. } = bed;
    let before = known(&switch);
    switch.take_over();
    assert_eq!(known(&switch), before);
    let mut bed = Bed { switch: &switch, sockets, number };
    for group in [V4, V6] {
        bed.reaches("router", group, &["member"]);
    }
    bed.reaches("other", UNASKED, &["router"]);
    // A leave ends it within seconds; a query that is broken teaches nothing.
    drop(member);
    let mut broken = queries()[0].clone();
    broken[14 + 20 + 3] ^= 1;
    bed.at("far").send(&[&broken[..12], &[0x81, 0, 0, 10], &broken[12..]].concat());
    bed.wait_members(&[]);
    bed.reaches("other", V4, &["router"]);
    bed.reaches("other", V6, &["router"]);
    assert_eq!(bed.listed()["totals"]["invalid_messages"], 1);

    off_and_on_at_run_time(&lab, &mut bed);
    switch.stop();
}

/// A querier: when the hosts had time to answer, only they and the router get something.
fn a_querier_narrows_who_gets_groups(bed: &mut Bed<'_>) {
    let ask = || queries().iter().for_each(|query| bed.at("router").send(query));
    ask();
    wait_for("snooping in force", PATIENCE, || {
        let routers = bed.listed()["routers"].clone();
        (routers.as_array().unwrap().iter().filter(|entry| entry["state"] == "in_force").count() == 2)
            .then_some(routers)
    });
    bed.sockets.iter().for_each(|(_, socket)| drop(socket.recv_all(QUIET)));
    ask();
    for _ in 0..2 {
        assert!(bed.at("router").recv_matching(PATIENCE, is_report).is_some(), "the router hears reports");
    }
    assert!(bed.at("other").recv_matching(QUIET, is_report).is_none(), "nobody else does");
    for group in [V4, V6] {
        bed.reaches("router", group, &["member"]);
        bed.reaches("other", group, &["member", "router"]);
        bed.reaches("member", group, &["router"]);
    }
    let lost = bed.switch.drops("router", "multicast_not_wanted");
    bed.reaches("router", UNASKED, &[]);
    assert_eq!(bed.switch.drops("router", "multicast_not_wanted"), lost + 1);
    bed.reaches("other", UNASKED, &["router"]);
    bed.reaches("router", [224, 0, 0, 251].into(), &EVERYONE_BUT_ROUTER);
    bed.reaches("router", "ff02::fb".parse().unwrap(), &EVERYONE_BUT_ROUTER);
    let routers = bed.listed()["routers"].clone();
    assert_eq!(routers[0]["querier"], json!(ROUTER_V4));
    assert_eq!((&routers[1]["querier"], &routers[1]["ports"][0]["port"]), (&json!(ROUTER_V6), &json!("router")));
}

/// Off at run time: everyone gets everything, and nothing is known any more.
fn off_and_on_at_run_time(lab: &Lab, bed: &mut Bed<'_>) {
    let file = |name: &str, snooping: &str| {
        let path = lab.site.dir().join(name);
        let text = std::fs::read_to_string(lab.site.dir().join("lab.toml")).unwrap();
        std::fs::write(&path, text.replace("multicast_snooping = [10]", snooping)).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (off, on) = (file("off.toml", "multicast_snooping = false"), file("on.toml", "multicast_snooping = true"));
    assert_eq!(bed.switch.ctl(&["config", "diff", &off])["changes"][0]["settings"][0]["key"], "multicast_snooping");
    bed.switch.ctl(&["config", "apply", &off]);
    bed.reaches("router", UNASKED, &EVERYONE_BUT_ROUTER);
    assert_eq!((bed.listed()["routers"].clone(), bed.listed()["groups"].clone()), (json!([]), json!([])));
    bed.switch.ctl(&["config", "apply", &on]);
    assert_eq!(bed.switch.ctl(&["config", "show"])["switch"]["multicast_snooping"], true);
    bed.reaches("other", UNASKED, &["member", "router", "far"]);
}
