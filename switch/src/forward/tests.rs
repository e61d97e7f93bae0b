//! Single decisions worth naming; the random ones are in `tests/model.rs`.

use super::*;
use crate::tables::{Direction, MirrorSpec, PortRules};
use crate::vlan::{PortVlan, VlanMode};
use crate::{Mac, MirrorId, Vid};

mod guards;

const A: PortId = PortId(0);
const B: PortId = PortId(1);
const C: PortId = PortId(2);
const SPAN: PortId = PortId(3);

fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0, 0, last])
}

fn bytes(dst: Mac, src: Mac) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&dst.octets());
    frame[6..12].copy_from_slice(&src.octets());
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame
}

fn mirror(id: u16, sources: &[(PortId, Direction)]) -> MirrorSpec {
    MirrorSpec {
        id: MirrorId(id),
        sources: sources.to_vec(),
        all_ports: None,
        vlans: None,
        to: Some(SPAN.into()),
        snaplen_bytes: 0,
        filter: None,
    }
}

fn ports() -> Vec<(PortId, PortRules)> {
    let rules = || PortRules { vlan: PortVlan::access(Vid::DEFAULT), ..PortRules::default() };
    [A, B, C, SPAN].map(|port| (port, rules())).to_vec()
}

/// A copy and its mirror.
type SpanCopy = (TxItem, u16);

/// A switch and what it decided.
struct Bed {
    tables: Tables,
    fdb: Fdb,
    egress: Egress,
    copies: Copies,
    /// The frames of the burst.
    frames: Vec<Vec<u8>>,
    drops: Vec<(PortId, DropReason)>,
}

impl Bed {
    fn new(ports: Vec<(PortId, PortRules)>, mirrors: Vec<MirrorSpec>) -> Bed {
        let tables = Tables::build(ports, mirrors).unwrap();
        let (egress, copies) = (Egress::new(), Copies::new());
        Bed { tables, fdb: Fdb::new(100, 300, 1), egress, copies, frames: Vec::new(), drops: Vec::new() }
    }

    fn frame(&mut self, ingress: PortId, index: u8, frame: &[u8], frame_bytes: u32) {
        self.frames.resize(usize::from(index) + 1, frame.to_vec());
        let forwarder = Forwarder { tables: &self.tables, fdb: &self.fdb, now_seconds: 0 };
        let drops = &mut |_: u8, port: PortId, reason: DropReason| self.drops.push((port, reason));
        forwarder.ingress(ingress).frame(index, frame, frame_bytes, &mut self.egress, drops);
    }

    fn send(&mut self, ingress: PortId, index: u8, dst: Mac, src: Mac) {
        self.frame(ingress, index, &bytes(dst, src), 60);
    }

    /// The copies SPAN gets of what came from A, with their mirrors, if `failed` tells what other ports did not take;
    /// and how many frames each mirror matched.
    fn copies(&mut self, failed: impl Fn(PortId) -> u64) -> (Vec<SpanCopy>, Vec<(u16, u32)>) {
        self.copies.select(&self.tables, A, &mut self.egress, self.frames.as_slice());
        self.copies.choose(&self.egress, failed);
        let matched = self.copies.matched().map(|(mirror, frames)| (mirror.0, frames.count_ones())).collect();
        assert!(self.copies.destinations().len() <= 1, "there is one destination");
        let Some(destination) = self.copies.destinations().first() else { return (Vec::new(), matched) };
        assert_eq!(destination.to, SPAN);
        let mirror = |item: &TxItem| destination.parts.iter().find(|part| part.frames >> item.frame & 1 == 1);
        (destination.items.iter().map(|item| (*item, mirror(item).unwrap().mirror.0)).collect(), matched)
    }
}

fn copy(frame: u8, mirror: u16) -> SpanCopy {
    (TxItem::whole(frame, TagEdit::KEEP), mirror)
}

#[test]
fn floods_then_learns_then_does_not_hairpin() {
    let mut bed = Bed::new(ports(), vec![]);
    bed.send(A, 0, mac(2), mac(1));
    assert_eq!(bed.egress.active(), [B, C, SPAN]);
    assert_eq!(bed.egress.unshared(), 0);
    bed.egress.clear();
    assert!(bed.egress.active().is_empty() && bed.egress.items(B).is_empty());
    bed.send(B, 0, mac(1), mac(2));
    bed.send(B, 1, mac(2), mac(3));
    bed.send(B, 63, mac(1), mac(2));
    assert_eq!(bed.egress.active(), [A]);
    assert_eq!(bed.egress.items(A).iter().map(|item| item.frame).collect::<Vec<_>>(), [0, 63]);
    assert_eq!(bed.egress.unshared(), 1 << 63 | 1);
    assert_eq!(bed.drops, [(B, DropReason::SamePort)]);
}

#[test]
fn a_port_that_is_down_or_unknown_takes_nothing() {
    let mut down = ports();
    down[1].1.enabled = false;
    let mut bed = Bed::new(down, vec![]);
    bed.fdb.learn(Vid::DEFAULT, mac(2), B, 0);
    bed.send(A, 0, mac(2), mac(1));
    bed.send(B, 1, mac(1), mac(2));
    bed.send(PortId(900), 2, mac(1), mac(2));
    assert_eq!(bed.drops, [B, B, PortId(900)].map(|port| (port, DropReason::PortDown)));
    bed.send(A, 3, Mac::BROADCAST, mac(1));
    assert_eq!(bed.egress.active(), [C, SPAN]);
}

