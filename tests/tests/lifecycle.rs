//! Proves how the switch comes and goes: SIGTERM leaves nothing behind; the socket of a dead run is replaced and that
//! of a live one is not; ports come and go at run time while others lose nothing.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use labsw_tests::netns::{Netns, wire};
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};

const SECOND: Duration = Duration::from_secs(1);

fn veth_port(name: &str, ns: &Netns) -> String {
    format!("[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n", ns.name())
}

#[test]
fn sigterm_leaves_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, gateway, container) = (Site::new("term"), Netns::new("gw"), Netns::new("box"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    let config = veth_port("box", &container)
        + "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n[ports.vm]\ntype = \"vhost_user\"\n";
    for _ in 0..2 {
        let switch = Labswd::start(&site, &config);
        switch.wait_port_up("up");
        assert!(switch.vhost_socket("vm").exists() && container.link_names() == ["eth0"]);
        // It works before it leaves.
        let (near, far) = (RawSocket::open(&container, "eth0"), RawSocket::open(&gateway, "g0"));
        container.ip(&["link", "set", "eth0", "up"]);
        switch.wait_port_up("box");
        let frame = Frame::new(BROADCAST, mac(1)).build();
        wait_for("a frame across", 5 * SECOND, || {
            drop(near.try_send(&frame));
            far.recv_matching(SECOND / 5, |f| f == frame)
        });
        switch.stop();
        assert_eq!(container.link_names(), Vec::<String>::new(), "the container's end went with the pair");
    }
}

#[test]
fn stale_sockets_are_replaced_live_ones_are_not() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("stale"), Netns::new("box"));
    let config = veth_port("box", &container) + "[ports.vm]\ntype = \"vhost_user\"\n";
    let mut switch = Labswd::start(&site, &config);

    // A second one on the same sockets has to give up and leave the first alone.
    let daemon = find_binary("labswd").unwrap();
    let file = site.dir().join("lab.toml").to_string_lossy().into_owned();
    let (status, text) =
        process::output(site.ns.command("timeout").args(["20", &daemon.to_string_lossy(), "--config", &file]));
    assert_eq!(status.code(), Some(1), "a second labswd on a live socket: {text}");
    assert!(switch.is_running() && switch.vhost_socket("vm").exists());
    assert_eq!(container.link_names(), ["eth0"], "the first one's link is untouched");
    assert_eq!(switch.ctl(&["port", "list"]).as_array().map(Vec::len), Some(2));

    // A killed one leaves its sockets and links; the next replaces them.
    switch.kill9();
    assert!(site.control_socket().exists() && switch.vhost_socket("vm").exists());
    switch.restart();
    assert_eq!(switch.ctl(&["port", "list"]).as_array().map(Vec::len), Some(2));
    switch.stop();
}

#[test]
fn sockets_of_ports_that_are_gone_are_removed_after_a_kill_and_nobody_elses() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("left");
    let mut switch = Labswd::start(&site, "[ports.vm]\ntype = \"vhost_user\"\n");
    for name in ["late", "taken", "gone"] {
        switch.ctl(&["port", "add", name, "--type", "vhost_user"]);
    }
    switch.ctl(&["port", "del", "gone"]);
    switch.kill9();
    let [vm, late, taken, gone] = ["vm", "late", "taken", "gone"].map(|name| switch.vhost_socket(name));
    assert!(vm.exists() && late.exists() && taken.exists() && !gone.exists(), "left by the kill");
    // Files of others in the same places: one has a listener, the other one has none at the moment.
    std::fs::remove_file(&taken).expect("removed");
    let other = UnixListener::bind(&taken).expect("a listener");
    other.set_nonblocking(true).expect("a listener");
    drop(UnixListener::bind(&gone).expect("a listener"));

    switch.restart();
    wait_for("the killed run's socket gone", 5 * SECOND, || (!late.exists()).then_some(()));
    assert!(vm.exists() && taken.exists() && gone.exists(), "others' files stay");
    assert_eq!(other.accept().expect_err("nobody connects").kind(), std::io::ErrorKind::WouldBlock);
    // The next kill leaves nothing of the first run, either.
    switch.kill9();
    switch.restart();
    assert!(vm.exists() && taken.exists() && gone.exists());
    [taken, gone].iter().for_each(|file| std::fs::remove_file(file).expect("removed"));
    switch.stop();
}

