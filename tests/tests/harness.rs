//! Proves the harness itself, without a switch: the gateway's 802.1Q and DHCP, a guest and a virtio-user front end on
//! DPDK's own vhost-user back end. When these fail, the machine or the harness is at fault, not labsw.
#![allow(clippy::panic, clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use labsw_tests::gateway::Gateway;
use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::{Netns, veth};
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Site, TempDir};
use labsw_tests::testpmd::{Mode, Testpmd};

const SECOND: Duration = Duration::from_secs(1);

/// DPDK's vhost-user back end, listening on `socket` and doing `mode` with what it receives.
fn reference_back_end(socket: &Path, mode: &str) -> Process {
    let mut command = Command::new("dpdk-testpmd");
    command.args(["-l", "0,1", "--no-pci", "--no-huge", "--no-shconf", "-m", "128", "--no-telemetry"]);
    command.args(["--vdev", &format!("net_vhost0,iface={},queues=1", socket.display())]);
    command.args(["--", "--interactive", "--auto-start", "--total-num-mbufs=8192", "--forward-mode", mode]);
    let mut back_end = Process::spawn("reference back end", &mut command);
    wait_for("socket of the reference back end", 60 * SECOND, || {
        assert!(back_end.is_running(), "the reference back end ended");
        socket.exists().then_some(())
    });
    back_end
}

#[test]
fn gateway_tags_untags_and_serves_dhcp() {
    if !require::all(&[Need::Root, Need::Program("dnsmasq"), Need::Program("busybox")]) {
        return;
    }
    let site = Site::new("hgw");
    let gateway = Gateway::start(&site, "b0", &[10, 20]);
    let (trunk, ten) = (RawSocket::open(&site.ns, "b0"), RawSocket::open(&gateway.ns, "gw10"));
    let plain = Frame::new(BROADCAST, mac(1));

    trunk.send(&plain.clone().vlan(20).build());
    trunk.send(&plain.clone().vlan(30).build());
    trunk.send(&plain.clone().build());
    trunk.send(&plain.clone().vlan(10).number(7).build());
    let seen = ten.recv_matching(SECOND, |f| f[6..12] == mac(1));
    assert_eq!(seen, Some(plain.clone().number(7).build()), "only VLAN 10 arrives, untagged");

    // The host's own frames leave tagged: an ARP request of the gateway in VLAN 20.
    gateway.ns.try_run(&["ping", "-c", "1", "-W", "1", "10.20.0.77"]);
    let arp = trunk.recv_matching(SECOND, |f| f[12..18] == [0x81, 0, 0, 20, 0x08, 0x06]);
    assert!(arp.is_some(), "a tagged ARP request leaves the trunk");

    // A host that speaks VLAN 10 itself, behind a second splitter, gets a lease.
    let splitter = labsw_tests::switch::find_binary("labsw-vlan-gateway").unwrap();
    let mut command = site.ns.command(&splitter.to_string_lossy());
    let mut far = Process::spawn("far splitter", command.args(["--parent", "b0", "--vlan", "10=host10"]));
    far.wait_for_text(0, "ready", 10 * SECOND);
    site.ns.ip(&["link", "set", "host10", "up"]);
    let lease = site.ns.run(&["busybox", "udhcpc", "-i", "host10", "-n", "-q", "-f", "-s", "/bin/true"]);
    assert!(lease.contains("lease of 10.10.0."), "{lease}");
}

#[test]
fn guest_pings_the_reference_back_end_and_survives_reboot() {
    if !require::all(&[Need::Root, Need::Guest, Need::Testpmd]) {
        return;
    }
    let dir = TempDir::new();
    let socket = dir.path().join("v.sock");
    let _back_end = reference_back_end(&socket, "icmpecho");
    let mut guest = Guest::boot("g", "10.9.0.1/24", &Nic::new(&socket, 1));
    guest.ready();
    guest.wait_ping("10.9.0.2", 20 * SECOND);
    assert!(guest.counter("eth0", "rx_packets") > 0);
    assert_eq!(guest.run("echo a; echo b >&2; false"), (1, "a\nb".to_owned()));
    assert!(guest.carrier("eth0"));
    guest.ok("sleep 3");
    let before = guest.uptime_seconds();
    guest.reboot();
    assert!(guest.uptime_seconds() < before + 60.0 && guest.ok("dmesg | wc -l") != "0");
    guest.wait_ping("10.9.0.2", 20 * SECOND);
}

#[test]
fn front_end_exchanges_frames_with_the_reference_back_end() {
    if !require::all(&[Need::Root, Need::Testpmd]) {
        return;
    }
    let dir = TempDir::new();
    let socket = dir.path().join("v.sock");
    let _back_end = reference_back_end(&socket, "macswap");
    let mut client = Testpmd::connect(&socket, "52:54:00:00:00:09", "52:54:00:00:00:01", Mode::FlowGen, 1);
    client.start();
    let stats = client.wait_stats("echoed frames", 30 * SECOND, |s| s.rx_frames > 1000);
    assert!(stats.tx_frames >= stats.rx_frames, "{stats:?}");
    client.stop();
    client.quit();
}

#[test]
fn offloads_of_a_plain_pair_stay_on() {
    if !require::all(&[Need::Root, Need::Program("ethtool")]) {
        return;
    }
    let (a, b) = (Netns::new("pa"), Netns::new("pb"));
    veth((&a, "p0"), (&b, "p1"));
    assert!(b.run(&["ethtool", "-k", "p1"]).contains("tx-checksumming: on"));
}
