//! `labsw-ctl score`: which labels of a timeline a sensor noticed, and how soon. Asks no switch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::Output;
use super::parse;
use super::session::Failure;
use super::table::{Screen, notes, number, state, text};
use crate::model::Span as Time;
use crate::score::{Outcome, Score, Unreadable, alerts, score, timeline};

/// The timeline, and the sensor's logs.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The timeline that `inject --label` and `impair set --label` wrote.
    timeline: PathBuf,
    /// Suricata's alerts.
    #[arg(value_name = "EVE.JSON", required_unless_present = "notices")]
    eve: Option<PathBuf>,
    /// Zeek's notices.
    #[arg(long, value_name = "NOTICE.LOG")]
    notices: Option<PathBuf>,
    /// How long after its end an alert still counts for a label.
    #[arg(long, value_name = "T", default_value = "10s", value_parser = parse::unit::<Time>)]
    grace: Time,
}

/// Prints the score.
///
/// # Errors
/// A file can't be read.
pub(super) fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { timeline, eve, notices, grace } = arguments;
    let spans = read_log(&timeline, timeline::read)?;
    let mut seen = eve.map(|file| read_log(&file, alerts::suricata)).transpose()?.unwrap_or_default();
    seen.extend(notices.map(|file| read_log(&file, alerts::zeek)).transpose()?.unwrap_or_default());
    let score = score(&spans, &seen, Duration::from(grace));
    if output.is_json() {
        return output.pretty(&score);
    }
    output.bytes(table(output.screen(), &score).as_bytes())
}

/// Reads a timeline or a log.
///
/// # Errors
/// The file can't be read, or has a mistake.
pub(super) fn read_log<T>(file: &Path, parse: impl Fn(&str) -> Result<T, Unreadable>) -> Result<T, Failure> {
    let unusable = |reason: String| Failure::Capture(format!("{}: {reason}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    parse(&String::from_utf8_lossy(&bytes)).map_err(|error| unusable(error.to_string()))
}

fn table(screen: Screen, score: &Score) -> String {
    let row = |outcome: &Outcome| {
        vec![
            text(&outcome.label),
            text(&outcome.kind),
            text(&outcome.port),
            state(if outcome.hit { "hit" } else { "miss" }),
            number(outcome.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"))),
            number(outcome.alerts),
            notes(outcome.first.as_deref().unwrap_or_default()),
        ]
    };
    let headings = ["label", "kind", "port", "result", "seconds", "alerts", "first alert"];
    let rows = screen.rows(&headings, score.labels.iter().map(row).collect(), "no labels");
    let median = score.median_seconds.map_or_else(String::new, |median| format!(", median {median:.3} s"));
    let Score { hits, beside, .. } = score;
    format!("{rows}\n{hits} of {} detected{median}; alerts beside the labels: {beside}\n", score.labels.len())
}
