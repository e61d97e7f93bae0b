//! Impairments in the file, at run time and in `config diff`: each direction has its own, and nonsense is refused.

use std::time::{Duration, Instant};

use labsw_tests::packet::Frame;
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, check_config};
use labsw_tests::veth_lab::Lab;
use serde_json::Value;

use super::{A, B, PATIENCE, PORTS, QUIET, start};

#[test]
fn the_configuration_impairs_from_the_start() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imc");
    let config = "[profiles.far]\ndelay = '300ms'\nloss = '2%'\n\
        [impair.b]\nprofile = 'far'\nloss = '0%'\nseed = 5\ndirection = 'tx'\n[impair.c]\nprofile = 'lossy'";
    let (switch, a, b) = start(&lab, "", config);
    let list = switch.ctl(&["impair", "list"]);
    let shown = |shown: &Value| {
        ["port", "direction", "profile", "delay", "jitter", "loss"]
            .map(|key| shown[key].as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    let all: Vec<String> = list.as_array().unwrap().iter().map(shown).collect();
    assert_eq!(all, ["b tx far 300ms - 0%", "c rx lossy 20ms 10ms 5%", "c tx lossy 20ms 10ms 5%"]);
    assert_eq!(list[0]["seed"].as_u64(), Some(5));
    a.send(&Frame::new(B, A).build());
    let sent = Instant::now();
    assert!(b.recv(PATIENCE).is_some());
    assert!(sent.elapsed() >= Duration::from_millis(295), "{:?}", sent.elapsed());
    // A profile of the file can be used at run time, too.
    switch.ctl(&["impair", "set", "a", "--profile", "far"]);
    let list = switch.ctl(&["impair", "list"]);
    assert_eq!([0, 1].map(|at| shown(&list[at])), ["a rx far 300ms - 2%", "a tx far 300ms - 2%"]);
    switch.stop();
}

/// Port and direction of each impairment.
fn directions(switch: &Labswd<'_>) -> Vec<String> {
    let list = switch.ctl(&["impair", "list"]);
    let shown = |shown: &Value| format!("{} {}", shown["port"].as_str().unwrap(), shown["direction"].as_str().unwrap());
    list.as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn each_direction_has_its_own_counts_what_it_does_and_outlives_the_device() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imw");
    let (switch, a, b) = start(&lab, "", "");
    switch.ctl(&["impair", "set", "b", "--direction", "rx", "--loss", "100%"]);
    switch.ctl(&["impair", "set", "b", "--direction", "tx", "--delay", "100ms", "--duplicate", "100%", "--seed", "1"]);
    assert_eq!(directions(&switch), ["b rx", "b tx"]);
    let sent = Instant::now();
    a.send(&Frame::new(B, A).number(7).build());
    b.send(&Frame::new(A, B).build());
    for copy in 0..2 {
        assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some(), "copy {copy}");
    }
    assert!(sent.elapsed() >= Duration::from_millis(100), "{:?}", sent.elapsed());
    assert!(a.recv_matching(QUIET, |frame| frame[..6] == A).is_none(), "it was lost on its way from b");
    let list = switch.ctl(&["impair", "list"]);
    let counts =
        |at: usize| ["frames", "lost", "delayed", "duplicated", "corrupted"].map(|key| list[at][key].as_u64().unwrap());
    assert_eq!((counts(0), counts(1)), ([1, 1, 0, 0, 0], [1, 0, 1, 1, 0]));
    let metrics = switch.ctl(&["metrics"]).to_string();
    assert!(metrics.contains("labsw_impair_frames_total"), "{metrics}");

    // Attached anew, and made anew.
    switch.ctl(&["port", "set", "b", "queues=2"]);
    lab.site.ns.ip(&["link", "del", "lsw-b"]);
    wait_for("the new pair", PATIENCE, || lab.peers.link_names().contains(&"b".to_owned()).then_some(()));
    switch.wait_port_up("b");
    let b = lab.socket("b");
    assert_eq!(directions(&switch), ["b rx", "b tx"]);
    let sent = Instant::now();
    a.send(&Frame::new(B, A).number(8).build());
    b.send(&Frame::new(A, B).build());
    assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some());
    assert!(sent.elapsed() >= Duration::from_millis(100), "{:?}", sent.elapsed());
    assert!(a.recv_matching(QUIET, |frame| frame[..6] == A).is_none());

    switch.ctl(&["impair", "clear", "b", "--direction", "rx"]);
    assert_eq!(directions(&switch), ["b tx"]);
    b.send(&Frame::new(A, B).build());
    assert!(a.recv_matching(PATIENCE, |frame| frame[..6] == A).is_some());
    let refused = switch.ctl_refused(&["impair", "clear", "b", "--direction", "rx"]);
    assert!(refused.contains("impairment of port \"b\" does not exist"), "{refused}");
    // It goes with the port.
    switch.ctl(&["port", "del", "b"]);
    assert_eq!(directions(&switch), [""; 0]);
    switch.stop();
}

