//! Proves that several workers share the work: queues spread over them, moved under traffic with no frame lost, and
//! their figures told apart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::netns::Netns;
use labsw_tests::packet::{Frame, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::testpmd::{Mode, Testpmd};
use labsw_tests::veth_lab::{Flow, Lab};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
const TWO: &str = "workers = [0, 1]\n";

/// `port:queue` of each queue, by worker; a star where it is pinned.
fn placed(switch: &Labswd<'_>) -> Vec<Vec<String>> {
    let workers = switch.ctl(&["worker", "list"]);
    assert_eq!(workers.as_array().map(Vec::len), Some(2), "{workers}");
    let name = |queue: &Value| {
        let star = if queue["pinned"] == json!(true) { "*" } else { "" };
        format!("{}:{}{star}", queue["port"].as_str().unwrap_or_default(), queue["queue"])
    };
    let queues = |worker: &Value| worker["queues"].as_array().into_iter().flatten().map(name).collect();
    workers.as_array().into_iter().flatten().map(queues).collect()
}

#[test]
fn a_queue_moved_a_hundred_times_under_traffic_loses_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("wkm");
    let switch = lab.start(TWO, &[("a", ""), ("b", "")], "");
    assert_eq!(placed(&switch), [["a:0"], ["b:0"]]);
    let flow = Flow::start(&lab, "a", "b");
    for round in 0..100 {
        let to = 1 - round % 2;
        switch.ctl(&["worker", "pin", "a", "0", &to.to_string()]);
        let (pinned, other) = (vec!["a:0*".to_owned()], vec!["b:0".to_owned()]);
        let expected = if to == 1 { [other, pinned] } else { [pinned, other] };
        assert_eq!(placed(&switch), expected, "the other one makes room");
        if round % 10 == 0 {
            flow.assert_flowing("after a move");
        }
    }
    // Ports come and go, and queues with them.
    let netns = format!("netns={}", lab.peers.name());
    for _ in 0..10 {
        for name in ["c", "d"] {
            let (peer, peer_name) = (format!("peer=x-{name}"), format!("peer_name={name}"));
            let settings = ["--set", &peer, "--set", &netns, "--set", &peer_name];
            switch.ctl(&[["port", "add", name, "--type", "veth"].as_slice(), &settings].concat());
        }
        assert!(placed(&switch).iter().all(|queues| queues.len() == 2), "{:?}", placed(&switch));
        ["c", "d"].iter().for_each(|name| drop(switch.ctl(&["port", "del", name])));
    }
    flow.assert_flowing("after ports came and went");
    let sent = flow.finish();
    assert!(sent > 100, "{sent}");
    for port in ["a", "b"] {
        let stats = switch.ctl(&["stats", port]);
        let lost = ["tx_ring_full", "no_buffer", "not_connected"].map(|reason| stats[0]["drops"][reason].clone());
        assert_eq!(lost, [0, 0, 0].map(Value::from), "{stats}");
    }
    switch.stop();
}

#[test]
fn a_guest_with_two_queues_talks_through_both_workers() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Program("iperf3")]) {
        return;
    }
    let (site, container) = (Site::new("wkg"), Netns::new("wkbox"));
    let config = format!(
        "{TWO}[ports.vm]\ntype = \"vhost_user\"\nqueue_pairs = 2\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\n\
         netns = \"{}\"\npeer_name = \"eth0\"\n",
        container.name()
    );
    let switch = Labswd::start(&site, &config);
    // Guests come first, so that they listen early.
    assert_eq!(placed(&switch), [vec!["box:0", "vm:0"], vec!["vm:1"]]);
    container.address("eth0", "10.1.0.9/24");
    let mut nic = Nic::new(switch.vhost_socket("vm"), 1);
    nic.queue_pairs = 2;
    let mut guest = Guest::boot("vm", "10.1.0.1/24", &nic);
    guest.ready();
    guest.ok("ethtool -L eth0 combined 2");
    guest.wait_ping("10.1.0.9", 20 * SECOND);
    let status = switch.ctl(&["status"]);
    assert_eq!([&status["workers"][0]["cpu"], &status["workers"][1]["cpu"]], [&json!(0), &json!(1)]);
    for direction in ["", "--reverse"] {
        let mut server =
            Process::spawn("iperf3 server", container.command("iperf3").args(["-s", "-1", "--forceflush"]));
        server.wait_for_text(0, "Server listening", 20 * SECOND);
        let run = guest.begin(&format!("iperf3 -c 10.1.0.9 -P 8 -t 6 --connect-timeout 5000 -J {direction}"));
        let both_busy = || {
            let workers = switch.ctl(&["worker", "list"]);
            let busy = |at: usize| workers[at]["busy_percent"].as_f64().is_some_and(|percent| percent > 0.05);
            (busy(0) && busy(1)).then_some(())
        };
        wait_for("both workers to have frames", 20 * SECOND, both_busy);
        // Queues change their workers under the guest's own TCP.
        for round in 0..20 {
            switch.ctl(&["worker", "pin", "vm", &(round / 2 % 2).to_string(), &(round % 2).to_string()]);
        }
        let (status, report) = guest.finish(run, 60 * SECOND);
        assert_eq!(status, 0, "{report}");
        let json = report.get(report.find('{').unwrap_or(0)..).unwrap_or_default();
        let report: Value = serde_json::from_str(json).unwrap_or_default();
        let streams = report["end"]["streams"].as_array().cloned().unwrap_or_default();
        assert_eq!(streams.len(), 8);
        for stream in &streams {
            assert!(stream["receiver"]["bytes"].as_u64().unwrap_or(0) > 0, "{direction}: {stream}");
        }
    }
    // The guest is gone and comes back: its rings stop and start at both workers.
    drop(guest);
    let mut guest = Guest::boot("vm", "10.1.0.1/24", &nic);
    guest.ready();
    guest.wait_ping("10.1.0.9", 20 * SECOND);
    let output = guest.ok("ping -q -c 100 -i 0.02 10.1.0.9");
    assert!(output.contains(" 0% packet loss"), "{output}");
    drop(guest);
    switch.stop();
}

