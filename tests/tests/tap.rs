//! Proves TAP ports: the host's own interface on the lab (ping and TCP to a container and to a guest, in its VLAN only,
//! with one queue and several), interfaces that QEMU opens as an unprivileged user (an e1000e that boots over the
//! network, a virtio guest with TCP), and what becomes of a port whose interface goes down, away, and comes back.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::iperf;
use labsw_tests::netns::Netns;
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
/// Mbit/s: far below what a busy machine reaches; a stalled TCP gets near 0.
const HOST_FLOOR: f64 = 50.0;
/// The guest's CPU is emulated.
const GUEST_FLOOR: f64 = 3.0;

fn needs(more: &[Need]) -> bool {
    require::all(&[&[Need::Root, Need::Labswd], more].concat())
}

fn veth(name: &str, ns: &Netns, vlan: u16) -> String {
    format!(
        "[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n{}",
        ns.name(),
        access(vlan)
    )
}

fn access(vlan: u16) -> String {
    format!("vlan = {{ mode = \"access\", tag = {vlan} }}\n")
}

fn pings(ns: &Netns, address: &str) -> bool {
    ns.try_run(&["ping", "-c", "1", "-W", "1", address]).0.success()
}

fn wait_ping(ns: &Netns, address: &str) {
    wait_for(&format!("answer from {address}"), PATIENCE, || pings(ns, address).then_some(()));
}

/// TCP from `client` to a server in `server`, forth and back; `more` are further options.
fn tcp(server: &Netns, address: &str, more: &str, floor: f64, client: impl FnMut(&str) -> String) {
    for report in iperf::forth_and_back(server, address, more, client) {
        let rate = report.mbit_received();
        assert!(rate > floor, "{rate} Mbit/s, at least {floor} wanted: {report:?}");
    }
}

fn tcp_between(client: &Netns, server: &Netns, address: &str, more: &str) {
    tcp(server, address, more, HOST_FLOOR, |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        client.try_run(&words).1
    });
}

