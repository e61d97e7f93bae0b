//! Proves that frames larger than a chunk of packet memory pass whole: an MTU of 9000 between containers, and between a
//! container and a guest, by ping without fragments and by TCP; and that what is larger is dropped under its reason.

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::iperf;
use labsw_tests::netns::{Netns, wire};
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab};

const SECOND: Duration = Duration::from_secs(1);

fn port(name: &str, ns: &Netns, mtu: u32) -> String {
    let ns = ns.name();
    format!(
        "[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{ns}\"\npeer_name = \"eth0\"\nmtu = {mtu}\n"
    )
}

/// Runs iperf3 to `server`, forth and back, and gives the rates in Mbit/s.
fn iperf(server: &Netns, address: &str, client: impl FnMut(&str) -> String) -> [f64; 2] {
    iperf::forth_and_back(server, address, "", client).map(|report| {
        assert!(report.segment_size() > 8000, "segments of jumbo size: {report:?}");
        report.mbit_received()
    })
}

#[test]
fn between_containers_and_a_trunk() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("iperf3"), Need::Program("ping")]) {
        return;
    }
    let (site, a, b, gateway) = (Site::new("jumbo"), Netns::new("a"), Netns::new("b"), Netns::new("gw"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    // The trunk's own MTU is raised by the switch; its far end is the gateway's.
    let trunk = "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\nmtu = 9000\n";
    let switch = Labswd::start(&site, &(port("a", &a, 9000) + &port("b", &b, 9000) + trunk));
    gateway.ip(&["link", "set", "g0", "mtu", "9000"]);
    a.address("eth0", "10.1.0.1/24");
    b.address("eth0", "10.1.0.2/24");
    gateway.address("g0", "10.1.0.3/24");
    switch.wait_port_up("up");
    for address in ["10.1.0.2", "10.1.0.3"] {
        a.run(&["ping", "-s", "8972", "-M", "do", "-c", "20", "-i", "0.05", "-W", "5", address]);
    }
    let rates = iperf(&b, "10.1.0.2", |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        process::output(a.command(words[0]).args(&words[1..])).1
    });
    println!("container to container, MTU 9000: {rates:.0?} Mbit/s");
    assert!(rates.iter().all(|rate| *rate > 50.0), "{rates:?}");
    // A container that takes less: dropped towards it, counted there.
    let c = Netns::new("c");
    let netns = format!("netns={}", c.name());
    switch.ctl(&["port", "add", "c", "--type", "veth", "--set", "peer=ls-c", "--set", &netns, "--set", "mtu=5000"]);
    let (near, far) = (RawSocket::open(&a, "eth0"), RawSocket::open(&c, "ls-c"));
    let small = Frame::new(BROADCAST, mac(1)).payload(&[5; 5000]).build();
    let large = Frame::new(BROADCAST, mac(1)).payload(&[5; 5001]).build();
    near.send(&large);
    near.send(&small);
    assert!(far.recv_matching(5 * SECOND, |frame| frame == small).is_some());
    assert_eq!(switch.drops("c", "oversize"), 1);
    let refused =
        switch.ctl_refused(&["port", "add", "d", "--type", "veth", "--set", "peer=ls-d", "--set", "mtu=9217"]);
    assert!(refused.contains("68 to 9216"), "{refused}");
    switch.stop();
}

#[test]
fn between_a_container_and_a_guest() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, a) = (Site::new("jumbog"), Netns::new("a"));
    let config = port("a", &a, 9000) + "[ports.vm]\ntype = \"vhost_user\"\nmtu = 9000\n";
    let switch = Labswd::start(&site, &config);
    a.address("eth0", "10.1.0.1/24");
    let mut guest = Guest::boot("vm", "10.1.0.2/24", &Nic::new(switch.vhost_socket("vm"), 1));
    guest.ready();
    guest.ok("ip link set eth0 mtu 9000");
    guest.wait_ping("10.1.0.1", 20 * SECOND);
    a.run(&["ping", "-s", "8972", "-M", "do", "-c", "20", "-i", "0.05", "-W", "5", "10.1.0.2"]);
    let rates = iperf(&a, "10.1.0.1", |line| guest.run(line).1);
    println!("guest to container, MTU 9000: {rates:.0?} Mbit/s");
    assert!(rates.iter().all(|rate| *rate > 5.0), "{rates:?}");
    drop(guest);
    switch.stop();
}

/// The MTU of an interface.
fn mtu(ns: &Netns, device: &str) -> u64 {
    let link = ns.links().into_iter().find(|link| link["ifname"] == device).unwrap_or_default();
    link["mtu"].as_u64().unwrap_or(0)
}

