//! Clients of the control socket that go on with the new process, as data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labsw_dataplane::handover::Slot;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One client. What it has sent and nobody has read yet waits in its socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The connection.
    pub socket: Slot,
    /// Bytes that were read and not answered.
    pub input: Bytes,
    /// Bytes that are to be written.
    pub output: Bytes,
    /// Nothing more is read.
    pub ending: bool,
    /// The stream that the client gets.
    pub stream: Option<StreamRecord>,
}

/// A stream of replies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRecord {
    /// The replies to one request, again and again.
    Repeat {
        /// Full name of the method.
        method: String,
        /// Its parameters.
        parameters: Map<String, Value>,
    },
    /// A capture, as the file that carries it out reads and writes it.
    Feed(Value),
}

impl ClientRecord {
    /// True if the client gets a stream that a reader may not leave out.
    pub fn has_feed(&self) -> bool {
        matches!(self.stream, Some(StreamRecord::Feed(_)))
    }
}

/// Bytes, in base64.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(String);

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(STANDARD.encode(bytes))
    }
}

impl Bytes {
    /// The bytes; `None` if the base64 is invalid.
    pub fn decode(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.0).ok()
    }
}
