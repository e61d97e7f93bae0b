//! Proves that `labsw-ctl doctor` says of this machine what is so: its findings are compared with what other programs
//! and files say, with what the switch then does, and with what becomes of a finding when its command is run.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::process::Command;

use labsw_tests::installed::find_program;
use labsw_tests::netns::{Netns, wire};
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, find_binary};
use serde_json::Value;

/// What the doctor says at `site`; exit status, findings, and the line on standard error.
fn doctor(site: &Site, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = site.ns.command(&find_binary("labsw-ctl").expect("labsw-ctl").to_string_lossy());
    command.arg("--socket").arg(site.control_socket()).args(["--json", "doctor"]).args(arguments);
    let output = command.output().expect("labsw-ctl runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let findings = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complaint}"));
    (output.status.code().expect("an exit status"), findings, complaint)
}

/// The finding of `check`, about `subject` if there is one.
fn finding<'a>(findings: &'a [Value], check: &str, subject: Option<&str>) -> &'a Value {
    let meant =
        |finding: &&Value| finding["check"] == check && subject.is_none_or(|subject| finding["subject"] == subject);
    findings.iter().find(meant).unwrap_or_else(|| panic!("no finding {check} {subject:?}: {findings:#?}"))
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding[key].as_str().unwrap_or_else(|| panic!("no text {key}: {finding}"))
}

fn meminfo(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.expect("a line").split_whitespace().next().expect("a number").to_owned()
}

#[test]
fn what_it_says_is_so() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("sysctl"), Need::Program("uname")]) {
        return;
    }
    let site = Site::new("doc-alone");
    let file =
        site.write_config("[ports.vm]\ntype = \"vhost_user\"\n[ports.web]\ntype = \"veth\"\npeer = \"ls-web\"\n");
    let links = site.ns.ip(&["-d", "link"]);
    let settings = site.ns.run(&["sysctl", "net.ipv4", "net.ipv6", "vm.nr_hugepages"]);
    let (status, findings, complaint) = doctor(&site, &["--config", &file.to_string_lossy()]);
    assert!(!file.with_file_name("control.sock").exists());
    assert_eq!(site.ns.ip(&["-d", "link"]), links, "nothing is changed");
    assert_eq!(site.ns.run(&["sysctl", "net.ipv4", "net.ipv6", "vm.nr_hugepages"]), settings, "nothing is changed");

    let problems = findings.iter().filter(|finding| finding["level"] == "problem").count();
    assert_eq!(status, i32::from(problems > 0), "{findings:#?}");
    assert_eq!(complaint.lines().count(), usize::from(problems > 0), "{complaint}");
    for finding in &findings {
        let keys: Vec<&String> = finding.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["check", "command", "evidence", "level", "nixos", "subject", "summary"], "{finding}");
        assert!(["ok", "advice", "problem"].contains(&text(finding, "level")), "{finding}");
        assert!(!text(finding, "summary").is_empty() && !text(finding, "evidence").is_empty(), "{finding}");
    }

    let ctl = find_binary("labsw-ctl").expect("labsw-ctl").to_string_lossy().into_owned();
    let socket = site.control_socket().to_string_lossy().into_owned();
    let (_, table) = site.ns.try_run(&[&ctl, "--socket", &socket, "doctor", "--config", &file.to_string_lossy()]);
    let count = |level| findings.iter().filter(|finding| finding["level"] == level).count();
    let counts = format!("problems: {problems}, advice: {}, ok: {}", count("advice"), count("ok"));
    assert!(table.lines().any(|line| line == counts), "{counts}\n{table}");

    assert_eq!(text(finding(&findings, "switch", None), "level"), "advice", "none runs here");
    assert!(text(finding(&findings, "configuration", None), "evidence").ends_with("lab.toml"));
    if meminfo("Hugepagesize") == "2048" {
        let evidence = text(finding(&findings, "hugepages", None), "evidence");
        assert!(evidence.contains(&format!("nr_hugepages: {}", meminfo("HugePages_Total"))), "{evidence}");
    }
    let release = process::run(Command::new("uname").arg("-r"));
    assert!(text(finding(&findings, "kernel_tcx", None), "evidence").ends_with(release.trim()));
    // The tests have all of these from the kernel.
    for check in ["kernel_af_xdp", "kernel_xdp_link", "kernel_tun", "kernel_veth", "kernel_memfd"] {
        assert_eq!(text(finding(&findings, check, None), "level"), "ok", "{findings:#?}");
    }
    findings_agree_with_the_machine(&findings);
}

