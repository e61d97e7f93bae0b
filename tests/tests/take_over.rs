//! Proves that a new `labswd` takes over from a running one without a frame lost or doubled, and that a take-over that
//! fails leaves the old one as it was.
//!
//! Numbered frames go from one front end to another, with as many on their way as the rings take, while one `labswd`
//! after the other takes over: each has to arrive once, in order. `LABSW_TAKE_OVERS` says how many times (else 5).
//! The longest pause between two frames, per take-over, is printed.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use labsw_control::takeover::{Channel, Message, WireError, socket_path, wire};
use labsw_testkit::frontend::{self, Front};
use labsw_testkit::guest::packed::Driver;
use labsw_testkit::guest::{EVENT_IDX, Guest, MRG_RXBUF, RING_PACKED, VERSION_1};
use labsw_tests::packet::{Frame, mac};
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const RING: u16 = 256;
/// Frames on their way at most: the receiver has buffers for them.
const UNDERWAY: u64 = 128;
const BUFFER: u32 = 2048;
const SECOND: Duration = Duration::from_secs(1);
const SPLIT: u64 = VERSION_1 | MRG_RXBUF | EVENT_IDX;
const PACKED: u64 = SPLIT | RING_PACKED;

/// A guest's driver that kicks when it is asked to, and its connection.
struct Station {
    guest: Guest,
    packed: Option<[Driver; 2]>,
    front: Front,
}

impl Station {
    fn attach(socket: &Path, features: u64) -> Station {
        let mut guest = Guest::new(features, RING);
        let mut packed =
            (features & RING_PACKED != 0).then(|| [RECEIVE, TRANSMIT].map(|ring| Driver::new(&guest, ring)));
        for _ in 0..RING {
            match &mut packed {
                Some([receive, _]) => assert!(receive.post(&guest, &[BUFFER])),
                None => guest.post(RECEIVE, 1, BUFFER, None),
            }
        }
        let front = Front(UnixStream::connect(socket).unwrap());
        front.0.set_read_timeout(Some(10 * SECOND)).unwrap();
        front.send(frontend::SET_OWNER, &[], &[]);
        front.send(frontend::SET_FEATURES, &[features | frontend::PROTOCOL], &[]);
        front.memory_table(&guest);
        for ring in [RECEIVE, TRANSMIT] {
            front.ring(&guest, ring);
            front.call(&guest, ring);
            front.enable(ring as u64, 1);
        }
        Station { guest, packed, front }
    }

    /// Sends if there is room.
    fn try_send(&mut self, frame: &[u8]) -> bool {
        match &mut self.packed {
            Some([_, transmit]) => {
                transmit.reap(&self.guest);
                let sent = transmit.transmit(&self.guest, frame, &[]);
                transmit.kick(&self.guest);
                sent
            }
            None => {
                self.guest.reap(TRANSMIT);
                if self.guest.free_entries(TRANSMIT) == 0 {
                    return false;
                }
                let before = self.guest.rings[TRANSMIT].next_avail;
                self.guest.transmit(TRANSMIT, frame, &[]);
                self.guest.kick(TRANSMIT, before);
                true
            }
        }
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        match &mut self.packed {
            Some([receive, _]) => {
                let frames = receive.received(&self.guest);
                frames.iter().for_each(|_| assert!(receive.post(&self.guest, &[BUFFER])));
                frames
            }
            None => {
                let frames = self.guest.received(RECEIVE);
                self.guest.post(RECEIVE, frames.len(), BUFFER, None);
                frames
            }
        }
    }
}

fn numbered(from: u8, to: u8, number: u64) -> Vec<u8> {
    let mut frame = Frame::new(mac(to), mac(from)).build();
    frame.resize(64, 0);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number_of(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// What went through while it was watched.
#[derive(Debug, Default)]
struct Passed {
    frames: u64,
    longest: Duration,
}

/// Numbered frames from one station to the other, each checked to arrive once and in order, until told to stop.
struct Stream {
    sent: u64,
    received: u64,
}

impl Stream {
    fn run(&mut self, from: &mut Station, to: &mut Station, stop: &AtomicBool) -> Passed {
        let (begin, mut passed, mut last) = (self.received, Passed::default(), Instant::now());
        while !stop.load(Ordering::Relaxed) || self.received < self.sent {
            while !stop.load(Ordering::Relaxed)
                && self.sent - self.received < UNDERWAY
                && from.try_send(&numbered(1, 2, self.sent))
            {
                self.sent += 1;
            }
            let frames = to.receive();
            let now = Instant::now();
            if frames.is_empty() {
                assert!(now - last < 20 * SECOND, "{} sent, {} received, and no more come", self.sent, self.received);
                std::thread::yield_now();
                continue;
            }
            passed.longest = passed.longest.max(now - last);
            last = now;
            for frame in frames {
                assert_eq!(number_of(&frame), self.received, "each frame once, in order");
                self.received += 1;
            }
        }
        passed.frames = self.received - begin;
        passed
    }

    /// Runs while `work` is done on another thread.
    fn during(&mut self, from: &mut Station, to: &mut Station, work: impl FnOnce() + Send) -> Passed {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                stop.store(true, Ordering::Relaxed);
                done
            });
            let passed = self.run(from, to, &stop);
            if let Err(failure) = worker.join().unwrap() {
                std::panic::resume_unwind(failure);
            }
            passed
        })
    }
}

