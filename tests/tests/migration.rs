//! Proves that QEMU guests can be saved, restored and moved while they work: snapshots that go back in time, a guest
//! saved to a file, killed and restored again and again under a TCP flow while its neighbours lose nothing, and a guest
//! that moves between two hosts whose switches are joined by their trunks.
//!
//! `LABSW_MIGRATIONS` says how often a guest is saved and restored, and how often it is moved.

#![allow(clippy::expect_used, clippy::panic, reason = "test helpers")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use labsw_tests::guest::{Guest, Nic};
use labsw_tests::iperf;
use labsw_tests::netns::{Netns, wire};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::qmp::Qmp;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};
use labsw_tests::veth_lab::{Flow, Lab};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
/// A guest's first frame may wait for its link.
const FIRST_PING: Duration = Duration::from_secs(20);
/// How soon the guest's TCP flow goes on after a restore or a move.
const RESUME: Duration = Duration::from_secs(20);
/// Bytes after which a flow counts as going on.
const PROGRESS_BYTES: u64 = 500_000;
const MAC: &str = "52:54:00:00:00:01";
const NEEDS: [Need; 4] = [Need::Root, Need::Labswd, Need::Guest, Need::Program("iperf3")];

fn rounds(otherwise: u32) -> u32 {
    std::env::var("LABSW_MIGRATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A guest whose machine monitor is at `monitor`.
fn boot(nic: &Nic, monitor: &Path, more: &[&str]) -> Guest {
    let qmp = format!("unix:{},server=on,wait=off", monitor.display());
    Guest::boot_with_options("mover", "10.1.0.1/24", nic, &[&["-qmp", &qmp], more].concat())
}

/// The guest's TCP flow to a namespace, which takes everything the guest sends.
struct TcpFlow<'a> {
    server: &'a Netns,
    /// Address and port of the guest's end.
    peer: String,
    _iperf: Process,
}

impl<'a> TcpFlow<'a> {
    fn start(guest: &mut Guest, server: &'a Netns, address: &str) -> Self {
        let iperf = iperf::serve(server);
        guest.ok(&format!("(iperf3 -c {address} -t 3600 -b 20M >/dev/null 2>&1 &)"));
        let peer = wait_for("a TCP flow", 20 * SECOND, || {
            let all = connections(server);
            all.into_iter().find(|(_, bytes)| *bytes > PROGRESS_BYTES).map(|(peer, _)| peer)
        });
        Self { server, peer, _iperf: iperf }
    }

    /// Bytes that have come through the connection that was there at the start; it has to be there still.
    fn bytes(&self) -> u64 {
        let all = connections(self.server);
        let own = all.iter().find(|(peer, _)| *peer == self.peer);
        own.unwrap_or_else(|| panic!("the connection of {} is gone: {all:?}", self.peer)).1
    }

    /// Waits until the flow goes on; how long that took.
    fn wait_progress(&self) -> Duration {
        let (began, before) = (Instant::now(), self.bytes());
        wait_for("progress of the TCP flow", RESUME, || (self.bytes() > before + PROGRESS_BYTES).then_some(()));
        began.elapsed()
    }
}

/// Connections with iperf3's server: the other end, and the bytes received.
fn connections(server: &Netns) -> Vec<(String, u64)> {
    let text = server.run(&["ss", "-tinHO", "state", "established", "sport", "=", ":5201"]);
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bytes = words.iter().find_map(|word| word.strip_prefix("bytes_received:")?.parse().ok());
        Some((words.get(3)?.to_string(), bytes.unwrap_or(0)))
    };
    text.lines().filter_map(one).collect()
}

