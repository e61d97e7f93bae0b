//! Frames that a client injects as received on a port.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A frame to inject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectFrame {
    /// When the frame is due, in nanoseconds after the first frame; not before the previous frame.
    pub at_nanoseconds: u64,
    /// The bytes of the frame, base64.
    pub data: String,
}

impl InjectFrame {
    /// A frame with these bytes.
    pub fn new(at_nanoseconds: u64, bytes: &[u8]) -> InjectFrame {
        InjectFrame { at_nanoseconds, data: STANDARD.encode(bytes) }
    }

    /// The bytes of the frame; `None` if `data` is not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.data).ok()
    }
}

/// The state of an injection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// The number of the injection, for the next call.
    pub injection: u64,
    /// Frames of this call that there was room for, counted from the first.
    pub taken: u64,
    /// Frames that wait to be received.
    pub waiting: u64,
    /// Frames that entered the switch at the port.
    pub sent: u64,
    /// Frames that the port has dropped since the injection began, by reason.
    pub drops: BTreeMap<String, u64>,
}
