//! Proves that devices may come and go under their ports: absent at the start, taken when they appear, given up when
//! they go, taken again when they return, put back as they were in the end, also by the run after a killed one.

use std::process::Command;
use std::time::Duration;

use labsw_tests::netns::{Netns, wire};
use labsw_tests::packet::{BROADCAST, Frame, Mac, RawSocket, mac};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, check_config};
use labsw_tests::veth_lab::{Flow, Lab};

const SECOND: Duration = Duration::from_secs(1);
/// How long a port may take to follow its device.
const SOON: Duration = Duration::from_secs(10);

fn veth_port(name: &str, ns: &Netns) -> String {
    format!("[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n", ns.name())
}

fn device_port(name: &str, device: &str, more: &str) -> String {
    format!("[ports.{name}]\ntype = \"af_xdp\"\ndevice = \"{device}\"\n{more}")
}

/// Sends a frame of `source` at one place until it arrives at the other.
fn assert_passes(from: (&Netns, &str), to: (&Netns, &str), source: Mac) {
    from.0.ip(&["link", "set", from.1, "up"]);
    to.0.ip(&["link", "set", to.1, "up"]);
    let (near, far) = (RawSocket::open(from.0, from.1), RawSocket::open(to.0, to.1));
    let frame = Frame::new(BROADCAST, source).build();
    wait_for(&format!("a frame from {} to {}", from.1, to.1), SOON, || {
        drop(near.try_send(&frame));
        far.recv_matching(SECOND / 5, |f| f == frame)
    });
}

fn reason(switch: &Labswd<'_>, port: &str) -> String {
    switch.port(port)["reason"].as_str().unwrap_or_default().to_owned()
}

/// What `ethtool -k` says, and MTU and state.
fn settings(ns: &Netns, device: &str) -> (String, u64, bool) {
    let link = ns.links().into_iter().find(|link| link["ifname"] == device).unwrap_or_default();
    let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    (ns.run(&["ethtool", "-k", device]), link["mtu"].as_u64().unwrap_or(0), up)
}

#[test]
fn devices_are_awaited_taken_given_up_and_taken_again() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, gateway, container) = (Site::new("come"), Netns::new("gw"), Netns::new("box"));
    let config = veth_port("box", &container)
        + &device_port("up", "name:b0", "")
        + &device_port("span", "mac:02:00:00:00:5a:01", "mirror_only = true\n")
        + &device_port("nic", "pci:ffff:1f:1f.7", "")
        + "[mirrors.m]\nsources = [\"up\"]\nto = \"span\"\n";
    let (code, text) = check_config(&site.write_config(&config));
    assert_eq!(code, Some(0), "{text}");
    for awaited in ["ports.up.device: name:b0 is awaited", "mac:02:00:00:00:5a:01", "pci:ffff:1f:1f.7"] {
        assert!(text.contains(awaited), "{text}");
    }

    let mut switch = Labswd::start(&site, &config);
    all_are_awaited(&switch);
    let mirror = || switch.ctl(&["mirror", "show", "m"]);
    assert!(mirror()["reason"].as_str().is_some_and(|reason| reason.contains("span")), "{}", mirror());

    let appear = |near: &str, far: &str| wire((&site.ns, near), (&gateway, far));
    let mut received = 0;
    for round in 0..3 {
        appear("b0", "g0");
        switch.wait_port("up", "up", SOON);
        assert_passes((&gateway, "g0"), (&container, "eth0"), mac(1));
        assert_passes((&container, "eth0"), (&gateway, "g0"), mac(2));
        let now = switch.counter("up", "rx_frames");
        assert!(now > received, "round {round}: the counters go on: {now} after {received}");
        received = now;
        assert_eq!(switch.fdb_port(1, "02:00:00:00:00:01").as_deref(), Some("up"));

        appear("s0", "t0");
        site.ns.ip(&["link", "set", "s0", "address", "02:00:00:00:5a:01"]);
        switch.wait_port("span", "up", SOON);
        wait_for("the mirror", SOON, || (mirror()["state"] == "up").then_some(()));
        assert_passes((&gateway, "g0"), (&gateway, "t0"), mac(1));

        a_new_name_changes_nothing(&site, &gateway, &container, &switch);
        site.ns.ip(&["link", "del", "else0"]);
        site.ns.ip(&["link", "del", "s0"]);
        switch.wait_port("up", "waiting", SOON);
        switch.wait_port("span", "waiting", SOON);
        wait_for("what is awaited", SOON, || reason(&switch, "up").starts_with("name:b0 is awaited").then_some(()));
        assert!(switch.counter("up", "rx_frames") >= received);
        assert_eq!(switch.fdb_port(1, "02:00:00:00:00:01"), None);
        assert_eq!(mirror()["state"], "waiting");
    }
    moved_and_set_down(&site, &gateway, &container, &switch);
    switch.kill9();
    switch.restart();
    switch.wait_port("up", "up", SOON);
    assert_passes((&container, "eth0"), (&gateway, "g0"), mac(2));
    site.ns.ip(&["link", "del", "b0"]);
    switch.wait_port("up", "waiting", SOON);
    switch.stop();
}

