//! Proves that a trace is true on real ports: each frame is traced, then sent, and what the trace said is what happens:
//! which port sends which bytes, which counter of which port rises, which copy a mirror makes; and that tracing itself
//! changes nothing.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, RawSocket, TPID_8021AD, TPID_8021Q, mac};
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Lab, receive};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_millis(15);

const PORTS: [(&str, &str); 5] = [
    ("a", "vlan = { mode = \"access\", tag = 10 }\nlink_local = \"drop\""),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("lone", r#"vlan = { mode = "access", tag = 66 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("span", "mirror_only = true"),
];
const MORE: &str = r#"
[ports.vm]
type = "vhost_user"
vlan = { mode = "access", tag = 20 }

[mirrors.detect]
sources = ["a", "t:tx"]
to = "span"
"#;

/// Drops of every port by reason, those that are 0 left out.
fn drops(switch: &Labswd<'_>) -> BTreeMap<(String, String), u64> {
    let mut all = BTreeMap::new();
    for port in switch.ctl(&["port", "list"]).as_array().unwrap() {
        for (reason, count) in port["drops"].as_object().unwrap() {
            if let Some(count) = count.as_u64().filter(|count| *count > 0) {
                all.insert((port["name"].as_str().unwrap().to_owned(), reason.clone()), count);
            }
        }
    }
    all
}

fn hexadecimal(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The addresses the switch knows, without their ages.
fn known(switch: &Labswd<'_>) -> Vec<String> {
    let list = switch.ctl(&["fdb", "list"]);
    list.as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {} {}", entry["vlan"], entry["mac"], entry["port"]))
        .collect()
}

/// Traces a frame, sends it, and holds the two against each other. Gives the trace.
fn traced_and_sent(
    switch: &Labswd<'_>,
    sockets: &BTreeMap<&str, RawSocket>,
    from: &str,
    frame: &[u8],
    what: &str,
) -> Value {
    let (before, addresses) = (drops(switch), known(switch));
    let trace = switch.ctl(&["trace", "--in", from, "--frame", &hexadecimal(frame)]);
    assert_eq!((drops(switch), known(switch)), (before.clone(), addresses), "{what}: the trace left something behind");

    let mut expected = before;
    let mut to_leave: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for step in trace["steps"].as_array().unwrap() {
        let port = step["port"].as_str();
        match step["outcome"].as_str().unwrap() {
            "drop" => {
                let counter = (port.unwrap().to_owned(), step["reason"].as_str().unwrap().to_owned());
                *expected.entry(counter).or_default() += 1;
            }
            "send" | "copy" => drop(to_leave.insert(port.unwrap(), bytes(step["frame"].as_str().unwrap()))),
            _ => {}
        }
    }
    sockets[from].send(frame);
    for (name, socket) in sockets {
        let wanted: Vec<Vec<u8>> = to_leave.get(name).cloned().into_iter().collect();
        assert_eq!(receive(socket, wanted.len(), PATIENCE, QUIET), wanted, "{what}: at {name}; the trace: {trace:#}");
    }
    wait_for(&format!("{what}: {expected:?} (is {:?})", drops(switch)), PATIENCE, || {
        (drops(switch) == expected).then_some(())
    });
    trace
}

#[test]
fn what_a_trace_says_is_what_happens() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("trc");
    let switch = lab.start("", &PORTS, MORE);
    let sockets: BTreeMap<&str, RawSocket> = PORTS.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
    let untagged = |dst, src| Frame::new(mac(dst), mac(src));
    let link_local = Frame::new([0x01, 0x80, 0xc2, 0, 0, 0x0e], mac(1)).ethertype(0x88cc).build();
    switch.ctl(&["fdb", "add", "02:00:00:00:00:09", "--vlan", "20", "--port", "vm"]);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:08", "--vlan", "10", "--port", "t"]);
    // The port, the frame, and the reason it is dropped for or where it goes.
    let cases = [
        ("a", untagged(2, 1).build(), "flooded", "an unknown destination"),
        ("b", untagged(1, 2).build(), "forwarded", "the answer"),
        ("a", untagged(2, 1).build(), "forwarded", "and the next"),
        ("b", Frame::new(BROADCAST, mac(1)).build(), "flooded", "a station that moved"),
        ("b", untagged(2, 1).build(), "same_port", "to a neighbour"),
        ("b", untagged(1, 1).build(), "same_port", "to itself"),
        ("a", untagged(7, 7).build(), "same_port", "to itself, unknown before"),
        ("a", untagged(8, 1).build(), "forwarded", "to a static entry, tagged on the way out"),
        ("t", untagged(1, 3).vlan(10).build(), "forwarded", "untagged on the way out"),
        ("t", untagged(1, 3).tag(TPID_8021Q, 5 << 13 | 10).build(), "forwarded", "with a priority"),
        ("a", untagged(2, 1).vlan(10).build(), "tagged_not_allowed", "a tag on an access port"),
        ("a", untagged(2, 1).priority(3).build(), "forwarded", "a priority tag"),
        ("t", untagged(2, 3).build(), "untagged_not_allowed", "no tag on a trunk"),
        ("t", untagged(2, 3).vlan(30).build(), "vlan_not_member", "a VLAN the trunk has not"),
        ("t", untagged(2, 3).vlan(4095).build(), "vid_reserved", "the reserved VLAN"),
        ("t", untagged(1, 3).vlan(10).vlan(20).build(), "double_tag", "a second tag for an access port"),
        ("t", untagged(1, 3).tag(TPID_8021AD, 10).build(), "forwarded", "an S-tag"),
        ("t", untagged(9, 3).vlan(20).build(), "not_connected", "a guest that is not there"),
        ("t", Frame::new(BROADCAST, mac(3)).vlan(20).build(), "not_connected", "a flood to a guest that is not there"),
        ("a", link_local, "link_local", "a link-local frame"),
        ("a", Frame::new(mac(2), [3, 0, 0, 0, 0, 1]).build(), "source_group_address", "a group address as source"),
        ("lone", untagged(2, 4).build(), "no_destination", "alone in its VLAN"),
        ("span", untagged(2, 5).build(), "mirror_destination", "from a mirror's destination"),
    ];
    for (from, frame, outcome, what) in cases {
        let trace = traced_and_sent(&switch, &sockets, from, &frame, what);
        let reasons: Vec<&str> =
            trace["steps"].as_array().unwrap().iter().filter_map(|s| s["reason"].as_str()).collect();
        if reasons.is_empty() {
            assert_eq!(trace["verdict"], outcome, "{what}: {trace:#}");
        } else {
            assert_eq!(
                (&trace["verdict"], reasons.as_slice()),
                (&"dropped".into(), &[outcome][..]),
                "{what}: {trace:#}"
            );
        }
    }

    // A port that is down: nothing comes from it, and a static entry leads to it.
    switch.ctl(&["port", "down", "t"]);
    let trace = traced_and_sent(&switch, &sockets, "a", &untagged(8, 1).build(), "to a port that is down");
    assert!(trace["summary"].as_str().unwrap().starts_with("dropped at t (port_down)"), "{trace:#}");

    people_read_it_and_mistakes_are_refused(&switch);
    switch.stop();
}

/// A trace for people, and a mistake refused in one line.
fn people_read_it_and_mistakes_are_refused(switch: &Labswd<'_>) {
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(find_binary("labsw-ctl").unwrap());
        process::output(command.arg("--socket").arg(switch.site().control_socket()).args(arguments))
    };
    let made_up = ["trace", "--in", "a", "--src", "02:00:00:00:00:01", "--dst", "02:00:00:00:00:02", "--vlan", "30"];
    let (status, text) = ctl(&made_up);
    assert!(status.success(), "a drop is an answer: {text}");
    let last = text.lines().rev().find(|line| !line.is_empty()).unwrap();
    assert!(last.starts_with("✗ dropped at a (tagged_not_allowed)"), "{text}");
    assert!(text.contains(" 3 ✗ vlan       dropped at a: tagged_not_allowed: it has a tag of VLAN 30"), "{text}");
    let refused = switch.ctl_refused(&["trace", "--in", "nowhere", "--frame", "00"]);
    assert_eq!(refused, "labsw-ctl: port \"nowhere\" does not exist");
}
