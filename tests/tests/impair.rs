//! Proves that impairments do on a real path, between two containers, what they say: delay and jitter, loss, a rate,
//! the same losses with the same seed, in each direction; that other ports lose nothing meanwhile; that clearing ends
//! them; and that what makes no sense is refused in one line and changes nothing.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use labsw_control::api::{Reply, Request};
use labsw_control::varlink::Client;
use labsw_tests::iperf;
use labsw_tests::netns::Netns;
use labsw_tests::packet::{Frame, Mac, RawSocket};
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, check_config};
use labsw_tests::veth_lab::{Flow, Lab, receive};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(200);
const PORTS: [(&str, &str); 4] = [("a", ""), ("b", ""), ("c", ""), ("d", "")];
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
/// How far the median delay may be off, ms.
const ACCURACY: f64 = 0.2;
/// Runs of a measurement of which one has to be within that: the machine may be busy with other things.
const RUNS: usize = 5;
/// Two workers, which share the frames on their way to a port.
const TWO: &str = "workers = [0, 1]\n";
/// Frames sent in one go, fewer than a veth's receive ring holds.
const BATCH: u32 = 250;

/// A switch whose ports `a` and `b` know where the other's station is.
fn start<'a>(lab: &'a Lab, workers: &str, config: &str) -> (Labswd<'a>, RawSocket, RawSocket) {
    let switch = lab.start(workers, &PORTS, config);
    for (address, port) in [("02:00:00:00:00:0a", "a"), ("02:00:00:00:00:0b", "b")] {
        switch.ctl(&["fdb", "add", address, "--vlan", "1", "--port", port]);
    }
    (switch, lab.socket("a"), lab.socket("b"))
}

fn number_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// The delays of numbered frames from `a` to `b`, one a millisecond, in ms.
fn delays(a: &RawSocket, b: &RawSocket, frames: u32) -> Vec<f64> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Vec<Instant> {
            let begin = Instant::now();
            let send = |number: u32| {
                thread::sleep((begin + Duration::from_millis(number.into())).saturating_duration_since(Instant::now()));
                let frame = Frame::new(B, A).number(number).build();
                let sent = Instant::now();
                a.send(&frame);
                sent
            };
            (0..frames).map(send).collect()
        });
        let mut arrived = Vec::new();
        for expected in 0..frames {
            let frame = b.recv(PATIENCE).unwrap_or_else(|| panic!("frame {expected} of {frames} did not arrive"));
            assert_eq!(number_of(&frame), expected, "out of order");
            arrived.push(Instant::now());
        }
        let sent = sender.join().unwrap();
        arrived.iter().zip(&sent).map(|(arrived, sent)| (*arrived - *sent).as_secs_f64() * 1000.0).collect()
    })
}

fn quantile(delays: &[f64], percent: usize) -> f64 {
    let mut sorted = delays.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn delay_and_jitter_are_exact_in_each_direction() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imd");
    let (switch, a, b) = start(&lab, "", "");
    for (port, direction) in [("a", "rx"), ("b", "tx")] {
        let run = |options: &[&str], frames| {
            switch.ctl(&[&["impair", "replace", port, "--direction", direction, "--delay", "20ms"], options].concat());
            let delays = delays(&a, &b, frames);
            switch.ctl(&["impair", "clear", port]);
            delays
        };
        let mut seen = Vec::new();
        let exact = (0..RUNS).any(|_| {
            let path = quantile(&delays(&a, &b, 200), 50);
            let [before, varying, after] = [(&[][..], 300), (&["--jitter", "5ms"], 2000), (&[], 300)]
                .map(|(options, frames)| run(options, frames));
            let constant = [before, after];
            assert!(constant.iter().flatten().all(|delay| *delay >= 20.0), "a frame came too early");
            assert!(varying.iter().all(|delay| *delay >= 15.0), "a frame came too early");
            // Where every delay is equally frequent, all that a busy machine adds to some frames moves the median, too:
            // by its mean. 2 ms are for what hits a few frames hard.
            let added =
                |delays: &Vec<f64>| delays.iter().map(|delay| (delay - 20.0 - path).clamp(0.0, 2.0)).sum::<f64>();
            let noise = constant.iter().map(added).fold(0.0, f64::max) / 300.0;
            let median = constant
                .iter()
                .map(|delays| quantile(delays, 50) - path - 20.0)
                .fold(f64::MAX, |a, b| if a.abs() < b.abs() { a } else { b });
            let off = [(10, 16.0), (50, 20.0), (90, 24.0)].map(|(percent, ms)| quantile(&varying, percent) - path - ms);
            seen.push(format!("20 ms: {median:.3} ms off; 20 ms ± 5 ms: {off:.3?} off, machine: {noise:.3}"));
            median.abs() <= ACCURACY
                && off[1].abs() <= ACCURACY + noise
                && off[0].abs().max(off[2].abs()) <= 0.5 + noise
        });
        println!("{port} {direction}: {seen:?}");
        assert!(exact, "{port} {direction}: {seen:?}");
    }
    switch.stop();
}

