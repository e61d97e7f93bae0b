//! A worker that slept: what it knows of the time when a frame wakes it, and what becomes of ports that can't wake it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use labsw_dataplane::stats::{MirrorStats, PortStats};
use labsw_dataplane::vhost_user::VhostPort;
use labsw_dataplane::worker::{Output, Power, Shared, Snapshot};
use labsw_dataplane::workers::Workers;
use labsw_switch::fdb::{Fdb, FdbFilter};
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::{MAX_MIRRORS, PortId};
use labsw_testkit::guest::{EVENT_IDX, Guest, MRG_RXBUF, VERSION_1, frame};
use mio::{Poll, Token, Waker};
use rustix::fs::{MemfdFlags, memfd_create};

const TRANSMIT: usize = 1;

/// An adaptive worker with this guest as its only port.
fn worker(guest: &Guest) -> (Workers, Shared) {
    let shared = Shared {
        fdb: Arc::new(Fdb::new(16, 300, 1)),
        mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect(),
    };
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let (events, _told) = unbounded();
    let tables = Arc::new(Tables::build(vec![(PortId(0), PortRules::default())], Vec::new()).unwrap());
    let worker = Workers::spawn(&[None], Power::Adaptive, &shared, &events, &waker).unwrap();
    let VhostPort { tx, rx } = guest.port();
    let output = Output::new(Some(tx), Arc::new(PortStats::new(1)));
    worker.links().set_snapshot(&Snapshot { tables, outputs: vec![Some(output)].into() }).unwrap();
    for (queue, rx) in rx.into_iter().enumerate() {
        worker.links().add_queue(0, PortId(0), queue, Box::new(rx)).unwrap();
    }
    (worker, shared)
}

/// A frame from a station whose address is 2, 2, 2, …
fn hello() -> Vec<u8> {
    let mut bytes = frame(60, 0);
    bytes[..6].fill(0xff);
    bytes[6..12].fill(2);
    bytes
}

/// Waits until the guest's frame was taken.
fn taken(guest: &mut Guest) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while guest.reap(TRANSMIT) == 0 {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn an_address_learned_after_a_sleep_is_new() {
    let mut guest = Guest::new(VERSION_1 | MRG_RXBUF | EVENT_IDX, 16);
    let (worker, shared) = worker(&guest);
    std::thread::sleep(Duration::from_millis(3100));
    guest.transmit(TRANSMIT, &hello(), &[]);
    assert!(guest.kick(TRANSMIT, 0), "a sleeping worker asks for a kick");
    assert!(taken(&mut guest));
    let entries = shared.fdb.entries(FdbFilter::default(), labsw_dataplane::clock::now_seconds());
    assert_eq!(entries.len(), 1);
    assert!(entries[0].age_seconds <= 1, "{entries:?}");
    worker.stop();
}

#[test]
fn a_doorbell_that_cannot_be_watched_is_not_waited_for() {
    let mut guest = Guest::new(VERSION_1 | MRG_RXBUF | EVENT_IDX, 16);
    // epoll(7) takes no plain files.
    guest.rings[TRANSMIT].kick = Arc::new(memfd_create("kick", MemfdFlags::CLOEXEC).unwrap());
    let (worker, _) = worker(&guest);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(50));
        guest.transmit(TRANSMIT, &hello(), &[]);
        assert!(taken(&mut guest));
    }
    worker.stop();
}
