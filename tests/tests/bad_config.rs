//! Proves what bad input gets: a bad configuration one line that names the file, the place and what would be right,
//! exit status 1, and nothing touched, not even a running switch whose sockets it names; the same mistakes at run time
//! one line and exit status 1 of `labsw-ctl`; wrong usage 2; no switch 3.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use labsw_tests::netns::{Netns, veth};
use labsw_tests::process::Process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, check_config, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};

const END: Duration = Duration::from_secs(10);

/// A configuration that is in order but for what a case adds.
const GOOD: &str = r#"
[ports.guest]
type = "vhost_user"
vlan = { mode = "access", tag = 20 }
[ports.box]
type = "veth"
peer = "bc-box"
[ports.span]
type = "veth"
peer = "bc-span"
mirror_only = true
"#;

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

/// (what, text behind [`GOOD`], what the line has to name).
const CASES: [(&str, &str, &[&str]); 33] = [
    ("no TOML", "[ports.x\n", &[]),
    ("an unknown table", "[prots.x]\ntype = \"veth\"\n", &["prots", "ports"]),
    (
        "an unknown key of a port",
        "[ports.x]\ntype = \"veth\"\npeer = \"x\"\nmirror_onyl = true\n",
        &["mirror_onyl", "mirror_only"],
    ),
    ("a key of another type", "[ports.x]\ntype = \"veth\"\npeer = \"x\"\nrole = \"server\"\n", &["role", "vhost_user"]),
    ("a port named twice", "[ports.box]\ntype = \"veth\"\npeer = \"y\"\n", &["box"]),
    ("a port without a type", "[ports.x]\npeer = \"x\"\n", &["ports.x", "type"]),
    ("an unknown type", "[ports.x]\ntype = \"vhost-user\"\n", &["vhost-user", "vhost_user"]),
    ("an owner of the host's end", "[ports.x]\ntype = \"tap\"\nowner = \"root\"\n", &["ports.x.owner", "guest"]),
    ("a port name that is none", "[ports.\"a/b\"]\ntype = \"vhost_user\"\n", &["a/b"]),
    (
        "VLAN 0",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 0 }\n",
        &["ports.x.vlan.tag", "4094"],
    ),
    (
        "VLAN 4095",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"access\", tag = 4095 }\n",
        &["ports.x.vlan.tag", "4094"],
    ),
    (
        "VLAN 5000 in a list",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"trunk\", trunks = [10, 5000] }\n",
        &["ports.x.vlan.trunks", "4094"],
    ),
    (
        "a VLAN range that is none",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"trunk\", trunks = [\"30-20\"] }\n",
        &["ports.x.vlan.trunks", "20-29"],
    ),
    (
        "an unknown VLAN mode",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"acess\", tag = 1 }\n",
        &["acess", "access"],
    ),
    (
        "access without a tag",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"access\" }\n",
        &["ports.x.vlan", "tag"],
    ),
    (
        "a trunk with a tag",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"trunk\", tag = 10 }\n",
        &["ports.x.vlan", "native"],
    ),
    (
        "a value of the wrong type",
        "[ports.x]\ntype = \"veth\"\npeer = \"x\"\nmirror_only = \"yes\"\n",
        &["ports.x.mirror_only"],
    ),
    ("an MTU nothing can carry", "[ports.x]\ntype = \"veth\"\npeer = \"x\"\nmtu = 9300\n", &["ports.x.mtu", "9216"]),
    ("a device without its kind", "[ports.x]\ntype = \"af_xdp\"\ndevice = \"eth7\"\n", &["ports.x.device", "name:"]),
    (
        "two ports on one socket",
        "[ports.x]\ntype = \"vhost_user\"\nsocket = \"/tmp/bc-one.sock\"\n[ports.y]\ntype = \"vhost_user\"\nsocket = \"/tmp/bc-one.sock\"\n",
        &["ports.y", "/tmp/bc-one.sock", "x"],
    ),
    ("two ports with one far end", "[ports.x]\ntype = \"veth\"\npeer = \"bc-box\"\n", &["bc-box", "box"]),
    (
        "a mirror from an absent port",
        "[mirrors.m]\nsources = [\"nobody\"]\nto = \"span\"\n",
        &["mirrors.m.sources", "nobody"],
    ),
    (
        "a mirror to an absent port",
        "[mirrors.m]\nsources = [\"guest\"]\nto = \"nobody\"\n",
        &["mirrors.m.to", "nobody"],
    ),
    ("a mirror to itself", "[mirrors.m]\nsources = [\"span\"]\nto = \"span\"\n", &["mirrors.m", "span"]),
    (
        "a mirror direction that is none",
        "[mirrors.m]\nsources = [\"guest:in\"]\nto = \"span\"\n",
        &["mirrors.m.sources", "rx"],
    ),
    (
        "a mirror filter that does not compile",
        "[mirrors.m]\nsources = [\"guest\"]\nto = \"span\"\nfilter = \"tcp prot 445\"\n",
        &["mirrors.m.filter", "prot"],
    ),
    (
        "frames injected in two ways",
        "[mirrors.m]\nsources = [\"guest\"]\nto = \"span\"\ninject = { vlan = 1, as_port = \"guest\" }\n",
        &["mirrors.m.inject.as_port", "vlan"],
    ),
    (
        "two mirrors in a ring",
        "[mirrors.m]\nsources = [\"guest\"]\nto = \"span\"\n[mirrors.n]\nsources = [\"span\"]\nto = \"guest\"\n",
        &["mirrors.n.sources", "span"],
    ),
    ("more loss than frames", "[impair.guest]\nloss = \"101%\"\n", &["impair.guest.loss", "101%"]),
    (
        "more jitter than delay",
        "[impair.guest]\ndelay = \"10ms\"\njitter = \"20ms\"\n",
        &["impair.guest.jitter", "delay"],
    ),
    (
        "a storm at no rate",
        "[ports.x]\ntype = \"vhost_user\"\nstorm = { broadcast = \"x\" }\n",
        &["ports.x.storm.broadcast", "kpps"],
    ),
    (
        "a tunnel without a VLAN",
        "[ports.x]\ntype = \"vhost_user\"\nvlan = { mode = \"dot1q-tunnel\" }\n",
        &["ports.x.vlan", "tag"],
    ),
    (
        "a mirror in no VLAN",
        "[mirrors.m]\nsources = [\"guest\"]\nto = \"span\"\nvlans = [4095]\n",
        &["mirrors.m.vlans", "4094"],
    ),
];

