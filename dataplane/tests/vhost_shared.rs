//! Several workers send to the same guest at once, over split and packed rings in plain memory: every frame arrives
//! exactly once, and those of one flow in order.
//!
//! The guest empties its rings while no worker is inside a send (a read-write lock between them): how a driver and a
//! device race is another test's matter; here it is the workers who race.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::port::{Turn, TxPort};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{VhostOp, VhostPort, VhostReply};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::packed::Driver;
use labsw_testkit::guest::{EVENT_IDX, Guest, MRG_RXBUF, RING_PACKED, VERSION_1};

const RING: u16 = 256;
/// Frames each worker gets through.
const FRAMES: u32 = 20_000;
/// Flows of each worker.
const FLOWS: u32 = 7;

/// The receiving side of a guest.
enum Receiver {
    Split(Guest),
    Packed(Guest, Vec<Driver>),
}

impl Receiver {
    fn new(packed: bool, pairs: usize) -> Receiver {
        let features = VERSION_1 | MRG_RXBUF | EVENT_IDX;
        if packed {
            let guest = Guest::with_pairs(features | RING_PACKED, RING, pairs);
            let drivers = (0..pairs).map(|pair| Driver::new(&guest, 2 * pair)).collect();
            Receiver::Packed(guest, drivers)
        } else {
            Receiver::Split(Guest::with_pairs(features, RING, pairs))
        }
    }

    fn port(&self) -> VhostPort {
        match self {
            Receiver::Split(guest) | Receiver::Packed(guest, _) => guest.port(),
        }
    }

    /// Takes what has arrived in every ring, and posts buffers again.
    fn empty(&mut self) -> Vec<Vec<Vec<u8>>> {
        match self {
            Receiver::Split(guest) => (0..guest.rings.len() / 2)
                .map(|pair| {
                    let frames = guest.received(2 * pair);
                    let next = guest.rings[2 * pair].next_avail;
                    let room = RING - next.wrapping_sub(guest.rings[2 * pair].last_used);
                    guest.post(2 * pair, room.into(), 256, None);
                    frames
                })
                .collect(),
            Receiver::Packed(guest, drivers) => drivers
                .iter_mut()
                .map(|driver| {
                    let frames = driver.received(guest);
                    while driver.post(guest, &[256]) {}
                    frames
                })
                .collect(),
        }
    }
}