#[test]
fn a_snapshot_goes_back_in_time() {
    if !require::all(&[&NEEDS[..], &[Need::Program("qemu-img")]].concat()) {
        return;
    }
    let (site, container) = (Site::new("snap"), Netns::new("box"));
    let config = format!(
        "[ports.a]\ntype = \"vhost_user\"\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \
         \"eth0\"\n",
        container.name()
    );
    let switch = Labswd::start(&site, &config);
    container.address("eth0", "10.1.0.9/24");
    let (disk, monitor) = (site.dir().join("disk.qcow2"), site.dir().join("qmp"));
    process::run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("1M"));
    let drive = format!("if=none,id=state,format=qcow2,file={}", disk.display());
    let mut nic = Nic::new(switch.vhost_socket("a"), 1);
    nic.packed = true;
    let mut guest = boot(&nic, &monitor, &["-drive", &drive]);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    let mut qmp = Qmp::connect(&monitor);

    // While it works, and while it stands still.
    for stopped in [false, true] {
        let flow = TcpFlow::start(&mut guest, &container, "10.1.0.9");
        guest.ok("echo before >/tmp/state");
        if stopped {
            qmp.execute("stop", &json!({}));
        }
        assert_eq!(qmp.human("savevm one"), "");
        if stopped {
            qmp.execute("cont", &json!({}));
        }
        flow.wait_progress();
        guest.ok("echo after >/tmp/state; killall iperf3");
        for _ in 0..2 {
            assert_eq!(qmp.human("loadvm one"), "");
            if stopped {
                qmp.execute("cont", &json!({}));
            }
            assert_eq!(guest.ok("cat /tmp/state"), "before");
            // The other end of the flow has gone on meanwhile: it says so, and the guest starts over.
            guest.ok("killall iperf3; rm /tmp/state");
            guest.wait_ping("10.1.0.9", FIRST_PING);
            let output = container.run(&["ping", "-q", "-f", "-c", "1500", "-w", "90", "10.1.0.1"]);
            assert!(output.contains(" 0% packet loss"), "all around the rings: {output}");
        }
    }
    assert_eq!(switch.port_state("a"), "up");
    drop(guest);
    switch.stop();
}

#[test]
fn a_guest_is_saved_killed_and_restored_again_and_again() {
    if !require::all(&NEEDS) {
        return;
    }
    let (lab, container) = (Lab::new("save"), Netns::new("box"));
    let ports = format!(
        "[ports.a]\ntype = \"vhost_user\"\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \
         \"eth0\"\n",
        container.name()
    );
    let switch = lab.start("", &[("one", ""), ("two", "")], &ports);
    container.address("eth0", "10.1.0.9/24");
    let (file, monitor) = (lab.site.dir().join("guest"), lab.site.dir().join("qmp"));
    let uri = format!("file:{}", file.display());
    let nic = Nic::new(switch.vhost_socket("a"), 1);
    let mut guest = boot(&nic, &monitor, &[]);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    let flow = TcpFlow::start(&mut guest, &container, "10.1.0.9");
    let neighbours = Flow::start(&lab, "one", "two");
    let mut longest = Duration::ZERO;
    for round in 0..rounds(3) {
        Qmp::connect(&monitor).migrate(&uri);
        let shell = guest.shell();
        // Killed: nobody says goodbye.
        drop(guest);
        guest = boot(&nic, &monitor, &["-incoming", &uri]);
        guest.go_on(shell);
        Qmp::connect(&monitor).wait_running();
        longest = longest.max(flow.wait_progress());
        neighbours.assert_flowing(&format!("in round {round}"));
        let _ = std::fs::remove_file(&file);
    }
    assert_eq!(guest.ok("echo here"), "here");
    println!("{} frames of the neighbours, none lost; the flow went on within {longest:?}", neighbours.finish());
    drop(guest);
    switch.stop();
}

/// A host: a switch with a guest's port and a trunk.
struct Host<'a> {
    switch: Labswd<'a>,
    nic: Nic,
    monitor: std::path::PathBuf,
}

