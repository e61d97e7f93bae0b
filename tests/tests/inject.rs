//! Proves that what a mirror's destination may inject enters where it should and nowhere else, as much of it as is
//! allowed, and that a loop behind it is recognised; and that a capture is replayed byte for byte with its timing, or
//! refused in one line with nothing left behind.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);
const PORTS: [(&str, &str); 6] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("c", r#"vlan = { mode = "access", tag = 20 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("span", "mirror_only = true"),
    ("span2", "mirror_only = true"),
];
const VHOST: &str = "[ports.v]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 10 }\n";
const ATTACKER: Mac = [2, 0, 0, 0, 0, 0x66];

struct Sockets<'a> {
    lab: &'a Lab,
    open: Vec<(&'static str, RawSocket)>,
}

impl Sockets<'_> {
    fn of<'a>(lab: &'a Lab, ports: &[&'static str]) -> Sockets<'a> {
        Sockets { lab, open: ports.iter().map(|port| (*port, lab.socket(port))).collect() }
    }

    fn at(&self, port: &str) -> &RawSocket {
        let found = self.open.iter().find(|(name, _)| *name == port);
        &found.unwrap_or_else(|| panic!("no socket at {port} in {:?}", self.lab)).1
    }

    /// Each of these ports gets exactly this.
    fn assert_got(&self, expected: &[(&str, Vec<Vec<u8>>)], what: &str) {
        for (port, frames) in expected {
            assert_eq!(&receive(self.at(port), frames.len(), PATIENCE, QUIET), frames, "{what}, at {port}");
        }
    }
}

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

fn set(switch: &Labswd<'_>, arguments: &str) {
    let arguments: Vec<&str> = ["mirror", "replace"].into_iter().chain(arguments.split(' ')).collect();
    switch.ctl(&arguments);
}

#[test]
fn what_a_destination_injects_enters_where_it_should_and_a_loop_is_recognised() {
    if !needs() {
        return;
    }
    let lab = Lab::new("in");
    let switch = lab.start("", &PORTS, "");
    let sockets = Sockets::of(&lab, &["a", "b", "c", "t", "span", "span2"]);
    let frame = |number: u32| Frame::new(BROADCAST, ATTACKER).number(number);
    let plain = |number: u32| vec![frame(number).build()];
    let tagged = |number: u32, vid: u16| vec![frame(number).vlan(vid).build()];

    // By VLAN: untagged, or with that tag, and only to that VLAN. Another mirror of all ports does not send it back.
    set(&switch, "m --source a:rx --to span --inject-vlan 10 --inject-source 02:00:00:00:00:66");
    set(&switch, "all --source * --to span");
    sockets.at("span").send(&plain(1)[0]);
    let in_vlan_10 = |number| [("a", plain(number)), ("b", plain(number)), ("t", tagged(number, 10)), ("c", vec![])];
    sockets.assert_got(&in_vlan_10(1), "injected by VLAN");
    sockets.at("span").send(&tagged(2, 10)[0]);
    sockets.assert_got(&in_vlan_10(2), "injected with the tag of the VLAN");
    sockets.at("span").send(&tagged(3, 20)[0]);
    sockets.at("span").send(&Frame::new(BROADCAST, mac(0x67)).build());
    wait_for("refused frames", PATIENCE, || (switch.drops("span", "inject_source") == 1).then_some(()));
    sockets.assert_got(&[("a", vec![]), ("b", vec![]), ("c", vec![]), ("t", vec![]), ("span", vec![])], "refused");
    assert_eq!(switch.drops("span", "vlan_not_member"), 1);
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:66"), None, "not learned");
    let shown = switch.ctl(&["mirror", "show", "m"]);
    assert_eq!(shown["inject"]["vlan"], 10);
    assert_eq!(shown["inject"]["rate"], "10kpps");

    // As a port's: learned there, seen by its mirrors, but not sent back.
    switch.ctl(&["mirror", "del", "m"]);
    set(&switch, "m --source a:rx --to span --inject-as a");
    set(&switch, "watch --source a:rx --to span2");
    sockets.at("span").send(&plain(4)[0]);
    let expected = [("a", vec![]), ("b", plain(4)), ("t", tagged(4, 10)), ("span2", plain(4)), ("span", vec![])];
    sockets.assert_got(&expected, "injected as a port's");
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:66").as_deref(), Some("a"));

    the_rate_bounds_what_comes(&switch, &sockets);
    a_cable_that_sends_everything_back(&switch, &sockets);
    // Without injection everything is dropped, as it was before.
    switch.ctl(&["mirror", "del", "m"]);
    sockets.at("span").send(&plain(9)[0]);
    wait_for("dropped frame", PATIENCE, || (switch.drops("span", "mirror_destination") == 1).then_some(()));
    switch.stop();
}

