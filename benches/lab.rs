//! What the benches of guest rings share: guests in this process's memory whose rings are written once and then only
//! offered again ([`offer`] moves the available index), and a worker between two of them ([`Lab`]).
//!
//! Rings hold [`RING`] entries. A transmit ring is full of equal frames, one descriptor each; a receive ring is full of
//! 2048-byte buffers. Every bench checks at its end that all frames offered came through.
#![allow(dead_code, reason = "every bench uses another part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]

#[path = "../dataplane/tests/guest/mod.rs"]
pub mod guest;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam::channel::{Sender, unbounded};
use guest::{EVENT_IDX, Guest, INDIRECT, MRG_RXBUF, VERSION_1};
use labsw_benches::frame;
use labsw_dataplane::load::WorkerLoad;
use labsw_dataplane::stats::{MirrorStats, PortStats};
use labsw_dataplane::worker::{Command, ControlEnds, Power, Shared, Worker};
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::{MAX_MIRRORS, PortId};

/// Entries of every ring.
pub const RING: u16 = 1024;
/// Ring number of a guest's receive ring.
pub const RECEIVE: usize = 0;
/// Ring number of a guest's transmit ring.
pub const TRANSMIT: usize = 1;
/// Length of a receive buffer, bytes.
const BUFFER_BYTES: u32 = 2048;

/// What a Linux guest negotiates, but without indirect tables: the frames here have one descriptor each.
pub const FEATURES: u64 = VERSION_1 | MRG_RXBUF | EVENT_IDX;

/// Fills the transmit ring with frames and offers none of them.
pub fn fill_transmit(guest: &mut Guest, wire_bytes: usize) {
    for _ in 0..RING {
        guest.transmit(TRANSMIT, &frame(wire_bytes, 2, 1), &[]);
    }
    guest.avail(TRANSMIT, 2).store(0, Ordering::Release);
}

/// Fills the receive ring with buffers and offers none of them.
pub fn fill_receive(guest: &mut Guest) {
    guest.post(RECEIVE, RING.into(), BUFFER_BYTES, None);
    guest.avail(RECEIVE, 2).store(0, Ordering::Release);
}

/// Offers the next `count` entries of a full ring, those completed longest ago.
pub fn offer(guest: &Guest, ring: usize, count: u16) {
    let index = guest.avail(ring, 2);
    index.store(index.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release);
}

/// A worker between two guests that know each other's stations.
pub struct Lab {
    worker: Worker,
    _commands: Sender<Command>,
    from: Guest,
    to: Guest,
    stats: Arc<PortStats>,
}

impl Lab {
    /// Frames of `wire_bytes` (with FCS) are ready to go from the first guest to the second, a known unicast.
    pub fn new(wire_bytes: usize) -> Lab {
        let shared = Shared {
            fdb: Arc::new(Fdb::new(65_536, 300, 1)),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::default()).collect(),
            epoch: Instant::now(),
        };
        let rules = [0, 1].map(|port| (PortId(port), PortRules::default()));
        let tables = Arc::new(Tables::build(rules.to_vec(), Vec::new()).unwrap());
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (commands, receiver) = unbounded();
        let (events, _) = unbounded();
        let ends = ControlEnds { commands: receiver, events, waker };
        let load = Arc::new(WorkerLoad::default());
        let mut worker = Worker::new(shared, tables, Power::Performance, load, ends, poll);
        let mut from = Guest::new(FEATURES, RING);
        let mut to = Guest::new(FEATURES | INDIRECT, RING);
        let stats = Arc::new(PortStats::default());
        for (id, guest, stats) in [(0, &from, Arc::default()), (1, &to, Arc::clone(&stats))] {
            commands.send(Command::AddPort { id: PortId(id), driver: Box::new(guest.port()), stats }).unwrap();
        }
        assert!(worker.obey());
        // The answer first, so that the flow is known.
        from.post(RECEIVE, 1, BUFFER_BYTES, None);
        to.transmit(TRANSMIT, &frame(64, 1, 2), &[]);
        worker.turn();
        fill_receive(&mut to);
        fill_transmit(&mut from, wire_bytes);
        let mut lab = Lab { worker, _commands: commands, from, to, stats };
        // Once round the rings, so that every page was touched.
        for _ in 0..RING / 64 {
            lab.turn(64);
        }
        assert_eq!(lab.forwarded(), u64::from(RING));
        lab
    }

    /// Offers `frames` (up to 64) and as many buffers, and has the worker forward them.
    pub fn turn(&mut self, frames: u16) {
        offer(&self.to, RECEIVE, frames);
        offer(&self.from, TRANSMIT, frames);
        if self.worker.turn() != usize::from(frames) {
            panic!("the turn did not take what was offered");
        }
    }

    /// Frames that reached the second guest.
    pub fn forwarded(&self) -> u64 {
        self.stats.snapshot().tx_frames
    }
}