#[test]
fn ports_come_and_go_while_others_lose_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, a, b, c) = (Site::new("hotplug"), Netns::new("a"), Netns::new("b"), Netns::new("c"));
    let switch = Labswd::start(&site, &(veth_port("a", &a) + &veth_port("b", &b)));
    a.address("eth0", "10.1.0.1/24");
    b.address("eth0", "10.1.0.2/24");
    a.run(&["ping", "-c", "1", "-W", "5", "10.1.0.2"]);
    let count = 600;
    let mut ping = a.command("ping");
    let mut ping = Process::spawn("ping", ping.args(["-i", "0.01", "-c", &count.to_string(), "-W", "5", "10.1.0.2"]));
    for round in 0..4 {
        let (netns, name) = (format!("netns={}", c.name()), "peer_name=eth0");
        let peer = "peer=ls-c";
        switch.ctl(&["port", "add", "c", "--type", "veth", "--set", peer, "--set", &netns, "--set", name]);
        switch.ctl(&["port", "add", "vm", "--type", "vhost_user"]);
        assert!(switch.vhost_socket("vm").exists());
        c.address("eth0", "10.1.0.3/24");
        c.run(&["ping", "-c", "2", "-W", "5", "10.1.0.1"]);
        switch.ctl(&["port", "del", "c"]);
        switch.ctl(&["port", "del", "vm"]);
        assert!(c.link_names().is_empty() && !switch.vhost_socket("vm").exists(), "round {round}");
    }
    assert!(switch.ctl_refused(&["port", "del", "c"]).contains('c'), "a port that is not there");
    ping.wait(60 * SECOND);
    let lost: Vec<u32> = (1..=count).filter(|n| !ping.log().contains(&format!("icmp_seq={n} "))).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    switch.stop();
}

#[test]
fn the_service_manager_is_told() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("notify");
    let told = site.dir().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&told).expect("notify socket");
    manager.set_read_timeout(Some(20 * SECOND)).expect("timeout");
    // Messages about descriptors to store come in between.
    let hear = |word: &str| {
        let mut message = [0; 256];
        loop {
            let bytes = manager.recv(&mut message).expect("a message to the service manager");
            if String::from_utf8_lossy(&message[..bytes]).contains(word) {
                return;
            }
        }
    };
    let mut command = site.ns.command(&find_binary("labswd").expect("labswd").to_string_lossy());
    command.env("NOTIFY_SOCKET", &told).arg("--config").arg(site.write_config("[ports.vm]\ntype = \"vhost_user\"\n"));
    let mut switch = Process::spawn("labswd", &mut command);
    hear("READY=1");
    assert!(site.control_socket().exists(), "told when it serves, not before");
    switch.signal(15);
    hear("STOPPING=1");
    assert!(switch.wait(10 * SECOND).success());
}

/// Gives `interface` an address as udev does to one whose own was made up by the kernel.
fn change_address(ns: &Netns, interface: &str) {
    ns.ip(&["link", "set", "dev", interface, "address", "02:00:00:00:be:ef"]);
}

#[test]
fn a_pair_whose_addresses_were_changed_goes_all_the_same() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("udev"), Netns::new("box"));
    let config = veth_port("box", &container);
    let started = || {
        let switch = Labswd::start(&site, &config);
        // Set by somebody, as far as udev can see, so that it has nothing to do (NET_ADDR_SET).
        for (ns, interface) in [(&site.ns, "lsw-box"), (&container, "eth0")] {
            let assigned = ns.run(&["cat", &format!("/sys/class/net/{interface}/addr_assign_type")]);
            assert_eq!(assigned.trim(), "3", "{interface}");
        }
        change_address(&site.ns, "lsw-box");
        switch
    };
    let left = || (site.ns.link_names(), container.link_names());
    let nothing = (Vec::<String>::new(), Vec::<String>::new());

    let switch = started();
    switch.ctl(&["port", "del", "box"]);
    assert_eq!(left(), nothing, "removed at run time");
    switch.stop();

    started().stop();
    assert_eq!(left(), nothing, "SIGTERM");

    let mut switch = started();
    switch.kill9();
    site.write_config("");
    switch.restart();
    wait_for("the killed run's pair gone", 5 * SECOND, || (left() == nothing).then_some(()));
    switch.stop();
}

#[test]
fn a_container_and_the_host_keep_their_addresses() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("address"), Netns::new("box"));
    let ports =
        "[ports.lx]\ntype = \"veth\"\npeer = \"ls-lx\"\n[ports.host]\ntype = \"tap\"\ninterface = \"labhost\"\n";
    let config = veth_port("box", &container) + ports;
    let address = |ns: &Netns, interface: &str| {
        ns.run(&["cat", &format!("/sys/class/net/{interface}/address")]).trim().to_owned()
    };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut switch = Labswd::start(&site, &config);
        let addresses = || [address(&container, "eth0"), address(&site.ns, "ls-lx"), address(&site.ns, "labhost")];
        seen.push(addresses());
        switch.kill9();
        switch.restart();
        seen.push(addresses());
        switch.stop();
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].iter().all(|mac| mac.starts_with("52:54:00:")), "{seen:?}");

    let switch = Labswd::start(&site, &config.replace("peer_name", "mac = \"02:00:00:00:00:07\"\npeer_name"));
    assert_eq!(address(&container, "eth0"), "02:00:00:00:00:07");
    switch.stop();
}
