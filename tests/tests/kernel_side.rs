//! Proves what the switch knows of, and does about, the kernel's side of `af_xdp` ports: frames that the kernel dropped
//! are counted and stay counted when the device is reopened; the host's own stack says nothing through the device
//! while the port lives; busy polling is reported as what it is, and what was changed for it is put back.
#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::time::Duration;

use labsw_tests::netns::{Netns, wire};
use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use rustix::process::{Pid, Signal, kill_process};

const SECOND: Duration = Duration::from_secs(1);
/// How long a port may take to follow its device.
const SOON: Duration = Duration::from_secs(10);
/// More than a fill ring of a copying device holds.
const MANY: u64 = 3000;

fn device_port(more: &str) -> String {
    format!("[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n{more}")
}

fn kernel_counter(switch: &Labswd<'_>, name: &str) -> u64 {
    let of = |counters: &serde_json::Value| counters["kernel"][name].as_u64();
    let (port, stats) = (switch.port("up"), switch.ctl(&["stats", "up"]));
    let shown = of(&port).unwrap_or_else(|| panic!("no {name} in {port}"));
    let row = stats.as_array().and_then(|rows| rows.first()).unwrap_or(&stats);
    assert!(of(row).is_some_and(|later| later >= shown), "{stats}");
    shown
}

/// Sends frames at a switch that does not run meanwhile.
fn send_while_held(switch: &Labswd<'_>, far: &Netns) {
    let pid = i32::try_from(switch.pid()).ok().and_then(Pid::from_raw).expect("a process");
    let socket = RawSocket::open(far, "g0");
    let frame = Frame::new(BROADCAST, mac(1)).build();
    kill_process(pid, Signal::STOP).expect("may be stopped");
    for _ in 0..MANY {
        socket.send(&frame);
    }
    kill_process(pid, Signal::CONT).expect("may go on");
}

#[test]
fn frames_the_kernel_drops_are_counted_over_the_devices_that_come_and_go() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, far) = (Site::new("kdrop"), Netns::new("far"));
    wire((&site.ns, "b0"), (&far, "g0"));
    let switch = Labswd::start(&site, &device_port(""));
    assert_eq!(kernel_counter(&switch, "rx_dropped"), 0);
    let mut lost = 0;
    for round in 0..2 {
        switch.wait_port("up", "up", SOON);
        let received = switch.counter("up", "rx_frames");
        send_while_held(&switch, &far);
        // Every frame is somewhere: received, or dropped by the kernel because nobody gave it chunks.
        wait_for("every frame to be accounted for", SOON, || {
            let now = kernel_counter(&switch, "rx_dropped") + kernel_counter(&switch, "rx_ring_full");
            (now - lost + switch.counter("up", "rx_frames") - received >= MANY).then_some(())
        });
        let now = kernel_counter(&switch, "rx_dropped");
        assert!(now - lost > MANY / 4, "round {round}: {now} after {lost}");
        assert!(kernel_counter(&switch, "rx_fill_ring_empty") >= now);
        lost = now;
        // A fill ring that ran dry is filled again: frames pass.
        let before = switch.counter("up", "rx_frames");
        let socket = RawSocket::open(&far, "g0");
        for _ in 0..100 {
            socket.send(&Frame::new(BROADCAST, mac(1)).build());
            std::thread::sleep(SECOND / 1000);
        }
        wait_for("frames after the drought", SOON, || {
            (switch.counter("up", "rx_frames") >= before + 100).then_some(())
        });
        assert_eq!(kernel_counter(&switch, "rx_dropped"), lost, "none of them was lost");

        site.ns.ip(&["link", "del", "b0"]);
        switch.wait_port("up", "waiting", SOON);
        assert_eq!(kernel_counter(&switch, "rx_dropped"), lost, "round {round}: the counter is the port's");
        wire((&site.ns, "b0"), (&far, "g0"));
    }
    switch.wait_port("up", "up", SOON);
    assert_eq!(kernel_counter(&switch, "rx_dropped"), lost);
    let table = switch.site().ns.run(&[
        &labsw_tests::switch::find_binary("labsw-ctl").expect("built").to_string_lossy(),
        "--socket",
        &site.control_socket().to_string_lossy(),
        "stats",
    ]);
    assert!(table.contains("kernel rx_dropped"), "{table}");
    switch.stop();
}

