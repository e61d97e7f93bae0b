//! What the pages under `docs/` list has to be what the code has.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use labsw_switch::DropReason;

/// `docs/drops.md` has one row per drop reason, in the order of the code, and none for a reason that is gone.
#[test]
fn every_drop_reason_has_its_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drops.md");
    let text = std::fs::read_to_string(page).unwrap();
    // Behind them stand the kernel's counters.
    let text = text.split("\n## ").next().unwrap();
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let (in_page, in_code) = (BTreeSet::from_iter(&rows), BTreeSet::from_iter(&names));
    let missing: Vec<_> = in_code.difference(&in_page).collect();
    let surplus: Vec<_> = in_page.difference(&in_code).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "docs/drops.md lacks {missing:?} and has surplus {surplus:?}");
    assert_eq!(rows, names, "docs/drops.md lists the reasons in another order than switch/src/drop_reason.rs");
}

/// And one per counter of the kernel, in the order of the code.
#[test]
fn every_counter_of_the_kernel_has_its_row() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drops.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (_, text) = text.split_once("\n## What the kernel drops").unwrap();
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(rows, labsw_dataplane::xdp::XdpCounters::default().named().map(|(name, _)| name));
}

/// The pages, and the front page.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([root.join("README.md")]).collect()
}

/// The fenced blocks of a page: line of the fence, language, text.
fn blocks(page: &Path) -> Vec<(usize, String, String)> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (content.trim_start().strip_prefix("```"), open.take()) {
            (Some(language), None) => open = Some((line, language.to_owned(), String::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((start, language, text))) => open = Some((start, language, text + content + "\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block that does not end", page.display());
    blocks
}

/// The words of a command line of a shell up to the first operator or comment; `None` if it uses more of the shell.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        if character == '…' {
            return None;
        }
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '|' | '&' | '>' | '<' | ';') => break,
            (None, '#') if word.is_none() => break,
            (None, '$' | '`' | '*' | '[') => return None,
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    Some(words)
}

/// Each command of `labsw-ctl` in a console block is one: without a switch it fails because there is none, and not
/// because of its arguments.
#[test]
fn every_printed_command_is_understood() {
    let (mut commands, mut wrong) = (0, Vec::new());
    for page in pages() {
        for (line, _, text) in blocks(&page) {
            let text = text.replace("\\\n", " ");
            for command in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
                let Some(words) = words(command) else { continue };
                let Some(("labsw-ctl", arguments)) = words.split_first().map(|(first, rest)| (first.as_str(), rest))
                else {
                    continue;
                };
                let mut run = Command::new(env!("CARGO_BIN_EXE_labsw-ctl"));
                run.env("LABSW_SOCKET", "/nonexistent/control.sock").args(arguments);
                let output = run.current_dir(std::env::temp_dir()).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                // 2: the arguments are wrong. Files that a command reads are not there, which is 1.
                if output.status.code() == Some(2) {
                    wrong.push(format!("{}:{line}: {command}\n{error}", page.display()));
                }
                commands += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(commands > 60, "{commands} commands found");
}

/// A piece of a configuration leaves ports out; and this machine may have fewer CPUs than the one of an example.
const BESIDE_THE_POINT: [&str; 2] = ["there is no port", "this machine has no CPU"];

/// Each configuration that a page shows is in order, except that a piece of one may name ports that the page leaves
/// out.
#[test]
fn every_printed_configuration_is_in_order() {
    let file = std::env::temp_dir().join(format!("labsw-docs-{}.toml", std::process::id()));
    let (mut checked, mut wrong) = (0, Vec::new());
    for page in pages() {
        for (line, language, text) in blocks(&page) {
            if language != "toml" || text.contains('…') {
                continue;
            }
            std::fs::write(&file, &text).unwrap();
            let output =
                Command::new(env!("CARGO_BIN_EXE_labswd")).arg("--config").arg(&file).arg("--check").output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() && !BESIDE_THE_POINT.iter().any(|text| error.contains(text)) {
                wrong.push(format!("{}:{line}: {error}", page.display()));
            }
            checked += 1;
        }
    }
    std::fs::remove_file(&file).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 10, "{checked} configurations found");
}

/// Every line of the threat model names tests, and each of them is there.
#[test]
fn every_line_of_the_threat_model_is_held_by_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = String::new();
    let mut waiting: Vec<_> = ["switch", "dataplane", "control", "tests"].map(|room| root.join(room)).into();
    while let Some(path) = waiting.pop() {
        if path.is_dir() && !path.ends_with("target") {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources += &std::fs::read_to_string(path).unwrap();
        }
    }
    let is_test = |name: &str| {
        sources.match_indices(&format!("fn {name}()")).any(|(at, _)| {
            let before = sources[..at].trim_end().lines().rev();
            before
                .take_while(|line| line.starts_with('#') || line.trim_start().starts_with("#["))
                .any(|line| line.trim() == "#[test]")
        })
    };
    let page = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let (mut lines, mut in_table) = (0, false);
    for line in page.lines() {
        in_table = line.ends_with("| tests |") || (in_table && line.starts_with('|'));
        if !in_table || line.ends_with("| tests |") || line.starts_with("|---") {
            continue;
        }
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test holds: {line}");
        for name in names {
            assert!(is_test(name), "docs/threat-model.md names a test that is not there: {name}");
        }
        lines += 1;
    }
    assert!(lines >= 30, "{lines} lines with tests");
}
