//! Mirror sessions as they are set and shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::model::Inject;

/// Which frames of a source port are copied. `rx` is from the port into the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the port sent to the switch.
    Rx,
    /// What the switch sent to the port.
    Tx,
    /// Both.
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
    /// Which of its frames.
    pub direction: Direction,
}

/// Text that is no source of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mirror source (PORT, PORT:rx, PORT:tx or PORT:both)")]
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

/// What a mirror is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// Copies are sent.
    Up,
    /// The destination or a source is not there or not up; the reason says which.
    Waiting,
    /// Out of service until something is mended.
    Failed,
}

impl fmt::Display for MirrorState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            MirrorState::Up => "up",
            MirrorState::Waiting => "waiting",
            MirrorState::Failed => "failed",
        })
    }
}

/// A mirror session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Name.
    pub name: String,
    /// What it is doing.
    pub state: MirrorState,
    /// Why it is not up, one clause.
    pub reason: Option<String>,
    /// Name of the destination port; `None`: copies go to a VLAN.
    pub to: Option<String>,
    /// The VLAN that copies go to.
    pub to_vlan: Option<u16>,
    /// The VLAN is taken even if it is the one of untagged frames of a port.
    pub force: bool,
    /// What is copied.
    pub sources: Vec<Source>,
    /// Only frames of these VLANs; empty: all.
    pub vlans: Vec<u16>,
    /// Only frames that this expression selects; `None`: all.
    pub filter: Option<String>,
    /// Bytes copied of each frame; 0: all.
    pub snaplen: u32,
    /// What this mirror says the destination may inject.
    pub inject: Option<Inject>,
    /// Frames selected.
    pub matched: u64,
    /// Copies the destination took.
    pub sent: u64,
    /// Copies it did not take.
    pub dropped: u64,
    /// Copies cut to `snaplen`.
    pub truncated: u64,
}

impl Mirror {
    /// Where its copies go, for people: a port, or `VLAN 900`.
    pub fn destination(&self) -> String {
        match (&self.to, self.to_vlan) {
            (Some(port), _) => port.clone(),
            (None, Some(vlan)) => format!("VLAN {vlan}"),
            (None, None) => "-".to_owned(),
        }
    }
}