/// A device gets a new name, which is none of the port's business.
fn a_new_name_changes_nothing(site: &Site, gateway: &Netns, container: &Netns, switch: &Labswd<'_>) {
    site.ns.ip(&["link", "set", "b0", "name", "else0"]);
    wait_for("the new name", SOON, || (switch.port("up")["interface"] == "else0").then_some(()));
    assert_passes((gateway, "g0"), (container, "eth0"), mac(1));
    assert_eq!(switch.port_state("up"), "up");
}

/// No device is there yet.
fn all_are_awaited(switch: &Labswd<'_>) {
    for (port, device) in [("up", "name:b0"), ("span", "mac:02:00:00:00:5a:01"), ("nic", "pci:ffff:1f:1f.7")] {
        assert_eq!(switch.port_state(port), "waiting");
        assert!(reason(switch, port).starts_with(&format!("{device} is awaited: there is no such ")));
    }
}

/// A device moves to another namespace and back, with the same index, and is set down by its owner: it is left down,
/// and goes on when it is set up.
fn moved_and_set_down(site: &Site, gateway: &Netns, container: &Netns, switch: &Labswd<'_>) {
    wire((&site.ns, "b0"), (gateway, "g0"));
    switch.wait_port("up", "up", SOON);
    for _ in 0..2 {
        site.ns.ip(&["link", "set", "b0", "netns", gateway.name()]);
        switch.wait_port("up", "waiting", SOON);
        gateway.ip(&["link", "set", "b0", "netns", site.ns.name()]);
        switch.wait_port("up", "up", SOON);
        assert_passes((gateway, "g0"), (container, "eth0"), mac(1));
    }
    // Set down by its owner: it is left down, and goes on when it is set up.
    site.ns.ip(&["link", "set", "b0", "down"]);
    switch.wait_port("up", "down", SOON);
    drop(RawSocket::open(container, "eth0").try_send(&Frame::new(BROADCAST, mac(2)).build()));
    std::thread::sleep(2 * SECOND);
    assert_eq!((switch.port_state("up").as_str(), reason(switch, "up").as_str()), ("down", "b0 is set down"));
    site.ns.ip(&["link", "set", "b0", "up"]);
    switch.wait_port("up", "up", SOON);
    assert_passes((container, "eth0"), (gateway, "g0"), mac(2));
}

#[test]
fn a_device_that_is_made_to_take_tags_out_is_made_to_stop() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ethtool")]) {
        return;
    }
    let (site, far, container) = (Site::new("tags"), Netns::new("far"), Netns::new("box"));
    wire((&site.ns, "b0"), (&far, "f0"));
    let config = device_port("up", "name:b0", "vlan = { mode = \"native-untagged\", tag = 1 }\n")
        + &veth_port("box", &container)
        + "vlan = { mode = \"access\", tag = 1 }\n";
    let switch = Labswd::start(&site, &config);
    assert_passes((&far, "f0"), (&container, "eth0"), mac(1));
    assert!(switch.port("up")["put_right"].is_null());
    for times in 1..=3 {
        site.ns.run(&["ethtool", "-K", "b0", "rxvlan", "on"]);
        wait_for("the offload to be off again, and that to be said", SOON, || {
            let port = switch.port("up");
            let off = settings(&site.ns, "b0").0.contains("rx-vlan-offload: off");
            (off && port["put_right"]["times"] == times && port["state"] == "up").then_some(())
        });
        assert_passes((&far, "f0"), (&container, "eth0"), mac(1));
    }
    let log = switch.log();
    assert_eq!(log.matches("took VLAN tags out of received frames (rx-vlan-hw-parse)").count(), 3, "{log}");
    // Another offload is nobody's concern.
    site.ns.run(&["ethtool", "-K", "b0", "tx-nocache-copy", "on"]);
    assert_passes((&far, "f0"), (&container, "eth0"), mac(1));
    assert_eq!(switch.port("up")["put_right"]["times"], 3);
    switch.stop();
}