/// Runs `labswd` at a site until it ends: exit status and what it printed.
fn start_badly(site: &Site, config: &str) -> (Option<i32>, String) {
    let file = site.write_config(config);
    let program = find_binary("labswd").unwrap();
    let mut command = site.ns.command(&program.to_string_lossy());
    let mut process = Process::spawn("labswd", command.arg("--config").arg(file).args(["--log-level", "error"]));
    let status = process.wait(END);
    (status.code(), process.log())
}

/// One line with a program's name, the file and everything it has to name; nothing was touched.
fn assert_refused(site: &Site, what: &str, result: &(Option<i32>, String), names: &[&str], with_line: bool) {
    let (code, text) = result;
    assert_eq!(*code, Some(1), "{what}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{what}: {text}");
    let file = site.dir().join("lab.toml").display().to_string();
    for name in [&[file.as_str()], names].concat() {
        assert!(text.contains(name), "{what}: {name} is not named in: {text}");
    }
    if with_line {
        let place = text.split_once(&format!("{file}:")).and_then(|(_, rest)| rest.split(':').next());
        assert!(place.is_some_and(|line| line.parse::<u32>().is_ok()), "{what}: no line number in: {text}");
    }
}

fn assert_untouched(site: &Site, links: &[String], what: &str) {
    assert_eq!(site.ns.link_names(), links, "{what}: links");
    for link in site.ns.links() {
        assert!(link["xdp"].is_null() && link["promiscuity"].as_u64() == Some(0), "{what}: {link}");
    }
    let names: Vec<_> = std::fs::read_dir(site.dir()).unwrap().flatten().map(|e| e.file_name()).collect();
    let mut left: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let sockets = std::fs::read_dir(site.dir().join("vhost")).into_iter().flatten().count();
    left.retain(|name| name != "lab.toml" && name != "vhost");
    assert!(left.is_empty() && sockets == 0, "{what}: left {left:?} and {sockets} sockets");
}