#[test]
fn the_host_reaches_its_vlan_and_no_other() {
    if !needs(&[Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, same, other) = (Site::new("taph"), Netns::new("same"), Netns::new("other"));
    let config = format!(
        "[ports.host]\ntype = \"tap\"\ninterface = \"lab\"\nmac = \"02:00:00:00:07:01\"\n{}{}{}[ports.vm]\ntype = \"vhost_user\"\n{}",
        access(10),
        veth("same", &same, 10),
        veth("other", &other, 20),
        access(10)
    );
    let switch = Labswd::start(&site, &config);
    let mut guest = Guest::boot("vm", "10.1.0.3/24", &Nic::new(switch.vhost_socket("vm"), 1));
    switch.wait_port_up("host");
    let port = switch.port("host");
    assert_eq!((&port["type"], &port["interface"]), (&"tap".into(), &"lab".into()));
    assert_eq!((&port["queues"], &port["role"]), (&1.into(), &"host".into()));
    let link = &site.ns.links().into_iter().find(|link| link["ifname"] == "lab").unwrap();
    assert_eq!(link["address"], "02:00:00:00:07:01");
    assert_eq!(link["addr_info"], serde_json::Value::Null, "an address is the host's business");

    site.ns.ip(&["addr", "add", "10.1.0.1/24", "dev", "lab"]);
    same.address("eth0", "10.1.0.2/24");
    other.address("eth0", "10.1.0.4/24");
    wait_ping(&site.ns, "10.1.0.2");
    assert!(!pings(&site.ns, "10.1.0.4") && !pings(&other, "10.1.0.1"), "VLAN 20 is not VLAN 10");
    tcp_between(&site.ns, &same, "10.1.0.2", "");

    guest.ready();
    guest.wait_ping("10.1.0.1", PATIENCE);
    tcp(&site.ns, "10.1.0.1", "", GUEST_FLOOR, |line| guest.run(line).1);
    assert!(switch.counter("vm", "rx_frames") > 1000, "TCP went through the switch");
    assert_eq!(switch.drops("host", "bad_offload"), 0);
    drop(guest);
    switch.stop();
}

#[test]
fn several_queues_serve_several_workers() {
    if !needs(&[Need::Program("iperf3")]) {
        return;
    }
    let (site, box_ns) = (Site::new("tapq"), Netns::new("box"));
    let tap = "[ports.lab]\ntype = \"tap\"\nqueues = 4\n".to_owned() + &access(10);
    let switch = Labswd::start(&site, &format!("workers = [0, 1]\n{tap}{}", veth("box", &box_ns, 10)));
    assert_eq!(switch.port("lab")["queues"], 4);
    site.ns.ip(&["addr", "add", "10.1.0.1/24", "dev", "lab"]);
    box_ns.address("eth0", "10.1.0.2/24");
    wait_ping(&site.ns, "10.1.0.2");
    tcp_between(&site.ns, &box_ns, "10.1.0.2", "-P 4");
    let workers = switch.ctl(&["worker", "list"]);
    let with_lab = |worker: &serde_json::Value| worker["queues"].to_string().contains("\"lab\"");
    assert!(workers.as_array().unwrap().iter().all(with_lab), "{workers}");
    switch.stop();
}

#[test]
fn an_interface_that_goes_comes_back_and_no_other_port_notices() {
    if !needs(&[]) {
        return;
    }
    let lab = Lab::new("tapd");
    let (ns, log_has) = (&lab.site.ns, |switch: &Labswd<'_>, text: &str| switch.log().contains(text));
    ns.ip(&["tuntap", "add", "theirs", "mode", "tap", "multi_queue"]);
    let taps = "[ports.ours]\ntype = \"tap\"\n[ports.att]\ntype = \"tap\"\ninterface = \"theirs\"\nqueues = 2\n";
    let switch = lab.start("", &[("a", ""), ("b", "")], taps);
    switch.wait_port_up("ours");
    switch.wait_port_up("att");
    let flow = Flow::start(&lab, "a", "b");

    // Down is the host's wish.
    ns.ip(&["link", "set", "ours", "down"]);
    switch.wait_port("ours", "down", PATIENCE);
    assert_eq!(switch.port("ours")["reason"], "ours is set down");
    lab.socket("a").send(&Frame::new(BROADCAST, mac(9)).build());
    wait_for("a drop", PATIENCE, || (switch.drops("ours", "not_connected") > 0).then_some(()));
    ns.ip(&["link", "set", "ours", "up"]);
    switch.wait_port_up("ours");

    // Ours is created again.
    ns.ip(&["link", "del", "ours"]);
    wait_for("the interface again", PATIENCE, || ns.link_names().contains(&"ours".to_owned()).then_some(()));
    switch.wait_port_up("ours");
    assert!(log_has(&switch, "ours was removed"));
    let (host, peer) = (RawSocket::open(ns, "ours"), lab.socket("a"));
    let frame = Frame::new(BROADCAST, mac(8)).build();
    host.send(&frame);
    assert!(peer.recv_matching(5 * SECOND, |seen| seen == frame).is_some(), "the new one works");

    // Theirs is waited for.
    ns.ip(&["link", "del", "theirs"]);
    switch.wait_port("att", "waiting", PATIENCE);
    assert_eq!(switch.port("att")["reason"], "theirs was removed");
    flow.assert_flowing("while an interface is gone");
    std::thread::sleep(2 * SECOND);
    assert_eq!(switch.port_state("att"), "waiting", "it was not ours to make");
    ns.ip(&["tuntap", "add", "theirs", "mode", "tap", "multi_queue"]);
    switch.wait_port_up("att");
    let host = RawSocket::open(ns, "theirs");
    host.send(&frame);
    assert!(peer.recv_matching(5 * SECOND, |seen| seen == frame).is_some(), "and it works");
    assert!(flow.finish() > 0);
    // It is there after the switch.
    switch.stop();
    assert_eq!(ns.link_names(), ["theirs"]);
}

/// The index of an interface.
fn index(ns: &Netns, name: &str) -> Option<u64> {
    ns.links().iter().find(|link| link["ifname"] == name).and_then(|link| link["ifindex"].as_u64())
}

#[test]
fn a_guests_interface_that_goes_is_made_anew() {
    if !needs(&[]) {
        return;
    }
    let site = Site::new("tapg");
    let config = "[ports.vm]\ntype = \"tap\"\ninterface = \"vm0\"\nfor = \"guest\"\nowner = \"nobody\"\n";
    let switch = Labswd::start(&site, config);
    let first = index(&site.ns, "vm0").unwrap();
    switch.ctl(&["worker", "pin", "vm", "0", "0"]);
    site.ns.ip(&["link", "del", "vm0"]);
    let second = wait_for("another vm0", PATIENCE, || index(&site.ns, "vm0").filter(|index| *index != first));
    switch.wait_port("vm", "down", PATIENCE);
    assert!(switch.port("vm")["reason"].as_str().unwrap().contains("no program has opened it"));
    assert!(switch.log().contains("vm0 was removed"), "{}", switch.log());
    assert!(site.ns.ip(&["tuntap", "list"]).contains("user 65534"), "it is its owner's");
    assert_eq!(switch.ctl(&["worker", "list"])[0]["queues"][0]["pinned"], true, "pins stay");

    // Under another name it is the same interface, and goes with the port.
    site.ns.ip(&["link", "set", "vm0", "down"]);
    site.ns.ip(&["link", "set", "vm0", "name", "vm1"]);
    site.ns.ip(&["link", "set", "vm1", "up"]);
    wait_for("the new name", PATIENCE, || (switch.port("vm")["interface"] == "vm1").then_some(()));
    assert_eq!(index(&site.ns, "vm1"), Some(second));
    switch.ctl(&["port", "del", "vm"]);
    assert_eq!(site.ns.link_names(), Vec::<String>::new());
    switch.stop();
}

/// The words of `port add`.
fn add<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["port", "add", name, "--type", "tap"], more].concat()
}

