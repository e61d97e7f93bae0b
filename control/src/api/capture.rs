//! Captures: what is asked for, what comes, and what runs.

use serde::{Deserialize, Serialize};

use super::{Error, Source};

/// Bytes kept of a frame where nothing is said.
pub const DEFAULT_SNAPLEN: u32 = 65_535;

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSpec {
    /// At which ports; empty: at all.
    pub ports: Vec<Source>,
    /// What was dropped there in place of what passed.
    pub drops: bool,
    /// Drops for these reasons only; empty: for any.
    pub reasons: Vec<String>,
    /// Only frames that this selects, in tcpdump syntax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of each frame; 0: all.
    pub snaplen: u32,
    /// It ends after so many frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// It ends after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<u64>,
}

impl Default for CaptureSpec {
    /// All that passes at all ports, without end.
    fn default() -> CaptureSpec {
        CaptureSpec {
            ports: Vec::new(),
            drops: false,
            reasons: Vec::new(),
            filter: None,
            snaplen: DEFAULT_SNAPLEN,
            count: None,
            duration_milliseconds: None,
        }
    }
}

impl CaptureSpec {
    /// Checks what the parameters say together.
    pub(super) fn check(&self) -> Result<(), Error> {
        let known = |reason: &String| labsw_switch::DropReason::ALL.iter().any(|known| known.name() == reason.as_str());
        if !self.reasons.iter().all(known) || (!self.drops && !self.reasons.is_empty()) {
            return Err(Error::invalid("reasons"));
        }
        if self.count == Some(0) {
            return Err(Error::invalid("count"));
        }
        Ok(())
    }
}

/// A piece of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturePiece {
    /// Bytes of a pcapng file, in base64: the next ones.
    pub pcapng: String,
    /// Frames captured since it began.
    pub captured: u64,
    /// Frames for which it had no room.
    pub dropped: u64,
}

/// A capture that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCapture {
    /// Where; empty: everywhere.
    pub ports: Vec<Source>,
    /// Whether it is one of drops.
    pub drops: bool,
    /// Its filter.
    pub filter: Option<String>,
    /// Process id of the client; 0 if it is in another pid namespace.
    pub pid: i32,
    /// Seconds since it began.
    pub age_seconds: u64,
    /// Frames captured since.
    pub captured: u64,
    /// Frames for which it had no room.
    pub dropped: u64,
}