impl<'a> Host<'a> {
    fn new(site: &'a Site, announce: bool, more: &str) -> Self {
        let ports = "[ports.a]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 10 }\n[ports.trunk]\ntype = \
                     \"af_xdp\"\ndevice = \"name:trunk\"\nvlan = { mode = \"trunk\", trunks = [10] }\n";
        let switch = Labswd::start(site, &format!("{ports}{more}"));
        switch.wait_port_up("trunk");
        let mut nic = Nic::new(switch.vhost_socket("a"), 1);
        nic.announce = announce;
        Self { switch, nic, monitor: site.dir().join("qmp") }
    }

    /// Waits until the switch has the guest at `port`.
    fn wait_learned(&self, port: &str) {
        wait_for(&format!("the guest at {port}"), 10 * SECOND, || {
            (self.switch.fdb_port(10, MAC).as_deref() == Some(port)).then_some(())
        });
    }
}

/// The longest time between two answers that `ping -D` printed.
fn longest_gap(printed: &str) -> Duration {
    let stamps: Vec<f64> = printed
        .lines()
        .filter(|line| line.contains("bytes from"))
        .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse().ok())
        .collect();
    assert!(stamps.len() > 10, "{printed}");
    Duration::from_secs_f64(stamps.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max))
}

/// A guest moves there and back between two hosts, without a word of its own at first, then under a TCP flow.
fn moves(tag: &str, announce: bool, times: u32) {
    if !require::all(&NEEDS) {
        return;
    }
    let (site_a, site_b, container) = (Site::new(&format!("{tag}a")), Site::new(&format!("{tag}b")), Netns::new("box"));
    wire((&site_a.ns, "trunk"), (&site_b.ns, "trunk"));
    let container_port = format!(
        "[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\nvlan = {{ mode = \
         \"access\", tag = 10 }}\n",
        container.name()
    );
    let hosts = [Host::new(&site_a, announce, &container_port), Host::new(&site_b, announce, "")];
    container.address("eth0", "10.1.0.9/24");
    let mut guest = boot(&hosts[0].nic, &hosts[0].monitor, &[]);
    guest.ready();
    guest.wait_ping("10.1.0.9", FIRST_PING);
    hosts[0].wait_learned("a");
    let acknowledged = hosts[0].switch.port("a")["features"].to_string();
    assert_eq!(acknowledged.contains("GUEST_ANNOUNCE"), announce, "{acknowledged}");

    let uri = format!("unix:{}", site_a.dir().join("move").display());
    let mut flow = None;
    for round in 0..times {
        let (from, to) = (&hosts[(round % 2) as usize], &hosts[((round + 1) % 2) as usize]);
        let mut ping = flow.is_some().then(|| {
            let mut command = container.command("ping");
            Process::spawn("ping", command.args(["-D", "-i", "0.01", "-w", "600", "10.1.0.1"]))
        });
        let mut arrived = boot(&to.nic, &to.monitor, &["-incoming", &uri]);
        let mut incoming = Qmp::connect(&to.monitor);
        let still = Qmp::connect(&from.monitor).migrate(&uri);
        incoming.wait_running();
        arrived.go_on(guest.shell());
        guest = arrived;
        // The guest says nothing yet: it is announced.
        to.wait_learned("a");
        from.wait_learned("trunk");
        if let Some(flow) = &flow {
            let progress: Duration = TcpFlow::wait_progress(flow);
            let ping = ping.as_mut().expect("it runs");
            std::thread::sleep(SECOND);
            ping.signal(libc::SIGINT);
            ping.wait(10 * SECOND);
            let gap = longest_gap(&ping.log());
            println!("move {round}: stood still for {still} ms, longest gap {gap:?}, TCP went on within {progress:?}");
        } else {
            flow = Some(TcpFlow::start(&mut guest, &container, "10.1.0.9"));
        }
    }
    assert_eq!(guest.ok("echo here"), "here");
    drop(guest);
    hosts.into_iter().for_each(|host| host.switch.stop());
}

#[test]
fn a_guest_moves_and_announces_itself() {
    moves("moves", true, rounds(2));
}

#[test]
fn a_guest_that_cannot_announce_itself_moves() {
    moves("rarp", false, 1);
}
