//! Proves that a port keeps what passed and what was dropped, within its memory, and that `labsw-ctl rewind` writes it
//! as tshark reads it; that a port which may not be mirrored keeps nothing, and that memory has a limit.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use labsw_tests::packet::{BROADCAST, Frame, RawSocket, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::Labswd;
use labsw_tests::veth_lab::Lab;

const PATIENCE: Duration = Duration::from_secs(10);
const PORTS: [(&str, &str); 3] = [
    ("a", "vlan = { mode = \"access\", tag = 10 }\nrewind = \"8MiB\""),
    ("b", "vlan = { mode = \"access\", tag = 10 }"),
    ("secret", "vlan = { mode = \"access\", tag = 10 }\nallow_mirror = false\nrewind = \"4MiB\""),
];
/// The stations of the test, which tell their frames from those of the kernel.
const STATIONS: &str = "eth.src[0:5] == 02:00:00:00:00";

/// Interface, comment and source of each frame of a file that a station sent.
fn frames(file: &Path) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", STATIONS, "-T", "fields", "-E", "separator= "]).stderr(Stdio::null());
    let out = command.args(["-e", "frame.interface_name", "-e", "frame.comment", "-e", "eth.src"]).output().unwrap();
    assert!(out.status.success(), "tshark can't read {}", file.display());
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn pass(frame: &Frame, from: &RawSocket, to: &RawSocket) {
    let source = frame.build()[6..12].to_vec();
    from.send(&frame.build());
    assert!(to.recv_matching(PATIENCE, |got| got[6..12] == source).is_some(), "the frame did not pass");
}

/// What the switch gives for these arguments.
fn rewound(switch: &Labswd<'_>, arguments: &[&str]) -> Vec<String> {
    let file = switch.site().dir().join("past.pcapng");
    switch.ctl(&[&["rewind", "-w", file.to_str().unwrap()], arguments].concat());
    frames(&file)
}

#[test]
fn what_passed_and_what_was_dropped_is_there_afterwards() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("tshark")]) {
        return;
    }
    let lab = Lab::new("rew");
    let switch = lab.start("rewind = \"4MiB\"", &PORTS, "");
    let [a, b, secret] = ["a", "b", "secret"].map(|port| lab.socket(port));
    pass(&Frame::new(BROADCAST, mac(1)), &a, &b);
    pass(&Frame::new(mac(1), mac(2)), &b, &a);
    let dropped = switch.drops("a", "tagged_not_allowed");
    a.send(&Frame::new(BROADCAST, mac(3)).vlan(30).build());
    wait_for("drop", PATIENCE, || (switch.drops("a", "tagged_not_allowed") > dropped).then_some(()));
    pass(&Frame::new(BROADCAST, mac(4)), &secret, &b);

    let at_a = [
        "a rx 02:00:00:00:00:01",
        "a tx 02:00:00:00:00:02",
        "a rx 02:00:00:00:00:03",
        "a rx dropped at a: tagged_not_allowed 02:00:00:00:00:03",
        "a tx 02:00:00:00:00:04",
    ];
    assert_eq!(rewound(&switch, &["a", "--last", "10m"]), at_a);
    assert_eq!(rewound(&switch, &["a"]), at_a, "reading takes nothing away");
    assert_eq!(rewound(&switch, &["a:tx"]), [at_a[1], at_a[4]]);
    assert_eq!(rewound(&switch, &["a", "--drops"]), [at_a[3]]);
    assert_eq!(rewound(&switch, &["a", "--filter", "ether src 02:00:00:00:00:01"]), [at_a[0]]);
    let all = rewound(&switch, &[]);
    assert!(all.contains(&"b tx 02:00:00:00:00:01".to_owned()) && all.contains(&at_a[3].to_owned()), "{all:#?}");
    assert!(all.iter().all(|frame| !frame.starts_with("secret")), "{all:#?}");

    let kept = &switch.port("a")["rewind"];
    assert_eq!((kept["bytes"].as_u64(), kept["missed_frames"].as_u64()), (Some(8 << 20), Some(0)), "{kept}");
    assert!(switch.port("secret").get("rewind").is_none(), "{}", switch.port("secret"));

    let refused = switch.ctl_refused(&["rewind", "secret", "-w", "-"]);
    assert!(refused.contains("\"secret\"") && refused.contains("allow_mirror"), "{refused}");
    let refused = switch.ctl_refused(&["port", "set", "a", "rewind=2GiB"]);
    assert!(refused.contains("rewind: 2048 MiB are more than the 1016 MiB that other ports leave"), "{refused}");
    switch.ctl(&["port", "set", "a", "rewind=off"]);
    let refused = switch.ctl_refused(&["rewind", "a", "-w", "-"]);
    assert!(refused.contains("port \"a\": keeps no frames"), "{refused}");
    switch.ctl(&["port", "set", "a", "rewind=16MiB"]);
    assert_eq!(rewound(&switch, &["a"]), Vec::<String>::new(), "it starts over");
    switch.stop();
}
