//! The database under loom: small situations, each played in the orders its threads can run in and with the values that
//! the memory model lets a load see. On real machines of one kind many of these never happen.
//!
//! `make models` runs them. Each model says which mistake it is for; each was seen to fail when that mistake was made
//! on purpose (`docs/testing.md`), and each asserts which outcomes it came across, so that none is quietly left out.
//!
//! The tables are of one bucket, and a table of capacity one gives its one place away whenever another key comes. A
//! thread is interrupted in favour of another at most [`PREEMPTIONS`] times in one play; without a bound, plays of this
//! length are too many.

use loom::sync::Arc;
use loom::thread;

use super::slot::{Kind, Slot};
use super::*;

/// How often a thread that could go on has to wait for another.
const PREEMPTIONS: usize = 3;
const VLAN: Vid = Vid::DEFAULT;
const P1: PortId = PortId(1);
const P2: PortId = PortId(2);
const P3: PortId = PortId(3);
const P4: PortId = PortId(4);

fn k() -> Mac {
    Mac::from_u64(0x5254_0000_0001)
}

fn l() -> Mac {
    Mac::from_u64(0x5254_0000_0002)
}

/// Plays a situation in all orders; returns the different outcomes.
fn explore<T: PartialEq + Send + 'static>(situation: impl Fn() -> T + Send + Sync + 'static) -> Vec<T> {
    let outcomes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    let seen = std::sync::Arc::clone(&outcomes);
    model.check(move || {
        let outcome = situation();
        let mut seen = seen.lock().unwrap();
        if !seen.contains(&outcome) {
            seen.push(outcome);
        }
    });
    std::mem::take(&mut *outcomes.lock().unwrap())
}

/// The same outcomes, whatever their order.
fn assert_outcomes<T: PartialEq + std::fmt::Debug>(seen: &[T], expected: &[T]) {
    assert!(expected.iter().all(|one| seen.contains(one)) && seen.len() == expected.len(), "{seen:?}");
}

/// Checks the state after all threads have ended: each key once, counts equal to the entries. Returns the entries.
fn settled(fdb: &Fdb, now_seconds: u32) -> Vec<FdbEntry> {
    let mut entries = fdb.entries(FdbFilter::default(), now_seconds);
    entries.sort();
    assert_eq!(entries.len(), fdb.len());
    assert!(entries.windows(2).all(|two| (two[0].vid, two[0].mac) != (two[1].vid, two[1].mac)), "{entries:?}");
    for port in [P1, P2, P3, P4] {
        assert_eq!(entries.iter().filter(|entry| entry.port == port).count(), fdb.len_of_port(port), "{port:?}");
    }
    entries
}

/// A slot goes from K to L, which moves, and back to K, each time with another port, while somebody looks: for a store
/// or a load with too weak an order, and for a reader that does not compare generations.
#[test]
fn a_slot_never_yields_the_port_of_another_key() {
    let seen = explore(|| {
        let slot = Arc::new(Slot::default());
        slot.occupy(7, P1, Kind::Dynamic, 5);
        let writer = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                slot.clear();
                slot.occupy(8, P2, Kind::Dynamic, 5);
                slot.change(P4, Kind::Dynamic, 5);
                slot.clear();
                slot.occupy(7, P3, Kind::Dynamic, 5);
            })
        };
        let seen = slot.read().map(|(key, value)| (key, value.port()));
        writer.join().unwrap();
        assert_eq!(slot.read().map(|(key, value)| (key, value.port())), Some((7, P3)));
        seen
    });
    assert_outcomes(&seen, &[None, Some((7, P1)), Some((8, P2)), Some((8, P4)), Some((7, P3))]);
}

/// The same through the table: L pushes K out of its place while both are looked up.
#[test]
fn a_lookup_never_yields_the_port_of_another_key() {
    let found = explore(|| {
        let fdb = Arc::new(Fdb::new(1, 0, 7));
        fdb.learn(VLAN, k(), P1, 5);
        let writer = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || assert_eq!(fdb.learn(VLAN, l(), P2, 5), Learned::New))
        };
        let found = [fdb.lookup(VLAN, l(), 5), fdb.lookup(VLAN, k(), 5)];
        writer.join().unwrap();
        assert_eq!(settled(&fdb, 5).len(), 1);
        assert_eq!(fdb.lookup(VLAN, l(), 5), Some(P2));
        found
    });
    // Never both: there is one place, and it went from K to L.
    assert_outcomes(&found, &[[None, None], [None, Some(P1)], [Some(P2), None]]);
}

/// K is refreshed while its place is given to L, which has the same port and stamp: for a place given away with its old
/// generation, where the sighting of K would make L younger.
#[test]
fn a_refresh_is_not_for_the_next_tenant() {
    let left = explore(|| {
        let fdb = Arc::new(Fdb::new(1, 0, 7));
        fdb.learn(VLAN, k(), P1, 5);
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || assert_eq!(fdb.learn(VLAN, l(), P1, 5), Learned::New))
        };
        let learned = fdb.learn(VLAN, k(), P1, 9);
        other.join().unwrap();
        let entries: Vec<_> = settled(&fdb, 9).iter().map(|entry| (entry.mac, entry.age_seconds)).collect();
        (learned, entries)
    });
    let (old_l, new_k) = (vec![(l(), 4)], vec![(k(), 0)]);
    assert_outcomes(&left, &[(Learned::Refreshed, old_l), (Learned::New, new_k)]);
}

