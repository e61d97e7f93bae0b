//! The forms of input and output: short forms, colours, JSON errors, marks of an impaired port, timelines and scores.

use labsw_control::model::OnFailure;

use super::*;

#[test]
fn colours_come_where_they_are_wanted() {
    let switch = Switch::start();
    let coloured = |variables: &[(&str, &str)]| {
        let output = switch.command(&["port", "list"]).envs(variables.iter().copied()).output().unwrap();
        output.stdout.contains(&0x1b)
    };
    assert!(!coloured(&[]), "a pipe");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let switch = Switch::start();
    let error = |line: &str| {
        let output = switch.command(&line.split(' ').collect::<Vec<_>>()).output().unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        (output.status.code().unwrap(), error)
    };
    let (status, refused) = error("port del gone --json");
    assert_eq!((status, &refused["error"]), (1, &json!("org.labsw.Switch1.NotFound")), "{refused}");
    assert_eq!(refused["parameters"], json!({"kind": "port", "name": "gone"}));
    assert_eq!(refused["message"], "port \"gone\" does not exist");
    let (status, usage) = error("fdb list --vlan 5000 -j");
    assert_eq!((status, &usage["error"]), (2, &json!("usage")), "{usage}");
    let (status, unreachable) = error("--socket /nonexistent/socket status -j");
    assert_eq!((status, &unreachable["error"]), (3, &json!("unreachable")), "{unreachable}");

    let file = std::env::temp_dir().join(format!("labsw-ctl-mistakes-{}.toml", std::process::id()));
    std::fs::write(&file, "[switch]\npowr = 1\n").unwrap();
    let (status, mistakes) = error(&format!("config check {} -j", file.display()));
    assert_eq!((status, &mistakes["error"]), (1, &json!("mistakes")), "{mistakes}");
    let mistake = &mistakes["mistakes"][0];
    assert_eq!((&mistake["line"], &mistake["key"]), (&json!(2), &json!("switch.powr")), "{mistake}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_noun_alone_lists_and_short_forms_are_understood() {
    let switch = Switch::start();
    for noun in ["port", "vlan", "fdb", "mcast", "mirror", "impair", "worker"] {
        let list = switch.ok(&[noun, "list"]);
        assert_eq!((switch.ok(&[noun]), switch.ok(&[noun, "ls"])), (list.clone(), list), "{noun}");
    }
    assert_eq!(switch.ok(&["port", "-j"]), switch.ok(&["port", "list", "--json"]));
    assert!(switch.ok(&["help", "port"]).contains("Usage: labsw-ctl port [OPTIONS] [COMMAND]"));
    let missing = ["port", "del", "gone"];
    assert_eq!(failure(switch.command(&missing).output().unwrap()).0, Some(1));
    assert_eq!(switch.ok(&[&missing[..], &["--if-exists"]].concat()), "");
    assert_eq!(switch.json(&[&missing[..], &["--if-exists"]].concat()), json!({}));
}

#[test]
fn an_impaired_port_looks_like_one_everywhere() {
    let switch = Switch::start();
    let row = |text: String| text.lines().find(|line| line.starts_with("lossy")).unwrap().to_owned();
    for list in [&["port"][..], &["status"]] {
        let row = row(switch.ok(list));
        assert!(
            row.ends_with("3          0          0        0  IMPAIRED rx, tx; no guest is connected; mirrors: detect"),
            "{row}"
        );
    }
    let shown = switch.ok(&["port", "show", "lossy"]);
    let value = |name: &str| shown.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let values = ["impaired", "mirrors", "workers", "stations", "rewind"].map(|name| value(name).unwrap());
    let rewind = "64 MiB, 1 MiB in use, back to 95 s ago, 2 frames missed";
    assert_eq!(values, ["rx, tx", "detect", "0", "3", rewind], "{shown}");
}

/// Two injections and an impairment under labels, and the alert that a sensor has for one of them.
#[test]
fn labels_make_a_timeline_and_a_score() {
    let switch = Switch::start();
    let directory = std::env::temp_dir().join(format!("labsw-ctl-score-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name).display().to_string();
    let (timeline, eve) = (file("timeline.json"), file("eve.json"));
    let label = ["--label", "lossy", "--timeline", &timeline];
    switch.ok(&[&["impair", "set", "web", "--loss", "5%"][..], &label, &["--expect", "STREAM"]].concat());
    switch.ok(&["impair", "clear", "web", "--timeline", &timeline]);
    switch.ok(&["impair", "set", "dc01", "--loss", "5%"]);
    let lines: Vec<Value> =
        std::fs::read_to_string(&timeline).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (start, end) = (&lines[0], &lines[1]);
    assert_eq!(
        (&start["label"], &start["kind"], &start["port"]),
        (&json!("lossy"), &json!("impairment"), &json!("web"))
    );
    assert_eq!((&end["kind"], &end["port"], end.get("start")), (&json!("impairment"), &json!("web"), None));

    let alert = json!({"event_type": "alert", "timestamp": start["start"], "alert": {"signature": "STREAM gap"}});
    std::fs::write(&eve, format!("{alert}\n")).unwrap();
    let score = switch.json(&["score", &timeline, &eve]);
    assert_eq!((&score["hits"], &score["misses"], &score["beside"]), (&json!(1), &json!(0), &json!(0)), "{score}");
    assert_eq!(score["labels"][0]["seconds"], json!(0.0));
    let table = switch.ok(&["score", &timeline, &eve]);
    assert!(
        table.starts_with(
            "LABEL  KIND        PORT  RESULT  SECONDS  ALERTS  FIRST ALERT\nlossy  impairment  web   hit "
        ),
        "{table}"
    );
    assert!(table.ends_with("\n1 of 1 detected, median 0.000 s; alerts beside the labels: 0\n"), "{table}");

    std::fs::write(&eve, "nonsense\n").unwrap();
    let (status, error) = failure(switch.command(&["score", &timeline, &eve]).output().unwrap());
    assert!(status == Some(1) && error.contains("eve.json: line 1: "), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A capture with a frame in the time of a label, and one before it.
#[test]
fn labels_are_written_into_a_capture() {
    let switch = Switch::start();
    let directory = std::env::temp_dir().join(format!("labsw-ctl-labels-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name).display().to_string();
    let timeline = file("timeline.json");
    let label = ["--label", "lossy", "--timeline", &timeline];
    switch.ok(&[&["impair", "set", "web", "--loss", "5%"][..], &label].concat());
    let line: Value = serde_json::from_str(std::fs::read_to_string(&timeline).unwrap().trim()).unwrap();
    let start = labsw_control::score::time::Time::parse(line["start"].as_str().unwrap()).unwrap().as_nanoseconds();
    let mut capture = Vec::new();
    labsw_control::pcapng::section(&mut capture, "test");
    labsw_control::pcapng::interface(&mut capture, "web", "", 0, None);
    for time_ns in [start, start - 1] {
        let (time_ns, bytes, wire_bytes) = (time_ns.try_into().unwrap(), &[0; 60][..], 60);
        let bound = labsw_control::pcapng::Bound::Inbound;
        let packet = labsw_control::pcapng::Packet { interface: 0, time_ns, bound, wire_bytes, bytes, comment: "rx" };
        labsw_control::pcapng::packet(&mut capture, &packet);
    }
    let (from, to) = (file("a.pcapng"), file("b.pcapng"));
    std::fs::write(&from, &capture).unwrap();
    assert_eq!(switch.ok(&["label", &from, &timeline, "-w", &to]), "1 of 2 frames labelled\n");
    let labelled = std::fs::read(&to).unwrap();
    assert!(labelled.windows(11).any(|window| window == b"label lossy"));
    let itself = failure(switch.command(&["label", &from, &timeline, "-w", &from]).output().unwrap());
    assert_eq!(itself, (Some(1), format!("labsw-ctl: {from}: is the capture itself; write to another file\n")));
    assert_eq!(std::fs::read(&from).unwrap(), capture);
    let (status, error) = failure(switch.command(&["label", &timeline, &timeline, "-w", &to]).output().unwrap());
    assert!(status == Some(1) && error.contains("timeline.json: is no pcapng file"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn sensors_are_asked_for_as_typed() {
    let switch = Switch::start();
    for (line, change) in [
        (
            "inline set ips --of web --through ips-in,ips-out --on-failure closed",
            Change::SetInline(InlineSettings {
                name: "ips".into(),
                of: Some("web".into()),
                through: Some(vec!["ips-in".into(), "ips-out".into()]),
                on_failure: Some(OnFailure::Closed),
                replace: false,
            }),
        ),
        (
            "inline replace ips --on-failure open",
            Change::SetInline(InlineSettings {
                name: "ips".into(),
                on_failure: Some(OnFailure::Open),
                replace: true,
                ..InlineSettings::default()
            }),
        ),
        ("inline del ips", Change::DeleteInline { name: "ips".into() }),
    ] {
        assert_eq!(switch.change(&line.split(' ').collect::<Vec<&str>>()), change, "{line}");
    }
}
