//! Proves that a switch with nothing to do sleeps, and that sleeping loses and delays nothing.
//!
//! *Awake in time*: single numbered frames at random gaps, most of them about as long as the worker spins before it
//! falls asleep, so that many arrive just while it does. The next frame is not sent before the last one has arrived, so
//! none can wake the switch for another; and the guests here kick only when the switch asks for it. If the worker did
//! not look once more after it has asked for kicks, the frame that came in between would wait for ever.
//!
//! *Asleep when idle*: the CPU time of `labswd` while every port is silent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use labsw_tests::guest::{Guest as Qemu, Nic};
use labsw_tests::packet::{Frame, Mac, RawSocket, mac};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::Lab;

use labsw_testkit::guest::packed::PACKED;
use labsw_testkit::guest::{EVENT_IDX, MRG_RXBUF, VERSION_1};
use labsw_testkit::station::Station;

const SECOND: Duration = Duration::from_secs(1);
/// Frames from one port to another, and how long that may take at most: on a machine with much else to do they are
/// fewer.
const FRAMES: u32 = 20_000;
const FRAMES_AT_LEAST: u32 = 1000;
const BUDGET: Duration = Duration::from_secs(4);
/// How late a frame may be.
const LATEST: Duration = Duration::from_millis(200);
/// Mean of the usual gaps: about as long as an adaptive worker spins.
const GAP_US: f64 = 60.0;
/// One gap in so many is far longer than that, up to so long.
const LONG_GAP_ONE_IN: u64 = 64;
const LONG_GAP_US: f64 = 3000.0;
/// CPU time that an idle switch may use, percent of one CPU.
const IDLE_PERCENT: f64 = 1.0;

const RING: u16 = 64;

/// Where frames come from and go to.
trait End {
    fn send(&mut self, frame: &[u8]);
    /// The frames that are there already.
    fn receive(&mut self) -> Vec<Vec<u8>>;
}

impl End for Station {
    fn send(&mut self, frame: &[u8]) {
        assert!(self.try_send(frame));
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        Station::receive(self)
    }
}

impl End for RawSocket {
    fn send(&mut self, frame: &[u8]) {
        RawSocket::send(self, frame);
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.try_recv().ok()).collect()
    }
}

/// Gaps between frames; the same for the same seed (xorshift64*).
struct Gaps(u64);

impl Gaps {
    fn random(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    #[allow(clippy::cast_precision_loss, reason = "53 bits")]
    fn next(&mut self) -> Duration {
        let share = self.random() as f64 / (1u64 << 53) as f64;
        let microseconds = if self.random().is_multiple_of(LONG_GAP_ONE_IN) {
            share * LONG_GAP_US
        } else {
            -GAP_US * (1.0 - share).ln()
        };
        Duration::from_secs_f64(microseconds / 1e6)
    }
}

/// Waits for the frame with this number; any other frame between the two stations is out of place.
fn arrives(to: &mut dyn End, source: Mac, number: u32) -> bool {
    let sent = Instant::now();
    loop {
        let late = sent.elapsed() > LATEST;
        let frames = to.receive();
        let frames: Vec<_> = frames.iter().filter(|frame| frame[6..12] == source).collect();
        if let [frame] = frames.as_slice() {
            assert_eq!(frame[14..18], number.to_be_bytes(), "out of order");
            return true;
        }
        assert!(frames.is_empty(), "more than was sent");
        if late {
            return false;
        }
    }
}

/// Sends single frames from one end to the other. The stations' addresses must be new to the switch.
fn awake_in_time(what: &str, stations: [u8; 2], from: &mut dyn End, to: &mut dyn End) {
    let seed = u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap() | 1;
    let mut gaps = Gaps(seed);
    let [source, destination] = stations.map(mac);
    // So that both are known to the switch.
    to.send(&Frame::new(source, destination).number(0).build());
    assert!(arrives(from, destination, 0), "{what}: no way back");
    let begin = Instant::now();
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while number < FRAMES && (number < FRAMES_AT_LEAST || begin.elapsed() < BUDGET) {
        let gap = gaps.next();
        let wait = Instant::now();
        while wait.elapsed() < gap {
            std::hint::spin_loop();
        }
        number += 1;
        let sent = Instant::now();
        from.send(&Frame::new(destination, source).number(number).build());
        assert!(
            arrives(to, source, number),
            "{what}, seed {seed}: frame {number}, {gap:?} after the last, has not arrived within {LATEST:?}"
        );
        slowest = slowest.max(sent.elapsed());
    }
    eprintln!("{what}: seed {seed}: {number} frames in {:?}, the slowest in {slowest:?}", begin.elapsed());
}

/// Two guests with these features.
fn guests(what: &str, features: u64) {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("idle");
    let switch = Labswd::start(
        &site,
        "power = \"adaptive\"\n[ports.a]\ntype = \"vhost_user\"\n[ports.b]\ntype = \"vhost_user\"\n",
    );
    let [mut a, mut b] = ["a", "b"].map(|port| Station::attach(&switch.vhost_socket(port), features, RING));
    for port in ["a", "b"] {
        switch.wait_port_up(port);
    }
    awake_in_time(what, [1, 2], &mut a, &mut b);
    switch.stop();
}

#[test]
fn guests_with_event_index() {
    guests("split rings, event index", VERSION_1 | MRG_RXBUF | EVENT_IDX);
}

#[test]
fn guests_without_event_index() {
    guests("split rings, flags", VERSION_1 | MRG_RXBUF);
}

#[test]
fn guests_with_packed_rings() {
    guests("packed rings, event index", PACKED | MRG_RXBUF | EVENT_IDX);
}

#[test]
fn guests_with_packed_rings_without_event_index() {
    guests("packed rings, flags", PACKED | MRG_RXBUF);
}

#[test]
fn guests_and_containers() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("idle");
    let switch = lab.start("power = \"adaptive\"", &[("b", ""), ("c", "")], "[ports.a]\ntype = \"vhost_user\"");
    let (mut b, mut c) = (lab.socket("b"), lab.socket("c"));
    awake_in_time("veth to veth", [1, 2], &mut b, &mut c);
    let mut a = Station::attach(&switch.vhost_socket("a"), VERSION_1 | MRG_RXBUF | EVENT_IDX, RING);
    switch.wait_port_up("a");
    awake_in_time("veth to guest", [3, 4], &mut b, &mut a);
    awake_in_time("guest to veth", [5, 6], &mut a, &mut b);
    switch.stop();
}

