//! Proves that QEMU guests of every kind are served, and that they, their neighbours and the switch survive each
//! other: virtio without mergeable buffers, without indirect descriptors and event index, and legacy; a guest's reboot;
//! the switch killed and started again, in both socket roles; a QEMU killed and replaced.

use std::time::{Duration, Instant};

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::Netns;
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SECOND: Duration = Duration::from_secs(1);
/// A guest's first frame may wait for its link.
const FIRST_PING: Duration = Duration::from_secs(20);
/// How soon after a restart of the switch traffic is back.
const RESUME: Duration = Duration::from_secs(3);

/// Two guest ports `a` and `b`, and a container port whose end is `eth0` in `namespace`.
fn lab(namespace: &Netns, role: &str) -> String {
    let guests: String =
        ["a", "b"].map(|port| format!("[ports.{port}]\ntype = \"vhost_user\"\nrole = \"{role}\"\n")).concat();
    format!(
        "{guests}[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
        namespace.name()
    )
}

/// Boots one guest of the kind `nic` and has it exchange small, large and many frames with the container port.
fn serves(tag: &str, change: impl Fn(&mut Nic)) {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new(tag), Netns::new("box"));
    let switch = Labswd::start(&site, &lab(&container, "server"));
    container.address("eth0", "10.1.0.9/24");
    let mut nic = Nic::new(switch.vhost_socket("a"), 1);
    change(&mut nic);
    let mut guest = Guest::boot(tag, "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    let before = switch.counter("a", "rx_frames");
    for size in [0, 56, 1400, 1472] {
        let output = guest.ok(&format!("ping -c 20 -i 0.05 -s {size} 10.1.0.9"));
        assert!(output.contains(" 0% packet loss"), "{size} bytes: {output}");
    }
    // Each ring goes round several times, at the pace of the guest's answers.
    let output = container.run(&["ping", "-q", "-f", "-c", "3000", "-w", "90", "10.1.0.1"]);
    assert!(output.contains(" 0% packet loss"), "{output}");
    let seen = switch.counter("a", "rx_frames") - before;
    assert!(seen >= 3080, "the switch saw {seen} of the guest's frames");
    drop(guest);
    switch.stop();
}

#[test]
fn default_guest() {
    serves("plain", |_| {});
}

#[test]
fn guest_without_mergeable_buffers() {
    serves("nomrg", |nic| nic.mergeable = false);
}

#[test]
fn guest_without_indirect_descriptors_and_event_index() {
    serves("noind", |nic| nic.indirect_and_event = false);
}

#[test]
fn legacy_guest() {
    serves("legacy", |nic| nic.legacy = true);
}

#[test]
fn legacy_guest_with_nothing_offered() {
    serves("bare", |nic| {
        nic.legacy = true;
        nic.mergeable = false;
        nic.indirect_and_event = false;
    });
}

#[test]
fn guest_reboot() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new("reboot"), Netns::new("box"));
    let mut switch = Labswd::start(&site, &lab(&container, "server"));
    container.address("eth0", "10.1.0.9/24");
    let mut guest = Guest::boot("a", "10.1.0.1/24", &Nic::new(switch.vhost_socket("a"), 1));
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    for _ in 0..2 {
        guest.reboot();
        guest.wait_ping("10.1.0.9", FIRST_PING);
    }
    assert!(switch.is_running());
    drop(guest);
    switch.stop();
}

/// Two guests ping each other; the switch is killed and started again; they go on within [`RESUME`].
fn survives_a_killed_switch(tag: &str, qemu_listens: bool) {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new(tag), Netns::new("box"));
    let mut switch = Labswd::start(&site, &lab(&container, if qemu_listens { "client" } else { "server" }));
    let boot = |port: &str, n: u8| {
        let mut nic = Nic::new(switch.vhost_socket(port), n);
        nic.server = qemu_listens;
        Guest::boot(port, &format!("10.1.0.{n}/24"), &nic)
    };
    let (mut a, mut b) = (boot("a", 1), boot("b", 2));
    a.ready();
    b.ready();
    a.wait_ping("10.1.0.2", FIRST_PING);
    let (up_a, up_b) = (a.uptime_seconds(), b.uptime_seconds());
    for _ in 0..2 {
        // Killed with frames on the way.
        let running = a.begin("ping -q -i 0.01 -c 200 -W 1 10.1.0.2");
        std::thread::sleep(SECOND / 2);
        switch.kill9();
        a.finish(running, 60 * SECOND);
        assert!(!a.pings("10.1.0.2"), "no switch, no answer");
        // The clock runs from the start of the new process to the first answer.
        let started = Instant::now();
        let waiting = a.begin("for i in $(seq 200); do ping -c 1 -W 1 10.1.0.2 >/dev/null && break; done");
        switch.restart();
        let (status, _) = a.finish(waiting, 60 * SECOND);
        assert_eq!(status, 0, "traffic never resumed");
        assert!(started.elapsed() < RESUME, "traffic resumed after {:?}", started.elapsed());
    }
    assert!(a.uptime_seconds() > up_a && b.uptime_seconds() > up_b, "a guest has rebooted");
    assert!(switch.counter("a", "rx_frames") > 0, "frames go through the new switch");
    drop((a, b));
    if qemu_listens {
        // Then the sockets are QEMU's, and a killed QEMU leaves them.
        for port in ["a", "b"] {
            assert!(std::fs::remove_file(switch.vhost_socket(port)).is_ok());
        }
    }
    switch.stop();
}

#[test]
fn switch_killed_and_restarted_as_server() {
    survives_a_killed_switch("killsrv", false);
}

#[test]
fn switch_killed_and_restarted_as_client() {
    survives_a_killed_switch("killcli", true);
}

#[test]
fn qemu_killed_and_replaced() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container, other) = (Site::new("killqemu"), Netns::new("box"), Netns::new("other"));
    let config = lab(&container, "server")
        + &format!(
            "[ports.other]\ntype = \"veth\"\npeer = \"ls-other\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
            other.name()
        );
    let switch = Labswd::start(&site, &config);
    container.address("eth0", "10.1.0.9/24");
    other.address("eth0", "10.1.0.8/24");
    let nic = Nic::new(switch.vhost_socket("a"), 1);
    let mut guest = Guest::boot("first", "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    switch.wait_port_up("a");

    // A numbered stream between two other ports, and the guest busy sending, while QEMU dies.
    let count = 500;
    let mut ping = other.command("ping");
    let mut ping = Process::spawn("ping", ping.args(["-i", "0.01", "-c", &count.to_string(), "-W", "5", "10.1.0.9"]));
    let flood = guest.begin("ping -q -i 0.002 -c 100000 10.1.0.9");
    std::thread::sleep(SECOND);
    guest.kill9();
    drop((flood, guest));
    wait_for("port a not up", 5 * SECOND, || (switch.port_state("a") != "up").then_some(()));
    assert_eq!(switch.port("a")["connected"], false);
    ping.wait(60 * SECOND);
    let lost: Vec<u32> = (1..=count).filter(|n| !ping.log().contains(&format!("icmp_seq={n} "))).collect();
    assert!(lost.is_empty(), "another port lost {lost:?}");

    let mut guest = Guest::boot("second", "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    assert_eq!(switch.port_state("a"), "up");
    drop(guest);
    switch.stop();
}
