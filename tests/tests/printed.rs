//! Runs the console blocks of README.md and docs/ as they are printed, and compares what the programs print with what
//! the page prints.
//!
//! **How it works.** A block of the language `console` holds commands, each behind `$ `, and below each its output. All
//! such blocks run in order at one switch, which has the ports of [`LAB`] and is put back before each page
//! ([`begin_page`]). A shell in the switch's namespace runs the commands, so pipes work.
//!
//! **Differences that count as equal.** `…` alone on a line stands for any lines, within a line for any text. A number
//! may be another number (counters, ages) and columns may have other widths, but not in errors. The directory of the
//! test's switch reads as `/run/labsw`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use labsw_tests::netns;
use labsw_tests::packet::{BROADCAST, Frame, Mac};
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

/// A command of a page, and its output there.
struct Printed {
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The pages, and the front page.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// The commands in the console blocks of a page.
fn printed(page: &Path) -> Vec<Printed> {
    let (mut all, mut in_console, mut continued) = (Vec::<Printed>::new(), false, false);
    for (line, text) in (1..).zip(std::fs::read_to_string(page).unwrap().lines()) {
        if let Some(language) = text.strip_prefix("```") {
            in_console = language == "console";
        } else if in_console && continued {
            let command = &mut all.last_mut().unwrap().command;
            *command = format!("{}\n{text}", command);
            continued = text.ends_with('\\');
        } else if in_console {
            match text.strip_prefix("$ ") {
                Some(command) => {
                    all.push(Printed { line, command: command.to_owned(), output: Vec::new() });
                    continued = command.ends_with('\\');
                }
                None => all.last_mut().expect("a block begins with a command").output.push(text.to_owned()),
            }
        }
    }
    all
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

/// A line in the form that is compared: blanks are one blank, numbers are one number. Errors stay as they are.
fn comparable(line: &str) -> String {
    if ["labsw-ctl: ", "labswd: "].iter().any(|program| line.starts_with(program)) {
        return line.trim_end().to_owned();
    }
    let mut text = String::new();
    for character in line.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match character {
            '0'..='9' if text.ends_with('0') => {}
            '0'..='9' => text.push('0'),
            other => text.push(other),
        }
    }
    text
}

/// True if a line is the one that a page prints.
fn is_line(printed: &str, line: &str) -> bool {
    let (printed, line) = (comparable(printed), comparable(line));
    let parts: Vec<&str> = printed.split('…').collect();
    let [first, .., last] = parts[..] else { return printed == line };
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    parts[1..parts.len() - 1].iter().all(|part| {
        let found = rest.split_once(part);
        rest = found.map_or("", |(_, behind)| behind);
        found.is_some()
    })
}

/// True if an output is the one that a page prints.
fn is_output(printed: &[&str], lines: &[&str]) -> bool {
    match printed.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=lines.len()).any(|skipped| is_output(rest, &lines[skipped..]))
        }
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, left)| is_line(first, line) && is_output(rest, left))
        }
    }
}

#[test]
fn the_comparison_tells_words_and_lines_apart() {
    let is = |printed: &str, output: &str| {
        is_output(&printed.lines().collect::<Vec<_>>(), &output.lines().collect::<Vec<_>>())
    };
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
        let commands = printed(&page);
        if commands.is_empty() {
            continue;
        }
        begin_page(&lab, &switch);
        for (printed, output) in commands.iter().zip(run(&switch, &commands)) {
            let expected: Vec<&str> = printed.output.iter().map(String::as_str).collect();
            if !is_output(&expected, &output.lines().collect::<Vec<_>>()) {
                wrong += &format!("{}:{}: $ {}\n{output}", page.display(), printed.line, printed.command);
            }
            compared += 1;
        }
    }
    switch.stop();
    assert!(wrong.is_empty(), "the programs print otherwise:\n{wrong}");
    assert!(compared > 60, "{compared} commands in console blocks");
}
