//! The walk through docs/break-and-detect.md, command by command, with a real Suricata: an attack is detected, scored,
//! stopped (by quarantine, and in the wire of a port) and rewound, and the programs print what the page prints.
//!
//! **How it works.** One shell runs the page's commands, one after the other, in mount, network and process namespaces
//! of its own, with a `/run` of its own; when it is killed, everything it started goes too. A command that only looks
//! ([`LOOKS`]) is repeated until its output is the page's: Suricata, and counters, take their time.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use labsw_tests::pages::{is_output, printed};
use labsw_tests::process::Process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{TempDir, find_binary};

const PAGE: &str = "docs/break-and-detect.md";
/// How the commands begin that change nothing.
const LOOKS: [&str; 7] = [
    "cat ",
    "grep ",
    "head ",
    "labsw-ctl score ",
    "labsw-ctl mirror list",
    "labsw-ctl inline list",
    "labsw-ctl rewind ",
];
/// How long the page's output is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ends a command, and its output; no program prints this character.
const END: &str = "\u{1}";

/// The shell that runs the commands.
struct Shell {
    process: Process,
    read: usize,
}

impl Shell {
    fn new(root: &Path, dir: &Path) -> Shell {
        // Commands come through a descriptor that no other program has, as they are typed on a terminal.
        let script = format!(
            "exec 3<&0 0</dev/null 2>&1\nmount -t tmpfs none /run\nmkdir /run/netns\nip link set lo up\n\
             ln -s '{}/control' control\n\
             while IFS= read -r -d $'\\001' -u 3 command; do eval \"$command\" 3<&-; printf '\\001'; done",
            root.display()
        );
        let programs = find_binary("labswd").unwrap().parent().unwrap().to_owned();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--mount-proc", "--fork", "--kill-child", "bash", "-c", &script]);
        command.current_dir(dir).env("PATH", path).env_remove("LABSW_SOCKET").env_remove("LABSW_TIMELINE");
        Shell { process: Process::spawn("the page's shell", &mut command), read: 0 }
    }

    /// Runs a command; returns its output.
    fn run(&mut self, command: &str) -> String {
        self.process.write(&format!("{command}{END}"));
        let (output, read) = self.process.wait_for_text(self.read, END, PATIENCE);
        self.read = read;
        output
    }
}

#[test]
fn the_walk_through_works_as_printed() {
    let programs = ["unshare", "suricata", "tshark", "tcpdump", "ping", "busybox"].map(Need::Program);
    if !require::all(&[Need::Root, Need::Labswd]) || !require::all(&programs) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let commands = printed(&root.join(PAGE), "# ");
    for step in ["suricata ", "labsw-ctl inject ", "labsw-ctl score ", "labsw-ctl inline set", "labsw-ctl rewind "] {
        assert!(commands.iter().any(|printed| printed.command.contains(step)), "no {step}in {PAGE}");
    }
    let dir = TempDir::new();
    let mut shell = Shell::new(&root, dir.path());
    let mut wrong = String::new();
    for printed in &commands {
        let begun = Instant::now();
        let looks = LOOKS.iter().any(|begin| printed.command.starts_with(begin));
        let mut output = shell.run(&printed.command);
        while looks && !is_output(&printed.output, &output) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            output = shell.run(&printed.command);
        }
        if !is_output(&printed.output, &output) {
            wrong += &format!("{PAGE}:{}: # {}\n{output}", printed.line, printed.command);
            break;
        }
    }
    let log = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    assert!(wrong.is_empty(), "{wrong}\n{}\n{}", log("labswd.log"), log("suricata.log"));
    assert_eq!(shell.run("ip -o link | wc -l"), "1\n", "only lo is left");
    assert_eq!(shell.run("ls /run/netns"), "");
}
