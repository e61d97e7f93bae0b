//! Proves that the work of a switch goes on over a take-over: captures, replays, streams of counters, connections that
//! only wait, sensors in wires, impairments, and jobs with a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use labsw_control::api::{InlineState, Reply, Request};
use labsw_control::varlink::Client;
use labsw_testkit::station::Station;
use labsw_tests::numbered::{RING, Stream, number_of, numbered};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};
use labsw_tests::take_over::{PACKED, SPLIT, meet, ports, take_overs};

const SECOND: Duration = Duration::from_secs(1);

fn ctl(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(find_binary("labsw-ctl").unwrap());
    command.arg("--socket").arg(site.control_socket()).args(arguments);
    command
}

/// The blocks of a pcapng file: type and body.
fn blocks(file: &Path) -> Vec<(u32, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let mut rest = &bytes[..];
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), usize::try_from(word(4)).unwrap());
        blocks.push((kind, rest[8..length - 4].to_vec()));
        rest = &rest[length..];
    }
    blocks
}

/// Section headers, interfaces, and the numbers of the frames of a pcapng file.
fn contents(file: &Path) -> (usize, usize, Vec<u64>) {
    let blocks = blocks(file);
    let count = |kind: u32| blocks.iter().filter(|(found, _)| *found == kind).count();
    let frames = blocks.iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| number_of(&body[20..]));
    (count(0x0a0d_0d0a), count(1), frames.collect())
}

/// Ends a capture; gives the frames that it captured and dropped, as it says them.
fn end(mut capture: Process) -> (u64, u64) {
    capture.signal(libc::SIGINT);
    assert!(capture.wait(10 * SECOND).success(), "{}", capture.log());
    let log = capture.log();
    let count = |word: &str| {
        let at = log.split_whitespace().position(|found| found.trim_end_matches(',') == word).unwrap();
        log.split_whitespace().nth(at - if word == "dropped" { 1 } else { 2 }).unwrap().parse().unwrap()
    };
    (count("captured"), count("dropped"))
}

