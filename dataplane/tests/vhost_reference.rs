//! Our vhost-user back end against the reference, `vhost-user-backend`: the same front end runs the same script over a
//! socket of each, and all that it can see must be the same.
//!
//! **How it works.** Both back ends echo: a frame taken out of the guest's transmit ring goes into its receive ring. A
//! [`Transcript`] keeps every reply, the frames that the back end took, those that came back and both used rings.
//! The differences that are wanted have assertions of their own: the queue number counts pairs here and rings there,
//! the number of memory slots is each one's own, and QEMU's order of messages is refused there, which is why
//! the session is not built upon that crate.
//!
//! Reference: vhost-user.rst, "Ring states", "Front-end message types"; virtio 1.2, 2.7 "Split Virtqueues".

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::panic, reason = "test helpers")]

mod reference;

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::Role;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::frontend::{
    Front, GET_FEATURES, GET_MAX_MEM_SLOTS, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_VRING_BASE, Harness, PROTOCOL,
    SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL,
    SET_VRING_ENABLE, SET_VRING_ERR, SET_VRING_KICK, SET_VRING_NUM,
};
use labsw_testkit::guest::{EVENT_IDX, GUEST_BASE, Guest, INDIRECT, USER_BASE, VERSION_1, frame, frames_of};
use reference::{Frames, Reference};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;
/// Small, so that its indices go round several times.
const RING_SIZE: u16 = 16;
const FRAMES_PER_ROUND: u16 = 5;

enum BackEnd {
    Ours(Box<Harness>),
    Reference(Reference),
}

impl BackEnd {
    /// Both, on sockets named after the test.
    fn both(name: &str) -> [BackEnd; 2] {
        let ours = Harness::new(&format!("{name}-ours"), Role::Server);
        [BackEnd::Ours(Box::new(ours)), BackEnd::Reference(Reference::new(&format!("{name}-reference")))]
    }

    fn connect(&mut self) -> Front {
        match self {
            BackEnd::Ours(harness) => harness.connect(),
            BackEnd::Reference(reference) => reference.connect(),
        }
    }

    /// Lets the back end work until it has answered or hung up; the reference has threads of its own.
    fn answer(&mut self, front: &Front) {
        if let BackEnd::Ours(harness) = self {
            harness.until("an answer", |_| {
                let now = Timespec::default();
                poll(&mut [PollFd::new(&front.0, PollFlags::IN)], Some(&now)).unwrap() > 0
            });
        }
    }

    /// After a hang-up: until the back end has noticed.
    fn rest(&mut self) {
        match self {
            BackEnd::Ours(harness) => harness.until("gone", |endpoint| !endpoint.status().connected),
            BackEnd::Reference(reference) => reference.rest(),
        }
    }

    /// Lets the back end echo; returns the frames taken since the last time, once all of them are in the used rings.
    fn echo(&mut self, guest: &Guest) -> Frames {
        if let BackEnd::Ours(harness) = self {
            return echo(&mut harness.port.lock().unwrap());
        }
        for ring in [0, 1] {
            eventually("all are used", || guest.used(ring, 2).load(Ordering::Acquire) == guest.rings[ring].next_avail);
        }
        let BackEnd::Reference(reference) = self else { unreachable!() };
        reference.take()
    }
}

/// One turn of a worker with our port only.
fn echo(port: &mut labsw_dataplane::vhost_user::VhostPort) -> Frames {
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    let taken = frames_of(&burst);
    let items: Vec<TxItem> = (0..burst.len()).map(|index| TxItem::whole(index as u8, TagEdit::KEEP)).collect();
    assert_eq!(port.send(&mut burst, &items, &mut stats).unwrap(), 0);
    port.release(0, &mut burst).unwrap();
    taken
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Everything that a front end and its guest see of a back end.
#[derive(Debug, Default, PartialEq)]
struct Transcript {
    /// Request and value of each reply.
    replies: Vec<(u32, u64)>,
    /// The frames taken in each round, and the frames that came back.
    frames: Vec<(Frames, Frames)>,
    /// The state of each ring after each round: index, and id and length of all elements.
    used: Vec<(u16, Vec<(u32, u32)>)>,
}

/// A front end at work.
struct Client<'a> {
    back_end: &'a mut BackEnd,
    front: Front,
    /// REPLY_ACK is agreed upon.
    acknowledged: bool,
    transcript: Transcript,
}

