//! What whoever monitors hears of a switch that runs: who changed what, links, addresses that move, the end.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::Lab;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// `labsw-ctl ARGS` in the background.
fn ctl(switch: &Labswd<'_>, args: &[&str]) -> Process {
    let mut command = std::process::Command::new(find_binary("labsw-ctl").unwrap());
    command.arg("--socket").arg(switch.site().control_socket()).args(args);
    Process::spawn("labsw-ctl", &mut command)
}

/// Waits for an event with these fields, and gives it.
fn heard(monitor: &Process, fields: &[(&str, &str)]) -> Value {
    let has = |event: &Value| fields.iter().all(|(field, value)| event[field] == *value);
    wait_for(&format!("event {fields:?}"), PATIENCE, || {
        let log = monitor.log();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(has)
    })
}

#[test]
fn whoever_monitors_hears_of_changes_links_addresses_and_the_end() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("ev");
    let switch = lab.start("", &[("a", ""), ("b", "")], "");
    let mut monitor = ctl(&switch, &["monitor", "--json", "--last", "1"]);
    wait_for("the first event", PATIENCE, || monitor.log().contains("\"number\"").then_some(()));

    switch.ctl(&["port", "set", "a", "vlan.tag=7"]);
    let request = heard(&monitor, &[("kind", "request"), ("method", "SetPort"), ("object", "a")]);
    assert_eq!(request["uid"], 0, "{request}");
    assert!(request["pid"].as_u64().is_some_and(|pid| pid > 1), "{request}");
    let changed = heard(&monitor, &[("kind", "changed"), ("name", "a")]);
    let setting = serde_json::json!([{"key": "vlan.tag", "before": "1", "now": "7"}]);
    assert_eq!(changed["settings"], setting, "{changed}");
    switch.ctl(&["port", "set", "a", "vlan.tag=1"]);
    assert_eq!(switch.ctl_output(&["port", "del", "x"]).0, 1);
    heard(&monitor, &[("kind", "refused"), ("object", "x")]);

    // Somebody else sets the link down. No one asks the switch about it.
    let mut waits = ctl(&switch, &["wait", "b", "--for", "down", "--timeout", "20s"]);
    lab.peers.ip(&["link", "set", "dev", "b", "down"]);
    assert!(waits.wait(PATIENCE).success(), "{}", waits.log());
    heard(&monitor, &[("kind", "state"), ("name", "b"), ("state", "down")]);
    let mut waits = ctl(&switch, &["wait", "b", "--for", "up", "--timeout", "300ms"]);
    assert_eq!(waits.wait(PATIENCE).code(), Some(1));
    let last = waits.log();
    assert!(last.contains("port \"b\" is down: ") && last.contains("; the time is up"), "{last}");
    lab.peers.ip(&["link", "set", "dev", "b", "up"]);
    switch.wait_port_up("b");

    // One station at two ports, as with a spoofed address.
    let frame = Frame::new(BROADCAST, mac(9)).build();
    lab.socket("a").send(&frame);
    wait_for("the address", PATIENCE, || switch.fdb_port(1, "02:00:00:00:00:09").map(|_| ()));
    lab.socket("b").send(&frame);
    let moved = heard(&monitor, &[("kind", "mac_moved")]);
    assert_eq!((&moved["from"], &moved["name"], &moved["vlan"]), (&"a".into(), &"b".into(), &1.into()), "{moved}");
    assert_eq!(switch.ctl(&["status"])["mac_moves"], 1);
    assert!(switch.log().contains("MAC address moved port=\"b\""), "the log has it, too: {}", switch.log());

    let gone = switch.ctl_output(&["wait", "x", "--for", "up"]);
    assert_eq!((gone.0, gone.2.trim()), (1, "labsw-ctl: port \"x\" does not exist"));
    switch.stop();
    heard(&monitor, &[("kind", "stopping")]);
    assert_eq!(monitor.wait(PATIENCE).code(), Some(3), "the switch has gone");
}