#[test]
fn a_device_is_put_back_also_after_a_kill() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ethtool")]) {
        return;
    }
    let (site, far, container) = (Site::new("putback"), Netns::new("far"), Netns::new("box"));
    wire((&site.ns, "b0"), (&far, "f0"));
    for feature in ["rxvlan", "gro"] {
        site.ns.run(&["ethtool", "-K", "b0", feature, "on"]);
    }
    site.ns.ip(&["link", "set", "b0", "down"]);
    let before = settings(&site.ns, "b0");
    let config = device_port("up", "name:b0", "mtu = 3000\n") + &veth_port("box", &container);
    let changed = || {
        let (offloads, mtu, up) = settings(&site.ns, "b0");
        offloads.contains("rx-vlan-offload: off") && mtu == 3000 && up
    };
    // Asked to leave; then killed, and the next one asked to leave.
    for kills in [0, 1, 2] {
        let mut switch = Labswd::start(&site, &config);
        for _ in 0..kills {
            switch.kill9();
            assert!(changed());
            switch.restart();
        }
        assert!(changed());
        switch.stop();
        assert_eq!(settings(&site.ns, "b0"), before, "after {kills} kills");
    }
    // It has been away in the meantime.
    let switch = Labswd::start(&site, &config);
    site.ns.ip(&["link", "set", "b0", "netns", far.name()]);
    switch.wait_port("up", "waiting", SOON);
    far.ip(&["link", "set", "b0", "netns", site.ns.name()]);
    wait_for("the device's return", SOON, || changed().then_some(()));
    switch.stop();
    assert_eq!(settings(&site.ns, "b0"), before);
    // A port that is deleted gives its device back at once.
    let switch = Labswd::start(&site, &config);
    switch.ctl(&["port", "del", "up"]);
    assert_eq!(settings(&site.ns, "b0"), before);
    switch.stop();
    // Killed, and the next one has other ports: put back and cleared away at its start.
    let mut switch = Labswd::start(&site, &config);
    switch.kill9();
    assert!(changed());
    assert_eq!(site.ns.link_names(), ["b0", "lsw-box"]);
    drop(switch);
    let switch = Labswd::start(&site, "");
    assert_eq!(settings(&site.ns, "b0"), before);
    assert_eq!((site.ns.link_names(), container.link_names()), (vec!["b0".to_owned()], Vec::new()));
    drop(switch);
    let left: Vec<_> = std::fs::read_dir(site.dir()).expect("the site").flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("devices")), "{left:?}");
}

/// A process in a network namespace of its own without a name, as a container's, and its id.
fn anonymous(site: &Site) -> (Process, String) {
    let holder = Process::spawn("container", site.ns.command("unshare").args(["-n", "sleep", "600"]));
    let pid = holder.pid().to_string();
    wait_for("the container's namespace", SOON, || {
        (std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() == "sleep").then_some(())
    });
    (holder, pid)
}

