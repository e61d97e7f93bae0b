//! Proves of the unit under a real systemd: `systemctl reload-or-restart` has a new program take over without a lost
//! frame, and only then; systemd follows the new process. After `kill -9` the next process finds the guests'
//! connections in systemd's file-descriptor store, and goes on where their rings stand.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use labsw_testkit::guest::{EVENT_IDX, MRG_RXBUF, VERSION_1};
use labsw_testkit::station::Station;
use labsw_tests::numbered::{self, RING, Stream};
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Site;
use labsw_tests::systemd::Systemd;

const SECOND: Duration = Duration::from_secs(1);
const SPLIT: u64 = VERSION_1 | MRG_RXBUF | EVENT_IDX;
const GUESTS: &str = "[ports.a]\ntype = \"vhost_user\"\n[ports.b]\ntype = \"vhost_user\"\n";

/// Two stations at the ports `a` and `b` that know each other's place.
fn guests(systemd: &Systemd<'_>) -> (Station, Station) {
    let attach = |port| Station::attach(&systemd.vhost_socket(port), SPLIT, RING);
    let (mut a, mut b) = (attach("a"), attach("b"));
    wait_for("the ports", 10 * SECOND, || {
        let ports = systemd.ctl(&["port", "list"]);
        ports.as_array()?.iter().all(|port| port["state"] == "up").then_some(())
    });
    numbered::meet(&mut a, &mut b);
    (a, b)
}

#[test]
fn a_reload_after_an_upgrade_takes_over_without_a_lost_frame() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("systemctl"), Need::Program("setpriv")]) {
        return;
    }
    let site = Site::new("sysd");
    let systemd = Systemd::start(&site, GUESTS);
    systemd.ok(&["start", "labsw"]);
    let (mut a, mut b) = guests(&systemd);
    let mut stream = Stream::default();
    for _ in 0..3 {
        let before = systemd.property("MainPID");
        let passed = stream.during(&mut a, &mut b, || {
            systemd.upgrade();
            systemd.ok(&["reload-or-restart", "labsw"]);
        });
        assert!(passed.frames > 100, "{passed:?}");
        assert_ne!(systemd.property("MainPID"), before);
        assert_eq!((systemd.property("ActiveState"), systemd.property("NRestarts")), ("active".into(), "0".into()));
    }
    // Counters went over.
    let a_port = &systemd.ctl(&["port", "show", "a"]);
    assert_eq!(a_port["rx_frames"], stream.sent);

    // With the same program a reload applies the file, and no more.
    let before = systemd.property("MainPID");
    let file = site.dir().join("labsw.toml");
    std::fs::write(&file, format!("{GUESTS}[ports.c]\ntype = \"vhost_user\"\n")).unwrap();
    systemd.ok(&["reload", "labsw"]);
    assert_eq!(systemd.property("MainPID"), before);
    assert_eq!(systemd.ctl(&["port", "list"]).as_array().map(Vec::len), Some(3));

    // From a shell nothing is taken over: systemd would lose sight of the switch.
    let shell = &mut systemd.command("setpriv");
    shell.args(["--reuid=labsw", "--regid=labsw", "--clear-groups", "timeout", "20", "/lab/bin/labswd"]);
    let (status, text) = process::output(shell.args(["--take-over", "--config", "/lab/labsw.toml"]));
    assert!(!status.success() && text.contains("belongs to the service"), "{text}");

    // systemd supervises the process that took over: it still gets signs of life, and misses it when it dies.
    let told = systemd.property("WatchdogTimestampMonotonic");
    wait_for("a sign of life", 20 * SECOND, || (systemd.property("WatchdogTimestampMonotonic") != told).then_some(()));
    assert_eq!((systemd.property("MainPID"), systemd.property("NRestarts")), (before, "0".into()));
    systemd.ok(&["kill", "--signal=KILL", "--kill-who=main", "labsw"]);
    wait_for("the restart", 10 * SECOND, || (systemd.property("NRestarts") == "1").then_some(()));
    systemd.ok(&["stop", "labsw"]);
    assert_eq!(systemd.property("Result"), "success");
}

/// The number of descriptors that systemd keeps.
fn kept(systemd: &Systemd<'_>) -> String {
    systemd.property("NFileDescriptorStore")
}

#[test]
fn guests_notice_nothing_of_a_crash() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("systemctl"), Need::Program("nsenter")]) {
        return;
    }
    let site = Site::new("sysk");
    let systemd = Systemd::start(&site, GUESTS);
    systemd.ok(&["start", "labsw"]);
    let (mut a, mut b) = guests(&systemd);
    wait_for("what is kept", 10 * SECOND, || (kept(&systemd) == "2").then_some(()));
    let mut stream = Stream::default();
    let restarts = |count: u32| {
        wait_for("the restart", 20 * SECOND, || (systemd.property("NRestarts") == count.to_string()).then_some(()));
        wait_for("the ports", 20 * SECOND, || {
            (systemd.log().matches("are served where they stood").count() == count as usize).then_some(())
        });
    };
    for round in 1..=3 {
        let passed = stream.during(&mut a, &mut b, || std::thread::sleep(SECOND / 10));
        assert!(passed.frames > 100, "{passed:?}");
        // The burst that a worker moves at this moment may be moved again. Nothing is lost.
        stream.may_repeat = 64;
        stream.during(&mut a, &mut b, || {
            systemd.ok(&["kill", "--signal=KILL", "--kill-who=main", "labsw"]);
            restarts(round);
        });
        stream.may_repeat = 0;
        wait_for("what is kept", 10 * SECOND, || (kept(&systemd) == "2").then_some(()));
    }
    // A take-over, and a crash after it.
    systemd.upgrade();
    stream.during(&mut a, &mut b, || drop(systemd.ok(&["reload", "labsw"])));
    wait_for("what is kept", 10 * SECOND, || (kept(&systemd) == "2").then_some(()));
    stream.may_repeat = 64;
    stream.during(&mut a, &mut b, || {
        systemd.ok(&["kill", "--signal=KILL", "--kill-who=main", "labsw"]);
        restarts(4);
    });
    // What is kept goes with the port, and with the switch.
    systemd.ctl(&["port", "del", "a"]);
    wait_for("what is kept", 10 * SECOND, || (kept(&systemd) == "1").then_some(()));
    systemd.ok(&["stop", "labsw"]);
    assert_eq!(systemd.property("Result"), "success");
    assert_eq!(kept(&systemd), "0");
}
