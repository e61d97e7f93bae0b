//! Checking a specification and working out the lists of [`Tables`].

use std::collections::HashSet;

use super::{Direction, FloodMember, MirrorSpec, Port, PortRules, Tables, TablesError, Watch, Watches};
use crate::{MAX_MIRRORS, MAX_PORTS, PortId, Vid};

pub(super) fn check(ports: &[(PortId, PortRules)], mirrors: &[MirrorSpec]) -> Result<(), TablesError> {
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
        if let Some(port) = sources.clone().chain(spec.to).find(|port| !known.contains(port)) {
            return Err(TablesError::UnknownPort { mirror, port });
        }
        if let Some(port) = sources.clone().find(|port| destinations.contains(port)) {
            return Err(TablesError::SourceIsDestination { mirror, port });
        }
    }
    Ok(())
}

/// The ports that only send mirror copies.
fn destinations(ports: &[(PortId, PortRules)], mirrors: &[MirrorSpec]) -> HashSet<PortId> {
    let declared = ports.iter().filter(|(_, rules)| rules.mirror_only).map(|(port, _)| *port);
    declared.chain(mirrors.iter().filter_map(|mirror| mirror.to)).collect()
}

/// Builds the tables of a checked specification.
pub(super) fn tables(ports: Vec<(PortId, PortRules)>, mut mirrors: Vec<MirrorSpec>) -> Tables {
    mirrors.sort_by_key(|mirror| mirror.id);
    let destinations = destinations(&ports, &mirrors);
    let up: HashSet<PortId> = ports.iter().filter(|(_, rules)| rules.enabled).map(|(port, _)| *port).collect();
    let places = ports.iter().map(|(port, _)| port.index() + 1).max().unwrap_or(0);
    let mut table: Box<[Option<Port>]> = (0..places).map(|_| None).collect();
    for (id, rules) in ports {
        let mirror_destination = destinations.contains(&id);
        let watches = |direction: fn(Direction) -> bool| -> Watches {
            let live = mirrors.iter().filter(|_| !mirror_destination);
            live.filter_map(|mirror| watch(mirror, (id, &rules), direction, &up)).collect()
        };
        let port = Port { mirror_destination, rx_mirrors: watches(|d| d.rx), tx_mirrors: watches(|d| d.tx), rules };
        if let Some(place) = table.get_mut(id.index()) {
            *place = Some(port);
        }
    }
    let (flood_of, floods) = floods(&table);
    let watched = |port: &Port| !port.rx_mirrors.is_empty() || !port.tx_mirrors.is_empty();
    let mirrors_in_force = table.iter().flatten().any(watched);
    Tables { ports: table, mirrors, mirrors_in_force, flood_of, floods }
}

/// How `mirror` watches frames of `port` in a direction, if it does and has a destination that is up.
fn watch(
    mirror: &MirrorSpec,
    (port, rules): (PortId, &PortRules),
    direction: fn(Direction) -> bool,
    up: &HashSet<PortId>,
) -> Option<Watch> {
    let to = mirror.to.filter(|to| up.contains(to))?;
    let named = mirror.sources.iter().filter(|(source, _)| *source == port).map(|(_, watched)| *watched);
    named.chain(mirror.all_ports.filter(|_| rules.allow_mirror)).any(direction).then(|| Watch {
        mirror: mirror.id,
        to,
        // Longer than any frame is as good as whole.
        snap_bytes: u16::try_from(mirror.snaplen_bytes).unwrap_or(0),
        vlans: mirror.vlans.clone().map(Box::new),
    })
}

/// Per VLAN id the index of its list, and the lists.
fn floods(table: &[Option<Port>]) -> (Box<[u16; 4096]>, Vec<Box<[FloodMember]>>) {
    let mut flood_of = Box::new([0u16; 4096]);
    let mut floods: Vec<Box<[FloodMember]>> = vec![Box::default()];
    for vid in 1..=Vid::MAX {
        let Ok(vid) = Vid::try_from(vid) else { continue };
        let members = || (0u16..).zip(table).filter_map(|(index, port)| member(PortId(index), port.as_ref()?, vid));
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

fn member(id: PortId, port: &Port, vid: Vid) -> Option<FloodMember> {
    let Port { rules, mirror_destination, tx_mirrors, .. } = port;
    (rules.enabled && !mirror_destination && rules.vlan.is_member(vid)).then(|| FloodMember {
        port: id,
        tagged: rules.vlan.leaves_tagged(vid),
        watched: tx_mirrors.select(Some(vid)),
        mtu_bytes: rules.mtu_bytes,
    })
}
