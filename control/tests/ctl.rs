//! `labsw-ctl` as a user meets it: the real program against a server with a made-up switch behind it. Tables, JSON,
//! errors and exit statuses, word for word.

#![allow(clippy::unwrap_used, reason = "a test's helpers may assert the plain way, as tests do")]

use labsw_control::api::*;
use labsw_control::model::InjectSource;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

#[path = "ctl/captures.rs"]
mod captures;
#[path = "ctl/completion.rs"]
mod completion;
#[path = "ctl/forms.rs"]
mod forms;
#[path = "ctl/saved.rs"]
mod saved;
#[path = "ctl/switch.rs"]
mod switch;
#[path = "ctl/waiting.rs"]
mod waiting;

use switch::*;
#[test]
fn tables_are_for_people() {
    let switch = Switch::start();
    let cases: [(&[&str], &str); 15] = [
        (&["status"], include_str!("ctl/status.txt")),
        (&["worker", "list"], include_str!("ctl/worker-list.txt")),
        (&["port", "list"], include_str!("ctl/port-list.txt")),
        (&["port", "show", "uplink"], include_str!("ctl/port-show-af-xdp.txt")),
        (&["port", "show", "dc01"], include_str!("ctl/port-show-vhost-user.txt")),
        (&["vlan", "list"], include_str!("ctl/vlan-list.txt")),
        (&["mcast", "list"], include_str!("ctl/mcast-list.txt")),
        (&["mcast", "list", "--vlan", "9"], "no groups\n\nno routers\n"),
        (&["fdb", "list"], include_str!("ctl/fdb-list.txt")),
        (&["mirror", "list"], include_str!("ctl/mirror-list.txt")),
        (&["mirror", "show", "detect"], include_str!("ctl/mirror-show.txt")),
        (&["impair", "list"], include_str!("ctl/impair-list.txt")),
        (&["stats"], include_str!("ctl/stats.txt")),
        (&["capture", "--list"], include_str!("ctl/capture-list.txt")),
        (&["fdb", "list", "--vlan", "99"], "no entries\n"),
    ];
    for (arguments, golden) in cases {
        // A new switch for each would only be slower: the first reading of the counters is the only one here.
        let got = switch.ok(arguments);
        assert_eq!(got, golden, "{arguments:?} prints:\n{got}");
        let narrow = switch.command(arguments).env("COLUMNS", "80").output().unwrap();
        let narrow = text(&narrow.stdout);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{arguments:?} is too wide:\n{narrow}");
    }
    let narrow = switch.command(&["status"]).env("COLUMNS", "80").output().unwrap();
    assert_eq!(text(&narrow.stdout), include_str!("ctl/status-80.txt"), "prints:\n{}", text(&narrow.stdout));
    let wide = switch.command(&["status", "--wide"]).env("COLUMNS", "80").output().unwrap();
    assert_eq!(text(&wide.stdout), include_str!("ctl/status.txt"));
}

