//! The database against a `HashMap`, and fairness under a flood.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::slot::Kind;
use super::*;

mod foretold;
mod threads;

fn vid(vid: u16) -> Vid {
    Vid::try_from(vid).unwrap()
}

fn mac(number: u64) -> Mac {
    Mac::from_u64(0x5254_0000_0000 | number)
}

const VLAN: Vid = Vid::DEFAULT;

#[test]
fn learning_refreshing_moving() {
    let fdb = Fdb::new(100, 10, 1);
    assert_eq!(fdb.lookup(VLAN, mac(1), 0), None);
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(3), 5), Learned::New);
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(3), 5), Learned::Known);
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(3), 4), Learned::Known, "a clock read a moment earlier");
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(3), 6), Learned::Refreshed);
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(4), 6), Learned::Moved { from: PortId(3) });
    assert_eq!(fdb.lookup(VLAN, mac(1), 6), Some(PortId(4)));
    assert_eq!(fdb.lookup(vid(2), mac(1), 6), None, "another VLAN");
    assert_eq!(fdb.learn(VLAN, Mac::BROADCAST, PortId(4), 6), Learned::Group);
    assert_eq!((fdb.len(), fdb.len_of_port(PortId(3)), fdb.len_of_port(PortId(4))), (1, 0, 1));
}

#[test]
fn moves_are_counted_and_the_first_of_them_kept() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.learn(VLAN, mac(1), PortId(3), 5);
    assert_eq!((fdb.take_moves(), fdb.moved()), (Moves::default(), 0));
    fdb.learn(vid(7), mac(1), PortId(4), 5);
    assert_eq!(fdb.moved(), 0, "another VLAN");
    fdb.learn(VLAN, mac(1), PortId(4), 5);
    let moved = Moved { vid: VLAN, mac: mac(1), from: PortId(3), to: PortId(4) };
    assert_eq!(fdb.take_moves(), Moves { first: vec![moved], further: 0 });
    assert_eq!((fdb.take_moves(), fdb.moved()), (Moves::default(), 1));
    fdb.learn(VLAN, mac(1), PortId(5), 15);
    assert_eq!(fdb.moved(), 1, "it had aged");
    // However many move, few are kept.
    for port in 0..1000 {
        fdb.learn(VLAN, mac(1), PortId(port % 2), 15);
    }
    let Moves { first, further } = fdb.take_moves();
    assert_eq!((first.len(), further, fdb.moved()), (MAX_MOVES, 1000 - MAX_MOVES as u64, 1001));
}

#[test]
fn ageing_and_sweeping() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.learn(VLAN, mac(1), PortId(3), 100);
    fdb.learn(VLAN, mac(2), PortId(3), 105);
    assert_eq!(fdb.lookup(VLAN, mac(1), 109), Some(PortId(3)));
    assert_eq!(fdb.lookup(VLAN, mac(1), 110), None);
    assert_eq!(fdb.entries(FdbFilter::default(), 110).len(), 1);
    assert_eq!((0..1000).map(|_| fdb.sweep(110, 4)).sum::<usize>(), 1);
    assert_eq!(fdb.len(), 1);
    assert_eq!(fdb.learn(VLAN, mac(2), PortId(9), 115), Learned::New, "an aged entry is as good as none");
    assert_eq!((fdb.len(), fdb.len_of_port(PortId(3)), fdb.len_of_port(PortId(9))), (1, 0, 1));
    fdb.set_ageing(0);
    assert_eq!(fdb.lookup(VLAN, mac(2), 1_000_000), Some(PortId(9)), "ageing is off");
}

#[test]
fn time_may_wrap_and_go_backwards() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.learn(VLAN, mac(1), PortId(3), u32::MAX - 2);
    assert_eq!(fdb.lookup(VLAN, mac(1), 3), Some(PortId(3)));
    assert_eq!(fdb.entries(FdbFilter::default(), 3)[0].age_seconds, 6);
    assert_eq!(fdb.lookup(VLAN, mac(1), 7), None);
    fdb.learn(VLAN, mac(2), PortId(3), 1000);
    assert_eq!(fdb.lookup(VLAN, mac(2), 500), Some(PortId(3)));
    assert_eq!(fdb.entries(FdbFilter::default(), 500)[0].age_seconds, 0);
    assert_eq!(fdb.learn(VLAN, mac(2), PortId(3), 500), Learned::Refreshed, "takes the new time");
    assert_eq!(fdb.lookup(VLAN, mac(2), 510), None);
}

