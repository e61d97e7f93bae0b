//! Proves what the service manager's watchdog hears: `WATCHDOG=1` at half the time it asked for, while workers forward,
//! spin or sleep; nothing from the moment one of them hangs, and again when it goes on.
//!
//! The hanging worker is a thread that is stopped by itself (ptrace(2), `PTRACE_INTERRUPT`); all others run on.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Site, find_binary};

const SECOND: Duration = Duration::from_secs(1);
/// What the service manager wants (`WatchdogSec=`), and half of it.
const PATIENCE: Duration = Duration::from_secs(2);
const HALF: Duration = Duration::from_secs(1);

/// The service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message within `time` that is not about the store of descriptors, and not for people.
    fn hear(&self, time: Duration) -> Option<String> {
        let mut message = [0; 256];
        self.0.set_read_timeout(Some(time)).expect("timeout");
        loop {
            let bytes = self.0.recv(&mut message).ok()?;
            let text = String::from_utf8_lossy(&message[..bytes]).into_owned();
            if !text.starts_with("FDSTORE") && !text.starts_with("STATUS=") {
                return Some(text);
            }
        }
    }

    fn expect(&self, what: &str, time: Duration) {
        let heard = self.hear(time);
        assert!(heard.as_deref().is_some_and(|heard| heard.contains(what)), "{what} expected, heard {heard:?}");
    }
}

/// Starts a switch with `power`, under a service manager with a watchdog, and waits until it is ready.
fn start(site: &Site, power: &str) -> (Process, Manager) {
    let told = site.dir().join("notify");
    let manager = Manager(UnixDatagram::bind(&told).expect("notify socket"));
    let mut command = site.ns.command(&find_binary("labswd").expect("labswd").to_string_lossy());
    command.env("NOTIFY_SOCKET", &told).env("WATCHDOG_USEC", PATIENCE.as_micros().to_string());
    let config = format!("power = \"{power}\"\n[ports.vm]\ntype = \"vhost_user\"\n");
    let switch = Process::spawn("labswd", command.arg("--config").arg(site.write_config(&config)));
    // The loop is alive, and says so, before the ports are open.
    while !manager.hear(20 * SECOND).expect("READY=1").contains("READY=1") {}
    (switch, manager)
}

fn stop(mut switch: Process, manager: &Manager) {
    switch.signal(libc::SIGTERM);
    while !manager.hear(20 * SECOND).expect("a last message").contains("STOPPING=1") {}
    assert!(switch.wait(20 * SECOND).success());
}

/// The number of the thread called `name` of process `pid`.
fn thread_of(pid: u32, name: &str) -> libc::pid_t {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let named = |thread: &std::fs::DirEntry| {
        std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let thread = { threads }.find(named).unwrap_or_else(|| panic!("no thread {name}"));
    thread.file_name().to_string_lossy().parse().expect("a number")
}

/// A thread that stands still until this is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    fn new(thread: libc::pid_t) -> Stopped {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests of ptrace take a thread and no memory of ours; waitpid is given none either.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing), 0, "may be traced");
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing), 0);
            assert_eq!(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL), thread);
        }
        Stopped(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; detaching lets the thread go on.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing) };
    }
}

#[test]
fn a_switch_that_sleeps_is_alive() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("wd-idle");
    let (switch, manager) = start(&site, "adaptive");
    let begin = Instant::now();
    for _ in 0..4 {
        manager.expect("WATCHDOG=1", PATIENCE);
    }
    let took = begin.elapsed();
    assert!(took > 3 * HALF && took < 4 * PATIENCE, "one message per {HALF:?}, not {took:?} for four");
    stop(switch, &manager);
}

#[test]
fn a_worker_that_hangs_ends_the_messages() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("wd-hang");
    let (switch, manager) = start(&site, "performance");
    manager.expect("WATCHDOG=1", PATIENCE);
    let stopped = Stopped::new(thread_of(switch.pid(), "worker-0"));
    // What it did since the last message still counts, once.
    let since = Instant::now();
    while manager.hear(PATIENCE * 3 / 2).is_some() {
        assert!(since.elapsed() < PATIENCE, "messages go on although a worker hangs");
    }
    wait_for("a word about it in the log", PATIENCE, || switch.log().contains("makes no progress").then_some(()));
    drop(stopped);
    manager.expect("WATCHDOG=1", PATIENCE);
    manager.expect("WATCHDOG=1", PATIENCE);
    stop(switch, &manager);
}

#[test]
fn nobody_is_told_what_nobody_asked_for() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("wd-none");
    let told = site.dir().join("notify");
    let manager = Manager(UnixDatagram::bind(&told).expect("notify socket"));
    let mut command = site.ns.command(&find_binary("labswd").expect("labswd").to_string_lossy());
    let config = site.write_config("[ports.vm]\ntype = \"vhost_user\"\n");
    // Another process is meant: sd_watchdog_enabled(3).
    command.env("NOTIFY_SOCKET", &told).env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "1");
    let switch = Process::spawn("labswd", command.arg("--config").arg(config));
    manager.expect("READY=1", 20 * SECOND);
    assert_eq!(manager.hear(2 * SECOND), None);
    stop(switch, &manager);
}