fn ports(names: &[&str]) -> String {
    names.iter().map(|name| format!("[ports.{name}]\ntype = \"vhost_user\"\n")).collect()
}

/// A switch with two stations that know each other's place.
fn meet(switch: &Labswd<'_>, features: [u64; 2]) -> (Station, Station) {
    let mut a = Station::attach(&switch.vhost_socket("a"), features[0]);
    let mut b = Station::attach(&switch.vhost_socket("b"), features[1]);
    switch.wait_port_up("a");
    switch.wait_port_up("b");
    assert!(b.try_send(&numbered(2, 1, 0)));
    process::wait_for("the first frame", 5 * SECOND, || (!a.receive().is_empty()).then_some(()));
    (a, b)
}

fn take_overs() -> usize {
    std::env::var("LABSW_TAKE_OVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

fn frames_survive(features: [u64; 2]) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takeover");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "idle"]));
    let (mut a, mut b) = meet(&switch, features);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:77", "--vlan", "1", "--port", "idle"]);
    let mut stream = Stream { sent: 0, received: 0 };
    let mut gaps = Vec::new();
    for round in 0..take_overs() {
        let before = switch.pid();
        let passed = stream.during(&mut a, &mut b, || {
            std::thread::sleep(SECOND / 10);
            switch.take_over();
            std::thread::sleep(SECOND / 10);
        });
        assert_ne!(switch.pid(), before);
        assert!(passed.frames > 100, "round {round}: only {} frames passed", passed.frames);
        gaps.push(passed.longest);
    }
    // The counters go on, and the database: nothing was flooded to the port that has nothing to do with it.
    assert_eq!(switch.counter("a", "rx_frames"), stream.sent);
    assert_eq!(switch.counter("b", "tx_frames"), stream.received);
    assert_eq!(switch.port("a")["drops"], switch.port("b")["drops"], "nothing was dropped");
    assert_eq!(switch.counter("idle", "tx_frames") + switch.drops("idle", "not_connected"), 1, "the very first frame");
    assert_eq!(switch.fdb_port(1, "02:00:00:00:00:77").as_deref(), Some("idle"));
    let still = switch.ctl(&["port", "show", "a"]);
    assert_eq!(still["connected"], true);
    // The front ends were not disconnected, and are answered.
    let offered = {
        a.front.send(frontend::GET_FEATURES, &[], &[]);
        a.front.reply(frontend::GET_FEATURES)
    };
    assert_eq!(offered & features[0], features[0]);
    gaps.sort();
    let at = |percent: usize| gaps[(gaps.len() * percent).div_ceil(100).clamp(1, gaps.len()) - 1];
    eprintln!(
        "{} take-overs under {} frames: longest gap p50 {:?}, p99 {:?}, max {:?}",
        gaps.len(),
        stream.received,
        at(50),
        at(99),
        at(100)
    );
    drop((a, b));
    switch.stop();
}

#[test]
fn no_frame_is_lost_between_split_rings() {
    frames_survive([SPLIT, SPLIT]);
}

#[test]
fn no_frame_is_lost_between_packed_rings() {
    frames_survive([PACKED, PACKED]);
}

/// `labswd --take-over` at this site, which has to fail with one line; gives the line.
fn refused(site: &Site) -> String {
    let program = find_binary("labswd").unwrap();
    let mut command = site.ns.command("timeout");
    command.args(["30", &program.to_string_lossy(), "--take-over", "--log-level", "error", "--config"]);
    let (status, text) = process::output(command.arg(site.dir().join("lab.toml")));
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "one line: {text}");
    text
}

/// A conversation with the switch as far as the state.
fn as_far_as_the_state(site: &Site) -> Result<Channel, WireError> {
    let channel = Channel::new(UnixStream::connect(socket_path(&site.control_socket())).unwrap(), 30 * SECOND).unwrap();
    channel.send(&Message::Hello { program: "test".to_owned() }, &[])?;
    assert!(matches!(channel.receive()?.0, Message::Welcome { .. }));
    channel.send(&Message::Prepare, &[])?;
    let (state, descriptors) = channel.receive()?;
    assert!(matches!(state, Message::State(_)) && descriptors.len() > 2);
    Ok(channel)
}

