//! Proves the guards of ports on real ports: a rogue DHCP server gets nobody a lease while the real one does, router
//! advertisements stay where they are in whatever they are wrapped, a storm is cut to its rate while unicast passes,
//! isolated ports reach the others only, further, moved and foreign sources are dropped, and all of it is undone at run
//! time.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use labsw_tests::checksum;
use labsw_tests::netns::Netns;
use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab, receive};

const PATIENCE: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(60);

fn text(address: Mac) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// A switch and the far ends of its ports.
struct Bench<'a> {
    switch: Labswd<'a>,
    sockets: BTreeMap<&'a str, RawSocket>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab, ports: &[(&'a str, &str)]) -> Self {
        let switch = lab.start("", ports, "");
        let sockets = ports.iter().map(|(name, _)| (*name, lab.socket(name))).collect();
        Self { switch, sockets }
    }

    /// Sends a frame in at a port; it has to come out at exactly these ports.
    fn frame_passes(&self, from: &str, frame: &[u8], to: &[&str], what: &str) {
        self.sockets[from].send(frame);
        for (name, socket) in &self.sockets {
            let expected = if to.contains(name) { vec![frame.to_vec()] } else { vec![] };
            assert_eq!(receive(socket, expected.len(), PATIENCE, QUIET), expected, "{what}: at {name}");
        }
    }

    fn passes(&self, from: &str, src: Mac, dst: Mac, to: &[&str], what: &str) {
        self.frame_passes(from, &Frame::new(dst, src).build(), to, what);
    }

    fn set(&self, port: &str, settings: &[&str]) {
        self.switch.ctl(&[&["port", "set", port], settings].concat());
    }
}

#[test]
fn sources_are_limited_kept_and_pinned() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("gsr");
    let ports = [("a", "mac_limit = 2"), ("b", "sticky = true"), ("c", "")];
    let bench = Bench::new(&lab, &ports);
    let switch = &bench.switch;

    // The learning limit: drop, then alert.
    bench.passes("a", mac(1), BROADCAST, &["b", "c"], "the first");
    bench.passes("a", mac(2), BROADCAST, &["b", "c"], "the second");
    bench.passes("a", mac(3), BROADCAST, &[], "one too many");
    bench.passes("a", mac(1), BROADCAST, &["b", "c"], "the first again");
    assert_eq!((switch.drops("a", "mac_limit"), switch.fdb_port(1, &text(mac(3)))), (1, None));
    bench.set("a", &["mac_limit_action=alert"]);
    for _ in 0..3 {
        bench.passes("a", mac(3), BROADCAST, &["b", "c"], "one too many is reported");
    }
    let guards = &switch.port("a")["guards"];
    assert_eq!((&guards["mac_limit_frames"], &guards["mac_limit_last"]), (&3.into(), &text(mac(3)).into()));
    assert_eq!((switch.drops("a", "mac_limit"), switch.fdb_port(1, &text(mac(3)))), (1, None));
    wait_for("the alert", PATIENCE, || switch.log().contains("further sources than mac_limit = 2").then_some(()));
    bench.set("a", &["mac_limit=off"]);
    bench.passes("a", mac(3), BROADCAST, &["b", "c"], "no limit any more");
    assert_eq!(switch.fdb_port(1, &text(mac(3))).as_deref(), Some("a"));

    // Sticky: kept through flushes, down and up, and changes of other things; nobody else's until it is flushed.
    bench.passes("b", mac(4), BROADCAST, &["a", "c"], "at the sticky port");
    bench.passes("c", mac(4), BROADCAST, &[], "the same address elsewhere");
    switch.ctl(&["fdb", "flush"]);
    switch.ctl(&["port", "down", "b"]);
    switch.ctl(&["port", "up", "b"]);
    switch.wait_port_up("b");
    let changed = [("a", "mtu = 1400"), ("b", "sticky = true"), ("c", "isolated = true")];
    let file = lab.site.write_config(&lab.ports(&changed));
    switch.ctl(&["config", "apply", &file.to_string_lossy()]);
    let entries = switch.ctl(&["fdb", "list", "--port", "b"]);
    assert!(entries.as_array().unwrap().len() == 1 && entries[0]["sticky"] == true, "{entries}");
    bench.passes("c", mac(4), BROADCAST, &[], "after all that");
    assert_eq!(switch.drops("c", "mac_sticky"), 2);
    switch.ctl(&["fdb", "flush", "--port", "b"]);
    bench.passes("c", mac(4), BROADCAST, &["a", "b"], "after the flush");

    // Pinned.
    bench.set("c", &["isolated=false", &format!("macs=[\"{}\", \"{}\"]", text(mac(4)), text(mac(5)))]);
    bench.passes("c", mac(5), BROADCAST, &["a", "b"], "a pinned source");
    bench.passes("c", mac(6), BROADCAST, &[], "another one");
    assert_eq!((switch.drops("c", "mac_not_allowed"), switch.fdb_port(1, &text(mac(6)))), (1, None));
    bench.set("c", &["macs=[]"]);
    bench.passes("c", mac(6), BROADCAST, &["a", "b"], "nothing pinned any more");
    assert!(switch.port("c").get("guards").is_none(), "no guard is left");
    let refused = switch.ctl_refused(&["port", "set", "c", "storm.broadcast=fast"]);
    assert!(refused.contains("storm.broadcast: \"fast\" is not a rate of frames"), "{refused}");
    bench.switch.stop();
}

