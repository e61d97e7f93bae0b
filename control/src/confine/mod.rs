//! What the daemon keeps of the rights that it was started with, whoever started it: root from a shell, or systemd.
//!
//! **How it works.** [`enter`] is called once, when the configuration is read and before anything is opened or any
//! thread started, so that every thread inherits it:
//!
//! | step | file | after it |
//! |---|---|---|
//! | no core dumps, not dumpable | here | guests' memory stays out of files and debuggers of other users |
//! | [`helper`] | `helper` | a process of its own does the few things that need more |
//! | capabilities | `capabilities` | CAP_NET_ADMIN, CAP_BPF and CAP_IPC_LOCK are left, for good |
//! | Landlock | `files` | files can be read where the switch reads, and changed where its sockets and devices are |
//! | seccomp | `calls` | system calls of a switch; no new programs, no processes |
//!
//! A worker gives up more when it starts ([`enter_worker`]): all capabilities, and all system calls that do not move
//! frames.
//!
//! **Invariants.** Nothing here can be undone by the process. A kernel without Landlock or seccomp is told in the log,
//! and the switch runs without; a capability that can't be given up ends the start.
//!
//! References: capabilities(7), landlock(7), seccomp(2), prctl(2) `PR_SET_DUMPABLE`, `PR_SET_NO_NEW_PRIVS`.

mod calls;
mod capabilities;
mod files;
pub mod helper;

use std::io;
use std::path::Path;

use labsw_dataplane::sys::{raw, socket};
use labsw_dataplane::workers::thread;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::config::Config;

/// Why the daemon can't give up what it does not need.
#[derive(Debug, thiserror::Error)]
#[error("giving up privileges: {what}: {source}")]
pub struct ConfineError {
    what: &'static str,
    source: io::Error,
}

impl ConfineError {
    fn new(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConfineError {
        ConfineError { what, source: io::Error::other(source) }
    }
}

/// Confines the calling process, which has no other threads yet; `file` is the configuration file.
///
/// # Errors
/// What can't be given up. What the kernel does not offer is a warning.
pub fn enter(config: &Config, file: &Path) -> Result<(), ConfineError> {
    limits()?;
    helper::start().map_err(|error| ConfineError::new("starting the helper process", error))?;
    raw::set_opener(helper::open_raw);
    socket::set_giver(helper::give);
    thread::set_confinement(enter_worker);
    capabilities::keep(&capabilities::OF_THE_DAEMON)?;
    if let Err(error) = files::restrict(config, file) {
        tracing::warn!("{error}; the daemon is not confined to its files");
    }
    if let Err(error) = calls::restrict(calls::Kind::Daemon) {
        tracing::warn!("{error}; the daemon is not confined to its system calls");
    }
    Ok(())
}

/// Confines the calling thread, a worker, which keeps no capability and few system calls.
///
/// # Errors
/// A capability can't be given up.
fn enter_worker() -> io::Result<()> {
    capabilities::keep(&[]).map_err(io::Error::other)?;
    if let Err(error) = calls::restrict(calls::Kind::Worker) {
        tracing::warn!("{error}; a worker is not confined to its system calls");
    }
    Ok(())
}

/// Confines the calling process to serving metrics at the sockets that it has.
pub fn enter_metrics() {
    if let Err(error) = calls::restrict(calls::Kind::Metrics) {
        tracing::warn!("{error}; the metrics are served without");
    }
}

/// No core dump, and no debugger of another user, gets at the memory of guests.
fn limits() -> Result<(), ConfineError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| ConfineError::new("forbidding core dumps", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| ConfineError::new("keeping other processes from the memory", error))
}