#[test]
fn the_mtu_counts_behind_the_tags_and_where_the_frame_is_lost() {
    let mut small = ports();
    small[1].1.mtu_bytes = 1000;
    let mut bed = Bed::new(small, vec![]);
    let frame = bytes(Mac::BROADCAST, mac(1));
    bed.frame(A, 0, &frame, 14 + 1500);
    bed.frame(A, 1, &frame, 14 + 1501);
    bed.frame(B, 2, &frame, 14 + 1001);
    let oversize = [B, A, B].map(|port| (port, DropReason::Oversize));
    assert_eq!(bed.drops, oversize);
    assert_eq!(bed.egress.items(C).len(), 1);
    assert_eq!(bed.egress.items(B).len(), 0);
}

#[test]
fn what_a_tunnel_puts_in_front_counts_for_every_frame_of_a_run() {
    let mut ports = ports();
    ports[0].1.vlan = PortVlan::new(VlanMode::Dot1qTunnel, Some(100), &[]).unwrap();
    ports[1].1.vlan = PortVlan::new(VlanMode::Trunk, None, &[]).unwrap();
    let mut bed = Bed::new(ports, vec![]);
    bed.fdb.learn(Vid::try_from(100).unwrap(), mac(2), B, 0);
    let mut frame = bytes(mac(2), mac(1));
    frame[12..18].copy_from_slice(&[0x81, 0, 0, 20, 0x08, 0]);
    let forwarder = Forwarder { tables: &bed.tables, fdb: &bed.fdb, now_seconds: 0 };
    let mut burst = forwarder.ingress(A);
    for (index, frame_bytes) in [(0, 18 + 1496), (1, 18 + 1497), (2, 18 + 1496)] {
        let drops = &mut |at: u8, port: PortId, reason: DropReason| {
            assert_eq!((at, port, reason), (1, B, DropReason::Oversize));
            bed.drops.push((port, reason));
        };
        burst.frame(index, &frame, frame_bytes, &mut bed.egress, drops);
    }
    assert_eq!((bed.drops.len(), bed.egress.items(B).len()), (1, 2));
    let edit = TagEdit { strip_bytes: 0, insert: Some([0x88, 0xa8, 0, 100]) };
    assert!(bed.egress.items(B).iter().all(|item| item.edit == edit));
}

#[test]
fn a_lonely_port_has_no_destination() {
    let mut bed = Bed::new(ports()[..1].to_vec(), vec![]);
    bed.send(A, 0, Mac::BROADCAST, mac(1));
    assert_eq!(bed.drops, [(A, DropReason::NoDestination)]);
}

#[test]
fn an_ingress_copy_serves_every_mirror_of_its_destination() {
    let both = mirror(0, &[(A, Direction::BOTH), (B, Direction::BOTH)]);
    let mut bed = Bed::new(ports(), vec![both, mirror(1, &[(B, Direction::TX)])]);
    bed.send(A, 0, Mac::BROADCAST, mac(1));
    bed.send(A, 1, Mac::BROADCAST, mac(1));
    let (copies, matched) = bed.copies(|_| u64::MAX);
    assert_eq!(copies, [copy(0, 0), copy(1, 0)]);
    assert_eq!(matched, [(0, 2), (1, 2)]);
    assert_eq!(bed.egress.active(), [B, C], "nothing but copies for the destination");
    bed.egress.clear();
    bed.frames.clear();
    assert_eq!(bed.copies(|_| 0), (vec![], vec![]));
}

#[test]
fn the_first_egress_that_took_the_frame_is_copied() {
    let snapped = MirrorSpec { snaplen_bytes: 64, ..mirror(1, &[(C, Direction::TX)]) };
    let mirrors = vec![mirror(0, &[(B, Direction::TX)]), snapped];
    let mut tagged = ports();
    tagged[2].1.vlan = PortVlan::new(VlanMode::NativeTagged, Some(1), &[]).unwrap();
    let mut bed = Bed::new(tagged, mirrors);
    for index in 0..3 {
        bed.send(A, index, Mac::BROADCAST, mac(1));
    }
    let edit = TagEdit { strip_bytes: 0, insert: Some([0x81, 0, 0, 1]) };
    let of_c = (TxItem { frame: 0, edit, snap_bytes: 64 }, 1);
    let (copies, matched) = bed.copies(|port| if port == B { 0b001 } else { 0 });
    assert_eq!(copies, [of_c, copy(1, 0), copy(2, 0)], "in the order of the frames");
    assert_eq!(matched, [(0, 3), (1, 3)]);
    let (copies, matched) = bed.copies(|_| 0b101);
    assert_eq!(copies, [copy(1, 0)]);
    assert_eq!(matched, [(0, 3), (1, 3)], "what could not be copied is matched, too");
}

#[test]
fn a_frame_dropped_by_vlan_rules_is_still_mirrored_but_never_from_a_destination() {
    let all = MirrorSpec { all_ports: Some(Direction::BOTH), ..mirror(0, &[]) };
    let mut bed = Bed::new(ports(), vec![all]);
    let mut tagged = bytes(Mac::BROADCAST, mac(1));
    tagged[12..18].copy_from_slice(&[0x81, 0, 0, 1, 0x08, 0]);
    bed.frame(A, 0, &tagged, 60);
    bed.send(SPAN, 1, Mac::BROADCAST, mac(9));
    bed.frame(A, 2, &tagged[..13], 13);
    let lost = [(A, DropReason::TaggedNotAllowed), (SPAN, DropReason::MirrorDestination), (A, DropReason::Runt)];
    assert_eq!(bed.drops, lost);
    assert_eq!(bed.copies(|_| 0).0, [copy(0, 0)]);
    assert!(bed.fdb.is_empty(), "neither a dropped frame nor one from a destination teaches anything");
}
