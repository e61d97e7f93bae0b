//! Why a take-over fails.

use std::path::PathBuf;

use labsw_dataplane::handover::HandoverError;

use crate::takeover::WireError;

/// Why a take-over fails.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// No process listens.
    #[error("no labswd that could be taken over from listens at {}", .0.display())]
    NobodyThere(PathBuf),
    /// The old process runs as another user.
    #[error("the labswd at {} runs as user {uid}", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// Its user.
        uid: u32,
    },
    /// The old process is the main process of a service that this process does not belong to.
    #[error(
        "the labswd that runs belongs to the service {0}, and this process does not; `systemctl reload` takes over"
    )]
    OfAService(String),
    /// The old process refuses, or breaks the protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// This version can't read the running configuration.
    #[error("the configuration that runs: {0}")]
    Config(#[from] crate::config::ConfigError),
    /// The configuration was changed during the take-over.
    #[error("the configuration was changed at this moment; try again")]
    Changed,
    /// The state of the old process does not fit this one.
    #[error("the state of the running switch: {0}")]
    State(#[from] HandoverError),
    /// A port can't be taken over.
    #[error("port {port:?}: {reason}")]
    Port {
        /// The port.
        port: String,
        /// Why.
        reason: String,
    },
    /// This process can't be made ready.
    #[error("{0}")]
    Start(String),
}
