//! Proves that a configuration is applied as a whole or not at all: a hundred applies while a numbered flow between two
//! ports that stay loses nothing; a step that fails undoes those before it; drift shows, and is kept if asked to;
//! SIGHUP applies the file; bad input changes nothing.
#![allow(clippy::expect_used, reason = "test helpers report by panicking")]

use std::fmt::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::Duration;

use labsw_tests::netns::{Netns, wire};
use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, check_config, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

/// `labsw-ctl config VERB FILE`, has to succeed.
fn config(switch: &Labswd<'_>, verb: &str, file: &Path) -> Value {
    switch.ctl(&["config", verb, &file.to_string_lossy()])
}

fn changes(answer: &Value) -> Vec<String> {
    let list = answer["changes"].as_array().cloned().unwrap_or_default();
    let line = |change: &Value| {
        let text = |key: &str| change[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("action"), text("kind"), text("name")).trim().to_owned()
    };
    list.iter().map(line).collect()
}

/// What a refused apply leaves: the same configuration, and nothing that differs from it.
fn assert_refused(switch: &Labswd<'_>, file: &Path, has: &[&str]) {
    let before = switch.ctl(&["config", "show"]);
    let line = switch.ctl_refused(&["config", "apply", &file.to_string_lossy()]);
    for part in has {
        assert!(line.contains(part), "{part:?} expected in: {line}");
    }
    assert_eq!(switch.ctl(&["config", "show"]), before, "after: {line}");
}

/// The `round`th of many configurations that all have ports a and b, as they are.
fn variation(lab: &Lab, round: usize) -> String {
    let has = |bit: usize| round >> bit & 1 == 1;
    let mut text = lab.ports(&[("a", ""), ("b", "")]);
    let trunk =
        format!("vlan = {{ mode = \"trunk\", trunks = [{}, \"{}-{}\"] }}", 2 + round % 9, 20 + round, 30 + round);
    let access = format!("vlan = {{ mode = \"access\", tag = {} }}\nmtu = {}", 1 + round % 3, 1500 + 100 * (round % 7));
    let span = if has(2) { "mirror_only = true" } else { "" };
    for (port, there, keys) in [
        ("p", has(0), trunk.as_str()),
        ("q", has(1), &access),
        ("span", true, span),
        ("r", round.is_multiple_of(3), "queues = 2"),
    ] {
        if there {
            text += &lab.ports(&[(port, keys)]);
        }
    }
    // Takes its far end's name from port r, or gives it back.
    if round % 3 == 1 {
        text += &lab.ports(&[("s", "")]).replace("x-s", "x-r").replace("\"s\"", "\"r\"");
    }
    if has(3) {
        text += "[ports.vm]\ntype = \"vhost_user\"\n";
    }
    if has(1) {
        let sources = if has(4) { "[\"a\", \"b:rx\"]" } else { "[\"*\"]" };
        let _ = write!(text, "[mirrors.m]\nsources = {sources}\nto = \"span\"\nsnaplen = {}\n", 64 * (round % 2));
    }
    if has(0) && !has(1) {
        text += "[mirrors.n]\nsources = [\"p\"]\nto = \"span\"\nvlans = [2]\n";
    }
    text
}

#[test]
fn a_hundred_applies_and_not_a_frame_lost_where_nothing_changed() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("applies");
    let switch = lab.start("", &[("a", ""), ("b", "")], "");
    let index = |device: &str| {
        let links = lab.peers.links();
        links.iter().find(|link| link["ifname"] == device).map(|link| link["ifindex"].clone())
    };
    let (a, b) = (index("a"), index("b"));
    let flow = Flow::start(&lab, "a", "b");
    for round in 0..100 {
        let file = lab.site.write_config(&variation(&lab, round * 7));
        let announced = config(&switch, "diff", &file);
        assert_eq!(config(&switch, "apply", &file), announced, "what was announced is what was done");
        assert_eq!(changes(&config(&switch, "diff", &file)), [""; 0], "round {round}");
        if round % 10 == 0 {
            flow.assert_flowing(&format!("after {round} applies"));
            // What is shown is a file that changes nothing.
            let shown = lab.site.dir().join("shown.toml");
            std::fs::write(&shown, show(&switch)).expect("the file");
            assert_eq!(check_config(&shown).0, Some(0), "{}", show(&switch));
            assert_eq!(changes(&config(&switch, "apply", &shown)), [""; 0]);
        }
    }
    let file = lab.site.write_config(&lab.ports(&[("a", ""), ("b", "")]));
    config(&switch, "apply", &file);
    let frames = flow.finish();
    println!("{frames} frames during 100 applies");
    assert!(frames > 1000, "{frames} frames are too few to prove anything");
    assert_eq!((index("a"), index("b")), (a, b), "their pairs were not made anew");
    assert_eq!(lab.peers.link_names(), ["a", "b"]);
    switch.stop();
}

