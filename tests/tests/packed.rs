//! Proves that packed rings and in-order rings work with front ends nobody here wrote: a QEMU guest with `packed=on`,
//! also over a kill of the switch, and DPDK's virtio-user in every mix of `packed_vq`, `in_order` and mergeable
//! buffers.

use std::time::{Duration, Instant};

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::Netns;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::testpmd::{Mode, Testpmd};

const SECOND: Duration = Duration::from_secs(1);
/// A guest's first frame may wait for its link.
const FIRST_PING: Duration = Duration::from_secs(20);
/// How soon after a restart of the switch traffic is back.
const RESUME: Duration = Duration::from_secs(3);

fn acknowledged(switch: &Labswd<'_>, port: &str, feature: &str) -> bool {
    switch.port(port)["features"].as_array().is_some_and(|names| names.iter().any(|name| name == feature))
}

/// A guest with packed rings beside a container exchanges small, large and many frames; then the switch is killed
/// under load, twice, and traffic resumes without a reboot.
fn guest_with_packed_rings(tag: &str, change: impl Fn(&mut Nic)) {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new(tag), Netns::new("box"));
    let config = format!(
        "[ports.a]\ntype = \"vhost_user\"\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \
         \"eth0\"\n",
        container.name()
    );
    let mut switch = Labswd::start(&site, &config);
    container.address("eth0", "10.1.0.9/24");
    let mut nic = Nic::new(switch.vhost_socket("a"), 1);
    nic.packed = true;
    change(&mut nic);
    let mut guest = Guest::boot(tag, "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    assert!(acknowledged(&switch, "a", "RING_PACKED"), "{}", switch.port("a"));
    for size in [0, 56, 1400, 1472, 4000] {
        let output = guest.ok(&format!("ping -c 20 -i 0.05 -s {size} 10.1.0.9"));
        assert!(output.contains(" 0% packet loss"), "{size} bytes: {output}");
    }
    // Each ring goes round several times.
    let output = container.run(&["ping", "-q", "-f", "-c", "3000", "-w", "90", "10.1.0.1"]);
    assert!(output.contains(" 0% packet loss"), "{output}");

    let uptime = guest.uptime_seconds();
    for _ in 0..3 {
        let running = guest.begin("ping -q -i 0.002 -s 1400 -c 1000 -W 1 10.1.0.9");
        std::thread::sleep(SECOND);
        switch.kill9();
        guest.finish(running, 60 * SECOND);
        let started = Instant::now();
        let waiting = guest.begin("for i in $(seq 200); do ping -c 1 -W 1 10.1.0.9 >/dev/null && break; done");
        switch.restart();
        // A new end of the pair is without an address.
        container.ip(&["addr", "replace", "10.1.0.9/24", "dev", "eth0"]);
        container.ip(&["link", "set", "eth0", "up"]);
        let (status, _) = guest.finish(waiting, 60 * SECOND);
        assert_eq!(status, 0, "traffic never resumed");
        assert!(started.elapsed() < 2 * RESUME, "traffic resumed after {:?}", started.elapsed());
        // Not only the first frame, but all around the ring.
        let output = container.run(&["ping", "-q", "-f", "-c", "3000", "-w", "90", "10.1.0.1"]);
        assert!(output.contains(" 0% packet loss"), "{output}");
    }
    assert!(guest.uptime_seconds() > uptime, "the guest has rebooted");
    guest.reboot();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    drop(guest);
    switch.stop();
}

#[test]
fn packed_guest() {
    guest_with_packed_rings("packed", |_| {});
}

#[test]
fn packed_guest_without_indirect_descriptors_and_event_index() {
    guest_with_packed_rings("packbare", |nic| nic.indirect_and_event = false);
}

#[test]
fn packed_guest_without_mergeable_buffers() {
    guest_with_packed_rings("packnomrg", |nic| nic.mergeable = false);
}

#[test]
fn virtio_user_of_every_mix() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Testpmd]) {
        return;
    }
    let site = Site::new("packpmd");
    let ports = "[ports.one]\ntype = \"vhost_user\"\n[ports.two]\ntype = \"vhost_user\"\n";
    let switch = Labswd::start(&site, ports);
    let (one, two) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    for packed in [0, 1] {
        for in_order in [0, 1] {
            for mergeable in [0, 1] {
                let mix = format!("packed_vq={packed},in_order={in_order},mrg_rxbuf={mergeable}");
                let mut echo = Testpmd::connect_with(&switch.vhost_socket("two"), two, one, Mode::MacSwap, 1, &mix);
                let mut sender = Testpmd::connect_with(&switch.vhost_socket("one"), one, two, Mode::FlowGen, 1, &mix);
                switch.wait_port_up("one");
                switch.wait_port_up("two");
                for (feature, on) in [("RING_PACKED", packed), ("IN_ORDER", in_order), ("MRG_RXBUF", mergeable)] {
                    assert_eq!(acknowledged(&switch, "two", feature), on == 1, "{feature} with {mix}");
                }
                echo.start();
                sender.start();
                sender.wait_stats(&format!("echoed frames, {mix}"), 60 * SECOND, |stats| stats.rx_frames > 100_000);
                sender.stop();
                echo.stop();
                let (sent, echoed) = (sender.stats(), echo.stats());
                assert!(sent.rx_frames <= echoed.tx_frames && echoed.rx_frames <= sent.tx_frames, "{mix}");
                // Of the right length, all of them.
                assert_eq!(sent.rx_bytes, 60 * sent.rx_frames, "{mix}");
                sender.quit();
                echo.quit();
            }
        }
    }
    switch.stop();
}
