//! The commands that the pages of the documentation print, and the comparison of their output with the page.
//!
//! A block of the language `console` holds commands, each behind a prompt, and below each its output. The prompt says
//! where the commands run: `$ ` at the switch of `tests/tests/printed.rs`, `# ` as root in a lab that the page makes
//! itself (`tests/tests/walk_through.rs`). A backslash at its end continues a command on the next line.
//!
//! **Differences that count as equal.** `…` alone on a line stands for any lines, within a line for any text. A
//! number may be another number (counters, ages) and columns may have other widths, but not in errors.

use std::path::Path;

/// The prompts that a block may have.
const PROMPTS: [&str; 2] = ["$ ", "# "];

/// A command of a page, and its output there.
#[derive(Debug)]
pub struct Printed {
    /// The line of the page.
    pub line: usize,
    /// The command.
    pub command: String,
    /// The lines below it.
    pub output: Vec<String>,
}

/// The commands in the console blocks of a page that have this prompt.
///
/// # Panics
/// When the page can't be read, or a block begins with no prompt.
pub fn printed(page: &Path, prompt: &str) -> Vec<Printed> {
    let text = std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let (mut all, mut in_block, mut begins, mut continued) = (Vec::<Printed>::new(), false, false, false);
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(language) = text.strip_prefix("```") {
            (in_block, begins) = (language == "console", true);
            continue;
        }
        if in_block && begins {
            let known = PROMPTS.iter().any(|known| text.starts_with(known));
            assert!(known, "{}:{line}: a block begins with a command", page.display());
            (in_block, begins) = (text.starts_with(prompt), false);
        }
        if !in_block {
            continue;
        }
        match (text.strip_prefix(prompt), all.last_mut()) {
            (_, Some(last)) if continued => {
                last.command = format!("{}\n{text}", last.command);
                continued = text.ends_with('\\');
            }
            (Some(command), _) => {
                all.push(Printed { line, command: command.to_owned(), output: Vec::new() });
                continued = command.ends_with('\\');
            }
            (None, last) => last.expect("a block begins with a command").output.push(text.to_owned()),
        }
    }
    all
}

/// True if an output is the one that a page prints.
pub fn is_output(printed: &[String], output: &str) -> bool {
    let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
    are_lines(&printed, &output.lines().collect::<Vec<_>>())
}

fn are_lines(printed: &[&str], lines: &[&str]) -> bool {
    match printed.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=lines.len()).any(|skipped| are_lines(rest, &lines[skipped..]))
        }
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, left)| is_line(first, line) && are_lines(rest, left))
        }
    }
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