#[test]
fn static_entries_stay_put() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.learn(VLAN, mac(1), PortId(3), 0);
    fdb.add_static(VLAN, mac(1), PortId(5)).unwrap();
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(3), 0), Learned::Static);
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(5), 77), Learned::Known);
    assert_eq!(fdb.lookup(VLAN, mac(1), 1_000_000), Some(PortId(5)));
    assert_eq!(fdb.flush(None, None) + fdb.sweep(1_000_000, 10_000), 0);
    let listed =
        FdbEntry { vid: VLAN, mac: mac(1), port: PortId(5), is_static: true, is_sticky: false, age_seconds: 0 };
    assert_eq!(fdb.entries(FdbFilter::default(), 99), [listed]);
    assert_eq!((fdb.len(), fdb.len_of_port(PortId(3)), fdb.len_of_port(PortId(5))), (1, 0, 0));
    assert_eq!(fdb.remove_port(PortId(5)), 1);
    assert!(!fdb.remove(VLAN, mac(1)) && fdb.is_empty());
}

#[test]
fn a_table_of_static_entries_is_full() {
    let fdb = Fdb::new(4, 0, 1);
    fdb.learn(VLAN, mac(100), PortId(1), 0);
    for number in 0..4 {
        fdb.add_static(VLAN, mac(number), PortId(0)).unwrap();
    }
    assert_eq!(fdb.add_static(VLAN, mac(4), PortId(0)), Err(FdbFull));
    assert_eq!(fdb.learn(VLAN, mac(5), PortId(1), 0), Learned::Full);
    fdb.add_static(VLAN, mac(3), PortId(2)).unwrap();
    assert_eq!((fdb.len(), fdb.lookup(VLAN, mac(3), 0)), (4, Some(PortId(2))));
}

#[test]
fn a_port_limit_holds_for_new_and_moving_addresses() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.set_port_limit(PortId(1), Some(2));
    fdb.learn(VLAN, mac(1), PortId(1), 0);
    fdb.learn(VLAN, mac(2), PortId(1), 0);
    fdb.learn(VLAN, mac(3), PortId(2), 0);
    assert_eq!(fdb.learn(VLAN, mac(4), PortId(1), 0), Learned::PortLimit);
    assert_eq!(fdb.learn(VLAN, mac(3), PortId(1), 0), Learned::PortLimit);
    assert_eq!(fdb.lookup(VLAN, mac(3), 0), Some(PortId(2)));
    assert_eq!(fdb.learn(VLAN, mac(1), PortId(1), 5), Learned::Refreshed);
    fdb.set_port_limit(PortId(1), None);
    assert_eq!(fdb.learn(VLAN, mac(4), PortId(1), 0), Learned::New);
    let beyond = PortId(u16::try_from(crate::MAX_PORTS).unwrap());
    assert_eq!(fdb.learn(VLAN, mac(5), beyond, 0), Learned::PortLimit);
}

#[test]
fn what_a_sticky_port_learned_stays_there() {
    let fdb = Fdb::new(100, 10, 1);
    fdb.learn(VLAN, mac(1), PortId(1), 0);
    fdb.learn(VLAN, mac(2), PortId(1), 9);
    fdb.set_port_sticky(PortId(1), true, 12);
    fdb.learn(VLAN, mac(3), PortId(1), 12);
    assert_eq!(fdb.lookup(VLAN, mac(1), 12), None, "had aged before");
    let at = |number| fdb.lookup(VLAN, mac(number), 1_000_000);
    assert_eq!((at(2), at(3)), (Some(PortId(1)), Some(PortId(1))));
    for learned in [Fdb::would_learn, Fdb::learn] {
        assert_eq!(learned(&fdb, VLAN, mac(2), PortId(2), 1_000_000), Learned::Sticky);
    }
    assert_eq!(fdb.learn(VLAN, mac(2), PortId(1), 1_000_000), Learned::Refreshed);
    assert_eq!(fdb.flush(None, Some(PortId(1))) + fdb.sweep(1_000_000, 10_000), 0);
    assert_eq!(fdb.len_of_port(PortId(1)), 2, "counts for the limit, and for eviction");
    assert!(fdb.entries(FdbFilter::default(), 1_000_000).iter().all(|entry| entry.is_sticky && !entry.is_static));
    fdb.set_port_sticky(PortId(1), false, 1_000_000);
    assert_eq!((at(2), at(3)), (Some(PortId(1)), None), "ages from when it was last seen");
    fdb.set_port_sticky(PortId(1), true, 1_000_000);
    fdb.remove_port(PortId(1));
    fdb.learn(VLAN, mac(2), PortId(1), 0);
    assert_eq!(fdb.learn(VLAN, mac(2), PortId(2), 0), Learned::Moved { from: PortId(1) }, "the next port is not");
}

