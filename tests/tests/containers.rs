//! Proves that a real container may be stopped, started and killed in every way while the switch runs: each start finds
//! its end of the pair and gets its lease through port B, and nothing is left over. The same for systemd-nspawn, and
//! for a namespace that is deleted, or ends with the programs in it.

use std::time::Duration;

use labsw_tests::gateway::Gateway;
use labsw_tests::lxc::Container;
use labsw_tests::netns::Netns;
use labsw_tests::nspawn::Nspawn;
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const LAB: &str = r#"
[ports.uplink]
type = "af_xdp"
device = "name:b0"
vlan = { mode = "trunk", trunks = [20] }

[ports.web]
type = "veth"
peer = "ls-web"
vlan = { mode = "access", tag = 20 }
"#;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_container_is_started_stopped_and_killed() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Lxc, Need::Program("dnsmasq")]) {
        return;
    }
    let site = Site::new("lxcagain");
    let gateway = Gateway::start(&site, "b0", &[20]);
    let mut switch = Labswd::start(&site, LAB);
    let mut container = Container::start(&site.ns, "web", "ls-web");
    let lease = |container: &Container<'_>, switch: &Labswd<'_>, after: &str| {
        switch.wait_port("web", "up", SOON);
        let address = container.dhcp();
        assert!(address.starts_with("10.20.0."), "after {after}: {address}");
        container.ok("ping -c 1 -W 5 10.20.0.1");
    };
    lease(&container, &switch, "the first start");
    let mut counted = 0;
    // How it ends, and who ends it.
    let ends =
        ["stop", "stop", "lxc-stop -k", "stop", "kill -9 of init", "stop", "kill -9 of lxc-start and init", "stop"];
    for (round, end) in ends.into_iter().enumerate() {
        match end {
            "stop" => container.stop(&["-t", "5"]),
            "lxc-stop -k" => container.stop(&["-k"]),
            "kill -9 of init" => container.kill9(false),
            _ => container.kill9(true),
        }
        // Back from the container, or made anew.
        wait_for(&format!("ls-web after {end}"), SOON, || {
            site.ns.link_names().contains(&"ls-web".to_owned()).then_some(())
        });
        switch.wait_port("web", "down", SOON);
        if round == 3 {
            switch.kill9();
            switch.restart();
            counted = 0;
        }
        container.start_again();
        lease(&container, &switch, end);
        let now = switch.counter("web", "rx_frames");
        assert!(now > counted, "after {end} the counters go on: {now}, {counted} before");
        counted = now;
        assert_eq!(site.ns.link_names(), ["b0", "lsw-web"], "after {end}");
    }
    drop(container);
    wait_for("ls-web", SOON, || site.ns.link_names().contains(&"ls-web".to_owned()).then_some(()));
    // Port B goes and comes back under a running switch; the gateway goes with its end.
    drop(gateway);
    switch.wait_port("uplink", "waiting", SOON);
    let _gateway = Gateway::start(&site, "b0", &[20]);
    switch.wait_port("uplink", "up", SOON);
    {
        let container = Container::start(&site.ns, "web", "ls-web");
        lease(&container, &switch, "the gateway's return");
    }
    site.ns.ip(&["link", "del", "b0"]);
    switch.wait_port("uplink", "waiting", SOON);
}

/// A container's port, and a neighbour with an address.
fn with_neighbour(neighbour: &Netns) -> String {
    format!(
        "[ports.web]\ntype = \"veth\"\npeer = \"ls-web\"\n\
         [ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
        neighbour.name()
    )
}

/// The container's end is there again, and nothing else that was not there before.
fn wait_whole(site: &Site, switch: &Labswd<'_>, after: &str) {
    let whole = ["ls-web", "lsw-box", "lsw-web"];
    wait_for(&format!("ls-web after {after}"), SOON, || (site.ns.link_names() == whole).then_some(()));
    switch.wait_port("web", "down", SOON);
}

#[test]
fn an_nspawn_container_is_started_stopped_and_killed() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("systemd-nspawn"), Need::Program("busybox")]) {
        return;
    }
    let (site, neighbour) = (Site::new("nspagain"), Netns::new("box"));
    let mut switch = Labswd::start(&site, &with_neighbour(&neighbour));
    neighbour.address("eth0", "10.1.0.9/24");
    let mut counted = 0;
    for end in ["exit", "kill -9 of its first program", "exit", "kill -9 of systemd-nspawn and it", "exit", "exit"] {
        let mut container = Nspawn::start(&site.ns, "web", "--network-interface=ls-web");
        container.ok("ip addr add 10.1.0.1/24 dev ls-web && ip link set ls-web up");
        switch.wait_port("web", "up", SOON);
        container.ok("ping -c 1 -W 5 10.1.0.9");
        assert_eq!(site.ns.link_names(), ["lsw-box", "lsw-web"]);
        let now = switch.counter("web", "rx_frames");
        assert!(now > counted, "before {end} the counters go on: {now}, {counted} before");
        counted = now;
        match end {
            "exit" => container.stop(),
            "kill -9 of its first program" => container.kill9(false),
            _ => container.kill9(true),
        }
        wait_whole(&site, &switch, end);
    }
    // Under a switch that is killed while the container runs.
    let mut container = Nspawn::start(&site.ns, "web", "--network-interface=ls-web");
    container.ok("ip addr add 10.1.0.1/24 dev ls-web && ip link set ls-web up");
    switch.kill9();
    switch.restart();
    switch.wait_port("web", "up", SOON);
    container.ok("ping -c 1 -W 5 10.1.0.9");
    container.stop();
    wait_whole(&site, &switch, "a restart of the switch");
}

#[test]
fn a_namespace_is_deleted_or_ends_with_its_programs() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, neighbour) = (Site::new("nsagain"), Netns::new("box"));
    let switch = Labswd::start(&site, &with_neighbour(&neighbour));
    neighbour.address("eth0", "10.1.0.9/24");
    for round in 0..2 {
        // A named one.
        let web = Netns::new("web");
        site.ns.ip(&["link", "set", "ls-web", "netns", web.name(), "name", "eth0"]);
        web.address("eth0", "10.1.0.1/24");
        switch.wait_port("web", "up", SOON);
        web.run(&["ping", "-c", "1", "-W", "5", "10.1.0.9"]);
        drop(web);
        wait_whole(&site, &switch, &format!("ip netns del, round {round}"));

        // One that only its program holds.
        let mut program = Process::spawn(
            "a program in a namespace",
            site.ns.command("unshare").args(["--net", "sh", "-c", "echo begun; exec sleep 600"]),
        );
        program.wait_for_text(0, "begun", SOON);
        let pid = program.pid().to_string();
        site.ns.ip(&["link", "set", "ls-web", "netns", &pid, "name", "eth0"]);
        let inside = |words: &[&str]| {
            let mut command = std::process::Command::new("nsenter");
            labsw_tests::process::run(command.args(["-t", &pid, "-n"]).args(words));
        };
        inside(&["ip", "addr", "add", "10.1.0.1/24", "dev", "eth0"]);
        inside(&["ip", "link", "set", "eth0", "up"]);
        switch.wait_port("web", "up", SOON);
        inside(&["ping", "-c", "1", "-W", "5", "10.1.0.9"]);
        program.kill();
        wait_whole(&site, &switch, &format!("kill -9 of its program, round {round}"));
    }
    switch.stop();
}