#[test]
fn the_mtu_changes_at_run_time() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ping")]) {
        return;
    }
    let lab = Lab::new("mtu");
    let (c, gateway) = (Netns::new("c"), Netns::new("gw"));
    wire((&lab.site.ns, "b0"), (&gateway, "g0"));
    let more = port("c", &c, 1500) + "[ports.t]\ntype = \"tap\"\n[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n";
    let hybrid = "vlan = { mode = \"native-untagged\", tag = 1 }";
    let switch = lab.start("", &[("x1", hybrid), ("x2", hybrid)], &more);
    lab.peers.address("x1", "10.1.0.1/24");
    c.address("eth0", "10.1.0.2/24");
    gateway.address("g0", "10.1.0.3/24");
    let ping = |bytes: u64, address: &str| {
        let size = (bytes - 28).to_string();
        let args = ["-I", "x1", "-s", &size, "-M", "do", "-c", "10", "-i", "0.05", "-W", "2", address];
        process::output(lab.peers.command("ping").args(args)).0.success()
    };
    let set = |ports: &[&str], bytes: u64| {
        for name in ports {
            switch.ctl(&["port", "set", name, &format!("mtu={bytes}")]);
            assert_eq!(switch.port(name)["mtu"], bytes);
        }
    };
    let flow = Flow::start(&lab, "x1", "x2");
    for (bytes, wire_bytes) in [(1500, 1500), (9000, 9000), (1500, 1500), (3000, 3000), (9000, 9000), (1500, 1500)] {
        set(&["x1", "c", "t", "up"], bytes);
        gateway.ip(&["link", "set", "g0", "mtu", &bytes.to_string()]);
        let inside = [mtu(&lab.peers, "x1"), mtu(&c, "eth0")];
        let outside = ["lsw-x1", "lsw-c", "t", "b0"].map(|device| mtu(&lab.site.ns, device));
        assert_eq!((inside, outside), ([bytes; 2], [wire_bytes; 4]));
        assert!(ping(bytes, "10.1.0.2") && ping(bytes, "10.1.0.3"), "a ping of {bytes} bytes");
        assert!(!ping(bytes + 1, "10.1.0.2"), "a ping of {} bytes", bytes + 1);
    }
    // Towards a port that takes less: dropped there, and counted.
    set(&["x1"], 9000);
    let (near, far) = (RawSocket::open(&lab.peers, "x1"), RawSocket::open(&c, "eth0"));
    let [fits, large] = [1500, 1501].map(|bytes| Frame::new(BROADCAST, mac(1)).payload(&vec![5; bytes]).build());
    let before = switch.drops("c", "oversize");
    near.send(&large);
    near.send(&fits);
    assert!(far.recv_matching(5 * SECOND, |frame| frame == fits).is_some());
    assert_eq!(switch.drops("c", "oversize"), before + 1);
    // The other rules change without a loss on the port itself, too.
    for round in 0..20 {
        for name in ["x1", "x2"] {
            let change = ["mtu=1500", "mtu=9000", "link_local=drop", "vlan.trunks=[7]", "link_local=transparent"];
            switch.ctl(&["port", "set", name, change[round % change.len()]]);
        }
    }
    flow.assert_flowing("after the changes");
    let frames = flow.finish();
    assert!(frames > 500, "{frames} frames are too few to prove anything");

    more_than_a_device_takes_is_refused(&lab, &switch);
    switch.stop();
    assert_eq!(mtu(&lab.site.ns, "b0"), 1500);
}

/// More than a device takes (a macvlan, as much as what it stands on): one line, and nothing has changed.
fn more_than_a_device_takes_is_refused(lab: &Lab, switch: &Labswd<'_>) {
    lab.site.ns.ip(&["link", "add", "link", "b0", "name", "mv", "type", "macvlan"]);
    switch.ctl(&["port", "add", "mv", "--type", "af_xdp", "--set", "device=name:mv"]);
    let refused = switch.ctl_refused(&["port", "set", "mv", "mtu=9000", "vlan.tag=7"]);
    assert!(refused.contains("port \"mv\": ") && refused.contains("to 9000: "), "{refused}");
    let port = switch.port("mv");
    assert_eq!((&port["mtu"], &port["vlan"]["tag"], mtu(&lab.site.ns, "mv")), (&1500.into(), &1.into(), 1500));
    switch.ctl(&["port", "del", "mv"]);
    lab.site.ns.ip(&["link", "del", "mv"]);
}