#[test]
fn json_is_the_bare_list_or_object() {
    let switch = Switch::start();
    assert_eq!(switch.json(&["port", "list"]), json!(ports()));
    assert_eq!(switch.json(&["port", "show", "dc01"]), json!(ports()[1]));
    assert_eq!(switch.json(&["mirror", "list"]), json!([mirror()]));
    assert_eq!(switch.json(&["mirror", "show", "detect"]), json!(mirror()));
    assert_eq!(switch.json(&["mcast", "list"])["routers"][0]["querier"], json!("10.0.0.1"));
    assert_eq!(switch.json(&["fdb", "flush"]), json!({"removed": 3}));
    assert_eq!(switch.json(&["fdb", "list", "--vlan", "99"]), json!([]));
    assert_eq!(switch.json(&["mirror", "del", "detect"]), json!({}));
    let entry = json!({"vlan": 20, "mac": "52:54:00:00:00:01", "port": "dc01", "static": false, "age_seconds": 12});
    assert_eq!(switch.json(&["fdb", "list"])[0], entry);
    let members = json!([{"port": "dc01", "tagged": false}, {"port": "uplink", "tagged": true}]);
    assert_eq!(switch.json(&["vlan", "list"]), json!([{"vlan": 20, "ports": members}]));
    let stats = switch.json(&["stats", "uplink"]);
    assert_eq!((&stats[0]["name"], &stats[0]["drops"]["vlan_not_member"]), (&json!("uplink"), &json!(7)));

    let guest = ["guest", "dc01", "--for", "qemu", "--memory", "64M"];
    let snippet = switch.json(&guest);
    assert_eq!(snippet, json!({"for": "qemu", "port": "dc01", "text": switch.ok(&guest)}));
    assert!(snippet["text"].as_str().unwrap().contains("-m 64M"), "{snippet}");

    let status = switch.json(&["status"]);
    assert_eq!(status["uptime_seconds"], 3725);
    assert_eq!(status["workers"], switch.json(&["worker", "list"]));
    let queues = json!([
        {"port": "dc01", "queue": 0, "pinned": false},
        {"port": "uplink", "queue": 3, "pinned": true},
    ]);
    let load = json!({"busy_percent": 12.34, "frames_per_burst": 31.25, "asleep": false, "asleep_percent": 0.0});
    let mut worker = json!({"id": 0, "cpu": 1, "queues": queues});
    worker.as_object_mut().unwrap().extend(load.as_object().unwrap().clone());
    assert_eq!(status["workers"][0], worker);
    let uplink = &status["ports"][0];
    assert_eq!(uplink["vlan"], json!({"mode": "native-untagged", "tag": 10, "trunks": [10, "20-29"]}));
    assert_eq!((&uplink["type"], &uplink["state"], &uplink["reason"]), (&json!("af_xdp"), &json!("up"), &Value::Null));
    assert_eq!(uplink.get("socket"), None, "what does not apply is left out");
}

fn mirror_named(name: &str) -> MirrorSettings {
    MirrorSettings { name: name.into(), ..MirrorSettings::default() }
}

fn sources(texts: &[&str]) -> Option<Vec<Source>> {
    Some(texts.iter().map(|text| text.parse().unwrap()).collect())
}

#[test]
fn mirrors_are_asked_for_as_typed() {
    let switch = Switch::start();
    for (line, change) in [
        (
            "mirror set detect --source dc01 --source web:rx --vlan 20 --filter arp --snaplen 96 --to span",
            Change::SetMirror(MirrorSettings {
                sources: sources(&["dc01:both", "web:rx"]),
                vlans: Some(vec![20]),
                filter: Some("arp".into()),
                snaplen: Some(96),
                to: Some("span".into()),
                ..mirror_named("detect")
            }),
        ),
        (
            "mirror set detect --all-vlans",
            Change::SetMirror(MirrorSettings { vlans: Some(vec![]), ..mirror_named("detect") }),
        ),
        (
            "mirror replace detect --source dc01 --to span",
            Change::SetMirror(MirrorSettings {
                sources: sources(&["dc01:both"]),
                to: Some("span".into()),
                replace: true,
                ..mirror_named("detect")
            }),
        ),
        (
            "mirror set detect --inject-as web --inject-rate 1kpps --inject-source 52-54-00-12-34-56",
            Change::SetMirror(MirrorSettings {
                inject: Some(labsw_control::api::Inject {
                    vlan: None,
                    as_port: Some("web".into()),
                    rate: Some("1kpps".parse().unwrap()),
                    sources: vec![InjectSource("52:54:00:12:34:56".parse().unwrap())],
                }),
                ..mirror_named("detect")
            }),
        ),
        (
            "mirror set far --source dc01 --to-vlan 900 --force",
            Change::SetMirror(MirrorSettings {
                sources: sources(&["dc01:both"]),
                to_vlan: Some(900),
                force: Some(true),
                ..mirror_named("far")
            }),
        ),
        ("mirror del detect", Change::DeleteMirror { name: "detect".into() }),
    ] {
        assert_eq!(switch.change(&line.split(' ').collect::<Vec<&str>>()), change, "{line}");
    }
}