/// Random addresses without end from one port: who holds no more than a fair share of the table loses nothing, and who
/// holds more keeps that share.
#[test]
fn a_million_forged_addresses_evict_nobody_beyond_the_fair_share() {
    const CAPACITY: usize = 65_536;
    let fdb = Fdb::new(CAPACITY, 300, 0x5eed);
    let held: [u64; 4] = [100, 5000, 10_000, 40_000];
    let port = |index: usize| PortId(u16::try_from(index + 1).unwrap());
    for (index, count) in held.iter().enumerate() {
        for number in 0..*count {
            assert_eq!(fdb.learn(VLAN, mac((index as u64) << 24 | number), port(index), 0), Learned::New);
        }
    }
    let mut state = 1u64;
    let mut forged = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // An individual address, and none of those above.
        Mac::from_u64((mixed ^ (mixed >> 31)) & 0xfeff_ffff_ffff | 0x0200_0000_0000)
    };
    for _ in 0..1_000_000 {
        fdb.learn(VLAN, forged(), PortId(0), 1);
    }
    assert!(fdb.len() <= CAPACITY);
    for (index, count) in held.iter().enumerate().take(3) {
        for number in 0..*count {
            assert_eq!(fdb.lookup(VLAN, mac((index as u64) << 24 | number), 1), Some(port(index)));
        }
    }
    // The room that the small ports leave is shared by the flood and the port that holds as much.
    let share = (CAPACITY - 15_100) / 2;
    let kept = (fdb.len_of_port(port(3)), fdb.len_of_port(PortId(0)));
    assert!(kept.0 >= share - 1 && kept.1 >= share - 1, "{kept:?} of {share}");
}

#[test]
fn a_table_fills_to_its_capacity_with_hardly_a_refusal() {
    let fdb = Fdb::new(4096, 0, 0x1234_5678);
    let new = (0..4096).filter(|number| fdb.learn(VLAN, mac(*number), PortId(1), 0) == Learned::New).count();
    assert_eq!((new, fdb.len()), (4096, 4096));
    let found = (0..4096).filter(|number| fdb.lookup(VLAN, mac(*number), 0).is_some()).count();
    assert!(found > 4090, "two-choice buckets at half load overflowed {} times", 4096 - found);
}

#[test]
fn a_port_with_no_more_than_the_learner_makes_no_room() {
    let fdb = Fdb::new(100, 0, 3);
    for number in 0..50 {
        fdb.learn(VLAN, mac(number), PortId(1), 0);
    }
    for number in 1000..3000 {
        fdb.learn(VLAN, mac(number), PortId(9), 1);
    }
    assert_eq!((fdb.len_of_port(PortId(1)), fdb.len_of_port(PortId(9))), (50, 50));
    // The one entry more is what the next learner takes.
    fdb.remove(VLAN, mac(0));
    fdb.learn(VLAN, mac(5000), PortId(9), 1);
    fdb.learn(VLAN, mac(0), PortId(1), 1);
    assert_eq!((fdb.len_of_port(PortId(1)), fdb.len_of_port(PortId(9))), (50, 50));
}

#[test]
fn full_buckets_make_room_by_the_same_rule() {
    let fdb = Fdb::new(16, 0, 3);
    let is = |bucket: &Bucket, index: usize| std::ptr::eq(bucket, &raw const fdb.buckets[index]);
    let places = |number: u64| fdb.pair(key_of(VLAN, mac(number))).map(|bucket| (is(bucket, 0), is(bucket, 1)));
    let in_both = |number: &u64| matches!(places(*number), [(true, _), (_, true)] | [(_, true), (true, _)]);
    let in_neither = |number: &u64| places(*number) == [(false, false); 2];
    let crowded: Vec<u64> = (0..).filter(in_both).take(10).collect();
    for (index, number) in (0u16..8).zip(&crowded) {
        assert_eq!(fdb.learn(VLAN, mac(*number), PortId(1 + index % 2), 0), Learned::New);
    }
    for number in (0..).filter(in_neither).take(6) {
        assert_eq!(fdb.learn(VLAN, mac(number), PortId(9), 0), Learned::New);
    }
    assert_eq!(fdb.learn(VLAN, mac(crowded[8]), PortId(9), 0), Learned::Full, "ports 1 and 2 have fewer");
    assert_eq!(fdb.learn(VLAN, mac(crowded[9]), PortId(1), 0), Learned::New);
    assert_eq!((fdb.len_of_port(PortId(1)), fdb.len_of_port(PortId(2))), (4, 4), "its own was evicted");
}

