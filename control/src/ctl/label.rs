//! `--label`: writes what is injected or impaired into a timeline, which `labsw-ctl score` reads.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use super::session::Failure;
use crate::score::time::Time;
use crate::score::timeline::Line;

/// The label, and the file with the timeline.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Label {
    /// A name for the timeline, under which `labsw-ctl score` says if a sensor noticed.
    #[arg(long, value_name = "NAME", value_parser = super::parse::name)]
    label: Option<String>,
    /// Only alerts with this text count for the label.
    #[arg(long, value_name = "TEXT", requires = "label")]
    expect: Option<String>,
    #[command(flatten)]
    timeline: TimelineFile,
}

/// The file with the timeline.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TimelineFile {
    /// The timeline, to which lines are added; left out: `timeline.json` here.
    #[arg(long, value_name = "FILE", env = "LABSW_TIMELINE")]
    timeline: Option<PathBuf>,
}

impl Label {
    /// Writes that something began at `start`, and perhaps that it ended, if it has a label.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn note(&self, kind: &str, port: &str, start: Time, end: Option<Time>) -> Result<(), Failure> {
        let Some(label) = &self.label else { return Ok(()) };
        self.timeline.add(&Line {
            label: Some(label.clone()),
            kind: kind.to_owned(),
            port: port.to_owned(),
            start: Some(start),
            end,
            expect: self.expect.clone(),
        })
    }
}

impl TimelineFile {
    /// Writes that something ended, if a file is named.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn end(&self, kind: &str, port: &str) -> Result<(), Failure> {
        if self.timeline.is_none() {
            return Ok(());
        }
        self.add(&Line { kind: kind.to_owned(), port: port.to_owned(), end: Some(Time::now()), ..Line::default() })
    }

    fn add(&self, line: &Line) -> Result<(), Failure> {
        let file = self.timeline.clone().unwrap_or_else(|| PathBuf::from("timeline.json"));
        let text = serde_json::to_string(line).map_err(std::io::Error::from)?;
        // One write, so that lines of several commands do not mix.
        let opened = OpenOptions::new().create(true).append(true).open(&file);
        let written = opened.and_then(|mut opened| opened.write_all(format!("{text}\n").as_bytes()));
        written.map_err(|reason| Failure::File { file, reason })
    }
}
