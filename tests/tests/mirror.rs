//! Proves that a mirror is exact: a capture behind its destination equals, frame for frame and in order, what its
//! sources received and sent, tags included (as received on the way in, as sent on the way out), with one copy per
//! frame, and nothing else. And that mirrors are made, replaced and deleted without a frame of the forwarding lost,
//! that their counters are right, and that a destination takes part in nothing else.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::{Flow, Lab, receive};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(80);

const PORTS: [(&str, &str); 6] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("c", r#"vlan = { mode = "access", tag = 20 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("span", "mirror_only = true"),
    ("span2", "mirror_only = true"),
];
/// The address behind each port.
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const C: Mac = [2, 0, 0, 0, 0, 0xc];
const T: Mac = [2, 0, 0, 0, 0, 0x10];

struct Bench<'a> {
    switch: Labswd<'a>,
    sockets: BTreeMap<&'static str, RawSocket>,
    /// Frames received but not yet looked at, by port.
    inbox: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Frames refused so far, by port.
    refused: BTreeMap<&'static str, u64>,
    number: u32,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab) -> Self {
        let switch = lab.start("", &PORTS, "");
        let sockets: BTreeMap<_, _> = PORTS.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
        let bench = Self { switch, sockets, inbox: BTreeMap::new(), refused: BTreeMap::new(), number: 0 };
        for (vlan, address, port) in [("10", "0a", "a"), ("10", "0b", "b"), ("20", "0c", "c")] {
            bench.switch.ctl(&["fdb", "add", &format!("02:00:00:00:00:{address}"), "--vlan", vlan, "--port", port]);
        }
        for vlan in ["10", "20"] {
            bench.switch.ctl(&["fdb", "add", "02:00:00:00:00:10", "--vlan", vlan, "--port", "t"]);
        }
        bench
    }

    /// Sends a numbered frame from behind a port; gives it untagged, and as tagged with a VLAN.
    fn send(&mut self, port: &str, src: Mac, dst: Mac, tag: Option<u16>) -> impl Fn(Option<u16>) -> Vec<u8> + use<> {
        self.number += 1;
        let frame = Frame::new(dst, src).number(self.number);
        let build = move |tag: Option<u16>| tag.map_or_else(|| frame.clone(), |tci| frame.clone().vlan(tci)).build();
        self.sockets[port].send(&build(tag));
        build
    }

    /// What a port's far end, or a mirror's listener, must have received since the last look.
    fn assert_got(&mut self, port: &str, expected: &[Vec<u8>], what: &str) {
        let mut got = self.inbox.remove(port).unwrap_or_default();
        got.extend(receive(&self.sockets[port], expected.len().saturating_sub(got.len()), PATIENCE, QUIET));
        let short = |frames: &[Vec<u8>]| -> Vec<String> {
            frames.iter().map(|f| f[..f.len().min(22)].iter().map(|b| format!("{b:02x}")).collect()).collect()
        };
        assert_eq!(short(&got), short(expected), "{what}, at {port}");
        assert_eq!(got, expected, "{what}, at {port}: behind the header");
    }

    /// The mirrored traffic itself arrived as always.
    fn assert_passed(&mut self, traffic: &Traffic, what: &str) {
        for port in ["a", "b", "c", "t"] {
            self.assert_got(port, &traffic.sent_to(port), what);
        }
    }

    fn mirror(&self, name: &str) -> Value {
        let list = self.switch.ctl(&["mirror", "list"]);
        list.as_array().unwrap().iter().find(|mirror| mirror["name"] == name).cloned().unwrap()
    }

    fn assert_counters(&self, name: &str, expected: [u64; 4]) {
        let mirror = self.mirror(name);
        let counters = ["matched", "sent", "dropped", "truncated"].map(|key| mirror[key].as_u64().unwrap());
        assert_eq!(counters, expected, "matched, sent, dropped, truncated of {name}");
    }

    fn set(&self, arguments: &[&str]) {
        self.switch.ctl(&[&["mirror", "replace"], arguments].concat());
    }

    /// Notes what a frame comes to, and waits until it has passed: only frames that follow each other have an order.
    fn pass(&mut self, traffic: &mut Traffic, received: (&'static str, Vec<u8>), sent: &[(&'static str, Vec<u8>)]) {
        match sent {
            [] => {
                let refused = |port: &Value| -> u64 {
                    port["drops"].as_object().unwrap().values().filter_map(Value::as_u64).sum()
                };
                let before = self.refused.entry(received.0).or_default();
                *before += 1;
                let total = *before;
                wait_for("refused frame", PATIENCE, || (refused(&self.switch.port(received.0)) >= total).then_some(()));
            }
            [(first, _), ..] => {
                let frame = self.sockets[first].recv(PATIENCE);
                self.inbox.entry(first).or_default().extend(frame);
            }
        }
        traffic.pass(received, sent);
    }

    /// The same traffic every time; gives (frames at each port, the exact copy a mirror of a port and direction makes).
    fn traffic(&mut self) -> Traffic {
        let mut traffic = Traffic::default();
        let tagged = |vid: u16| Some(vid);
        // Access to access; a priority tag (VID 0, PCP 5) arrives, and leaves untagged.
        let f = self.send("a", A, B, None);
        self.pass(&mut traffic, ("a", f(None)), &[("b", f(None))]);
        let f = self.send("a", A, B, Some(0xa000));
        self.pass(&mut traffic, ("a", f(Some(0xa000))), &[("b", f(None))]);
        let f = self.send("b", B, A, None);
        self.pass(&mut traffic, ("b", f(None)), &[("a", f(None))]);
        // Access to trunk and back: the tag comes and goes, its priority stays on the trunk.
        let f = self.send("a", A, T, None);
        self.pass(&mut traffic, ("a", f(None)), &[("t", f(tagged(10)))]);
        let f = self.send("t", T, A, Some(0x600a));
        self.pass(&mut traffic, ("t", f(Some(0x600a))), &[("a", f(None))]);
        // Another VLAN.
        let f = self.send("c", C, T, None);
        self.pass(&mut traffic, ("c", f(None)), &[("t", f(tagged(20)))]);
        let f = self.send("t", T, C, tagged(20));
        self.pass(&mut traffic, ("t", f(tagged(20))), &[("c", f(None))]);
        // Broadcasts in both VLANs.
        let f = self.send("a", A, BROADCAST, None);
        self.pass(&mut traffic, ("a", f(None)), &[("b", f(None)), ("t", f(tagged(10)))]);
        let f = self.send("t", T, BROADCAST, tagged(20));
        self.pass(&mut traffic, ("t", f(tagged(20))), &[("c", f(None))]);
        // Frames that are refused were received all the same.
        let f = self.send("a", A, B, tagged(20));
        self.pass(&mut traffic, ("a", f(tagged(20))), &[]);
        let f = self.send("t", T, A, tagged(30));
        self.pass(&mut traffic, ("t", f(tagged(30))), &[]);
        traffic
    }
}

