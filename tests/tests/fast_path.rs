//! Proves the kernel fast path: known unicast between containers' ports with `offloads` does not leave the kernel and
//! counts as ever; whoever looks at a port, or limits it, sees its frames from the moment the command returns; moves,
//! flushes and ports that go down hold for the next frame; over random frames and changes every port gets what it gets
//! without the fast path, and all counters are equal; nothing passes after `kill -9`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test reports by panicking")]

use std::time::{Duration, Instant};

use labsw_tests::netns::Netns;
use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(100);

fn ready() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

/// A container at a port.
struct Station {
    name: &'static str,
    ns: Netns,
    socket: RawSocket,
}

/// The ports of a switch with these names, in VLAN 10.
fn config(switch: &str, containers: &[(&'static str, Netns)]) -> String {
    let port = |(name, ns): &(&str, Netns)| {
        let ns = ns.name();
        format!(
            "[ports.{name}]\ntype = \"veth\"\noffloads = true\npeer = \"{name}0\"\nnetns = \"{ns}\"\n\
             peer_name = \"eth0\"\nvlan = {{ mode = \"access\", tag = 10 }}\n"
        )
    };
    // The site's file begins with the table of the switch.
    format!("{switch}\n") + &containers.iter().map(port).collect::<String>()
}

fn containers(names: &[&'static str]) -> Vec<(&'static str, Netns)> {
    let quiet = |name: &&'static str| {
        let ns = Netns::new(&format!("fp{name}"));
        ns.run(&["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"]);
        (*name, ns)
    };
    names.iter().map(quiet).collect()
}

fn stations(switch: &Labswd<'_>, containers: Vec<(&'static str, Netns)>) -> Vec<Station> {
    let open = |(name, ns): (&'static str, Netns)| {
        switch.wait_port_up(name);
        let socket = RawSocket::open(&ns, "eth0");
        Station { name, ns, socket }
    };
    containers.into_iter().map(open).collect()
}

/// Frames that left the kernel for the switch at this port.
fn went_around(switch: &Labswd<'_>, port: &str) -> u64 {
    let links = switch.site().ns.run(&["ip", "-s", "-j", "link", "show", &format!("lst-{port}")]);
    let links: Value = serde_json::from_str(&links).unwrap();
    links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

/// Has the switch learn `mac(n)` at each station, in order; leaves nothing unread.
fn introduce(stations: &[Station]) {
    for (n, station) in (1..).zip(stations) {
        station.socket.send(&Frame::new(BROADCAST, mac(n)).build());
        for other in stations.iter().filter(|other| other.name != station.name) {
            other.socket.recv_matching(SOON, |frame| frame[6..12] == mac(n)).unwrap();
        }
    }
}

/// Sends a frame from the first station, and says who gets it.
fn who_gets(stations: &[Station], dst: Mac, n: u32) -> Vec<&str> {
    let frame = Frame::new(dst, mac(1)).number(n).build();
    stations[0].socket.send(&frame);
    let gets = |station: &&Station| station.socket.recv_matching(QUIET, |got| got == frame).is_some();
    stations.iter().skip(1).filter(gets).map(|station| station.name).collect()
}

#[test]
fn known_unicast_passes_in_the_kernel_and_counts() {
    if !ready() {
        return;
    }
    let site = Site::new("fpk");
    let containers = containers(&["a", "b", "c"]);
    let switch = Labswd::start(&site, &config("", &containers));
    let stations = stations(&switch, containers);
    introduce(&stations);
    let counted = |port: &str, counter: &str| switch.counter(port, counter);
    let before =
        [counted("a", "rx_frames"), counted("a", "rx_bytes"), counted("b", "tx_frames"), counted("b", "tx_bytes")];
    let around = went_around(&switch, "a");
    for n in 0..100 {
        assert_eq!(who_gets_quickly(&stations, n), 1);
    }
    let after =
        [counted("a", "rx_frames"), counted("a", "rx_bytes"), counted("b", "tx_frames"), counted("b", "tx_bytes")];
    assert_eq!(went_around(&switch, "a"), around, "all of them passed in the kernel");
    assert_eq!(std::array::from_fn(|at| after[at] - before[at]), [100, 6000, 100, 6000]);
    assert_eq!(switch.port("a")["fast_path"], "on");
    let entries = switch.ctl(&["fdb", "list"]);
    assert!(entries.as_array().unwrap().iter().all(|entry| entry["fast_path"] == true), "{entries}");
    let [src, dst] = [mac(1), mac(2)].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    let trace = switch.ctl(&["trace", "--in", "a", "--src", &src, "--dst", &dst]);
    assert!(trace["steps"].as_array().unwrap().iter().any(|step| step["stage"] == "fast_path"), "{trace}");
    // Frames that need a decision take the way through the switch: to nobody known, with a tag, to everybody.
    for (n, frame) in
        [Frame::new(mac(99), mac(1)), Frame::new(mac(2), mac(1)).priority(3), Frame::new(BROADCAST, mac(1))]
            .into_iter()
            .enumerate()
    {
        stations[0].socket.send(&frame.build());
        assert!(stations[1].socket.recv(SOON).is_some(), "frame {n}");
        assert_eq!(went_around(&switch, "a"), around + n as u64 + 1);
    }
    switch.stop();
}

/// Sends a frame from the first station to the second; the number of frames that it gets.
fn who_gets_quickly(stations: &[Station], n: u32) -> usize {
    let frame = Frame::new(mac(2), mac(1)).number(n).build();
    stations[0].socket.send(&frame);
    usize::from(stations[1].socket.recv(SOON).as_ref() == Some(&frame))
}

#[test]
fn a_port_that_somebody_looks_at_leaves_the_kernel_before_the_command_returns() {
    if !ready() {
        return;
    }
    let site = Site::new("fpl");
    let containers = containers(&["a", "b"]);
    let span = "[ports.span]\ntype = \"tap\"\ninterface = \"span0\"\nmirror_only = true\n";
    let switch = Labswd::start(&site, &(config("", &containers) + span));
    let stations = stations(&switch, containers);
    introduce(&stations);
    let mut n = 0;
    let mut passes = |around: u64, what: &str| {
        let before = went_around(&switch, "a");
        n += 1;
        assert_eq!(who_gets_quickly(&stations, n), 1, "{what}");
        assert_eq!(went_around(&switch, "a") - before, around, "{what}");
    };
    let cases: [(&[&str], &[&str]); 6] = [
        (&["mirror", "set", "m", "--source", "b:tx", "--to", "span"], &["mirror", "del", "m"]),
        (&["mirror", "set", "m", "--source", "*", "--vlan", "10", "--to", "span"], &["mirror", "del", "m"]),
        (&["impair", "set", "b", "--delay", "1ms"], &["impair", "clear", "b"]),
        (&["port", "set", "a", "macs=[\"02:00:00:00:00:01\"]"], &["port", "set", "a", "macs=[]"]),
        (&["port", "set", "b", "finish_checksums=true"], &["port", "set", "b", "finish_checksums=false"]),
        (&["port", "set", "b", "isolated=true"], &["port", "set", "b", "isolated=false"]),
    ];
    for (on, off) in cases {
        passes(0, "before");
        switch.ctl(on);
        passes(1, &on.join(" "));
        switch.ctl(off);
        passes(0, &off.join(" "));
    }
    // A capture, until it ends.
    let file = site.dir().join("a.pcapng");
    let mut capture = site.ns.command(&find_binary("labsw-ctl").unwrap().to_string_lossy());
    capture.arg("--socket").arg(site.control_socket()).args(["capture", "b", "--count", "1", "-w"]).arg(&file);
    let mut capture = capture.spawn().unwrap();
    wait_for("the capture", SOON, || (switch.port("b")["fast_path"] != "on").then_some(()));
    passes(1, "capture");
    assert!(capture.wait().unwrap().success());
    wait_for("the end of the capture", SOON, || (switch.port("b")["fast_path"] == "on").then_some(()));
    passes(0, "after the capture");
    switch.stop();
}

#[test]
fn frames_in_the_kernel_keep_addresses_young_and_silence_ages_them() {
    if !ready() {
        return;
    }
    let site = Site::new("fpa");
    let containers = containers(&["a", "b"]);
    let switch = Labswd::start(&site, &config("mac_ageing = \"3s\"", &containers));
    let stations = stations(&switch, containers);
    introduce(&stations);
    let around = went_around(&switch, "a");
    let begin = Instant::now();
    for n in 0.. {
        assert_eq!(who_gets_quickly(&stations, n), 1);
        let back = Frame::new(mac(1), mac(2)).number(n).build();
        stations[1].socket.send(&back);
        assert_eq!(stations[0].socket.recv(SOON), Some(back));
        if begin.elapsed() > Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(QUIET / 2);
    }
    let ages = || switch.ctl(&["fdb", "list"]).as_array().unwrap().len();
    assert_eq!((went_around(&switch, "a") - around, ages()), (0, 2), "longer than the ageing time, in the kernel");
    wait_for("the addresses to age", SOON, || (ages() == 0).then_some(()));
    assert_eq!(who_gets_quickly(&stations, 1), 1);
    assert_eq!(went_around(&switch, "a") - around, 1, "unknown again, it is flooded by the switch");
    switch.stop();
}

#[test]
fn moves_flushes_and_ports_that_go_down_hold_for_the_next_frame() {
    if !ready() {
        return;
    }
    let site = Site::new("fpm");
    let containers = containers(&["a", "b", "c"]);
    let mut switch = Labswd::start(&site, &config("", &containers));
    let stations = stations(&switch, containers);
    introduce(&stations);
    assert_eq!(who_gets(&stations, mac(2), 1), ["b"]);
    // The address moves.
    stations[2].socket.send(&Frame::new(BROADCAST, mac(2)).build());
    stations[1].socket.recv_matching(SOON, |frame| frame[..6] == BROADCAST).unwrap();
    assert_eq!(who_gets(&stations, mac(2), 2), ["c"]);
    switch.ctl(&["fdb", "flush"]);
    assert_eq!(who_gets(&stations, mac(2), 3), ["b", "c"], "unknown again");
    introduce(&stations);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:02", "--vlan", "10", "--port", "c"]);
    assert_eq!(who_gets(&stations, mac(2), 4), ["c"]);
    switch.ctl(&["fdb", "del", "02:00:00:00:00:02", "--vlan", "10"]);
    introduce(&stations);
    switch.ctl(&["port", "down", "b"]);
    assert!(who_gets(&stations, mac(2), 5).iter().all(|name| *name != "b"));
    switch.ctl(&["port", "up", "b"]);
    switch.wait_port_up("b");
    introduce(&stations);
    assert_eq!(who_gets(&stations, mac(2), 6), ["b"]);
    switch.ctl(&["port", "set", "b", "vlan.tag=20"]);
    assert_eq!(who_gets(&stations, mac(2), 7), ["c"], "unknown in this VLAN");
    switch.ctl(&["port", "set", "b", "vlan.tag=10"]);
    introduce(&stations);

    // The programs go with the switch; the pairs stay and are taken over.
    switch.kill9();
    let gone = |name: &str| !site.ns.link_names().iter().any(|link| link == name);
    wait_for("the TAP interfaces to go", SOON, || (gone("lst-a") && gone("lst-b")).then_some(()));
    assert_eq!(who_gets(&stations, mac(2), 8), [""; 0], "nothing passes without the switch");
    switch.restart();
    for station in &stations {
        switch.wait_port_up(station.name);
        drop(station.socket.recv_all(QUIET / 10));
    }
    introduce(&stations);
    assert_eq!(who_gets(&stations, mac(2), 9), ["b"]);
    assert!(stations.iter().all(|station| station.ns.link_names().contains(&"eth0".to_owned())));
    switch.stop();
}

/// A switch with stations, and all that they got.
struct Lab<'a> {
    switch: Labswd<'a>,
    stations: Vec<Station>,
    span: RawSocket,
    got: Vec<Vec<Vec<u8>>>,
}

/// Sent behind every frame, from the same port: who has it has everything before it.
fn end_of(n: u32, station: u8) -> Vec<u8> {
    Frame::new(BROADCAST, mac(100 + station)).number(n).build()
}

impl<'a> Lab<'a> {
    fn new(site: &'a Site, settings: &str) -> Lab<'a> {
        let containers = containers(&["a", "b", "c", "d"]);
        let span = "[ports.span]\ntype = \"tap\"\ninterface = \"span0\"\nmirror_only = true\n";
        let switch = Labswd::start(site, &(config(settings, &containers) + span));
        let stations = stations(&switch, containers);
        let span = RawSocket::open(&site.ns, "span0");
        Lab { switch, got: vec![Vec::new(); stations.len()], stations, span }
    }

    /// Sends a frame from a station and waits until every other one has what it gets of it. Two isolated stations do
    /// not hear each other.
    fn send(&mut self, n: u32, from: usize, frame: &[u8], isolated: [bool; 4]) {
        self.stations[from].socket.send(frame);
        let end = end_of(n, u8::try_from(from).unwrap());
        self.stations[from].socket.send(&end);
        for (at, station) in self.stations.iter().enumerate() {
            if at == from || (isolated[at] && isolated[from]) {
                continue;
            }
            loop {
                let got = station.socket.recv(SOON).unwrap_or_else(|| panic!("frame {n} at {}", station.name));
                if got == end {
                    break;
                }
                self.got[at].push(got);
            }
        }
    }

    fn counters(&self) -> Value {
        let mut stats = self.switch.ctl(&["stats"]);
        for port in stats.as_array_mut().unwrap() {
            port.as_object_mut().unwrap().remove("kernel");
        }
        stats
    }
}

/// A change that a person might make, as arguments of `labsw-ctl`.
fn random_change(pick: &mut impl FnMut(u64) -> u64, isolated: &mut [bool; 4]) -> Vec<String> {
    let port = ["a", "b", "c", "d"][usize::try_from(pick(4)).unwrap()];
    let text = address(pick(6)).map(|byte| format!("{byte:02x}")).join(":");
    match pick(9) {
        0 => vec!["fdb".into(), "flush".into()],
        1 => ["fdb", "add", &text, "--vlan", "10", "--port", port].map(str::to_owned).into(),
        2 => ["mirror", "set", "m", "--source", port, "--to", "span"].map(str::to_owned).into(),
        3 | 4 => ["mirror", "del", "m"].map(str::to_owned).into(),
        5 | 6 => ["fdb", "del", &text, "--vlan", "10"].map(str::to_owned).into(),
        _ => {
            let at = usize::from(port.as_bytes()[0] - b'a');
            isolated[at] = !isolated[at] && pick(2) == 0;
            vec!["port".into(), "set".into(), port.into(), format!("isolated={}", isolated[at])]
        }
    }
}

fn address(n: u64) -> Mac {
    mac(u8::try_from(n).unwrap() + 1)
}

#[test]
fn random_frames_and_changes_end_the_same_with_and_without() {
    if !ready() {
        return;
    }
    let sites = [Site::new("fpw"), Site::new("fpo")];
    let mut labs = [Lab::new(&sites[0], ""), Lab::new(&sites[1], "accelerate = \"off\"")];
    for lab in &labs {
        lab.switch.ctl(&["port", "set", "b", "mtu=1000"]);
    }
    let mut random = 0x5eed_u64;
    let mut pick = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut isolated = [false; 4];
    let frames = if std::env::var_os("LABSW_LONG").is_some() { 200_000 } else { 1500 };
    for n in 0..frames {
        if pick(60) == 0 {
            let change = random_change(&mut pick, &mut isolated);
            let change: Vec<&str> = change.iter().map(String::as_str).collect();
            // What is not there can't be deleted; both say so.
            let answers = labs.each_ref().map(|lab| lab.switch.ctl_output(&change).0);
            assert_eq!(answers[0], answers[1], "{change:?}");
        }
        let from = usize::try_from(pick(4)).unwrap();
        // A station at a port sends no more than its MTU.
        let most = if from == 1 { 1000 } else { 1500 };
        let bytes = 46 + usize::try_from(pick(most - 45)).unwrap();
        // Mostly a station's own address; addresses that several have move.
        let src = if pick(16) == 0 { pick(6) } else { from as u64 };
        let frame = Frame::new(address(pick(6)), address(src)).payload(&vec![0; bytes]).number(n);
        let frame = match pick(8) {
            0 => frame.priority(3),
            1 => frame.vlan(10),
            _ => frame,
        };
        for lab in &mut labs {
            lab.send(n, from, &frame.build(), isolated);
        }
    }
    let [with, without] = labs;
    let around = [&with, &without].map(|lab| ["a", "b", "c", "d"].map(|port| went_around(&lab.switch, port)));
    let [sum, of] = around.map(|ports| ports.iter().sum::<u64>());
    assert!(sum + u64::from(frames) / 20 < of, "a twentieth passes in the kernel: {around:?}");
    assert_eq!(with.counters(), without.counters());
    for (at, station) in with.stations.iter().enumerate() {
        assert_eq!(with.got[at].len(), without.got[at].len(), "{}", station.name);
        assert!(with.got[at] == without.got[at], "{}", station.name);
    }
    let copies = [&with, &without].map(|lab| lab.span.recv_all(QUIET));
    assert!(copies[0] == copies[1], "{} and {} copies", copies[0].len(), copies[1].len());
    with.switch.stop();
    without.switch.stop();
}
