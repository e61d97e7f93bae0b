//! Proves that captures show what passes at ports, and what is dropped, as Wireshark's own tools read it and in lines:
//! the frames, their directions, time stamps and reasons; that filters select; that a capture ends as it was asked to,
//! and however it ends, leaves nothing behind in the switch; and that Wireshark finds the ports by itself (extcap).
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::{self, Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::Lab;

const PATIENCE: Duration = Duration::from_secs(5);
const PORTS: [(&str, &str); 4] = [
    ("a", r#"vlan = { mode = "access", tag = 10 }"#),
    ("b", r#"vlan = { mode = "access", tag = 10 }"#),
    ("t", r#"vlan = { mode = "trunk", trunks = [10, 20] }"#),
    ("secret", "vlan = { mode = \"access\", tag = 10 }\nallow_mirror = false"),
];
/// An address from which, and to which, nothing else is sent.
const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd, Need::Program("tshark"), Need::Program("capinfos")])
}

struct Bench<'a> {
    switch: Labswd<'a>,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab, before: &str) -> Self {
        Self { switch: lab.start(before, &PORTS, "") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.switch.site().dir().join(name)
    }

    fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(find_binary("labsw-ctl").unwrap());
        command.arg("--socket").arg(self.switch.site().control_socket()).args(arguments);
        command
    }

    /// Starts a capture, and waits until it runs.
    fn start(&self, arguments: &[&str]) -> Process {
        let before = self.captures();
        let capture = Process::spawn("capture", &mut self.ctl(&[&["capture"], arguments].concat()));
        wait_for("capture", PATIENCE, || (self.captures() > before).then_some(()));
        capture
    }

    fn captures(&self) -> usize {
        self.switch.ctl(&["capture", "--list"]).as_array().unwrap().len()
    }

    fn assert_none_left(&self) {
        wait_for("end of all captures", PATIENCE, || (self.captures() == 0).then_some(()));
    }
}

/// Sends a frame and waits for it at the far end of another port.
fn pass(frame: &Frame, from: &RawSocket, to: &RawSocket) {
    let source = frame.build()[6..12].to_vec();
    from.send(&frame.build());
    assert!(to.recv_matching(PATIENCE, |got| got[6..12] == source).is_some(), "the frame did not pass");
}

/// These fields of each frame of a file.
fn tshark(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]).stderr(Stdio::null());
    for field in fields {
        command.args(["-e", field]);
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "tshark can't read {}", file.display());
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Waits for a capture to end by itself, and gives what it says.
fn ended(mut capture: Process) -> String {
    let status = capture.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", capture.log());
    capture.log()
}

