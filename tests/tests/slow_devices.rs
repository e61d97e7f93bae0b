//! Proves that no device keeps the control socket silent: while a port can't be opened, because the helper process
//! stands still, the switch answers, serves guests and sees clients go. Changes wait for each other, in the order of
//! their arrival. SIGTERM ends the switch all the same. Neither does the kernel keep it silent, while it is slow to say
//! that no program of the fast path goes by a gate any more that was shut.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use labsw_control::api::{CaptureSpec, Change, PortState, PortType, Reply, Request};
use labsw_control::varlink::Client;
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::Lab;
use serde_json::{Value, json};

/// The slowest answer. Generous where the machine is busy and the build slow.
const ANSWER: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 200 });
/// Longest wait for something that has to happen.
const SOON: Duration = Duration::from_secs(20);

/// A process that stands still until this is dropped.
struct Stopped(rustix::process::Pid);

impl Stopped {
    /// Stops the one child of a process: the helper of a switch.
    fn helper_of(pid: u32) -> Stopped {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
        let [child] = children.split_whitespace().collect::<Vec<_>>()[..] else { panic!("one child: {children:?}") };
        let child = child.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(child, rustix::process::Signal::STOP).expect("a child of this test's switch");
        Stopped(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// Adds a container's port, which needs the helper, on a thread of its own.
fn add(socket: &Path, name: &str) -> JoinHandle<Result<Reply, String>> {
    let (socket, name) = (socket.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        let mut client = Client::connect(&socket).map_err(|error| error.to_string())?;
        client.call(&request(&name)).map_err(|error| error.to_string())
    })
}

fn request(name: &str) -> Request {
    let settings = [("peer".to_owned(), Value::from(format!("sd-{name}")))].into_iter().collect();
    Request::Change(Change::AddPort { name: name.to_owned(), port_type: PortType::Veth, settings })
}

/// The states of all ports, by name; checks that the answer is quick.
fn states(client: &mut Client) -> Vec<(String, PortState)> {
    let asked = Instant::now();
    let reply = client.call(&Request::GetStatus).expect("an answer");
    assert!(asked.elapsed() < ANSWER, "an answer took {:?}", asked.elapsed());
    let Reply::Status(status) = reply else { panic!("{reply:?}") };
    status.ports.into_iter().map(|port| (port.name, port.state)).collect()
}

fn is_opening(client: &mut Client, name: &str) -> Option<()> {
    states(client).contains(&(name.to_owned(), PortState::Opening)).then_some(())
}

#[test]
fn a_port_that_is_opened_slowly_delays_other_changes_and_nothing_else() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("slow");
    let switch = Labswd::start(&site, "[ports.vm]\ntype = \"vhost_user\"\n");
    let socket = site.control_socket();
    let mut client = Client::connect(&socket).expect("a client");
    let stopped = Stopped::helper_of(switch.pid());
    let first = add(&socket, "a");
    wait_for("the first change", SOON, || is_opening(&mut client, "a"));
    let again = add(&socket, "a");
    // A client that goes before its change has begun: the change is made nevertheless.
    drop(gone(&socket, "b"));
    let began = Instant::now();
    let guest = UnixStream::connect(switch.vhost_socket("vm")).expect("the guest's socket");
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(states(&mut client).len(), 2, "changes wait");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(switch.port("vm")["connected"], true, "a guest is served");
    drop(guest);
    assert!(!first.is_finished() && !again.is_finished());
    drop(stopped);
    first.join().expect("no panic").expect("the port is added");
    let refused = again.join().expect("no panic").expect_err("it was there already");
    assert!(refused.contains("is there already"), "{refused}");
    wait_for("the change of the client that went", SOON, || {
        let all = states(&mut client);
        (all.len() == 3 && all.iter().all(|(_, state)| *state != PortState::Opening)).then_some(())
    });
    switch.stop();
}

/// A client that has asked for a change, and waits for no answer.
fn gone(socket: &Path, name: &str) -> UnixStream {
    let client = UnixStream::connect(socket).expect("a client");
    let call = json!({
        "method": "org.labsw.Switch1.AddPort",
        "parameters": {"name": name, "type": "veth", "settings": {"peer": format!("sd-{name}")}},
    });
    std::io::Write::write_all(&mut &client, format!("{call}\0").as_bytes()).expect("sent");
    client
}

#[test]
fn a_switch_that_waits_for_a_device_can_be_stopped() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("slow-end");
    let switch = Labswd::start(&site, "");
    let socket = site.control_socket();
    let mut client = Client::connect(&socket).expect("a client");
    let stopped = Stopped::helper_of(switch.pid());
    let waits = add(&socket, "a");
    wait_for("the change", SOON, || is_opening(&mut client, "a"));
    // The request to the helper would fail after five seconds, and others wait.
    let others: Vec<_> = ["b", "c"].into_iter().map(|name| add(&socket, name)).collect();
    let began = Instant::now();
    switch.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "SIGTERM took {:?}", began.elapsed());
    for waits in others.into_iter().chain([waits]) {
        assert!(waits.join().expect("no panic").is_err(), "the switch has hung up");
    }
    drop(stopped);
}

