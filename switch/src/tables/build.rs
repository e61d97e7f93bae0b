//! Checking a specification and working out the lists of [`Tables`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Direction, Inject, Member, MirrorSpec, MirrorTo, Port, PortRules, Remote, Tables};
use super::{PortMirror, PortMirrors, TablesError};
use crate::inject::IngressAs;
use crate::inline::{InlineSpec, Part, Way};
use crate::vlan::{PortVlan, VlanMode, VlanSet};
use crate::{MAX_MIRRORS, MAX_PORTS, PortId, Vid};

pub(super) fn check(
    ports: &[(PortId, PortRules)],
    mirrors: &[MirrorSpec],
    inlines: &[InlineSpec],
) -> Result<(), TablesError> {
    let mut known = HashSet::new();
    for (port, _) in ports {
        if port.index() >= MAX_PORTS {
            return Err(TablesError::PortOutOfRange(*port));
        }
        if !known.insert(*port) {
            return Err(TablesError::DuplicatePort(*port));
        }
    }
    let mut ids = HashSet::new();
    let destinations = destinations(ports, mirrors);
    for spec in mirrors {
        let mirror = spec.id;
        if mirror.index() >= MAX_MIRRORS {
            return Err(TablesError::MirrorOutOfRange(mirror));
        }
        if !ids.insert(mirror) {
            return Err(TablesError::DuplicateMirror(mirror));
        }
        let sources = spec.sources.iter().map(|(port, _)| *port);
        if let Some(port) = sources.clone().chain(spec.to.and_then(MirrorTo::port)).find(|port| !known.contains(port)) {
            return Err(TablesError::UnknownPort { mirror, port });
        }
        if let Some(port) = sources.clone().find(|port| destinations.contains(port)) {
            return Err(TablesError::SourceIsDestination { mirror, port });
        }
    }
    let mut taken = HashSet::new();
    for port in inlines.iter().flat_map(InlineSpec::ports) {
        match port {
            port if !known.contains(&port) => return Err(TablesError::UnknownInlinePort(port)),
            port if destinations.contains(&port) => return Err(TablesError::InlineDestination(port)),
            port if !taken.insert(port) => return Err(TablesError::DuplicateInlinePort(port)),
            _ => {}
        }
    }
    Ok(())
}

/// The part that a port takes for a sensor.
fn part(id: PortId, inlines: &[InlineSpec]) -> Option<Part> {
    let InlineSpec { port, near, far, way } = *inlines.iter().find(|inline| inline.ports().contains(&id))?;
    let passes = way == Way::Through;
    match way {
        _ if id == near => Some(Part::Near { of: port, passes }),
        _ if id == far => Some(Part::Far { of: port, passes }),
        Way::Through => Some(Part::Port { near, far }),
        Way::Closed => Some(Part::Closed),
        Way::Past => None,
    }
}

/// The ports that only send mirror copies.
fn destinations(ports: &[(PortId, PortRules)], mirrors: &[MirrorSpec]) -> HashSet<PortId> {
    let declared = ports.iter().filter(|(_, rules)| rules.mirror_only).map(|(port, _)| *port);
    declared.chain(mirrors.iter().filter_map(|mirror| mirror.to?.port())).collect()
}

/// Builds the tables of a checked specification.
pub(super) fn tables(ports: Vec<(PortId, PortRules)>, mut mirrors: Vec<MirrorSpec>, inlines: &[InlineSpec]) -> Tables {
    mirrors.sort_by_key(|mirror| mirror.id);
    let destinations = destinations(&ports, &mirrors);
    let parts: HashMap<PortId, Part> = {
        let part = |(id, _): &(PortId, PortRules)| Some((*id, part(*id, inlines)?));
        ports.iter().filter_map(part).collect()
    };
    let targets = |mirror| targets(mirror, &ports, &destinations, &parts);
    let targets: Vec<Arc<[PortId]>> = mirrors.iter().map(targets).collect();
    let rspan: VlanSet = mirrors.iter().filter_map(|mirror| mirror.to?.vlan()).collect();
    let places = ports.iter().map(|(port, _)| port.index() + 1).max().unwrap_or(0);
    let mut table: Box<[Option<Port>]> = (0..places).map(|_| None).collect();
    for (id, rules) in ports {
        let mirror_destination = destinations.contains(&id);
        let part = parts.get(&id).copied();
        let at_port = |direction: fn(Direction) -> bool| -> PortMirrors {
            let live = mirrors.iter().zip(&targets).filter(|(_, to)| !mirror_destination && !to.is_empty());
            live.filter_map(|(mirror, to)| port_mirror(mirror, (id, &rules, part), direction, to)).collect()
        };
        let inject = inject(&rules).filter(|_| mirror_destination);
        let (rx_mirrors, tx_mirrors) = (at_port(|d| d.rx), at_port(|d| d.tx));
        let (is_plain, is_open) = (rules.is_plain(), rules.enabled && !mirror_destination && part.is_none());
        // Known when all mirrors are.
        let is_usual = false;
        let port =
            Port { is_plain, is_usual, is_open, mirror_destination, part, rx_mirrors, tx_mirrors, rules, inject };
        if let Some(place) = table.get_mut(id.index()) {
            *place = Some(port);
        }
    }
    let (flood_of, floods) = floods(&table, &rspan);
    let ports = || table.iter().flatten();
    let in_force = || ports().flat_map(|port| port.rx_mirrors.iter().chain(port.tx_mirrors.iter()));
    let mirrors_in_force = in_force().next().is_some();
    let mut mirror_vlans = None;
    for vlans in in_force().filter_map(PortMirror::vlans).chain(Some(&rspan).filter(|set| !set.is_empty())) {
        let set = mirror_vlans.get_or_insert_with(|| Box::new(VlanSet::EMPTY));
        vlans.iter().for_each(|vid| set.insert(vid));
    }
    for port in table.iter_mut().flatten() {
        let selected = |vid| mirror_vlans.as_ref().is_some_and(|vlans| vlans.contains(vid));
        port.is_usual = port.is_plain && !port.rules.vlan.tag().is_some_and(selected);
    }
    let rspan = Box::new(rspan);
    Tables { ports: table, mirrors, mirrors_in_force, mirror_vlans, rspan, flood_of, floods, snooping: None }
}