/// Frame `number` of a worker: a UDP frame of one of its flows.
fn numbered(worker: usize, number: u32) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, worker as u8, 8, 0];
    frame.extend([0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, worker as u8, 10, 0, 0, 99]);
    frame.extend([0, (number % FLOWS) as u8, 0, 9, 0, 20, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame.resize(100, 0);
    frame
}

/// Sends all frames of a worker, those that were refused again, and returns what it counted.
fn send_all(port: &dyn TxPort, turn: &Turn, guest: &RwLock<Receiver>) -> PortDelta {
    let (mut next, mut stats) = (0, PortDelta::ZERO);
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    while next < FRAMES || !waiting.is_empty() {
        assert!(Instant::now() < end, "worker {}: {next} frames, {} waiting", turn.worker, waiting.len());
        while waiting.len() < 1 + (next as usize * 7) % 64 && next < FRAMES {
            waiting.push(numbered(turn.worker, next));
            next += 1;
        }
        waiting.truncate(64);
        let mut burst = Burst::new();
        for frame in &waiting {
            // SAFETY: the frames stay in `waiting` until the burst is gone.
            assert!(unsafe { burst.push(0, &[Segment { ptr: frame.as_ptr(), len: frame.len() as u32 }]) });
        }
        let items: Vec<_> = (0..waiting.len()).map(|at| TxItem::whole(at as u8, TagEdit::KEEP)).collect();
        let inside = guest.read().unwrap();
        let unsent = port.send_set(turn, &mut burst, &items, &mut stats).unwrap();
        drop((inside, burst));
        let mut at = 0;
        waiting.retain(|_| {
            at += 1;
            unsent & 1 << (at - 1) != 0
        });
        if unsent != 0 {
            std::thread::yield_now();
        }
    }
    stats
}

/// `workers` send at once to a guest with so many queue pairs.
fn hammer(packed: bool, workers: usize, pairs: usize) {
    let receiver = Receiver::new(packed, pairs);
    let port = receiver.port();
    let guest = RwLock::new(receiver);
    guest.write().unwrap().empty();
    let (tx, done) = (&*port.tx, AtomicUsize::new(0));
    let (mut arrived, mut used) = (vec![vec![Vec::new(); FLOWS as usize]; workers], vec![vec![0; pairs]; workers]);
    let mut take = |guest: &RwLock<Receiver>| {
        for (ring, frames) in guest.write().unwrap().empty().into_iter().enumerate() {
            for frame in frames {
                let number = u32::from_be_bytes(frame[42..46].try_into().unwrap());
                let worker = usize::from(frame[11]);
                assert_eq!(frame, numbered(worker, number));
                arrived[worker][(number % FLOWS) as usize].push(number);
                used[worker][ring] += 1;
            }
        }
    };
    let sent: Vec<PortDelta> = std::thread::scope(|scope| {
        let start = |worker| {
            let (guest, done) = (&guest, &done);
            scope.spawn(move || {
                let stats = send_all(tx, &Turn { worker, workers, ..Turn::ONLY }, guest);
                done.fetch_add(1, Ordering::Release);
                stats
            })
        };
        let threads: Vec<_> = (0..workers).map(start).collect();
        while done.load(Ordering::Acquire) < workers && threads.iter().any(|thread| !thread.is_finished()) {
            take(&guest);
            std::thread::yield_now();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    take(&guest);
    for (worker, flows) in arrived.iter().enumerate() {
        assert_eq!(sent[worker].tx_frames, u64::from(FRAMES));
        for (flow, numbers) in (0u32..).zip(flows) {
            let expected = (0..FRAMES).filter(|number| number % FLOWS == flow);
            // Once a ring is full it stays so until the guest has its turn, so what is sent again was the end of its
            // flow.
            assert!(numbers.iter().copied().eq(expected), "worker {worker}, flow {flow}: {} frames", numbers.len());
        }
        for (ring, &count) in used[worker].iter().enumerate() {
            let own = pairs < workers || ring % workers == worker;
            assert!(own || count == 0, "worker {worker} used ring {ring} of another");
        }
    }
}

#[test]
fn workers_share_one_split_ring() {
    hammer(false, 2, 1);
    hammer(false, 4, 1);
}

#[test]
fn workers_share_one_packed_ring() {
    hammer(true, 2, 1);
    hammer(true, 4, 1);
}

#[test]
fn workers_share_fewer_rings_than_they_are() {
    hammer(false, 3, 2);
    hammer(true, 3, 2);
}

#[test]
fn workers_have_rings_of_their_own_if_there_are_enough() {
    hammer(false, 2, 5);
    hammer(true, 3, 4);
}

/// Rings stop, start, go on and off under senders: nothing is sent to a ring that was reported stopped.
#[test]
fn the_control_side_operates_on_rings_in_use() {
    for packed in [false, true] {
        let receiver = Receiver::new(packed, 2);
        let (port, stop) = (receiver.port(), AtomicBool::new(false));
        let guest = RwLock::new(receiver);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (tx, guest, stop) = (&*port.tx, &guest, &stop);
                scope.spawn(move || {
                    let frames: Vec<_> = (0..16).map(|number| numbered(worker, number)).collect();
                    let items: Vec<_> = (0..16).map(|at| TxItem::whole(at, TagEdit::KEEP)).collect();
                    while !stop.load(Ordering::Relaxed) {
                        let mut burst = Burst::new();
                        for frame in &frames {
                            // SAFETY: the frames outlive the burst.
                            assert!(unsafe { burst.push(0, &[Segment { ptr: frame.as_ptr(), len: 100 }]) });
                        }
                        let mut stats = PortDelta::ZERO;
                        let inside = guest.read().unwrap();
                        tx.send_set(&Turn { worker, workers: 2, ..Turn::ONLY }, &mut burst, &items, &mut stats)
                            .unwrap();
                        drop(inside);
                        assert_eq!(stats.tx_frames + stats.drops.iter().sum::<u64>(), 16);
                    }
                });
            }
            let operate = |op| port.tx.operate(op, &mut || ()).unwrap();
            for round in 0..500 {
                guest.write().unwrap().empty();
                let index = round % 2 * 2;
                match round % 5 {
                    0 => assert_eq!(operate(VhostOp::EnableRing { index, enabled: round % 10 == 0 }), VhostReply::Done),
                    1 => {
                        let VhostReply::Stopped { base } = operate(VhostOp::StopRing { index }) else { panic!() };
                        assert!(base.is_some());
                        let quiet = guest.write().unwrap().empty();
                        std::thread::sleep(Duration::from_micros(200));
                        let after = guest.write().unwrap().empty();
                        assert!(after[usize::from(index / 2)].is_empty(), "after {} more", quiet.len());
                        let (Receiver::Split(guest) | Receiver::Packed(guest, _)) = &*guest.read().unwrap();
                        let setup = Box::new(guest.setup(index.into()));
                        operate(VhostOp::StartRing { index, setup, enabled: true, connection: 2 });
                    }
                    _ => {}
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
