//! The configuration from outside: what is read, what is refused and in which words, and that nothing is lost.

use std::path::Path;
use std::time::Duration;

use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanMode, VlanSet};
use labsw_switch::{Mac, Vid};
use proptest::prelude::*;

use super::*;
use crate::filter::Expression;

mod guard;
mod impair;
mod mirror;
mod nix;
mod refusals;

/// The one line that `text` is refused with.
fn refusal(text: &str) -> String {
    let line = Config::parse(text, "lab.toml").expect_err(text).to_string();
    assert!(!line.contains('\n'), "more than one line: {line:?}");
    line
}

fn settings(set: &[&str]) -> Settings {
    set.iter().map(|setting| split_setting(setting).unwrap()).collect()
}

#[test]
fn the_example_is_read_and_is_what_it_says() {
    let config = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lab.toml")).unwrap();
    let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["uplink", "span", "dc01", "client01", "web", "host", "win"], "in the order of the file");
    assert_eq!(config.switch.workers, [1]);
    assert_eq!(config.switch.socket_mode, 0o660);
    assert_eq!(config.switch.mac_ageing, Duration::from_secs(300));
    let uplink = config.port("uplink").unwrap();
    assert_eq!(uplink.vlan, PortVlan::new(VlanMode::Trunk, None, &[10..=10, 20..=20]).unwrap());
    assert!(config.port("span").unwrap().mirror_only);
    let web = config.port("web").unwrap();
    assert_eq!(web.veth_interface().as_deref(), Some("lsw-web"));
    let socket = config.port("dc01").unwrap().vhost_socket(&config.switch);
    assert_eq!(socket.as_deref(), Some(Path::new("/run/labsw/vhost/dc01.sock")));
}

#[test]
fn the_lab_of_the_walk_through_is_read() {
    let config = Config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/detect.toml")).unwrap();
    let mirror = &config.mirrors[0];
    let filter = mirror.filter.as_ref().map(|filter| filter.text());
    assert_eq!((mirror.to.port(), filter), (Some("span"), Some("tcp port 445")));
    assert!(mirror.inject.is_some());
}

#[test]
fn an_empty_file_is_a_switch_without_ports() {
    assert_eq!(Config::parse("", "lab.toml").unwrap(), Config::default());
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = Config::parse("[ports.a]\ntype = 'veth'\npeer = 'p'\n", "lab.toml").unwrap();
    let port = config.port("a").unwrap();
    assert_eq!(port.vlan, PortVlan::access(Vid::DEFAULT));
    assert_eq!((port.mtu, port.link_local, port.mirror_only), (1500, LinkLocal::Transparent, false));
    let text = "[switch]\nmac_table_size = 4_096\nsocket_mode = '0600'\nmac_ageing = '5min'\nworkers = [0x2]\n";
    let switch = Config::parse(text, "lab.toml").unwrap().switch;
    assert_eq!((switch.mac_table_size, switch.socket_mode, switch.workers), (4096, 0o600, vec![2]));
    assert_eq!(switch.mac_ageing, Duration::from_secs(300));
    for (text, bytes) in [
        ("64GiB", 64 << 30),
        ("64G", 64 << 30),
        ("1.5GiB", 1536 << 20),
        ("1 MiB", 1 << 20),
        ("1536MiB", 1536 << 20),
        ("1048576GiB", 1 << 50),
    ] {
        let text = format!("[switch]\nmax_guest_memory = '{text}'\n");
        let switch = Config::parse(&text, "lab.toml").unwrap().switch;
        assert_eq!(switch.max_guest_memory, Some(bytes));
        let written =
            toml::to_string(&toml::Table::from_iter([("switch".to_owned(), switch.to_toml().into())])).unwrap();
        assert_eq!(Config::parse(&written, "lab.toml").unwrap().switch, switch, "{written}");
    }
    for text in ["64", "-1GiB", "0GiB", "512K", "1048577GiB", "99999999999999999999GiB", "GiB", ""] {
        let text = format!("[switch]\nmax_guest_memory = '{text}'\n");
        let error = Config::parse(&text, "lab.toml").unwrap_err().to_string();
        assert!(
            error.contains("lab.toml:2:20: switch.max_guest_memory:") && error.contains("is not an amount"),
            "{error}"
        );
    }
    let mode = |vlan: &str| {
        PortConfig::from_settings("a", "vhost_user", &settings(&[vlan]), &SwitchConfig::default()).unwrap().vlan.mode()
    };
    assert_eq!(mode("vlan.tag=20"), VlanMode::Access);
    assert_eq!(mode("vlan.trunks=[10]"), VlanMode::Trunk);
    assert_eq!(mode("vlan={tag=1,trunks=[10]}"), VlanMode::NativeUntagged);
}

