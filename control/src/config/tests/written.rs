//! What is written down reads back the same, whatever it is.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;
use crate::model;

/// The type of a port and the settings of that type, without those that are true or false.
fn types() -> impl Strategy<Value = (PortType, Value)> {
    let interface = "[a-z][a-z0-9_.-]{0,14}";
    let device = prop_oneof![
        any::<[u8; 3]>().prop_map(|[a, b, c]| format!("mac:52:54:00:{a:02x}:{b:02x}:{c:02x}")),
        interface.prop_map(|name| format!("name:{name}")),
        (any::<u16>(), any::<u8>(), 0..32_u8, 0..8_u8)
            .prop_map(|(d, b, s, f)| format!("pci:{d:04x}:{b:02x}:{s:02x}.{f}")),
    ];
    let queues = prop_oneof![Just(json!("all")), (1..=64_u32).prop_map(|count| json!(count))];
    let mode = prop::sample::select(vec!["auto", "zero_copy", "copy", "skb"]);
    let role = prop::sample::select(vec!["server", "client"]);
    let account = || prop::option::of("[a-z][a-z0-9-]{0,20}");
    let access = (account(), account(), prop::option::of(0..=0o777_u32), prop::option::of(0..u32::MAX));
    prop_oneof![
        (device, mode, queues).prop_map(|(device, mode, queues)| {
            (PortType::AfXdp, json!({"device": device, "mode": mode, "queues": queues}))
        }),
        (role, prop::option::of("/[ -~]{1,40}"), 1..=8_u16, access).prop_map(
            |(role, socket, queue_pairs, (owner, group, mode, peer_uid))| {
                let mut settings =
                    json!({"role": role, "socket": socket, "queue_pairs": queue_pairs, "peer_uid": peer_uid});
                if role == "server" {
                    let mode = mode.map(|mode| format!("{mode:04o}"));
                    settings.as_object_mut().unwrap().extend(object(json!({
                        "owner": owner, "group": group, "mode": mode
                    })));
                }
                (PortType::VhostUser, settings)
            }
        ),
        (interface, interface, prop::option::of((interface, interface)), 1..=64_u16).prop_map(
            |(peer, own, netns, queues)| {
                let interface = format!("{}X", own.get(..14).unwrap_or(&own));
                let mac = (queues % 2 == 0).then(|| format!("02:00:00:00:00:{queues:02x}"));
                let (netns, peer_name) = netns.unzip();
                let settings = json!({
                    "interface": interface, "peer": peer, "netns": netns, "peer_name": peer_name, "queues": queues,
                    "mac": mac
                });
                (PortType::Veth, settings)
            }
        ),
    ]
}

/// The VLANs of a port.
fn vlans() -> impl Strategy<Value = PortVlan> {
    let ranges = prop::collection::vec((1..4095_u16, 0..50_u16).prop_map(|(low, n)| low..=(low + n).min(4094)), 1..6);
    (prop::sample::select(VlanMode::ALL.to_vec()), 1..4095_u16, ranges).prop_map(|(mode, tag, ranges)| {
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
    })
}

fn object(value: Value) -> Settings {
    match value {
        Value::Object(fields) => fields,
        other => panic!("not an object: {other}"),
    }
}

/// The keys of a type that are true or false.
fn booleans(port_type: PortType) -> impl Iterator<Item = &'static str> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(Config::schema);
    let types = SCHEMA["properties"]["ports"]["additionalProperties"]["oneOf"].as_array().unwrap();
    let table = types.iter().find(|table| table["title"] == port_type.name()).unwrap();
    let keys = table["properties"].as_object().unwrap().iter();
    keys.filter(|(_, schema)| schema["type"] == "boolean").map(|(key, _)| key.as_str())
}

/// Ports with any settings. Every key that is true or false is set.
pub(super) fn ports() -> impl Strategy<Value = PortConfig> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}";
    let common = (vlans(), MTU_MIN..=MTU_MAX, any::<bool>(), guard::guards());
    (name, types(), common, any::<u64>()).prop_map(|(name, (port_type, own), (vlan, mtu, drop, guards), bits)| {
        let rewind = (u64::from(mtu) << 20).clamp(4 << 20, 1 << 30);
        let rewind = if drop { format!("{}MiB", rewind >> 20) } else { "off".to_owned() };
        let link_local = if drop { LinkLocal::Drop } else { LinkLocal::Transparent };
        let mut settings = object(json!({
            "vlan": model::Vlan::written(&vlan), "mtu": mtu, "link_local": link_local, "rewind": rewind
        }));
        settings.extend(object(own));
        settings.extend(object(json!(model::Guards::written(&guards))));
        let bits = (0..64).map(|bit| bits >> bit & 1 == 1);
        let chosen: Vec<_> = booleans(port_type).zip(bits).collect();
        settings.extend(chosen.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let port = PortConfig::from_settings(&name, port_type.name(), &settings, &SwitchConfig::default()).unwrap();
        let shown = port.to_settings();
        for (key, value) in chosen {
            assert_eq!(shown.get(key).unwrap_or(&json!(false)), &json!(value), "{key} of {port:?}");
        }
        port
    })
}

/// A configuration with this port, and perhaps with a mirror of it.
pub(super) fn around(port: PortConfig) -> Config {
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
        filter: (port.mtu.is_multiple_of(3)).then(|| Expression::new("tcp port 445 or ether proto \\arp").unwrap()),
        snaplen: 64,
        inject: (port.mtu.is_multiple_of(3) && to.port().is_some()).then(|| InjectConfig {
            entry: InjectEntry::Vlan(Vid::try_from(u16::try_from(1 + port.mtu % 4094).unwrap()).unwrap()),
            rate_fps: port.mtu * [1, 1000, 500][port.mtu as usize % 3],
            sources: vec![Mac::from_u64(port.mtu.into())],
        }),
        to,
    };
    let mirrors = if port.allow_mirror { vec![mirror] } else { Vec::new() };
    let multicast_snooping = if port.mtu.is_multiple_of(3) { VlanSet::ALL } else { port.vlan.trunks().clone() };
    let allow_mirror = port.mtu.is_multiple_of(2);
    let switch = SwitchConfig { allow_mirror, multicast_snooping, ..SwitchConfig::default() };
    Config { switch, ports: vec![port], mirrors, ..Config::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_down_reads_back_the_same(port in ports()) {
        let config = around(port);
        let text = config.to_toml().to_string();
        prop_assert_eq!(Config::parse(&text, "written.toml"), Ok(config), "{}", text);
    }

    #[test]
    fn the_settings_of_a_port_make_the_same_port(port in ports()) {
        let switch = SwitchConfig::default();
        let again = PortConfig::from_settings(&port.name, port.type_name(), &port.to_settings(), &switch);
        prop_assert_eq!(again, Ok(port));
    }

    #[test]
    fn no_text_panics_and_every_refusal_is_one_line(text in "(\\[|\\]|ports|switch|mirrors|type|=|'veth'|\\.|\n|\"|[a-z0-9 ]|\\PC){0,40}") {
        if let Err(error) = Config::parse(&text, "lab.toml") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