/// Sends numbered frames from `a` to `b` no faster than they are taken, and gives the numbers that arrived.
fn arrivals(switch: &Labswd<'_>, a: &RawSocket, b: &RawSocket, frames: u32) -> BTreeSet<u32> {
    // Asked often, so without a process each time.
    let mut client = Client::connect(&switch.site().control_socket()).unwrap();
    let request = Request::GetStats { port: Some("a".to_owned()), interval_milliseconds: None };
    let mut taken = || match client.call(&request).unwrap() {
        Reply::Stats(stats) => stats.ports[0].counters.rx_frames,
        reply => panic!("{reply:?}"),
    };
    let before = taken();
    let mut arrived = BTreeSet::new();
    for first in (0..frames).step_by(BATCH as usize) {
        for number in first..frames.min(first + BATCH) {
            a.send(&Frame::new(B, A).number(number).build());
        }
        let sent = u64::from(frames.min(first + BATCH));
        let patience = Instant::now() + PATIENCE;
        while taken() - before < sent {
            assert!(Instant::now() < patience, "frames were lost before the switch");
            thread::sleep(Duration::from_micros(200));
        }
        arrived.extend(b.recv_all(Duration::from_millis(1)).iter().map(|frame| number_of(frame)));
    }
    arrived.extend(receive(b, 0, PATIENCE, QUIET).iter().map(|frame| number_of(frame)));
    assert_eq!(taken() - before, u64::from(frames));
    arrived
}

#[test]
fn five_percent_of_100_000_frames_are_lost_and_counted_in_each_direction() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("iml");
    let (switch, a, b) = start(&lab, TWO, "");
    for (port, direction) in [("a", "rx"), ("b", "tx")] {
        switch.ctl(&["impair", "replace", port, "--direction", direction, "--loss", "5%"]);
        let arrived = u64::try_from(arrivals(&switch, &a, &b, 100_000).len()).unwrap();
        let lost = 100_000 - arrived;
        println!("{port} {direction}: {lost} of 100000 lost");
        assert!((4_700..=5_300).contains(&lost), "{port} {direction}: {lost} of 100000 lost");
        assert_eq!(switch.drops(port, "impair_loss"), lost);
        switch.ctl(&["impair", "clear", port]);
        assert_eq!(arrivals(&switch, &a, &b, 1_000).len(), 1_000, "cleared");
    }
    switch.stop();
}

#[test]
fn the_same_seed_loses_the_same_frames() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("ims");
    let (switch, a, b) = start(&lab, "", "");
    for options in [vec!["--loss", "5%"], vec!["--gemodel", "1% 20%"]] {
        let run = |seed: &str| {
            switch.ctl(&[&["impair", "replace", "b", "--seed", seed], &options[..]].concat());
            arrivals(&switch, &a, &b, 5_000)
        };
        let first = run("7");
        assert!((4_000..5_000).contains(&first.len()), "{} arrived", first.len());
        assert_eq!(run("7"), first, "{options:?}");
        assert_ne!(run("8"), first, "{options:?}");
    }
    switch.stop();
}

fn containers(namespaces: &[(&str, &Netns)]) -> String {
    let port = |(name, ns): &(&str, &Netns)| {
        let place = format!("peer = \"ls-{name}\"\nnetns = \"{}\"\npeer_name = \"eth0\"", ns.name());
        format!("[ports.{name}]\ntype = \"veth\"\n{place}\n")
    };
    namespaces.iter().map(port).collect()
}