#[test]
fn a_slot_given_away_and_back_is_not_taken_for_the_same() {
    let slot = slot::Slot::default();
    slot.occupy(7, PortId(1), Kind::Dynamic, 5);
    let (_, before) = slot.read().unwrap();
    slot.clear();
    assert_eq!(slot.read(), None);
    slot.occupy(8, PortId(2), Kind::Dynamic, 5);
    slot.clear();
    slot.occupy(7, PortId(1), Kind::Dynamic, 5);
    let (key, after) = slot.read().unwrap();
    assert_eq!((key, after.port(), after.is_static()), (7, PortId(1), false));
    assert_ne!(before, after, "a refresh of the first tenancy would succeed in the second");
    slot.change(PortId(3), Kind::Dynamic, 6);
    slot.change(PortId(1), Kind::Dynamic, 5);
    assert_eq!(slot.read(), Some((7, after)), "a change is the same tenancy");
}

#[derive(Clone, Debug)]
enum Step {
    Learn(u16, u64, u16),
    Static(u16, u64, u16),
    Remove(u16, u64),
    Flush(Option<u16>, Option<u16>, bool),
    Sticky(u16, bool),
    RemovePort(u16),
    Sweep,
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let vlan = 1u16..3;
    let port = 0u16..4;
    prop_oneof![
        12 => (vlan.clone(), 0u64..12, port.clone()).prop_map(|(v, m, p)| Step::Learn(v, m, p)),
        1 => (vlan.clone(), 0u64..12, port.clone()).prop_map(|(v, m, p)| Step::Static(v, m, p)),
        1 => (vlan.clone(), 0u64..12).prop_map(|(v, m)| Step::Remove(v, m)),
        1 => (prop::option::of(vlan), prop::option::of(port.clone()), any::<bool>())
            .prop_map(|(v, p, sticky_too)| Step::Flush(v, p, sticky_too)),
        1 => (port.clone(), any::<bool>()).prop_map(|(p, sticky)| Step::Sticky(p, sticky)),
        1 => port.prop_map(Step::RemovePort),
        1 => Just(Step::Sweep),
        6 => (0u32..7).prop_map(Step::Wait),
    ]
}

const AGEING: u32 = 10;

/// The expected database: port, kind and stamp of each address; and the sticky ports.
#[derive(Default)]
struct Model(HashMap<(u16, u64), (u16, Kind, u32)>, HashSet<u16>);

impl Model {
    fn get(&self, key: (u16, u64), now: u32) -> Option<(u16, Kind, u32)> {
        let entry = *self.0.get(&key)?;
        (entry.1 != Kind::Dynamic || now.wrapping_sub(entry.2) < AGEING).then_some(entry)
    }

    /// The answer due when the address is seen at `port`.
    fn learned(&self, key: (u16, u64), port: u16, now: u32) -> Learned {
        match self.get(key, now) {
            None => Learned::New,
            Some((at, Kind::Static, _)) if at == port => Learned::Known,
            Some((_, Kind::Static, _)) => Learned::Static,
            Some((at, Kind::Sticky, _)) if at != port => Learned::Sticky,
            Some((at, ..)) if at != port => Learned::Moved { from: PortId(at) },
            Some((_, _, stamp)) if stamp == now => Learned::Known,
            Some(_) => Learned::Refreshed,
        }
    }

    fn learn(&mut self, key: (u16, u64), port: u16, now: u32, learned: Learned) {
        let fixed = self.0.get(&key).is_some_and(|entry| entry.1 == Kind::Static);
        if !fixed && !matches!(learned, Learned::Static | Learned::Sticky) {
            self.0.insert(key, (port, self.kind_at(port), now));
        }
    }

