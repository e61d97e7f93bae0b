//! Proves that a real container may be stopped, started and killed in every way while the switch runs: each start finds
//! its end of the pair and gets its lease through port B, and nothing is left over.

use std::time::Duration;

use labsw_tests::gateway::Gateway;
use labsw_tests::lxc::Container;
use labsw_tests::process::wait_for;
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