/// The rate bounds it, whatever comes.
fn the_rate_bounds_what_comes(switch: &Labswd<'_>, sockets: &Sockets<'_>) {
    set(switch, "m --source a:rx --to span --inject-vlan 20 --inject-rate 100pps");
    let before = Instant::now();
    (0..400).for_each(|number| sockets.at("span").send(&Frame::new(BROADCAST, ATTACKER).number(1000 + number).build()));
    wait_for("400 frames", PATIENCE, || (switch.counter("span", "rx_frames") == 405).then_some(()));
    let took = before.elapsed();
    let passed = receive(sockets.at("c"), 64, PATIENCE, QUIET).len() as u64;
    let allowed = 64 + 1 + took.as_millis() as u64 / 10;
    assert!((64..=allowed).contains(&passed), "{passed} frames passed in {took:?}");
    assert_eq!(switch.drops("span", "inject_rate"), 400 - passed);
    let refused = switch.ctl_refused(&["mirror", "set", "n", "--source", "b", "--to", "span", "--inject-vlan", "9"]);
    assert!(refused.contains("mirror \"m\" to \"span\" injects otherwise"), "{refused}");
    let refused = switch.ctl_refused(&["mirror", "set", "n", "--source", "b", "--to", "a"]);
    assert!(refused.contains("\"a\" is a source of mirror"), "{refused}");
}

/// A cable that sends everything back: each copy comes back once, and nothing else happens.
fn a_cable_that_sends_everything_back(switch: &Labswd<'_>, sockets: &Sockets<'_>) {
    for port in ["a", "b", "t", "c", "span2"] {
        sockets.at(port).recv_all(QUIET);
    }
    set(switch, "m --source a:rx --to span --inject-vlan 10 --inject-rate 1Mpps");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let returned = scope.spawn(|| {
            let mut returned = 0u64;
            while !stop.load(Ordering::Relaxed) {
                if let Some(copy) = sockets.at("span").recv(Duration::from_millis(10)) {
                    sockets.at("span").send(&copy);
                    returned += 1;
                }
            }
            returned
        });
        let station = Frame::new(BROADCAST, mac(0xa));
        let frames: Vec<Vec<u8>> = (0..100)
            .map(|number| station.clone().number(number).payload(&[number as u8; 200]).number(number).build())
            .collect();
        for frame in &frames {
            sockets.at("a").send(frame);
        }
        assert_eq!(receive(sockets.at("b"), 100, PATIENCE, QUIET), frames, "no copy came in");
        stop.store(true, Ordering::Relaxed);
        let returned = returned.join().unwrap();
        assert!(returned >= 100, "{returned} copies");
        wait_for("copies recognised", PATIENCE, || (switch.drops("span", "mirror_loop") == returned).then_some(()));
    });
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:0a").as_deref(), Some("a"));
}

/// A pcap of these frames, `gap` apart.
fn write_pcap(dir: &Path, name: &str, frames: &[Vec<u8>], gap: Duration) -> PathBuf {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut file = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1]);
    for (number, frame) in frames.iter().enumerate() {
        let at = 1_600_000_000_000_000 + number as u64 * gap.as_micros() as u64;
        let (seconds, micros) = ((at / 1_000_000) as u32, (at % 1_000_000) as u32);
        file.extend(words(&[seconds, micros, frame.len() as u32, frame.len() as u32]));
        file.extend(frame);
    }
    let path = dir.join(name);
    std::fs::write(&path, file).unwrap();
    path
}

/// A frame with this number, whose bytes depend on it.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|byte| (byte as u32 * 7 + number) as u8).collect();
    Frame::new(BROADCAST, ATTACKER).payload(&payload).number(number).build()
}