#[test]
fn captures_go_on_and_each_frame_is_in_the_file_once_or_counted() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takecap");
    let mut switch = Labswd::start(&site, &ports(&["a", "b"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let files = ["a.pcapng", "both.pcapng", "few.pcapng"].map(|name| site.dir().join(name));
    let begin = |arguments: &[&str], file: &Path| {
        let before = switch.ctl(&["capture", "--list"]).as_array().unwrap().len();
        let file = ["-w", file.to_str().unwrap()];
        let capture = Process::spawn("capture", &mut ctl(&site, &[&["capture"], arguments, &file].concat()));
        wait_for("the capture", 10 * SECOND, || {
            (switch.ctl(&["capture", "--list"]).as_array().unwrap().len() > before).then_some(())
        });
        capture
    };
    let one = begin(&["a:rx"], &files[0]);
    let both = begin(&["--filter", "ether proto 0x88b5", "--snaplen", "40"], &files[1]);
    let mut few = begin(&["b:tx", "--count", "500"], &files[2]);
    let mut stream = Stream::default();
    let rounds = (take_overs() / 2).max(1);
    for _ in 0..rounds {
        stream.during(&mut a, &mut b, || {
            std::thread::sleep(SECOND / 10);
            switch.take_over();
            std::thread::sleep(SECOND / 10);
        });
        let listed = switch.ctl(&["capture", "--list"]);
        assert!(listed.as_array().unwrap().len() >= 2, "{listed}");
    }
    assert!(few.wait(10 * SECOND).success(), "{}", few.log());
    let (captured, dropped) = end(one);
    assert_eq!(captured + dropped, stream.received, "of one port");
    eprintln!("{rounds} take-overs under {captured} captured frames, {dropped} dropped");
    let (headers, interfaces, numbers) = contents(&files[0]);
    assert_eq!((headers, interfaces, numbers.len() as u64), (1, 1, captured));
    assert!(numbers.is_sorted_by(|one, other| one < other), "each once, in order");
    let (captured, dropped) = end(both);
    assert_eq!(captured + dropped, 2 * stream.received, "of both ports, where they come in and where they go out");
    let (headers, interfaces, numbers) = contents(&files[1]);
    assert_eq!((headers, interfaces, numbers.len() as u64), (1, 2, captured));
    let (headers, interfaces, numbers) = contents(&files[2]);
    assert_eq!((headers, interfaces, numbers.len()), (1, 1, 500));
    wait_for("the end of all captures", 10 * SECOND, || {
        switch.ctl(&["capture", "--list"]).as_array().unwrap().is_empty().then_some(())
    });
    drop((a, b));
    switch.stop();
}

#[test]
fn frames_that_wait_for_the_client_of_a_capture_go_over() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    // Fewer than the queue of a capture holds, more than its client's socket does.
    const FRAMES: u64 = 4000;
    let site = Site::new("takewait");
    let mut switch = Labswd::start(&site, &ports(&["a", "b"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let file = site.dir().join("slow.pcapng");
    let arguments = ["capture", "a:rx", "--filter", "ether proto 0x88b5", "-w", file.to_str().unwrap()];
    let mut capture = Process::spawn("capture", &mut ctl(&site, &arguments));
    let listed = |switch: &Labswd<'_>| switch.ctl(&["capture", "--list"]).as_array().unwrap().len();
    wait_for("the capture", 10 * SECOND, || (listed(&switch) == 1).then_some(()));
    capture.signal(libc::SIGSTOP);
    let before = switch.counter("a", "rx_frames");
    for number in 0..FRAMES {
        wait_for("room", 10 * SECOND, || a.try_send(&numbered(1, 2, number)).then_some(()));
        b.receive();
    }
    wait_for("all frames", 10 * SECOND, || (switch.counter("a", "rx_frames") == before + FRAMES).then_some(()));
    switch.take_over();
    capture.signal(libc::SIGCONT);
    wait_for("all of the capture", 10 * SECOND, || {
        let count = std::fs::metadata(&file).map_or(0, |of| of.len()) / 96;
        (count >= FRAMES).then_some(())
    });
    assert_eq!(end(capture), (FRAMES, 0));
    let (headers, interfaces, numbers) = contents(&file);
    assert_eq!((headers, interfaces), (1, 1));
    assert!(numbers.into_iter().eq(0..FRAMES), "each once, in order");
    drop((a, b));
    switch.stop();
}

#[test]
fn a_replay_goes_on_and_each_frame_is_sent_once_in_order() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    const FRAMES: u32 = 2500;
    let site = Site::new("takeinj");
    let mut switch = Labswd::start(&site, &ports(&["a", "b"]));
    let (a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    // As they were captured: one in a millisecond.
    let frame = |number: u32| {
        let time = [number / 1000, number % 1000 * 1000, 64, 64];
        [words(&time), numbered(1, 2, number.into())].concat()
    };
    let head = words(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1]);
    let file = site.dir().join("numbered.pcap");
    std::fs::write(&file, [vec![head], (0..FRAMES).map(frame).collect()].concat().concat()).unwrap();
    let before = switch.counter("a", "rx_frames");
    let mut replay = Process::spawn("replay", &mut ctl(&site, &["--json", "inject", "a", &file.to_string_lossy()]));
    let mut numbers = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                std::thread::sleep(SECOND / 2);
                switch.take_over();
            }
        });
        // A guest at work: its ring has room for less than the whole replay.
        wait_for("the frames", 40 * SECOND, || {
            let begin = Instant::now();
            while begin.elapsed() < SECOND / 10 {
                numbers.extend(b.receive().iter().map(|frame| number_of(frame)));
                std::thread::sleep(Duration::from_millis(1));
            }
            (!replay.is_running()).then_some(())
        });
    });
    numbers.extend(b.receive().iter().map(|frame| number_of(frame)));
    assert!(numbers.is_sorted_by(|one, other| one < other), "each once, in order");
    // A test that gets no time does not take all of them.
    let dropped = switch.drops("b", "guest_ring_full");
    assert_eq!(numbers.len() as u64 + dropped, u64::from(FRAMES));
    assert!(replay.wait(20 * SECOND).success(), "{}", replay.log());
    let told: serde_json::Value = serde_json::from_str(&replay.log()).unwrap();
    assert_eq!((&told["sent"], &told["drops"]), (&FRAMES.into(), &serde_json::json!({})));
    assert!(told["seconds"].as_f64().unwrap() >= 2.4, "as they were captured: {told}");
    assert_eq!(switch.counter("a", "rx_frames") - before, u64::from(FRAMES));
    drop((a, b));
    switch.stop();
}