#[test]
fn ports_come_and_go_at_run_time_with_their_mtu() {
    if !needs(&[]) {
        return;
    }
    let lab = Lab::new("tapr");
    let ns = &lab.site.ns;
    let switch = lab.start("protected_interfaces = [\"mine\"]", &[("a", "")], "");
    switch.ctl(&add("t", &["--set", "mtu=1000", "--set", "vlan.mode=access", "--set", "vlan.tag=1"]));
    switch.wait_port_up("t");
    let link = ns.links().into_iter().find(|link| link["ifname"] == "t").unwrap();
    assert_eq!(link["mtu"], 1000);

    let (far, host) = (lab.socket("a"), RawSocket::open(ns, "t"));
    let sized = |bytes: usize| Frame::new(BROADCAST, mac(5)).payload(&vec![7; bytes]).build();
    far.send(&sized(1001));
    far.send(&sized(1000));
    let seen = host.recv_matching(5 * SECOND, |frame| frame[6..12] == mac(5)).unwrap();
    assert_eq!(seen, sized(1000), "the larger one is not delivered");
    assert_eq!(switch.drops("t", "oversize"), 1);

    switch.ctl(&["port", "down", "t"]);
    assert_eq!(switch.port_state("t"), "down");
    host.send(&sized(100));
    wait_for("a drop", PATIENCE, || (switch.drops("t", "port_down") > 0).then_some(()));
    switch.ctl(&["port", "up", "t"]);
    host.send(&sized(101));
    assert!(far.recv_matching(5 * SECOND, |frame| frame == sized(101)).is_some());
    switch.ctl(&["port", "set", "t", "vlan.tag=30"]);
    host.send(&sized(102));
    assert!(far.recv_matching(SECOND, |frame| frame == sized(102)).is_none(), "another VLAN now");

    let refused = switch.ctl_refused(&add("u", &["--set", "interface=t"]));
    assert!(refused.contains("already used by port t"), "{refused}");
    let refused = switch.ctl_refused(&add("mine", &[]));
    assert!(refused.contains("protected"), "{refused}");
    let refused = switch.ctl_refused(&add("u", &["--set", "interface=lo"]));
    assert!(refused.contains("lo is the loopback device"), "{refused}");
    ns.run(&["ip", "link", "add", "other", "type", "veth", "peer", "name", "end"]);
    let refused = switch.ctl_refused(&add("u", &["--set", "interface=other"]));
    assert!(refused.contains("other exists and is no TAP"), "{refused}");
    ns.run(&["ip", "link", "del", "other"]);
    let refused = switch.ctl_refused(&add("u", &["--set", "for=guest", "--set", "owner=no-such-user"]));
    assert!(refused.contains("no-such-user"), "{refused}");
    switch.ctl(&["port", "del", "t"]);
    assert_eq!(ns.link_names(), ["lsw-a"]);
    switch.stop();
}

/// A namespace with DHCP and TFTP behind a veth port.
fn boot_server(ns: &Netns, dir: &std::path::Path) -> Process {
    ns.address("eth0", "10.1.0.1/24");
    let root = dir.join("tftp");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("boot.ipxe"), "#!ipxe\nchain tftp://${next-server}/ran-on-${net0/mac:hexhyp}\n").unwrap();
    let mut command = ns.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-facility=-"]);
    command.args(["--log-dhcp", "--no-ping", "--bind-interfaces", "--interface=eth0", "--enable-tftp"]);
    command.args(["--dhcp-range=10.1.0.100,10.1.0.150,255.255.255.0,10m", "--dhcp-boot=boot.ipxe"]);
    command.arg(format!("--tftp-root={}", root.display()));
    command.arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
    command.arg(format!("--pid-file={}", dir.join("dnsmasq.pid").display()));
    Process::spawn("dnsmasq", &mut command)
}