impl Client<'_> {
    fn new(back_end: &mut BackEnd) -> Client<'_> {
        let front = back_end.connect();
        Client { back_end, front, acknowledged: false, transcript: Transcript::default() }
    }

    fn get(&mut self, code: u32, payload: &[u64]) -> u64 {
        self.front.send(code, payload, &[]);
        self.reply(code)
    }

    /// A request that is acknowledged if that is agreed upon.
    fn set(&mut self, code: u32, payload: &[u64], fds: &[BorrowedFd<'_>]) {
        let flags = if self.acknowledged { 9 } else { 1 };
        self.front.send_flags(code, flags, payload, fds);
        if self.acknowledged {
            self.reply(code);
        }
    }

    fn reply(&mut self, code: u32) -> u64 {
        self.back_end.answer(&self.front);
        let value = self.front.reply(code);
        self.transcript.replies.push((code, value));
        value
    }

    /// True if the back end hangs up, within the five seconds that a read takes.
    fn is_hung_up_on(&mut self) -> bool {
        self.back_end.answer(&self.front);
        match self.front.0.read(&mut [0; 1]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// SET_OWNER to the protocol features, if they are wanted, and what differs between the two back ends.
    fn begin(&mut self, protocol: bool) {
        self.set(SET_OWNER, &[], &[]);
        self.get(GET_FEATURES, &[]);
        if protocol {
            let offered = self.get(GET_PROTOCOL_FEATURES, &[]);
            self.acknowledged = true;
            self.set(SET_PROTOCOL_FEATURES, &[offered], &[]);
            let before = self.transcript.replies.len();
            let (queues, slots) = (self.get(GET_QUEUE_NUM, &[]), self.get(GET_MAX_MEM_SLOTS, &[]));
            assert_eq!(queues, if matches!(self.back_end, BackEnd::Ours(_)) { 1 } else { 2 });
            assert!(slots >= 32);
            self.transcript.replies.truncate(before);
        }
    }

    fn features_and_memory(&mut self, guest: &Guest) {
        let protocol = if self.acknowledged { PROTOCOL } else { 0 };
        self.set(SET_FEATURES, &[guest.features | protocol], &[]);
        self.set(SET_MEM_TABLE, &[1, GUEST_BASE, guest.bytes(), USER_BASE, 0], &[guest.memfd.as_fd()]);
    }

    fn rings(&mut self, guest: &Guest, bases: [u64; 2]) {
        for (index, (ring, base)) in guest.rings.iter().zip(bases).enumerate() {
            let (number, at) = (index as u64, guest.addresses(index));
            self.set(SET_VRING_NUM, &[number | u64::from(ring.size) << 32], &[]);
            self.set(SET_VRING_ADDR, &[number, at.descriptors, at.used, at.available, 0], &[]);
            self.set(SET_VRING_BASE, &[number | base << 32], &[]);
            self.set(SET_VRING_KICK, &[number], &[ring.kick.as_fd()]);
            self.set(SET_VRING_CALL, &[number], &[ring.call.as_fd()]);
            self.set(SET_VRING_ERR, &[number], &[ring.call.as_fd()]);
        }
    }

    fn enable(&mut self, on: u64) {
        for ring in [0, 1] {
            self.set(SET_VRING_ENABLE, &[ring | on << 32], &[]);
        }
    }

    /// Stops both rings; returns where they stand.
    fn stop(&mut self) -> [u64; 2] {
        [0, 1].map(|ring| self.get(GET_VRING_BASE, &[ring]) >> 32)
    }

    /// The guest sends frames, direct or in a table, in one to three descriptors, and waits for them to come back.
    fn traffic(&mut self, guest: &mut Guest, rounds: u8) {
        // All requests before this one are done, acknowledged or not.
        self.get(GET_FEATURES, &[]);
        for round in 0..rounds {
            let old = guest.rings[1].next_avail;
            guest.post(0, usize::from(FRAMES_PER_ROUND), 2000, (round % 2 == 1).then_some(100));
            for number in 0..FRAMES_PER_ROUND {
                let pieces: &[usize] = [&[][..], &[12][..], &[12, 33][..]][usize::from(number % 3)];
                let len = 60 + 70 * usize::from(number) + 400 * usize::from(round % 3);
                guest.transmit(1, &frame(len, round.wrapping_mul(16) + number as u8), pieces);
            }
            // Linux's wish: the next used element is to interrupt.
            for ring in [0, 1] {
                let used_event = 4 + 2 * usize::from(guest.rings[ring].size);
                guest.avail(ring, used_event).store(guest.rings[ring].last_used, Ordering::SeqCst);
            }
            guest.kick(1, old);
            let taken = self.back_end.echo(guest);
            for ring in [0, 1] {
                eventually("an interrupt", || guest.interrupts(ring) > 0);
                let elements = (0..guest.rings[ring].size).map(|slot| guest.used_element(ring, slot)).collect();
                self.transcript.used.push((guest.used(ring, 2).load(Ordering::Acquire), elements));
            }
            assert_eq!(guest.reap(1), usize::from(FRAMES_PER_ROUND));
            self.transcript.frames.push((taken, guest.received(0)));
        }
    }

    /// Hangs up.
    fn end(self) -> Transcript {
        drop(self.front);
        self.back_end.rest();
        self.transcript
    }
}

/// A whole life: start, traffic, hot-plug, pause, restart, and a second connection that goes on where the first ended.
fn life(back_end: &mut BackEnd, features: u64, protocol: bool) -> [Transcript; 2] {
    let mut guest = Guest::new(features, RING_SIZE);
    let mut client = Client::new(back_end);
    client.begin(protocol);
    client.features_and_memory(&guest);
    client.rings(&guest, [0, 0]);
    if protocol {
        client.enable(1);
    }
    client.traffic(&mut guest, 3);
    if protocol {
        let more = [0, 1 << 40, guest.bytes(), 1 << 44, 0];
        client.set(ADD_MEM_REG, &more, &[guest.memfd.as_fd()]);
        client.traffic(&mut guest, 2);
        client.set(REM_MEM_REG, &more, &[]);
        client.enable(0);
        client.enable(1);
        client.traffic(&mut guest, 2);
    }
    let bases = client.stop();
    client.rings(&guest, bases);
    client.traffic(&mut guest, 2);
    let bases = client.stop();
    let first = client.end();
    let mut client = Client::new(back_end);
    client.begin(protocol);
    client.features_and_memory(&guest);
    client.rings(&guest, bases);
    if protocol {
        client.enable(1);
    }
    client.traffic(&mut guest, 2);
    client.stop();
    [first, client.end()]
}

#[test]
fn a_front_end_sees_no_difference() {
    for protocol in [true, false] {
        for features in [0, VERSION_1, VERSION_1 | INDIRECT, VERSION_1 | EVENT_IDX, VERSION_1 | INDIRECT | EVENT_IDX] {
            let [ours, reference] = BackEnd::both("life").map(|mut back_end| life(&mut back_end, features, protocol));
            assert_eq!(ours, reference, "features {features:#x}, protocol features {protocol}");
            let frames: usize = ours.iter().flat_map(|transcript| &transcript.frames).map(|(_, back)| back.len()).sum();
            assert_eq!(frames, usize::from(FRAMES_PER_ROUND) * if protocol { 11 } else { 7 });
            assert!(ours[0].frames.iter().all(|(taken, back)| taken == back));
        }
    }
}

#[test]
fn both_refuse_the_same() {
    let guest = Guest::new(VERSION_1, RING_SIZE);
    let refused: [(u32, &[u64]); 6] = [
        (SET_FEATURES, &[1 << 50]),
        (SET_VRING_NUM, &[7 | 64 << 32]),
        (SET_VRING_BASE, &[7]),
        (SET_VRING_ADDR, &[7, USER_BASE, USER_BASE, USER_BASE, 0]),
        (SET_VRING_ENABLE, &[7 | 1 << 32]),
        (REM_MEM_REG, &[0, 1 << 40, 4096, 1 << 44, 0]),
    ];
    for mut back_end in BackEnd::both("refuse") {
        for (code, payload) in refused {
            let mut client = Client::new(&mut back_end);
            client.begin(true);
            client.features_and_memory(&guest);
            assert!(client.transcript.replies.iter().skip(2).all(|&(_, value)| value == 0));
            client.set(code, payload, &[]);
            assert_ne!(client.transcript.replies.pop().unwrap().1, 0, "request {code}");
            assert!(client.is_hung_up_on(), "request {code}");
            client.end();
        }
    }
}

#[test]
fn only_ours_serves_a_front_end_that_enables_rings_first() {
    let [mut ours, mut reference] = BackEnd::both("order");
    for back_end in [&mut ours, &mut reference] {
        let serves = matches!(back_end, BackEnd::Ours(_));
        let mut guest = Guest::new(VERSION_1, RING_SIZE);
        let mut client = Client::new(back_end);
        client.begin(true);
        // QEMU 10: before SET_FEATURES, and never again.
        for ring in [0, 1] {
            client.front.enable(ring, 1);
        }
        if serves {
            client.features_and_memory(&guest);
            client.rings(&guest, [0, 0]);
            client.traffic(&mut guest, 1);
            assert_eq!(client.stop(), [u64::from(FRAMES_PER_ROUND); 2]);
        } else {
            assert!(client.is_hung_up_on(), "the reference serves QEMU's order now");
        }
        client.end();
    }
}