/// K is refreshed on one port while it moves to another: for a refresh that does not compare, and takes the move back
/// behind the back of the counts.
#[test]
fn a_refresh_does_not_undo_a_move() {
    let left = explore(|| {
        let fdb = Arc::new(Fdb::new(1, 0, 7));
        fdb.learn(VLAN, k(), P1, 5);
        let mover = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || assert_eq!(fdb.learn(VLAN, k(), P2, 9), Learned::Moved { from: P1 }))
        };
        let learned = fdb.learn(VLAN, k(), P1, 9);
        mover.join().unwrap();
        (learned, settled(&fdb, 9).iter().map(|entry| (entry.port, entry.age_seconds)).collect::<Vec<_>>())
    });
    let (moved, moved_back) = (vec![(P2, 0)], vec![(P1, 0)]);
    assert_outcomes(&left, &[(Learned::Refreshed, moved), (Learned::Moved { from: P2 }, moved_back)]);
}

/// K moves while somebody looks: for a move that makes a new tenancy of it, so that K is gone for a moment and frames
/// to it are flooded.
#[test]
fn a_move_never_hides_a_key() {
    let seen = explore(|| {
        let slot = Arc::new(Slot::default());
        slot.occupy(7, P1, Kind::Dynamic, 5);
        let writer = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.change(P2, Kind::Dynamic, 5))
        };
        let seen = slot.read().map(|(key, value)| (key, value.port()));
        writer.join().unwrap();
        seen
    });
    assert_outcomes(&seen, &[Some((7, P1)), Some((7, P2))]);
}

/// Two learn K at once on different ports: for a writer that does not look again when it has the mutex.
#[test]
fn two_learners_make_one_entry() {
    let left = explore(|| {
        let fdb = Arc::new(Fdb::new(2, 0, 7));
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(VLAN, k(), P2, 5))
        };
        let learned = fdb.learn(VLAN, k(), P1, 5);
        let both = [learned, other.join().unwrap()];
        (both, settled(&fdb, 5).iter().map(|entry| entry.port).collect::<Vec<_>>())
    });
    let moved = |from| Learned::Moved { from };
    assert_outcomes(&left, &[([Learned::New, moved(P1)], vec![P2]), ([moved(P2), Learned::New], vec![P1])]);
}

/// A port goes away while K is seen on it and looked up: for a place that loses its value before its key.
#[test]
fn a_port_goes_away_under_its_learner() {
    let left = explore(|| {
        let fdb = Arc::new(Fdb::new(2, 0, 7));
        fdb.learn(VLAN, k(), P1, 5);
        let control = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || assert_eq!(fdb.remove_port(P1), 1))
        };
        let found = fdb.lookup(VLAN, k(), 5);
        let learned = fdb.learn(VLAN, k(), P1, 9);
        control.join().unwrap();
        (found, learned, settled(&fdb, 9).len())
    });
    let (there, refreshed, new) = (Some(P1), Learned::Refreshed, Learned::New);
    assert_outcomes(&left, &[(there, refreshed, 0), (there, new, 1), (None, new, 1)]);
}

/// K moves off a port that goes away: for a removal that chooses before it has the mutex.
#[test]
fn a_port_goes_away_after_an_address_left_it() {
    let left = explore(|| {
        let fdb = Arc::new(Fdb::new(2, 0, 7));
        fdb.learn(VLAN, k(), P1, 5);
        let control = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.remove_port(P1))
        };
        let learned = fdb.learn(VLAN, k(), P2, 5);
        let removed = control.join().unwrap();
        (learned, removed, settled(&fdb, 5).iter().map(|entry| entry.port).collect::<Vec<_>>())
    });
    assert_outcomes(&left, &[(Learned::Moved { from: P1 }, 0, vec![P2]), (Learned::New, 1, vec![P2])]);
}

/// Two learn different addresses on a port that may have one: for a limit looked at before the mutex is had.
#[test]
fn a_port_limit_holds() {
    let learned = explore(|| {
        let fdb = Arc::new(Fdb::new(2, 0, 7));
        fdb.set_port_limit(P1, Some(1));
        let other = {
            let fdb = Arc::clone(&fdb);
            thread::spawn(move || fdb.learn(VLAN, l(), P1, 5))
        };
        let learned = [fdb.learn(VLAN, k(), P1, 5), other.join().unwrap()];
        assert_eq!(settled(&fdb, 5).len(), 1);
        learned
    });
    assert_outcomes(&learned, &[[Learned::New, Learned::PortLimit], [Learned::PortLimit, Learned::New]]);
}
