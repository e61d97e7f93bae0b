//! Proves learning on real ports: per VLAN and address, floods before and unicast after, ageing, moves, static entries,
//! flushes, a full table that is fair to other ports; and that no frame, not even a broadcast, crosses from one VLAN to
//! another or goes back where it came from.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);

const PORTS: [(&str, &str); 5] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("c", r#"vlan = { mode = "access", tag = 10 }"#),
    ("x", r#"vlan = { mode = "access", tag = 20 }"#),
    ("y", r#"vlan = { mode = "access", tag = 20 }"#),
];

struct Bench<'a> {
    switch: Labswd<'a>,
    sockets: BTreeMap<&'static str, RawSocket>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab, settings: &str) -> Self {
        let switch = lab.start(settings, &PORTS, "");
        let sockets = PORTS.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
        Self { switch, sockets }
    }

    /// Sends a frame in at a port; it has to come out at exactly these ports.
    fn passes(&self, from: &str, src: Mac, dst: Mac, to: &[&str], what: &str) {
        let frame = Frame::new(dst, src).build();
        self.sockets[from].send(&frame);
        for (name, socket) in &self.sockets {
            let expected = if to.contains(name) { vec![frame.clone()] } else { vec![] };
            assert_eq!(receive(socket, expected.len(), PATIENCE, QUIET), expected, "{what}: at {name}");
        }
    }

    fn flush(&self, arguments: &[&str]) {
        self.switch.ctl(&[&["fdb", "flush"], arguments].concat());
    }
}

fn text(address: Mac) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

#[test]
fn addresses_are_learned_per_vlan_move_and_are_flushed() {
    if !needs() {
        return;
    }
    let lab = Lab::new("lrn");
    let bench = Bench::new(&lab, "");
    let Bench { switch, .. } = &bench;

    bench.passes("a", mac(1), mac(2), &["b", "c"], "an unknown address floods its VLAN only");
    bench.passes("b", mac(2), mac(1), &["a"], "the answer goes where the question came from");
    bench.passes("a", mac(1), mac(2), &["b"], "and so does the next");
    bench.passes("c", mac(3), BROADCAST, &["a", "b"], "a broadcast stays in its VLAN");
    bench.passes("c", mac(3), [1, 0, 0x5e, 0, 0, 1], &["a", "b"], "so does a multicast");
    bench.passes("x", mac(4), BROADCAST, &["y"], "the other VLAN too");
    bench.passes("x", mac(4), mac(1), &["y"], "an address known in another VLAN is unknown here");

    // The same address in two VLANs.
    bench.passes("y", mac(1), mac(4), &["x"], "the same address in another VLAN");
    assert_eq!(switch.fdb_port(10, &text(mac(1))).as_deref(), Some("a"));
    assert_eq!(switch.fdb_port(20, &text(mac(1))).as_deref(), Some("y"));
    bench.passes("b", mac(2), mac(1), &["a"], "VLAN 10 has its own");
    bench.passes("x", mac(4), mac(1), &["y"], "VLAN 20 has its own");

    // Not back where it came from.
    bench.passes("a", mac(5), mac(1), &[], "to an address on the same port");
    assert_eq!(switch.drops("a", "same_port"), 1);

    // A group address is no source.
    let before = switch.ctl(&["fdb", "list"]).as_array().unwrap().len();
    bench.passes("a", [3, 0, 0, 0, 0, 9], mac(2), &[], "a group address as source");
    assert_eq!(switch.ctl(&["fdb", "list"]).as_array().unwrap().len(), before);

    // Moves: the list and the traffic follow.
    for port in ["c", "b", "a", "c"] {
        let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|other| *other != port).collect();
        bench.passes(port, mac(1), BROADCAST, &others, "a station that moved");
        assert_eq!(switch.fdb_port(10, &text(mac(1))).as_deref(), Some(port));
        bench.passes(others[0], mac(6), mac(1), &[port], "traffic to a station that moved");
    }

    // The list, its fields and filters.
    let entry = switch.ctl(&["fdb", "list", "--vlan", "20", "--port", "y"]);
    let entry = entry.as_array().unwrap();
    assert_eq!(entry.len(), 1, "{entry:?}");
    let fields: Vec<&str> = entry[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["age_seconds", "mac", "port", "static", "vlan"]);
    assert_eq!(
        (&entry[0]["vlan"], &entry[0]["mac"], &entry[0]["port"]),
        (&20.into(), &text(mac(1)).into(), &"y".into())
    );
    assert!(entry[0]["static"] == false && entry[0]["age_seconds"].as_u64().unwrap() < 60);

    what_is_flushed_floods_again(&bench);
    static_entries_stay(&bench);
    bench.switch.stop();
}

/// Flushes: by port, by VLAN, all; what is gone floods again.
fn what_is_flushed_floods_again(bench: &Bench<'_>) {
    let Bench { switch, .. } = bench;
    bench.flush(&["--port", "c"]);
    assert_eq!(switch.fdb_port(10, &text(mac(1))), None);
    assert_eq!(switch.fdb_port(20, &text(mac(1))).as_deref(), Some("y"), "other ports keep theirs");
    bench.passes("a", mac(7), mac(1), &["b", "c"], "a flushed address");
    bench.flush(&["--vlan", "20"]);
    assert_eq!(switch.fdb_port(20, &text(mac(1))), None);
    assert_eq!(switch.fdb_port(10, &text(mac(7))).as_deref(), Some("a"), "other VLANs keep theirs");
    bench.flush(&[]);
    assert_eq!(switch.ctl(&["fdb", "list"]), serde_json::json!([]));
    let refused = switch.ctl_refused(&["fdb", "flush", "--port", "nobody"]);
    assert!(refused.contains("nobody"), "{refused}");
}