/// `labsw-ctl config show`, as people see it.
fn show(switch: &Labswd<'_>) -> String {
    let program = find_binary("labsw-ctl").expect("labsw-ctl");
    let socket = switch.site().control_socket();
    let out = std::process::Command::new(program).arg("--socket").arg(socket).args(["config", "show"]).output();
    String::from_utf8(out.expect("labsw-ctl").stdout).expect("text")
}

#[test]
fn a_step_that_fails_undoes_those_before_it() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("undo");
    let ports = [("a", ""), ("b", ""), ("old", "mtu = 1400"), ("span", "mirror_only = true")];
    let mirror = "[mirrors.m]\nsources = [\"a\"]\nto = \"span\"\n[ports.vm]\ntype = \"vhost_user\"\n";
    let switch = lab.start("", &ports, mirror);
    switch.ctl(&["fdb", "add", "02:00:00:00:00:77", "--vlan", "1", "--port", "old"]);
    let flow = Flow::start(&lab, "a", "b");
    wait_for("copies", 5 * SECOND, || switch.ctl(&["mirror", "show", "m"])["matched"].as_u64().filter(|n| *n > 20));
    let index =
        |name: &str| lab.site.ns.links().into_iter().find(|link| link["ifname"] == name).map(|l| l["ifindex"].clone());
    let old = index("lsw-old");

    // Another program listens where a new port wants to.
    let taken = lab.site.dir().join("taken.sock");
    let listener = UnixListener::bind(&taken).expect("a socket");
    let guest = format!("[ports.z]\ntype = \"vhost_user\"\nsocket = \"{}\"\n", taken.display());
    let others = lab.ports(&[("a", ""), ("b", ""), ("new", ""), ("span", "")]);
    let text = format!("power = \"performance\"\n{others}{guest}[mirrors.k]\nsources = [\"b\"]\nto = \"new\"\n");
    let file = lab.site.write_config(&text);
    for _ in 0..3 {
        assert_refused(&switch, &file, &["lab.toml:", "ports.z: ", "taken.sock", "nothing was changed"]);
        assert_eq!(index("lsw-old"), old, "the port that would go was not touched");
        assert_eq!(lab.peers.link_names(), ["a", "b", "old", "span"]);
        assert_eq!(switch.ctl(&["status"])["power"], "adaptive");
    }
    let matched = switch.ctl(&["mirror", "show", "m"])["matched"].as_u64();
    assert!(matched > Some(20), "the mirror's counters go on: {matched:?}");

    // A port that would be re-attached to something that is not for it: it has its old pair again.
    lab.site.ns.ip(&["tuntap", "add", "foreign", "mode", "tap"]);
    let stay = lab.ports(&[("a", ""), ("b", ""), ("span", "mirror_only = true")]);
    let wrong = lab.ports(&[("old", "mtu = 1400\ninterface = \"foreign\"")]);
    let file = lab.site.write_config(&format!("{stay}{wrong}{mirror}"));
    assert_refused(&switch, &file, &["ports.old: ", "foreign exists and is no veth", "nothing was changed"]);
    // Another port wants its far end, and fails for another reason.
    let taker = lab.ports(&[("taker", "interface = \"foreign\"")]).replace("x-taker", "x-old");
    let file = lab.site.write_config(&format!("{stay}{taker}{mirror}"));
    assert_refused(&switch, &file, &["ports.taker: ", "foreign exists and is no veth", "nothing was changed"]);
    switch.wait_port_up("old");
    let (near, far) = (lab.socket("a"), lab.socket("old"));
    let frame = Frame::new(BROADCAST, mac(9)).build();
    near.send(&frame);
    assert!(far.recv_matching(5 * SECOND, |f| f == frame).is_some(), "the port works as before");
    assert_eq!(switch.fdb_port(1, "02:00:00:00:00:77").as_deref(), Some("old"), "its static address is still there");
    // Without what stands in the way it is done.
    lab.site.ns.ip(&["link", "del", "foreign"]);
    drop(listener);
    let file = lab.site.write_config(&text);
    config(&switch, "apply", &file);
    assert_eq!(lab.peers.link_names(), ["a", "b", "new", "span"]);
    assert_eq!(switch.ctl(&["status"])["power"], "performance");
    flow.finish();
    std::fs::remove_file(&taken).ok();
    switch.stop();
}

