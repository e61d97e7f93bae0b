//! Configurations that are refused, and the facts that are worked out beforehand.

use super::*;
use crate::vlan::VlanMode;

fn ports(count: u16) -> Vec<(PortId, PortRules)> {
    (0..count).map(|port| (PortId(port), PortRules::default())).collect()
}

fn mirror(id: u16, sources: &[u16], to: Option<u16>) -> MirrorSpec {
    MirrorSpec {
        id: MirrorId(id),
        sources: sources.iter().map(|port| (PortId(*port), Direction::BOTH)).collect(),
        all_ports: None,
        vlans: None,
        to: to.map(PortId).map(MirrorTo::Port),
        snaplen_bytes: 0,
        filter: None,
    }
}

fn refusal(ports: Vec<(PortId, PortRules)>, mirrors: Vec<MirrorSpec>) -> TablesError {
    Tables::build(ports, mirrors).unwrap_err()
}

#[test]
fn contradictions_are_refused() {
    let high = PortId(u16::try_from(MAX_PORTS).unwrap());
    assert_eq!(refusal(vec![(high, PortRules::default())], vec![]), TablesError::PortOutOfRange(high));
    assert_eq!(refusal([ports(2), ports(1)].concat(), vec![]), TablesError::DuplicatePort(PortId(0)));
    let high = MirrorId(u16::try_from(MAX_MIRRORS).unwrap());
    assert_eq!(refusal(ports(2), vec![mirror(high.0, &[0], Some(1))]), TablesError::MirrorOutOfRange(high));
    let twice = vec![mirror(3, &[0], Some(1)), mirror(3, &[0], None)];
    assert_eq!(refusal(ports(2), twice), TablesError::DuplicateMirror(MirrorId(3)));
    for absent in [mirror(0, &[2], Some(1)), mirror(0, &[0], Some(2))] {
        let error = TablesError::UnknownPort { mirror: MirrorId(0), port: PortId(2) };
        assert_eq!(refusal(ports(2), vec![absent]), error);
    }
}

#[test]
fn a_mirror_never_watches_a_destination() {
    let own = TablesError::SourceIsDestination { mirror: MirrorId(0), port: PortId(1) };
    assert_eq!(refusal(ports(2), vec![mirror(0, &[0, 1], Some(1))]), own);
    assert_eq!(own.to_string(), "mirror 0 has port 1 as a source, which is a mirror destination");
    let ring = vec![mirror(0, &[1], Some(2)), mirror(1, &[0], Some(1))];
    assert_eq!(refusal(ports(3), ring), own);
    let mut kept_free = ports(2);
    kept_free[1].1.mirror_only = true;
    assert_eq!(refusal(kept_free, vec![mirror(0, &[1], None)]), own);

    let all = MirrorSpec { all_ports: Some(Direction::BOTH), ..mirror(0, &[], Some(1)) };
    let tables = Tables::build(ports(2), vec![all]).unwrap();
    assert!(tables.has_mirrors_in_force());
    assert_eq!(tables.port(PortId(0)).unwrap().rx_mirrors.iter().count(), 1);
    assert_eq!(tables.port(PortId(0)).unwrap().tx_mirrors.iter().count(), 1);
    let destination = tables.port(PortId(1)).unwrap();
    assert!(
        destination.rx_mirrors.iter().next().is_none()
            && destination.tx_mirrors.iter().next().is_none()
            && destination.mirror_destination
    );
}

#[test]
fn a_mirror_of_all_ports_passes_over_those_that_may_not_be_watched() {
    let mut three = ports(3);
    three[0].1.allow_mirror = false;
    let all = MirrorSpec { all_ports: Some(Direction::BOTH), ..mirror(0, &[], Some(2)) };
    let tables = Tables::build(three, vec![all]).unwrap();
    let watched = [0, 1].map(|port| {
        let port = tables.port(PortId(port)).unwrap();
        [port.rx_mirrors.iter().count(), port.tx_mirrors.iter().count()]
    });
    assert_eq!(watched, [[0, 0], [1, 1]]);
}