/// The injection of a mirror destination with these rules.
fn inject(rules: &PortRules) -> Option<Inject> {
    let injection = rules.inject.clone()?;
    let virtual_port = match injection.spec().ingress {
        IngressAs::Port(_) => None,
        IngressAs::Vlan(vid) => {
            let only = [vid.get()..=vid.get()];
            let vlan = PortVlan::new(VlanMode::NativeUntagged, Some(vid.get()), &only).ok()?;
            let rules = PortRules { vlan, learning: false, inject: None, ..rules.clone() };
            let none = || PortMirrors::from_iter([]);
            let (rx_mirrors, tx_mirrors) = (none(), none());
            let (is_plain, is_open, mirror_destination, part) = (false, false, false, None);
            Some(Box::new(Port {
                is_plain,
                is_usual: false,
                is_open,
                mirror_destination,
                part,
                rx_mirrors,
                tx_mirrors,
                rules,
                inject: None,
            }))
        }
    };
    Some(Inject { injection, virtual_port })
}

/// The ports that are up and that `mirror` sends its copies to.
fn targets(
    mirror: &MirrorSpec,
    ports: &[(PortId, PortRules)],
    destinations: &HashSet<PortId>,
    parts: &HashMap<PortId, Part>,
) -> Arc<[PortId]> {
    let is_target = |port: PortId, rules: &PortRules| match mirror.to {
        Some(MirrorTo::Port(to)) => port == to,
        Some(MirrorTo::Vlan(vid)) => rules.vlan.lists_explicitly(vid) && !destinations.contains(&port),
        None => false,
    };
    let targets = ports.iter().filter(|(port, rules)| rules.enabled && is_target(*port, rules));
    let mut targets: Vec<PortId> = targets.filter_map(|(port, _)| leaves_by(*port, parts.get(port))).collect();
    targets.sort_unstable();
    targets.into()
}

/// The port that frames to a port leave by; `None`: the port takes none.
fn leaves_by(port: PortId, part: Option<&Part>) -> Option<PortId> {
    match part {
        None => Some(port),
        Some(Part::Port { far, .. }) => Some(*far),
        Some(Part::Closed | Part::Near { .. } | Part::Far { .. }) => None,
    }
}

/// `mirror` at `port`, if it copies frames of that port in a direction.
fn port_mirror(
    mirror: &MirrorSpec,
    (port, rules, part): (PortId, &PortRules, Option<Part>),
    direction: fn(Direction) -> bool,
    to: &Arc<[PortId]>,
) -> Option<PortMirror> {
    let named = mirror.sources.iter().filter(|(source, _)| *source == port).map(|(_, watched)| *watched);
    // What is at the ports of a sensor was, or will be, at another port.
    let all = mirror.all_ports.filter(|_| rules.allow_mirror && !part.is_some_and(Part::is_of_sensor));
    named.chain(all).any(direction).then(|| PortMirror {
        id: mirror.id,
        to: Arc::clone(to),
        rspan: mirror.to.and_then(MirrorTo::vlan).map(|vid| Remote { vid, behind: rules.vlan.tunnel().is_some() }),
        // Longer than any frame is as good as whole.
        snap_bytes: u16::try_from(mirror.snaplen_bytes).unwrap_or(0),
        filter: mirror.filter.clone(),
        vlans: mirror.vlans.clone().map(Box::new),
    })
}

/// Per VLAN id the index of its list, and the lists.
fn floods(table: &[Option<Port>], rspan: &VlanSet) -> (Box<[u16; 4096]>, Vec<Box<[Member]>>) {
    let mut flood_of = Box::new([0u16; 4096]);
    let mut floods: Vec<Box<[Member]>> = vec![Box::default()];
    for vid in 1..=Vid::MAX {
        let Ok(vid) = Vid::try_from(vid) else { continue };
        let takes =
            |vlan: &PortVlan| if rspan.contains(vid) { vlan.lists_explicitly(vid) } else { vlan.is_member(vid) };
        let member = |(index, port): (u16, &Option<Port>)| {
            member(PortId(index), port.as_ref().filter(|port| takes(&port.rules.vlan))?, vid)
        };
        let members = || (0u16..).zip(table).filter_map(member);
        if !floods.last().is_some_and(|last| last.iter().copied().eq(members())) {
            floods.push(members().collect());
        }
        if let Some(place) = flood_of.get_mut(vid.index()) {
            // At most one list per VLAN id and the empty one: fits.
            *place = u16::try_from(floods.len() - 1).unwrap_or(0);
        }
    }
    (flood_of, floods)
}

fn member(id: PortId, port: &Port, vid: Vid) -> Option<Member> {
    let Port { rules, mirror_destination, part, .. } = port;
    let by = leaves_by(id, part.as_ref())?;
    (rules.enabled && !mirror_destination).then(|| Member {
        port: id,
        by,
        leaves: rules.vlan.leaves(vid),
        isolated: port.is_isolated(),
        mtu_bytes: rules.mtu_bytes,
    })
}
