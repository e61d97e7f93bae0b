//! Link-local protocols between containers: STP of two real bridges, LLDP and LACP frames and others of
//! 01-80-C2-00-00-0X pass unchanged; with `link_local = "drop"` they are dropped and counted. PAUSE and PFC never pass.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::packet::{Frame, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(30);

fn link_local(last: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(payload.len().max(46), 0);
    Frame::new([0x01, 0x80, 0xc2, 0, 0, last], mac(1)).ethertype(ethertype).payload(&payload).build()
}

/// Name and frame of each protocol.
fn protocols() -> Vec<(&'static str, Vec<u8>)> {
    // Chassis and port by MAC address and name, time to live, end (802.1AB clause 8).
    let lldp = b"\x02\x07\x04\x02\0\0\0\0\x01\x04\x05\x05eth0\x06\x02\0\x78\0\0";
    // Subtype 1, version 1, actor (802.1AX clause 6.4.2): active, aggregatable.
    let lacp = b"\x01\x01\x01\x14\x80\0\x02\0\0\0\0\x01\0\x01\x80\0\0\x01\x05\0\0\0\x02\x14";
    // Configuration BPDU behind LLC: this bridge is root (802.1D clause 9.3.1).
    let bpdu =
        b"\x42\x42\x03\0\0\0\0\0\x80\0\x02\0\0\0\0\x01\0\0\0\0\x80\0\x02\0\0\0\0\x01\x80\x01\0\0\x14\0\x02\0\x0f\0";
    let eapol_start = b"\x02\x01\0\0";
    vec![
        ("STP", link_local(0x00, 38, bpdu)),
        ("LACP", link_local(0x02, 0x8809, &[lacp.as_slice(), &[0; 86]].concat())),
        ("802.1X", link_local(0x03, 0x888e, eapol_start)),
        ("LLDP", link_local(0x0e, 0x88cc, lldp)),
        ("LLDP to customer bridges", link_local(0x00, 0x88cc, lldp)),
        ("the last of the block", link_local(0x0f, 0x88b5, &[])),
    ]
}

#[test]
fn protocols_of_bridges_pass_between_ports_unless_told_otherwise() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("lnk");
    let vlan = |vlan: u16| format!("vlan = {{ mode = \"access\", tag = {vlan} }}");
    let strict = format!("link_local = \"drop\"\n{}", vlan(10));
    let (ten, twenty) = (vlan(10), vlan(20));
    let ports = [
        ("a", ten.as_str()),
        ("b", &ten),
        ("strict", &strict),
        ("other", &twenty),
        ("stp1", &twenty),
        ("stp2", &twenty),
    ];
    let switch = lab.start("", &ports, "");

    // Two bridges of the kernel, each with one port, agree who is the root.
    for (bridge, port) in [("br1", "stp1"), ("br2", "stp2")] {
        lab.peers.ip(&["link", "add", bridge, "type", "bridge", "stp_state", "1", "forward_delay", "400"]);
        lab.peers.ip(&["link", "set", port, "master", bridge]);
        lab.peers.ip(&["link", "set", bridge, "up"]);
    }

    let sockets: Vec<(&str, RawSocket)> = ports[..3].iter().map(|(name, _)| (*name, lab.socket(name))).collect();
    let send = |from: &str, frame: &[u8], arrivals: &[&str], what: &str| {
        sockets.iter().find(|(name, _)| *name == from).unwrap().1.send(frame);
        for (name, socket) in &sockets {
            let expected = vec![frame.to_vec(); arrivals.iter().filter(|to| *to == name).count()];
            assert_eq!(receive(socket, expected.len(), PATIENCE, QUIET), expected, "{what} from {from} at {name}");
        }
    };
    let frames = protocols();
    for (what, frame) in &frames {
        send("a", frame, &["b", "strict"], what);
        send("strict", frame, &[], what);
    }
    assert_eq!(switch.drops("strict", "link_local"), frames.len() as u64);
    no_port_relays_mac_control(&switch, send);
    // The next address is an ordinary group.
    send("strict", &link_local(0x10, 0x88b5, &[]), &["a", "b"], "01-80-C2-00-00-10");

    let root = |bridge: &str| lab.peers.run(&["cat", &format!("/sys/class/net/{bridge}/bridge/root_id")]);
    wait_for("root of both bridges", PATIENCE, || (root("br1") == root("br2")).then_some(()));
    switch.ctl(&["port", "set", "stp1", "link_local=drop"]);
    switch.ctl(&["port", "set", "stp2", "link_local=drop"]);
    // The root sends one every two seconds.
    wait_for("a BPDU that is dropped", PATIENCE, || {
        (switch.drops("stp1", "link_local") + switch.drops("stp2", "link_local") > 0).then_some(())
    });
    switch.ctl(&["port", "set", "strict", "link_local=transparent"]);
    send("strict", &frames[0].1, &["a", "b"], "STP");
    switch.stop();
}

/// PAUSE and PFC are for the other end of one cable: no port relays them, by whatever address.
fn no_port_relays_mac_control(switch: &Labswd<'_>, send: impl Fn(&str, &[u8], &[&str], &str)) {
    let control = |dst, opcode: &[u8]| {
        let payload = [opcode, &[0xff; 44]].concat();
        Frame::new(dst, mac(1)).ethertype(0x8808).payload(&payload).build()
    };
    let station = [0x01, 0x80, 0xc2, 0, 0, 0x01];
    for (frame, what) in [
        (control(station, &[0, 1]), "PAUSE"),
        (control(station, &[1, 1]), "PFC"),
        (control(mac(7), &[0, 1]), "PAUSE to one station"),
        (link_local(0x01, 0x88b5, &[]), "another protocol to that address"),
    ] {
        for from in ["a", "strict"] {
            send(from, &frame, &[], what);
        }
    }
    assert_eq!((switch.drops("a", "mac_control"), switch.drops("strict", "mac_control")), (4, 4));
}