#[test]
fn what_was_changed_at_run_time_shows_and_is_kept_or_undone() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("drift");
    let ports = [("a", "vlan = { tag = 10 }"), ("b", ""), ("gone", "")];
    let switch = lab.start("", &ports, "[ports.vm]\ntype = \"vhost_user\"\n");
    let written =
        |more: &str| lab.site.write_config(&(lab.ports(&ports) + "[ports.vm]\ntype = \"vhost_user\"\n" + more));
    let file = written("");
    switch.ctl(&["port", "set", "a", "vlan.tag=11"]);
    switch.ctl(&["port", "del", "gone"]);
    switch.ctl(&["port", "add", "x", "--type", "veth", "--set", "peer=ls-x"]);
    switch.ctl(&["mirror", "set", "m", "--source", "a", "--to", "x"]);
    let drift = config(&switch, "diff", &file);
    assert_eq!(changes(&drift), ["change port a", "add port gone", "remove port x", "remove mirror m"]);
    assert!(drift["changes"].as_array().expect("a list").iter().all(|change| change["drift"] == true), "{drift}");
    let setting = &drift["changes"][0]["settings"][0];
    assert_eq!(
        (&setting["key"], &setting["running"], &setting["wanted"]),
        (&"vlan.tag".into(), &"11".into(), &"10".into())
    );

    let keep = |verb: &str, file: &Path| switch.ctl(&["config", verb, "--keep-runtime", &file.to_string_lossy()]);
    assert_eq!(changes(&keep("diff", &file)), [""; 0]);
    let file = written("[ports.y]\ntype = \"vhost_user\"\n");
    assert_eq!(changes(&keep("apply", &file)), ["add port y"]);
    assert_eq!(switch.port("a")["vlan"]["tag"], 11);
    // A mirror of the file to a port that was removed: it can't be both.
    let broken = written("[mirrors.k]\nsources = [\"b\"]\nto = \"gone\"\n");
    let refused = switch.ctl_refused(&["config", "apply", "--keep-runtime", &broken.to_string_lossy()]);
    assert!(refused.contains("with the changes at run time, mirrors.k.to: there is no port \"gone\""), "{refused}");
    let file = written("");
    let undone = config(&switch, "apply", &file);
    let expected = ["change port a", "add port gone", "remove port x", "remove port y", "remove mirror m"];
    assert_eq!(changes(&undone), expected);
    assert_eq!(undone["changes"][3]["drift"], false, "y came with a file: {undone}");
    assert_eq!((switch.port("a")["vlan"]["tag"].as_u64(), lab.peers.link_names().len()), (Some(10), 3));

    settings_of_the_switch_change(&lab, &switch, &ports);
    // A device changes on request, and keeps the port's counters.
    lab.socket("b").send(&Frame::new(BROADCAST, mac(5)).build());
    wait_for("a counted frame", 5 * SECOND, || (switch.counter("b", "rx_frames") > 0).then_some(()));
    switch.ctl(&["port", "set", "b", "queues=2"]);
    assert_eq!(switch.port("b")["queues"], 2);
    assert!(switch.counter("b", "rx_frames") > 0);
    let refused = switch.ctl_refused(&["port", "set", "b", "type=tap"]);
    assert!(refused.contains("type: stays veth; remove the port, then add it with the other type"), "{refused}");
    switch.stop();
}