#[test]
fn ten_megabits_are_ten_megabits_as_iperf3_measures_them() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("iperf3")]) {
        return;
    }
    let (site, [a, b, c, d]) = (Site::new("imr"), ["a", "b", "c", "d"].map(Netns::new));
    let ports = [("a", &a), ("b", &b), ("c", &c), ("d", &d)];
    let switch = Labswd::start(&site, &(TWO.to_owned() + &containers(&ports)));
    for ((_, container), address) in ports.iter().zip(1..) {
        container.address("eth0", &format!("10.1.0.{address}/24"));
    }
    let measure = |from: &Netns, to: &Netns, address: &str, port: &str, direction: &str| {
        switch.ctl(&["impair", "replace", port, "--direction", direction, "--rate", "10mbit"]);
        let _server = iperf::serve(to);
        let line = format!("-c {address} -u -b 12M -t 8 --connect-timeout 5000 -J");
        let mut seen = Vec::new();
        // Never more; less if a busy machine keeps the sender from sending.
        let exact = (0..RUNS).any(|_| {
            let report = process::run(from.command("iperf3").args(line.split_whitespace()));
            let report: Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
            let received = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            assert!(received <= 10.1e6, "{port} {direction}: {received} bit/s");
            seen.push(received);
            received >= 9.7e6
        });
        println!("{port} {direction}: {seen:?} bit/s received");
        assert!(exact, "{port} {direction}: {seen:?} bit/s received");
        assert!(switch.drops(port, "impair_queue_full") > 0);
    };
    // In each direction, at the same time.
    thread::scope(|scope| {
        scope.spawn(|| measure(&a, &b, "10.1.0.2", "a", "rx"));
        scope.spawn(|| measure(&c, &d, "10.1.0.4", "d", "tx"));
    });
    switch.stop();
}

#[test]
fn other_ports_lose_nothing_and_what_waits_is_dropped_when_it_is_cleared() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imo");
    let (switch, a, b) = start(&lab, TWO, "");
    let flow = Flow::start(&lab, "c", "d");
    switch.ctl(&["impair", "set", "b", "--direction", "tx", "--delay", "5s", "--duplicate", "50%", "--corrupt", "50%"]);
    flow.assert_flowing("while b is impaired");
    b.recv_all(QUIET);
    assert!(arrivals(&switch, &a, &b, 1000).is_empty(), "nothing is due");
    flow.assert_flowing("while frames are delayed");
    switch.ctl(&["impair", "replace", "b", "--delay", "1ms"]);
    let dropped = switch.drops("b", "impair_cleared");
    assert!((1400..1600).contains(&dropped), "a thousand frames and five hundred copies: {dropped}");
    a.send(&Frame::new(B, A).number(1).build());
    assert!(b.recv(PATIENCE).is_some());
    assert!(flow.finish() > 100);
    switch.stop();
}

