//! Proves mirrors to a VLAN (RSPAN): the far end of a trunk that names the VLAN sees exactly what the sources sent and
//! got, tagged with it instead of the tag there was; ports that do not name it see nothing; what comes back in the VLAN
//! is passed on to the other trunks, teaches nothing, and is not copied again; traffic of the trunk goes on beside. And
//! that contradictions are refused in one line with nothing changed, that the session waits without a trunk that is up,
//! and is shown and applied as any other.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Lab, receive};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(100);

const PORTS: [(&str, &str); 5] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 900] }"#),
    ("u", r#"vlan = { mode = "native-untagged", tag = 20, trunks = [900] }"#),
    ("every", r#"vlan = { mode = "native-untagged", tag = 20 }"#),
];
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const T: Mac = [2, 0, 0, 0, 0, 0x10];
const FAR: Mac = [2, 0, 0, 0, 0, 0xfa];

fn frame(dst: Mac, src: Mac, number: u32) -> Frame {
    Frame::new(dst, src).number(number)
}

#[track_caller]
fn sees(socket: &RawSocket, who: &str, expected: &[Vec<u8>]) {
    assert_eq!(receive(socket, expected.len(), PATIENCE, QUIET), expected, "what {who} gets");
}

#[test]
fn trunks_that_name_the_vlan_see_copies_and_nothing_is_learned_from_them() {
    let lab = Lab::new("rspan");
    let mirrors = "[mirrors.far]\nsources = [\"a:rx\", \"t:tx\"]\nto_vlan = 900\n";
    let switch = lab.start("", &PORTS, mirrors);
    for (address, port) in [("0a", "a"), ("0b", "b"), ("10", "t")] {
        switch.ctl(&["fdb", "add", &format!("02:00:00:00:00:{address}"), "--vlan", "10", "--port", port]);
    }
    let [a, b, t, u, every] = PORTS.map(|(port, _)| lab.socket(port));
    let shown = switch.ctl(&["mirror", "show", "far"]);
    assert_eq!((&shown["to"], &shown["to_vlan"], &shown["state"]), (&json!(null), &json!(900), &json!("up")));

    each_trunk_gets_a_copy([&a, &b, &t, &u]);
    // What another switch copied: to the other trunk only, although the address is known to be elsewhere.
    for (number, dst) in [(4, B), (5, BROADCAST)] {
        let copy = frame(dst, FAR, number).vlan(900).build();
        t.send(&copy);
        sees(&u, "u", &[copy]);
    }
    // A stray one from a port that is not in the VLAN is dropped, and not copied although a is watched.
    a.send(&frame(B, FAR, 6).vlan(900).build());
    for (socket, who) in [(&a, "a"), (&b, "b"), (&t, "t"), (&u, "u"), (&every, "every")] {
        assert_eq!(socket.recv_all(QUIET), Vec::<Vec<u8>>::new(), "{who} gets nothing more");
    }
    assert_eq!(switch.fdb_port(900, "02:00:00:00:00:fa"), None);
    assert_eq!(switch.drops("a", "tagged_not_allowed"), 1);
    let shown = switch.ctl(&["mirror", "show", "far"]);
    // Of three frames there were copies by two ports each.
    assert_eq!((&shown["matched"], &shown["sent"], &shown["dropped"]), (&json!(3), &json!(6), &json!(0)));

    // Of a frame from a trunk that is watched itself, no copy goes back there. With a length, the tag counts.
    switch.ctl(&["mirror", "set", "far", "--source", "t:rx", "--snaplen", "20", "--to-vlan", "900"]);
    let back = frame(A, T, 7).vlan(10).build();
    t.send(&back);
    sees(&u, "u", &[frame(A, T, 7).vlan(900).build()[..20].to_vec()]);
    sees(&a, "a", &[frame(A, T, 7).build()]);
    assert_eq!(t.recv_all(QUIET), Vec::<Vec<u8>>::new());
    assert_eq!(switch.ctl(&["mirror", "show", "far"])["truncated"], 1);

    refused_commands_change_nothing(&switch);
    // Forced, b keeps what it sends in VLAN 10 to itself: only trunks that name the VLAN get it.
    switch.ctl(&["mirror", "set", "own", "--source", "u:rx", "--to-vlan", "10", "--force"]);
    assert_eq!(switch.ctl(&["mirror", "show", "own"])["force"], true);
    b.send(&frame(A, B, 8).build());
    sees(&t, "t", &[frame(A, B, 8).vlan(10).build()]);
    assert_eq!(a.recv_all(QUIET), Vec::<Vec<u8>>::new());
    switch.ctl(&["mirror", "del", "own"]);

    // Without a trunk that is up it waits.
    switch.ctl(&["port", "down", "t"]);
    switch.ctl(&["port", "down", "u"]);
    let shown = switch.ctl(&["mirror", "show", "far"]);
    assert_eq!(shown["state"], "waiting");
    assert_eq!(shown["reason"], "no port that names VLAN 900 in its trunks is up");
    switch.stop();
}

/// From a to b: a copy for each trunk. From a to t: the frame itself, and its copy; that of what t sends is the same
/// one.
fn each_trunk_gets_a_copy([a, b, t, u]: [&RawSocket; 4]) {
    let (to_b, to_t) = (frame(B, A, 1), frame(T, A, 2));
    a.send(&to_b.build());
    a.send(&to_t.build());
    let copies = [to_b.clone().vlan(900).build(), to_t.clone().vlan(900).build()];
    sees(b, "b", &[to_b.build()]);
    let mut at_t = receive(t, 3, PATIENCE, QUIET);
    at_t.sort_unstable_by_key(|frame| copies.contains(frame));
    assert_eq!(at_t, [to_t.vlan(10).build(), copies[0].clone(), copies[1].clone()]);
    sees(u, "u", &copies);
    // From b to t only what t sends is copied: the tag it leaves with is replaced.
    let sent = frame(T, B, 3);
    b.send(&sent.build());
    sees(u, "u", &[sent.clone().vlan(900).build()]);
    let mut at_t = receive(t, 2, PATIENCE, QUIET);
    at_t.sort_unstable();
    assert_eq!(at_t, [sent.clone().vlan(10).build(), sent.vlan(900).build()]);
}

/// Nothing is changed by what is refused.
fn refused_commands_change_nothing(switch: &Labswd<'_>) {
    let set = |more: &[&str]| switch.ctl_refused(&[&["mirror", "set", "far", "--source", "a"], more].concat());
    let before = switch.ctl(&["config", "show"]);
    for (more, reason) in [
        (&["--to-vlan", "10"][..], "VLAN 10 is the VLAN of untagged frames of port \"a\""),
        (&["--to-vlan", "900", "--vlan", "900"], "VLAN 900 is also one of `vlans`"),
        (&["--to-vlan", "900", "--inject-vlan", "10"], "can't stand beside `to_vlan`"),
    ] {
        let refused = set(more);
        assert!(refused.contains(reason) && refused.trim_end().lines().count() == 1, "{more:?}: {refused}");
    }
    let refused = switch.ctl_refused(&["port", "set", "b", "vlan.tag=900"]);
    assert!(refused.contains("copies of mirror \"far\" go to VLAN 900"), "{refused}");
    assert_eq!(switch.ctl(&["config", "show"]), before);
}
