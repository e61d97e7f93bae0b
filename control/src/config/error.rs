//! The error of a configuration: a place, a key, and the reason.
//!
//! Invariant: the text of a [`ConfigError`] is exactly one line, whatever was in the file. A value or a key that the
//! line repeats is cut after 80 characters.

use std::fmt;

use crate::model::cut;

/// A place in a file, as editors and compilers count: both numbers from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// An error like `FILE:LINE:COLUMN: ports.dc01.vlan.tag: 5000 is not a VLAN id (1 to 4094)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    place: Option<Place>,
    key: String,
    message: String,
}

/// Every mistake of a configuration, in the order of its text, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> ConfigErrors {
        ConfigErrors(vec![error])
    }
}

impl ConfigError {
    /// An error about `key` (dotted, may be empty) at `place`; text of several lines is made one line, and long values
    /// in quotes are cut.
    pub(super) fn new(place: Option<Place>, key: &str, message: &str) -> ConfigError {
        let place = place.map(|p| Place { file: one_line(&p.file), ..p });
        ConfigError { place, key: one_line(&cut_key(key)), message: one_line(&cut_quotes(message)) }
    }

    /// The place of the mistake; `None` for settings that came from a command and not from a file.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The wrong key, dotted from the root of the configuration; empty for the file as a whole.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The complaint for a reader who knows `table` (dotted) already: the rest of the key, and the message.
    pub fn within(&self, table: &str) -> String {
        match self.key.strip_prefix(table).map(|rest| rest.trim_start_matches('.')) {
            Some("") => self.message.clone(),
            Some(rest) => format!("{rest}: {}", self.message),
            None => self.to_string(),
        }
    }

    /// The reason, and how to mend it.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column }) = &self.place {
            write!(out, "{file}:{line}:{column}: ")?;
        }
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)
    }
}

/// The dotted key with each of its parts cut.
fn cut_key(key: &str) -> String {
    key.split('.').map(cut).collect::<Vec<_>>().join(".")
}

/// The message with each text in quotes cut. Inside quotes, a backslash stands before a quote.
fn cut_quotes(message: &str) -> String {
    let mut short = String::new();
    let mut rest = message;
    while let Some((before, from_quote)) = rest.split_once('"') {
        let mut escaped = false;
        let end = from_quote.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some((quoted, behind)) = end.and_then(|end| from_quote.split_at_checked(end)) else { break };
        short.extend([before, "\"", &cut(quoted), "\""]);
        rest = behind.strip_prefix('"').unwrap_or(behind);
    }
    short + rest
}

/// The text with control characters and line separators escaped.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
