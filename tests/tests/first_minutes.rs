//! The first ten minutes of README.md, command by command, as a new user types them: a lab of namespaces, a ping, a
//! mirror, a broken link, and nothing left afterwards. The commands run as one interactive script in a network
//! namespace of their own, with a `/run` of their own; `make` is left out, the built programs are in the `PATH`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use labsw_tests::process;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{TempDir, check_config, find_binary};

/// The section, and the block that only builds.
const SECTION: &str = "## The first ten minutes";
const BUILDS: &str = "make ";

/// The blocks of `language` in the section.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let section = page.split_once(SECTION).expect("the section").1;
    let section = section.split_once("\n## ").expect("another section").0;
    let opening = format!("```{language}\n");
    section.split(&opening).skip(1).map(|block| block.split_once("```").expect("an end").0.to_owned()).collect()
}

#[test]
fn readme_works_as_printed() {
    let needs = [Need::Root, Need::Labswd, Need::Program("unshare"), Need::Program("tcpdump"), Need::Program("ping")];
    if !require::all(&needs) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = root.join("control/examples/first.toml");
    let [toml] = &blocks(&page, "toml")[..] else { panic!("one configuration") };
    assert!(std::fs::read_to_string(&example).unwrap().ends_with(toml.as_str()), "the page prints the example");
    assert_eq!(check_config(&example).0, Some(0));

    let commands: Vec<_> = blocks(&page, "sh").into_iter().filter(|block| !block.starts_with(BUILDS)).collect();
    assert_eq!(commands.len(), 4, "the lab, the mirror, the broken link, the end");
    let dir = TempDir::new();
    // As in a fresh machine: lo is up, /run is empty. `set -m`: job numbers, as a terminal has them. A command that
    // fails ends the switch, too.
    let script = format!(
        "set -em\ntrap 'jobs -p | xargs -r kill' EXIT\nmount -t tmpfs none /run\nmkdir /run/netns\nip link set lo up\nln -s {root}/control control\n\
         {}\necho links: $(ip -o link | wc -l)\n",
        commands.join("echo ==\n"),
        root = root.canonicalize().unwrap().display(),
    );
    let programs = find_binary("labswd").unwrap().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--net", "bash", "-c", &script]).current_dir(dir.path()).env("PATH", path);
    let (status, printed) = process::output(&mut shell);
    let log = std::fs::read_to_string(dir.path().join("labswd.log")).unwrap_or_default();
    let whole = format!("{printed}\n{log}");
    assert!(status.success(), "{status}\n{whole}");

    let parts: Vec<_> = printed.split("==\n").collect();
    assert!(parts[0].contains("3 packets transmitted, 3 received"), "{whole}");
    assert!(parts[0].lines().any(|line| line.starts_with("web ") && line.contains("access 10")), "{whole}");
    assert_eq!(parts[0].lines().filter(|line| line.trim_start().starts_with("10  ")).count(), 2, "{whole}");
    assert_eq!(parts[1].matches("ICMP echo").count(), 4, "the sensor sees both ways: {whole}");
    assert!(parts[2].contains("time=10"), "50 ms each way: {whole}");
    assert!(printed.contains("links: 1\n"), "only lo is left: {whole}");
}