    fn set_sticky(&mut self, port: u16, sticky: bool, now: u32) {
        let changes = if sticky { self.1.insert(port) } else { self.1.remove(&port) };
        if changes {
            self.age(|at| at == port, now);
            let kind = self.kind_at(port);
            let learned = self.0.values_mut().filter(|entry| entry.0 == port && entry.1 != Kind::Static);
            learned.for_each(|entry| entry.1 = kind);
        }
    }

    /// Removes what has become too old at these ports.
    fn age(&mut self, at: impl Fn(u16) -> bool, now: u32) -> usize {
        self.remove(|_, (port, kind, stamp)| at(port) && kind == Kind::Dynamic && now.wrapping_sub(stamp) >= AGEING)
    }

    fn kind_at(&self, port: u16) -> Kind {
        if self.1.contains(&port) { Kind::Sticky } else { Kind::Dynamic }
    }

    fn remove(&mut self, gone: impl Fn(u16, (u16, Kind, u32)) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|key, entry| !gone(key.0, *entry));
        before - self.0.len()
    }
}

/// Does a step with the database and with the model: both have to say the same of it.
fn take(step: Step, fdb: &Fdb, model: &mut Model, now: &mut u32) -> Result<(), TestCaseError> {
    match step {
        Step::Learn(v, m, p) => {
            let expected = model.learned((v, m), p, *now);
            prop_assert_eq!(fdb.would_learn(vid(v), mac(m), PortId(p), *now), expected);
            prop_assert_eq!(fdb.learn(vid(v), mac(m), PortId(p), *now), expected);
            model.learn((v, m), p, *now, expected);
        }
        Step::Static(v, m, p) => {
            fdb.add_static(vid(v), mac(m), PortId(p)).unwrap();
            model.0.insert((v, m), (p, Kind::Static, 0));
        }
        Step::Remove(v, m) => {
            prop_assert_eq!(fdb.remove(vid(v), mac(m)), model.0.remove(&(v, m)).is_some());
        }
        Step::Flush(v, p, sticky_too) => {
            let expected = model.remove(|vlan, (port, kind, _)| {
                (kind == Kind::Dynamic || sticky_too && kind == Kind::Sticky)
                    && v.is_none_or(|v| v == vlan)
                    && p.is_none_or(|p| p == port)
            });
            let flush = if sticky_too { Fdb::flush_with_sticky } else { Fdb::flush };
            prop_assert_eq!(flush(fdb, v.map(vid), p.map(PortId)), expected);
        }
        Step::Sticky(p, sticky) => {
            fdb.set_port_sticky(PortId(p), sticky, *now);
            model.set_sticky(p, sticky, *now);
        }
        Step::RemovePort(p) => {
            let expected = model.remove(|_, (port, ..)| port == p);
            prop_assert_eq!(fdb.remove_port(PortId(p)), expected);
            model.1.remove(&p);
        }
        Step::Sweep => {
            let expected = model.age(|_| true, *now);
            prop_assert_eq!(fdb.sweep(*now, usize::MAX), expected);
        }
        Step::Wait(seconds) => *now = now.wrapping_add(seconds),
    }
    Ok(())
}

/// The database finds and counts what is in the model.
fn finds_the_same(fdb: &Fdb, model: &Model, now: u32) -> Result<(), TestCaseError> {
    for v in 1..3 {
        for m in 0..12 {
            let expected = model.get((v, m), now).map(|(port, ..)| PortId(port));
            prop_assert_eq!(fdb.lookup(vid(v), mac(m), now), expected);
        }
    }
    prop_assert_eq!(fdb.len(), model.0.len());
    for p in 0..4 {
        let dynamic = model.0.values().filter(|(port, kind, _)| *port == p && *kind != Kind::Static).count();
        prop_assert_eq!(fdb.len_of_port(PortId(p)), dynamic);
    }
    Ok(())
}

/// The database lists what is in the model, all of it and one port's of one VLAN.
fn lists_the_same(fdb: &Fdb, model: &Model, now: u32) -> Result<(), TestCaseError> {
    let mut listed = fdb.entries(FdbFilter::default(), now);
    let entry = |key: &(u16, u64)| {
        let (port, kind, stamp) = model.get(*key, now)?;
        let (is_static, is_sticky) = (kind == Kind::Static, kind == Kind::Sticky);
        let age_seconds = if is_static { 0 } else { now.wrapping_sub(stamp) };
        Some(FdbEntry { vid: vid(key.0), mac: mac(key.1), port: PortId(port), is_static, is_sticky, age_seconds })
    };
    let mut expected: Vec<FdbEntry> = model.0.keys().filter_map(entry).collect();
    listed.sort();
    expected.sort();
    prop_assert_eq!(&listed, &expected);
    let filter = FdbFilter { vid: Some(vid(1)), port: Some(PortId(2)) };
    expected.retain(|entry| entry.vid == vid(1) && entry.port == PortId(2));
    let mut listed = fdb.entries(filter, now);
    listed.sort();
    prop_assert_eq!(listed, expected);
    Ok(())
}

