//! A guest that changes a frame as soon as somebody has read it: the mirror shows what the receiver got, whatever rings
//! and buffers they have and however the frame leaves.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test: its numbers are small")]

use std::sync::{Arc, Mutex};

use crossbeam::channel::{Sender, bounded, unbounded};
use labsw_dataplane::frame::{Burst, SNAPSHOT_BYTES};
use labsw_dataplane::losses::TxReport;
use labsw_dataplane::mirror::MirrorTx;
use labsw_dataplane::port::{Fault, Turn, TxPort};
use labsw_dataplane::stats::{MirrorStats, PortStats};
use labsw_dataplane::vhost_user::VhostPort;
use labsw_dataplane::worker::{Command, ControlEnds, Output, Power, Shared, Snapshot, Worker};
use labsw_dataplane::workers::load::WorkerLoad;
use labsw_switch::fdb::Fdb;
use labsw_switch::forward::TxItem;
use labsw_switch::tables::{Direction, MirrorSpec, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode};
use labsw_switch::{MAX_MIRRORS, MirrorId, PortId};
use labsw_testkit::guest::packed::Driver;
use labsw_testkit::guest::{Guest, MRG_RXBUF, RING_PACKED, VERSION_1};

const RING: u16 = 128;
const RX: usize = 0;
const TX: usize = 1;
/// The sender, two receivers, and the sensor.
const GUESTS: usize = 4;
const SENSOR: usize = 3;
const TAG: [u8; 4] = [0x81, 0, 0, 10];

/// A port after whose sends the sender of the frames writes to all of them, where the snapshot does not cover them.
#[derive(Debug)]
struct Informed {
    port: Arc<dyn TxPort>,
    /// Where the bytes behind the snapshots lie, and how many of them are written.
    frames: Arc<Mutex<Vec<usize>>>,
    len: usize,
}

impl TxPort for Informed {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let outcome = self.port.send(turn, burst, items, report);
        for frame in &*self.frames.lock().unwrap() {
            // SAFETY: memory of the sending guest, which is mapped until the test ends.
            unsafe { (*frame as *mut u8).write_bytes(0xdd, self.len) };
        }
        outcome
    }
}

/// The receivers' rings, and how many buffers of how many bytes they post.
#[derive(Clone, Copy, Debug)]
struct Case {
    features: u64,
    buffers: usize,
    buffer_bytes: u32,
    /// The receivers are trunks: they get the frames with a tag.
    tagged: bool,
    snaplen: u32,
    /// Bytes of the first of two descriptors of each frame; 0: it has one descriptor.
    split_at: usize,
}

const USUAL: Case =
    Case { features: VERSION_1 | MRG_RXBUF, buffers: 40, buffer_bytes: 2048, tagged: false, snaplen: 0, split_at: 0 };

struct Receiver {
    guest: Guest,
    driver: Option<Driver>,
}

impl Receiver {
    fn new(case: Case) -> Receiver {
        let guest = Guest::new(case.features, RING);
        let driver = (case.features & RING_PACKED != 0).then(|| Driver::new(&guest, RX));
        Receiver { guest, driver }
    }

    fn post(&mut self, count: usize, bytes: u32) {
        match &mut self.driver {
            Some(driver) => (0..count).for_each(|_| assert!(driver.post(&self.guest, &[bytes]))),
            None => self.guest.post(RX, count, bytes, None),
        }
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        match &mut self.driver {
            Some(driver) => driver.received(&self.guest),
            None => self.guest.received(RX),
        }
    }
}

fn rules(mode: VlanMode) -> PortRules {
    let (tag, trunks) = if mode == VlanMode::Access { (Some(10), vec![]) } else { (None, vec![10..=10]) };
    PortRules { vlan: PortVlan::new(mode, tag, &trunks).unwrap(), ..PortRules::default() }
}

fn worker(case: Case, outputs: Vec<Option<Output>>) -> (Worker, Sender<Command>) {
    let mirror = MirrorSpec {
        id: MirrorId(0),
        sources: vec![(PortId(0), Direction::RX)],
        all_ports: None,
        vlans: None,
        to: Some(PortId(SENSOR as u16).into()),
        snaplen_bytes: case.snaplen,
        filter: None,
    };
    let mode = |port: usize| if case.tagged && port != 0 { VlanMode::Trunk } else { VlanMode::Access };
    let ports = (0..GUESTS).map(|port| (PortId(port as u16), rules(mode(port)))).collect();
    let tables = Arc::new(Tables::build(ports, vec![mirror]).unwrap());
    let poll = mio::Poll::new().unwrap();
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
    let (commands, receiver) = unbounded();
    let ends = ControlEnds { commands: receiver, events: unbounded().0, waker };
    let mirrors = (0..MAX_MIRRORS).map(|_| MirrorStats::new(1)).collect();
    let shared = Shared { fdb: Arc::new(Fdb::new(1024, 300, 1)), mirrors };
    let load = Arc::new(WorkerLoad::default());
    let worker = Worker::new(Turn::ONLY, shared, Power::Performance, load, ends, poll);
    let snapshot = Snapshot { tables, outputs: outputs.into() };
    commands.send(Command::SetSnapshot { snapshot, done: bounded(1).0 }).unwrap();
    (worker, commands)
}

