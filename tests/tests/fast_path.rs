//! Proves the kernel fast path: known unicast between containers' ports with `offloads` does not leave the kernel and
//! counts as ever; whoever looks at a port, or limits it, sees its frames from the moment the command returns; moves,
//! flushes and ports that go down hold for the next frame; tags are edited; over random frames and changes every port
//! gets what it gets without the fast path, and all counters are equal; nothing passes after `kill -9`, and a new
//! process takes over without a frame lost or doubled.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test reports by panicking")]

use std::time::{Duration, Instant};

use labsw_control::takeover::Message;
use labsw_tests::netns::Netns;
use labsw_tests::numbered::{Sorted, Stream};
use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};
use labsw_tests::take_over::{as_far_as_the_state, report, take_overs};
use serde_json::Value;

#[path = "fast_path/random.rs"]
mod random;

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

/// The ports of a switch with these names, in VLAN 10: `t` as a trunk.
fn config(switch: &str, containers: &[(&'static str, Netns)]) -> String {
    let port = |(name, ns): &(&str, Netns)| {
        let ns = ns.name();
        let vlan = if *name == "t" { "mode = \"trunk\", trunks = [\"8-12\"]" } else { "mode = \"access\", tag = 10" };
        format!(
            "[ports.{name}]\ntype = \"veth\"\noffloads = true\npeer = \"{name}0\"\nnetns = \"{ns}\"\n\
             peer_name = \"eth0\"\nvlan = {{ {vlan} }}\n"
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
    sent_by(switch, &format!("lst-{port}"))
}

/// Frames that an interface of the switch's has sent.
fn sent_by(switch: &Labswd<'_>, interface: &str) -> u64 {
    show_link(&switch.site().ns, interface)["stats64"]["tx"]["packets"].as_u64().unwrap()
}

fn show_link(ns: &Netns, interface: &str) -> Value {
    let links = ns.run(&["ip", "-s", "-j", "link", "show", interface]);
    serde_json::from_str::<Value>(&links).unwrap()[0].clone()
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
fn frames_to_a_containers_own_address_go_straight_into_its_receive_path() {
    if !ready() {
        return;
    }
    let site = Site::new("fps");
    let containers = containers(&["a", "b"]);
    let switch = Labswd::start(&site, &config("", &containers));
    let stations = stations(&switch, containers);
    let [a, b] = [&stations[0], &stations[1]];
    let own = |station: &Station| {
        let text = show_link(&station.ns, "eth0")["address"].as_str().unwrap().to_owned();
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        Mac::try_from(bytes).unwrap()
    };
    // How many frames of ten take the way through the switch, and how many the long way into b.
    let to_b = |dst: Mac| {
        b.socket.send(&Frame::new(BROADCAST, dst).build());
        a.socket.recv_matching(SOON, |frame| frame[6..12] == dst).unwrap();
        a.socket.send(&Frame::new(BROADCAST, mac(1)).build());
        b.socket.recv_matching(SOON, |frame| frame[6..12] == mac(1)).unwrap();
        let (before, frames) = (own(b), switch.counter("b", "tx_frames"));
        let (around, long) = (went_around(&switch, "a"), sent_by(&switch, "lsw-b"));
        for n in 0..10 {
            let frame = Frame::new(dst, mac(1)).number(n).build();
            a.socket.send(&frame);
            assert_eq!(b.socket.recv(SOON), Some(frame));
        }
        assert_eq!((switch.counter("b", "tx_frames"), own(b)), (frames + 10, before));
        (went_around(&switch, "a") - around, sent_by(&switch, "lsw-b") - long)
    };
    assert_eq!(to_b(own(b)), (0, 0));
    assert_eq!(to_b(mac(2)), (0, 10), "for another station behind it, which its own address is not");
    // The container's IP takes frames from there, and answers.
    for (station, address) in [(a, "10.9.0.1/24"), (b, "10.9.0.2/24")] {
        station.ns.run(&["ip", "address", "add", address, "dev", "eth0"]);
    }
    a.ns.run(&["ping", "-q", "-c", "1", "-w", "10", "10.9.0.2"]);
    let long = sent_by(&switch, "lsw-b");
    a.ns.run(&["ping", "-q", "-c", "10", "-i", "0.01", "-w", "10", "10.9.0.2"]);
    assert_eq!(sent_by(&switch, "lsw-b"), long);
    // Another address: found out about with the next change of any link.
    b.ns.run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"]);
    assert_eq!(to_b(own(b)), (0, 10));
    // While the programs are told, frames take the way through the switch.
    site.ns.run(&["ip", "link", "set", "lo", "mtu", "60000"]);
    wait_for("the new address", SOON, || (to_b(own(b)) == (0, 0)).then_some(()));
    switch.stop();
}

#[test]
fn tags_are_kept_pushed_and_popped_in_the_kernel() {
    if !ready() {
        return;
    }
    let site = Site::new("fpt");
    let containers = containers(&["a", "b", "t"]);
    let switch = Labswd::start(&site, &config("", &containers));
    switch.ctl(&["port", "set", "b", "vlan.mode=native-untagged", "vlan.tag=9", "vlan.trunks=[\"8-12\"]"]);
    let stations = stations(&switch, containers);
    let frame = |dst: u8, src: u8| Frame::new(if dst == 0 { BROADCAST } else { mac(dst) }, mac(src));
    let [a, b, t] = [0, 1, 2].map(|at| (&stations[at].socket, stations[at].name));
    // Each sends in VLAN 10: a untagged, the others tagged.
    for (n, from) in [(1, &a), (2, &b), (3, &t)] {
        from.0.send(&if n == 1 { frame(0, n) } else { frame(0, n).vlan(10) }.build());
        for other in [&a, &b, &t].into_iter().filter(|other| other.1 != from.1) {
            other.0.recv_matching(SOON, |frame| frame[6..12] == mac(n)).unwrap();
        }
    }
    let bytes = |port: &str| (switch.counter(port, "rx_bytes"), switch.counter(port, "tx_bytes"));
    let cases = [
        ("pushed", &a, frame(3, 1), &t, frame(3, 1).vlan(10)),
        ("popped, with its priority", &t, frame(1, 3).tag(0x8100, 5 << 13 | 10), &a, frame(1, 3)),
        (
            "kept, with its priority",
            &t,
            frame(2, 3).tag(0x8100, 5 << 13 | 10),
            &b,
            frame(2, 3).tag(0x8100, 5 << 13 | 10),
        ),
    ];
    for (what, from, sent, to, got) in cases {
        let (around, rx, tx) = (went_around(&switch, from.1), bytes(from.1).0, bytes(to.1).1);
        let (sent, got) = (sent.build(), got.build());
        from.0.send(&sent);
        assert_eq!(to.0.recv(SOON).as_ref(), Some(&got), "{what}");
        assert_eq!(went_around(&switch, from.1), around, "{what}");
        let counted = (bytes(from.1).0 - rx, bytes(to.1).1 - tx);
        assert_eq!(counted, (sent.len() as u64, got.len() as u64), "{what}");
    }
    // The switch looks at two tags itself, and at VLANs that a port is not in.
    for frame in [frame(2, 3).vlan(10).vlan(20), frame(2, 3).vlan(13), frame(2, 3), frame(2, 3).tag(0x88a8, 10)] {
        let around = went_around(&switch, "t");
        t.0.send(&frame.build());
        wait_for("the switch", SOON, || (went_around(&switch, "t") == around + 1).then_some(()));
    }
    let trace =
        switch.ctl(&["trace", "--in", "t", "--src", "02:00:00:00:00:03", "--dst", "02:00:00:00:00:01", "--vlan", "10"]);
    assert!(trace["steps"].as_array().unwrap().iter().any(|step| step["stage"] == "fast_path"), "{trace}");
    // A VLAN that copies go to leaves the kernel, the other ones stay.
    switch.ctl(&["mirror", "set", "m", "--source", "b:tx", "--to-vlan", "12"]);
    assert_eq!(switch.port("t")["fast_path"], "on");
    switch.stop();
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

#[test]
fn a_new_process_takes_over_and_no_frame_is_lost() {
    if !ready() {
        return;
    }
    let site = Site::new("fpt");
    let containers = containers(&["a", "b"]);
    let mut switch = Labswd::start(&site, &config("", &containers));
    let mut stations = stations(&switch, containers);
    introduce(&stations);
    let (end, mut from) = (stations.pop().unwrap(), stations.pop().unwrap());
    let (mut to, ns) = (Sorted::of(end.socket), [from.ns, end.ns]);
    let is_on = |switch: &Labswd<'_>| {
        let on = || ["a", "b"].iter().all(|name| switch.port(name)["fast_path"] == "on").then_some(());
        wait_for("the fast path", SOON, on);
    };
    let counted = |switch: &Labswd<'_>| [switch.counter("a", "rx_frames"), switch.counter("b", "tx_frames")];
    let before = counted(&switch);
    let (mut stream, mut gaps, mut still) = (Stream::default(), Vec::new(), Vec::new());
    // One that fails, with all gates shut, leaves the old process as it was.
    let channel = as_far_as_the_state(&site).unwrap();
    channel.send(&Message::Ready, &[]).unwrap();
    assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
    drop(channel);
    wait_for("its end", SOON, || switch.log().contains("this switch goes on").then_some(()));
    is_on(&switch);
    let around = went_around(&switch, "a");
    stream.during(&mut from.socket, &mut to, || std::thread::sleep(QUIET));
    assert_eq!(went_around(&switch, "a"), around, "all of them passed in the kernel");
    for _ in 0..take_overs() {
        let passed = stream.during(&mut from.socket, &mut to, || {
            is_on(&switch);
            still.push(switch.take_over());
            is_on(&switch);
        });
        gaps.push(passed.longest);
    }
    let (around, sent) = (went_around(&switch, "a"), stream.sent);
    stream.during(&mut from.socket, &mut to, || std::thread::sleep(QUIET));
    assert!(stream.sent > sent);
    assert_eq!(went_around(&switch, "a"), around, "all of them passed in the kernel");
    assert_eq!(counted(&switch), before.map(|count| count + stream.sent));
    report("containers whose frames pass in the kernel", [gaps, still], stream.received);
    // Nothing is left of any of the processes.
    switch.stop();
    assert!(!site.ns.link_names().iter().any(|name| name.starts_with("ls")));
    assert!(!ns.iter().any(|ns| ns.link_names().contains(&"eth0".to_owned())));
}