#[test]
fn mistakes_in_the_file() {
    if !needs() {
        return;
    }
    let site = Site::new("bcf");
    for (what, addition, names) in CASES {
        let config = format!("{GOOD}{addition}");
        let result = start_badly(&site, &config);
        assert_refused(&site, what, &result, names, true);
        assert_untouched(&site, &[], what);
        let checked = check_config(&site.write_config(&config));
        assert_refused(&site, &format!("{what}, --check"), &checked, names, true);
    }
    for (what, keys, names) in [
        ("an unknown key of the switch", "mac_aging = \"300s\"\n", &["mac_aging", "mac_ageing"][..]),
        ("a duration that is none", "mac_ageing = \"soon\"\n", &["switch.mac_ageing"][..]),
        ("two workers on one CPU", "workers = [0, 0]\n", &["switch.workers", "CPU 0"][..]),
        ("a CPU that does not exist", "workers = [0, 8191]\n", &["switch.workers", "8191"][..]),
        ("a table of no entries", "mac_table_size = 0\n", &["switch.mac_table_size"][..]),
        ("a power that is none", "power = \"turbo\"\n", &["turbo", "performance"][..]),
        ("a mode that is none", "socket_mode = \"rw\"\n", &["switch.socket_mode"][..]),
    ] {
        let config = format!("{keys}{GOOD}");
        let result = start_badly(&site, &config);
        assert_refused(&site, what, &result, names, true);
        assert_untouched(&site, &[], what);
        let checked = check_config(&site.write_config(&config));
        assert_refused(&site, &format!("{what}, --check"), &checked, names, true);
    }
    let missing = check_config(&site.dir().join("absent.toml"));
    assert!(missing.0 == Some(1) && missing.1.contains("absent.toml") && missing.1.trim().lines().count() == 1);
    std::fs::write(site.dir().join("lab.toml"), [0xff, 0xfe, 0, 1]).unwrap();
    assert_eq!(check_config(&site.dir().join("lab.toml")).0, Some(1));

    // In order, and checked without its device being there; nothing is opened.
    let absent = "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:absent0\"\n";
    let (code, text) = check_config(&site.write_config(&format!("{GOOD}{absent}")));
    let awaited = "ports.up.device: name:absent0 is awaited: there is no such interface";
    assert_eq!((code, text.trim().split_once(": ").map(|(_, line)| line)), (Some(0), Some(awaited)), "{text}");
    assert_untouched(&site, &[], "--check");
}

#[test]
fn devices_that_are_protected() {
    if !needs() {
        return;
    }
    let site = Site::new("bcd");
    let far = Netns::new("bcx");
    for (near, there) in [("up0", "far0"), ("mgmt0", "far1")] {
        veth((&site.ns, near), (&far, there));
    }
    site.ns.address("mgmt0", "192.0.2.1/24");
    site.ns.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    let links = site.ns.link_names();
    let port = |device: &str| format!("{GOOD}[ports.up]\ntype = \"af_xdp\"\ndevice = \"{device}\"\n");
    let by_name = "protected_interfaces = [\"up0\"]\n";
    for (what, config, names) in [
        (
            "an interface protected by name",
            format!("{by_name}{}", port("name:up0")),
            &["ports.up.device", "up0", "protected"][..],
        ),
        ("the interface of the default route", port("name:mgmt0"), &["ports.up.device", "mgmt0", "default route"][..]),
    ] {
        let result = start_badly(&site, &config);
        assert_refused(&site, what, &result, names, false);
        assert_untouched(&site, &links, what);
    }
    // At run time: the same, and the switch stays as it was.
    let switch = Labswd::start(&site, "");
    let add = |device: &str| {
        switch.ctl_refused(&["port", "add", "up", "--type", "af_xdp", "--set", &format!("device={device}")])
    };
    let line = add("name:mgmt0");
    assert!(["up", "mgmt0", "default route"].iter().all(|name| line.contains(name)), "{line}");
    assert_eq!(switch.ctl(&["port", "list"]), serde_json::json!([]));
    assert_eq!(site.ns.link_names(), links);
    switch.stop();
}

