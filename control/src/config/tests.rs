//! The configuration from outside: what is read, what is refused and in which words, and that nothing is lost.

use std::path::Path;
use std::time::Duration;

use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanMode, VlanSet};
use labsw_switch::{Mac, Vid};
use proptest::prelude::*;

use super::*;
use crate::filter::Expression;

mod edit;
mod generated;
mod guard;
mod impair;
mod mirror;
mod refusals;
mod schema;
mod set;
mod written;

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
    let claims = |port: &PortConfig| port.claims(&config.switch)[0].1.to_string();
    assert_eq!(claims(web), "interface lsw-web");
    assert_eq!(claims(config.port("dc01").unwrap()), "socket /run/labsw/vhost/dc01.sock");
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
    let PortKind::AfXdp(AfXdpConfig { device, mode, queues, .. }) = uplink.kind else { panic!("{:?}", uplink.kind) };
    let name = DeviceSpec::Name("enp3s0f1".to_owned());
    assert_eq!((device, mode, queues), (name, XdpMode::Auto, Queues::Count(2)));
    assert!(PortConfig::from_settings("-x", "vhost_user", &Settings::new(), &SwitchConfig::default()).is_err());
    assert!(split_setting("mtu").is_err());
}

#[test]
fn a_tap_port_keeps_its_settings_when_others_change() {
    let tap =
        |set: &[&str]| PortConfig::from_settings("host", "tap", &settings(set), &SwitchConfig::default()).unwrap();
    let plain = tap(&[]);
    let is = |port: &PortConfig, queues, mac: Option<&str>| {
        let PortKind::Tap(tap) = &port.kind else { panic!("{port:?}") };
        let mac = mac.map(|mac| mac.parse().unwrap());
        assert_eq!((tap.interface.as_str(), tap.other_end, tap.queues, tap.mac), ("host", TapEnd::Host, queues, mac));
    };
    is(&plain, 1, None);
    assert_eq!(plain.type_name(), "tap");
    let more = tap(&["queues=4", "mac=02:00:00:00:00:07"]);
    is(&more, 4, Some("02:00:00:00:00:07"));
    let guest = tap(&["interface=vm0", "for=guest", "owner=nobody", "group=kvm"]);
    for port in [plain, more, guest] {
        let changed = port.with_settings(&settings(&["vlan.tag=30"]), &SwitchConfig::default()).unwrap();
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
        let changed = added.with_settings(&settings(&["mtu=9000"]), &SwitchConfig::default()).unwrap();
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
            let changed = port.with_settings(&settings(&["mtu=1400"]), &SwitchConfig::default()).unwrap();
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