/// Static entries: traffic does not move them, flushes leave them, `del` ends them.
fn static_entries_stay(bench: &Bench<'_>) {
    let Bench { switch, .. } = bench;
    let fixed = text(mac(8));
    switch.ctl(&["fdb", "add", &fixed, "--vlan", "10", "--port", "c"]);
    bench.passes("a", mac(7), mac(8), &["c"], "to a static entry");
    bench.passes("b", mac(8), mac(7), &["a"], "the static address appears elsewhere");
    bench.flush(&[]);
    let entry = switch.ctl(&["fdb", "list"]);
    assert_eq!(entry, serde_json::json!([{"vlan": 10, "mac": fixed, "port": "c", "static": true, "age_seconds": 0}]));
    bench.passes("a", mac(7), mac(8), &["c"], "the static entry stands");
    switch.ctl(&["fdb", "del", &fixed, "--vlan", "10"]);
    bench.passes("a", mac(7), mac(8), &["b", "c"], "a static entry deleted");
    for arguments in
        [&["fdb", "del", &fixed, "--vlan", "10"][..], &["fdb", "add", &fixed, "--vlan", "10", "--port", "nobody"][..]]
    {
        switch.ctl_refused(arguments);
    }
    let group = switch.ctl_output(&["fdb", "add", "03:00:00:00:00:01", "--vlan", "10", "--port", "a"]);
    assert!(group.0 == 2 && group.2.contains("group address"), "{group:?}");
    // A port that goes takes its addresses with it.
    switch.ctl(&["fdb", "add", &fixed, "--vlan", "10", "--port", "c"]);
    switch.ctl(&["port", "del", "c"]);
    assert_eq!(switch.fdb_port(10, &fixed), None);
}

#[test]
fn addresses_age() {
    if !needs() {
        return;
    }
    let lab = Lab::new("lag");
    let bench = Bench::new(&lab, "mac_ageing = \"2s\"");
    bench.switch.ctl(&["fdb", "add", &text(mac(8)), "--vlan", "10", "--port", "c"]);
    bench.passes("a", mac(1), BROADCAST, &["b", "c"], "to be learned");
    let learned = Instant::now();
    assert_eq!(bench.switch.fdb_port(10, &text(mac(1))).as_deref(), Some("a"));
    // Traffic keeps an address young.
    while learned.elapsed() < Duration::from_secs(4) {
        bench.sockets["a"].send(&Frame::new(mac(8), mac(1)).build());
        assert_eq!(bench.switch.fdb_port(10, &text(mac(1))).as_deref(), Some("a"), "an address in use");
        std::thread::sleep(Duration::from_millis(200));
    }
    let quiet = Instant::now();
    wait_for("end of an address", Duration::from_secs(6), || {
        bench.switch.fdb_port(10, &text(mac(1))).is_none().then_some(())
    });
    assert!(quiet.elapsed() > Duration::from_millis(700), "not before its time: {:?}", quiet.elapsed());
    // The worker's own clock, which it reads when it wakes, may be a tenth of a second behind.
    std::thread::sleep(Duration::from_millis(300));
    bench.sockets["c"].recv_all(QUIET);
    bench.passes("b", mac(2), mac(1), &["a", "c"], "to an address that aged");
    bench.passes("b", mac(2), mac(8), &["c"], "a static entry does not age");
    bench.switch.stop();
}

#[test]
fn a_flood_of_addresses_costs_only_its_own_port() {
    if !needs() {
        return;
    }
    const TABLE: usize = 64;
    let lab = Lab::new("lfl");
    let bench = Bench::new(&lab, &format!("mac_table_size = {TABLE}"));
    let stations: Vec<Mac> = (1..=10).map(mac).collect();
    for station in &stations {
        bench.sockets["b"].send(&Frame::new(BROADCAST, *station).build());
        bench.sockets["x"].send(&Frame::new(BROADCAST, *station).build());
    }
    wait_for("stations", PATIENCE, || {
        (bench.switch.ctl(&["fdb", "list"]).as_array().unwrap().len() == 2 * stations.len()).then_some(())
    });
    for n in 0..2000_u16 {
        let [high, low] = n.to_be_bytes();
        bench.sockets["a"].send(&Frame::new(BROADCAST, [6, 0, 0, 0, high, low]).build());
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    wait_for("all of the flood", PATIENCE, || (bench.switch.counter("a", "rx_frames") == 2000).then_some(()));
    let list = bench.switch.ctl(&["fdb", "list"]);
    let list = list.as_array().unwrap();
    assert!(list.len() <= TABLE, "{} entries in a table for {TABLE}", list.len());
    for (vlan, port) in [(10, "b"), (20, "x")] {
        for station in &stations {
            let kept = list.iter().any(|e| e["vlan"] == vlan && e["port"] == port && e["mac"] == text(*station));
            assert!(kept, "{} in VLAN {vlan} was evicted by a flood from port a", text(*station));
        }
    }
    assert!(
        list.iter().filter(|entry| entry["port"] == "a").count() > TABLE / 4,
        "the flood is learned where there is room"
    );
    bench.switch.stop();
}