#[test]
fn changes_are_asked_for_as_typed() {
    let switch = Switch::start();
    let mac = "52:54:00:12:34:56".parse().unwrap();
    let settings: Map<String, Value> =
        [("vlan.mode".to_owned(), json!("access")), ("vlan.tag".to_owned(), json!(20))].into_iter().collect();
    let name = || "web".to_owned();
    let port = || "dc01".to_owned();
    for (line, change) in [
        (
            "port add web --type veth --set vlan.mode=access --set vlan.tag=20",
            Change::AddPort { name: name(), port_type: PortType::Veth, settings: settings.clone() },
        ),
        (
            "port set web vlan.mode=access vlan.tag=20",
            Change::SetPort { name: name(), settings: settings.clone(), replace: false },
        ),
        ("port replace web vlan.mode=access vlan.tag=20", Change::SetPort { name: name(), settings, replace: true }),
        ("port del web", Change::DeletePort { name: name() }),
        ("worker pin dc01 1 2", Change::PinQueue { port: port(), queue: 1, worker: 2 }),
        ("port up web", Change::SetPortState { name: name(), up: true }),
        ("port down web", Change::SetPortState { name: name(), up: false }),
        ("fdb add 52:54:00:12:34:56 --vlan 20 --port dc01", Change::AddFdb { vlan: 20, mac, port: port() }),
        ("fdb del 52-54-00-12-34-56 --vlan 20", Change::DeleteFdb { vlan: 20, mac }),
        ("fdb flush --vlan 20 --port dc01", Change::FlushFdb { vlan: Some(20), port: Some(port()) }),
    ] {
        assert_eq!(switch.change(&line.split(' ').collect::<Vec<&str>>()), change, "{line}");
    }
    switch.take_changes();
    let names = ["web", "db"].map(str::to_owned);
    switch.ok(&["port", "down", "web", "db"]);
    assert_eq!(switch.take_changes(), names.map(|name| Change::SetPortState { name, up: false }));
    switch.ok(&["port", "rm", "web"]);
    switch.ok(&["mirror", "del", "detect", "other"]);
    let [one, other] = ["detect", "other"].map(|name| Change::DeleteMirror { name: name.to_owned() });
    assert_eq!(switch.take_changes(), [Change::DeletePort { name: name() }, one, other]);
    assert_eq!(switch.ok(&["port", "up", "web"]), "", "a change that was made needs no words");
    assert_eq!(switch.ok(&["fdb", "flush"]), "3 entries removed\n");
}

