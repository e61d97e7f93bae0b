//! Sources of mirrors and captures: a port, and the direction of its frames.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The direction of the frames to copy from a source port. `rx` is from the port into the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Frames that the port sent to the switch.
    Rx,
    /// Frames that the switch sent to the port.
    Tx,
    /// Frames of both directions.
    Both,
}

impl Direction {
    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Rx => "rx",
            Direction::Tx => "tx",
            Direction::Both => "both",
        }
    }
}

/// A source of a mirror: `PORT[:rx|:tx|:both]`; the port `*` is every port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Source {
    /// Name of the port, or `*`.
    pub port: String,
    /// The direction of its frames.
    pub direction: Direction,
}

/// The error for text that is not a source of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not PORT, PORT:rx, PORT:tx or PORT:both")]
pub struct InvalidSource;

impl FromStr for Source {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Source, InvalidSource> {
        let (port, direction) = match text.split_once(':') {
            None => (text, Direction::Both),
            Some((port, "rx")) => (port, Direction::Rx),
            Some((port, "tx")) => (port, Direction::Tx),
            Some((port, "both")) => (port, Direction::Both),
            Some(_) => return Err(InvalidSource),
        };
        if port.is_empty() {
            return Err(InvalidSource);
        }
        Ok(Source { port: port.to_owned(), direction })
    }
}

impl TryFrom<String> for Source {
    type Error = InvalidSource;

    fn try_from(text: String) -> Result<Source, InvalidSource> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> String {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.port, self.direction.name())
    }
}
