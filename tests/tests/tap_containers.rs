//! Proves containers on TAP ports: offloads whole, TCP both ways and to a port of another type, in their VLAN only; an
//! interface that moves into a namespace by whatever hand stays served, one that dies with its namespace is remade,
//! one that a container gives back is as it was before.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use labsw_tests::iperf;
use labsw_tests::netns::Netns;
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const PATIENCE: Duration = Duration::from_secs(20);
/// Mbit/s: far below a busy machine's; a stalled TCP gets near 0.
const FLOOR: f64 = 100.0;

fn port(name: &str, vlan: u16, more: &str) -> String {
    format!("[ports.{name}]\ntype = \"tap\"\nfor = \"container\"\n{more}vlan = {{ mode = \"access\", tag = {vlan} }}\n")
}

fn in_netns(name: &str, vlan: u16, ns: &Netns) -> String {
    port(name, vlan, &format!("netns = \"{}\"\npeer_name = \"eth0\"\n", ns.name()))
}

fn pings(ns: &Netns, address: &str) -> bool {
    ns.try_run(&["ping", "-c", "1", "-W", "1", address]).0.success()
}

fn wait_ping(ns: &Netns, address: &str) {
    wait_for(&format!("answer from {address}"), PATIENCE, || pings(ns, address).then_some(()));
}

fn needs(more: &[Need]) -> bool {
    require::all(&[&[Need::Root, Need::Labswd], more].concat())
}

fn tcp(server: &Netns, address: &str, client: &Netns) {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        client.try_run(&words).1
    };
    for report in iperf::forth_and_back(server, address, "", line) {
        let rate = report.mbit_received();
        eprintln!("{rate:.0} Mbit/s");
        assert!(rate > FLOOR, "{rate} Mbit/s, at least {FLOOR} wanted: {report:?}");
    }
}

#[test]
fn containers_have_tcp_with_their_offloads_on() {
    if !needs(&[Need::Program("iperf3")]) {
        return;
    }
    let (site, a, b) = (Site::new("tapc"), Netns::new("tca"), Netns::new("tcb"));
    let (veth, other) = (Netns::new("tcv"), Netns::new("tco"));
    let with_veth = format!(
        "[ports.veth]\ntype = \"veth\"\npeer = \"ls-veth\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n\
         vlan = {{ mode = \"access\", tag = 10 }}\n",
        veth.name()
    );
    let tap = |name, vlan, ns| in_netns(name, vlan, ns);
    let config = [tap("a", 10, &a), tap("b", 10, &b), with_veth, tap("other", 20, &other)].concat();
    let switch = Labswd::start(&site, &config);
    for (ns, address) in [(&a, "10.7.0.1/24"), (&b, "10.7.0.2/24"), (&veth, "10.7.0.3/24"), (&other, "10.7.0.4/24")] {
        ns.address("eth0", address);
    }
    switch.wait_port_up("a");
    let shown = switch.port("a");
    assert_eq!((&shown["role"], &shown["peer"]), (&"container".into(), &"eth0".into()));
    assert_eq!(shown["netns"], a.name());
    wait_ping(&a, "10.7.0.2");
    wait_ping(&a, "10.7.0.3");
    assert!(!pings(&a, "10.7.0.4"), "another VLAN");
    let features = a.run(&["ethtool", "-k", "eth0"]);
    assert!(features.contains("tcp-segmentation-offload: on"), "{features}");
    tcp(&b, "10.7.0.2", &a);
    tcp(&veth, "10.7.0.3", &a);
    // The address stays that of the port when the port comes again.
    let mac = a.links().into_iter().find(|link| link["ifname"] == "eth0").unwrap()["address"].clone();
    switch.ctl(&["port", "set", "a", "mtu=1400"]);
    let link = a.links().into_iter().find(|link| link["ifname"] == "eth0").unwrap();
    assert_eq!((&link["address"], &link["mtu"]), (&mac, &1400.into()));
    switch.ctl(&["port", "del", "a"]);
    assert!(!a.links().iter().any(|link| link["ifname"] == "eth0"), "the interface goes with the port");
}

#[test]
fn an_interface_follows_its_container() {
    if !needs(&[]) {
        return;
    }
    let (site, peer) = (Site::new("tapf"), Netns::new("tfp"));
    let config = [port("web", 10, "interface = \"web0\"\n"), in_netns("peer", 10, &peer)].concat();
    let switch = Labswd::start(&site, &config);
    peer.address("eth0", "10.7.1.2/24");
    let state = || switch.port("web")["state"].clone();
    let reason = || switch.port("web")["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!((state(), reason().as_str()), ("down".into(), "web0 waits for a container to take it"));

    let container = Netns::new("tfc");
    // As LXC does for a NIC of type phys: it moves the interface, renames it, and sets it up.
    let take = |container: &Netns| {
        site.ns.ip(&["link", "set", "web0", "netns", container.name()]);
        container.ip(&["link", "set", "web0", "name", "eth0"]);
        container.address("eth0", "10.7.1.1/24");
        switch.wait_port_up("web");
        wait_ping(container, "10.7.1.2");
    };
    take(&container);
    // Given back at the container's end, under another name.
    container.ip(&["link", "set", "eth0", "down"]);
    container.ip(&["link", "set", "eth0", "name", "web0"]);
    container.ip(&["link", "set", "web0", "netns", site.ns.name()]);
    wait_for("the interface back", PATIENCE, || (state() == "down").then_some(()));
    take(&container);
    // Killed with its namespace.
    drop(container);
    wait_for("the interface anew", PATIENCE, || {
        site.ns.links().iter().any(|link| link["ifname"] == "web0").then_some(())
    });
    take(&Netns::new("tfd"));
    assert_eq!(switch.port("peer")["state"], "up");
}