#[test]
fn isolated_ports_reach_the_others_only() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("gis");
    let isolated = "isolated = true";
    let bench = Bench::new(&lab, &[("a", isolated), ("b", isolated), ("up", "")]);
    bench.passes("a", mac(1), BROADCAST, &["up"], "a broadcast from an isolated port");
    bench.passes("up", mac(9), BROADCAST, &["a", "b"], "a broadcast to isolated ports");
    bench.passes("b", mac(2), mac(9), &["up"], "to the uplink");
    bench.passes("up", mac(9), mac(2), &["b"], "and back");
    bench.passes("a", mac(1), mac(2), &[], "from one to another");
    assert_eq!(bench.switch.drops("b", "isolated"), 2, "the copy of the broadcast, and the last frame");
    bench.set("a", &["isolated=false"]);
    bench.passes("a", mac(1), mac(2), &["b"], "one of them is isolated no longer");
    bench.switch.stop();
}

#[test]
fn a_storm_is_cut_to_its_rate_while_unicast_passes() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    const RATE: u64 = 200;
    const SENT: u64 = 1500;
    let lab = Lab::new("gst");
    let keys = format!("storm = {{ broadcast = \"{RATE}pps\", unknown_unicast = \"{RATE}pps\" }}");
    let bench = Bench::new(&lab, &[("a", &keys), ("b", ""), ("c", "")]);
    let flow = Flow::start(&lab, "a", "b");
    // Of the flow, c only gets the first frame.
    let (storms, floods) = (&bench.sockets["a"], &bench.sockets["c"]);
    for (dst, reason) in [(BROADCAST, "storm_broadcast"), (mac(77), "storm_unknown_unicast")] {
        let storm = Frame::new(dst, mac(1)).build();
        floods.recv_all(QUIET);
        let before = bench.switch.counter("c", "tx_frames");
        let start = Instant::now();
        for n in 0..SENT {
            storms.send(&storm);
            if n % 10 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        let passed = wait_for("all of the storm, passed or counted", PATIENCE, || {
            let passed = bench.switch.counter("c", "tx_frames") - before;
            (passed + bench.switch.drops("a", reason) == SENT).then_some(passed)
        });
        let took = start.elapsed().as_secs_f64();
        let seen = floods.recv_all(QUIET).iter().filter(|frame| **frame == storm).count();
        assert_eq!(seen as u64, passed, "what is not dropped comes out");
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let (passed, due) = (passed as f64, took * RATE as f64);
        assert!(passed <= due + 10.0 + 1.0, "{passed} frames in {took} s");
        assert!(passed >= 0.5 * due, "{passed} frames in {took} s are fewer than the rate allows");
        flow.assert_flowing("after a storm");
    }
    assert!(flow.finish() > 300, "known unicast from the same port lost nothing");
    bench.sockets.values().for_each(|socket| drop(socket.recv_all(QUIET)));
    bench.set("a", &["storm={}"]);
    bench.passes("a", mac(1), BROADCAST, &["b", "c"], "no storm control any more");
    bench.switch.stop();
}

/// A router's advertisement (RFC 4861 section 4.2) as ICMPv6 over IPv6 with these headers between.
fn advertisement(chain: &[(u8, &[u8])], message: u8) -> Vec<u8> {
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x66];
    let destination = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut icmp = vec![message, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let length = u8::try_from(icmp.len()).unwrap();
    let pseudo = [0, 0, 0, length, 0, 0, 0, 58];
    let check = !checksum::sum(&[&source, &destination, &pseudo, &icmp]);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 255];
    packet.extend(source);
    packet.extend(destination);
    let mut place = 6;
    for (number, bytes) in chain {
        packet[place] = *number;
        place = packet.len();
        packet.extend(*bytes);
        packet[place] = 58;
    }
    packet.extend(icmp);
    let payload = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