/// What went in and out, in order: (frame number, port, "rx" or "tx", bytes, VLAN).
#[derive(Default)]
struct Traffic(Vec<Vec<(&'static str, &'static str, Vec<u8>)>>);

impl Traffic {
    fn pass(&mut self, received: (&'static str, Vec<u8>), sent: &[(&'static str, Vec<u8>)]) {
        let mut events = vec![(received.0, "rx", received.1)];
        events.extend(sent.iter().map(|(port, frame)| (*port, "tx", frame.clone())));
        self.0.push(events);
    }

    /// What the far end of a port gets.
    fn sent_to(&self, port: &str) -> Vec<Vec<u8>> {
        let events = self.0.iter().flatten();
        events.filter(|(at, way, _)| *at == port && *way == "tx").map(|(_, _, frame)| frame.clone()).collect()
    }

    /// One copy per frame of the first event that is among `sources` (port, direction).
    fn copies(&self, sources: &[(&str, &str)]) -> Vec<Vec<u8>> {
        let first = |events: &Vec<(&'static str, &'static str, Vec<u8>)>| {
            let wanted = |at: &str, way: &str| sources.iter().any(|s| (s.0 == at || s.0 == "*") && s.1 == way);
            events.iter().find(|(at, way, _)| wanted(at, way)).map(|(_, _, frame)| frame.clone())
        };
        self.0.iter().filter_map(first).collect()
    }
}

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

/// The settings of one round: arguments, and the (port, direction) pairs they select.
type Selection = (&'static [&'static str], &'static [(&'static str, &'static str)]);

