//! Confines the daemon to the rights that it needs, in the same way whether root started it from a shell or systemd
//! did.
//!
//! **How it works.** [`enter`] is called once, when the configuration is read and before anything is opened or any
//! thread is started, so that every thread inherits the confinement:
//!
//! | step | file | after it |
//! |---|---|---|
//! | no core dumps, not dumpable | here | guests' memory stays out of files and debuggers of other users |
//! | [`helper`] | `helper` | a separate process carries out the few operations that need more rights |
//! | capabilities | `capabilities` | only CAP_NET_ADMIN and CAP_IPC_LOCK are left |
//! | Landlock | `files` | only its own and system files can be read; only sockets and settings of devices changed |
//! | seccomp | `calls` | only the system calls of a switch are left; no new programs, no processes, no bpf(2) |
//!
//! A worker gives up more when it starts ([`enter_worker`]): all capabilities, and all system calls except those that
//! move frames.
//!
//! **Invariants.** The process can undo none of this. If the kernel has no Landlock or seccomp, the daemon logs a
//! warning and runs without; if a capability can't be given up, the start fails.
//!
//! References: capabilities(7), landlock(7), seccomp(2), prctl(2) `PR_SET_DUMPABLE`, `PR_SET_NO_NEW_PRIVS`.

mod calls;
mod capabilities;
mod files;
pub mod helper;

use std::io;
use std::path::Path;

use labsw_dataplane::sys::{programs, raw, socket};
use labsw_dataplane::workers::thread;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::config::Config;

/// Why the daemon can't give up a right that it does not need.
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
/// A right can't be given up. A facility that the kernel lacks is only a warning.
pub fn enter(config: &Config, file: &Path) -> Result<(), ConfineError> {
    limits()?;
    helper::start().map_err(|error| ConfineError::new("starting the helper process", error))?;
    raw::set_opener(helper::open_raw);
    programs::set_agent(helper::bpf);
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

/// Confines the calling thread, a worker, to no capability and few system calls.
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

/// Confines the calling process to serving metrics at its open sockets.
pub fn enter_metrics() {
    if let Err(error) = calls::restrict(calls::Kind::Metrics) {
        tracing::warn!("{error}; the metrics are served without");
    }
}

/// Keeps the memory of guests out of core dumps and of debuggers of other users.
fn limits() -> Result<(), ConfineError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| ConfineError::new("forbidding core dumps", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| ConfineError::new("keeping other processes from the memory", error))
}
