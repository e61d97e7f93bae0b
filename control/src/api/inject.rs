//! Frames that a client has the switch receive on a port.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A frame to be received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InjectFrame {
    /// When, nanoseconds after the first one; not before the one ahead of it.
    pub at_nanoseconds: u64,
    /// Its bytes, base64.
    pub data: String,
}

impl InjectFrame {
    /// A frame with these bytes.
    pub fn new(at_nanoseconds: u64, bytes: &[u8]) -> InjectFrame {
        InjectFrame { at_nanoseconds, data: STANDARD.encode(bytes) }
    }

    /// Its bytes; `None` if they are none.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.data).ok()
    }
}

/// How an injection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Its number, for the next call.
    pub injection: u64,
    /// Frames of this call that there was room for: the first of them.
    pub taken: u64,
    /// Frames that wait.
    pub waiting: u64,
    /// Frames that the port has received.
    pub sent: u64,
    /// What the port has dropped since the injection began, by reason.
    pub drops: BTreeMap<String, u64>,
}