/// CPU time of a process, all its threads.
fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let used = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(used.sum())
}

/// Asserts that the switch uses next to nothing of a CPU over a while, and says so.
fn assert_idle(what: &str, switch: &Labswd<'_>, over: Duration) {
    std::thread::sleep(2 * SECOND);
    let (before, begin) = (cpu_time(switch.pid()), Instant::now());
    std::thread::sleep(over);
    let used = 100.0 * (cpu_time(switch.pid()) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    let busy = switch.ctl(&["status"])["workers"][0]["busy_percent"].as_f64().unwrap();
    eprintln!("{what}: {used:.3} % of a CPU, busy {busy:.3} %");
    assert!(used <= IDLE_PERCENT, "{what}: {used} % of a CPU");
    assert!(busy < 0.1, "{what}: busy {busy} %");
}

#[test]
fn asleep_when_idle() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("idle");
    let features =
        [VERSION_1 | MRG_RXBUF | EVENT_IDX, VERSION_1 | MRG_RXBUF, PACKED | MRG_RXBUF | EVENT_IDX, PACKED | MRG_RXBUF];
    let mut config = String::new();
    for number in 0..8 {
        writeln!(config, "[ports.g{number}]\ntype = \"vhost_user\"").unwrap();
    }
    let switch = lab.start("power = \"adaptive\"", &[("c0", ""), ("c1", "")], &config);
    let mut stations: Vec<Station> = (0..8)
        .zip(features.iter().cycle())
        .map(|(number, &features)| Station::attach(&switch.vhost_socket(&format!("g{number}")), features, RING))
        .collect();
    for number in 0..8 {
        switch.wait_port_up(&format!("g{number}"));
    }
    // Each of them has been in use.
    for station in &mut stations {
        station.send(&Frame::new([0xff; 6], mac(1)).build());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_idle("8 guests, 2 containers", &switch, 10 * SECOND);
    assert!(switch.counter("c1", "tx_frames") >= 8, "they are attached");
    switch.stop();
}

#[test]
fn asleep_beside_a_linux_guest() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let site = Site::new("idle");
    let switch = Labswd::start(&site, "power = \"adaptive\"\n[ports.a]\ntype = \"vhost_user\"\n");
    let mut guest = Qemu::boot("a", "10.1.0.1/24", &Nic::new(switch.vhost_socket("a"), 1));
    guest.ready();
    assert_idle("a Linux guest", &switch, 5 * SECOND);
    drop(guest);
    switch.stop();
}
