//! Delay, jitter, loss and rate as they are measured, the same losses with the same seed, and other frames that pass.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use labsw_control::api::{Reply, Request};
use labsw_control::varlink::Client;
use labsw_tests::iperf;
use labsw_tests::netns::Netns;
use labsw_tests::packet::{Frame, RawSocket};
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab, receive};
use serde_json::Value;

use super::{A, B, PATIENCE, QUIET, start};

/// Two workers, which share the frames on their way to a port.
const TWO: &str = "workers = [0, 1]\n";
/// How far the median delay may be off, ms.
const ACCURACY: f64 = 0.2;
/// Runs of a measurement of which one has to be within that: the machine may be busy with other things.
const RUNS: usize = 5;
/// Frames sent in one go, fewer than a veth's receive ring holds.
const BATCH: u32 = 250;

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
