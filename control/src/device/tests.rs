//! Devices on a real kernel, each test in network namespaces of its own. They need root and the tools `ip` and
//! `ethtool`; without, they say so and pass, or fail if `LABSW_TEST_REQUIRE=1`.

use std::process::Command;

use labsw_switch::Mac;

use super::*;
use crate::config::{DeviceSpec, PortConfig, PortKind, SwitchConfig, VethConfig, default_interface};

/// A namespace that lives as long as this.
struct TestNetns(String);

impl TestNetns {
    /// `None` if tests of this kind cannot run here.
    fn new(tag: &str) -> Option<TestNetns> {
        let name = format!("labsw-test-{}-{tag}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).output();
        let ethtool = Command::new("ethtool").arg("--version").output();
        let why = match (added, ethtool) {
            (Ok(added), Ok(_)) if added.status.success() => return Some(TestNetns(name)),
            (Ok(added), Ok(_)) => String::from_utf8_lossy(&added.stderr).into_owned(),
            _ => "the tools ip and ethtool are needed".to_owned(),
        };
        assert!(std::env::var("LABSW_TEST_REQUIRE").as_deref() != Ok("1"), "cannot make a network namespace: {why}");
        println!("skipped: cannot make a network namespace: {}", why.trim());
        None
    }

    /// Runs `test` in the namespace.
    fn run<T: Send>(&self, test: impl FnOnce(&mut Links) -> T + Send) -> T {
        in_netns(&self.0, || Ok(test(&mut Links::open()?))).unwrap()
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Standard output of a command in the namespace of this thread.
fn output(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The output of `ethtool -k` for the offloads that a container's end must not have.
fn offloads(device: &str) -> Vec<String> {
    let meant = ["tx-checksumming:", "tcp-segmentation-offload:", "generic-segmentation-offload:", "tx-vlan-offload:"];
    let all = output(&format!("ethtool -k {device}"));
    let lines: Vec<String> =
        all.lines().map(str::trim).filter(|l| meant.iter().any(|m| l.starts_with(m))).map(Into::into).collect();
    assert_eq!(lines.len(), meant.len(), "{all}");
    lines
}

fn assert_offloads_off(device: &str) {
    assert!(offloads(device).iter().all(|line| line.contains(": off")), "{:?}", offloads(device));
}

fn plan(set: &[&str]) -> VethPlan {
    let set = set.iter().map(|setting| crate::config::split_setting(setting).unwrap()).collect();
    let port = PortConfig::from_settings("web", "veth", &set, &SwitchConfig::default()).unwrap();
    let PortKind::Veth(VethConfig { peer, interface, netns, peer_name, queues, mac, offloads }) = port.kind else {
        panic!("a veth port")
    };
    let interface = interface.unwrap_or_else(|| default_interface("web"));
    VethPlan { port: port.name, interface, peer, netns, peer_name, mtu: port.mtu, queues: queues.into(), offloads, mac }
}

/// The link `a` under its new name `c`.
fn a_renamed(a: &Link) -> Link {
    Link { name: "c".to_owned(), ..a.clone() }
}

fn names(links: &mut Links) -> Vec<String> {
    let made_by_kernel = ["lo", "ifb0", "ifb1"];
    links.list().unwrap().into_iter().map(|link| link.name).filter(|n| !made_by_kernel.contains(&n.as_str())).collect()
}

#[test]
fn links_are_made_changed_moved_and_deleted() {
    let (Some(here), Some(there)) = (TestNetns::new("make"), TestNetns::new("make-to")) else { return };
    here.run(|links| {
        let made = links.create_veth([("a", None), ("b", None)], 1400, 1).unwrap();
        assert_eq!((made.name.as_str(), made.mtu, made.up, made.kind.as_deref()), ("a", 1400, false, Some("veth")));
        let peer = links.link_by_name("b").unwrap().unwrap();
        assert_eq!((made.lower, peer.lower), (Some(peer.index), Some(made.index)));
        assert!(links.create_veth([("a", None), ("c", None)], 1500, 1).is_err(), "the name is taken");
        links.rename(made.index, "a2").unwrap();
        links.set_mtu(made.index, 1500).unwrap();
        links.set_up(made.index).unwrap();
        links.set_up(peer.index).unwrap();
        let now = links.link_by_index(made.index).unwrap().unwrap();
        assert_eq!((now.name.as_str(), now.mtu, now.up, now.carrier), ("a2", 1500, true, true));
        links.set_down(made.index).unwrap();
        assert!(!links.link_by_index(made.index).unwrap().unwrap().up);
        links.move_to_netns(peer.index, &Netns::open(&there.0).unwrap(), "eth0").unwrap();
        assert_eq!(names(links), ["a2"]);
        assert_eq!(there.run(names), ["eth0"]);
        links.delete_link(made.index).unwrap();
        assert_eq!(links.link_by_name("a2").unwrap(), None);
        assert_eq!(there.run(names), Vec::<String>::new());
        let gone = links.delete_link(made.index).unwrap_err().to_string();
        assert_eq!(gone, format!("delete interface {}: No such device (os error 19)", made.index));
    });
}

#[test]
fn a_pair_is_prepared_and_removed() {
    let Some(here) = TestNetns::new("pair") else { return };
    here.run(|links| {
        let pair = VethPair::prepare(links, &plan(&["peer=ls-web", "mtu=1400"])).unwrap();
        let own = &pair.switch_end;
        assert_eq!((own.name.as_str(), own.mtu, own.up), ("lsw-web", 1400, true));
        let flags = output("ip -d link show lsw-web");
        assert!(flags.contains("NOARP") && flags.contains("addrgenmode none"), "{flags}");
        assert!(flags.contains("numtxqueues 1 numrxqueues 1"), "{flags}");
        if let Ok(off) = std::fs::read_to_string("/proc/sys/net/ipv6/conf/lsw-web/disable_ipv6") {
            assert_eq!(off.trim(), "1");
        }
        assert_offloads_off("ls-web");
        let peer = links.link_by_name("ls-web").unwrap().unwrap();
        assert_eq!((peer.up, peer.mtu), (false, 1400), "down until a container takes it");
        links.set_up(peer.index).unwrap();
        assert_offloads_off("ls-web");
        pair.remove(links).unwrap();
        assert_eq!(names(links), Vec::<String>::new());
    });
}

#[test]
fn a_pair_is_handed_over_into_a_namespace() {
    let (Some(here), Some(there)) = (TestNetns::new("hand"), TestNetns::new("hand-to")) else { return };
    let plan = plan(&["peer=ls-web", &format!("netns={}", there.0), "peer_name=eth0"]);
    here.run(|links| {
        let pair = VethPair::prepare(links, &plan).unwrap();
        assert_eq!(names(links), ["lsw-web"]);
        assert!(pair.switch_end.carrier);
        there.run(|links| {
            let peer = links.link_by_name("eth0").unwrap().unwrap();
            assert!(peer.up && peer.carrier, "{peer:?}");
            assert_offloads_off("eth0");
        });
        pair.remove(links).unwrap();
        assert_eq!(names(links), Vec::<String>::new());
        assert_eq!(there.run(names), Vec::<String>::new());
    });
}

#[test]
fn what_a_killed_run_left_is_taken_over() {
    let (Some(here), Some(there)) = (TestNetns::new("left"), TestNetns::new("left-to")) else { return };
    here.run(|links| {
        // Still here, with its offloads switched on again by somebody.
        let plain = plan(&["peer=ls-web"]);
        let left = VethPair::prepare(links, &plain).unwrap();
        output("ethtool -K ls-web tx on tso on gso on txvlan on");
        assert!(offloads("ls-web").iter().all(|line| line.contains(": on")), "{:?}", offloads("ls-web"));
        let again = VethPair::prepare(links, &plain).unwrap();
        assert_eq!(again.switch_end.index, left.switch_end.index);
        assert_offloads_off("ls-web");
        // Moved in since, as configured.
        let moving = plan(&["peer=ls-web", &format!("netns={}", there.0), "peer_name=eth0"]);
        VethPair::prepare(links, &moving).unwrap();
        let again = VethPair::prepare(links, &moving).unwrap();
        assert_eq!(again.switch_end.index, left.switch_end.index);
        // Taken by a container, for a port without a namespace of its own.
        let again = VethPair::prepare(links, &plain).unwrap();
        assert_eq!(again.switch_end.index, left.switch_end.index);
        assert_eq!(there.run(names), ["eth0"]);
        // In another place than configured: refused, and nothing changed.
        let elsewhere = plan(&["peer=ls-web", &format!("netns={}", there.0), "peer_name=eth1"]);
        let error = VethPair::prepare(links, &elsewhere).unwrap_err().to_string();
        let expected = format!(
            "interface lsw-web exists, but its other end is not eth1 in netns {}; \
             delete it (ip link del lsw-web) or name another",
            there.0
        );
        assert_eq!(error, expected);
        assert_eq!((names(links), there.run(names)), (vec!["lsw-web".to_owned()], vec!["eth0".to_owned()]));
    });
}

#[test]
fn a_pair_that_cannot_be_prepared_leaves_nothing_behind() {
    let (Some(here), Some(there)) = (TestNetns::new("fail"), TestNetns::new("fail-to")) else { return };
    here.run(|links| {
        let refused = |links: &mut Links, set: &[&str]| VethPair::prepare(links, &plan(set)).unwrap_err().to_string();
        let missing = "netns: there is no network namespace \"labsw-none\" in /run/netns; \
                       make it first (ip netns add labsw-none)";
        assert_eq!(refused(links, &["peer=ls-web", "netns=labsw-none"]), missing);
        assert_eq!(names(links), Vec::<String>::new());

        there.run(|links| links.create_veth([("eth0", None), ("eth1", None)], 1500, 1).map(drop)).unwrap();
        let netns = format!("netns={}", there.0);
        let taken = refused(links, &["peer=ls-web", &netns, "peer_name=eth0"]);
        assert_eq!(taken, format!("peer_name: netns {} has an interface eth0 already; name another", there.0));
        assert_eq!(names(links), Vec::<String>::new());

        links.create_veth([("lsw-web", None), ("other", None)], 1500, 1).unwrap();
        let foreign = refused(links, &["peer=ls-web"]);
        assert!(foreign.contains("its other end is other and not ls-web"), "{foreign}");
        output("ip link add br0 type bridge");
        let no_veth = refused(links, &["peer=ls-web", "interface=br0"]);
        assert_eq!(no_veth, "interface br0 exists and is no veth; name another for this port");
        let taken = refused(links, &["peer=other", "interface=mine"]);
        assert_eq!(taken, "peer: interface other exists already; name another");
        let mut left = names(links);
        left.sort();
        assert_eq!(left, ["br0", "lsw-web", "other"]);
    });
}

#[test]
fn a_failure_half_way_deletes_what_was_made() {
    let (Some(here), Some(there)) = (TestNetns::new("half"), TestNetns::new("half-to")) else { return };
    here.run(|links| {
        let mut plan = plan(&["peer=ls-web", &format!("netns={}", there.0)]);
        // No configuration has such a name; the kernel refuses it when the finished pair's end is to be moved.
        plan.peer_name = Some("a/b".to_owned());
        let error = VethPair::prepare(links, &plan).unwrap_err().to_string();
        assert!(error.starts_with("move interface ") && error.ends_with("Invalid argument (os error 22)"), "{error}");
        assert_eq!((names(links), there.run(names)), (Vec::new(), Vec::new()));
    });
}

#[test]
fn interfaces_with_a_default_route_and_those_below_are_protected() {
    let Some(here) = TestNetns::new("route") else { return };
    here.run(|links| {
        for name in ["four", "six", "low", "free"] {
            let made = links.create_veth([(name, None), (&format!("{name}-peer"), None)], 1500, 1).unwrap();
            links.set_up(made.index).unwrap();
            output(&format!("ip link set {name}-peer up"));
        }
        for command in [
            "ip link add br0 type bridge",
            "ip link set low master br0",
            "ip link set br0 up",
            "ip address add 10.0.0.2/24 dev four",
            "ip route add default via 10.0.0.1",
            "ip address add 10.0.1.2/24 dev br0",
            "ip route add default via 10.0.1.1 metric 7",
        ] {
            output(command);
        }
        let mut protection = |name: &str, listed: &[&str]| {
            let link = links.link_by_name(name).unwrap().unwrap();
            let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
            links.protection(&link, &listed).unwrap()
        };
        let text = |text: &str| Some(text.to_owned());
        output("ip link property add dev lo altname self0");
        let loopback = text("lo is the loopback device, over which the host talks to itself; it is never opened");
        assert_eq!([protection("lo", &[]), protection("self0", &[])], [loopback.clone(), loopback]);
        assert_eq!(protection("four", &[]), text("four carries a default route of the host; it is never opened"));
        assert_eq!(protection("four-peer", &[]), None);
        assert_eq!(
            protection("low", &[]),
            text("low is below br0, which carries a default route of the host; it is never opened")
        );
        assert_eq!(protection("free", &["six"]), None);
        output("ip link property add dev free altname spare0");
        let by_other_name = text("free is protected by switch.protected_interfaces; it is never opened");
        assert_eq!(protection("free", &["spare0"]), by_other_name);
        assert_eq!(protection("spare0", &["free"]), by_other_name);
        let listed = text("free is protected by switch.protected_interfaces; it is never opened");
        assert_eq!(protection("free", &["free"]), listed);
        assert_eq!(protection("six", &[]), None);
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            output("ip -6 route add default dev six metric 5");
            assert_eq!(protection("six", &[]), text("six carries a default route of the host; it is never opened"));
        }
    });
}

#[test]
fn devices_are_found_by_name_and_mac() {
    let Some(here) = TestNetns::new("find") else { return };
    here.run(|links| {
        let made = links.create_veth([("a", None), ("b", None)], 1500, 1).unwrap();
        output("ip link set dev a address 52:54:00:00:00:01");
        let mac = DeviceSpec::Mac(Mac::new([0x52, 0x54, 0, 0, 0, 1]));
        let found = links.resolve(&mac).unwrap().unwrap();
        assert_eq!(found.index, made.index);
        assert_eq!(found.mac, Some(Mac::new([0x52, 0x54, 0, 0, 0, 1])));
        assert_eq!(links.resolve(&DeviceSpec::Name("a".to_owned())).unwrap(), Some(found));
        for absent in ["name:c", "mac:52:54:00:00:00:02", "pci:ffff:ff:1f.7"] {
            assert_eq!(links.resolve(&absent.parse().unwrap()).unwrap(), None, "{absent}");
        }
        output("ip link set dev b address 52:54:00:00:00:01");
        let error = links.resolve(&mac).unwrap_err().to_string();
        assert!(error.starts_with("mac:52:54:00:00:00:01 fits several interfaces: "), "{error}");
    });
}

#[test]
fn promiscuous_mode_ends_with_its_holder() {
    let Some(here) = TestNetns::new("promisc") else { return };
    here.run(|links| {
        let made = links.create_veth([("a", None), ("b", None)], 1500, 1).unwrap();
        let counted = || output("ip -d link show a").contains("promiscuity 1");
        assert!(!counted());
        let held = Promiscuous::hold(made.index, "a").unwrap();
        assert!(counted());
        drop(held);
        assert!(!counted());
        assert!(Promiscuous::hold(made.index + 100, "gone").is_err());
    });
}

#[test]
fn offloads_come_back_as_they_were() {
    let Some(here) = TestNetns::new("offload") else { return };
    here.run(|links| {
        links.create_veth([("a", None), ("b", None)], 1500, 1).unwrap();
        output("ethtool -K a tso off");
        let before = output("ethtool -k a");
        let off = ethtool::switch_off("a", &ethtool::CONTAINER_END).unwrap();
        assert!(off.iter().any(|name| name == "tx-checksum-ip-generic"), "{off:?}");
        assert_offloads_off("a");
        assert_eq!(ethtool::switch_off("a", &ethtool::CONTAINER_END).unwrap(), Vec::<String>::new());
        ethtool::switch_on("a", &off).unwrap();
        assert_eq!(output("ethtool -k a"), before);
        let gone = ethtool::switch_off("c", &ethtool::CONTAINER_END).unwrap_err().to_string();
        assert!(gone.contains("of c: No such device"), "{gone}");
    });
}

#[test]
fn a_device_is_prepared_for_af_xdp_and_put_back() {
    let Some(here) = TestNetns::new("prepare") else { return };
    here.run(|links| {
        links.create_veth([("a", None), ("b", None)], 1500, 1).unwrap();
        let before = output("ethtool -k a");
        assert!(before.contains("rx-vlan-offload: on"), "{before}");
        let path = std::env::temp_dir().join(format!("labsw-ledger-{}.devices", std::process::id()));
        let mut ledger = Ledger::open(path.clone());
        let a = links.link_by_name("a").unwrap().unwrap();
        prepare::device(links, &mut ledger, &a, 2000, None).unwrap();
        for off in ["rx-vlan-offload: off", "rx-vlan-stag-hw-parse: off", "generic-receive-offload: off"] {
            assert!(output("ethtool -k a").contains(off), "{off}");
        }
        let prepared = links.link_by_name("a").unwrap().unwrap();
        assert!(prepared.up && prepared.mtu == 2000);
        // As after a kill: what the next run finds changed already it puts back all the same, under any name.
        drop(ledger);
        output("ip link set dev a name c");
        let c = |links: &mut Links| links.link_by_name("c").unwrap().unwrap();
        let as_before = |links: &mut Links| {
            assert_eq!(c(links), Link { name: "c".to_owned(), ..a.clone() });
            assert_eq!(output("ethtool -k c"), before.replace(" a:", " c:"));
            assert!(!path.exists(), "nothing is left to put back");
        };
        let mut ledger = Ledger::open(path.clone());
        let found = c(links);
        prepare::device(links, &mut ledger, &found, 3000, None).unwrap();
        ledger.put_back_inherited(links);
        assert_eq!(c(links).mtu, 3000, "what was taken over is in use");
        ledger.put_back(links, a.index).unwrap();
        as_before(links);
        // What the next run does not take over is put back at the end of its start.
        prepare::device(links, &mut Ledger::open(path.clone()), &a_renamed(&a), 2000, None).unwrap();
        assert_eq!(c(links).mtu, 2000);
        Ledger::open(path.clone()).put_back_inherited(links);
        as_before(links);
        // Another address: another device, which is left alone.
        prepare::device(links, &mut Ledger::open(path.clone()), &a_renamed(&a), 2000, None).unwrap();
        output("ip link set c address 52:54:00:00:00:77");
        Ledger::open(path.clone()).put_back_inherited(links);
        assert_eq!(c(links).mtu, 2000);
        // What is no ledger is ignored.
        std::fs::write(&path, "{\"boot\": 7}").unwrap();
        Ledger::open(path.clone()).put_back_inherited(links);
        assert!(!path.exists());
    });
}

#[test]
fn channels_are_set_read_back_and_put_back() {
    let Some(here) = TestNetns::new("channels") else { return };
    here.run(|links| {
        output("ip link add name a numrxqueues 4 numtxqueues 4 type veth peer name b");
        let path = std::env::temp_dir().join(format!("labsw-channels-{}.devices", std::process::id()));
        let a = links.link_by_name("a").unwrap().unwrap();
        let receiving = || ethtool::channels("a").unwrap().unwrap().0.rx;
        assert_eq!(receiving(), 4);
        let mut ledger = Ledger::open(path.clone());
        prepare::device(links, &mut ledger, &a, 1500, Some(2)).unwrap();
        assert_eq!(receiving(), 2);
        drop(ledger);
        Ledger::open(path.clone()).put_back_inherited(links);
        assert_eq!(receiving(), 4);
        let mut ledger = Ledger::open(path);
        let refused = prepare::device(links, &mut ledger, &a, 1500, Some(5)).unwrap_err().to_string();
        assert_eq!(refused, "a: 5 queues wanted, but it has at most 4");
        let refused = prepare::device(links, &mut ledger, &a, 70_000, None).unwrap_err().to_string();
        assert_eq!(refused, "mtu 70000: a takes at most 65535; lower the port's mtu, or use another device");
    });
}

#[test]
fn the_interface_this_host_is_reached_by_is_protected() {
    // Looks at the namespace the test runs in, changes nothing.
    let route = Command::new("ip").args(["-4", "route", "show", "default"]).output();
    let route = route.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let Some(name) = route.split_whitespace().skip_while(|word| *word != "dev").nth(1) else {
        println!("skipped: no default route here");
        return;
    };
    let mut links = Links::open().unwrap();
    let link = links.link_by_name(name).unwrap().unwrap();
    println!("{link:?}");
    assert!(links.protection(&link, &[]).unwrap().is_some(), "{link:?}");
    if let Some(address) = &link.pci_address {
        let found = links.resolve(&DeviceSpec::Pci(address.clone())).unwrap().unwrap();
        assert_eq!(found.name, link.name);
    }
}
