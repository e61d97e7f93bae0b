//! Four threads at one database that is too small for them, all operations at once. What orders are possible at all is
//! played by the models under loom (`fdb/models.rs`); here the processor and the scheduler choose, but nothing is left
//! out.
//!
//! A port's number says which address it is for, so that a port that never saw an address is known as such.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

/// Addresses; each is seen on [`PORTS_EACH`] ports of its own.
const ADDRESSES: u64 = 64;
const PORTS_EACH: u64 = 8;
const CAPACITY: usize = 32;
/// This port may have so many entries; its addresses are numbered from [`LIMITED_ADDRESSES`] on.
const LIMITED: PortId = PortId(900);
const LIMIT: u32 = 4;
const LIMITED_ADDRESSES: u64 = 1000;
const LAPS: u32 = 1500;

fn port_of(number: u64, choice: u32) -> PortId {
    PortId(u16::try_from(number * PORTS_EACH + u64::from(choice) % PORTS_EACH).unwrap())
}

fn is_port_of(port: PortId, number: u64) -> bool {
    if number < LIMITED_ADDRESSES { u64::from(port.0) / PORTS_EACH == number } else { port == LIMITED }
}

/// Looks an address up; returns whether it was there.
fn look(fdb: &Fdb, number: u64, now_seconds: u32) -> bool {
    let found = fdb.lookup(VLAN, mac(number), now_seconds);
    assert!(found.is_none_or(|port| is_port_of(port, number)), "{found:?} never saw address {number}");
    found.is_some()
}

/// A worker: learns and looks up, both kinds of addresses. Returns how often it met an entry.
fn work(fdb: &Fdb, clock: &AtomicU32, worker: u32) -> u64 {
    let mut found = 0;
    for lap in 0..LAPS {
        // The other worker sees the same addresses on other ports.
        let (port, now) = (lap / 8 + worker, clock.fetch_add(u32::from(lap.is_multiple_of(64)), Ordering::Relaxed));
        for number in 0..ADDRESSES {
            let number = (number * 7 + u64::from(lap)) % ADDRESSES;
            if !number.is_multiple_of(3) || lap.is_multiple_of(4) {
                fdb.learn(VLAN, mac(number), port_of(number, port), now);
            }
            found += u64::from(look(fdb, (number + 1) % ADDRESSES, now));
        }
        let limited = LIMITED_ADDRESSES + u64::from(lap % 16);
        fdb.learn(VLAN, mac(limited), LIMITED, now);
        found += u64::from(look(fdb, limited, now));
    }
    found
}

/// The control thread: everything that is done by hand, or when ports come and go.
fn control(fdb: &Fdb, lap: u32) {
    let number = u64::from(lap) % ADDRESSES;
    match lap % 8 {
        0 => drop(fdb.flush(Some(VLAN), Some(port_of(number, lap)))),
        1 => drop(fdb.flush((lap % 64 != 1).then_some(vid(2)), None)),
        2 => drop(fdb.remove_port(port_of(number, lap))),
        3 => drop(fdb.remove(VLAN, mac(number))),
        4 => drop(fdb.add_static(VLAN, mac(number), port_of(number, lap))),
        5 => drop(fdb.remove(VLAN, mac(number - 1))),
        6 => fdb.set_port_limit(port_of(number, lap), Some(lap % 2)),
        _ => fdb.set_port_limit(port_of(number - 1, lap - 1), None),
    }
}

/// The sweeper, who also lists and counts.
fn sweep(fdb: &Fdb, clock: &AtomicU32) {
    let now = clock.load(Ordering::Relaxed);
    fdb.sweep(now, 16);
    assert!(fdb.len() <= CAPACITY);
    assert!(fdb.len_of_port(LIMITED) <= LIMIT as usize);
    for entry in fdb.entries(FdbFilter::default(), now) {
        let number = entry.mac.to_u64() & 0xffff;
        assert!(is_port_of(entry.port, number), "{entry:?}");
    }
}

#[test]
fn threads_never_see_the_port_of_another_key() {
    let fdb = Fdb::new(CAPACITY, 20, 7);
    fdb.set_port_limit(LIMITED, Some(LIMIT));
    let (clock, start, done) = (AtomicU32::new(0), Barrier::new(4), AtomicBool::new(false));
    let again = |turn: &dyn Fn(u32)| {
        start.wait();
        (0..).take_while(|_| !done.load(Ordering::Relaxed)).inspect(|lap| turn(*lap)).count()
    };
    let (found, turns) = std::thread::scope(|scope| {
        let workers = [0, 3].map(|worker| {
            let (fdb, clock, start) = (&fdb, &clock, &start);
            scope.spawn(move || {
                start.wait();
                work(fdb, clock, worker)
            })
        });
        let others =
            [scope.spawn(|| again(&|lap| control(&fdb, lap))), scope.spawn(|| again(&|_| sweep(&fdb, &clock)))];
        let found = workers.map(|worker| worker.join());
        // The others run until told to, also when a worker failed.
        done.store(true, Ordering::Relaxed);
        (found.map(Result::unwrap), others.map(|other| other.join().unwrap()))
    });
    assert!(found.into_iter().all(|found| found > 0), "a worker never met an entry");
    assert!(turns.into_iter().all(|turns| turns > 8), "{turns:?}");

    // At rest: each address once, as many entries as were counted, none over a limit.
    let now = clock.load(Ordering::Relaxed);
    fdb.sweep(now, usize::MAX);
    let mut entries = fdb.entries(FdbFilter::default(), now);
    entries.sort();
    entries.dedup_by_key(|entry| entry.mac);
    assert_eq!(entries.len(), fdb.len());
    let dynamic = entries.iter().filter(|entry| !entry.is_static).count();
    assert_eq!((0..1024).map(|port| fdb.len_of_port(PortId(port))).sum::<usize>(), dynamic);
    for (port, entry) in entries.iter().map(|entry| (entry.port, entry)) {
        let of_port = entries.iter().filter(|other| other.port == port && !other.is_static).count();
        assert_eq!(of_port, fdb.len_of_port(port), "{entry:?}");
    }
    assert!(fdb.len_of_port(LIMITED) <= LIMIT as usize);
    assert!((0..ADDRESSES).filter(|&number| look(&fdb, number, now)).count() <= entries.len());
}