#[test]
fn a_mirror_without_a_destination_that_is_up_costs_nothing() {
    let mut ports = ports(3);
    ports[2].1.enabled = false;
    let tables = Tables::build(ports, vec![mirror(7, &[0], Some(2)), mirror(2, &[0], None)]).unwrap();
    assert!(tables.port(PortId(0)).unwrap().rx_mirrors.iter().next().is_none());
    assert_eq!(tables.mirrors().iter().map(|mirror| mirror.id.0).collect::<Vec<_>>(), [2, 7]);
    assert_eq!(tables.mirrors().iter().map(|mirror| mirror.to).collect::<Vec<_>>(), [None, Some(PortId(2).into())]);
    assert!(!tables.has_mirrors_in_force());
}

#[test]
fn flood_lists_hold_the_members_that_are_up() {
    let mut ports = ports(4);
    ports[1].1.vlan = PortVlan::access(Vid::try_from(20).unwrap());
    ports[2].1.enabled = false;
    ports[3].1.mirror_only = true;
    let tables = Tables::build(ports, vec![]).unwrap();
    let flood = |vid: u16| {
        let members = tables.flood(Vid::try_from(vid).unwrap());
        members.iter().map(|member| (member.port.0, member.leaves == Leaves::Tagged)).collect::<Vec<_>>()
    };
    assert_eq!(flood(1), [(0, false)]);
    assert_eq!(flood(20), [(0, true), (1, false)]);
    assert_eq!(flood(4094), [(0, true)]);
    // None, VLAN 1, others, VLAN 20, others.
    assert_eq!(tables.floods.len(), 5);
    assert_eq!(tables.ports().map(|port| port.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(tables.is_mirror_destination(PortId(3)) && !tables.is_mirror_destination(PortId(9)));
    assert!(Tables::empty().flood(Vid::DEFAULT).is_empty());
}

#[test]
fn an_rspan_vlan_belongs_to_the_trunks_that_name_it() {
    let vid = |vid: u16| Vid::try_from(vid).unwrap();
    let port = |mode: VlanMode, tag: Option<u16>, trunks: &[std::ops::RangeInclusive<u16>]| PortRules {
        vlan: PortVlan::new(mode, tag, trunks).unwrap(),
        ..PortRules::default()
    };
    let named = port(VlanMode::Trunk, None, &[10..=10, 900..=900]);
    let ports: Vec<PortRules> = vec![
        named.clone(),
        port(VlanMode::NativeUntagged, Some(10), &[900..=900]),
        // In every VLAN, in it by its own VLAN, not up, not in it, a mirror destination.
        PortRules::default(),
        port(VlanMode::NativeTagged, Some(900), &[900..=901]),
        port(VlanMode::Access, Some(900), &[]),
        port(VlanMode::Dot1qTunnel, Some(900), &[]),
        PortRules { enabled: false, ..named.clone() },
        port(VlanMode::Trunk, None, &[901..=901]),
        PortRules { mirror_only: true, ..named },
    ];
    let ports: Vec<_> = (0u16..).map(PortId).zip(ports).collect();
    let remote = |vlan: u16| MirrorSpec { to: Some(MirrorTo::Vlan(vid(vlan))), ..mirror(0, &[2], None) };
    let tables = Tables::build(ports.clone(), vec![remote(900)]).unwrap();
    let rspan_ports = |vlan| -> Vec<PortId> {
        let members = tables.flood(vid(vlan)).iter().map(|member| member.port);
        members.filter(|_| tables.is_rspan(vid(vlan))).collect()
    };
    assert!(tables.is_rspan(vid(900)) && !tables.is_rspan(vid(901)));
    assert_eq!(rspan_ports(900), [PortId(0), PortId(1)]);
    assert_eq!(rspan_ports(10), [], "not an RSPAN VLAN");
    let mirror = tables.port(PortId(2)).unwrap().rx_mirrors.iter().next().unwrap();
    assert_eq!(*mirror.to, [PortId(0), PortId(1)], "copies go where frames of the VLAN go");
    assert!(!tables.is_mirror_destination(PortId(0)), "which takes other traffic, too");
    let flooded: Vec<PortId> = tables.flood(vid(901)).iter().map(|member| member.port).collect();
    assert_eq!(flooded, [PortId(2), PortId(3), PortId(7)], "other VLANs are as they were");

    // Nobody names it: the session waits, and the VLAN is an RSPAN VLAN all the same.
    let waiting = Tables::build(ports, vec![remote(1000)]).unwrap();
    assert!(!waiting.has_mirrors_in_force() && waiting.is_rspan(vid(1000)));
    assert!(waiting.mirror_vlans().unwrap().contains(vid(1000)) && waiting.flood(vid(1000)).is_empty());
}

/// The kernel fast path is for ports about whose frames nothing else decides, or looks at.
#[test]
fn lone_vlans_are_those_of_a_port_without_rules_and_mirrors() {
    let access = |tag| PortVlan::access(Vid::try_from(tag).unwrap());
    let rules = |vlan| PortRules { vlan, ..PortRules::default() };
    let lone = |rules: PortRules, mirrors: Vec<MirrorSpec>| {
        let span = PortRules { mirror_only: true, ..PortRules::default() };
        Tables::build(vec![(PortId(0), rules), (PortId(9), span)], mirrors).unwrap().lone_vlans(PortId(0))
    };
    let set = |ranges: &[_]| VlanSet::from_ranges(ranges).unwrap();
    let ten = Some(Vid::try_from(10).unwrap());
    let vlans = |native, native_leaves_tagged, tagged| Ok(LoneVlans { native, native_leaves_tagged, tagged });
    assert_eq!(lone(rules(access(10)), Vec::new()), vlans(ten, false, VlanSet::EMPTY));
    let trunk = || PortVlan::new(VlanMode::Trunk, None, &[1..=20]).unwrap();
    assert_eq!(lone(rules(trunk()), Vec::new()), vlans(None, false, set(&[1..=20])));
    let hybrid = |mode| PortVlan::new(mode, Some(10), &[12..=20]).unwrap();
    let with_native = || set(&[10..=10, 12..=20]);
    assert_eq!(lone(rules(hybrid(VlanMode::NativeUntagged)), Vec::new()), vlans(ten, false, with_native()));
    assert_eq!(lone(rules(hybrid(VlanMode::NativeTagged)), Vec::new()), vlans(ten, true, with_native()));
    for (rules, why) in [
        (PortRules { enabled: false, ..rules(access(10)) }, "the port takes no frames"),
        (PortRules { mirror_only: true, ..rules(access(10)) }, "the port takes no frames"),
        (PortRules { learning: false, ..rules(access(10)) }, "the port is a tunnel, or learns nothing"),
        (
            rules(PortVlan::new(VlanMode::Dot1qTunnel, Some(10), &[]).unwrap()),
            "the port is a tunnel, or learns nothing",
        ),
    ] {
        assert_eq!(lone(rules, Vec::new()), Err(why));
    }
    let watching = lone(rules(access(10)), vec![mirror(0, &[0], Some(9))]);
    assert_eq!(watching, Err("a mirror watches the port"));
    // One without a destination takes nothing.
    assert_eq!(lone(rules(access(10)), vec![mirror(0, &[0], None)]), vlans(ten, false, VlanSet::EMPTY));
    // A VLAN that copies go to is left out, and no other.
    let rspan = |vid: u16| MirrorSpec { to: Some(MirrorTo::Vlan(vid.try_into().unwrap())), ..mirror(0, &[], None) };
    assert_eq!(lone(rules(access(10)), vec![rspan(10)]), Err("a mirror watches the VLAN"));
    assert_eq!(lone(rules(trunk()), vec![rspan(10)]), vlans(None, false, set(&[1..=9, 11..=20])));
    let without_native = lone(rules(hybrid(VlanMode::NativeUntagged)), vec![rspan(10)]);
    assert_eq!(without_native, vlans(None, false, set(&[12..=20])));
}