/// The sensor in the wire of a port: it copies the frames of either side to the other one.
struct Sensor {
    sides: [Station; 2],
    /// Frames on their way to each side.
    waiting: [VecDeque<Vec<u8>>; 2],
    /// Numbered frames that it has seen.
    seen: u64,
    /// When it worked last, and the longest pause.
    last: Instant,
    pause: Duration,
}

impl Sensor {
    fn carry(&mut self) {
        self.pause = self.pause.max(self.last.elapsed());
        self.last = Instant::now();
        for (from, to) in [(0, 1), (1, 0)] {
            let frames = self.sides[from].receive();
            self.seen += frames.iter().filter(|frame| frame[..12] == numbered(1, 2, 0)[..12]).count() as u64;
            self.waiting[to].extend(frames);
            while self.waiting[to].front().is_some_and(|frame| self.sides[to].try_send(frame)) {
                self.waiting[to].pop_front();
            }
        }
    }
}

/// A sensor in the wire of `a`, and two stations.
struct Wire {
    a: Station,
    b: Station,
    sensor: Sensor,
    sent: u64,
    received: u64,
}

impl Wire {
    /// Sends a frame, if it `sends`, has the sensor work, and receives.
    fn turn(&mut self, sends: bool) {
        self.sent += u64::from(sends && self.a.try_send(&numbered(1, 2, self.sent)));
        self.sensor.carry();
        self.received += self.b.receive().len() as u64;
        std::thread::sleep(Duration::from_millis(1));
    }

    /// Takes over under frames. True if none was dropped; the sensor stood still otherwise.
    fn take_over(&mut self, switch: &mut Labswd<'_>) -> bool {
        // A sensor that stands still is dead after twelve rounds of 50 ms.
        const PAUSE: Duration = Duration::from_millis(300);
        let dropped = switch.drops("a", "inline_closed");
        (self.sent, self.received, self.sensor.seen, self.sensor.pause) = (0, 0, 0, Duration::ZERO);
        std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                std::thread::sleep(SECOND / 10);
                switch.take_over();
                // Longer than a sensor takes to be known to be dead.
                std::thread::sleep(SECOND);
            });
            while !work.is_finished() {
                self.turn(true);
            }
        });
        let dropped = || switch.drops("a", "inline_closed") - dropped;
        wait_for("the last frames", 20 * SECOND, || {
            self.turn(false);
            (self.received + dropped() == self.sent).then_some(())
        });
        let (dropped, pause) = (dropped(), self.sensor.pause);
        eprintln!("{} frames, {dropped} dropped, longest pause of the sensor {pause:?}", self.received);
        assert_eq!(self.sensor.seen, self.received, "all of them through the sensor");
        assert!(dropped == 0 || pause > PAUSE, "{dropped} frames were dropped");
        dropped == 0
    }
}