/// How much longer a request takes to wait for the kernel's readers.
const SETTLES: Duration = Duration::from_millis(1500);

/// Makes the kernel slow to answer a process that waits for the kernel's readers, until the result is dropped.
fn slow_to_settle(pid: u32) -> Process {
    let delay = format!("inject=membarrier:delay_enter={}", SETTLES.as_micros());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-e", "trace=membarrier", "-e", &delay, "-p", &pid.to_string()]);
    let strace = Process::spawn("strace", &mut strace);
    let traced = format!("\nTracerPid:\t{}\n", strace.pid());
    let is_traced = |task: &Path| std::fs::read_to_string(task.join("status")).is_ok_and(|text| text.contains(&traced));
    wait_for("every thread to be traced", SOON, || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        tasks.all(|task| task.is_ok_and(|task| is_traced(&task.path()))).then_some(())
    });
    strace
}

/// Does something with the control socket on a thread of its own, and says how long it took.
fn timed(socket: &Path, work: impl FnOnce(&mut Client) + Send + 'static) -> JoinHandle<Duration> {
    let socket = socket.to_owned();
    std::thread::spawn(move || {
        let mut client = Client::connect(&socket).expect("a client");
        let began = Instant::now();
        work(&mut client);
        began.elapsed()
    })
}

#[test]
fn a_gate_of_the_fast_path_that_settles_slowly_delays_who_shut_it_and_nobody_else() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("strace")]) {
        return;
    }
    let lab = Lab::new("slow-gate");
    let switch = lab.start("", &["a", "b", "c"].map(|name| (name, "offloads = true")), "");
    for name in ["a", "b", "c"] {
        wait_for("the fast path", SOON, || (switch.port(name)["fast_path"] == "on").then_some(()));
    }
    let socket = lab.site.control_socket();
    let mut client = Client::connect(&socket).expect("a client");
    let strace = slow_to_settle(switch.pid());
    let down = Request::Change(Change::SetPortState { name: "a".to_owned(), up: false });
    let gone = Request::Change(Change::DeletePort { name: "b".to_owned() });
    let capture = Request::Capture(CaptureSpec::default());
    let mut meanwhile = |what: &str, waits: JoinHandle<Duration>| {
        while !waits.is_finished() {
            states(&mut client);
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = waits.join().expect("no panic");
        assert!(took >= SETTLES, "{what} took {took:?}, less than the kernel");
    };
    meanwhile("the change", timed(&socket, move |client| drop(client.call(&down).expect("the port is down"))));
    meanwhile("the deletion", timed(&socket, move |client| drop(client.call(&gone).expect("the port is deleted"))));
    let begins = move |client: &mut Client| {
        let mut pieces = client.stream(&capture).expect("a request");
        pieces.next().expect("a piece").expect("the capture begins");
    };
    meanwhile("the capture", timed(&socket, begins));
    drop(strace);
    wait_for("the fast path", SOON, || (switch.port("c")["fast_path"] == "on").then_some(()));
    switch.stop();
}
