//! Runs the console blocks of README.md and docs/ as they are printed, and compares what the programs print with what
//! the page prints.
//!
//! **How it works.** The console blocks with the prompt `$ ` ([`labsw_tests::pages`]) run in order at one switch, which
//! has the ports of [`LAB`] and is put back before each page ([`begin_page`]). A shell in the switch's namespace runs
//! the commands, so pipes work. The directory of the test's switch reads as `/run/labsw`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use labsw_tests::netns;
use labsw_tests::packet::{BROADCAST, Frame, Mac};
use labsw_tests::pages::{Printed, is_output, printed};
use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::Lab;

/// The ports of the pages' examples, beside the veth ports of [`VETH`].
const LAB: &str = r#"
[ports.uplink]
type = "af_xdp"
device = "name:lab-b"
vlan = { mode = "trunk", trunks = [10, 20] }

[ports.dc01]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }

[mirrors.detect]
sources = ["web"]
to = "span"
"#;
const VETH: [(&str, &str); 3] = [
    ("web", "vlan = { mode = \"access\", tag = 10 }"),
    ("db", "vlan = { mode = \"access\", tag = 20 }"),
    ("span", "mirror_only = true"),
];
/// The stations of the pages' examples: port, VLAN of the tag, address.
const STATIONS: [(&str, Option<u16>, Mac); 4] = [
    ("web", None, [0x26, 0x2d, 0x2f, 0x39, 0x1a, 0x56]),
    ("db", None, [0x52, 0x7a, 0xb1, 0x14, 0xc9, 0xb1]),
    ("uplink", Some(10), [0xde, 0xb9, 0x2e, 0x8c, 0xc5, 0xaa]),
    ("uplink", Some(20), [0x1e, 0x6e, 0x80, 0x82, 0x9d, 0x2b]),
];
/// Ends the output of a command; no program prints this character.
const END: char = '\u{1}';

/// The pages, and the front page.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// Runs the commands in one shell; returns the output of each.
fn run(switch: &Labswd<'_>, commands: &[Printed]) -> Vec<String> {
    let end = "\n{ status=$?; printf '\\001'; (exit $status); }\n";
    let script: String = commands.iter().map(|printed| printed.command.clone() + end).collect();
    let site = switch.site();
    let programs = find_binary("labsw-ctl").unwrap().parent().unwrap().to_owned();
    let path: OsString = std::env::join_paths(
        std::iter::once(programs).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let mut shell = site.ns.command("sh");
    shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(site.dir());
    shell.env("PATH", path).env("LABSW_SOCKET", site.control_socket());
    let output = shell.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace(&site.dir().display().to_string(), "/run/labsw");
    text.split(END).map(str::to_owned).collect()
}

/// Undoes the changes of the page before. Then each station sends one frame, and one more arrives at `uplink` without a
/// tag; returns once all addresses are learned.
fn begin_page(lab: &Lab, switch: &Labswd<'_>) {
    switch.ctl(&["config", "apply", &lab.site.dir().join("lab.toml").to_string_lossy()]);
    switch.ctl(&["port", "up", "span"]);
    for port in ["uplink", "web", "db", "span"] {
        switch.wait_port_up(port);
    }
    switch.ctl(&["fdb", "flush"]);
    let dropped = switch.drops("uplink", "untagged_not_allowed");
    let untagged = ("uplink", None, STATIONS[2].2);
    for (port, vlan, address) in STATIONS.into_iter().chain([untagged]) {
        let mut frame = Frame::new(BROADCAST, address);
        if let Some(vlan) = vlan {
            frame = frame.vlan(vlan);
        }
        lab.socket(port).send(&frame.build());
    }
    process::wait_for("addresses of four stations", Duration::from_secs(10), || {
        let entries = switch.ctl(&["fdb", "list"]).as_array()?.len();
        (entries == STATIONS.len() && switch.drops("uplink", "untagged_not_allowed") > dropped).then_some(())
    });
}

#[test]
fn the_comparison_tells_words_and_lines_apart() {
    let is = |printed: &str, output: &str| is_output(&printed.lines().map(str::to_owned).collect::<Vec<_>>(), output);
    assert!(is("web  up  12 s", "web   up  3 s"));
    assert!(!is("web  up  12 s", "web  down  12 s"));
    assert!(is("a\n…\nd", "a\nb\nc\nd") && is("a\n…\nd", "a\nd") && !is("a\n…\nd", "a\nb"));
    assert!(is("x {…} y", "x {1, 2} y") && !is("x {…} y", "x [1] y") && !is("x … x", "x "));
    assert!(!is("labsw-ctl: VLAN 10", "labsw-ctl: VLAN 20") && !is("", "a") && !is("a", ""));
}

#[test]
fn the_pages_print_what_the_programs_print() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("jq")]) {
        return;
    }
    let lab = Lab::new("prt");
    netns::wire((&lab.site.ns, "lab-b"), (&lab.peers, "uplink"));
    let switch = lab.start("", &VETH, LAB);
    let (mut compared, mut wrong) = (0, String::new());
    for page in pages() {
        let commands = printed(&page, "$ ");
        if commands.is_empty() {
            continue;
        }
        begin_page(&lab, &switch);
        for (printed, output) in commands.iter().zip(run(&switch, &commands)) {
            if !is_output(&printed.output, &output) {
                wrong += &format!("{}:{}: $ {}\n{output}", page.display(), printed.line, printed.command);
            }
            compared += 1;
        }
    }
    switch.stop();
    assert!(wrong.is_empty(), "the programs print otherwise:\n{wrong}");
    assert!(compared > 60, "{compared} commands in console blocks");
}