/// What `config diff` or `config apply` says of a file: a line each change, with a mark if it is drift.
fn changes(switch: &Labswd<'_>, verb: &str, options: &[&str], file: &str) -> Vec<String> {
    let answer = switch.ctl(&[&["config", verb], options, &[file]].concat());
    let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let line = |change: &Value| {
        let drift = if change["drift"] == true { "!" } else { "" };
        format!("{} {} {}{drift}", text(change, "action"), text(change, "kind"), text(change, "name"))
    };
    answer["changes"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn impairments_are_part_of_the_configuration() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imf");
    let far = "[profiles.far]\ndelay = \"100ms\"\n[impair.b]\nprofile = \"far\"\nseed = 5\ndirection = \"tx\"\n";
    let (switch, a, b) = start(&lab, "", far);
    let write = |text: &str| lab.site.write_config(&(lab.ports(&PORTS) + text)).to_string_lossy().into_owned();
    let changes = |verb: &str, options: &[&str], file: &str| changes(&switch, verb, options, file);
    let none = [""; 0];
    let file = write(far);
    assert_eq!(changes("diff", &[], &file), none);
    let shown = switch.ctl(&["config", "show"]);
    assert_eq!((&shown["profiles"]["far"]["delay"], &shown["impair"]["b"]["seed"]), (&"100ms".into(), &5.into()));

    // Set by hand: drift, kept or undone.
    switch.ctl(&["impair", "set", "b", "--direction", "rx", "--loss", "100%"]);
    switch.ctl(&["impair", "set", "c", "--profile", "far"]);
    assert_eq!(changes("diff", &[], &file), ["change impairment b!", "remove impairment c!"]);
    assert_eq!(changes("diff", &["--keep-runtime"], &file), none);
    // Frames to b are under way while a change of the other direction is applied: they arrive, once, by the same
    // schedule.
    a.send(&Frame::new(B, A).number(1).build());
    assert_eq!(changes("apply", &[], &file), ["change impairment b!", "remove impairment c!"]);
    assert!(b.recv_matching(PATIENCE, |frame| frame[..6] == B).is_some());
    assert_eq!(switch.ctl(&["impair", "list"])[0]["frames"], 1, "tx of b goes on");
    assert_eq!(switch.drops("b", "impair_cleared"), 0);

    // A profile changes: so does what begins with it.
    let nearer = write(&far.replace("100ms", "1ms"));
    assert_eq!(changes("apply", &[], &nearer), ["change profile far"]);
    assert_eq!(switch.ctl(&["impair", "list"])[0]["delay"], "1ms");
    // A step that fails leaves all of it.
    let taken = lab.site.dir().join("taken.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&taken).unwrap();
    let failing =
        write(&format!("[impair.d]\nloss = '1%'\n[ports.z]\ntype = 'vhost_user'\nsocket = '{}'\n", taken.display()));
    let line = switch.ctl_refused(&["config", "apply", &failing]);
    assert!(line.contains("nothing was changed"), "{line}");
    let nearer = write(&far.replace("100ms", "1ms"));
    assert_eq!((directions(&switch), changes("diff", &[], &nearer)), (vec!["b tx".to_owned()], Vec::new()));
    // Bad tables: one line with the place, nothing changed.
    for (text, expected) in [
        ("[impair.bb]\nloss = '1%'\n", "impair.bb: there is no port \"bb\""),
        ("[impair.b]\nprofile = 'fra'\n", "impair.b.profile: there is no profile \"fra\""),
        ("[impair.b.rx]\nloss = '1%'\n[impair.b.tx]\njitter = '1ms'\n", "impair.b.tx.jitter: jitter is larger"),
    ] {
        let line = switch.ctl_refused(&["config", "check", &write(text)]);
        assert!(
            line.contains(expected) && line.contains("lab.toml:") && line.trim_end().lines().count() == 1,
            "{line}"
        );
    }
    a_port_of_another_name_loses_its_impairment(&lab, &switch);
    switch.stop();
}

/// A port of another name: what is written for the old one goes with it.
fn a_port_of_another_name_loses_its_impairment(lab: &Lab, switch: &Labswd<'_>) {
    let renamed = lab.ports(&[("a", ""), ("e", ""), ("c", ""), ("d", "")]) + "[impair.e]\nloss = '1%'\n";
    let file = lab.site.write_config(&renamed).to_string_lossy().into_owned();
    let expected = ["remove port b", "add port e", "remove profile far", "remove impairment b", "add impairment e"];
    let mut seen = changes(switch, "apply", &[], &file);
    seen.sort();
    let mut expected = expected.map(str::to_owned);
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(directions(switch), ["e rx", "e tx"]);
    assert_eq!(changes(switch, "diff", &[], &file), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused_in_one_line_and_changes_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("imb");
    let (switch, _a, _b) = start(&lab, "", "");
    switch.ctl(&["impair", "set", "a", "--profile", "constrained", "--seed", "3"]);
    let before = switch.ctl(&["impair", "list"]);
    let cases: [(&[&str], &str); 13] = [
        (&["set", "a", "--loss", "1%", "--filter", "tcp prot 445"], "filter: \"tcp prot 445\": "),
        (&["replace", "a", "--loss", "1%", "--filter", "host example.org"], "filter: "),
        (&["replace", "a", "--filter", "arp"], "sets nothing"),
        (&["replace", "a", "--delay", "1h"], "delay: delay and jitter together are longer than the 10 s"),
        (&["replace", "a", "--delay", "5ms", "--jitter", "6ms"], "jitter: jitter is larger than delay"),
        (&["replace", "a", "--reorder", "5%"], "reorder: reorder needs a delay"),
        (&["replace", "a", "--rate", "1bit"], "rate: rate is not between 8 kbit and 100 gbit"),
        (
            &["replace", "a", "--loss", "1%", "--gemodel", "1% 2%"],
            "gemodel: says which frames are lost, and so does `loss`",
        ),
        (&["replace", "a", "--delay", "1ms", "--queue-frames", "5"], "queue_frames: is the queue of a rate"),
        (&["replace", "a", "--profile", "losy"], "profile: there is no profile \"losy\"; did you mean \"lossy\"?"),
        (&["replace", "a", "--seed", "4"], "sets nothing"),
        (&["set", "x", "--delay", "1ms"], "port \"x\" does not exist"),
        (&["clear", "b"], "impairment of port \"b\" does not exist"),
    ];
    for (arguments, expected) in cases {
        let line = switch.ctl_refused(&[&["impair"], arguments].concat());
        assert!(line.contains(expected), "{arguments:?}: {line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    }
    // What is no share at all never reaches the switch: wrong usage.
    for wrong in ["101%", "-1%", "5"] {
        let (code, _, err) = switch.ctl_output(&["impair", "set", "a", &format!("--loss={wrong}")]);
        assert!(code == 2 && err.contains(&format!("{wrong:?} is not a share")), "{code}: {err}");
    }
    assert_eq!(switch.ctl(&["impair", "list"]), before);
    let file = lab.site.dir().join("bad.toml");
    let [port, bad] = ["[ports.a]\ntype = 'vhost_user'\n", "[impair.a]\ndelay = '1ms'\njitter = '2ms'\n"];
    std::fs::write(&file, format!("{port}{bad}")).unwrap();
    let (status, line) = check_config(&file);
    assert!(
        status == Some(1) && line.contains("bad.toml:5:10: impair.a.jitter: jitter is larger"),
        "{status:?} {line}"
    );
    switch.stop();
}