#[test]
fn two_ports_are_seen_in_both_directions_with_their_tags_in_order() {
    if !needs() {
        return;
    }
    let lab = Lab::new("cap");
    let bench = Bench::new(&lab, "");
    let (a, t) = (lab.socket("a"), lab.socket("t"));
    let file = bench.file("two.pcapng");
    let capture = bench.start(&[
        "a",
        "t",
        "-w",
        file.to_str().unwrap(),
        "--count",
        "4",
        "--filter",
        "ether host 02:00:00:00:00:01",
    ]);
    let lines = bench.start(&["a", "t", "--count", "4", "--filter", "ether host 02:00:00:00:00:01"]);
    pass(&Frame::new(BROADCAST, mac(9)), &a, &t);
    pass(&Frame::new(BROADCAST, HERE).payload(&[1; 100]), &a, &t);
    pass(&Frame::new(HERE, mac(2)).vlan(10), &t, &a);
    assert_eq!(ended(capture).trim(), "4 frames captured, 0 dropped because the capture was too slow");
    let lines = ended(lines);
    for line in [
        "Z a rx 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, experimental, length 114",
        "Z t tx 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, vlan 10, experimental, length 118",
        "Z t rx 02:00:00:00:00:02 > 02:00:00:00:00:01, vlan 10, experimental, length 64",
        "Z a tx 02:00:00:00:00:02 > 02:00:00:00:00:01, experimental, length 60",
    ] {
        assert!(lines.contains(line), "{line:?} is missing in\n{lines}");
    }

    let fields =
        ["frame.interface_name", "frame.comment", "frame.packet_flags_direction", "eth.src", "vlan.id", "frame.len"];
    let expected = [
        ["a", "rx", "0x00000001", "02:00:00:00:00:01", "", "114"],
        ["t", "tx", "0x00000002", "02:00:00:00:00:01", "10", "118"],
        ["t", "rx", "0x00000001", "02:00:00:00:00:02", "10", "64"],
        ["a", "tx", "0x00000002", "02:00:00:00:00:02", "", "60"],
    ];
    assert_eq!(tshark(&file, &fields), expected);
    let times: Vec<f64> = tshark(&file, &["frame.time_epoch"]).iter().map(|time| time[0].parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - times[0];
    assert!((0.0..60.0).contains(&age), "the first frame is {age} s old");
    let about = process::run(Command::new("capinfos").arg(&file));
    for said in
        ["nanoseconds (9)", "Strict time order:   True", "Name = a", "labsw port, veth", "Number of stat entries = 1"]
    {
        assert!(about.contains(said), "{said:?} is missing in\n{about}");
    }
    bench.assert_none_left();
}

#[test]
fn drops_are_seen_with_port_and_reason_and_ports_that_may_not_be_seen_are_not() {
    if !needs() {
        return;
    }
    let lab = Lab::new("cap");
    let bench = Bench::new(&lab, "");
    let [a, t, secret] = ["a", "t", "secret"].map(|port| lab.socket(port));
    let (file, only) = (bench.file("drops.pcapng"), bench.file("only.pcapng"));
    let all = bench.start(&[
        "--drops",
        "--count",
        "2",
        "-w",
        file.to_str().unwrap(),
        "--filter",
        "ether src 02:00:00:00:00:01",
    ]);
    let arguments = ["--drops", "--reason", "vlan_not_member", "--count", "1", "-w", only.to_str().unwrap()];
    let one = bench.start(&[&arguments[..], &["--filter", "ether src 02:00:00:00:00:01"]].concat());
    let foreign = Frame::new(BROADCAST, HERE).vlan(30);
    secret.send(&foreign.build());
    wait_for("drop", PATIENCE, || (bench.switch.drops("secret", "tagged_not_allowed") == 1).then_some(()));
    a.send(&foreign.build());
    t.send(&foreign.build());
    ended(all);
    ended(one);
    let fields = ["frame.interface_name", "frame.comment", "vlan.id"];
    let at_a = ["a", "rx dropped at a: tagged_not_allowed", "30"];
    let at_t = ["t", "rx dropped at t: vlan_not_member", "30"];
    // Two queues: either may have been looked at first.
    let mut seen = tshark(&file, &fields);
    seen.sort();
    assert_eq!(seen, [at_a, at_t]);
    assert_eq!(tshark(&only, &fields), [at_t]);

    // Named, the port is refused; "all" has passed over it.
    let refused = bench.switch.ctl_refused(&["capture", "secret", "-w", "-"]);
    assert!(refused.contains("\"secret\"") && refused.contains("allow_mirror"), "{refused}");
    let names = process::run(Command::new("capinfos").arg(&file));
    assert!(names.contains("Name = b") && !names.contains("Name = secret"), "{names}");
    bench.assert_none_left();
}

#[test]
fn a_capture_ends_as_it_was_asked_to_and_leaves_nothing() {
    if !needs() {
        return;
    }
    let lab = Lab::new("cap");
    let bench = Bench::new(&lab, "");
    let file = bench.file("end.pcapng");
    let name = file.to_str().unwrap();
    refused_captures_make_no_file(&bench, &file);
    let started = Instant::now();
    ended(bench.start(&["-w", name, "--duration", "300ms"]));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(process::run(Command::new("capinfos").arg(&file)).contains("Number of stat entries = 1"));

    let mut signalled = bench.start(&["-w", name]);
    signalled.signal(libc::SIGTERM);
    assert!(ended(signalled).contains("frames captured"));

    // `| head -c 100`, and nothing passes that would be written.
    let socket = bench.switch.site().control_socket();
    let ctl = find_binary("labsw-ctl").unwrap();
    let pipe = format!("{} --socket {} capture b -w - | head -c 100 | wc -c", ctl.display(), socket.display());
    let counted = process::run(Command::new("sh").args(["-c", &pipe]));
    assert_eq!(counted.trim(), "100", "standard error, if anything, is here too");

    // A terminal gets no binary.
    let shown = format!("{} --socket {} capture b -w -", ctl.display(), socket.display());
    let (status, text) = process::output(Command::new("script").args(["-qec", &shown, "/dev/null"]));
    assert!(status.code() == Some(2) && text.contains("terminal"), "{status}: {text}");

    let mut killed = bench.start(&["-w", name]);
    killed.kill();
    bench.assert_none_left();

    a_port_that_comes_back_is_captured_again(&lab, &bench, &file);
    bench.switch.stop();
}

/// What is refused makes no file.
fn refused_captures_make_no_file(bench: &Bench<'_>, file: &Path) {
    let name = file.to_str().unwrap();
    for (arguments, culprit) in [
        (&["nowhere", "-w", name][..], "nowhere"),
        (&["-w", name, "--filter", "tcp prot 445"], "filter"),
        (&["-w", "/nonexistent/x"], "/nonexistent/x"),
        (&["-w", "/dev/full"], "No space left"),
    ] {
        let refused = bench.switch.ctl_refused(&[&["capture"], arguments].concat());
        assert!(refused.contains(culprit), "{refused}");
    }
    assert!(!file.exists());
    let (status, _, _) = bench.switch.ctl_output(&["capture", "-w", name, "--drops", "--reason", "bad_luck"]);
    assert_eq!(status, 2);
}

/// A port that goes and comes back during a capture is captured again.
fn a_port_that_comes_back_is_captured_again(lab: &Lab, bench: &Bench<'_>, file: &Path) {
    let name = file.to_str().unwrap();
    let again = bench.start(&["b", "-w", name, "--count", "1", "--filter", "ether src 02:00:00:00:00:01"]);
    bench.switch.ctl(&["port", "del", "b"]);
    bench.switch.ctl(
        &[
            &[
                "port",
                "add",
                "b",
                "--type",
                "veth",
                "--set",
                "peer=x-b",
                "--set",
                "peer_name=b2",
                "--set",
                "vlan.mode=access",
            ][..],
            &["--set", "vlan.tag=10", "--set", &format!("netns={}", lab.peers.name())],
        ]
        .concat(),
    );
    bench.switch.wait_port_up("b");
    pass(&Frame::new(BROADCAST, HERE), &lab.socket("a"), &lab.socket("b2"));
    ended(again);
    assert_eq!(tshark(file, &["frame.interface_name", "frame.comment"]), [["b", "tx"]]);
    bench.assert_none_left();
}

/// A user's own Wireshark: not root, but of the switch's admin group.
#[test]
fn wireshark_lists_the_ports_and_captures_from_them() {
    if !needs() || !require::all(&[Need::Program("setpriv")]) {
        return;
    }
    let lab = Lab::new("cap");
    let bench = Bench::new(&lab, "socket_group = \"nogroup\"\nadmin_group = \"nogroup\"\n");
    // Where that user can read it, wherever the programs under test are.
    let (tool, scripts) = (bench.file("labsw-ctl"), bench.file("extcap"));
    std::fs::copy(find_binary("labsw-ctl").unwrap(), &tool).unwrap();
    let installed = process::run(Command::new(&tool).args(["extcap", "install", "--dir"]).arg(&scripts));
    assert_eq!(Path::new(installed.trim()), scripts.join("labsw"));
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "tshark"]).args(arguments);
        command.env("WIRESHARK_EXTCAP_DIR", &scripts).env("LABSW_SOCKET", bench.switch.site().control_socket());
        command.env("HOME", OsStr::new("/nonexistent"));
        command
    };
    let listed = process::output(&mut as_user(&["-D"])).1;
    for name in ["labsw-a ", "labsw-t ", "labsw_drops "] {
        assert!(listed.contains(name), "{name:?} is missing in\n{listed}");
    }
    assert!(!listed.contains("labsw-secret"), "{listed}");

    let (a, b) = (lab.socket("a"), lab.socket("b"));
    let fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "eth.src"];
    let watch = |interface: &str| {
        let arguments = [&["-i", interface, "-c", "1", "-f", "ether src 02:00:00:00:00:01"][..], &fields].concat();
        let tshark = Process::spawn("tshark", &mut as_user(&arguments));
        wait_for("capture of tshark", PATIENCE, || (bench.captures() == 1).then_some(()));
        tshark
    };
    let seen = watch("labsw-b");
    pass(&Frame::new(BROADCAST, mac(7)), &a, &b);
    pass(&Frame::new(BROADCAST, HERE), &a, &b);
    assert!(ended(seen).contains("b\ttx\t02:00:00:00:00:01\n"));
    bench.assert_none_left();
    let dropped = watch("labsw_drops");
    a.send(&Frame::new(BROADCAST, HERE).vlan(30).build());
    assert!(ended(dropped).contains("a\trx dropped at a: tagged_not_allowed\t02:00:00:00:00:01\n"));
    bench.assert_none_left();
}
