//! The database by example: learning, ageing, limits, and who makes room in a full table.

use super::slot::Kind;
use super::*;

mod foretold;
mod model;
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