#[test]
fn the_configuration_impairs_from_the_start() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imc");
    let config = "[profiles.far]\ndelay = '300ms'\nloss = '2%'\n\
        [impair.b]\nprofile = 'far'\nloss = '0%'\nseed = 5\ndirection = 'tx'\n[impair.c]\nprofile = 'lossy'";
    let (switch, a, b) = start(&lab, "", config);
    let list = switch.ctl(&["impair", "list"]);
    let shown = |shown: &Value| {
        ["port", "direction", "profile", "delay", "jitter", "loss"]
            .map(|key| shown[key].as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    let all: Vec<String> = list.as_array().unwrap().iter().map(shown).collect();
    assert_eq!(all, ["b tx far 300ms - 0%", "c rx lossy 20ms 10ms 5%", "c tx lossy 20ms 10ms 5%"]);
    assert_eq!(list[0]["seed"].as_u64(), Some(5));
    a.send(&Frame::new(B, A).build());
    let sent = Instant::now();
    assert!(b.recv(PATIENCE).is_some());
    assert!(sent.elapsed() >= Duration::from_millis(295), "{:?}", sent.elapsed());
    // A profile of the file can be used at run time, too.
    switch.ctl(&["impair", "set", "a", "--profile", "far"]);
    let list = switch.ctl(&["impair", "list"]);
    assert_eq!([0, 1].map(|at| shown(&list[at])), ["a rx far 300ms - 2%", "a tx far 300ms - 2%"]);
    switch.stop();
}

/// Port and direction of each impairment.
fn directions(switch: &Labswd<'_>) -> Vec<String> {
    let list = switch.ctl(&["impair", "list"]);
    let shown = |shown: &Value| format!("{} {}", shown["port"].as_str().unwrap(), shown["direction"].as_str().unwrap());
    list.as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn each_direction_has_its_own_counts_what_it_does_and_outlives_the_device() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imw");
    let (switch, a, b) = start(&lab, "", "");
    switch.ctl(&["impair", "set", "b", "--direction", "rx", "--loss", "100%"]);
    switch.ctl(&["impair", "set", "b", "--direction", "tx", "--delay", "100ms", "--duplicate", "100%", "--seed", "1"]);
    assert_eq!(directions(&switch), ["b rx", "b tx"]);
    let sent = Instant::now();
    a.send(&Frame::new(B, A).number(7).build());
    b.send(&Frame::new(A, B).build());
    for copy in 0..2 {
        assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some(), "copy {copy}");
    }
    assert!(sent.elapsed() >= Duration::from_millis(100), "{:?}", sent.elapsed());
    assert!(a.recv_matching(QUIET, |frame| frame[..6] == A).is_none(), "it was lost on its way from b");
    let list = switch.ctl(&["impair", "list"]);
    let counts =
        |at: usize| ["frames", "lost", "delayed", "duplicated", "corrupted"].map(|key| list[at][key].as_u64().unwrap());
    assert_eq!((counts(0), counts(1)), ([1, 1, 0, 0, 0], [1, 0, 1, 1, 0]));
    let metrics = switch.ctl(&["metrics"]).to_string();
    assert!(metrics.contains("labsw_impair_frames_total"), "{metrics}");

    // Attached anew, and made anew.
    switch.ctl(&["port", "set", "b", "queues=2"]);
    lab.site.ns.ip(&["link", "del", "lsw-b"]);
    wait_for("the new pair", PATIENCE, || lab.peers.link_names().contains(&"b".to_owned()).then_some(()));
    switch.wait_port_up("b");
    let b = lab.socket("b");
    assert_eq!(directions(&switch), ["b rx", "b tx"]);
    let sent = Instant::now();
    a.send(&Frame::new(B, A).number(8).build());
    b.send(&Frame::new(A, B).build());
    assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some());
    assert!(sent.elapsed() >= Duration::from_millis(100), "{:?}", sent.elapsed());
    assert!(a.recv_matching(QUIET, |frame| frame[..6] == A).is_none());

    switch.ctl(&["impair", "clear", "b", "--direction", "rx"]);
    assert_eq!(directions(&switch), ["b tx"]);
    b.send(&Frame::new(A, B).build());
    assert!(a.recv_matching(PATIENCE, |frame| frame[..6] == A).is_some());
    let refused = switch.ctl_refused(&["impair", "clear", "b", "--direction", "rx"]);
    assert!(refused.contains("impairment of port \"b\" does not exist"), "{refused}");
    // It goes with the port.
    switch.ctl(&["port", "del", "b"]);
    assert_eq!(directions(&switch), [""; 0]);
    switch.stop();
}

