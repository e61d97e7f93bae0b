//! The common ground of the switch and the model: how ports, mirrors and frames are described to both, and how the
//! switch's decisions are put in the model's terms. Used by the property test (`tests/model.rs`) and by the fuzz target
//! `forward`.

use std::sync::Arc;

use labsw_switch::fdb::Fdb;
use labsw_switch::forward::{Copies, Egress, Forwarder, TagEdit};
use labsw_switch::guard::{GuardSpec, Guards, LimitAction, MacLimit};
use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_switch::inject::{IngressAs, InjectSpec, Injection};
use labsw_switch::inline::InlineSpec;
use labsw_switch::tables::{Direction, LinkLocal, MirrorSpec, MirrorTo, PortRules, Tables};
use labsw_switch::vlan::{CustomerVlans, PortVlan, Tunnel, VlanMode, VlanSet};
use labsw_switch::{DropReason, Mac, MirrorId, PortId, Vid};

pub mod foretell;
pub mod naive;
mod scene;

pub use scene::{AGEING_SECONDS, Guarded, Inject, Inline, Mirror, Pattern, Port, To};

use naive::Outcome;

/// The specification of a mirror, without the sources that would be refused.
pub fn sane(mut mirrors: Vec<Mirror>, ports: &[Port]) -> Vec<Mirror> {
    let destinations: Vec<u16> = mirrors.iter().filter_map(|mirror| mirror.to?.port()).collect();
    for mirror in &mut mirrors {
        mirror.sources.retain(|(port, ..)| !destinations.contains(port) && !ports[usize::from(*port)].mirror_only);
    }
    mirrors
}

/// The sensors that may be where they are: at ports that are no mirror destinations, each at one sensor.
pub fn placed(inlines: Vec<Inline>, ports: &[Port], mirrors: &[Mirror]) -> Vec<Inline> {
    let mut taken: Vec<u16> = mirrors.iter().filter_map(|mirror| mirror.to?.port()).collect();
    let mut fits = |inline: &Inline| {
        [inline.port, inline.near, inline.far].iter().all(|port| {
            let free = !taken.contains(port) && !ports[usize::from(*port)].mirror_only;
            taken.push(*port);
            free
        })
    };
    inlines.into_iter().filter(|inline| fits(inline)).collect()
}

pub fn tables(ports: &[Port], mirrors: &[Mirror], inlines: &[Inline]) -> Tables {
    let vlan = |port: &Port| {
        if port.mode != VlanMode::Dot1qTunnel {
            return PortVlan::new(port.mode, (port.mode != VlanMode::Trunk).then_some(port.tag), &port.trunks).unwrap();
        }
        let tagged = VlanSet::from_ranges(&port.trunks).unwrap();
        let cvlans = CustomerVlans { untagged: port.customer_untagged, tagged };
        let cvlans = Some(cvlans).filter(|_| !port.trunks.is_empty());
        PortVlan::tunnel_in(Vid::try_from(port.tag).unwrap(), Tunnel { cvlans, tpid: port.tpid })
    };
    let rules = |port: &Port| PortRules {
        vlan: vlan(port),
        link_local: if port.drops_link_local { LinkLocal::Drop } else { LinkLocal::Transparent },
        mtu_bytes: port.mtu,
        enabled: port.enabled,
        learning: port.learning,
        allow_mirror: true,
        mirror_only: port.mirror_only,
        guards: Guards::new(guards(&port.guards), &Arc::default()),
        inject: port.inject.as_ref().map(gate),
        remote: None,
    };
    let spec = |(id, mirror): (u16, &Mirror)| MirrorSpec {
        id: MirrorId(id),
        sources: mirror.sources.iter().map(|(port, rx, tx)| (PortId(*port), Direction { rx: *rx, tx: *tx })).collect(),
        all_ports: mirror.all.map(|(rx, tx)| Direction { rx, tx }),
        vlans: mirror
            .vlans
            .as_ref()
            .map(|vlans| vlans.iter().map(|vlan| Vid::try_from(*vlan).unwrap()).collect::<VlanSet>()),
        to: mirror.to.map(|to| match to {
            To::Port(port) => PortId(port).into(),
            To::Vlan(vlan) => MirrorTo::Vlan(Vid::try_from(vlan).unwrap()),
        }),
        snaplen_bytes: mirror.snap,
        filter: mirror.pattern.as_ref().map(|pattern| Arc::new(pattern.filter())),
    };
    let ports = (0u16..).zip(ports).map(|(id, port)| (PortId(id), rules(port))).collect();
    let inlines: Vec<InlineSpec> = {
        let spec = |&Inline { port, near, far, way }: &Inline| InlineSpec {
            port: PortId(port),
            near: PortId(near),
            far: PortId(far),
            way,
        };
        inlines.iter().map(spec).collect()
    };
    Tables::build_with(ports, (0u16..).zip(mirrors).map(spec).collect(), &inlines).unwrap()
}