#[test]
fn a_capture_is_replayed_as_it_was_or_refused_in_one_line() {
    if !needs() {
        return;
    }
    let lab = Lab::new("rp");
    let switch = lab.start("", &PORTS, VHOST);
    let sockets = Sockets::of(&lab, &["a", "b", "c"]);
    let dir = lab.site.dir();

    // A client that is killed: its injection ends by itself. Looked at below.
    let slow: Vec<Vec<u8>> = (0..100).map(|number| numbered(number, 46)).collect();
    let slow = write_pcap(dir, "slow.pcap", &slow, Duration::from_secs(30));
    begin_and_kill(&switch, &lab, &slow);
    let killed_at = Instant::now();

    // Byte for byte.
    let frames: Vec<Vec<u8>> = (0..21).map(|number| numbered(number, 46 + number as usize * 60)).collect();
    let gap = Duration::from_millis(20);
    let file = write_pcap(dir, "timed.pcap", &frames, gap);
    let path = file.to_string_lossy().into_owned();
    replayed_with_its_own_timing(&switch, &sockets, &path, &frames, gap);
    replayed_at_a_rate(&switch, &sockets, dir);
    // What can't be replayed.
    let mut cut = std::fs::read(&file).unwrap();
    cut.pop();
    std::fs::write(dir.join("cut.pcap"), &cut).unwrap();
    std::fs::write(dir.join("text"), "no capture at all").unwrap();
    let place = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let missing = place("missing");
    sockets.at("b").recv_all(QUIET);
    for (port, file, wrong) in [
        ("a", place("cut.pcap"), "the file ends within a block; 20 frames were sent"),
        ("a", place("text"), "byte 0: it does not begin like a pcap or pcapng file"),
        ("a", "/dev/zero".to_owned(), "byte 0: it does not begin like a pcap or pcapng file"),
        ("a", missing, "No such file"),
        ("span", path.clone(), "it is a mirror destination, which takes nothing in"),
        ("nobody", path.clone(), "nobody"),
    ] {
        let refused = switch.ctl_refused(&["inject", port, &file]);
        assert!(refused.contains(wrong), "{refused}");
    }
    assert_eq!(receive(sockets.at("b"), 20, PATIENCE, QUIET), frames[..20], "what could be read was sent");
    switch.ctl(&["port", "down", "a"]);
    assert!(switch.ctl_refused(&["inject", "a", &path]).contains("switched off"));

    a_port_that_goes_ends_its_injection(&switch, &slow);
    let left = Duration::from_secs(8).saturating_sub(killed_at.elapsed());
    wait_for("end of the injections", left, || {
        let count = |text: &str| switch.log().matches(text).count();
        (count("injection begins") == count("injection has ended")).then_some(())
    });
    switch.stop();
}

/// A capture of both sides: no station moves, everything reaches the other side, in the order of the file.
#[test]
fn both_sides_of_a_capture_are_replayed_each_at_its_port() {
    if !needs() {
        return;
    }
    let lab = Lab::new("sp");
    let switch = lab.start("", &PORTS, "");
    set(&switch, "watch --source a:rx --source b:rx --to span");
    let sockets = Sockets::of(&lab, &["a", "b", "span"]);
    let (one, other) = ([2, 0, 0, 0, 0, 0x0a], [2, 0, 0, 0, 0, 0x0b]);
    let number = |from: Mac, to: Mac, number: u32| Frame::new(to, from).number(number).build();
    let mut frames = vec![number(one, BROADCAST, 0)];
    for round in 0..10 {
        frames.extend([number(other, one, 2 * round + 1), number(one, other, 2 * round + 2)]);
    }
    let file = write_pcap(lab.site.dir(), "both.pcap", &frames, Duration::from_millis(50));
    let path = file.to_string_lossy();
    let report = switch.ctl(&["inject", "a", &path, "--split", "b"]);
    assert_eq!((&report["port"], &report["sent"]), (&"a".into(), &11.into()));
    assert_eq!((&report["split"]["port"], &report["split"]["sent"]), (&"b".into(), &10.into()));
    let from = |station: Mac| frames.iter().filter(|frame| frame[6..12] == station).cloned().collect::<Vec<_>>();
    sockets.assert_got(&[("b", from(one)), ("a", from(other))], "replayed by port");
    // A machine that stands still for 50 ms may have frames of the two ports change places.
    let seen = receive(sockets.at("span"), frames.len(), PATIENCE, QUIET);
    let in_place = seen.iter().zip(&frames).filter(|(seen, frame)| seen == frame).count();
    assert!(seen.len() == frames.len() && in_place > frames.len() / 2, "{in_place} of {} in their place", seen.len());
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:0a").as_deref(), Some("a"));
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:0b").as_deref(), Some("b"));
    assert_eq!(switch.ctl(&["status"])["mac_moves"], 0);

    // Refused, with nothing left behind.
    let refused = switch.ctl_refused(&["inject", "a", &path, "--split", "nobody"]);
    assert!(refused.contains("nobody"), "{refused}");
    assert_eq!(switch.ctl_output(&["inject", "a", &path, "--split", "a"]).0, 2);
    wait_for("end of the injections", PATIENCE, || {
        let count = |text: &str| switch.log().matches(text).count();
        (count("injection begins") == 3 && count("injection has ended") == 3).then_some(())
    });
    switch.stop();
}

