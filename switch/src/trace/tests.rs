//! The steps a trace shows: all of a frame that passes, and none behind a drop.

use super::*;
use crate::fdb::{Fdb, Learned};
use crate::tables::{Direction, MirrorSpec, PortRules, Tables};
use crate::vlan::PortVlan;
use crate::{Mac, Vid};

const NOW: u64 = 0;
const A: PortId = PortId(0);
const B: PortId = PortId(1);
const C: PortId = PortId(2);
const SPAN: PortId = PortId(3);

fn frame(dst: u8, src: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 0x88, 0xb5];
    frame.resize(60, 0);
    frame
}

fn vid(vid: u16) -> Vid {
    Vid::try_from(vid).unwrap()
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

/// Two ports in VLAN 20, one in VLAN 30, a mirror destination.
fn tables(mirrors: Vec<MirrorSpec>) -> Tables {
    let port = |vlan| PortRules { vlan: PortVlan::access(vid(vlan)), ..PortRules::default() };
    let span = PortRules { mirror_only: true, ..PortRules::default() };
    Tables::build(vec![(A, port(20)), (B, port(20)), (C, port(30)), (SPAN, span)], mirrors).unwrap()
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

#[test]
fn every_step_of_a_frame_that_passes_is_told_in_order() {
    let (tables, fdb) = (tables(Vec::new()), Fdb::new(16, 300, 1));
    fdb.add_static(vid(20), mac(9), A).unwrap();
    fdb.learn(vid(20), mac(2), B, 100);
    let by = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 112 };
    let told = trace(by, NOW, A, &frame(2, 1), |_| true);
    let [Event::Step(Step::Header(header)), rest @ ..] = told.events.as_slice() else { panic!("{told:?}") };
    assert_eq!((header.dst, header.src, header.ethertype), (mac(2), mac(1), 0x88b5));
    let known = Step::Known { at: B, is_static: false, age_seconds: 12 };
    let steps = [Step::Vlan(vid(20)), Step::Source(Some(Learned::New)), known].map(Event::Step);
    assert_eq!(rest, steps);
    assert_eq!(told.sent, [(B, TagEdit::KEEP)]);
    assert_eq!(fdb.entry(vid(20), mac(1), 112), None, "nothing was learned");

    let told = trace(by, NOW, B, &frame(9, 2), |_| true);
    let known = Step::Known { at: A, is_static: true, age_seconds: 0 };
    assert_eq!(told.events[2..], [Step::Source(Some(Learned::Refreshed)), known].map(Event::Step));
    assert_eq!(fdb.entry(vid(20), mac(2), 112).map(|entry| entry.age_seconds), Some(12), "not even refreshed");

    let told = trace(by, NOW, A, &frame(7, 2), |_| true);
    let moved = Step::Source(Some(Learned::Moved { from: B }));
    assert_eq!(told.events[2..], [moved, Step::Unknown].map(Event::Step));
    assert_eq!(told.sent, [(B, TagEdit::KEEP)]);
}

#[test]
fn nothing_is_told_behind_a_drop() {
    let (tables, fdb) = (tables(Vec::new()), Fdb::new(16, 300, 1));
    let by = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 0 };
    assert_eq!(trace(by, NOW, A, &[0; 13], |_| true).events, [Event::Dropped(A, DropReason::Runt)]);
    assert_eq!(
        trace(by, NOW, SPAN, &frame(2, 1), |_| true).events,
        [Event::Dropped(SPAN, DropReason::MirrorDestination)]
    );
    assert_eq!(
        trace(by, NOW, C, &frame(2, 1), |_| true).events.last(),
        Some(&Event::Dropped(C, DropReason::NoDestination))
    );
    // A station that sends to itself: forwarding would have learned where it is by then.
    let told = trace(by, NOW, A, &frame(1, 1), |_| true);
    let here = Event::Step(Step::Known { at: A, is_static: false, age_seconds: 0 });
    assert_eq!(told.events[3..], [here, Event::Dropped(A, DropReason::SamePort)]);
}

#[test]
fn mirrors_are_told_with_what_they_watch_and_copies_follow_what_was_taken() {
    let sources = [(A, Direction::RX), (B, Direction::TX)];
    let tables = tables(vec![mirror(0, &sources), mirror(1, &sources[1..])]);
    let fdb = Fdb::new(16, 300, 1);
    let by = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 0 };
    let told = trace(by, NOW, A, &frame(2, 1), |_| true);
    let watched: Vec<_> = told.selected.iter().map(|selection| (selection.mirror.0, selection.egress)).collect();
    assert_eq!(watched, [(0, None), (0, Some(B)), (1, Some(B))]);
    let copy = Copy { mirror: MirrorId(0), to: SPAN, rspan: None, edit: TagEdit::KEEP, snap_bytes: 0 };
    assert_eq!(told.copies, [copy], "one copy for one destination");
    // From B only what B sends could be copied, by the second mirror; and A takes nothing.
    let told = trace(by, NOW, B, &frame(1, 2), |port| port != A);
    assert_eq!((told.sent, told.selected.len(), told.copies.len()), (vec![(A, TagEdit::KEEP)], 0, 0));
    let only_b = mirror(1, &sources[1..]);
    let tables = self::tables(vec![only_b]);
    let by = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 0 };
    let told = trace(by, NOW, A, &frame(2, 1), |port| port != B);
    assert_eq!((told.selected.len(), told.copies.len()), (1, 0), "selected, but B did not take the frame");
}