#[test]
fn frames_go_through_a_sensor_before_during_and_after_a_take_over() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takeips");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "in", "out"]));
    let (a, b) = meet(&switch, [SPLIT, SPLIT]);
    let sides = ["in", "out"].map(|port| Station::attach(&switch.vhost_socket(port), SPLIT, RING));
    ["in", "out"].iter().for_each(|port| switch.wait_port_up(port));
    let sensor = Sensor { sides, waiting: Default::default(), seen: 0, last: Instant::now(), pause: Duration::ZERO };
    let mut wire = Wire { a, b, sensor, sent: 0, received: 0 };
    switch.ctl(&["inline", "set", "ips", "--of", "a", "--through", "in,out", "--on-failure", "closed"]);
    // A program for each question would take longer than the sensor may stand still.
    let mut client = Client::connect(&site.control_socket()).unwrap();
    let mut state = || match client.call(&Request::ShowInline { name: "ips".to_owned() }) {
        Ok(Reply::Inline(shown)) => shown.inline.state,
        other => panic!("{other:?}"),
    };
    // On a busy machine the sensor itself may stand still for long.
    let is_seamless = (0..20).any(|_| {
        let begin = Instant::now();
        while state() != InlineState::Through {
            assert!(begin.elapsed() < 40 * SECOND, "the sensor is not put in");
            wire.turn(false);
        }
        wire.take_over(&mut switch)
    });
    assert!(is_seamless, "the sensor stood still each time");
    // It is still looked after.
    wait_for("its death", 20 * SECOND, || (state() == InlineState::Closed).then_some(()));
    drop(wire);
    switch.stop();
}

#[test]
fn impairments_go_on_with_the_frames_that_they_delay() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takeimp");
    let both = "[impair.a.rx]\ndelay = \"20ms\"\n[impair.b.tx]\ndelay = \"30ms\"\njitter = \"5ms\"\n";
    let mut switch = Labswd::start(&site, &(ports(&["a", "b"]) + both));
    let (mut a, mut b) = meet(&switch, [SPLIT, PACKED]);
    let shown = |switch: &Labswd<'_>| -> Vec<(u64, u64)> {
        let shown = switch.ctl(&["impair", "list"]);
        let number = |one: &serde_json::Value, key: &str| one[key].as_u64().unwrap();
        shown.as_array().unwrap().iter().map(|one| (number(one, "seed"), number(one, "frames"))).collect()
    };
    let before = shown(&switch);
    let mut stream = Stream::default();
    // The times of an old process are good for a new one.
    std::thread::sleep(3 * SECOND);
    for _ in 0..take_overs() {
        let passed = stream.during(&mut a, &mut b, || {
            std::thread::sleep(SECOND / 10);
            switch.take_over();
            std::thread::sleep(SECOND / 10);
        });
        assert!(passed.longest < 2 * SECOND, "{passed:?}");
    }
    let after = shown(&switch);
    assert!(before.iter().zip(&after).all(|(before, after)| before.0 == after.0), "seeds: {before:?}, {after:?}");
    // The very first frames, of which one is flooded, are counted as well.
    assert!(
        after.iter().all(|(_, frames)| (stream.sent..stream.sent + 3).contains(frames)),
        "{} {after:?}",
        stream.sent
    );
    eprintln!("{} take-overs under {} delayed frames", take_overs(), stream.received);
    drop((a, b));
    switch.stop();
}

#[test]
fn clients_that_wait_and_streams_of_counters_go_on() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takecli");
    let mut switch = Labswd::start(&site, &ports(&["a"]));
    let mut client = Client::connect(&site.control_socket()).unwrap();
    client.call(&Request::GetStatus).unwrap();
    let mut watching = Process::spawn("stats", &mut ctl(&site, &["--json", "stats", "--watch"]));
    let lines = |watching: &Process| watching.log().lines().count();
    wait_for("the first counters", 10 * SECOND, || (lines(&watching) > 0).then_some(()));
    switch.take_over();
    client.call(&Request::GetStatus).unwrap();
    let before = lines(&watching);
    wait_for("further counters", 10 * SECOND, || (lines(&watching) > before + 1).then_some(()));
    assert!(watching.is_running());
    watching.kill();
    process::wait_for("its end at the switch", 10 * SECOND, || client.call(&Request::ListPorts).ok());
    switch.stop();
}