#[test]
fn a_take_over_that_fails_leaves_the_old_one_as_it_was() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takefail");
    let mut switch = Labswd::start(&site, &ports(&["a", "b"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let mut stream = Stream { sent: 0, received: 0 };
    // It hangs up at each point of the conversation.
    let passed = stream.during(&mut a, &mut b, || {
        drop(as_far_as_the_state(&site).unwrap());
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        drop(channel);
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        channel.send(&Message::Prepared, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Go));
        // It ends with the switch in its hands: nobody uses the rings, so the old one may.
        drop(channel);
        std::thread::sleep(SECOND / 10);
    });
    assert!(passed.longest < 5 * SECOND, "{passed:?}");
    // It hangs with the state, and with the workers standing still.
    let passed = stream.during(&mut a, &mut b, || {
        let channel = as_far_as_the_state(&site).unwrap();
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("in time")));
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Ready, &[]).unwrap();
        assert!(matches!(channel.receive().unwrap().0, Message::Last(_)));
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("in time")));
        // Two at once: the second is told.
        let first = UnixStream::connect(socket_path(&site.control_socket())).unwrap();
        std::thread::sleep(SECOND / 10);
        assert!(as_far_as_the_state(&site).unwrap_err().to_string().contains("under way"));
        drop(first);
        process::wait_for("the end of the first", 5 * SECOND, || as_far_as_the_state(&site).ok().map(drop));
        // Out of turn.
        let channel = as_far_as_the_state(&site).unwrap();
        channel.send(&Message::Running, &[]).unwrap();
        assert!(matches!(channel.receive(), Err(WireError::Refused(reason)) if reason.contains("out of turn")));
    });
    assert!(passed.frames > 1000, "{passed:?}");
    assert_eq!(switch.counter("b", "tx_frames"), stream.received);
    // Now for real.
    switch.take_over();
    let passed = stream.during(&mut a, &mut b, || std::thread::sleep(SECOND / 5));
    assert!(passed.frames > 100);
    switch.stop();
}

#[test]
fn garbled_words_and_unknown_versions_are_refused_in_one_line() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takebad");
    let mut switch = Labswd::start(&site, &ports(&["a"]));
    let header = |words: [u32; 4]| -> Vec<u8> {
        wire::MAGIC.into_iter().chain(words.into_iter().flat_map(u32::to_le_bytes)).collect()
    };
    let newer = wire::FORMAT + 1;
    let cases: [(Vec<u8>, &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: switch\r\n\r\n".to_vec(), "garbled"),
        (header([newer, newer, 2, 0]), "does not know"),
        (header([0, 0, 2, 0]), "needs at least"),
        ([header([wire::FORMAT, wire::OLDEST_READER, 3, 0]), b"[1]".to_vec()].concat(), "garbled"),
    ];
    for (bytes, expected) in cases {
        let mut visitor = UnixStream::connect(socket_path(&site.control_socket())).unwrap();
        visitor.set_read_timeout(Some(10 * SECOND)).unwrap();
        visitor.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        // The end of the connection may be a reset: not all that was sent was read.
        let _ = visitor.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("refused") && answer.contains(expected), "{answer:?} lacks {expected:?}");
        // Then the next one is heard.
        process::wait_for("the end of the visit", 5 * SECOND, || as_far_as_the_state(&site).ok().map(drop));
    }
    assert!(switch.is_running());
    assert_eq!(switch.port_state("a"), "down");
    switch.stop();
}

#[test]
fn what_cannot_be_handed_over_is_named() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takename");
    let file = site.write_config(&ports(&["a"]));
    let line = refused(&site);
    assert!(line.contains("no labswd that could be taken over from"), "{line}");
    let mut switch = Labswd::start(&site, &(ports(&["a"]) + "[ports.host]\ntype = \"tap\"\ninterface = \"t0\"\n"));
    switch.wait_port_up("host");
    let line = refused(&site);
    assert!(line.contains("port \"host\"") && line.contains("type tap"), "{line}");
    // The configuration that runs is what counts.
    switch.ctl(&["port", "del", "host"]);
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "[ports.later]\ntype = \"vhost_user\"\n").unwrap();
    switch.ctl(&["port", "add", "more", "--type", "vhost_user"]);
    switch.ctl(&["port", "down", "a"]);
    switch.take_over();
    let ports = switch.ctl(&["port", "list"]);
    let names: Vec<_> = ports.as_array().unwrap().iter().filter_map(|port| port["name"].as_str()).collect();
    assert_eq!(names, ["a", "more"]);
    assert_eq!(switch.port("a")["reason"], "administratively down");
    switch.stop();
}
