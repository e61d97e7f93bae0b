//! QinQ between real interfaces: what customers send through `dot1q-tunnel` ports, tagged or not, arrives at the
//! customers' other ports byte for byte, and on trunks behind one tag more. What must not be seen elsewhere is not, and
//! is counted.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, RawSocket, TPID_8021AD, TPID_8021Q, mac};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);

const PORTS: [(&str, &str); 6] = [
    ("cust", r#"vlan = { mode = "dot1q-tunnel", tag = 100 }"#),
    ("some", r#"vlan = { mode = "dot1q-tunnel", tag = 100, cvlans = [20, "30-39"] }"#),
    ("old", r#"vlan = { mode = "dot1q-tunnel", tag = 200, ethertype = "0x8100" }"#),
    ("trunk", r#"vlan = { mode = "trunk", trunks = [100, 200] }"#),
    ("acc", r#"vlan = { mode = "access", tag = 100 }"#),
    ("else", r#"vlan = { mode = "dot1q-tunnel", tag = 300 }"#),
];

type Tags = &'static [(u16, u16)];

/// What customers send: their own tags, and whether `some` takes it.
const SENT: [(Tags, bool); 6] = [
    (&[], false),
    (&[(TPID_8021Q, 0xa000)], false),
    (&[(TPID_8021Q, 0x6014)], true),
    (&[(TPID_8021Q, 40)], false),
    (&[(TPID_8021AD, 35)], true),
    (&[(TPID_8021Q, 30), (TPID_8021Q, 9)], true),
];

/// The switch's own tag, and a customer's.
const OUTER: Tags = &[(TPID_8021AD, 100)];
const TAGGED: Tags = &[(TPID_8021Q, 0x2014)];

struct Bed<'a> {
    sockets: Vec<(&'a str, RawSocket)>,
}

impl Bed<'_> {
    fn at(&self, port: &str) -> &RawSocket {
        &self.sockets.iter().find(|(name, _)| *name == port).unwrap().1
    }

    /// Sends a frame at `from`; exactly `arrivals` arrive.
    fn sends(&self, from: &str, frame: &Frame, arrivals: &[(&str, Frame)]) {
        self.at(from).send(&frame.build());
        for (port, socket) in &self.sockets {
            let expected: Vec<_> = arrivals.iter().filter(|(to, _)| to == port).map(|(_, f)| f.build()).collect();
            let quiet = if expected.is_empty() { QUIET / 4 } else { Duration::from_millis(5) };
            assert_eq!(receive(socket, expected.len(), PATIENCE, quiet), expected, "from {from} at {port}: {frame:x?}");
        }
    }
}

fn frame(dst: [u8; 6], tags: &[&[(u16, u16)]]) -> Frame {
    tags.concat().iter().fold(Frame::new(dst, mac(1)), |frame, (tpid, tci)| frame.tag(*tpid, *tci))
}

#[test]
fn customers_frames_cross_the_switch_unchanged() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("qnq");
    let switch = lab.start("", &PORTS, "");
    let bed = Bed { sockets: PORTS.iter().map(|(name, _)| (*name, lab.socket(name))).collect() };

    // Flooded: in front of everything on the trunk, unchanged at the customer's other port, and not at an access port
    // where the customer's tag would be taken for one of ours.
    for (tags, some) in SENT {
        let mut arrivals = vec![("trunk", frame(BROADCAST, &[OUTER, tags]))];
        if some {
            arrivals.push(("some", frame(BROADCAST, &[tags])));
        }
        if tags.is_empty() {
            arrivals.push(("acc", frame(BROADCAST, &[])));
        }
        bed.sends("cust", &frame(BROADCAST, &[tags]), &arrivals);
    }
    assert_eq!(switch.drops("acc", "double_tag"), 5);
    assert_eq!(switch.drops("some", "vlan_not_member"), 0, "what a port has no part in is no drop there");

    // Back from the trunk, with either TPID and another priority: one tag goes.
    for (tags, some) in SENT {
        for tpid in [TPID_8021Q, TPID_8021AD] {
            let mut arrivals = vec![("cust", frame(BROADCAST, &[tags]))];
            if some {
                arrivals.push(("some", frame(BROADCAST, &[tags])));
            }
            if tags.is_empty() {
                arrivals.push(("acc", frame(BROADCAST, &[])));
            }
            bed.sends("trunk", &frame(BROADCAST, &[&[(tpid, 0xe064)], tags]), &arrivals);
        }
    }

    unicast_and_vlans_that_are_not_listed(&switch, &bed);
    // The customer's tag is payload on the trunk: its MTU has to have room for it.
    let full = |tags: &[&[(u16, u16)]]| frame(mac(7), tags).payload(&[0x5a; 1500]);
    bed.sends("old", &full(&[TAGGED]), &[]);
    assert_eq!(switch.drops("trunk", "oversize"), 1);
    bed.sends("old", &full(&[]), &[("trunk", full(&[&[(TPID_8021Q, 200)]]))]);
    switch.ctl(&["port", "set", "trunk", "mtu=1504"]);
    lab.peers.ip(&["link", "set", "dev", "trunk", "mtu", "1504"]);
    bed.sends("old", &full(&[TAGGED]), &[("trunk", full(&[&[(TPID_8021Q, 200)], TAGGED]))]);

    a_port_becomes_a_tunnel_and_back(&switch, &bed);
    switch.stop();
}

/// Unicast, with the tag put into the chunk in front of the frame; another TPID, and customers' VLANs that are not
/// listed.
fn unicast_and_vlans_that_are_not_listed(switch: &Labswd<'_>, bed: &Bed<'_>) {
    switch.ctl(&["fdb", "add", "02:00:00:00:00:07", "--vlan", "200", "--port", "trunk"]);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:08", "--vlan", "100", "--port", "some"]);
    bed.sends("old", &frame(mac(7), &[TAGGED]), &[("trunk", frame(mac(7), &[&[(TPID_8021Q, 200)], TAGGED]))]);
    bed.sends("cust", &frame(mac(8), &[TAGGED]), &[("some", frame(mac(8), &[TAGGED]))]);
    bed.sends("cust", &frame(mac(8), &[&[(TPID_8021Q, 40)]]), &[]);
    bed.sends("cust", &frame(mac(8), &[]), &[]);
    bed.sends("some", &frame(BROADCAST, &[&[(TPID_8021Q, 40)]]), &[]);
    bed.sends("some", &frame(BROADCAST, &[]), &[]);
    assert_eq!(switch.drops("some", "vlan_not_member"), 2, "one out, one in");
    assert_eq!(switch.drops("some", "untagged_not_allowed"), 2, "one out, one in");
    bed.sends("else", &frame(BROADCAST, &[TAGGED]), &[]);
    assert_eq!(switch.drops("else", "no_destination"), 1);
}

/// An access port becomes a tunnel at run time, and goes back.
fn a_port_becomes_a_tunnel_and_back(switch: &Labswd<'_>, bed: &Bed<'_>) {
    switch.ctl(&["port", "set", "acc", "vlan.mode=dot1q-tunnel", "vlan.tag=100", "vlan.cvlans=[0, 40]"]);
    let shown = &switch.port("acc")["vlan"];
    let expected = serde_json::json!({
        "mode": "dot1q-tunnel", "tag": 100, "trunks": [], "cvlans": [0, 40], "ethertype": "0x88a8"
    });
    assert_eq!(*shown, expected);
    let customer: Tags = &[(TPID_8021Q, 40)];
    let arrivals = [("acc", frame(BROADCAST, &[customer])), ("trunk", frame(BROADCAST, &[OUTER, customer]))];
    bed.sends("cust", &frame(BROADCAST, &[customer]), &arrivals);
    let refused = switch.ctl_refused(&["port", "set", "acc", "vlan.trunks=[5]"]);
    assert!(refused.contains("a tunnel port has no trunks"), "{refused}");
    switch.ctl(&["port", "set", "acc", "vlan.mode=access", "vlan.tag=100"]);
    bed.sends("cust", &frame(BROADCAST, &[customer]), &arrivals[1..]);
}