#[test]
fn the_host_says_nothing_through_a_device_that_is_a_port() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, far) = (Site::new("silent"), Netns::new("far"));
    // As on a host: IPv6 with its router solicitations and listener reports.
    let ipv6 = |on: bool| {
        let value = if on { "0" } else { "1" };
        site.ns.run(&["sh", "-c", &format!("echo {value} >/proc/sys/net/ipv6/conf/b0/disable_ipv6")])
    };
    wire((&site.ns, "b0"), (&far, "g0"));
    let socket = RawSocket::open(&far, "g0");
    let heard = || {
        // Duplicate address detection, solicitations and listener reports start over; and a question for a neighbour.
        ipv6(false);
        ipv6(true);
        drop(site.ns.try_run(&["ping", "-c", "1", "-W", "1", "-I", "b0", "198.18.9.2"]));
        socket.recv_all(SECOND).len()
    };
    site.ns.ip(&["addr", "add", "198.18.9.1/24", "dev", "b0"]);
    assert!(heard() > 0, "without a port the host is heard: the test can fail");

    let mut switch = Labswd::start(&site, &device_port(""));
    switch.wait_port("up", "up", SOON);
    drop(socket.recv_all(SECOND / 5));
    assert_eq!(heard(), 0);
    // What the switch sends is heard.
    switch.ctl(&["port", "add", "box", "--type", "tap"]);
    site.ns.ip(&["link", "set", "box", "up"]);
    let tap = RawSocket::open(&site.ns, "box");
    let frame = Frame::new(BROADCAST, mac(7)).build();
    wait_for("a frame of the switch", SOON, || {
        tap.send(&frame);
        socket.recv_matching(SECOND / 5, |f| f == frame)
    });
    switch.ctl(&["port", "del", "box"]);

    switch.ctl(&["port", "del", "up"]);
    assert!(heard() > 0, "given back");
    switch.ctl(&["port", "add", "up", "--type", "af_xdp", "--set", "device=name:b0"]);
    switch.wait_port("up", "up", SOON);
    drop(socket.recv_all(SECOND / 5));
    assert_eq!(heard(), 0);
    switch.kill9();
    assert!(heard() > 0, "given back by a kill as well");
}

/// When the device interrupts.
fn deferral(site: &Site) -> String {
    site.ns.run(&["sh", "-c", "cd /sys/class/net/b0 && cat napi_defer_hard_irqs gro_flush_timeout"]).replace('\n', " ")
}

#[test]
fn busy_polling_is_reported_as_it_is_and_put_back() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, far) = (Site::new("busy"), Netns::new("far"));
    wire((&site.ns, "b0"), (&far, "g0"));
    let before = deferral(&site);
    let verdict = |switch: &Labswd<'_>| switch.port("up")["busy_poll"].as_str().unwrap_or_default().to_owned();
    let switch = Labswd::start(&site, &device_port(""));
    assert_eq!(verdict(&switch), "off");
    switch.stop();

    let mut switch = Labswd::start(&site, &device_port("busy_poll = true\n"));
    switch.wait_port("up", "up", SOON);
    assert_eq!(verdict(&switch), "ineffective: no frame was received yet");
    let socket = RawSocket::open(&far, "g0");
    for _ in 0..2500 {
        socket.send(&Frame::new(BROADCAST, mac(1)).build());
        std::thread::sleep(SECOND / 1000);
    }
    let last = verdict(&switch);
    if last == "effective" {
        assert_eq!(deferral(&site), "2 200000 ");
    } else {
        // What the kernel leaves no way to poll is left alone.
        assert!(last.starts_with("ineffective: the kernel knows no receive loop (NAPI)"), "{last}");
        assert_eq!(deferral(&site), before);
    }
    // Killed in the middle of it: the next run puts back what the ledger says of the device.
    switch.kill9();
    let ledger = site.dir().join("control.sock.devices");
    let text = std::fs::read_to_string(&ledger).expect("the ledger of a killed run");
    let mut entries: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    entries["devices"][0]["before"]["deferral"] = serde_json::json!({"looks": 3, "timeout": 70_000});
    std::fs::write(&ledger, entries.to_string()).expect("may be written");
    switch.restart();
    switch.ctl(&["port", "del", "up"]);
    assert_eq!(deferral(&site), "3 70000 ");
    switch.stop();
}