#[test]
fn with_a_filter_other_frames_pass_at_once_and_in_order() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imx");
    let (switch, a, b) = start(&lab, TWO, "");
    // The number is read behind the Ethernet header: odd ones.
    for (port, direction) in [("b", "tx"), ("a", "rx")] {
        switch.ctl(&[
            "impair",
            "set",
            port,
            "--direction",
            direction,
            "--delay",
            "300ms",
            "--filter",
            "ether[17] & 1 = 1",
        ]);
        let sent = Instant::now();
        for number in 0..100 {
            a.send(&Frame::new(B, A).number(number).build());
        }
        let arrived: Vec<(u32, Duration)> =
            (0..100).map(|_| (number_of(&b.recv(PATIENCE).expect("every frame")), sent.elapsed())).collect();
        let numbers: Vec<u32> = arrived.iter().map(|(number, _)| *number).collect();
        let expected: Vec<u32> = (0..100).step_by(2).chain((1..100).step_by(2)).collect();
        assert_eq!(numbers, expected, "{port} {direction}");
        assert!(arrived[49].1 < Duration::from_millis(300), "others wait as well: {arrived:?}");
        assert!(arrived[50].1 >= Duration::from_millis(300), "too early: {arrived:?}");
        let list = switch.ctl(&["impair", "list"]);
        assert_eq!((&list[0]["frames"], &list[0]["delayed"]), (&50.into(), &50.into()));
        assert_eq!(list[0]["filter"], "ether[17] & 1 = 1");
        switch.ctl(&["impair", "clear", port]);
    }
    // What stands far behind the header.
    switch.ctl(&["impair", "set", "b", "--loss", "100%", "--filter", "greater 1000 and ether[900] = 7"]);
    for (byte, through) in [(7, false), (8, true)] {
        let mut frame = Frame::new(B, A).number(1).build();
        frame.resize(1200, byte);
        a.send(&frame);
        assert_eq!(b.recv(if through { PATIENCE } else { QUIET }), through.then_some(frame));
    }
    switch.stop();
}

