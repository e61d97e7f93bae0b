//! Completion as bash does it: a real bash reads the script, has a line, and shows what it would offer.

use super::*;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// The candidates that bash has for the last of these words.
fn offered(socket: &Path, words: &[&str]) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_labsw-ctl"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    // bash calls the function with the program, the word and the word before.
    let line = r#"
        eval "$(labsw-ctl completions bash)"
        [[ $(complete -p labsw-ctl) =~ -F\ ([^ ]+) ]] && function=${BASH_REMATCH[1]}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        "$function" labsw-ctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", line, "bash"]).args(words).stdin(Stdio::null());
    let output = bash.env("PATH", path).env("LABSW_SOCKET", socket).output().unwrap();
    assert_eq!(text(&output.stderr), "", "{words:?}");
    text(&output.stdout).lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn names_of_the_running_switch_are_completed() {
    let switch = Switch::start();
    let cases: &[(&str, &[&str])] = &[
        ("port show ", &["dc01", "lossy", "uplink"]),
        ("port show l", &["lossy"]),
        ("port del dc01 u", &["uplink"]),
        ("port add ", &[]),
        ("mirror show ", &["detect"]),
        ("mirror set detect --source d", &["dc01"]),
        ("capture up", &["uplink"]),
        ("impair clear ", &["dc01", "web"]),
        ("impair set dc01 --profile c", &["constrained"]),
        ("fdb list --vlan ", &["20"]),
        ("fdb flush --port up", &["uplink"]),
        ("inline set ips --through dc01,l", &["dc01,lossy"]),
        // Commands and options, without the switch.
        ("por", &["port"]),
        ("port sh", &["show"]),
        ("port show --js", &["--json"]),
    ];
    for (line, expected) in cases {
        let words: Vec<&str> = std::iter::once("labsw-ctl").chain(line.split(' ')).collect();
        let mut got = offered(&switch.socket, &words);
        got.sort();
        got.retain(|word| !word.starts_with('-') || line.ends_with("--js"));
        assert_eq!(got, *expected, "{line:?}");
    }
    let named = format!("labsw-ctl --socket {} port show lo", switch.socket.display());
    let words: Vec<&str> = named.split(' ').collect();
    assert_eq!(offered(Path::new("/nonexistent/a.sock"), &words), ["lossy"]);
}

/// Without a switch, or with one that never answers, there are no names, no messages, and hardly a wait.
#[test]
fn completion_is_silent_and_soon_without_an_answer() {
    let silent = std::env::temp_dir().join(format!("labsw-ctl-silent-{}.sock", std::process::id()));
    let _listening = UnixListener::bind(&silent).unwrap();
    for socket in [Path::new("/nonexistent/a.sock"), &silent] {
        let before = Instant::now();
        let options = offered(socket, &["labsw-ctl", "port", "show", ""]);
        assert!(before.elapsed() < Duration::from_secs(15), "other commands wait for 30 s");
        assert!(options.iter().all(|option| option.starts_with('-')), "{options:?}");
        assert_eq!(offered(socket, &["labsw-ctl", "mirr"]), ["mirror"]);
    }
    std::fs::remove_file(&silent).unwrap();
}

#[test]
fn each_shell_has_a_script_that_asks_the_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = command(Path::new("/nonexistent/a.sock"), &["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = text(&output.stdout);
        assert!(script.contains("LABSW_COMPLETE") && script.contains("labsw-ctl"), "{shell}: {script}");
    }
}