#[test]
fn a_pair_that_went_with_its_namespace_is_made_anew() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, a) = (Site::new("anew"), Netns::new("a"));
    let named = format!("lswt-anew-{}-x", std::process::id());
    let named_port =
        format!("[ports.n]\ntype = \"veth\"\npeer = \"ls-n\"\nnetns = \"{named}\"\npeer_name = \"eth0\"\n");
    let config = veth_port("a", &a) + "[ports.c]\ntype = \"veth\"\npeer = \"ls-c\"\n" + &named_port;
    let mut switch = Labswd::start(&site, &config);
    a.ip(&["link", "set", "eth0", "up"]);
    assert_eq!(switch.port_state("n"), "waiting");
    assert!(reason(&switch, "n").contains(&named), "{}", reason(&switch, "n"));
    for round in 0..3 {
        // A namespace by its name, which comes late and goes hard.
        process::run(Command::new("ip").args(["netns", "add", &named]));
        switch.wait_port("n", "up", SOON);
        process::run(Command::new("ip").args(["netns", "del", &named]));
        switch.wait_port("n", "waiting", SOON);

        // A container that has the end under another name and is killed.
        let (mut holder, pid) = anonymous(&site);
        site.ns.ip(&["link", "set", "ls-c", "netns", &pid]);
        let inside = |args: &[&str]| process::run(Command::new("nsenter").args(["-t", &pid, "-n", "ip"]).args(args));
        inside(&["link", "set", "ls-c", "name", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        switch.wait_port("c", "up", SOON);
        if round == 1 {
            // Gone while no switch was there.
            switch.kill9();
        }
        holder.kill();
        if round == 1 {
            wait_for("the end of the pair", SOON, || {
                (!site.ns.link_names().contains(&"lsw-c".to_owned())).then_some(())
            });
            switch.restart();
        }
        wait_for("the new pair", SOON, || site.ns.link_names().contains(&"ls-c".to_owned()).then_some(()));
        switch.wait_port("c", "down", SOON);
        let features = site.ns.run(&["ethtool", "-k", "ls-c"]);
        assert!(features.contains("tx-checksumming: off"), "{features}");
    }
    given_back_it_is_as_it_was(&site, &switch);
    assert_eq!(a.link_names(), ["eth0"], "the others stayed");
    switch.stop();
}

/// A container gives its end back with another name and other offloads: it becomes as the container found it.
fn given_back_it_is_as_it_was(site: &Site, switch: &Labswd<'_>) {
    let (mut holder, pid) = anonymous(site);
    site.ns.ip(&["link", "set", "ls-c", "netns", &pid]);
    let inside = |args: &[&str]| process::run(Command::new("nsenter").args(["-t", &pid, "-n"]).args(args));
    inside(&["ip", "link", "set", "ls-c", "name", "eth7"]);
    inside(&["ip", "link", "set", "eth7", "up"]);
    switch.wait_port("c", "up", SOON);
    inside(&["ethtool", "-K", "eth7", "tx", "on"]);
    std::thread::sleep(SECOND / 5);
    inside(&["ip", "link", "set", "eth7", "netns", &format!("/run/netns/{}", site.ns.name())]);
    wait_for("its old name", SOON, || site.ns.link_names().contains(&"ls-c".to_owned()).then_some(()));
    wait_for("its offloads", SOON, || {
        site.ns.run(&["ethtool", "-k", "ls-c"]).contains("tx-checksumming: off").then_some(())
    });
    holder.kill();
}

#[test]
fn a_port_that_is_down_takes_the_carrier_from_its_container() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("updown");
    let switch = lab.start("", &[("a", ""), ("b", "")], "");
    let has_carrier = || {
        let link = lab.peers.links().into_iter().find(|link| link["ifname"] == "a").expect("its end");
        link["flags"].as_array().expect("flags").iter().any(|flag| flag == "LOWER_UP")
    };
    let (near, far) = (lab.socket("b"), lab.socket("a"));
    let frame = Frame::new(BROADCAST, mac(3)).build();
    near.send(&frame);
    assert!(far.recv_matching(SOON, |f| f == frame).is_some());
    let counted = switch.counter("a", "tx_frames");
    for _ in 0..5 {
        switch.ctl(&["port", "down", "a"]);
        assert!(!has_carrier(), "no carrier once the command has returned");
        near.send(&frame);
        assert!(far.recv_matching(SECOND / 10, |f| f == frame).is_none(), "down is down");
        assert_eq!((switch.port_state("a").as_str(), reason(&switch, "a").as_str()), ("down", "administratively down"));
        switch.ctl(&["port", "up", "a"]);
        assert!(has_carrier());
        near.send(&frame);
        assert!(far.recv_matching(SOON, |f| f == frame).is_some(), "and up again");
    }
    assert!(switch.counter("a", "tx_frames") >= counted + 5);
    // A pair made anew keeps the port's state.
    switch.ctl(&["port", "down", "a"]);
    lab.site.ns.ip(&["link", "del", "lsw-a"]);
    wait_for("the new pair", SOON, || lab.peers.link_names().contains(&"a".to_owned()).then_some(()));
    wait_for("its state", SOON, || (!has_carrier()).then_some(()));
    std::thread::sleep(SECOND / 2);
    assert!(!has_carrier());
    switch.ctl(&["port", "up", "a"]);
    wait_for("the carrier", SOON, || has_carrier().then_some(()));
    switch.stop();
}