#[test]
fn copies_are_exactly_what_passed() {
    if !needs() {
        return;
    }
    let lab = Lab::new("mx");
    let mut bench = Bench::new(&lab);
    let rounds: [Selection; 8] = [
        (&["--source", "a"], &[("a", "rx"), ("a", "tx")]),
        (&["--source", "a:rx"], &[("a", "rx")]),
        (&["--source", "a:tx"], &[("a", "tx")]),
        (&["--source", "t:both"], &[("t", "rx"), ("t", "tx")]),
        (&["--source", "b", "--source", "c:tx"], &[("b", "rx"), ("b", "tx"), ("c", "tx")]),
        (&["--source", "*"], &[("*", "rx"), ("*", "tx")]),
        (&["--source", "*:rx"], &[("*", "rx")]),
        (&["--source", "b:tx", "--source", "t:tx"], &[("b", "tx"), ("t", "tx")]),
    ];
    let mut matched = 0;
    for (arguments, selected) in rounds {
        let what = arguments.join(" ");
        bench.set(&[&["m"], arguments, &["--to", "span"]].concat());
        let traffic = bench.traffic();
        bench.assert_passed(&traffic, &what);
        let copies = traffic.copies(selected);
        bench.assert_got("span", &copies, &what);
        bench.assert_got("span2", &[], &what);
        // Replaced under its name the session goes on, and so do its counters.
        matched += copies.len() as u64;
        bench.assert_counters("m", [matched, matched, 0, 0]);
    }
    assert_eq!(bench.mirror("m")["state"], "up");

    // VLAN filter: what was refused for its tag counts as of that VLAN.
    bench.switch.ctl(&["mirror", "del", "m"]);
    for (vlan, others) in [(20, 10), (10, 20)] {
        bench.set(&["v", "--source", "t", "--vlan", &vlan.to_string(), "--to", "span"]);
        let traffic = bench.traffic();
        bench.assert_passed(&traffic, "VLAN filter");
        let mut copies = traffic.copies(&[("t", "rx"), ("t", "tx")]);
        copies.retain(|frame| frame[12..14] == [0x81, 0] && u16::from(frame[15]) == vlan);
        assert!(!copies.is_empty() && others != vlan);
        bench.assert_got("span", &copies, &format!("only VLAN {vlan}"));
    }
    bench.switch.ctl(&["mirror", "del", "v"]);

    // Snap length: whole frames go on, copies are cut, and only those that were longer count as truncated.
    bench.set(&["s", "--source", "a:rx", "--snaplen", "60", "--to", "span"]);
    let long = Frame::new(B, A).payload(&[7; 500]).build();
    let short = Frame::new(B, A).build();
    bench.sockets["a"].send(&long);
    bench.sockets["a"].send(&short);
    bench.assert_got("b", &[long.clone(), short.clone()], "snap length");
    bench.assert_got("span", &[long[..60].to_vec(), short], "snap length 60");
    bench.assert_counters("s", [2, 2, 0, 1]);
    bench.switch.stop();
}

#[test]
fn several_mirrors_and_destinations() {
    if !needs() {
        return;
    }
    let lab = Lab::new("ms");
    let mut bench = Bench::new(&lab);

    // Three sessions to one destination: one copy per frame, and each session counts its own.
    bench.set(&["one", "--source", "a", "--to", "span"]);
    bench.set(&["two", "--source", "b", "--to", "span"]);
    bench.set(&["three", "--source", "a:rx", "--source", "t", "--to", "span"]);
    let traffic = bench.traffic();
    bench.assert_passed(&traffic, "three mirrors");
    let all = [("a", "rx"), ("a", "tx"), ("b", "rx"), ("b", "tx"), ("t", "rx"), ("t", "tx")];
    bench.assert_got("span", &traffic.copies(&all), "three mirrors to one destination");
    let sessions = [("one", &all[..2]), ("two", &all[2..4]), ("three", &[all[0], all[4], all[5]][..])];
    let mut sent = 0;
    for (name, selected) in sessions {
        let mirror = bench.mirror(name);
        assert_eq!(mirror["matched"], traffic.copies(selected).len(), "matched by {name}");
        sent += mirror["sent"].as_u64().unwrap();
    }
    assert_eq!(sent, traffic.copies(&all).len() as u64, "copies sent by all sessions");

    // Two destinations: a copy at each.
    for name in ["two", "three"] {
        bench.switch.ctl(&["mirror", "del", name]);
    }
    bench.set(&["other", "--source", "a", "--to", "span2"]);
    let traffic = bench.traffic();
    bench.assert_passed(&traffic, "two destinations");
    for span in ["span", "span2"] {
        bench.assert_got(span, &traffic.copies(&all[..2]), "two destinations");
    }

    // What arrives on a destination goes nowhere, is counted, not learned, and not mirrored.
    bench.set(&["every", "--source", "*", "--to", "span2"]);
    let intruder = Frame::new(BROADCAST, mac(0x66));
    (0..5).for_each(|n| bench.sockets["span"].send(&intruder.clone().number(n).build()));
    bench.sockets["span"].send(&intruder.clone().vlan(10).build());
    for (port, _) in PORTS {
        bench.assert_got(port, &[], "frames sent into a destination");
    }
    assert_eq!(bench.switch.drops("span", "mirror_destination"), 6);
    for vlan in [1, 10] {
        assert_eq!(bench.switch.fdb_port(vlan, "02:00:00:00:00:66"), None);
    }
    // Nothing but copies ever leaves a destination, not even with a static entry leading there.
    bench.switch.ctl(&["mirror", "del", "one"]);
    bench.switch.ctl(&["mirror", "del", "every"]);
    bench.switch.ctl(&["mirror", "del", "other"]);
    bench.switch.ctl(&["fdb", "add", "02:00:00:00:00:77", "--vlan", "10", "--port", "span"]);
    bench.sockets["a"].send(&Frame::new(mac(0x77), A).build());
    bench.sockets["a"].send(&Frame::new(BROADCAST, A).build());
    for port in ["span", "span2"] {
        bench.assert_got(port, &[], "forwarding to a destination");
    }
    bench.switch.stop();
}