/// Broadcasts 32 frames of 400 to 1500 bytes; gives those sent, and those that each of the others received.
fn broadcast(case: Case) -> (Vec<Vec<u8>>, [Vec<Vec<u8>>; GUESTS - 1]) {
    let frames: Vec<Vec<u8>> = (0..32usize)
        .map(|number| {
            let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
            frame.extend((14..400 + 1100 * number / 31).map(|at| (at * 7 + number) as u8));
            frame
        })
        .collect();
    let mut from = Guest::new(VERSION_1, RING);
    let places = Arc::new(Mutex::new(Vec::new()));
    let mut receivers = [(); GUESTS - 1].map(|()| Receiver::new(case));
    let VhostPort { tx, rx } = from.port();
    let mut outputs = vec![Some(Output::new(Some(tx), Arc::new(PortStats::new(1))))];
    for (id, receiver) in (1..).zip(&receivers) {
        let port: Arc<dyn TxPort> = receiver.guest.port().tx;
        let port = if id == SENSOR { Arc::new(MirrorTx::new(port, None)) } else { port };
        let informed = Informed { port, frames: Arc::clone(&places), len: 200 };
        outputs.push(Some(Output::new(Some(Arc::new(informed)), Arc::new(PortStats::new(1)))));
    }
    let (mut worker, commands) = worker(case, outputs);
    for (queue, rx) in rx.into_iter().enumerate() {
        commands.send(Command::AddQueue { port: PortId(0), queue, rx: Box::new(rx) }).unwrap();
    }
    assert!(worker.obey());
    // A first frame, after which the rings know where their buffers lie.
    receivers.iter_mut().for_each(|receiver| receiver.post(1, 2048));
    from.transmit(TX, &frames[0][..60], &[]);
    assert_eq!(worker.turn(), 1);
    for receiver in &mut receivers {
        assert_eq!(receiver.received().len(), 1);
        receiver.post(case.buffers, case.buffer_bytes);
    }
    for frame in &frames {
        let split = if case.split_at == 0 { &[][..] } else { &[case.split_at][..] };
        let slot = from.rings[TX].next_avail % RING;
        from.transmit(TX, frame, split);
        let at = Guest::offset_of(from.addresses(TX).available) + 4 + 2 * usize::from(slot);
        let head = u16::from_le_bytes(from.read(at, 2).try_into().unwrap());
        let place = from.at(from.buffer(TX, head), 12 + frame.len());
        places.lock().unwrap().push(place as usize + 12 + SNAPSHOT_BYTES);
    }
    assert_eq!(worker.turn(), 32);
    (frames, receivers.each_mut().map(Receiver::received))
}

#[test]
fn a_single_read_shows_the_sensor_what_all_receivers_get() {
    for case in [
        USUAL,
        Case { features: USUAL.features | RING_PACKED, ..USUAL },
        Case { tagged: true, ..USUAL },
        Case { split_at: 300, ..USUAL },
        Case { buffer_bytes: 1200, buffers: 60, ..USUAL },
        Case { features: USUAL.features | RING_PACKED, buffer_bytes: 1200, buffers: 60, ..USUAL },
        Case { snaplen: 300, ..USUAL },
    ] {
        let (sent, [one, two, sensor]) = broadcast(case);
        let tagged = |frame: &Vec<u8>| [&frame[..12], &TAG, &frame[12..]].concat();
        let expected = if case.tagged { sent.iter().map(tagged).collect() } else { sent.clone() };
        assert!(one == expected && two == expected, "{case:?}");
        let cut = |frame: &Vec<u8>| match case.snaplen as usize {
            0 => frame.clone(),
            snaplen => frame[..snaplen.min(frame.len())].to_vec(),
        };
        assert!(sensor == sent.iter().map(cut).collect::<Vec<_>>(), "{case:?}");
    }
}

/// Receivers without room take some of the frames; the sensor gets as many, and the same bytes.
#[test]
fn a_single_read_also_of_frames_for_which_a_receiver_has_no_room() {
    let (sent, received) = broadcast(Case { buffers: 11, ..USUAL });
    assert!(received.iter().all(|frames| *frames == sent[..11]));
}