/// The settings of the switch itself change, and with them its sockets.
fn settings_of_the_switch_change(lab: &Lab, switch: &Labswd<'_>, ports: &[(&str, &str)]) {
    let mode = |path: &Path| std::fs::metadata(path).map(|of| (of.permissions().mode() & 0o777, of.gid())).expect("it");
    let text = "socket_mode = \"0606\"\nsocket_group = \"1\"\nmac_ageing = \"1s\"\npower = \"performance\"\n";
    let file = lab.site.write_config(&(text.to_owned() + &lab.ports(ports) + "[ports.vm]\ntype = \"vhost_user\"\n"));
    assert_eq!(changes(&config(switch, "apply", &file)), ["change switch"]);
    for path in [lab.site.control_socket(), switch.vhost_socket("vm")] {
        assert_eq!(mode(&path), (0o606, 1), "{}", path.display());
    }
    assert_eq!(switch.ctl(&["status"])["power"], "performance");
    wait_for("every worker to stay awake", 10 * SECOND, || {
        let workers = switch.ctl(&["worker", "list"]);
        (workers[0]["asleep_percent"].as_f64() == Some(0.0)).then_some(())
    });
}

/// One NIC for two ports.
const TWICE: &str = "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n\
                     [ports.span]\ntype = \"af_xdp\"\ndevice = \"mac:02:00:00:00:5a:01\"\n";

#[test]
fn bad_input_changes_nothing() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (lab, gateway) = (Lab::new("badapply"), Netns::new("gw"));
    wire((&lab.site.ns, "b0"), (&gateway, "g0"));
    lab.site.ns.ip(&["link", "set", "b0", "address", "02:00:00:00:5a:01"]);
    wire((&lab.site.ns, "m0"), (&gateway, "h0"));
    let ports = [("a", ""), ("b", "")];
    let mirror = "[mirrors.m]\nsources = [\"a\"]\nto = \"b\"\n";
    let switch = lab.start("protected_interfaces = [\"m0\"]", &ports, mirror);
    let good = "protected_interfaces = [\"m0\"]\n".to_owned() + &lab.ports(&ports) + mirror;
    for (what, text, has) in mistakes(&good) {
        let file = lab.site.write_config(&text);
        assert_refused(&switch, &file, &has);
        let line = switch.ctl_refused(&["config", "check", &file.to_string_lossy()]);
        assert!(line.contains(has[0]), "{what}: {line}");
    }
    let refused = switch.ctl_refused(&["port", "del", "b"]);
    assert!(refused.contains("mirror \"m\" uses it"), "{refused}");
    let refused = switch.ctl_refused(&["port", "set", "a", "mirror_only=true"]);
    assert!(refused.contains("mirror \"m\" has it as a source"), "{refused}");
    switch.ctl(&["port", "add", "up", "--type", "af_xdp", "--set", "device=name:b0"]);
    let second = ["port", "add", "span", "--type", "af_xdp", "--set", "device=mac:02:00:00:00:5a:01"];
    let refused = switch.ctl_refused(&second);
    assert!(refused.contains("is b0, which port up has"), "{refused}");
    // Both at the start, too.
    let file = lab.site.write_config(&(good.clone() + TWICE));
    let file = file.to_string_lossy().into_owned();
    switch.stop();
    let daemon = find_binary("labswd").expect("labswd").to_string_lossy().into_owned();
    let (status, text) = lab.site.ns.try_run(&["timeout", "20", &daemon, "--config", &file]);
    assert!(status.code() == Some(1) && text.contains("ports.span.device: "), "{text}");
    // A device that is awaited is no mistake.
    let switch = lab.start("protected_interfaces = [\"m0\"]", &ports, mirror);
    let file = lab.site.write_config(&(good + &device("up", "name:absent")));
    let awaited = config(&switch, "check", &file);
    assert!(
        awaited["awaited"][0].as_str().is_some_and(|line| line.starts_with("ports.up.device: name:absent")),
        "{awaited}"
    );
    config(&switch, "apply", &file);
    assert_eq!(switch.port_state("up"), "waiting");
    switch.stop();
}