#[test]
fn changes_at_run_time_cost_no_frame() {
    if !needs() {
        return;
    }
    let lab = Lab::new("mr");
    let bench = Bench::new(&lab);
    let flow = Flow::start(&lab, "a", "b");
    for round in 0..15 {
        bench.set(&["m", "--source", "a", "--to", "span"]);
        bench.set(&["m", "--source", "b:tx", "--source", "a:rx", "--to", "span"]);
        bench.set(&["m", "--source", "*", "--vlan", "10", "--to", "span2"]);
        flow.assert_flowing(&format!("the changes of round {round}"));
        bench.switch.ctl(&["mirror", "del", "m"]);
    }
    assert!(receive(&bench.sockets["span"], 1, PATIENCE, QUIET).len() > 10, "copies were made");

    // A destination that is down: the mirror waits and says why, its copies count as dropped, and frames still pass.
    bench.set(&["m", "--source", "a:rx", "--to", "span"]);
    lab.peers.ip(&["link", "set", "span", "down"]);
    bench.switch.wait_port("span", "down", PATIENCE);
    assert_eq!(bench.mirror("m")["state"], "waiting");
    assert!(bench.mirror("m")["reason"].as_str().unwrap().contains("span"));
    flow.assert_flowing("the destination went down");
    lab.peers.ip(&["link", "set", "span", "up"]);
    bench.switch.wait_port("span", "up", PATIENCE);
    assert_eq!(bench.mirror("m")["state"], "up");
    let again = lab.socket("span");
    assert!(again.recv(PATIENCE).is_some(), "copies after the destination is back");

    // The same by order.
    bench.switch.ctl(&["port", "down", "span"]);
    assert_eq!(bench.mirror("m")["state"], "waiting");
    flow.assert_flowing("the destination was switched off");
    let frames = again.recv_all(QUIET).len();
    bench.switch.ctl(&["port", "up", "span"]);
    assert!(again.recv(PATIENCE).is_some(), "copies after the destination is on again ({frames} before)");

    let refused = bench.switch.ctl_refused(&["port", "del", "span"]);
    assert!(refused.contains("span") && refused.contains("\"m\""), "{refused}");
    for (arguments, names) in [
        (&["m2", "--source", "nobody", "--to", "span"][..], "nobody"),
        (&["m2", "--source", "a", "--to", "nobody"][..], "nobody"),
        (&["m2", "--source", "a", "--to", "a"][..], "\"a\""),
    ] {
        let refused = bench.switch.ctl_refused(&[&["mirror", "set"], arguments].concat());
        assert!(refused.contains("m2") && refused.contains(names), "{refused}");
    }
    assert!(bench.switch.ctl_refused(&["mirror", "del", "m2"]).contains("m2"));
    assert!(flow.finish() > 100);
    let mirror = bench.mirror("m");
    let count = |key: &str| mirror[key].as_u64().unwrap();
    assert_eq!(count("matched"), count("sent") + count("dropped"), "{mirror}");
    bench.switch.stop();
}