#[test]
fn front_ends_on_different_workers_flood_each_other() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Testpmd]) {
        return;
    }
    let site = Site::new("wkp");
    let ports = ["one", "two"].map(|name| format!("[ports.{name}]\ntype = \"vhost_user\"\nqueue_pairs = 2\n"));
    let switch = Labswd::start(&site, &format!("{TWO}{}", ports.concat()));
    assert_eq!(placed(&switch), [["one:0", "two:0"], ["one:1", "two:1"]]);
    let (one, two) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
    let mut echo = Testpmd::connect(&switch.vhost_socket("two"), two, one, Mode::MacSwap, 2);
    let mut sender = Testpmd::connect(&switch.vhost_socket("one"), one, two, Mode::FlowGen, 2);
    echo.start();
    sender.start();
    for round in 0..20 {
        let port = if round % 3 == 0 { "one" } else { "two" };
        switch.ctl(&["worker", "pin", port, &(round % 2).to_string(), &(round / 2 % 2).to_string()]);
    }
    sender.wait_stats("100000 echoed frames", 60 * SECOND, |stats| stats.rx_frames > 100_000);
    sender.stop();
    echo.stop();
    let (sent, echoed) = (sender.stats(), echo.stats());
    assert_eq!(switch.counter("one", "rx_frames"), sent.tx_frames, "every frame sent was taken, by whichever worker");
    assert!(echoed.rx_frames <= switch.counter("two", "tx_frames") && sent.rx_frames <= echoed.tx_frames);
    sender.quit();
    echo.quit();
    switch.stop();
}

#[test]
fn a_busy_worker_and_a_sleeping_one_are_told_apart() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("wkb");
    let switch = lab.start(TWO, &[("a", ""), ("b", "")], "");
    for port in ["a", "b"] {
        switch.ctl(&["worker", "pin", port, "0", "1"]);
    }
    assert_eq!(placed(&switch), [vec![], vec!["a:0*", "b:0*"]]);
    let socket = lab.socket("a");
    let frame = Frame::new(mac(2), mac(1)).build();
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                (0..32).for_each(|_| socket.send(&frame));
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        wait_for("worker 1 busy and worker 0 asleep", 20 * SECOND, || {
            let workers = switch.ctl(&["worker", "list"]);
            let figure = |at: usize, name: &str| workers[at][name].as_f64().unwrap_or(f64::NAN);
            let told = figure(0, "busy_percent") == 0.0
                && figure(0, "asleep_percent") > 90.0
                && figure(1, "busy_percent") > 5.0
                && figure(1, "frames_per_burst") >= 1.0
                && figure(1, "asleep_percent") < 90.0;
            told.then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    switch.stop();
}

#[test]
fn what_is_not_there_cannot_be_pinned() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("wkx");
    let switch = lab.start(TWO, &[("a", ""), ("b", "")], "");
    let before = placed(&switch);
    for (arguments, named) in [
        (["worker", "pin", "absent", "0", "0"], ["port", "absent"]),
        (["worker", "pin", "a", "1", "0"], ["port \"a\"", "queue 0"]),
        (["worker", "pin", "a", "4294967295", "0"], ["port \"a\"", "queue 0"]),
        (["worker", "pin", "a", "0", "2"], ["worker 2", "workers 0 to 1"]),
    ] {
        let line = switch.ctl_refused(&arguments);
        assert!(named.iter().all(|name| line.contains(name)), "{arguments:?}: {line}");
        assert_eq!(placed(&switch), before, "{arguments:?}");
    }
    let (code, _, _) = switch.ctl_output(&["worker", "pin", "a", "x", "0"]);
    assert_eq!(code, 2, "wrong usage");
    // A pin goes with its port.
    switch.ctl(&["worker", "pin", "b", "0", "0"]);
    assert_eq!(placed(&switch), [["b:0*"], ["a:0"]]);
    switch.ctl(&["port", "del", "b"]);
    let netns = format!("netns={}", lab.peers.name());
    let settings = ["--set", "peer=x-b", "--set", &netns, "--set", "peer_name=b"];
    switch.ctl(&[["port", "add", "b", "--type", "veth"].as_slice(), &settings].concat());
    assert_eq!(placed(&switch), [["b:0"], ["a:0"]]);
    switch.stop();
}