/// The section of a port with a NIC.
fn device(name: &str, device: &str) -> String {
    format!("[ports.{name}]\ntype = \"af_xdp\"\ndevice = \"{device}\"\n")
}

/// Files with one mistake each, made of one that is `good`; and the parts of the line that refuses them.
fn mistakes(good: &str) -> Vec<(&'static str, String, Vec<&'static str>)> {
    vec![
        (
            "a VLAN twice",
            good.to_owned() + "[ports.x]\ntype = \"tap\"\nvlan = { trunks = [10, \"9-11\"] }\n",
            vec!["lab.toml:24:24: ports.x.vlan.trunks[1]: VLAN 10 is named twice"],
        ),
        ("a device twice", good.to_owned() + TWICE, vec!["ports.span.device", "is the device of port up, too"]),
        (
            "the management interface",
            good.to_owned() + &device("up", "name:m0"),
            vec!["ports.up.device", "m0 is protected"],
        ),
        (
            "a mirror to nothing",
            good.to_owned() + "[mirrors.k]\nsources = [\"a\"]\nto = \"c\"\n",
            vec!["mirrors.k.to: there is no port \"c\""],
        ),
        (
            "a mirror of copies",
            good.to_owned() + "[mirrors.k]\nsources = [\"b\"]\nto = \"a\"\n",
            vec!["mirrors.k.sources: \"b\" is the destination of mirror \"m\""],
        ),
        ("an unknown key", good.to_owned() + "[ports.x]\ntype = \"tap\"\ntap = 1\n", vec!["ports.x.tap: unknown key"]),
        (
            "a port that a mirror needs",
            good.replace("[ports.b]", "[ports.c]"),
            vec!["mirrors.m.to: there is no port \"b\""],
        ),
        (
            "what needs a restart",
            "mac_table_size = 64\nhugepages = \"off\"\n".to_owned() + good,
            vec!["switch.mac_table_size, switch.hugepages can't change while the switch runs"],
        ),
        (
            "no such group",
            "socket_group = \"nogroupx\"\n".to_owned() + good,
            vec!["lab.toml:4:1: switch.socket_group: there is no group \"nogroupx\""],
        ),
        (
            "no such owner",
            good.to_owned() + "[ports.x]\ntype = \"tap\"\nfor = \"guest\"\nowner = \"nobodyx\"\n",
            vec!["ports.x.owner", "nobodyx"],
        ),
        ("too large a CPU", "workers = [999]\n".to_owned() + good, vec!["switch.workers: this machine has no CPU 999"]),
    ]
}

/// A service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn any(&self) -> String {
        let mut message = [0; 256];
        let bytes = self.0.recv(&mut message).expect("a message to the service manager");
        String::from_utf8_lossy(&message[..bytes]).into_owned()
    }

    /// The next message that is not only for people.
    fn hear(&self) -> String {
        std::iter::repeat_with(|| self.any()).find(|text| !text.starts_with("STATUS=")).unwrap_or_default()
    }

    /// Waits for a message for people that begins like this.
    fn wait_status(&self, begins: &str) {
        std::iter::repeat_with(|| self.any()).find(|text| text.starts_with(&format!("STATUS={begins}")));
    }
}