fn guards(guarded: &Guarded) -> GuardSpec {
    let action = |drops| if drops { LimitAction::Drop } else { LimitAction::Alert };
    let mut macs: Vec<Mac> =
        guarded.pinned.iter().flatten().map(|last| Mac::new([0x52, 0x54, 0, 0, 0, *last])).collect();
    macs.sort_unstable();
    GuardSpec {
        sticky: guarded.sticky,
        isolated: guarded.isolated,
        macs,
        mac_limit: guarded.limit.map(|(addresses, drops)| MacLimit { addresses, action: action(drops) }),
        ..GuardSpec::default()
    }
}

/// A forwarding database that knows the rules of these ports.
pub fn fdb(ports: &[Port], seed: u64) -> Fdb {
    let fdb = Fdb::new(1000, AGEING_SECONDS, seed);
    for (id, port) in (0u16..).zip(ports) {
        fdb.set_port_limit(PortId(id), port.guards.limit.map(|(addresses, _)| addresses));
        fdb.set_port_sticky(PortId(id), port.guards.sticky, 0);
    }
    fdb
}

/// A gate that lets through as many frames as come.
fn gate(inject: &Inject) -> Arc<Injection> {
    let by_vlan = inject.vlan.map(|vlan| IngressAs::Vlan(Vid::try_from(vlan).unwrap()));
    let spec = InjectSpec {
        ingress: by_vlan.unwrap_or(IngressAs::Port(PortId(inject.port))),
        rate_fps: 1_000_000_000,
        sources: inject.sources.iter().copied().map(Mac::new).collect(),
    };
    Arc::new(Injection::new(spec, 0x5eed))
}

/// The frame as it leaves with `edit`.
pub fn apply(edit: TagEdit, frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend(edit.insert.unwrap_or_default().iter().take(if edit.insert.is_some() { 4 } else { 0 }));
    bytes.extend(&frame[12 + usize::from(edit.strip_bytes)..]);
    let grown = i32::try_from(bytes.len()).unwrap() - i32::try_from(frame.len()).unwrap();
    assert_eq!(grown, edit.growth_bytes());
    bytes
}

/// The switch's decision about a burst.
#[derive(Debug, Default)]
pub struct Decided {
    pub egress: Egress,
    pub copies: Copies,
}

/// Runs a burst through the switch and translates what comes out to the model's terms. Of the frames for port `n`, it
/// does not take those in `failed[n]` (bit = index).
pub fn decide(
    forwarder: Forwarder<'_>,
    Decided { egress, copies }: &mut Decided,
    ingress: u16,
    frames: &[Vec<u8>],
    failed: &[u64],
) -> Outcome {
    let mut outcome = Outcome::default();
    egress.clear();
    let mut burst = forwarder.ingress(PortId(ingress));
    for (index, frame) in (0u8..).zip(frames) {
        let snapshot = &frame[..frame.len().min(SNAPSHOT_BYTES)];
        let frame_bytes = u32::try_from(frame.len()).unwrap();
        let mut count = |at: u8, port: PortId, reason: DropReason| {
            assert_eq!(at, index, "a drop of another frame");
            outcome.drops.push((port.0, reason));
        };
        burst.frame(index, snapshot, frame_bytes, egress, &mut count);
    }
    for port in egress.active() {
        let sent = egress.items(*port).iter().map(|item| {
            let index = usize::from(item.frame);
            (index, apply(item.edit, &frames[index]))
        });
        assert!(outcome.sent.insert(port.0, sent.collect()).is_none(), "port {} is listed twice", port.0);
    }
    copies.select(forwarder.tables, PortId(ingress), egress, frames);
    copies.choose(egress, |port| failed[port.index()]);
    for destination in copies.destinations() {
        let list = destination.items.iter().map(|item| {
            let index = usize::from(item.frame);
            let mut bytes = apply(item.edit, &frames[index]);
            if item.snap_bytes != 0 {
                bytes.truncate(item.snap_bytes.into());
            }
            let parts = || destination.parts.iter().filter(|part| part.frames >> index & 1 == 1);
            assert_eq!(parts().count(), 1, "a copy has one mirror");
            assert_eq!(parts().map(|part| part.snap_bytes).max(), Some(item.snap_bytes));
            (index, parts().map(|part| part.mirror.0).sum(), bytes)
        });
        let list: Vec<_> = list.collect();
        let counted: u32 = destination.parts.iter().map(|part| part.frames.count_ones()).sum();
        assert_eq!(counted as usize, list.len(), "what is counted is copied");
        let to = (destination.to.0, destination.rspan.map(Vid::get));
        assert!(outcome.copies.insert(to, list).is_none(), "destination {to:?} is listed twice");
    }
    outcome.matched = copies.matched().map(|(mirror, frames)| (mirror.0, frames.count_ones())).collect();
    outcome.unshared = egress.unshared();
    outcome
}