#[test]
fn router_advertisements_stay_outside() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("gra");
    let trunk = "vlan = { mode = \"native-untagged\", tag = 1 }";
    let bench = Bench::new(&lab, &[("rogue", &format!("{trunk}\nra_guard = true")), ("host", trunk), ("gw", trunk)]);
    let all_nodes: Mac = [0x33, 0x33, 0, 0, 0, 1];
    let frame = |packet: &[u8]| Frame::new(all_nodes, mac(1)).ethertype(0x86dd).payload(packet);
    let options: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let first_fragment: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 7];
    let plain = advertisement(&[], 134);
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd], &plain[..]].concat();
    let length = u16::try_from(snap.len()).unwrap();
    let mut cut = advertisement(&[(44, first_fragment), (60, options)], 134);
    cut.truncate(40 + 8 + 8);
    let refused = [
        ("plain", frame(&plain).build()),
        ("in a VLAN", frame(&plain).vlan(7).build()),
        ("priority-tagged", frame(&plain).priority(3).vlan(0).build()),
        ("behind LLC/SNAP", frame(&snap).ethertype(length).build()),
        ("behind options", frame(&advertisement(&[(0, options), (60, options)], 134)).build()),
        ("in a fragment", frame(&advertisement(&[(44, first_fragment)], 134)).build()),
        ("its header in the second fragment", frame(&cut).build()),
        ("behind a header nobody knows", frame(&advertisement(&[(200, options)], 134)).build()),
        ("a redirect", frame(&advertisement(&[], 137)).build()),
    ];
    for (number, (what, bytes)) in refused.iter().enumerate() {
        bench.frame_passes("rogue", bytes, &[], what);
        assert_eq!(bench.switch.drops("rogue", "ra_guard"), number as u64 + 1, "{what}");
    }
    bench.frame_passes("rogue", &frame(&advertisement(&[], 135)).build(), &["host", "gw"], "a neighbour solicitation");
    bench.frame_passes("gw", &frame(&plain).build(), &["host", "rogue"], "an advertisement of the gateway");
    // A real host: it believes the gateway and not the other one, then both.
    let accept = "/proc/sys/net/ipv6/conf/host";
    lab.peers.enter(|| {
        for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "2"), ("router_solicitations", "0")] {
            std::fs::write(format!("{accept}/{key}"), value).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
    });
    let routes = || lab.peers.ip(&["-6", "route", "show", "default", "dev", "host"]);
    std::thread::sleep(Duration::from_millis(200));
    bench.sockets["rogue"].send(&refused[0].1);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(routes(), "", "the guarded port's router");
    bench.set("rogue", &["ra_guard=false"]);
    wait_for("default route by an advertisement", PATIENCE, || {
        bench.sockets["rogue"].send(&refused[0].1);
        routes().contains("fe80::66").then_some(())
    });
    bench.switch.stop();
}

/// A namespace with one interface, and the DHCP server in it, if it has one.
fn dhcp_server(ns: &Netns, dir: &Path, net: u8) -> Process {
    ns.address("eth0", &format!("10.{net}.0.1/24"));
    let mut command = ns.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-"]);
    command.args(["--log-dhcp", "--no-ping", "--bind-interfaces", "--dhcp-authoritative", "--interface=eth0"]);
    command.arg(format!("--dhcp-leasefile={}", dir.join(format!("leases-{net}")).display()));
    command.arg(format!("--pid-file={}", dir.join(format!("dnsmasq-{net}.pid")).display()));
    command.arg(format!("--dhcp-range=10.{net}.0.100,10.{net}.0.150,255.255.255.0,10m"));
    let mut server = Process::spawn("dnsmasq", &mut command);
    wait_for("start of dnsmasq", PATIENCE, || {
        assert!(server.is_running(), "dnsmasq ended:\n{}", server.log());
        server.log().contains("started").then_some(())
    });
    server
}

#[test]
fn a_rogue_dhcp_server_gets_nobody_a_lease() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("dnsmasq"), Need::Program("busybox")]) {
        return;
    }
    let [real, rogue, client] = ["gdr", "gdx", "gdc"].map(Netns::new);
    let site = Site::new("gdh");
    let port = |name: &str, ns: &Netns, keys: &str| {
        let netns = ns.name();
        format!(
            "[ports.{name}]\ntype = \"veth\"\npeer = \"x-{name}\"\nnetns = \"{netns}\"\npeer_name = \"eth0\"\n{keys}\n"
        )
    };
    let config = port("real", &real, "") + &port("rogue", &rogue, "dhcp_guard = true") + &port("client", &client, "");
    let switch = Labswd::start(&site, &config);
    for name in ["real", "rogue", "client"] {
        switch.wait_port_up(name);
    }
    client.ip(&["link", "set", "eth0", "up"]);
    // What a client prints, and whether it got a lease.
    let ask = |tries: &str| -> (bool, String) {
        let mut udhcpc = Command::new("ip");
        udhcpc.args(["netns", "exec", client.name(), "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f"]);
        udhcpc.args(["-s", "/bin/true", "-T", "1", "-A", "1", "-t", tries]);
        let (status, printed) = process::output(&mut udhcpc);
        (status.success(), printed)
    };
    let _rogue_server = dhcp_server(&rogue, site.dir(), 66);
    let (leased, printed) = ask("2");
    assert!(!leased, "a lease from the rogue server: {printed}");
    assert!(switch.drops("rogue", "dhcp_guard") >= 2, "its offers are counted");
    let _real_server = dhcp_server(&real, site.dir(), 9);
    let (leased, printed) = ask("5");
    assert!(leased && printed.contains("10.9.0."), "the real server's lease: {printed}");
    // The rogue one is in order otherwise: clients would have believed it.
    switch.ctl(&["port", "set", "rogue", "dhcp_guard=false"]);
    switch.ctl(&["port", "set", "real", "dhcp_guard=true"]);
    let (leased, printed) = ask("5");
    assert!(leased && printed.contains("10.66.0."), "without the guard: {printed}");
    switch.stop();
}
