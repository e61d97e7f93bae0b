//! Proves that no device keeps the control socket silent: while a port can't be opened, because the helper process
//! stands still, the switch answers, serves guests and sees clients go. Changes wait for each other, in the order of
//! their arrival. SIGTERM ends the switch all the same.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use labsw_control::api::{Change, PortState, PortType, Reply, Request};
use labsw_control::varlink::Client;
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
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
