//! Timelines: what was injected and impaired, under which label, and when.
//!
//! **The file.** One JSON object a line: `label`, `kind` (`injection`, `impairment`), `port`, `start`, `end` (left out
//! while it goes on) and, if only some alerts count, `expect`. The end of an impairment is a line of its own without
//! `start`: it ends the youngest open span of that kind and port. Lines are only ever added, so that several commands
//! can write at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alerts::Alert;
use super::error::Unreadable;
use super::time::Time;

/// A labelled injection or impairment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The label.
    pub label: String,
    /// `injection` or `impairment`.
    pub kind: String,
    /// The port.
    pub port: String,
    /// When it began.
    pub start: Time,
    /// When it ended; `None`: it goes on.
    pub end: Option<Time>,
    /// Only alerts whose text contains this count.
    pub expect: Option<String>,
}

/// A line of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The label; the end of a span needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `injection` or `impairment`.
    pub kind: String,
    /// The port.
    pub port: String,
    /// When it began; left out: an earlier line says so, and this one ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// Only alerts whose text contains this count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

impl Span {
    /// True if an alert falls into this span or the grace period behind it, and is one that is expected.
    pub fn contains(&self, alert: &Alert, grace: Duration) -> bool {
        let in_time = self.start <= alert.time && self.end.is_none_or(|end| alert.time <= end.plus(grace));
        in_time && self.expect.as_ref().is_none_or(|expected| alert.text.contains(expected.as_str()))
    }
}

/// Reads a timeline.
///
/// # Errors
/// A line is no JSON object of that form, or ends a span that did not begin.
pub fn read(text: &str) -> Result<Vec<Span>, Unreadable> {
    let mut spans: Vec<Span> = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let unreadable = |reason: String| Unreadable { line, reason };
        let read: Line = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        let Line { label, kind, port, start, end, expect } = read;
        match (start, end) {
            (Some(start), _) => {
                let label = label.ok_or_else(|| unreadable("a start without a label".to_owned()))?;
                spans.push(Span { label, kind, port, start, end, expect });
            }
            (None, Some(end)) => {
                let open = |span: &&mut Span| span.end.is_none() && span.kind == kind && span.port == port;
                let begun = spans.iter_mut().rev().find(open);
                let begun = begun.ok_or_else(|| unreadable(format!("no {kind} of port {port:?} is to be ended")))?;
                begun.end = Some(end);
            }
            (None, None) => return Err(unreadable("neither a start nor an end".to_owned())),
        }
    }
    Ok(spans)
}
