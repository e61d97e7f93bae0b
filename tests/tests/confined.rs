//! Proves what a running `labswd` has left of the rights that root gave it: two capabilities, none for its workers, a
//! seccomp filter on every thread, no new privileges, no core dumps, and only the files it needs. Ports of every type
//! that needs no guest are open meanwhile, and are added and removed, one of them in a namespace, which needs the
//! helper process.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab};

/// CAP_NET_ADMIN and CAP_IPC_LOCK, by their numbers (capabilities(7)).
const KEPT: u64 = 1 << 12 | 1 << 14;

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

/// The lines of a `status` file (proc(5)) by their names.
fn status(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| line.split_once(":\t")).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn bits(status: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).unwrap()
}

/// The threads of a process, by name and number, with their status.
fn threads(pid: u32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let status = status(&task.unwrap().path().join("status"));
        (status["Name"].clone(), status)
    };
    tasks.map(read).collect()
}

/// Asserts what every thread has left.
fn assert_confined(switch: &Labswd<'_>) {
    let threads = threads(switch.pid());
    let workers = threads.iter().filter(|(name, _)| name.starts_with("worker-")).count();
    assert_eq!(workers, 2, "{:?}", threads.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (name, status) in &threads {
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(bits(status, set), 0, "{name}: {set}");
        }
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let left = bits(status, set);
            assert_eq!(left & !KEPT, 0, "{name}: {set} {left:x}");
            if name.starts_with("worker-") && set != "CapBnd" {
                assert_eq!(left, 0, "{name}: {set}");
            }
        }
        assert_eq!(status["Seccomp"], "2", "{name}");
        assert_eq!(status["NoNewPrivs"], "1", "{name}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", switch.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // A process that is not dumpable is root's in /proc, whoever runs it.
    let landlock = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(!switch.log().contains("not confined"), "on kernel {landlock}:\n{}", switch.log());
}

#[test]
fn a_running_switch_has_two_capabilities_and_its_workers_none() {
    if !needs() {
        return;
    }
    let lab = Lab::new("conf");
    let more = "[ports.guest]\ntype = \"vhost_user\"\n[ports.host]\ntype = \"tap\"\ninterface = \"labsw-conf\"\n";
    let mut switch = lab.start("workers = [0, 1]", &[("a", ""), ("b", "")], more);
    assert_confined(&switch);
    let flow = Flow::start(&lab, "a", "b");
    // Ports come and go, in a namespace, too.
    let peer = format!("netns=\"{}\"", lab.peers.name());
    for _ in 0..2 {
        let add = ["port", "add", "c", "--type", "veth", "--set", "peer=\"x-c\"", "--set", &peer];
        switch.ctl(&[&add[..], &["--set", "peer_name=\"c\""]].concat());
        switch.ctl(&["port", "add", "g2", "--type", "vhost_user"]);
        switch.ctl(&[
            "port",
            "add",
            "t2",
            "--type",
            "tap",
            "--set",
            "interface=\"labsw-conf2\"",
            "--set",
            "for=\"guest\"",
        ]);
        assert_confined(&switch);
        assert!(lab.peers.link_names().contains(&"c".to_owned()));
        for port in ["c", "g2", "t2"] {
            switch.ctl(&["port", "del", port]);
        }
    }
    assert!(switch.is_running(), "{}", switch.log());
    assert!(flow.finish() > 20);
    switch.stop();
}

/// A socket of a port that is added later has to be in a directory of sockets; elsewhere nothing can be made.
#[test]
fn sockets_are_made_only_where_the_configuration_has_sockets() {
    if !needs() {
        return;
    }
    let site = Site::new("confs");
    let own = site.dir().join("guests");
    let config = format!("[ports.a]\ntype = \"vhost_user\"\nsocket = \"{}\"\n", own.join("a.sock").display());
    let switch = Labswd::start(&site, &config);
    let add = |name: &str, socket: &Path| {
        let socket = format!("socket=\"{}\"", socket.display());
        switch.ctl_output(&["port", "add", name, "--type", "vhost_user", "--set", &socket])
    };
    assert_eq!(add("b", &own.join("b.sock")).0, 0);
    let elsewhere = labsw_tests::switch::TempDir::new();
    let (code, _, line) = add("c", &elsewhere.path().join("c.sock"));
    assert_eq!(code, 1, "{line}");
    assert!(line.contains("ermission denied"), "{line}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    switch.stop();
}

/// The helper process ends with the switch, however that ends.
#[test]
fn the_helper_process_ends_with_the_switch() {
    if !needs() {
        return;
    }
    let site = Site::new("confh");
    for kill in [false, true] {
        let mut switch = Labswd::start(&site, "");
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", switch.pid())).unwrap();
        let helper: u32 = children.trim().parse().expect("one child");
        let helper_status = status(Path::new(&format!("/proc/{helper}/status")));
        assert_eq!((helper_status["Seccomp"].as_str(), helper_status["NoNewPrivs"].as_str()), ("2", "1"));
        if kill {
            switch.kill9();
        } else {
            switch.stop();
        }
        labsw_tests::process::wait_for("end of the helper", std::time::Duration::from_secs(5), || {
            (!Path::new(&format!("/proc/{helper}")).exists()).then_some(())
        });
        if kill {
            Labswd::start(&site, "").stop();
        }
    }
}