#[test]
fn the_rest_of_the_file_is_refused_as_clearly() {
    let cases = [
        ("[ports.x]\n".to_owned(), "lab.toml:1:8: ports.x: `type` is missing; it should be one of"),
        (
            "[ports.x-with-a-long-name]\ntype = 'tap'\n".into(),
            "lab.toml:1:8: ports.x-with-a-long-name.interface: the port's name is no interface name (it has 18 characters",
        ),
        (
            "[ports.x]\ntype = 'tap'\ninterface = 'sixteen-letters-'\n".into(),
            "lab.toml:3:13: ports.x.interface: \"sixteen-letters-\" is not an interface name",
        ),
        (
            "[ports.x]\ntype = 'tap'\nowner = 'nobody'\n".into(),
            "lab.toml:3:1: ports.x.owner: is a key of for = \"guest\"; the host's end needs none",
        ),
        (
            "[ports.x]\ntype = 'vhost_user'\nrole = 'client'\ngroup = 'kvm'\n".into(),
            "lab.toml:4:1: ports.x.group: is a key of role = \"server\"; the front end makes this socket",
        ),
        (
            "[ports.x]\ntype = 'vhost_user'\nmode = '888'\n".into(),
            "lab.toml:3:8: ports.x.mode: \"888\" is not permission bits in octal",
        ),
        (
            "[ports.x]\ntype = 'vhost_user'\npeer_uid = -1\n".into(),
            "lab.toml:3:12: ports.x.peer_uid: -1 is not a user's number",
        ),
        (
            "[ports.x]\ntype = 'tap'\nfor = 'guest'\nqueues = 2\n".into(),
            "lab.toml:4:1: ports.x.queues: is a key of for = \"host\"; a guest's NIC has its own",
        ),
        ("[ports.x]\ntype = 'tap'\nfor = 'vm'\n".into(), "lab.toml:3:7: ports.x.for: \"vm\" is not one of host, guest"),
        (
            "[ports.x]\ntype = 'tap'\nmac = '01:00:5e:00:00:01'\n".into(),
            "lab.toml:3:7: ports.x.mac: \"01:00:5e:00:00:01\" is not a MAC address: it is not the address of one device",
        ),
        (
            "[ports.x]\ntype = 'tap'\nqueues = 65\n".into(),
            "lab.toml:3:10: ports.x.queues: 65 is not a number of queues (1 to 64)",
        ),
        (
            "[ports.x]\ntype = 'vhost_user'\nqueues = 2\n".into(),
            "lab.toml:3:1: ports.x.queues: is a key of type af_xdp, veth and tap; this port is of type vhost_user",
        ),
        (
            "[ports.x]\ntype = 'tap'\n[ports.y]\ntype = 'tap'\ninterface = 'x'\n".into(),
            "lab.toml:5:13: ports.y.interface: interface x is already used by port x; each port needs its own",
        ),
        (
            "[switch]\nprotected_interfaces = ['x']\n[ports.x]\ntype = 'tap'\n".into(),
            "lab.toml:3:8: ports.x.interface: x is protected (switch.protected_interfaces); use another device",
        ),
        (
            "[ports.'a b']\ntype = 'veth'\n".into(),
            "lab.toml:1:8: ports.a b: \"a b\" is not a port name: use 1 to 32 of",
        ),
        ("[ports.'../x']\ntype = 'veth'\n".into(), "lab.toml:1:8: ports.../x: \"../x\" is not a port name"),
        ("[ports.\"a\\nb\"]\n".into(), "lab.toml:1:8: ports.a\\nb: \"a\\nb\" is not a port name"),
        ("ports = 3\n".into(), "lab.toml:1:9: ports: should be a table, is the number 3"),
        ("[swich]\n".into(), "lab.toml:1:2: swich: unknown key; did you mean `switch`?"),
        ("[impair.x]\n".into(), "lab.toml:1:9: impair.x: there is no port \"x\"; add it under [ports]"),
        ("[switch]\nworkers = [1, 2, 1]\n".into(), "lab.toml:2:18: switch.workers[2]: CPU 1 has a worker already"),
        (
            format!("[switch]\nworkers = {:?}\n", (0..65).collect::<Vec<_>>()),
            "lab.toml:2:258: switch.workers[64]: is one worker too many; a switch has at most 64",
        ),
        ("[switch]\nworkers = [-1]\n".into(), "lab.toml:2:12: switch.workers[0]: -1 is not a CPU number"),
        (
            "[switch]\nmetrics_listen = ':1'\n".into(),
            "lab.toml:2:18: switch.metrics_listen: \":1\" is not an IP address and a port (as in \"127.0.0.1:9477\"",
        ),
        (
            "[switch]\nmetrics_listen = '127.0.0.1:0'\n".into(),
            "lab.toml:2:18: switch.metrics_listen: \"127.0.0.1:0\" is not an IP address and a port",
        ),
        (
            vhost("a", "vlan = { trunks = [10, '20-29', '25-40'] }"),
            "lab.toml:3:33: ports.a.vlan.trunks[2]: VLAN 25 is named twice",
        ),
        (
            vhost("a", "vlan = { trunks = ['1-100', 7] }"),
            "lab.toml:3:29: ports.a.vlan.trunks[1]: VLAN 7 is named twice",
        ),
        (
            vhost("a", "mirror_only = true\n[mirrors.m]\nsources = ['a']\nto = 'b'") + &vhost("b", ""),
            "lab.toml:5:11: mirrors.m.sources: \"a\" is mirror_only, so it can't be a source",
        ),
        (
            vhost("a", "")
                + &vhost("b", "[mirrors.m]\nsources = ['a']\nto = 'b'\n[mirrors.n]\nsources = ['*']\nto = 'a'"),
            "lab.toml:11:6: mirrors.n.to: \"a\" is a source of mirror \"m\", so it can't be a destination",
        ),
        (
            vhost("a", "[mirrors.m]\nsources = ['a']\nto = 'b'") + &vhost("b", "allow_mirror = false"),
            "lab.toml:5:6: mirrors.m.to: \"b\" can't be a destination: its allow_mirror is false; set allow_mirror = true",
        ),
        (
            "[switch]\nallow_mirror = 'declared'\n".to_owned()
                + &vhost("a", "[mirrors.m]\nsources = ['*', 'a']\nto = 'b'")
                + &vhost("b", "allow_mirror = true"),
            "lab.toml:6:11: mirrors.m.sources: \"a\" can't be a source: its allow_mirror is false; set allow_mirror = true",
        ),
        (
            "[switch]\nmulticast_snooping = 'on'\n".into(),
            "lab.toml:2:22: switch.multicast_snooping: should be true, false or an array of VLAN ids and ranges, as in [10, \"20-29\"], is the string \"on\"",
        ),
        (
            "[switch]\nmulticast_snooping = [10, 4095]\n".into(),
            "lab.toml:2:27: switch.multicast_snooping[1]: 4095 is not a VLAN id (1 to 4094)",
        ),
        (
            "[switch]\nallow_mirror = true\n".into(),
            "lab.toml:2:16: switch.allow_mirror: should be one of all, declared",
        ),
        ("[switch]\nsocket_mode = '999'\n".into(), "lab.toml:2:15: switch.socket_mode: \"999\" is not permission bits"),
        (
            "[switch]\nmac_ageing = '0s'\n".into(),
            "lab.toml:2:14: switch.mac_ageing: \"0s\" is not a time in whole seconds",
        ),
        ("[switch]\nmac_ageing = '1500ms'\n".into(), "lab.toml:2:14: switch.mac_ageing: \"1500ms\" is not a time"),
        ("[switch\n".into(), "lab.toml:1:8: "),
        (
            "[ports.x]\ntype = 'veth'\npeer = 'sixteen-letters-'\n".into(),
            "lab.toml:3:8: ports.x.peer: \"sixteen-letters-\" is not an interface name: it has 16 characters",
        ),
        (
            "[ports.x]\ntype = 'veth'\npeer = 'p'\npeer_name = 'eth0'\n".into(),
            "lab.toml:4:13: ports.x.peer_name: needs `netns`",
        ),
        (
            "[ports.x]\ntype = 'af_xdp'\ndevice = 'enp3s0'\n".into(),
            "lab.toml:3:10: ports.x.device: \"enp3s0\" does not begin with one of pci: mac: name:",
        ),
        (
            "[ports.x]\ntype = 'af_xdp'\ndevice = 'pci:03:00.1'\n".into(),
            "lab.toml:3:10: ports.x.device: \"pci:03:00.1\" is not a PCI address with its domain",
        ),
        (
            "[switch]\nprotected_interfaces = ['eno1']\n[ports.x]\ntype = 'af_xdp'\ndevice = 'name:eno1'\n".into(),
            "lab.toml:5:10: ports.x.device: eno1 is protected (switch.protected_interfaces)",
        ),
        (
            vhost("a", "socket = '/s'") + &vhost("b", "socket = '/s'"),
            "lab.toml:6:10: ports.b.socket: socket /s is already used by port a",
        ),
        (
            "[ports.a]\ntype = 'veth'\npeer = 'p'\n[ports.b]\ntype = 'af_xdp'\ndevice = 'name:lsw-a'\n".into(),
            "lab.toml:6:10: ports.b.device: interface lsw-a is already used by port a",
        ),
        (
            vhost("a", "[mirrors.m]\nsources = ['b']\nto = 'a'"),
            "lab.toml:4:11: mirrors.m.sources: there is no port \"b\"",
        ),
        (
            vhost("a", "[mirrors.m]\nsources = ['*']\nto = 'aa'"),
            "lab.toml:5:6: mirrors.m.to: there is no port \"aa\"; did you mean \"a\"?",
        ),
        (vhost("a", "[mirrors.m]\nsources = ['a:rx']\nto = 'a'"), "lab.toml:5:6: mirrors.m.to: \"a\" is also a source"),
        (
            vhost("a", "[mirrors.m]\nsources = ['a:up']\nto = 'a'"),
            "lab.toml:4:12: mirrors.m.sources[0]: \"a:up\" has no direction rx, tx or both",
        ),
        (
            vhost("a", "[mirrors.m]\nsources = ['*']\nto = 'a'\nfilter = 'tcp prot'"),
            "lab.toml:6:10: mirrors.m.filter: \"tcp prot\": ",
        ),
        (
            vhost("a", "[mirrors.m]\nsources = ['*']\nto = 'a'\ninject = { vlan = 1, rates = '1pps' }"),
            "lab.toml:6:22: mirrors.m.inject.rates: unknown key; did you mean `rate`?",
        ),
    ];
    for (text, expected) in cases {
        let line = refusal(&text);
        assert!(line.starts_with(expected), "{text}\n   got {line}\nwanted {expected}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so_in_one_line() {
    let error = Config::load(Path::new("/nonexistent/lab.toml")).unwrap_err().to_string();
    assert_eq!(error, "/nonexistent/lab.toml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn settings_of_a_command_are_read_as_the_file_is() {
    let set = settings(&["peer=ls-web", "vlan.mode=access", "vlan.tag=20", "netns=web", "peer_name=eth0"]);
    let from_command = PortConfig::from_settings("web", "veth", &set, &SwitchConfig::default()).unwrap();
    let text = "[ports.web]\ntype = 'veth'\npeer = 'ls-web'\nnetns = 'web'\npeer_name = 'eth0'\n\
                vlan = { mode = 'access', tag = 20 }\n";
    assert_eq!(Some(&from_command), Config::parse(text, "lab.toml").unwrap().port("web"));

    let refused = |kind: &str, set: &[&str]| {
        PortConfig::from_settings("x", kind, &settings(set), &SwitchConfig::default()).unwrap_err().to_string()
    };
    assert_eq!(refused("vhost_user", &["vlan.tag=5000"]), "ports.x.vlan.tag: 5000 is not a VLAN id (1 to 4094)");
    assert_eq!(refused("vhost_user", &["mtu=1400\ntype='veth'"]).split(": ").next(), Some("ports.x.mtu"));
    assert!(refused("vhost_user", &["a b=1"]).starts_with("ports.x.a b: unknown key; known here: type, vlan, mtu, "));
    assert_eq!(refused("bridge", &[]), "ports.x.type: \"bridge\" is not one of af_xdp, vhost_user, veth, tap");
    assert_eq!(refused("a\nb", &[]), "ports.x.type: \"a\\nb\" is not one of af_xdp, vhost_user, veth, tap");
    let uplink = PortConfig::from_settings(
        "up",
        "af_xdp",
        &settings(&["device=name:enp3s0f1", "queues=2"]),
        &SwitchConfig::default(),
    )
    .unwrap();
    let device = DeviceSpec::Name("enp3s0f1".to_owned());
    assert_eq!(
        uplink.kind,
        PortKind::AfXdp(AfXdpConfig { device, mode: XdpMode::Auto, queues: Queues::Count(2), busy_poll: false })
    );
    assert!(PortConfig::from_settings("-x", "vhost_user", &Settings::new(), &SwitchConfig::default()).is_err());
    assert!(split_setting("mtu").is_err());
}

#[test]
fn a_tap_port_keeps_its_settings_when_others_change() {
    let tap =
        |set: &[&str]| PortConfig::from_settings("host", "tap", &settings(set), &SwitchConfig::default()).unwrap();
    let plain = tap(&[]);
    let kind = |queues, mac: Option<&str>| {
        PortKind::Tap(TapConfig {
            interface: "host".to_owned(),
            other_end: TapEnd::Host,
            queues,
            mac: mac.map(|mac| mac.parse().unwrap()),
            owner: None,
            group: None,
            netns: None,
            peer_name: None,
        })
    };
    assert_eq!((&plain.kind, plain.type_name()), (&kind(1, None), "tap"));
    let more = tap(&["queues=4", "mac=02:00:00:00:00:07"]);
    assert_eq!(more.kind, kind(4, Some("02:00:00:00:00:07")));
    let guest = tap(&["interface=vm0", "for=guest", "owner=nobody", "group=kvm"]);
    for port in [plain, more, guest] {
        let changed = port.with_settings(&settings(&["vlan.tag=30"])).unwrap();
        assert_eq!((changed.kind, changed.vlan.tag().map(u16::from)), (port.kind, Some(30)));
    }
}

#[test]
fn whether_a_port_may_be_mirrored_is_its_own_word_or_the_switchs() {
    let port = |name: &str, key: &str| format!("[ports.{name}]\ntype = 'vhost_user'\n{key}\n");
    let ports = port("own", "allow_mirror = true") + &port("not", "allow_mirror = false") + &port("silent", "");
    for (switch, silent) in [("", true), ("allow_mirror = 'all'", true), ("allow_mirror = 'declared'", false)] {
        let config = Config::parse(&format!("[switch]\n{switch}\n{ports}"), "x.toml").unwrap();
        let allowed = ["own", "not", "silent"].map(|name| config.port(name).unwrap().allow_mirror);
        assert_eq!(allowed, [true, false, silent], "{switch}");
        let added = PortConfig::from_settings("new", "vhost_user", &Settings::new(), &config.switch).unwrap();
        assert_eq!(added.allow_mirror, silent);
        let changed = added.with_settings(&settings(&["mtu=9000"])).unwrap();
        assert_eq!(changed.allow_mirror, silent, "what is not named stays");
    }
}

#[test]
fn a_port_that_says_nothing_of_vlans_is_in_one_and_a_device_of_the_host_in_all() {
    let ports = vhost("guest", "")
        + "[ports.web]\ntype = 'veth'\npeer = 'ls-web'\n[ports.tap0]\ntype = 'tap'\n"
        + "[ports.uplink]\ntype = 'af_xdp'\ndevice = 'name:lab-b'\n";
    for (switch, vlan) in [("", 1), ("default_vlan = 40", 40)] {
        let config = Config::parse(&format!("[switch]\n{switch}\n{ports}"), "x.toml").unwrap();
        for name in ["guest", "web", "tap0"] {
            let port = config.port(name).unwrap();
            assert_eq!(port.vlan, PortVlan::access(Vid::try_from(vlan).unwrap()), "{name}");
            // Shown and read again it is the same, and a change of something else keeps it.
            let changed = port.with_settings(&settings(&["mtu=1400"])).unwrap();
            assert_eq!(changed.vlan, port.vlan, "{name}");
        }
        assert_eq!(config.port("uplink").unwrap().vlan, PortVlan::default());
        let added = PortConfig::from_settings("new", "vhost_user", &Settings::new(), &config.switch).unwrap();
        assert_eq!(added.vlan, PortVlan::access(Vid::try_from(vlan).unwrap()));
    }
    let wrong = Config::parse("[switch]\ndefault_vlan = 4095\n", "x.toml").unwrap_err().to_string();
    assert!(wrong.contains("x.toml:2:16: switch.default_vlan"), "{wrong}");
}

#[test]
fn a_new_port_is_checked_beside_the_running_ones() {
    let switch = SwitchConfig::default();
    let port = |name: &str, set: &[&str]| {
        PortConfig::from_settings(name, "veth", &settings(set), &SwitchConfig::default()).unwrap()
    };
    let running = [port("a", &["peer=p"])];
    let beside = |new: PortConfig| new.check_beside(&running, &switch).map_err(|error| error.to_string());
    assert_eq!(beside(port("b", &["peer=q"])), Ok(()));
    let same_name = "ports.a: there is a port of this name already";
    assert_eq!(beside(port("a", &["peer=q"])), Err(same_name.to_owned()));
    let same_peer = "ports.b.peer: interface p is already used by port a; each port needs its own";
    assert_eq!(beside(port("b", &["peer=p"])), Err(same_peer.to_owned()));
}

#[test]
fn default_interfaces_fit_and_differ() {
    assert_eq!(default_interface("web"), "lsw-web");
    let long = ["a-container-with-a-long-name-1", "a-container-with-a-long-name-2"].map(default_interface);
    assert_ne!(long[0], long[1]);
    assert!(long.iter().all(|name| name.len() == 15), "{long:?}");
}

fn port_strategy() -> impl Strategy<Value = PortConfig> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}";
    let interface = "[a-z][a-z0-9_.-]{0,14}";
    let device = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| format!("mac:52:54:00:{a:02x}:{b:02x}:{c:02x}")),
        interface.prop_map(|name| format!("name:{name}")),
        (any::<u16>(), any::<u8>(), 0..32_u8, 0..8_u8)
            .prop_map(|(d, b, s, f)| format!("pci:{d:04x}:{b:02x}:{s:02x}.{f}")),
    ];
    let queues = prop_oneof![Just(Queues::All), (1..=64_u32).prop_map(Queues::Count)];
    let mode = prop::sample::select(vec![XdpMode::Auto, XdpMode::ZeroCopy, XdpMode::Copy, XdpMode::Skb]);
    let role = prop::sample::select(vec![VhostRole::Server, VhostRole::Client]);
    let account = || prop::option::of("[a-z][a-z0-9-]{0,20}");
    let access = (account(), account(), prop::option::of(0..=0o777_u32), prop::option::of(0..u32::MAX));
    let kind = prop_oneof![
        (device, mode, queues, any::<bool>()).prop_map(|(device, mode, queues, busy_poll)| PortKind::AfXdp(
            AfXdpConfig { device: device.parse().unwrap(), mode, queues, busy_poll }
        )),
        (role, prop::option::of("/[ -~]{1,40}"), 1..=8_u16, any::<bool>(), access).prop_map(
            |(role, socket, queue_pairs, offloads, (owner, group, mode, peer_uid))| {
                let listens = role == VhostRole::Server;
                PortKind::VhostUser(VhostUserConfig {
                    role,
                    socket: socket.map(Into::into),
                    queue_pairs,
                    offloads,
                    owner: owner.filter(|_| listens),
                    group: group.filter(|_| listens),
                    mode: mode.filter(|_| listens),
                    peer_uid,
                })
            }
        ),
        (interface, interface, prop::option::of((interface, interface)), 1..=64_u16).prop_map(
            |(peer, own, netns, queues)| {
                PortKind::Veth(VethConfig {
                    interface: Some(format!("{}X", own.get(..14).unwrap_or(&own))),
                    peer,
                    netns: netns.as_ref().map(|(netns, _)| netns.clone()),
                    peer_name: netns.map(|(_, name)| name),
                    queues,
                    mac: (queues % 2 == 0).then(|| Mac::from_u64(0x0200_0000_0000 | u64::from(queues))),
                })
            }
        ),
    ];
    let ranges = prop::collection::vec((1..4095_u16, 0..50_u16).prop_map(|(low, n)| low..=(low + n).min(4094)), 1..6);
    let vlan = (prop::sample::select(VlanMode::ALL.to_vec()), 1..4095_u16, ranges).prop_map(|(mode, tag, ranges)| {
        let tag = (mode != VlanMode::Trunk).then_some(tag);
        if mode == VlanMode::Dot1qTunnel {
            let tagged = VlanSet::from_ranges(&ranges).unwrap();
            let cvlans = CustomerVlans { untagged: ranges.len() % 2 == 0, tagged };
            let tpid = if ranges.len() > 3 { 0x8100 } else { 0x88a8 };
            let cvlans = Some(cvlans).filter(|_| ranges.len() > 1);
            return PortVlan::tunnel_in(tag.unwrap().try_into().unwrap(), Tunnel { cvlans, tpid });
        }
        let ranges = if mode == VlanMode::Access { Vec::new() } else { ranges };
        PortVlan::new(mode, tag, &ranges).unwrap()
    });
    (name, kind, vlan, MTU_MIN..=MTU_MAX, any::<[bool; 3]>(), guard::guards()).prop_map(
        |(name, kind, vlan, mtu, [drop, mirror_only, allow_mirror], guards)| PortConfig {
            name,
            kind,
            vlan,
            mtu,
            link_local: if drop { LinkLocal::Drop } else { LinkLocal::Transparent },
            mirror_only,
            allow_mirror,
            guards,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_down_reads_back_the_same(port in port_strategy()) {
        let vid = Vid::try_from(u16::try_from(1 + port.mtu % 4093).unwrap()).unwrap();
        // No port is in VLAN 4094 alone, so that this one need not be forced.
        let unused = Vid::try_from(4094).unwrap();
        let in_use = port.vlan.tag().is_some_and(|tag| tag == vid);
        let to = match port.mtu % 4 {
            0 | 1 => MirrorTo::Port(port.name.clone()),
            2 => MirrorTo::Vlan { vid: if in_use { unused } else { vid }, force: false },
            _ => MirrorTo::Vlan { vid, force: true },
        };
        let mirror = MirrorConfig {
            name: "m".to_owned(),
            sources: vec![MirrorSource { port: "*".to_owned(), rx: true, tx: false }],
            vlans: Some(port.vlan.trunks().clone()).filter(|set| !set.is_empty() && to.port().is_some()),
            filter: (port.mtu % 3 == 0).then(|| Expression::new("tcp port 445 or ether proto \\arp").unwrap()),
            snaplen: 64,
            inject: (port.mtu % 3 == 0 && to.port().is_some()).then(|| InjectConfig {
                entry: InjectEntry::Vlan(Vid::try_from(u16::try_from(1 + port.mtu % 4094).unwrap()).unwrap()),
                rate_fps: port.mtu * [1, 1000, 500][port.mtu as usize % 3],
                sources: vec![Mac::from_u64(port.mtu.into())],
            }),
            to,
        };
        let mirrors = if port.allow_mirror { vec![mirror] } else { Vec::new() };
        let multicast_snooping = if port.mtu % 3 == 0 { VlanSet::ALL } else { port.vlan.trunks().clone() };
        let allow_mirror = port.mtu % 2 == 0;
        let switch = SwitchConfig { allow_mirror, multicast_snooping, ..SwitchConfig::default() };
        let config = Config { switch, ports: vec![port], mirrors, ..Config::default() };
        let text = config.to_toml().to_string();
        prop_assert_eq!(Config::parse(&text, "written.toml"), Ok(config), "{}", text);
    }

    #[test]
    fn no_text_panics_and_every_refusal_is_one_line(text in "(\\[|\\]|ports|switch|mirrors|type|=|'veth'|\\.|\n|\"|[a-z0-9 ]|\\PC){0,40}") {
        if let Err(error) = Config::parse(&text, "lab.toml") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

fn vhost(name: &str, more: &str) -> String {
    format!("[ports.{name}]\ntype = 'vhost_user'\n{more}\n")
}

/// Ports `a` to `c` and `span`, and mirrors, given as name, destination and further keys; each watches port a.
fn with_mirrors(mirrors: &[(&str, &str, &str)]) -> Result<Config, ConfigError> {
    let ports = ["a", "b", "c", "span"].map(|name| vhost(name, "")).concat();
    let mirror =
        |(name, to, keys): &(&str, &str, &str)| format!("[mirrors.{name}]\nsources=['a']\nto='{to}'\n{keys}\n");
    Config::parse(&(ports + &mirrors.iter().map(mirror).collect::<String>()), "x.toml")
}