#[test]
fn only_ports_that_allow_it_are_mirrored() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("mirrora");
    let ports = [("a", "allow_mirror = true"), ("b", ""), ("span", "mirror_only = true\nallow_mirror = true")];
    let switch = lab.start("allow_mirror = \"declared\"", &ports, "");
    let [a, b, span] = ["a", "b", "span"].map(|port| lab.socket(port));
    let allowed = |port: &str| switch.port(port)["allow_mirror"].as_bool().unwrap();
    assert_eq!(["a", "b", "span"].map(allowed), [true, false, true]);
    for (source, to, reason) in [
        ("b", "span", "\"b\" can't be a source: its allow_mirror is false"),
        ("a", "b", "\"b\" can't be a destination: its allow_mirror is false"),
    ] {
        let refused = switch.ctl_refused(&["mirror", "set", "m", "--source", source, "--to", to]);
        assert!(refused.contains(reason), "{refused}");
    }
    assert_eq!(switch.ctl(&["mirror", "list"]), serde_json::json!([]));

    // Who is seen behind the destination of a mirror of all ports.
    switch.ctl(&["mirror", "set", "all", "--source", "*:rx", "--to", "span"]);
    let mut number = 0;
    let mut assert_seen = |seen: &[(Mac, bool)], what: &str| {
        number += 1;
        let frames = seen.iter().map(|(from, _)| Frame::new(BROADCAST, *from).number(number).build());
        let frames: Vec<Vec<u8>> = frames.collect();
        for ((from, _), frame) in seen.iter().zip(&frames) {
            let (out, other) = if *from == A { (&a, &b) } else { (&b, &a) };
            out.send(frame);
            assert_eq!(
                receive(other, 1, PATIENCE, Duration::ZERO),
                std::slice::from_ref(frame),
                "{what}: the frame itself"
            );
        }
        let copies: Vec<Vec<u8>> =
            seen.iter().zip(frames).filter(|((_, copied), _)| *copied).map(|(_, frame)| frame).collect();
        assert_eq!(receive(&span, copies.len(), PATIENCE, QUIET), copies, "{what}");
    };
    assert_seen(&[(A, true), (B, false)], "as declared");
    switch.ctl(&["port", "set", "a", "allow_mirror=false"]);
    switch.ctl(&["port", "set", "b", "allow_mirror=true"]);
    assert_seen(&[(A, false), (B, true)], "the other way round");
    let refused = switch.ctl_refused(&["port", "set", "span", "allow_mirror=false"]);
    assert!(refused.contains("mirror \"all\" uses it, so allow_mirror can't be false"), "{refused}");

    the_file_says_who_is_mirrored(&lab, &switch, &ports, assert_seen);
    switch.stop();
}

/// Applies files that allow mirrors of other ports. What a file says is looked at before anything is done.
fn the_file_says_who_is_mirrored(
    lab: &Lab,
    switch: &Labswd<'_>,
    ports: &[(&str, &str)],
    mut assert_seen: impl FnMut(&[(Mac, bool)], &str),
) {
    let mirror = |source: &str| format!("[mirrors.all]\nsources = [\"{source}\"]\nto = \"span\"\n");
    let file = |switch: &str, source: &str| {
        lab.site.write_config(&format!("{switch}\n{}\n{}", lab.ports(ports), mirror(source)))
    };
    for command in ["check", "apply"] {
        let file = file("allow_mirror = \"declared\"\nmac_ageing = \"60s\"", "b:rx");
        let refused = switch.ctl_refused(&["config", command, &file.to_string_lossy()]);
        assert!(refused.contains("mirrors.all.sources: \"b\" can't be a source"), "{refused}");
    }
    assert_seen(&[(A, false), (B, true)], "after a refusal");
    for (switch_says, seen) in [
        ("allow_mirror = \"declared\"", [(A, true), (B, false)]),
        ("allow_mirror = \"all\"", [(A, true), (B, true)]),
        ("", [(A, true), (B, true)]),
        ("allow_mirror = \"declared\"", [(A, true), (B, false)]),
    ] {
        switch.ctl(&["config", "apply", &file(switch_says, "*:rx").to_string_lossy()]);
        assert_seen(&seen, switch_says);
    }
}
