//! Proves that kernel TCP runs through the switch, in both directions, between two containers and between a container
//! and a guest, with the container's offloads as the switch left them: an unfinished checksum or an uncut segment would
//! let a ping pass and stall TCP.

use std::process::Command;
use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::iperf;
use labsw_tests::netns::Netns;
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SECOND: Duration = Duration::from_secs(1);
/// Mbit/s: an order of magnitude below what a busy machine with two CPUs reaches; a stalled TCP gets near 0.
const CONTAINER_FLOOR: f64 = 50.0;
/// The guest's CPU is emulated.
const GUEST_FLOOR: f64 = 5.0;

/// Runs iperf3 from `client` to `server` (a container), forth and back.
fn iperf_between(server: &Netns, address: &str, client: impl FnMut(&str) -> String, floor: f64) {
    for report in iperf::forth_and_back(server, address, "", client) {
        let rate = report.mbit_received();
        assert!(rate > floor, "{rate} Mbit/s, at least {floor} wanted: {report:?}");
    }
}

fn containers(namespaces: &[(&str, &Netns)]) -> String {
    let port = |(name, ns): &(&str, &Netns)| {
        format!(
            "[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
            ns.name()
        )
    };
    namespaces.iter().map(port).collect()
}

#[test]
fn container_to_container() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("iperf3")]) {
        return;
    }
    let (site, a, b) = (Site::new("tcpcc"), Netns::new("a"), Netns::new("b"));
    let switch = Labswd::start(&site, &containers(&[("a", &a), ("b", &b)]));
    a.address("eth0", "10.1.0.1/24");
    b.address("eth0", "10.1.0.2/24");
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        process::output(a.command(words[0]).args(&words[1..])).1
    };
    iperf_between(&b, "10.1.0.2", run, CONTAINER_FLOOR);
    switch.stop();
}

#[test]
fn container_to_guest() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, a) = (Site::new("tcpcg"), Netns::new("a"));
    let switch = Labswd::start(&site, &(containers(&[("a", &a)]) + "[ports.vm]\ntype = \"vhost_user\"\n"));
    a.address("eth0", "10.1.0.1/24");
    let mut guest = Guest::boot("vm", "10.1.0.2/24", &Nic::new(switch.vhost_socket("vm"), 1));
    guest.ready();
    guest.wait_ping("10.1.0.1", 20 * SECOND);
    iperf_between(&a, "10.1.0.1", |line| guest.run(line).1, GUEST_FLOOR);
    assert!(switch.counter("vm", "rx_frames") > 1000, "TCP went through the switch");
    drop(guest);
    switch.stop();
}

#[test]
fn offloads_of_the_containers_end_are_off() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ethtool")]) {
        return;
    }
    let (site, a) = (Site::new("offload"), Netns::new("a"));
    let switch = Labswd::start(&site, &containers(&[("a", &a)]));
    let features = process::run(Command::new("ip").args(["netns", "exec", a.name(), "ethtool", "-k", "eth0"]));
    for feature in ["tx-checksumming", "tcp-segmentation-offload", "tx-vlan-offload"] {
        assert!(features.contains(&format!("{feature}: off")), "{feature} in {features}");
    }
    switch.stop();
}