/// What `config diff` or `config apply` says of a file: a line each change, with a mark if it is drift.
fn changes(switch: &Labswd<'_>, verb: &str, options: &[&str], file: &str) -> Vec<String> {
    let answer = switch.ctl(&[&["config", verb], options, &[file]].concat());
    let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let line = |change: &Value| {
        let drift = if change["drift"] == true { "!" } else { "" };
        format!("{} {} {}{drift}", text(change, "action"), text(change, "kind"), text(change, "name"))
    };
    answer["changes"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn impairments_are_part_of_the_configuration() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imf");
    let far = "[profiles.far]\ndelay = \"100ms\"\n[impair.b]\nprofile = \"far\"\nseed = 5\ndirection = \"tx\"\n";
    let (switch, a, b) = start(&lab, "", far);
    let write = |text: &str| lab.site.write_config(&(lab.ports(&PORTS) + text)).to_string_lossy().into_owned();
    let changes = |verb: &str, options: &[&str], file: &str| changes(&switch, verb, options, file);
    let none = [""; 0];
    let file = write(far);
    assert_eq!(changes("diff", &[], &file), none);
    let shown = switch.ctl(&["config", "show"]);
    assert_eq!((&shown["profiles"]["far"]["delay"], &shown["impair"]["b"]["seed"]), (&"100ms".into(), &5.into()));

    // Set by hand: drift, kept or undone.
    switch.ctl(&["impair", "set", "b", "--direction", "rx", "--loss", "100%"]);
    switch.ctl(&["impair", "set", "c", "--profile", "far"]);
    assert_eq!(changes("diff", &[], &file), ["change impairment b!", "remove impairment c!"]);
    assert_eq!(changes("diff", &["--keep-runtime"], &file), none);
    // Frames to b are under way while a change of the other direction is applied: they arrive, once, by the same
    // schedule.
    a.send(&Frame::new(B, A).number(1).build());
    assert_eq!(changes("apply", &[], &file), ["change impairment b!", "remove impairment c!"]);
    assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some());
    assert_eq!(switch.ctl(&["impair", "list"])[0]["frames"], 1, "tx of b goes on");
    assert_eq!(switch.drops("b", "impair_cleared"), 0);

    // A profile changes: so does what begins with it.
    let nearer = write(&far.replace("100ms", "1ms"));
    assert_eq!(changes("apply", &[], &nearer), ["change profile far"]);
    assert_eq!(switch.ctl(&["impair", "list"])[0]["delay"], "1ms");
    // A step that fails leaves all of it.
    let taken = lab.site.dir().join("taken.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&taken).unwrap();
    let failing =
        write(&format!("[impair.d]\nloss = '1%'\n[ports.z]\ntype = 'vhost_user'\nsocket = '{}'\n", taken.display()));
    let line = switch.ctl_refused(&["config", "apply", &failing]);
    assert!(line.contains("nothing was changed"), "{line}");
    let nearer = write(&far.replace("100ms", "1ms"));
    assert_eq!((directions(&switch), changes("diff", &[], &nearer)), (vec!["b tx".to_owned()], Vec::new()));
    // Bad tables: one line with the place, nothing changed.
    for (text, expected) in [
        ("[impair.bb]\nloss = '1%'\n", "impair.bb: there is no port \"bb\""),
        ("[impair.b]\nprofile = 'fra'\n", "impair.b.profile: there is no profile \"fra\""),
        ("[impair.b.rx]\nloss = '1%'\n[impair.b.tx]\njitter = '1ms'\n", "impair.b.tx.jitter: jitter is larger"),
    ] {
        let line = switch.ctl_refused(&["config", "check", &write(text)]);
        assert!(
            line.contains(expected) && line.contains("lab.toml:") && line.trim_end().lines().count() == 1,
            "{line}"
        );
    }
    a_port_of_another_name_loses_its_impairment(&lab, &switch);
    switch.stop();
}

/// A port of another name: what is written for the old one goes with it.
fn a_port_of_another_name_loses_its_impairment(lab: &Lab, switch: &Labswd<'_>) {
    let renamed = lab.ports(&[("a", ""), ("e", ""), ("c", ""), ("d", "")]) + "[impair.e]\nloss = '1%'\n";
    let file = lab.site.write_config(&renamed).to_string_lossy().into_owned();
    let expected = ["remove port b", "add port e", "remove profile far", "remove impairment b", "add impairment e"];
    let mut seen = changes(switch, "apply", &[], &file);
    seen.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(directions(switch), ["e rx", "e tx"]);
    assert_eq!(changes(switch, "diff", &[], &file), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line_and_changes_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imb");
    let (switch, _a, _b) = start(&lab, "", "");
    switch.ctl(&["impair", "set", "a", "--profile", "constrained", "--seed", "3"]);
    let before = switch.ctl(&["impair", "list"]);
    let cases: [(&[&str], &str); 13] = [
        (&["set", "a", "--loss", "1%", "--filter", "tcp prot 445"], "filter: \"tcp prot 445\": "),
        (&["replace", "a", "--loss", "1%", "--filter", "host example.org"], "filter: "),
        (&["replace", "a", "--filter", "arp"], "sets nothing"),
        (&["replace", "a", "--delay", "1h"], "delay: delay and jitter together are longer than the 10 s"),
        (&["replace", "a", "--delay", "5ms", "--jitter", "6ms"], "jitter: jitter is larger than delay"),
        (&["replace", "a", "--reorder", "5%"], "reorder: reorder needs a delay"),
        (&["replace", "a", "--rate", "1bit"], "rate: rate is not between 8 kbit and 100 gbit"),
        (
            &["replace", "a", "--loss", "1%", "--gemodel", "1% 2%"],
            "gemodel: says which frames are lost, and so does `loss`",
        ),
        (&["replace", "a", "--delay", "1ms", "--queue-frames", "5"], "queue_frames: is the queue of a rate"),
        (&["replace", "a", "--profile", "losy"], "profile: there is no profile \"losy\"; did you mean \"lossy\"?"),
        (&["replace", "a", "--seed", "4"], "sets nothing"),
        (&["set", "x", "--delay", "1ms"], "port \"x\" does not exist"),
        (&["clear", "b"], "impairment of port \"b\" does not exist"),
    ];
    for (arguments, expected) in cases {
        let line = switch.ctl_refused(&[&["impair"], arguments].concat());
        assert!(line.contains(expected), "{arguments:?}: {line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    // What is no share at all never reaches the switch: wrong usage.
    for wrong in ["101%", "-1%", "5"] {
        let (code, _, err) = switch.ctl_output(&["impair", "set", "a", &format!("--loss={wrong}")]);
        assert!(code == 2 && err.contains(&format!("{wrong:?} is not a share")), "{code}: {err}");
    }
    assert_eq!(switch.ctl(&["impair", "list"]), before);
    let file = lab.site.dir().join("bad.toml");
    let [port, bad] = ["[ports.a]\ntype = 'vhost_user'\n", "[impair.a]\ndelay = '1ms'\njitter = '2ms'\n"];
    std::fs::write(&file, format!("{port}{bad}")).unwrap();
    let (status, line) = check_config(&file);
    assert!(
        status == Some(1) && line.contains("bad.toml:5:10: impair.a.jitter: jitter is larger"),
        "{status:?} {line}"
    );
    switch.stop();
}
