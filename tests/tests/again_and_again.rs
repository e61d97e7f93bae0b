//! Proves that what is done to a port again and again is borne: a container that deletes its interface in a loop costs
//! the switch less and less, and a device is given to a port right after it was taken from one, sixty times.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use labsw_tests::netns::{self, Netns};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_container_that_deletes_its_interface_in_a_loop_costs_less_and_less() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let container = Netns::new("loop");
    let site = Site::new("loop");
    let config = format!("[ports.web]\ntype = \"veth\"\npeer = \"eth0\"\nnetns = \"{}\"\n", container.name());
    let switch = Labswd::start(&site, &config);
    let stop = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = container.try_run(&["ip", "link", "del", "eth0"]);
            }
        });
        let end = Instant::now() + 8 * SECOND;
        let mut slowest = Duration::ZERO;
        while Instant::now() < end {
            let asked = Instant::now();
            switch.ctl(&["port", "list"]);
            slowest = slowest.max(asked.elapsed());
        }
        // Looked at while the container goes on: an attempt after its last deletion succeeds.
        wait_for("the port waits", 5 * SECOND, || (switch.port("web")["state"] == "waiting").then_some(()));
        stop.store(true, Ordering::Relaxed);
        slowest
    });
    assert!(slowest < 2 * SECOND, "an answer took {slowest:?}");
    // Tried at once, then after 0.1, 0.2, 0.4, 0.8, 1.6, 3.2 s; the container is often quick enough to spoil the
    // attempt.
    let log = switch.log();
    let tries = log.lines().filter(|line| line.contains(" fault ") || line.contains("state=\"waiting\"")).count();
    assert!((2..=12).contains(&tries), "{tries} attempts:\n{log}");
    // The administrator has had a word with the container.
    let begin = Instant::now();
    switch.ctl(&["port", "up", "web"]);
    wait_for("the pair is back", 5 * SECOND, || container.link_names().contains(&"eth0".to_owned()).then_some(()));
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
    switch.stop();
}

#[test]
fn a_device_is_given_to_a_port_right_after_it_was_taken_from_one() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, far) = (Site::new("anew"), Netns::new("anew"));
    netns::veth((&site.ns, "dev0"), (&far, "dev1"));
    let with = "[ports.nic]\ntype = \"af_xdp\"\ndevice = \"name:dev0\"\n";
    let switch = Labswd::start(&site, with);
    let file = site.dir().join("lab.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let without = site.dir().join("without.toml");
    std::fs::write(&without, &text[..text.find("[ports.nic]").unwrap()]).unwrap();
    for _ in 0..60 {
        switch.ctl(&["config", "apply", &without.to_string_lossy()]);
        switch.ctl(&["config", "apply", &file.to_string_lossy()]);
    }
    switch.wait_port("nic", "up", 10 * SECOND);
    assert!(!switch.log().contains("taken by another AF_XDP socket"));
    switch.stop();
}