/// What is said of the machine and its programs is what files and the programs themselves say.
fn findings_agree_with_the_machine(findings: &[Value]) {
    let kvm = std::path::Path::new("/dev/kvm").exists();
    assert_eq!(text(finding(findings, "kvm", None), "level") == "ok", kvm);
    let groups = std::fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    assert!(text(finding(findings, "iommu", None), "evidence").contains(&format!(": {groups} groups")));
    let isolated = std::fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let isolated = if isolated.trim().is_empty() { "empty" } else { isolated.trim() };
    let evidence = text(finding(findings, "cpu_isolation", None), "evidence");
    assert!(evidence.contains(&format!("cpu/isolated: {isolated}")), "{evidence}");
    for (check, program) in [("qemu", "qemu-system-x86_64"), ("lxc", "lxc-start")] {
        let evidence = text(finding(findings, check, None), "evidence");
        match find_program(program).filter(|_| cfg!(target_arch = "x86_64")) {
            Some(path) => {
                let version = process::run(Command::new(path).arg("--version"));
                let version = version.lines().next().expect("a version").trim();
                assert!(evidence.ends_with(version), "{check}: {evidence}, {version}");
            }
            None => assert!(evidence.contains("not found"), "{check}: {evidence}"),
        }
    }
}

#[test]
fn the_running_switch_is_asked_and_commands_mend() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("sysctl")]) {
        return;
    }
    let (site, gateway) = (Site::new("doc-runs"), Netns::new("gw"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    let config =
        "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n[ports.host]\ntype = \"tap\"\ninterface = \"lab0\"\n";
    let switch = Labswd::start(&site, config);
    switch.wait_port_up("up");
    site.ns.run(&["sysctl", "-w", "net.ipv4.ip_forward=1"]);

    let (_, findings, _) = doctor(&site, &[]);
    assert_eq!(text(finding(&findings, "configuration", None), "evidence"), "the running configuration");
    assert_eq!(text(finding(&findings, "switch", None), "level"), "ok");
    let port = switch.ctl(&["port", "show", "up"]);
    let mode = text(finding(&findings, "nic_xdp_mode", Some("b0")), "evidence");
    assert!(mode.contains(&format!("xdp_mode {}", port["xdp_mode"].as_str().expect("a mode"))), "{mode}");
    assert_eq!(text(finding(&findings, "nic_vlan_tags", Some("b0")), "level"), "ok");
    let router = finding(&findings, "forwarding", Some("net.ipv4.ip_forward"));
    assert_eq!(text(router, "level"), "advice");
    assert!(text(router, "summary").contains("lab0"), "{router}");

    // As it is printed.
    site.ns.run(&["sh", "-c", text(router, "command")]);
    let (_, findings, _) = doctor(&site, &[]);
    assert_eq!(text(finding(&findings, "forwarding", Some("net.ipv4.ip_forward")), "level"), "ok");
    switch.stop();
}

#[test]
fn a_problem_is_what_the_switch_refuses() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, gateway) = (Site::new("doc-refused"), Netns::new("gw"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    let refused = |config: &str, check: &str, word: &str| {
        let file = site.write_config(config).to_string_lossy().into_owned();
        let (status, findings, complaint) = doctor(&site, &["--config", &file]);
        let found = findings.iter().find(|finding| finding["check"] == check && finding["level"] == "problem");
        assert!(found.is_some() && status == 1, "{check}: {findings:#?}");
        let complaint: Value = serde_json::from_str(&complaint).unwrap_or_default();
        assert_eq!(complaint["error"], "problems", "{complaint}");
        let daemon = find_binary("labswd").expect("labswd").to_string_lossy().into_owned();
        let (status, text) = site.ns.try_run(&["timeout", "20", &daemon, "--config", &file]);
        assert!(status.code() == Some(1) && text.contains(word), "{check}: {text}");
    };
    let port = "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\n";
    refused(&format!("{port}mode = \"zero_copy\"\n"), "nic_xdp_mode", "zero_copy: not supported");
    refused("socket_group = \"no-such-group\"\n", "socket_group", "no-such-group");
    site.ns.ip(&["link", "set", "b0", "up"]);
    gateway.ip(&["link", "set", "g0", "up"]);
    site.ns.ip(&["addr", "add", "192.0.2.1/24", "dev", "b0"]);
    site.ns.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    refused(port, "nic", "carries a default route");

    let missing = site.dir().join("missing.toml").to_string_lossy().into_owned();
    let ctl = find_binary("labsw-ctl").expect("labsw-ctl").to_string_lossy().into_owned();
    let (status, text) = site.ns.try_run(&[&ctl, "doctor", "--config", &missing]);
    assert_eq!((status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("missing.toml: cannot be read"), "{text}");
}
