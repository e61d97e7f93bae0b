//! Proves that a vhost-user front end nobody here wrote, DPDK's virtio-user, exchanges traffic with a QEMU guest
//! through the switch, and that the frames each side counts are those the switch counted.

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::testpmd::{Mode, Testpmd};

const SECOND: Duration = Duration::from_secs(1);
const PMD_MAC: &str = "52:54:00:00:00:09";
const GUEST_MAC: &str = "52:54:00:00:00:01";
const LAB: &str = "[ports.vm]\ntype = \"vhost_user\"\n[ports.pmd]\ntype = \"vhost_user\"\n";

#[test]
fn guest_is_answered_frame_by_frame() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Testpmd]) {
        return;
    }
    let site = Site::new("pmd");
    let switch = Labswd::start(&site, LAB);
    let mut guest = Guest::boot("vm", "10.1.0.1/24", &Nic::new(switch.vhost_socket("vm"), 1));
    guest.ready();
    // icmpecho answers for any address, so what comes back was really there and back.
    let mut pmd = Testpmd::connect(&switch.vhost_socket("pmd"), PMD_MAC, GUEST_MAC, Mode::IcmpEcho, 1);
    pmd.start();
    guest.wait_ping("10.1.0.2", 20 * SECOND);
    let (guest_sent, pmd_before) = (guest.counter("eth0", "tx_packets"), pmd.stats());
    let output = guest.ok("ping -q -c 100 -i 0.02 10.1.0.2");
    assert!(output.contains(" 0% packet loss"), "{output}");
    let (sent, pmd_after) = (guest.counter("eth0", "tx_packets") - guest_sent, pmd.stats());
    assert!((100..110).contains(&sent), "100 pings and a little ARP: {sent}");
    assert_eq!(pmd_after.rx_frames - pmd_before.rx_frames, sent, "every frame of the guest arrived");
    assert_eq!(pmd_after.tx_frames - pmd_before.tx_frames, sent, "and was answered");
    assert_eq!(switch.counter("pmd", "tx_frames"), pmd_after.rx_frames, "the switch counts what testpmd received");
    assert_eq!(switch.counter("pmd", "rx_frames"), pmd_after.tx_frames, "the switch counts what testpmd sent");
    pmd.stop();
    pmd.quit();
    drop(guest);
    switch.stop();
}

#[test]
fn two_front_ends_flood_each_other() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Testpmd]) {
        return;
    }
    let site = Site::new("pmds");
    let switch = Labswd::start(&site, LAB);
    let mut sender = Testpmd::connect(&switch.vhost_socket("vm"), GUEST_MAC, PMD_MAC, Mode::FlowGen, 1);
    let mut echo = Testpmd::connect(&switch.vhost_socket("pmd"), PMD_MAC, GUEST_MAC, Mode::MacSwap, 1);
    echo.start();
    sender.start();
    sender.wait_stats("100000 echoed frames", 60 * SECOND, |s| s.rx_frames > 100_000);
    sender.stop();
    echo.stop();
    let (sent, echoed) = (sender.stats(), echo.stats());
    assert_eq!(switch.counter("vm", "rx_frames"), sent.tx_frames, "every frame sent was taken by the switch");
    assert!(echoed.rx_frames <= switch.counter("pmd", "tx_frames") && sent.rx_frames <= echoed.tx_frames);
    sender.quit();
    echo.quit();
    switch.stop();
}