#[test]
fn refusals_name_the_object_and_exit_with_1() {
    let switch = Switch::start();
    let cases: [(&[&str], &str); 5] = [
        (
            &["guest", "uplink", "--for", "lxc"],
            "labsw-ctl: port \"uplink\" is a network device, which lxc can't be plugged into; plug guests into vhost_user, tap \
             (for = \"guest\") and veth ports\n",
        ),
        (&["port", "show", "nope"], "labsw-ctl: port \"nope\" does not exist\n"),
        (&["mirror", "show", "nope"], "labsw-ctl: mirror \"nope\" does not exist\n"),
        (
            &["port", "add", "dc01", "--type", "tap"],
            "labsw-ctl: port \"dc01\": a port of this name exists; delete it first\n",
        ),
        (&["port", "set", "web", "mtu=9000"], "labsw-ctl: port \"web\": line break\n"),
    ];
    for (arguments, message) in cases {
        let output = switch.command(arguments).output().unwrap();
        assert_eq!(failure(output), (Some(1), message.to_owned()), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2_before_the_switch_is_asked() {
    let nowhere = Path::new("/nonexistent/labsw.sock");
    for line in [
        "",
        "port lst",
        "port up",
        "port list --if-exists",
        "port show",
        "port add web",
        "port add web --type bridge",
        "port add web --type veth --set tag",
        "port set web",
        "port set web =5",
        "mcast list --vlan 0",
        "fdb list --vlan 0",
        "fdb list --vlan 4095",
        "fdb list --vlan x",
        "fdb add 52:54:00:12:34 --vlan 20 --port dc01",
        "fdb add 01:00:5e:00:00:01 --vlan 20 --port dc01",
        "fdb add 52:54:00:12:34:56 --port dc01",
        "mirror set detect --vlan 20 --all-vlans",
        "mirror set far --source dc01 --to span --to-vlan 900",
        "mirror set far --source dc01 --to-vlan 4095",
        "mirror set far --source dc01 --to span --force",
        "mirror set detect --source dc01:up --to span",
        "mirror set detect --source dc01 --snaplen -1 --to span",
        "mirror set detect --source dc01 --vlan 4095 --to span",
        "stats --wach",
        "stats --interval 1s",
        "stats --watch --interval 10ms",
        "stats --watch --interval soon",
        "top --interval 0s",
        "top",
        "top --json",
        "trace",
        "trace --in dc01",
        "trace --frame 00",
        "trace --in dc01 --frame 0",
        "trace --in dc01 --frame 0g",
        "trace --in dc01 --src 02:00:00:00:00:01",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --vlan 4096",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --ethertype ipx",
        "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02 --bytes 59",
        "trace --in dc01 --frame 00 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02",
        "trace --in dc01 --frame 00 --vlan 20",
        "trace --in dc01 --frame 00 --ethertype arp",
        "guest dc01",
        "guest dc01 --for vmware",
        "guest dc01 --for qemu --memory 0G",
        "guest dc01 --for qemu --memory 512",
        "guest dc01 --for qemu --qemu-version new",
        "completions cmd",
    ] {
        let output = command(nowhere, &line.split_whitespace().collect::<Vec<&str>>()).output().unwrap();
        let (status, message) = failure(output);
        assert_eq!(status, Some(2), "{line}: {message}");
        assert!(!message.is_empty(), "{line}");
    }
}

#[test]
fn no_switch_exits_with_3_and_names_the_socket() {
    let output = command(Path::new("/nonexistent/a.sock"), &["status"]).output().unwrap();
    let (status, message) = failure(output);
    assert_eq!((status, message.lines().count()), (Some(3), 1), "{message}");
    assert!(message.starts_with("labsw-ctl: /nonexistent/a.sock: the switch can't be reached: "), "{message}");
    let output = command(Path::new("/nonexistent/a.sock"), &["--socket", "/nonexistent/b.sock", "status"]).output();
    let (status, message) = failure(output.unwrap());
    assert_eq!(status, Some(3));
    assert!(message.contains("/nonexistent/b.sock"), "--socket goes before the environment: {message}");
}

#[test]
fn watching_prints_rates_until_the_reader_goes() {
    let switch = Switch::start();
    let mut child =
        switch.command(&["stats", "--watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let golden = include_str!("ctl/stats-watch.txt");
    let mut first = vec![0; golden.len()];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(text(&first), golden);
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn watching_as_json_has_one_document_a_line_and_ends_quietly_when_interrupted() {
    let switch = Switch::start();
    let mut child = switch
        .command(&["stats", "uplink", "--watch", "--interval", "100ms", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let (first, second) = (next(), next());
    assert_eq!(
        (&first[0]["name"], &first[0]["rx_frames"], &first[0]["rates"]),
        (&json!("uplink"), &json!(1000), &Value::Null)
    );
    assert_eq!(second[0]["rx_frames"], 2000);
    let rates = json!({
        "rx_frames_per_second": 2000.0,
        "rx_bits_per_second": 0.0,
        "tx_frames_per_second": 0.0,
        "tx_bits_per_second": 0.0,
        "dropped_per_second": 0.0,
        "main_drop_reason": null,
    });
    assert_eq!(second[0]["rates"], rates);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn traces_are_numbered_lines_and_frames_are_made_up_as_asked() {
    let switch = Switch::start();
    let hexadecimal = ["trace", "--in", "dc01", "--frame", "02:00 ab-cd"];
    let shown = " 1   port       0200abcd\n \
                 2 ✗ vlan       dropped at dc01: vlan_not_member: VLAN 30 is not a member\n               → another VLAN\n\n\
                 ✗ dropped at dc01 (vlan_not_member)\n";
    assert_eq!(switch.ok(&hexadecimal), shown);
    let trace = switch.json(&hexadecimal);
    let dropped = json!({
        "stage": "vlan", "outcome": "drop", "port": "dc01", "vlan": 30, "reason": "vlan_not_member",
        "text": "dropped at dc01: vlan_not_member: VLAN 30\nis not a member", "hint": "another VLAN",
    });
    assert_eq!((&trace["verdict"], &trace["steps"][1]), (&json!("dropped"), &dropped));
    for (arguments, header, bytes) in [
        ("", "0200000000020200000000 0188b5", 60),
        ("--ethertype arp", "0200000000020200000000010806", 60),
        ("--ethertype 0x86DD --vlan 20", "02000000000202000000000181000014 86dd", 60),
        ("--vlan 0 --bytes 1600", "0200000000020200000000018100 0000 88b5", 1600),
    ] {
        let addresses = "trace --in dc01 --src 02:00:00:00:00:01 --dst 02:00:00:00:00:02";
        let line = format!("{addresses} {arguments}");
        let trace = switch.json(&line.split_whitespace().collect::<Vec<&str>>());
        let frame = trace["steps"][0]["text"].as_str().unwrap();
        assert_eq!(frame.len(), 2 * bytes, "{arguments}");
        assert_eq!(frame.trim_end_matches('0'), header.replace(' ', ""), "{arguments}");
    }
}

#[test]
fn another_user_may_change_only_as_a_member_of_the_admin_group() {
    if rustix::process::geteuid().as_raw() != 0 {
        let required = std::env::var_os("LABSW_TEST_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "this test needs root, to become another user");
        println!("skipped: it needs root, to become another user");
        return;
    }
    let switch = Switch::start_with(0o666, Some(4242));
    // The other user may not be able to reach the build directory. Copied by another process: if this one had the file
    // open for writing while another test forks, running it would fail (ETXTBSY).
    let program = switch.socket.with_extension("program");
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_labsw-ctl")).arg(&program).status().unwrap();
    assert!(copied.success());
    let run = |groups: &str, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--groups", groups]).arg(&program).args(arguments);
        command.env("LABSW_SOCKET", &switch.socket).current_dir("/").output().unwrap()
    };
    let many_groups = (5000..5200).map(|group| group.to_string()).collect::<Vec<String>>().join(",");
    let down = ["port", "down", "dc01"];
    let read = run("65534", &["port", "list"]);
    let stranger = run(&many_groups, &down);
    let asked = switch.changes.lock().unwrap().len();
    let member = run(&format!("{many_groups},4242"), &down);
    std::fs::remove_file(&program).unwrap();
    assert_eq!((read.status.code(), text(&read.stderr)), (Some(0), String::new()));
    let message = "labsw-ctl: permission denied: changes need root or membership in the group with id 4242\n";
    assert_eq!(failure(stranger), (Some(1), message.to_owned()));
    assert_eq!(asked, 0, "the handler never saw it");
    assert_eq!((member.status.code(), text(&member.stderr)), (Some(0), String::new()));
}

/// A page for each command that `--help` lists, and for the daemon.
#[test]
fn manual_pages_need_no_switch_and_leave_no_command_out() {
    let directory = std::env::temp_dir().join(format!("labsw-ctl-man-{}", std::process::id()));
    let nowhere = Path::new("/nonexistent/a.sock");
    let output = command(nowhere, &["man", &directory.display().to_string()]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let listed = |arguments: &[&str]| {
        let help = text(&command(nowhere, &[arguments, &["--help"]].concat()).output().unwrap().stdout);
        let commands = help.split("Commands:\n").nth(1).map(|rest| rest.split("\n\n").next().unwrap().to_owned());
        let names = commands.unwrap_or_default();
        let names = names.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let nouns = listed(&[]);
    assert!(nouns.len() > 20, "{nouns:?}");
    for noun in nouns.iter().filter(|noun| *noun != "help") {
        assert!(page(&format!("labsw-ctl-{noun}.1")).contains(".SH SYNOPSIS"));
        for verb in listed(&[noun]).iter().filter(|verb| *verb != "help") {
            assert!(page(&format!("labsw-ctl-{noun}-{verb}.1")).contains(&format!(".TH labsw-ctl-{noun}-{verb} 1")));
        }
    }
    assert!(page("labsw-ctl.1").contains("Exit status"));
    assert!(page("labswd.8").contains(".TH labswd 8") && page("labswd.8").contains("SIGHUP"));
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(failure(command(nowhere, &["man"]).output().unwrap()).0, Some(2));
}

#[test]
fn the_schema_of_the_file_needs_no_switch() {
    let output = command(Path::new("/nonexistent/a.sock"), &["config", "schema"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), labsw_control::config::Config::schema());
}

#[test]
fn configurations_are_read_here_and_sent_as_text() {
    let switch = Switch::start();
    let file = std::env::temp_dir().join(format!("labsw-ctl-{}.toml", std::process::id()));
    let path = file.display().to_string();
    std::fs::write(&file, "[switch]\n").unwrap();
    let differs = switch.command(&["config", "diff", &path, "--exit-code"]).output().unwrap();
    assert_eq!(differs.status.code(), Some(1));
    assert!(text(&differs.stdout).contains("port db"), "{}", text(&differs.stdout));
    let lines = "~ port web: mtu 1500 -> 9000 (changed at run time)\n+ port db\n- mirror detect\n";
    assert_eq!(switch.ok(&["config", "show"]), "[switch]\npower = \"adaptive\"\n");
    assert_eq!(switch.json(&["config", "show"]), json!({"switch": {"power": "adaptive"}}));
    assert_eq!(switch.ok(&["config", "check", &path]), format!("{path}: something\n"));
    assert_eq!(switch.json(&["config", "check", &path]), json!({"awaited": [format!("{path}: something")]}));
    assert_eq!(switch.ok(&["config", "diff", &path]), lines);
    assert_eq!(switch.ok(&["config", "diff", "--keep-runtime", &path]), "no difference\n");
    assert_eq!(switch.json(&["config", "diff", &path])["changes"][0]["settings"][0]["wanted"], "9000");
    assert_eq!(switch.ok(&["config", "apply", &path]), lines);
    let config = ConfigText { file: path.clone(), text: "[switch]\n".into() };
    let applied = switch.changes.lock().unwrap().pop();
    let apply = |keep_runtime, confirm_milliseconds| {
        let wanted = WantedConfig { config: config.clone(), keep_runtime };
        Change::ApplyConfig(AppliedConfig { wanted, confirm_milliseconds })
    };
    assert_eq!(applied, Some(apply(false, None)));
    assert_eq!(switch.change(&["config", "apply", "--keep-runtime", &path]), apply(true, None));
    assert_eq!(switch.change(&["config", "apply", &path, "--confirm", "30s"]), apply(false, Some(30_000)));
    assert_eq!(switch.change(&["config", "confirm"]), Change::ConfirmConfig);
    assert_eq!(switch.change(&["config", "revert"]), Change::RevertConfig);

    // Without a switch the file alone is checked.
    let nowhere = Path::new("/nonexistent/labsw.sock");
    let output = command(nowhere, &["config", "check", &path]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    assert!(text(&output.stderr).ends_with("only the file itself was checked\n"), "{output:?}");
    assert_eq!(failure(command(nowhere, &["config", "diff", &path]).output().unwrap()).0, Some(3));
    std::fs::write(&file, "[swich]\n").unwrap();
    let line = format!("labsw-ctl: {path}:1:2: swich: unknown key; did you mean `switch`?\n");
    assert_eq!(failure(command(nowhere, &["config", "check", &path]).output().unwrap()), (Some(1), line));
    std::fs::remove_file(&file).unwrap();
    let line = format!("labsw-ctl: {path}: cannot be read: No such file or directory (os error 2)\n");
    assert_eq!(failure(switch.command(&["config", "apply", &path]).output().unwrap()), (Some(1), line));
    assert_eq!(switch.command(&["config", "apply"]).output().unwrap().status.code(), Some(2));
}