/// A machine without a disk and with an emulated e1000e on `interface`, which boots over the network; run as `user`.
fn e1000e(ns: &Netns, interface: &str, user: &str) -> Process {
    let mut command = ns.command("setpriv");
    command.args([&format!("--reuid={user}"), "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    command.args(["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
    command.args(["-machine", "pc", "-accel", "tcg", "-m", "64M", "-boot", "n"]);
    command.args(["-netdev", &format!("tap,id=n,ifname={interface},script=no,downscript=no")]);
    command.args(["-device", "e1000e,netdev=n,mac=52:54:00:00:00:e1"]);
    Process::spawn("e1000e machine", &mut command)
}

#[test]
fn an_emulated_nic_boots_over_the_network_through_an_interface_of_its_owner() {
    if !needs(&[Need::Guest, Need::Program("dnsmasq"), Need::Program("setpriv")]) {
        return;
    }
    let (site, server, other) = (Site::new("tape"), Netns::new("pxe"), Netns::new("other"));
    let guest = "[ports.vm]\ntype = \"tap\"\ninterface = \"vm0\"\nfor = \"guest\"\nowner = \"nobody\"\n";
    let config = format!("{guest}{}{}{}", access(10), veth("pxe", &server, 10), veth("other", &other, 20));
    let mut switch = Labswd::start(&site, &config);
    switch.wait_port("vm", "down", PATIENCE);
    assert!(switch.port("vm")["reason"].as_str().unwrap().contains("no program has opened it"));
    other.ip(&["link", "set", "eth0", "up"]);
    let eavesdropper = RawSocket::open(&other, "eth0");
    let server = boot_server(&server, site.dir());

    // Only the owner may open it.
    let mut stranger = e1000e(&site.ns, "vm0", "daemon");
    assert!(!stranger.wait(PATIENCE).success());
    assert!(stranger.log().contains("Operation not permitted"), "{}", stranger.log());

    // A killed switch leaves the interface, and the next one takes it over under a machine that runs.
    let machine = e1000e(&site.ns, "vm0", "nobody");
    switch.wait_port_up("vm");
    switch.kill9();
    switch.restart();
    switch.wait_port_up("vm");
    wait_for("the boot file and what it asks for", 180 * SECOND, || {
        server.log().contains("ran-on-52-54-00-00-00-e1").then_some(())
    });
    assert!(server.log().contains("DHCPACK") && server.log().contains("sent"), "{}", server.log());
    assert_eq!(switch.fdb_port(10, "52:54:00:00:00:e1").as_deref(), Some("vm"));
    assert!(eavesdropper.recv_all(SECOND / 10).is_empty(), "VLAN 20 saw frames of VLAN 10");
    drop(machine);
    switch.wait_port("vm", "down", PATIENCE);
    // The interface goes, although an earlier run made it.
    switch.stop();
}

#[test]
fn a_guest_on_an_interface_of_the_switch_has_tcp() {
    if !needs(&[Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, peer) = (Site::new("tapv"), Netns::new("peer"));
    let guest = "[ports.vm]\ntype = \"tap\"\ninterface = \"vm0\"\nfor = \"guest\"\n";
    let switch = Labswd::start(&site, &format!("{guest}{}{}", access(10), veth("peer", &peer, 10)));
    // The host has an address in the same network on that interface: it must not answer.
    site.ns.ip(&["addr", "add", "10.1.0.9/24", "dev", "vm0"]);
    let mut guest = Guest::boot_in(&site.ns, "vm", "10.1.0.3/24", &Nic::on_tap("vm0", 3));
    peer.address("eth0", "10.1.0.2/24");
    guest.ready();
    switch.wait_port_up("vm");
    guest.wait_ping("10.1.0.2", PATIENCE);
    assert!(!guest.pings("10.1.0.9"), "the host is kept off the interface");
    tcp(&peer, "10.1.0.2", "", GUEST_FLOOR, |line| guest.run(line).1);
    // Tags pass, too: an access port refuses them, so they arrived as what they are.
    guest.ok("ip link add link eth0 name eth0.7 type vlan id 7 && ip link set eth0.7 up && ip addr add 10.7.0.1/24 dev eth0.7");
    guest.run("ping -c 1 -W 1 10.7.0.2");
    assert!(switch.drops("vm", "tagged_not_allowed") > 0, "{}", switch.port("vm"));
    assert_eq!(switch.drops("vm", "bad_offload"), 0);
    drop(guest);
    switch.stop();
}