#[test]
fn a_port_goes_on_to_flap_and_a_configuration_on_trial_is_taken_back_when_its_time_is_up() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("taketime");
    let mut switch = Labswd::start(&site, &ports(&["a"]));
    let waits = |switch: &Labswd<'_>| switch.ctl(&["status"])["unconfirmed"].clone();
    let names = |switch: &Labswd<'_>| -> Vec<String> {
        let ports = switch.ctl(&["port", "list"]);
        ports.as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap().to_owned()).collect()
    };
    let file = site.dir().join("wanted.toml");
    let text = std::fs::read_to_string(site.dir().join("lab.toml")).unwrap() + &ports(&["more"]);
    std::fs::write(&file, text).unwrap();
    let on_trial = |switch: &Labswd<'_>, time: &str| {
        switch.ctl(&["config", "apply", &file.to_string_lossy(), "--confirm", time]);
    };

    on_trial(&switch, "1h");
    switch.take_over();
    assert_eq!((names(&switch), waits(&switch)["file"].as_str()), (vec!["a".into(), "more".into()], file.to_str()));
    let left = waits(&switch)["milliseconds_left"].as_u64().unwrap();
    assert!((3_500_000..3_600_000).contains(&left), "{left}");
    switch.ctl(&["config", "revert"]);
    assert_eq!((names(&switch), waits(&switch)), (vec!["a".to_owned()], serde_json::Value::Null));

    let begin = Instant::now();
    on_trial(&switch, "3s");
    switch.ctl(&["port", "flap", "a", "--every", "1s", "--count", "3"]);
    assert_eq!(switch.port("a")["reason"], "flapping");
    switch.take_over();
    let flap = switch.port("a")["flap"].clone();
    assert_eq!(flap["every_milliseconds"], 1000);
    assert!(flap["left"].as_u64().unwrap() > 0);
    wait_for("the end of the flapping", 20 * SECOND, || switch.port("a")["flap"].is_null().then_some(()));
    assert!(begin.elapsed() > 2 * SECOND, "three times down and up");
    assert_ne!(switch.port("a")["reason"], "flapping");
    wait_for("the configuration before", 20 * SECOND, || (names(&switch) == ["a"]).then_some(()));
    assert!(begin.elapsed() >= 3 * SECOND && waits(&switch).is_null());
    switch.stop();
}

#[test]
fn a_copy_that_comes_back_after_a_take_over_is_known() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("takeloop");
    let mut switch = Labswd::start(&site, &ports(&["a", "b", "span"]));
    let (mut a, mut b) = meet(&switch, [SPLIT, SPLIT]);
    let mut sensor = Station::attach(&switch.vhost_socket("span"), SPLIT, RING);
    switch.wait_port_up("span");
    switch.ctl(&["mirror", "set", "m", "--source", "a:rx", "--to", "span", "--inject-vlan", "1"]);
    let looped = |switch: &Labswd<'_>| switch.drops("span", "mirror_loop");
    // A copy is remembered for two seconds, which a busy machine may need for a take-over.
    let is_known = (0..20).any(|number| {
        let copied = Instant::now();
        assert!(a.try_send(&numbered(1, 2, number)));
        let copy = wait_for("the copy", 10 * SECOND, || sensor.receive().pop());
        let before = looped(&switch);
        switch.take_over();
        assert!(sensor.try_send(&copy));
        let in_time = copied.elapsed() < SECOND;
        let dropped = || (switch.counter("span", "rx_frames") > number).then(|| looped(&switch) - before);
        let dropped = wait_for("the frame that came back", 10 * SECOND, dropped);
        assert!(!in_time || dropped == 1, "a loop that is not recognised");
        in_time
    });
    assert!(is_known, "each take-over took a second");
    // Others may enter.
    b.receive();
    assert!(sensor.try_send(&numbered(9, 2, 77)));
    wait_for("the injected frame", 10 * SECOND, || b.receive().iter().any(|f| number_of(f) == 77).then_some(()));
    drop((a, b, sensor));
    switch.stop();
}
