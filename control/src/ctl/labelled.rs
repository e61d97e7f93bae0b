//! `labsw-ctl label`: the labels of a timeline in a capture, as comments on the frames of their time. Asks no switch.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::capture::Target;
use super::output::Output;
use super::parse::is_dash;
use super::score::read_log;
use super::session::Failure;
use crate::pcapng::annotate::{AnnotateError, Label, annotate};
use crate::score::timeline::{self, Span};

/// The capture, the timeline, and the target.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The pcapng file; -: standard input, as from `labsw-ctl rewind -w -`.
    capture: PathBuf,
    /// The timeline that `inject --label` and `impair set --label` wrote.
    timeline: PathBuf,
    /// The pcapng file to write; -: standard output.
    #[arg(short, long, value_name = "FILE|-")]
    write: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// A file can't be read or written.
pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Arguments { capture, timeline, write } = arguments;
    let spans = read_log(timeline, timeline::read)?;
    let labels: Vec<Label> = spans.iter().map(label).collect();
    let unusable = |reason: String| Failure::Capture(format!("{}: {reason}", shown(capture)));
    let mut input: Box<dyn Read> = match is_dash(capture) {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(capture).map_err(|error| unusable(error.to_string()))?)),
    };
    if is_same(capture, write) {
        return Err(unusable("is the capture itself; write to another file".to_owned()));
    }
    let target = Target::new(write.clone())?;
    let mut file = BufWriter::new(target.open()?);
    let counts = annotate(&mut input, &mut file, &labels).map_err(|error| match error {
        AnnotateError::Write(reason) => target.failure(reason),
        other => unusable(other.to_string()),
    })?;
    match (output.is_json(), is_dash(write)) {
        (_, true) => Ok(()),
        (true, _) => output.pretty(&json!({"frames": counts.frames, "labelled": counts.labelled})),
        _ => output.bytes(format!("{} of {} frames labelled\n", counts.labelled, counts.frames).as_bytes()),
    }
}

/// True if both are the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |file: &Path| std::fs::metadata(file).map(|of| (of.dev(), of.ino())).ok();
    !is_dash(one) && place(one).is_some_and(|one| place(other) == Some(one))
}

fn shown(file: &Path) -> String {
    if is_dash(file) { "standard input".to_owned() } else { file.display().to_string() }
}

/// A span of the timeline as the comment of its frames.
fn label(span: &Span) -> Label {
    Label {
        text: format!("label {}", span.label),
        start_ns: span.start.as_nanoseconds(),
        end_ns: span.end.map_or(i128::MAX, |end| end.as_nanoseconds()),
    }
}
