//! The lab that benches of guest rings share: guests in this process's memory whose rings are written once and then
//! only offered again ([`offer`] moves the available index), and a worker between two of them ([`Lab`]), alone or with
//! more around them that has nothing to do ([`Around`]).
//!
//! Rings hold [`RING`] entries. A transmit ring is full of equal frames, one descriptor each; a receive ring is full of
//! 2048-byte buffers. Every bench checks at its end that all frames offered came through.
#![allow(dead_code, reason = "every bench uses another part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::{Sender, bounded, unbounded};
use labsw_benches::frame;
use labsw_dataplane::capture::{Capture, CapturePoint, Captures};
use labsw_dataplane::impair::{Schedule, TxDelay};
use labsw_dataplane::port::Turn;
use labsw_dataplane::stats::{MirrorStats, PortStats};
use labsw_dataplane::vhost_user::{VhostOp, VhostPort, VhostReply};
use labsw_dataplane::virtio::dirty_log::{DirtyLog, RingLog};
use labsw_dataplane::worker::{Command, ControlEnds, Output, Power, Shared, Snapshot, Worker};
use labsw_dataplane::workers::load::WorkerLoad;
use labsw_switch::fdb::Fdb;
use labsw_switch::filter::{Filter, Form, Insn};
use labsw_switch::impair::ImpairSpec;
use labsw_switch::mac::Mac;
use labsw_switch::tables::{Direction, MirrorSpec, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode, VlanSet};
use labsw_switch::{MAX_MIRRORS, MirrorId, PortId, Vid};
use labsw_testkit::guest::{EVENT_IDX, GUEST_BASE, Guest, INDIRECT, MRG_RXBUF, USER_BASE, VERSION_1};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// Entries of every ring.
pub const RING: u16 = 1024;
/// Ring number of a guest's receive ring.
pub const RECEIVE: usize = 0;
/// Ring number of a guest's transmit ring.
pub const TRANSMIT: usize = 1;
/// Length of a receive buffer, bytes.
const BUFFER_BYTES: u32 = 2048;

/// The features that a Linux guest negotiates, except indirect tables: the frames here have one descriptor each.
pub const FEATURES: u64 = VERSION_1 | MRG_RXBUF | EVENT_IDX;

/// Fills the transmit ring with equal frames and offers none of them.
pub fn fill_transmit(guest: &mut Guest, wire_bytes: usize) {
    fill_transmit_with(guest, |_| frame(wire_bytes, 2, 1));
}

/// Fills the transmit ring with frames, made from their number, and offers none of them.
fn fill_transmit_with(guest: &mut Guest, frame: impl Fn(u16) -> Vec<u8>) {
    for number in 0..RING {
        guest.transmit(TRANSMIT, &frame(number), &[]);
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

/// The surroundings of the two guests that talk. Nothing in them takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// Guests that are attached and silent.
    pub idle_ports: u16,
    /// Stations that the switch knows behind the first of them.
    pub stations: u32,
    /// VLANs that every port carries, from 1 on; the two guests talk in VLAN 1.
    pub vlans: u16,
    /// Mirrors that select nothing: half of them watch all ports, but another VLAN; half watch another port.
    pub mirrors: u16,
    /// Captures of what passes at the first of the silent guests.
    pub captures: u16,
    /// The first of the silent guests gets a copy of every frame: a mirror of the port that sends, both directions.
    pub mirrored: bool,
    /// A mirror of the port that sends, both directions, that selects nothing.
    pub watched: Option<Watched>,
    /// Conversations that the frames belong to, none like the one before unless there is only one.
    pub flows: u16,
    /// The front ends of the two guests log the pages that the switch writes, as while they are saved or moved.
    pub logged: bool,
    /// Frames to the second guest are kept until the next turn: an impairment with the shortest delay.
    pub delayed: bool,
}

/// Why a mirror selects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It is for another VLAN.
    OtherVlan,
    /// Its filter is `tcp port 445`, and the frames are UDP.
    Filter,
}

impl Default for Around {
    fn default() -> Around {
        Around {
            idle_ports: 0,
            stations: 0,
            vlans: 4094,
            mirrors: 0,
            captures: 0,
            mirrored: false,
            watched: None,
            flows: 1,
            logged: false,
            delayed: false,
        }
    }
}

