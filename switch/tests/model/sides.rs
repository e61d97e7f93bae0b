//! What the switch and the model have in common: how ports, mirrors and frames are described to both, and how what the
//! switch decides is put in the model's terms. Used by the property test (`tests/model.rs`) and by the fuzz target
//! `forward`.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use labsw_switch::forward::{Copies, Egress, Forwarder, TagEdit};
use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_switch::tables::{Direction, LinkLocal, MirrorSpec, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode, VlanSet};
use labsw_switch::{DropReason, MirrorId, PortId, Vid};

#[path = "naive.rs"]
pub mod naive;

use naive::Outcome;

pub const AGEING_SECONDS: u32 = 10;

/// A port as both sides are told about it.
#[derive(Clone, Debug)]
pub struct Port {
    pub mode: VlanMode,
    pub tag: u16,
    pub trunks: Vec<RangeInclusive<u16>>,
    pub mtu: u32,
    pub enabled: bool,
    pub learning: bool,
    pub mirror_only: bool,
    pub drops_link_local: bool,
}

/// A mirror as both sides are told about it.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub sources: Vec<(u16, bool, bool)>,
    pub all: Option<(bool, bool)>,
    pub vlans: Option<Vec<u16>>,
    pub to: Option<u16>,
    pub snap: u32,
}

/// The specification of a mirror, without the sources that would be refused.
pub fn sane(mut mirrors: Vec<Mirror>, ports: &[Port]) -> Vec<Mirror> {
    let destinations: Vec<u16> = mirrors.iter().filter_map(|mirror| mirror.to).collect();
    for mirror in &mut mirrors {
        mirror.sources.retain(|(port, ..)| !destinations.contains(port) && !ports[usize::from(*port)].mirror_only);
    }
    mirrors
}

pub fn tables(ports: &[Port], mirrors: &[Mirror]) -> Tables {
    let rules = |port: &Port| PortRules {
        vlan: PortVlan::new(port.mode, (port.mode != VlanMode::Trunk).then_some(port.tag), &port.trunks).unwrap(),
        link_local: if port.drops_link_local { LinkLocal::Drop } else { LinkLocal::Transparent },
        mtu_bytes: port.mtu,
        enabled: port.enabled,
        learning: port.learning,
        allow_mirror: true,
        mirror_only: port.mirror_only,
    };
    let spec = |(id, mirror): (u16, &Mirror)| MirrorSpec {
        id: MirrorId(id),
        sources: mirror.sources.iter().map(|(port, rx, tx)| (PortId(*port), Direction { rx: *rx, tx: *tx })).collect(),
        all_ports: mirror.all.map(|(rx, tx)| Direction { rx, tx }),
        vlans: mirror
            .vlans
            .as_ref()
            .map(|vlans| vlans.iter().map(|vlan| Vid::try_from(*vlan).unwrap()).collect::<VlanSet>()),
        to: mirror.to.map(PortId),
        snaplen_bytes: mirror.snap,
    };
    let ports = (0u16..).zip(ports).map(|(id, port)| (PortId(id), rules(port))).collect();
    Tables::build(ports, (0u16..).zip(mirrors).map(spec).collect()).unwrap()
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

/// What the switch decides about a burst.
#[derive(Debug, Default)]
pub struct Decided {
    pub egress: Egress,
    pub copies: Copies,
}

/// Runs a burst through the switch and translates what comes out to the model's terms. Of the frames for port `n`, it does
/// not take those in `failed[n]` (bit = index).
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
    copies.choose(forwarder.tables, PortId(ingress), egress, |port| failed[port.index()]);
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
        let to = destination.to.0;
        assert!(outcome.copies.insert(to, list).is_none(), "port {to} is listed twice");
    }
    outcome.matched = copies.matched().map(|(mirror, frames)| (mirror.0, frames.count_ones())).collect();
    outcome.sole = egress.sole_mask();
    outcome
}
