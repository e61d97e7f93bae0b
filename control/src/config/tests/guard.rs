//! Guards of a port: what is read, changed and undone, and what is refused.

use labsw_switch::Mac;
use labsw_switch::guard::{FrameRate, GuardSpec, LimitAction, MAX_RATE_PPS, MacLimit, Storm};

use super::*;

/// Any guards besides those that are on or off.
pub(super) fn guards() -> impl Strategy<Value = GuardSpec> {
    let rate = || prop::option::of((1..=MAX_RATE_PPS).prop_map(|rate| FrameRate::new(rate).unwrap()));
    let action = prop::sample::select(vec![LimitAction::Drop, LimitAction::Alert]);
    let limit = (8u32..=1 << 20, action).prop_map(|(addresses, action)| MacLimit { addresses, action });
    let macs = prop::collection::btree_set((1u64..1 << 40).prop_map(|mac| Mac::from_u64(mac | 0x0200_0000_0000)), 0..8);
    (rate(), rate(), rate(), prop::option::of(limit), macs).prop_map(
        |(broadcast, multicast, unknown_unicast, mac_limit, macs)| GuardSpec {
            storm: Storm { broadcast, multicast, unknown_unicast },
            mac_limit,
            macs: macs.into_iter().collect(),
            ..GuardSpec::default()
        },
    )
}

fn vhost(keys: &str) -> String {
    format!("[ports.a]\ntype = 'vhost_user'\n{keys}\n")
}

fn read(keys: &str) -> PortConfig {
    Config::parse(&vhost(keys), "lab.toml").unwrap().ports.remove(0)
}

#[test]
fn guards_are_read_and_off_if_left_out() {
    let mac = |last| Mac::new([0x52, 0x54, 0, 0, 0, last]);
    assert_eq!(read("").guards, GuardSpec::default());
    let all = "storm = { broadcast = '1kpps', unknown_unicast = '500pps', multicast = 'off' }\nmac_limit = 8\nsticky = true\n\
               macs = ['52:54:00:00:00:02', '52-54-00-00-00-01']\nisolated = true\ndhcp_guard = true\nra_guard = true";
    let expected = GuardSpec {
        storm: Storm { broadcast: FrameRate::new(1000), multicast: None, unknown_unicast: FrameRate::new(500) },
        mac_limit: Some(MacLimit { addresses: 8, action: LimitAction::Drop }),
        sticky: true,
        macs: vec![mac(1), mac(2)],
        isolated: true,
        dhcp: true,
        ra: true,
    };
    let port = read(all);
    assert_eq!(port.guards, expected);
    // At run time: one of them, and off again.
    let set = |port: &PortConfig, set: &[&str]| port.with_settings(&settings(set), &SwitchConfig::default()).unwrap();
    let alert = set(&port, &["mac_limit_action=alert", "storm.multicast=2kpps"]).guards;
    assert_eq!(alert.mac_limit, Some(MacLimit { addresses: 8, action: LimitAction::Alert }));
    assert_eq!(alert.storm, Storm { multicast: FrameRate::new(2000), ..expected.storm });
    assert_eq!((alert.sticky, alert.macs), (true, expected.macs.clone()));
    let off = [
        "mac_limit=off",
        "storm={}",
        "sticky=false",
        "macs=[]",
        "isolated=false",
        "dhcp_guard=false",
        "ra_guard=false",
    ];
    assert_eq!(set(&port, &off), read(""));
    assert_eq!(set(&port, &["storm.broadcast=off"]).guards.storm, Storm { broadcast: None, ..expected.storm });
    assert_eq!(set(&set(&port, &["mac_limit_action=alert"]), &["mac_limit=off"]).guards.mac_limit, None);
}

#[test]
fn wrong_guards_are_refused_by_name() {
    let many: Vec<String> = (0..257).map(|n| format!("'02:00:00:00:{:02x}:{:02x}'", n / 256, n % 256)).collect();
    for (keys, complaint) in [
        (
            "storm = { broadcast = '1000' }",
            "3:23: ports.a.storm.broadcast: \"1000\" is not a rate of frames (as in \"500pps\", \"1kpps\", \"2Mpps\"; 1 to 10000000 a second",
        ),
        (
            "storm = { broadcast = 1000 }",
            "3:23: ports.a.storm.broadcast: should be a rate of frames, as in \"1kpps\", is the number 1000",
        ),
        ("storm = { broadcast = '11Mpps' }", "3:23: ports.a.storm.broadcast: \"11Mpps\" is not a rate of frames"),
        (
            "storm = { unicast = '1pps' }",
            "3:11: ports.a.storm.unicast: unknown key; known here: broadcast, multicast, unknown_unicast",
        ),
        ("storm = '1kpps'", "3:9: ports.a.storm: should be a table, is the string"),
        ("mac_limit = 0", "3:13: ports.a.mac_limit: 0 is not a number of addresses, or \"off\" (1 to 1048576)"),
        (
            "mac_limit = 'none'",
            "3:13: ports.a.mac_limit: \"none\" is not \"off\" or a number of addresses (1 to 1048576)",
        ),
        ("mac_limit_action = 'drop'", "3:20: ports.a.mac_limit_action: is there without `mac_limit`; set that too"),
        (
            "mac_limit = 1\nmac_limit_action = 'shutdown'",
            "4:20: ports.a.mac_limit_action: \"shutdown\" is not one of drop, alert",
        ),
        (
            "mac_limit = 1\nmacs = ['02:00:00:00:00:01', '02:00:00:00:00:02']",
            "4:8: ports.a.macs: names 2 addresses, but mac_limit is 1",
        ),
        (
            "macs = ['03:00:00:00:00:01']",
            "3:9: ports.a.macs[0]: \"03:00:00:00:00:01\" is not a MAC address: it is not the address of one device",
        ),
        (
            "macs = ['02:00:00:00:00:01', '02-00-00-00-00-01']",
            "3:30: ports.a.macs[1]: 02:00:00:00:00:01 is named twice",
        ),
        (&format!("macs = [{}]", many.join(",")), "ports.a.macs[256]: a port can be pinned to at most 256 addresses"),
        ("stiky = true", "3:1: ports.a.stiky: unknown key; did you mean `sticky`?"),
        ("isolated = 1", "3:12: ports.a.isolated: should be true or false, is the number 1"),
    ] {
        let line = refusal(&vhost(keys));
        assert!(line.starts_with("lab.toml:3:") || line.starts_with("lab.toml:4:"), "{line}");
        assert!(line.contains(complaint), "{line}\nshould say {complaint}");
    }
}
