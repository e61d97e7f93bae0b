//! Proves that a container that keeps the frames it was sent, in a queue of its own, holds nobody: its port is removed,
//! the configuration applied and the switch ended as if it let them go, and the switch answers meanwhile.

#![allow(clippy::expect_used, reason = "a test")]

use std::time::{Duration, Instant};

use labsw_tests::attacks::keep_frames;
use labsw_tests::netns::Netns;
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};

const SECOND: Duration = Duration::from_secs(1);
/// The slowest answer of the switch while a port goes. Generous: this is a debug build on a busy machine.
const ANSWER: Duration = Duration::from_millis(800);

fn config(keeper: &Netns, sender: &Netns) -> String {
    let port = |name: &str, ns: &Netns| {
        let (peer, netns) = (format!("ls-{name}"), ns.name());
        format!("[ports.{name}]\ntype = \"veth\"\npeer = \"{peer}\"\nnetns = \"{netns}\"\npeer_name = \"eth0\"\n")
    };
    port("keeper", keeper) + &port("sender", sender)
}

/// Sends frames that the container keeps.
fn fill(sender: &Netns, keeper: &Netns) {
    let socket = RawSocket::open(sender, "eth0");
    for number in 0..400 {
        let _ = socket.try_send(&Frame::new(BROADCAST, mac(2)).number(number).build());
    }
    wait_for("frames kept", 10 * SECOND, || {
        let shown = keeper.run(&["tc", "-s", "qdisc", "show", "dev", "ifb0"]);
        shown.lines().any(|line| line.contains("backlog") && !line.contains(" 0p ")).then_some(())
    });
}

/// Runs a command of the tool, and asks for the status meanwhile; gives the slowest answer.
fn answers_while(switch: &Labswd<'_>, arguments: &[&str]) -> Duration {
    let mut command = switch.site().ns.command(&find_binary("labsw-ctl").expect("labsw-ctl").to_string_lossy());
    let mut command =
        Process::spawn("labsw-ctl", command.arg("--socket").arg(switch.site().control_socket()).args(arguments));
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    while command.is_running() {
        let asked = Instant::now();
        switch.ctl(&["status"]);
        slowest = slowest.max(asked.elapsed());
        assert!(began.elapsed() < 10 * SECOND, "{arguments:?} does not end");
    }
    assert!(command.wait(SECOND).success(), "{arguments:?}: {}", command.log());
    slowest
}

#[test]
fn nobody_is_held_by_a_container_that_keeps_frames() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (keeper, sender) = (Netns::new("keeper"), Netns::new("sender"));
    let site = Site::new("kept");
    let config = config(&keeper, &sender);

    let switch = Labswd::start(&site, &config);
    if !keep_frames(&keeper, "eth0") {
        return switch.stop();
    }
    fill(&sender, &keeper);
    let slowest = answers_while(&switch, &["port", "del", "keeper"]);
    assert!(slowest < ANSWER, "an answer took {slowest:?}");
    assert!(!keeper.link_names().contains(&"eth0".to_owned()), "the pair is gone");
    // Its name is free, though the frames are still kept.
    let netns = format!("netns={}", keeper.name());
    switch.ctl(&[
        "port",
        "add",
        "keeper",
        "--type",
        "veth",
        "--set",
        "peer=ls-keeper",
        "--set",
        &netns,
        "--set",
        "peer_name=eth0",
    ]);
    switch.wait_port_up("keeper");

    // Taken out by a configuration; then the end of the switch.
    keeper.ip(&["link", "del", "ifb0"]);
    assert!(keep_frames(&keeper, "eth0"));
    fill(&sender, &keeper);
    let without = site.dir().join("without.toml");
    let text = std::fs::read_to_string(site.dir().join("lab.toml")).expect("the configuration");
    let at = text.find("[ports.keeper]").expect("the port");
    let end = text.find("[ports.sender]").expect("the other port");
    std::fs::write(&without, format!("{}{}", &text[..at], &text[end..])).expect("a file");
    let slowest = answers_while(&switch, &["config", "apply", &without.to_string_lossy()]);
    assert!(slowest < ANSWER, "an answer took {slowest:?}");
    let file = site.dir().join("lab.toml");
    switch.ctl(&["config", "apply", &file.to_string_lossy()]);
    switch.wait_port_up("keeper");

    keeper.ip(&["link", "del", "ifb0"]);
    assert!(keep_frames(&keeper, "eth0"));
    fill(&sender, &keeper);
    let began = Instant::now();
    switch.stop();
    assert!(began.elapsed() < 5 * SECOND, "SIGTERM took {:?}", began.elapsed());
    assert!(!keeper.link_names().contains(&"eth0".to_owned()), "the pair went with the switch");
    keeper.ip(&["link", "del", "ifb0"]);
}