#[test]
fn sighup_applies_the_file() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("sighup");
    let told = lab.site.dir().join("notify");
    let manager = UnixDatagram::bind(&told).expect("notify socket");
    manager.set_read_timeout(Some(20 * SECOND)).expect("timeout");
    let manager = Manager(manager);
    let hear = || manager.hear();
    let mut command = lab.site.ns.command(&find_binary("labswd").expect("labswd").to_string_lossy());
    let file = lab.site.write_config(&lab.ports(&[("a", "")]));
    let mut switch = Process::spawn("labswd", command.env("NOTIFY_SOCKET", &told).arg("--config").arg(&file));
    let ready = hear();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=1 port: 1 "), "{ready}");
    assert_eq!(lab.peers.link_names(), ["a"]);

    let mut reload = |text: &str| {
        std::fs::write(&file, text).expect("the file");
        let from = switch.log_len();
        switch.signal(libc::SIGHUP);
        let reloading = hear();
        assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
        assert!(hear().contains("READY=1"));
        // The log's reader may be a moment behind.
        wait_for("a word about it in the log", 5 * SECOND, || {
            let log = switch.log().get(from..).unwrap_or_default().to_owned();
            (log.ends_with('\n') && log.contains("configuration ")).then_some(log)
        })
    };
    let head = std::fs::read_to_string(&file).expect("the file");
    let log = reload(&(head.clone() + &lab.ports(&[("b", "")])));
    assert_eq!(lab.peers.link_names(), ["a", "b"], "{log}");
    // It is looked at once a second.
    manager.wait_status("2 ports: ");
    for broken in ["[ports.b", "[switch]\nmac_table_size = 64\n", "[ports.c]\ntype = \"tap\"\nmtu = 1\n"] {
        let log = reload(broken);
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
        assert_eq!(errors.len(), 1, "{log}");
        assert!(errors[0].contains("configuration not applied ") && errors[0].contains("lab.toml"), "{log}");
        assert_eq!(lab.peers.link_names(), ["a", "b"]);
    }
    std::fs::remove_file(&file).expect("the file");
    let from = switch.log_len();
    switch.signal(libc::SIGHUP);
    assert!(hear().contains("RELOADING=1") && hear().contains("READY=1"));
    wait_for("a word about the file in the log", 5 * SECOND, || {
        switch.log()[from..].contains("lab.toml: cannot be read").then_some(())
    });
    std::fs::write(&file, &head).expect("the file");
    switch.signal(libc::SIGHUP);
    assert!(hear().contains("RELOADING=1") && hear().contains("READY=1"));
    assert_eq!(lab.peers.link_names(), ["a"]);
    switch.signal(libc::SIGTERM);
    assert!(hear().contains("STOPPING=1"));
    assert!(switch.wait(10 * SECOND).success());
}

#[test]
fn what_nobody_confirms_is_taken_back_and_what_is_saved_is_there_after_a_restart() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let lab = Lab::new("trial");
    let mut switch = lab.start("", &[("a", "")], "# kept\n");
    let [file, own] = ["new.toml", "lab.toml"].map(|name| lab.site.dir().join(name));
    let text = std::fs::read_to_string(&own).expect("the file");
    std::fs::write(&file, text + &lab.ports(&[("b", "")])).expect("the file");
    let apply = |time: &str| switch.ctl(&["config", "apply", &file.to_string_lossy(), "--confirm", time]);
    let waits = || switch.ctl(&["status"])["unconfirmed"].clone();
    assert_eq!(changes(&apply("1s")), ["add port b"]);
    // The command has ended; the time runs at the switch.
    wait_for("the configuration before", 20 * SECOND, || (lab.peers.link_names() == ["a"]).then_some(()));
    assert_eq!(waits(), Value::Null);
    assert_eq!(changes(&switch.ctl(&["config", "diff"])), [""; 0]);
    apply("1h");
    assert_eq!(lab.peers.link_names(), ["a", "b"]);
    assert!(waits()["file"].as_str().is_some_and(|file| file.ends_with("new.toml")), "{}", waits());
    let refused = switch.ctl_refused(&["config", "save"]);
    assert!(refused.contains("waits") && refused.contains("config confirm"), "{refused}");
    switch.ctl(&["config", "confirm"]);
    assert_eq!(waits(), Value::Null);
    switch.ctl(&["config", "save"]);
    let saved = std::fs::read_to_string(&own).expect("the file");
    assert!(saved.contains("# kept") && saved.contains("[ports.b]"), "{saved}");
    switch.restart();
    switch.wait_port_up("b");
    assert_eq!(changes(&switch.ctl(&["config", "diff"])), [""; 0]);
}
