//! `labsw-ctl capture` and `extcap`: where the bytes of a capture go, and how it ends.

use super::*;

#[test]
fn captures_are_written_and_end_with_a_summary() {
    let switch = Switch::start();
    let output = switch.command(&["capture", "dc01", "--count", "1", "-w", "-"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "hello end".into()));
    assert_eq!(text(&output.stderr), "2 frames captured, 1 dropped because the capture was too slow\n");
    let file = std::env::temp_dir().join(format!("labsw-ctl-capture-{}", std::process::id()));
    let name = file.to_str().unwrap();
    let output = switch.command(&["capture", "--count", "1", "-w", name, "--json"]).output().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text(&output.stderr)).unwrap(), json!({"captured": 2, "dropped": 1}));
    assert_eq!((text(&output.stdout).as_str(), std::fs::read(&file).unwrap()), ("", b"hello end".to_vec()));

    // A signal ends it as if it had been its end.
    let mut child = switch.command(&["capture", "-w", "-"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&first), text(&output.stdout)), (Some(0), "hello".into(), " end".into()));
    assert!(text(&output.stderr).starts_with("2 frames captured"), "{output:?}");

    // What is refused leaves a file alone.
    let output = switch.command(&["capture", "nowhere", "-w", name]).output().unwrap();
    assert_eq!(failure(output), (Some(1), "labsw-ctl: port \"nowhere\" does not exist\n".into()));
    assert_eq!(std::fs::read(&file).unwrap(), b"hello end");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn without_a_file_a_capture_prints_a_line_for_each_frame() {
    let switch = Switch::start();
    let output = switch.command(&["capture", "lines"]).output().unwrap();
    let expected = "22:13:20.123456Z web rx vlan 20, ARP, request who-has 10.0.0.2 tell 10.0.0.1\n\
                    22:13:20.123457Z web rx dropped (vlan_not_member) vlan 20, ARP, request who-has 10.0.0.2 tell 10.0.0.1\n";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected.to_owned()));
    assert_eq!(text(&output.stderr), "2 frames captured, 0 dropped because the capture was too slow\n");
    let macs = text(&switch.command(&["capture", "lines", "-e"]).output().unwrap().stdout);
    assert!(macs.starts_with("22:13:20.123456Z web rx 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff, vlan 20, ARP"), "{macs}");
    let back = text(&switch.command(&["rewind", "lines", "--last", "1s"]).output().unwrap().stdout);
    assert_eq!(back, expected);

    let coloured = |no_color| {
        let mut command = switch.command(&["capture", "lines"]);
        text(&command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", no_color).output().unwrap().stdout)
    };
    assert_eq!(coloured("1"), expected);
    assert!(coloured("").contains("\u{1b}[31m dropped (vlan_not_member)\u{1b}[0m"), "{}", coloured(""));

    let json = text(&switch.command(&["capture", "lines", "--json"]).output().unwrap().stdout);
    let frames: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let frame = |time: &str, dropped: Value| {
        json!({"time": time, "port": "web", "direction": "rx", "dropped": dropped, "bytes": 64,
            "text": "vlan 20, ARP, request who-has 10.0.0.2 tell 10.0.0.1"})
    };
    let times = ["2023-11-14T22:13:20.123456000Z", "2023-11-14T22:13:20.123457000Z"];
    assert_eq!(frames, [frame(times[0], Value::Null), frame(times[1], json!("vlan_not_member"))]);

    // Bytes that are no capture.
    let output = switch.command(&["capture", "dc01", "--count", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "labsw-ctl: writing the output: the capture of the switch is damaged\n");
}

#[test]
fn a_capture_that_can_t_be_written_says_so_on_one_line() {
    let switch = Switch::start();
    let output = switch.command(&["capture", "-w", "/dev/full"]).output().unwrap();
    assert_eq!(failure(output), (Some(1), "labsw-ctl: /dev/full: No space left on device (os error 28)\n".into()));
    let output = switch.command(&["capture", "-w", "/nonexistent/a"]).output().unwrap();
    assert_eq!(
        failure(output),
        (Some(1), "labsw-ctl: /nonexistent/a: No such file or directory (os error 2)\n".into())
    );
    // Nothing comes any more, and still it is noticed that nobody reads.
    let mut child = switch.command(&["capture", "-w", "-"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn wireshark_learns_of_the_ports() {
    let switch = Switch::start();
    let interfaces = switch.ok(&["extcap", "--extcap-interfaces", "--extcap-version=4.0"]);
    let expected = [
        concat!("extcap {version=", env!("CARGO_PKG_VERSION"), "}{display=labsw}"),
        "interface {value=labsw-uplink}{display=labsw port uplink (af_xdp)}",
        "interface {value=labsw-dc01}{display=labsw port dc01 (vhost_user)}",
        "interface {value=labsw-lossy}{display=labsw port lossy (vhost_user)}",
        "interface {value=labsw_drops}{display=labsw, dropped frames}",
    ];
    assert_eq!(interfaces.lines().collect::<Vec<_>>(), expected);
    let dlts = switch.ok(&["extcap", "--extcap-dlts", "--extcap-interface", "labsw-dc01"]);
    assert_eq!(dlts, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
    let options = |interface| switch.ok(&["extcap", "--extcap-config", "--extcap-interface", interface]);
    assert!(options("labsw-dc01").contains("{call=--drops}") && !options("labsw_drops").contains("{call=--drops}"));
    let check = |filter| switch.ok(&["extcap", "--extcap-interface", "labsw-dc01", "--extcap-capture-filter", filter]);
    assert_eq!((check("tcp port 445"), check("tcp prot 445").lines().count()), (String::new(), 1));
    let nobody = Path::new("/nonexistent/labsw.sock");
    let output = command(nobody, &["extcap", "--extcap-interfaces"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(0), 1));
}