impl Around {
    fn tables(self) -> Tables {
        let vlan = PortVlan::new(VlanMode::NativeUntagged, Some(1), &[1..=self.vlans]).unwrap();
        let rules = PortRules { vlan, ..PortRules::default() };
        let ports = (0..2 + self.idle_ports).map(|port| (PortId(port), rules.clone())).collect();
        let mirror = |id: u16| MirrorSpec {
            id: MirrorId(id),
            sources: if id.is_multiple_of(2) { Vec::new() } else { vec![(PortId(2), Direction::BOTH)] },
            all_ports: id.is_multiple_of(2).then_some(Direction::BOTH),
            vlans: id.is_multiple_of(2).then(|| VlanSet::from_ranges(&[4000 + id..=4000 + id]).unwrap()),
            to: Some(PortId(3).into()),
            snaplen_bytes: 0,
            filter: None,
        };
        let copying = MirrorSpec {
            id: MirrorId(self.mirrors),
            sources: vec![(PortId(0), Direction::BOTH)],
            all_ports: None,
            vlans: None,
            to: Some(PortId(2).into()),
            snaplen_bytes: 0,
            filter: None,
        };
        let watching = self.watched.map(|watched| MirrorSpec {
            vlans: (watched == Watched::OtherVlan).then(|| VlanSet::from_ranges(&[4000..=4000]).unwrap()),
            filter: (watched == Watched::Filter).then(|| Arc::new(tcp_port_445())),
            ..copying.clone()
        });
        let copying = self.mirrored.then_some(copying);
        let mirrors = (0..self.mirrors).map(mirror).chain(copying).chain(watching);
        Tables::build(ports, mirrors.collect()).unwrap()
    }

    fn captures(self, waker: &Arc<mio::Waker>) -> Captures {
        let mut captures = Captures::default();
        for _ in 0..self.captures {
            let capture = Capture::new(0, None, Arc::default(), Arc::clone(waker));
            let point = CapturePoint::new(Arc::new(capture), 0, Arc::default());
            captures.add(PortId(2), Direction::BOTH, &point);
        }
        captures
    }

    /// The stations that a conversation goes to and comes from.
    fn addresses(self, flow: u16) -> (u16, u16) {
        if self.flows == 1 { (2, 1) } else { (0x4000 | flow, 0x2000 | flow) }
    }

    fn fdb(self) -> Fdb {
        let fdb = Fdb::new(131_072, 300, 1);
        for station in 0..self.stations {
            fdb.learn(Vid::DEFAULT, Mac::from_u64(0x0600_0000_0000 + u64::from(station)), PortId(2), 0);
        }
        assert_eq!(fdb.len(), self.stations as usize);
        for flow in 0..self.flows {
            fdb.learn(Vid::DEFAULT, station(self.addresses(flow).0), PortId(1), 0);
        }
        fdb
    }
}

/// The shortest delay: a frame given in one turn is due in the next.
fn delay() -> Arc<TxDelay> {
    let spec = ImpairSpec { delay_ns: 1, ..ImpairSpec::NONE };
    Arc::new(TxDelay::new(Schedule::new(spec).unwrap()))
}

/// Has a port mark every page that it writes, its rings' own included, in a log that it shares with nobody.
fn log_writes(guest: &Guest, port: &mut VhostPort) {
    let (bytes, file) = (1 << 20, memfd_create("log", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, bytes).unwrap();
    let log = Arc::new(DirtyLog::map(&Arc::default(), 0, bytes, 0, file).unwrap());
    log.covers(&guest.memory).unwrap();
    for ring in [RECEIVE, TRANSMIT] {
        let used = guest.addresses(ring).used - USER_BASE + GUEST_BASE;
        let log = Some(RingLog::new(Arc::clone(&log), Arc::clone(&guest.memory), Some(used)));
        assert_eq!(port.operate(VhostOp::SetLog { index: ring.try_into().unwrap(), log }), VhostReply::Done);
    }
}

/// The address that `labsw_benches::frame` gives a station.
fn station(number: u16) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | u64::from(number))
}

/// `tcp port 445`, as libpcap 1.10 compiles it.
fn tcp_port_445() -> Filter {
    let program = [
        (0x28, 0, 0, 12),
        (0x15, 0, 6, 0x86dd),
        (0x30, 0, 0, 20),
        (0x15, 0, 15, 6),
        (0x28, 0, 0, 54),
        (0x15, 12, 0, 445),
        (0x28, 0, 0, 56),
        (0x15, 10, 11, 445),
        (0x15, 0, 10, 0x0800),
        (0x30, 0, 0, 23),
        (0x15, 0, 8, 6),
        (0x28, 0, 0, 20),
        (0x45, 6, 0, 0x1fff),
        (0xb1, 0, 0, 14),
        (0x48, 0, 0, 14),
        (0x15, 2, 0, 445),
        (0x48, 0, 0, 16),
        (0x15, 0, 1, 445),
        (0x06, 0, 0, 262_144),
        (0x06, 0, 0, 0),
    ];
    let program = program.map(|(code, jt, jf, k)| Insn { code, jt, jf, k });
    Filter::new(&program, Form::Untagged).unwrap()
}

