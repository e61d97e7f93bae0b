//! Why the daemon can't start, or had to end.

use std::path::PathBuf;

use labsw_dataplane::sys::socket::SocketError;
use labsw_dataplane::workers::WorkerError;

use super::attach::OpenError;
use super::handover::TakeOverError;
use crate::config::ConfigError;

/// Why the daemon can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Something in the configuration does not fit this machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon listens on the control socket.
    #[error("control socket: another labswd is running on {}; stop it, or set another `control_socket`", .0.display())]
    ControlSocketInUse(PathBuf),
    /// The control socket can't be made.
    #[error("control socket: {0}")]
    ControlSocket(#[source] SocketError),
    /// The directory of the control socket can't be made.
    #[error("control socket: {0}")]
    Directory(#[source] OpenError),
    /// A worker can't be started, or does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The switch that runs can't be taken over.
    #[error("take-over failed, the running switch goes on: {0}")]
    TakeOver(#[from] TakeOverError),
    /// The event loop, a signal handler or a netlink socket failed.
    #[error("{what}: {source}")]
    System {
        /// The action that failed.
        what: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Wraps an error of the system with the action that failed.
pub(super) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Why the start fails: the wrong key of the configuration, and the reason.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) key: String,
    pub(super) reason: String,
}