/// Begins an injection with a client that is killed.
fn begin_and_kill(switch: &Labswd<'_>, lab: &Lab, slow: &Path) {
    let mut client = Command::new(find_binary("labsw-ctl").unwrap());
    client.arg("--socket").arg(lab.site.control_socket()).args(["inject", "c"]).arg(slow);
    let mut client = client.stdout(Stdio::null()).spawn().unwrap();
    wait_for("beginning", PATIENCE, || switch.log().contains("injection begins").then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
}

/// A capture whose frames are `gap` apart comes out with that timing.
fn replayed_with_its_own_timing(
    switch: &Labswd<'_>,
    sockets: &Sockets<'_>,
    path: &str,
    frames: &[Vec<u8>],
    gap: Duration,
) {
    let (mut got, mut times) = (Vec::new(), Vec::new());
    let report = std::thread::scope(|scope| {
        let report = scope.spawn(|| switch.ctl(&["inject", "a", path]));
        for _ in frames {
            got.extend(sockets.at("b").recv(PATIENCE));
            times.push(Instant::now());
        }
        report.join().unwrap()
    });
    assert_eq!(got, frames);
    assert_eq!((&report["sent"], &report["port"]), (&21.into(), &"a".into()));
    let took = times[20] - times[0];
    let whole = gap * 20;
    assert!(took > whole - gap && took < whole + Duration::from_millis(300), "{took:?} instead of {whole:?}");
    let mut gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    assert!(gaps[10].abs_diff(gap) < Duration::from_millis(4), "the gap is {:?}", gaps[10]);
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:66").as_deref(), Some("a"), "as if received there");
    assert_eq!(switch.counter("a", "rx_frames"), 21);
}

/// A capture is replayed at a rate, and from a guest's port without a guest.
fn replayed_at_a_rate(switch: &Labswd<'_>, sockets: &Sockets<'_>, dir: &Path) {
    let many: Vec<Vec<u8>> = (0..1000).map(|number| numbered(number, 46)).collect();
    let many_file = write_pcap(dir, "many.pcap", &many, Duration::ZERO).to_string_lossy().into_owned();
    let report = switch.ctl(&["inject", "v", &many_file, "--rate", "5kpps"]);
    assert_eq!(receive(sockets.at("b"), 1000, PATIENCE, QUIET), many);
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.19..1.0).contains(&seconds), "1000 frames at 5kpps took {seconds} s");
    assert_eq!(switch.fdb_port(10, "02:00:00:00:00:66").as_deref(), Some("v"));
    let report = switch.ctl(&["inject", "c", &many_file]);
    assert_eq!((&report["sent"], &report["drops"]["no_destination"]), (&1000.into(), &serde_json::Value::Null));
}

/// A port that goes takes its injection with it.
fn a_port_that_goes_ends_its_injection(switch: &Labswd<'_>, slow: &Path) {
    let place = slow.to_string_lossy().into_owned();
    let begun = || switch.log().matches("injection begins").count();
    let before = begun();
    let refused = std::thread::scope(|scope| {
        let refused = scope.spawn(|| switch.ctl_refused(&["inject", "b", &place]));
        // The port goes in any case, or the client would go on.
        let deadline = Instant::now() + PATIENCE;
        while begun() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        switch.ctl(&["port", "del", "b"]);
        refused.join().unwrap()
    });
    assert!(begun() > before);
    assert!(refused.contains("b"), "{refused}");
}