proptest! {
    #[test]
    fn behaves_like_a_map(seed: u64, start: u32, steps in prop::collection::vec(step(), 1..200)) {
        let fdb = Fdb::new(64, AGEING, seed);
        let mut model = Model::default();
        let mut now = start;
        for step in steps {
            take(step, &fdb, &mut model, &mut now)?;
            finds_the_same(&fdb, &model, now)?;
        }
        lists_the_same(&fdb, &model, now)?;
    }

    /// Whatever one port floods, a port with no more than its fair share loses nothing, nor do static entries.
    #[test]
    fn a_flood_evicts_its_own(seed: u64, others in prop::collection::vec(0u64..30, 1..6), flood in 300u64..1500) {
        let fdb = Fdb::new(256, 0, seed);
        let flooder = PortId(0);
        let addresses = |port: usize| (0..others[port - 1]).map(move |number| mac((port as u64) << 24 | number));
        let ports = || (1..=others.len()).map(|port| (port, PortId(u16::try_from(port).unwrap())));
        for (port, id) in ports() {
            for address in addresses(port) {
                prop_assert_eq!(fdb.learn(VLAN, address, id, 5), Learned::New);
            }
        }
        for number in 0..10 {
            fdb.add_static(VLAN, mac(0xff00_0000 | number), flooder).unwrap();
        }
        for number in 0..flood {
            fdb.learn(VLAN, mac(0xee00_0000 | number), flooder, 6);
            prop_assert!(fdb.len() <= 256);
        }
        for (port, id) in ports() {
            for address in addresses(port) {
                prop_assert_eq!(fdb.lookup(VLAN, address, 6), Some(id));
            }
        }
        for number in 0..10 {
            prop_assert_eq!(fdb.lookup(VLAN, mac(0xff00_0000 | number), 6), Some(flooder));
        }
        // The table is full, and the flooder still learns.
        prop_assert!(fdb.len() > 240);
        prop_assert_eq!(fdb.learn(VLAN, mac(0xdd00_0000), flooder, 6), Learned::New);
        // Someone new gets in at the flooder's cost.
        prop_assert_eq!(fdb.learn(VLAN, mac(0xcc00_0000), PortId(9), 6), Learned::New);
        prop_assert_eq!(fdb.lookup(VLAN, mac(0xcc00_0000), 6), Some(PortId(9)));
    }
}

proptest! {
    /// In a table so small that entries evict each other, and with limits, what learning comes to is foretold,
    /// and asking changes nothing.
    #[test]
    fn learning_is_foretold(
        seed: u64,
        capacity in 1usize..6,
        limits in prop::collection::vec(prop::option::of(0u32..4), 3),
        steps in prop::collection::vec((0u64..12, 0u16..3, 0u32..4, prop::bool::weighted(0.1)), 1..120),
    ) {
        let fdb = Fdb::new(capacity, AGEING, seed);
        for (port, limit) in (0..).map(PortId).zip(limits) {
            fdb.set_port_limit(port, limit);
        }
        let mut now = 1000;
        for (address, port, wait, is_static) in steps {
            now += wait;
            if is_static {
                let _ = fdb.add_static(VLAN, mac(address), PortId(port));
                continue;
            }
            let listed = || { let mut list = fdb.entries(FdbFilter::default(), now); list.sort_unstable(); list };
            let before = listed();
            let entry = before.iter().find(|entry| entry.mac == mac(address)).copied();
            prop_assert_eq!(fdb.entry(VLAN, mac(address), now), entry);
            let foretold = fdb.would_learn(VLAN, mac(address), PortId(port), now);
            prop_assert_eq!(listed(), before);
            prop_assert_eq!(fdb.learn(VLAN, mac(address), PortId(port), now), foretold);
            let known_here = fdb.lookup(VLAN, mac(address), now) == Some(PortId(port));
            prop_assert_eq!(known_here, foretold.is_here() || foretold == Learned::PortLimit && entry.is_some_and(|entry| entry.port == PortId(port)));
        }
    }
}
