//! What is written down reads back the same, whatever it is.

use super::*;

/// What a port can be attached to.
fn kinds() -> impl Strategy<Value = PortKind> {
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
    prop_oneof![
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
                    offloads: queues % 3 == 0,
                    mac: (queues % 2 == 0).then(|| Mac::from_u64(0x0200_0000_0000 | u64::from(queues))),
                })
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

/// Ports of every type.
pub(super) fn ports() -> impl Strategy<Value = PortConfig> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,31}";
    (name, kinds(), vlans(), MTU_MIN..=MTU_MAX, any::<[bool; 4]>(), guard::guards()).prop_map(
        |(name, kind, vlan, mtu, [drop, mirror_only, allow_mirror, finish_checksums], guards)| PortConfig {
            rewind: Some(u64::from(mtu) << 20).filter(|bytes| drop && (4 << 20..=1 << 30).contains(bytes)),
            name,
            kind,
            vlan,
            mtu,
            link_local: if drop { LinkLocal::Drop } else { LinkLocal::Transparent },
            mirror_only,
            allow_mirror,
            finish_checksums,
            guards,
        },
    )
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
    fn no_text_panics_and_every_refusal_is_one_line(text in "(\\[|\\]|ports|switch|mirrors|type|=|'veth'|\\.|\n|\"|[a-z0-9 ]|\\PC){0,40}") {
        if let Err(error) = Config::parse(&text, "lab.toml") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