#[test]
fn a_second_start_leaves_the_first_alone() {
    if !needs() {
        return;
    }
    let lab = Lab::new("bc2");
    let mut switch = lab.start("", &[("a", ""), ("b", "")], "[ports.guest]\ntype = \"vhost_user\"\n");
    let links = lab.site.ns.link_names();
    let flow = Flow::start(&lab, "a", "b");
    let program = find_binary("labswd").unwrap();
    let second = |name: &str, config: &str| {
        let file = lab.site.dir().join(name);
        std::fs::write(&file, config).unwrap();
        let mut command = lab.site.ns.command(&program.to_string_lossy());
        let mut process = Process::spawn("second", command.arg("--config").arg(file).args(["--log-level", "error"]));
        let status = process.wait(END);
        std::thread::sleep(Duration::from_millis(50));
        (status.code(), process.log())
    };
    let (control, vhost) = (lab.site.control_socket(), lab.site.dir().join("vhost"));
    // The same control socket; another one, but the same guests' socket; the same link.
    let mut cases = vec![(format!("control_socket = \"{}\"", control.display()), String::new(), "control.sock")];
    let other = format!("control_socket = \"{}\"", lab.site.dir().join("other.sock").display());
    cases.push((other.clone(), "[ports.guest]\ntype = \"vhost_user\"\n".to_owned(), "guest"));
    cases.push((other, "[ports.a]\ntype = \"veth\"\npeer = \"other-a\"\n".to_owned(), "ports.a"));
    for (number, (socket, ports, name)) in cases.into_iter().enumerate() {
        let mut config = String::new();
        let _ = write!(config, "[switch]\n{socket}\nvhost_user_dir = \"{}\"\n{ports}", vhost.display());
        let (code, text) = second(&format!("second{number}.toml"), &config);
        assert!(code == Some(1) && text.trim_end().lines().count() == 1 && text.contains(name), "{code:?}: {text}");
        assert!(switch.is_running() && control.exists() && switch.vhost_socket("guest").exists());
        assert!(!lab.site.dir().join("other.sock").exists(), "the second run's own socket is gone");
        assert_eq!(lab.site.ns.link_names(), links);
        switch.ctl(&["status"]);
        flow.assert_flowing("a second start");
    }
    flow.finish();
    switch.stop();
}

#[test]
fn commands_that_are_wrong() {
    if !needs() {
        return;
    }
    let site = Site::new("bcc");
    let switch = Labswd::start(&site, GOOD);
    let before = switch.ctl(&["port", "list"]);
    let refused: [(&[&str], &[&str]); 18] = [
        (&["port", "show", "nobody"], &["nobody"]),
        (&["port", "del", "nobody"], &["nobody"]),
        (&["port", "up", "nobody"], &["nobody"]),
        (&["port", "set", "nobody", "mirror_only=true"], &["nobody"]),
        (&["port", "add", "box", "--type", "vhost_user"], &["box"]),
        (
            &["port", "add", "x", "--type", "vhost_user", "--set", "vlan.mode=access", "--set", "vlan.tag=4095"],
            &["x", "4094"],
        ),
        (&["port", "add", "x", "--type", "vhost_user", "--set", "colour=red"], &["x", "colour"]),
        (&["port", "add", "x", "--type", "veth"], &["x", "peer"]),
        (&["port", "add", "x", "--type", "veth", "--set", "peer=bc-box"], &["x", "bc-box"]),
        (&["port", "add", "a/b", "--type", "vhost_user"], &["a/b"]),
        (&["port", "set", "guest", "vlan.tag=5000"], &["guest", "4094"]),
        (&["port", "set", "guest", "type=tap"], &["guest", "vhost_user"]),
        (&["mirror", "set", "m", "--source", "nobody", "--to", "span"], &["m", "nobody"]),
        (&["mirror", "set", "m", "--source", "guest", "--to", "nobody"], &["m", "nobody"]),
        (&["mirror", "set", "m", "--source", "guest"], &["m", "to"]),
        (&["mirror", "show", "m"], &["m"]),
        (&["fdb", "list", "--port", "nobody"], &["nobody"]),
        (&["stats", "nobody"], &["nobody"]),
    ];
    for (arguments, names) in refused {
        let line = switch.ctl_refused(arguments);
        assert!(names.iter().all(|name| line.contains(name)), "{arguments:?}: {line}");
    }
    assert_eq!(switch.ctl(&["port", "list"]), before, "nothing was changed");
    assert_eq!(switch.ctl(&["mirror", "list"]), serde_json::json!([]));

    wrong_usage(&switch);
    switch.stop();
    sockets_without_a_switch(&site);
}

