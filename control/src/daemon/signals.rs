//! Signals as events of the control loop, and messages to the service manager.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::error::{DaemonError, system};

/// A stream that becomes readable when one of these signals arrives.
pub(super) fn signal_pipe(registry: &Registry, signals: &[i32], token: Token) -> Result<UnixStream, DaemonError> {
    let (reader, writer) = UnixStream::pair().map_err(system("signals"))?;
    reader.set_nonblocking(true).map_err(system("signals"))?;
    for signal in signals {
        let writer = writer.try_clone().map_err(system("signals"))?;
        signal_hook::low_level::pipe::register(*signal, writer).map_err(system("signals"))?;
    }
    registry.register(&mut SourceFd(&reader.as_raw_fd()), token, Interest::READABLE).map_err(system("signals"))?;
    Ok(reader)
}

/// True if a signal has come since the last call.
pub(super) fn signalled(reader: &mut UnixStream) -> bool {
    reader.read(&mut [0; 16]).is_ok_and(|count| count > 0)
}

/// Sends a message to the service manager, if there is one.
pub(super) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "service manager not told");
    }
}
