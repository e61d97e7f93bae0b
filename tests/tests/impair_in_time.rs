//! Proves that an impairment's outage, and its loss of a segment of each TCP connection, are what they say on a real
//! path, and go on where they stood when a new `labswd` takes over.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::time::{Duration, Instant};

use labsw_tests::packet::{Frame, Mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::veth_lab::Lab;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(200);
const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];

/// A frame with one byte of TCP data.
fn segment(port: u8, sequence: u8) -> Vec<u8> {
    let ip = [0x45, 0, 0, 41, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let tcp = [0x80, port, 1, 0xbd, 0, 0, 0, sequence, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0, 0xab];
    Frame::new(B, A).ethertype(0x0800).payload(&[&ip[..], &tcp].concat()).build()
}

#[test]
fn a_segment_of_each_connection_is_lost_and_a_take_over_changes_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imt");
    let mut switch = lab.start("", &[("a", ""), ("b", "")], "");
    let (a, b) = (lab.socket("a"), lab.socket("b"));
    let arrives = |frame: &[u8], patience| {
        a.send(frame);
        b.recv_matching(patience, |arrived| arrived.starts_with(&frame[..55])).is_some()
    };
    let options = ["--lose-segment", "3", "--lose-retransmissions", "1", "--direction", "tx", "--seed", "1"];
    switch.ctl(&[&["impair", "set", "b"], &options[..]].concat());
    for port in [1, 2] {
        assert!(arrives(&segment(port, 1), PATIENCE) && arrives(&segment(port, 2), PATIENCE));
        assert!(!arrives(&segment(port, 3), QUIET) && arrives(&segment(port, 4), PATIENCE));
    }
    switch.take_over();
    for port in [1, 2] {
        assert!(!arrives(&segment(port, 3), QUIET), "its first retransmission");
        assert!(arrives(&segment(port, 3), PATIENCE), "its second");
    }
    let shown = switch.ctl(&["impair", "list"])[0].clone();
    assert_eq!((&shown["lose_segment"], &shown["lose_retransmissions"]), (&json!(3), &json!(1)));
    assert_eq!((&shown["lost"], switch.drops("b", "impair_loss")), (&json!(4), 4));

    // An outage that outlives the process, and one that ends.
    switch.ctl(&["impair", "replace", "b", "--outage", "1h"]);
    assert!(!arrives(&segment(1, 9), QUIET));
    switch.take_over();
    assert!(!arrives(&segment(1, 9), QUIET));
    assert!(switch.drops("b", "impair_outage") >= 2);
    let begin = Instant::now();
    switch.ctl(&["impair", "replace", "b", "--outage", "700ms"]);
    wait_for("the end of the outage", PATIENCE, || arrives(&segment(1, 9), QUIET).then_some(()));
    assert!(begin.elapsed() >= Duration::from_millis(700));
    assert_eq!(switch.ctl(&["impair", "list"])[0]["outage"], "700ms");
    switch.stop();
}
