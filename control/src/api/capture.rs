//! Captures: the request for one, its pieces, and the list of running captures.

use serde::{Deserialize, Serialize};

use super::{Error, Source};

/// Bytes kept of each frame if the request does not say.
pub const DEFAULT_SNAPLEN: u32 = 65_535;

/// The parameters of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSpec {
    /// The ports to capture at; empty: all.
    pub ports: Vec<Source>,
    /// Captures the frames dropped at the ports in place of those that pass.
    pub drops: bool,
    /// Captures only drops for these reasons; empty: for all.
    pub reasons: Vec<String>,
    /// Captures only frames that match this filter, in tcpdump syntax.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of each frame; 0: all.
    pub snaplen: u32,
    /// Ends the capture after this many frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Ends the capture after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_milliseconds: Option<u64>,
    /// Gives the frames of the last so many milliseconds that the ports keep, dropped ones among them, and ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_milliseconds: Option<u64>,
}

impl Default for CaptureSpec {
    /// All frames that pass at all ports, without end.
    fn default() -> CaptureSpec {
        CaptureSpec {
            ports: Vec::new(),
            drops: false,
            reasons: Vec::new(),
            filter: None,
            snaplen: DEFAULT_SNAPLEN,
            count: None,
            duration_milliseconds: None,
            last_milliseconds: None,
        }
    }
}

impl CaptureSpec {
    /// Checks parameters that depend on each other.
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
    /// The next bytes of a pcapng file, in base64.
    pub pcapng: String,
    /// Frames captured since the capture began.
    pub captured: u64,
    /// Frames for which the capture had no room.
    pub dropped: u64,
}

/// A running capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCapture {
    /// The ports that are captured; empty: all.
    pub ports: Vec<Source>,
    /// True for a capture of dropped frames.
    pub drops: bool,
    /// The filter of the capture.
    pub filter: Option<String>,
    /// Process id of the client; 0 if it is in another pid namespace.
    pub pid: i32,
    /// Seconds since the capture began.
    pub age_seconds: u64,
    /// Frames captured since then.
    pub captured: u64,
    /// Frames for which the capture had no room.
    pub dropped: u64,
}
