//! Proves the VLAN rules on real ports: every mode × every kind of tag, in at each port and out at every other one,
//! byte for byte, flooded and unicast, and that each frame that is not delivered is counted under its reason at the
//! port where it was lost. Besides: runts, cut tags, oversize, group source addresses, link-local frames.
//!
//! What is expected stands in two tables that were written down from the meaning of the modes, not from the code:
//! [`CLASSIFY`] (which VLAN a received frame is in) and [`LEAVES`] (how frames of a VLAN leave a port).
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use labsw_tests::packet::{BROADCAST, ETHERTYPE_TEST, Frame, Mac, RawSocket, TPID_8021AD, TPID_8021Q, mac};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);

/// The ports, in the order of the tables' columns.
const PORTS: [(&str, &str); 7] = [
    ("acc10", r#"vlan = { mode = "access", tag = 10 }"#),
    ("acc20", r#"vlan = { mode = "access", tag = 20 }"#),
    ("trunk", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("ntag", r#"vlan = { mode = "native-tagged", tag = 10, trunks = [20] }"#),
    ("nunt", r#"vlan = { mode = "native-untagged", tag = 10, trunks = [20] }"#),
    ("hyb1", r#"vlan = { mode = "native-untagged", tag = 1 }"#),
    ("tall", r#"vlan = { mode = "trunk" }"#),
];

/// What a received frame comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Vlan(u16),
    Drop(&'static str),
}
use In::{Drop, Vlan};

const UNT: In = Drop("untagged_not_allowed");
const TAG: In = Drop("tagged_not_allowed");
const NOM: In = Drop("vlan_not_member");
const RES: In = Drop("vid_reserved");

type Tags = &'static [(u16, u16)];

/// Kind of frame: its tags (tag protocol id, tag control information: PCP 3 bits, DEI 1, VID 12), and what it comes to
/// at each port.
#[rustfmt::skip]
const CLASSIFY: [(&str, Tags, [In; 7]); 15] = [
    //                                                acc10     acc20     trunk     ntag      nunt      hyb1        tall
    ("untagged",      &[],                           [Vlan(10), Vlan(20), UNT,      Vlan(10), Vlan(10), Vlan(1),    UNT]),
    ("priority 5",    &[(TPID_8021Q, 0xa000)],       [Vlan(10), Vlan(20), UNT,      Vlan(10), Vlan(10), Vlan(1),    UNT]),
    ("priority 0",    &[(TPID_8021Q, 0)],            [Vlan(10), Vlan(20), UNT,      Vlan(10), Vlan(10), Vlan(1),    UNT]),
    ("1",             &[(TPID_8021Q, 1)],            [TAG,      TAG,      NOM,      NOM,      NOM,      Vlan(1),    Vlan(1)]),
    ("10",            &[(TPID_8021Q, 10)],           [TAG,      TAG,      Vlan(10), Vlan(10), Vlan(10), Vlan(10),   Vlan(10)]),
    ("10 PCP 3 DEI",  &[(TPID_8021Q, 0x700a)],       [TAG,      TAG,      Vlan(10), Vlan(10), Vlan(10), Vlan(10),   Vlan(10)]),
    ("20 PCP 7",      &[(TPID_8021Q, 0xe014)],       [TAG,      TAG,      Vlan(20), Vlan(20), Vlan(20), Vlan(20),   Vlan(20)]),
    ("30",            &[(TPID_8021Q, 30)],           [TAG,      TAG,      NOM,      NOM,      NOM,      Vlan(30),   Vlan(30)]),
    ("4094",          &[(TPID_8021Q, 4094)],         [TAG,      TAG,      NOM,      NOM,      NOM,      Vlan(4094), Vlan(4094)]),
    ("4095",          &[(TPID_8021Q, 4095)],         [RES; 7]),
    ("10 over 20",    &[(TPID_8021Q, 0x200a), (TPID_8021Q, 20)],
                                                     [TAG,      TAG,      Vlan(10), Vlan(10), Vlan(10), Vlan(10),   Vlan(10)]),
    ("0 over 20",     &[(TPID_8021Q, 0xc000), (TPID_8021Q, 20)],
                                                     [Vlan(10), Vlan(20), UNT,      Vlan(10), Vlan(10), Vlan(1),    UNT]),
    ("802.1ad 10",    &[(TPID_8021AD, 0x500a)],      [TAG,      TAG,      Vlan(10), Vlan(10), Vlan(10), Vlan(10),   Vlan(10)]),
    ("802.1ad 20 over 10", &[(TPID_8021AD, 20), (TPID_8021Q, 10)],
                                                     [TAG,      TAG,      Vlan(20), Vlan(20), Vlan(20), Vlan(20),   Vlan(20)]),
    ("802.1ad 4095",  &[(TPID_8021AD, 0xffff)],      [RES; 7]),
];

/// How a frame of a VLAN leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Untagged,
    Tagged,
    Not,
}
const U: Out = Out::Untagged;
const T: Out = Out::Tagged;
const X: Out = Out::Not;

#[rustfmt::skip]
const LEAVES: [(u16, [Out; 7]); 5] = [
    // VLAN acc10 acc20 trunk ntag nunt hyb1 tall
    (1,    [X,    X,    X,    X,   X,   U,   T]),
    (10,   [U,    X,    T,    T,   U,   T,   T]),
    (20,   [X,    U,    T,    T,   T,   T,   T]),
    (30,   [X,    X,    X,    X,   X,   T,   T]),
    (4094, [X,    X,    X,    X,   X,   T,   T]),
];

/// (port, reason) → frames dropped.
type Drops = BTreeMap<(String, String), u64>;

fn frame(dst: Mac, src: Mac, tags: &[(u16, u16)], number: u32) -> Vec<u8> {
    let frame = tags.iter().fold(Frame::new(dst, src), |frame, &(tpid, tci)| frame.tag(tpid, tci));
    frame.number(number).build()
}

/// The tags a frame leaves with, or why it does not leave.
fn leaving_tags(received: &[(u16, u16)], vlan: u16, out: Out) -> Result<Vec<(u16, u16)>, &'static str> {
    match (out, received) {
        (Out::Not, _) => Err("vlan_not_member"),
        (Out::Untagged, [] | [_]) => Ok(vec![]),
        (Out::Untagged, _) => Err("double_tag"),
        (Out::Tagged, []) => Ok(vec![(TPID_8021Q, vlan)]),
        (Out::Tagged, [(tpid, tci), inner @ ..]) => Ok([&[(*tpid, tci & 0xf000 | vlan)], inner].concat()),
    }
}

fn drops_of(switch: &Labswd<'_>) -> Drops {
    let list = switch.ctl(&["port", "list"]);
    let mut drops = Drops::new();
    for port in list.as_array().unwrap() {
        for (reason, count) in port["drops"].as_object().unwrap() {
            let name = port["name"].as_str().unwrap().to_owned();
            drops.insert((name, reason.clone()), count.as_u64().unwrap());
        }
    }
    drops
}

/// Asserts that exactly `expected` was dropped since `before`.
fn assert_drops(switch: &Labswd<'_>, before: &Drops, expected: &Drops, what: &str) {
    let changed: Drops = drops_of(switch)
        .into_iter()
        .map(|(key, count)| (key.clone(), count - before.get(&key).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(&changed, expected, "drop counters, {what}");
}

fn assert_received(socket: &RawSocket, expected: &[Vec<u8>], what: &str) {
    let got = receive(socket, expected.len(), PATIENCE, QUIET);
    let hex = |frames: &[Vec<u8>]| -> Vec<String> {
        let line = |f: &Vec<u8>| f[..f.len().min(30)].iter().map(|b| format!("{b:02x}")).collect();
        frames.iter().map(line).collect()
    };
    assert_eq!(hex(&got), hex(expected), "{what}");
    assert_eq!(got, expected, "{what}: behind the header");
}

/// The address that lives at the port of a column.
fn at(column: usize) -> Mac {
    mac(0xe0 + u8::try_from(column).unwrap())
}

#[test]
fn every_mode_and_tag_in_and_out() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("vmx");
    let switch = lab.start("", &PORTS, "");
    let sockets: Vec<RawSocket> = PORTS.iter().map(|(name, _)| lab.socket(name)).collect();

    let mut number = 0;
    broadcasts(&switch, &sockets, &mut number);
    // The same, unicast: a static entry in every VLAN, even where the port is no member, leads to each port.
    for (column, (port, _)) in PORTS.iter().enumerate() {
        let address = at(column).map(|byte| format!("{byte:02x}")).join(":");
        for (vlan, _) in LEAVES {
            switch.ctl(&["fdb", "add", &address, "--vlan", &vlan.to_string(), "--port", port]);
        }
    }
    unicasts(&switch, &sockets, &mut number);
    switch.stop();
}

/// A frame from each port to the address at each port, with each tag.
fn unicasts(switch: &Labswd<'_>, sockets: &[RawSocket], number: &mut u32) {
    for (column, (ingress, _)) in PORTS.iter().enumerate() {
        let before = drops_of(switch);
        let mut expected: Vec<Vec<Vec<u8>>> = vec![vec![]; PORTS.len()];
        let mut drops = Drops::new();
        let mut dropped = |port: &str, reason: &str| *drops.entry((port.into(), reason.into())).or_default() += 1;
        for (to, (egress, _)) in PORTS.iter().enumerate() {
            for (_, tags, results) in &CLASSIFY {
                *number += 1;
                sockets[column].send(&frame(at(to), mac(1), tags, *number));
                match results[column] {
                    Drop(reason) => dropped(ingress, reason),
                    Vlan(_) if to == column => dropped(ingress, "same_port"),
                    Vlan(vlan) => {
                        let leaves = LEAVES.iter().find(|(id, _)| *id == vlan).unwrap().1;
                        match leaving_tags(tags, vlan, leaves[to]) {
                            Ok(out) => expected[to].push(frame(at(to), mac(1), &out, *number)),
                            Err(reason) => dropped(egress, reason),
                        }
                    }
                }
            }
        }
        for (to, (egress, _)) in PORTS.iter().enumerate() {
            assert_received(&sockets[to], &expected[to], &format!("unicast from {ingress} to {egress}"));
        }
        assert_drops(switch, &before, &drops, &format!("unicast from {ingress}"));
    }
}

/// A broadcast from each port with each tag arrives where the tables say, and nowhere else.
fn broadcasts(switch: &Labswd<'_>, sockets: &[RawSocket], number: &mut u32) {
    for (column, (ingress, _)) in PORTS.iter().enumerate() {
        let before = drops_of(switch);
        let mut expected: Vec<Vec<Vec<u8>>> = vec![vec![]; PORTS.len()];
        let mut drops = Drops::new();
        let mut dropped = |port: &str, reason: &str| *drops.entry((port.into(), reason.into())).or_default() += 1;
        for (_, tags, results) in &CLASSIFY {
            *number += 1;
            sockets[column].send(&frame(BROADCAST, mac(1), tags, *number));
            let vlan = match results[column] {
                Vlan(vlan) => vlan,
                Drop(reason) => {
                    dropped(ingress, reason);
                    continue;
                }
            };
            let leaves = LEAVES.iter().find(|(id, _)| *id == vlan).unwrap().1;
            for (to, (egress, _)) in PORTS.iter().enumerate().filter(|(to, _)| *to != column) {
                match leaving_tags(tags, vlan, leaves[to]) {
                    Ok(out) => expected[to].push(frame(BROADCAST, mac(1), &out, *number)),
                    Err("double_tag") => dropped(egress, "double_tag"),
                    Err(_) => {}
                }
            }
        }
        for (to, (egress, _)) in PORTS.iter().enumerate() {
            assert_received(&sockets[to], &expected[to], &format!("broadcasts from {ingress} to {egress}"));
        }
        assert_drops(switch, &before, &drops, &format!("broadcasts from {ingress}"));
    }
}

#[test]
fn malformed_frames_are_counted_and_go_nowhere() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("vmf");
    let ports = [
        ("a", r#"vlan = { mode = "access", tag = 10 }"#),
        ("b", r#"vlan = { mode = "native-tagged", tag = 10, trunks = [10] }"#),
        ("big", "mtu = 3000\nvlan = { mode = \"access\", tag = 10 }"),
        ("strict", "link_local = \"drop\"\nvlan = { mode = \"access\", tag = 30 }"),
        ("lenient", r#"vlan = { mode = "access", tag = 30 }"#),
        ("alone", r#"vlan = { mode = "access", tag = 40 }"#),
    ];
    let switch = lab.start("", &ports, "");
    let sockets: BTreeMap<&str, RawSocket> = ports.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
    let cases = malformed();
    for (what, from, sent, arrivals, lost) in cases {
        let before = drops_of(&switch);
        sockets[from].send(&sent);
        for (name, socket) in &sockets {
            let expected: Vec<Vec<u8>> =
                arrivals.iter().filter(|(to, _)| to == name).map(|(_, frame)| frame.clone()).collect();
            assert_received(socket, &expected, &format!("{what}, at {name}"));
        }
        let lost = lost.iter().map(|(port, reason)| (((*port).into(), (*reason).into()), 1)).collect();
        assert_drops(&switch, &before, &lost, what);
    }

    longer_than_the_mtu_on_the_way_in(&lab, &switch, &sockets);
    switch.stop();
}

/// A name, where the frame is sent, the frame, the frames that arrive and where, and the drops.
type Case = (&'static str, &'static str, Vec<u8>, Arrivals, &'static [(&'static str, &'static str)]);
type Arrivals = Vec<(&'static str, Vec<u8>)>;

/// Frames at the edges of what is accepted.
fn malformed() -> Vec<Case> {
    let addresses = [BROADCAST, mac(1)].concat();
    let header = |rest: &[u8]| [&addresses, rest].concat();

    let group_source = Frame::new(BROADCAST, [0x03, 0, 0, 0, 0, 1]).build();
    let all_ones_source = Frame::new(mac(2), BROADCAST).build();
    let bare = header(&ETHERTYPE_TEST.to_be_bytes());
    // The kernel at the far end takes a tagged frame only with two bytes behind its header.
    let short = header(&[0x88, 0xb5, 1, 2]);
    let short_tagged = header(&[0x81, 0, 0, 10, 0x88, 0xb5, 1, 2]);
    let full = Frame::new(BROADCAST, mac(1)).payload(&[0x5a; 1500]);
    let too_long_to_leave = Frame::new(BROADCAST, mac(1)).payload(&[0x5b; 1501]).build();
    let lldp = Frame::new([0x01, 0x80, 0xc2, 0, 0, 0x0e], mac(3)).build();
    let lonely = Frame::new(BROADCAST, mac(4)).build();
    let (full_tagged, full_untagged) = (full.clone().vlan(10).build(), full.build());
    vec![
        ("group source", "a", group_source, vec![], &[("a", "source_group_address")]),
        ("broadcast source", "a", all_ones_source, vec![], &[("a", "source_group_address")]),
        ("tag cut off", "b", header(&[0x81, 0]), vec![], &[("b", "runt")]),
        ("tag cut in the middle", "b", header(&[0x81, 0, 0, 10]), vec![], &[("b", "runt")]),
        ("inner tag cut off", "b", header(&[0x81, 0, 0, 10, 0x81, 0]), vec![], &[("b", "runt")]),
        ("service tag cut off", "a", header(&[0x88, 0xa8, 0]), vec![], &[("a", "runt")]),
        ("nothing but a header", "lenient", bare.clone(), vec![("strict", bare)], &[]),
        ("two bytes", "a", short.clone(), vec![("b", short_tagged.clone()), ("big", short.clone())], &[]),
        ("two bytes, tagged", "b", short_tagged, vec![("a", short.clone()), ("big", short)], &[]),
        ("full size", "a", full_untagged.clone(), vec![("b", full_tagged), ("big", full_untagged)], &[]),
        ("too long to leave", "big", too_long_to_leave, vec![], &[("a", "oversize"), ("b", "oversize")]),
        ("link-local in", "strict", lldp.clone(), vec![], &[("strict", "link_local")]),
        ("link-local out", "lenient", lldp.clone(), vec![("strict", lldp)], &[]),
        ("nobody else there", "alone", lonely, vec![], &[("alone", "no_destination")]),
    ]
}

/// Longer than the port's MTU on the way in: the two ends of the pair are told to let it through.
fn longer_than_the_mtu_on_the_way_in(lab: &Lab, switch: &Labswd<'_>, sockets: &BTreeMap<&str, RawSocket>) {
    lab.peers.ip(&["link", "set", "dev", "a", "mtu", "3000"]);
    let interface = switch.port("a")["device"].as_str().unwrap().to_owned();
    lab.site.ns.ip(&["link", "set", "dev", &interface, "mtu", "3000"]);
    let before = drops_of(switch);
    sockets["a"].send(&Frame::new(BROADCAST, mac(1)).payload(&[0x5c; 1501]).build());
    for socket in sockets.values() {
        assert_received(socket, &[], "longer than the MTU of the ingress port");
    }
    assert_drops(switch, &before, &[(("a".into(), "oversize".into()), 1)].into(), "oversize on the way in");
}
