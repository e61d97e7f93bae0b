//! Standard output: raw bytes or JSON. [`super::render`] formats replies.

use std::io::{self, Write};

use serde::Serialize;

use super::session::Failure;
use super::table::Screen;

/// The form of a command's output.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    screen: Screen,
}

impl Output {
    pub(super) fn new(json: bool, screen: Screen) -> Output {
        Output { json, screen }
    }

    /// The width and colours of tables.
    pub(super) fn screen(&self) -> Screen {
        self.screen
    }

    /// True if the output is JSON.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints JSON over several lines, readable for people as well.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn pretty(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::from)?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// Prints JSON on one line.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// Prints these bytes unchanged.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }
}