#[test]
fn channels_are_set_and_put_back() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("ethtool")]) {
        return;
    }
    let site = Site::new("channels");
    let pair = ["link", "add", "b0", "numrxqueues", "4", "numtxqueues", "4", "type", "veth", "peer", "name", "f0"];
    site.ns.ip(&pair);
    let receiving = || {
        let text = site.ns.run(&["ethtool", "-l", "b0"]);
        let now = text.split("Current hardware settings").nth(1).expect("the active ones").to_owned();
        let line = now.lines().find(|line| line.starts_with("RX:")).expect("a line of receive queues").to_owned();
        line.trim_start_matches("RX:").trim().parse::<u32>().expect("a number")
    };
    let mut switch = Labswd::start(&site, &device_port("up", "name:b0", "queues = 2\n"));
    assert_eq!((receiving(), switch.port("up")["queues"].as_u64()), (2, Some(2)));
    switch.kill9();
    switch.restart();
    assert_eq!(receiving(), 2);
    switch.ctl(&["port", "del", "up"]);
    assert_eq!(receiving(), 4);
    let add = ["port", "add", "up", "--type", "af_xdp", "--set", "device=name:b0", "--set"];
    let refused = switch.ctl_refused(&[&add[..], &["queues=5"]].concat());
    assert!(refused.contains("b0: 5 queues wanted, but it has at most 4"), "{refused}");
    switch.ctl(&[&add[..], &["queues=all"]].concat());
    assert_eq!(switch.port("up")["queues"].as_u64(), Some(4));
    switch.stop();
    assert_eq!(receiving(), 4);
}

#[test]
fn fifty_ports_come_and_go_and_two_lose_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("fifty");
    let switch = lab.start("", &[("a", ""), ("b", "")], "");
    let flow = Flow::start(&lab, "a", "b");
    let netns = format!("netns={}", lab.peers.name());
    for port in 0..50 {
        let (name, peer) = (format!("p{port}"), format!("peer=x-p{port}"));
        switch.ctl(&["port", "add", &name, "--type", "veth", "--set", &peer, "--set", &netns]);
        match port % 4 {
            0 => drop(switch.ctl(&["port", "set", &name, "vlan.mode=access", "vlan.tag=7"])),
            1 => drop(switch.ctl(&["port", "down", &name])),
            // Goes without being asked to, and comes back.
            2 => drop(lab.site.ns.ip(&["link", "del", &format!("lsw-{name}")])),
            _ => {}
        }
    }
    flow.assert_flowing("with fifty ports");
    for port in 0..50 {
        switch.ctl(&["port", "del", &format!("p{port}")]);
    }
    flow.assert_flowing("without them");
    let frames = flow.finish();
    assert!(frames > 500, "{frames} frames are too few to prove anything");
    assert_eq!(lab.peers.link_names(), ["a", "b"]);
    switch.stop();
}

#[test]
fn a_device_of_a_bridge_and_one_that_is_protected_by_its_other_name_are_refused() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("owned");
    for command in [
        "link add br0 type bridge",
        "link add bridged type veth peer name bridged-far",
        "link set bridged master br0",
        "link add mgmt0 type veth peer name mgmt0-far",
        "link property add dev mgmt0 altname lan9",
    ] {
        site.ns.ip(&command.split(' ').collect::<Vec<_>>());
    }
    let switch = Labswd::start(&site, "protected_interfaces = [\"lan9\", \"lan8\"]\n");
    assert!(switch.log().contains("lan8") && !switch.log().contains("name=\"lan9\""), "{}", switch.log());
    let add = |device: &str| {
        let device = format!("device=name:{device}");
        switch.ctl_refused(&["port", "add", "nic", "--type", "af_xdp", "--set", &device])
    };
    let refused = add("bridged");
    assert!(refused.contains("belongs to a bridge") && refused.contains("nomaster"), "{refused}");
    for name in ["mgmt0", "lan9"] {
        let refused = add(name);
        assert!(
            refused.contains(&format!("{name} is protected")) && refused.contains("protected_interfaces"),
            "{refused}"
        );
    }
    site.ns.ip(&["link", "set", "bridged", "nomaster"]);
    switch.ctl(&["port", "add", "nic", "--type", "af_xdp", "--set", "device=name:bridged"]);
    switch.stop();
}