/// Wrong usage: exit status 2, and nothing but an error.
fn wrong_usage(switch: &Labswd<'_>) {
    let usage: [&[&str]; 8] = [
        &[],
        &["prot", "list"],
        &["port", "add", "x"],
        &["port", "add", "x", "--type", "wormhole"],
        &["fdb", "add", "02:00:00:00:00", "--vlan", "1", "--port", "box"],
        &["fdb", "list", "--vlan", "4095"],
        &["mirror", "set", "m", "--vlan", "4095"],
        &["port", "list", "--colour"],
    ];
    for arguments in usage {
        let (code, out, err) = switch.ctl_output(arguments);
        assert!(code == 2 && out.is_empty() && !err.is_empty(), "{arguments:?}: exit {code}, {out}{err}");
    }
}

/// Nobody there; a socket nobody listens on; a file that is no socket.
fn sockets_without_a_switch(site: &Site) {
    let socket = site.control_socket();
    let program = find_binary("labsw-ctl").unwrap();
    let ask = || {
        let out = Command::new(&program).arg("--socket").arg(&socket).arg("status").output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(text.trim_end().lines().count() == 1 && text.contains("control.sock"), "{text}");
        out.status.code()
    };
    assert_eq!(ask(), Some(3), "no socket");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(ask(), Some(3), "a dead socket");
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "x").unwrap();
    assert_eq!(ask(), Some(3), "a file");
    // Nor does a switch take the place of a file that is no socket.
    let (code, text) = start_badly(site, GOOD);
    assert!(code == Some(1) && text.trim_end().lines().count() == 1 && text.contains("control.sock"), "{text}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"x");
}

#[test]
fn huge_pages_that_are_required_and_not_there() {
    if !needs() {
        return;
    }
    let site = Site::new("bch");
    let veth = "[ports.box]\ntype = \"veth\"\npeer = \"bc-box\"\n";
    let guest = "hugepages = \"required\"\n[ports.guest]\ntype = \"vhost_user\"\n";
    let both = format!("{guest}{veth}");
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|count| count.trim().parse::<u32>().is_ok_and(|count| count >= 32)) {
        // This machine has them.
        let switch = Labswd::start(&site, &both);
        switch.wait_port_up("box");
        switch.stop();
        return;
    }
    let links = site.ns.link_names();
    let (code, text) = start_badly(&site, &both);
    assert_eq!((code, text.trim_end().lines().count()), (Some(1), 1), "{text}");
    let reason = "packet memory needs 32 free 2-MiB huge pages (see vm.nr_hugepages)";
    assert!(text.contains("switch.hugepages: ") && text.contains(reason), "{text}");
    assert_eq!(site.ns.link_names(), links);

    // Guests alone need none; what would need them is refused while the switch runs, too.
    let switch = Labswd::start(&site, guest);
    let config = switch.ctl(&["config", "show"]);
    let file = site.write_config(&format!("mac_ageing = \"60s\"\n{both}"));
    for arguments in [
        &["port", "add", "box", "--type", "veth", "--set", "peer=bc-box"][..],
        &["config", "check", &file.to_string_lossy()],
        &["config", "apply", &file.to_string_lossy()],
    ] {
        let refused = switch.ctl_refused(arguments);
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
        assert_eq!((switch.ctl(&["config", "show"]), site.ns.link_names()), (config.clone(), links.clone()));
    }
    switch.stop();
}