/// A worker between two guests that know each other's stations.
pub struct Lab {
    worker: Worker,
    _commands: Sender<Command>,
    from: Guest,
    to: Guest,
    idle: Vec<Guest>,
    mirrored: bool,
    stats: Arc<PortStats>,
    now_ns: u64,
}

impl Lab {
    /// Frames of `wire_bytes` (with FCS) are ready to go from the first guest to the second, a known unicast.
    pub fn new(wire_bytes: usize) -> Lab {
        Lab::with(wire_bytes, Around::default())
    }

    /// Like [`Lab::new`], with more around the two guests.
    pub fn with(wire_bytes: usize, around: Around) -> Lab {
        let shared =
            Shared { fdb: Arc::new(around.fdb()), mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect() };
        let tables = Arc::new(around.tables());
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let (commands, receiver) = unbounded();
        let (events, _) = unbounded();
        let captures = Arc::new(around.captures(&waker));
        let ends = ControlEnds { commands: receiver, events, waker };
        let load = Arc::new(WorkerLoad::default());
        let mut worker = Worker::new(Turn::ONLY, shared, Power::Performance, load, ends, poll);
        let mut from = Guest::new(FEATURES, RING);
        let mut to = Guest::new(FEATURES | INDIRECT, RING);
        let mut idle: Vec<Guest> = (0..around.idle_ports).map(|_| Guest::new(FEATURES, RING)).collect();
        let stats = Arc::new(PortStats::new(1));
        let mut outputs = Vec::new();
        let mut attach = |port, guest: &Guest, stats| {
            let mut both = guest.port();
            if around.logged && port < 2 {
                log_writes(guest, &mut both);
            }
            let VhostPort { tx, rx } = both;
            let output = Output::new(Some(tx), stats);
            outputs.push(Some(if around.delayed && port == 1 { output.impaired_by(delay()) } else { output }));
            for (queue, rx) in rx.into_iter().enumerate() {
                commands.send(Command::AddQueue { port: PortId(port), queue, rx: Box::new(rx) }).unwrap();
            }
        };
        attach(0, &from, Arc::new(PortStats::new(1)));
        attach(1, &to, Arc::clone(&stats));
        for (id, guest) in (2..).zip(&mut idle) {
            fill_receive(guest);
            attach(id, guest, Arc::new(PortStats::new(1)));
        }
        let snapshot = Snapshot { tables, outputs: outputs.into() };
        commands.send(Command::SetSnapshot { snapshot, done: bounded(1).0 }).unwrap();
        commands.send(Command::SetCaptures { captures, done: bounded(1).0 }).unwrap();
        assert!(worker.obey());
        // The answer first, so that the flow is known.
        from.post(RECEIVE, 1, BUFFER_BYTES, None);
        to.transmit(TRANSMIT, &frame(64, 1, 2), &[]);
        worker.turn();
        fill_receive(&mut to);
        fill_transmit_with(&mut from, |number| {
            let (to, from) = around.addresses(number % around.flows);
            frame(wire_bytes, to, from)
        });
        let mut lab = Lab { worker, _commands: commands, from, to, idle, mirrored: around.mirrored, stats, now_ns: 0 };
        // Once round the rings, so that every page was touched.
        for _ in 0..RING / 64 {
            lab.turn(64);
        }
        assert_eq!(lab.forwarded(), u64::from(RING) - if around.delayed { 64 } else { 0 });
        lab
    }

    /// Offers `frames` (up to 64) and as many buffers, and has the worker forward them.
    pub fn turn(&mut self, frames: u16) {
        offer(&self.to, RECEIVE, frames);
        if let Some(sink) = self.idle.first().filter(|_| self.mirrored) {
            offer(sink, RECEIVE, frames);
        }
        offer(&self.from, TRANSMIT, frames);
        self.now_ns += 1000;
        self.worker.set_time(self.now_ns);
        if self.worker.turn() != usize::from(frames) {
            panic!("the turn did not take what was offered");
        }
    }

    /// Frames that reached the second guest.
    pub fn forwarded(&self) -> u64 {
        self.stats.snapshot().tx_frames
    }
}
