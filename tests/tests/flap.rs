//! Proves that a flapping port goes down and up as often as asked, as its container sees it, and ends up; that it goes
//! on without the client, ends by hand, and goes with the port; and that bad values are refused in one line.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::time::{Duration, Instant};

use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::Lab;

const SOON: Duration = Duration::from_secs(10);

fn flap(switch: &Labswd<'_>, every: &str, count: &str) {
    switch.ctl(&["port", "flap", "a", "--every", every, "--count", count]);
}

#[test]
fn a_port_flaps_and_ends_up() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("flap");
    let switch = lab.start("", &[("a", ""), ("b", "")], "");
    // The container's kernel counts how often its carrier went and came.
    let changes = || -> u32 {
        let counts = ["carrier_down_count", "carrier_up_count"]
            .map(|file| lab.peers.run(&["cat", &format!("/sys/class/net/a/{file}")]).trim().parse::<u32>().unwrap());
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
        counts[0]
    };
    let before = changes();
    let began = Instant::now();
    flap(&switch, "200ms", "5");
    let port = switch.port("a");
    assert_eq!((&port["state"], &port["reason"]), (&"down".into(), &"flapping".into()), "at once");
    assert_eq!((&port["flap"]["every_milliseconds"], &port["flap"]["left"]), (&200.into(), &5.into()));
    // The client is gone.
    wait_for("the end", SOON, || switch.port("a")["flap"].is_null().then_some(()));
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    switch.wait_port_up("a");
    assert_eq!(changes() - before, 5);
    assert!(switch.port("b")["flap"].is_null());

    // By hand it ends, and stays as it was set.
    for (verb, state) in [("down", "down"), ("up", "up")] {
        flap(&switch, "100ms", "1000");
        switch.ctl(&["port", verb, "a"]);
        assert!(switch.port("a")["flap"].is_null());
        switch.wait_port("a", state, SOON);
        let after = changes();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((changes(), switch.port_state("a").as_str()), (after, state));
    }
    let flapping = ["port", "flap", "a"];
    for (options, expected) in [
        (["--every", "1ms", "--count", "1"], "every: 1ms is not between 20ms and 1h"),
        (["--every", "2h", "--count", "1"], "every: 2h is not between 20ms and 1h"),
        (["--every", "1s", "--count", "0"], "count: 0 is not between 1 and 1000000"),
    ] {
        let line = switch.ctl_refused(&[&flapping[..], &options].concat());
        assert!(line.contains("port \"a\"") && line.contains(expected), "{line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    assert!(switch.ctl_refused(&["port", "flap", "x", "--every", "1s", "--count", "1"]).contains("does not exist"));
    let (status, _, line) = switch.ctl_output(&["port", "flap", "a", "--every", "often", "--count", "1"]);
    assert!(status == 2 && line.contains("not a time"), "{status} {line}");
    assert_eq!(switch.port_state("a"), "up", "nothing of that was begun");

    // A port that goes takes it along.
    flap(&switch, "100ms", "1000");
    switch.ctl(&["port", "del", "a"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(switch.ctl(&["port", "list"]).as_array().unwrap().len(), 1);
    switch.stop();
}
