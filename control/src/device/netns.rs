//! Named network namespaces, as ip-netns(8) keeps them: files in /run/netns.
//!
//! The daemon may not enter namespaces: its helper process opens the sockets that [`Netns::run`] needs there. A process
//! without a helper (a test) enters the namespace on a short-lived thread, so that the caller's own namespace never
//! changes.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::DeviceError;
use crate::confine::helper::{self, SocketKind};

/// An existing network namespace. The open file keeps it alive.
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens the namespace called `name`.
    pub fn open(name: &str) -> Result<Netns, DeviceError> {
        // A file that is no namespace is refused on entry; a pipe does not block until then.
        let flags = libc::O_NONBLOCK;
        let opened = File::options().read(true).custom_flags(flags).open(Path::new("/run/netns").join(name));
        match opened {
            Ok(file) => Ok(Netns { name: name.to_owned(), file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DeviceError::NoNetns(name.to_owned())),
            Err(error) => Err(DeviceError::refused(format!("open netns {name}"), error)),
        }
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work`, with [`super::Links`] and requests of [`super::ethtool`] in this namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, DeviceError> + Send) -> Result<T, DeviceError> {
        if helper::is_running() {
            WITHIN.set(Some(self.name.clone()));
            let outcome = work();
            WITHIN.set(None);
            return outcome;
        }
        self.run_on_a_thread_within(work)
    }

    fn run_on_a_thread_within<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, DeviceError> + Send,
    ) -> Result<T, DeviceError> {
        let enter = || {
            move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| DeviceError::refused(format!("enter netns {}", self.name), error))
        };
        let failed = |what: &str| DeviceError::refused(format!("work in netns {}", self.name), io::Error::other(what));
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("netns".to_owned());
            let worker = worker.spawn_scoped(scope, || enter().and_then(|()| work()));
            let worker = worker.map_err(|error| DeviceError::refused("start a thread", error))?;
            worker.join().unwrap_or_else(|_| Err(failed("the thread ended early")))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` on a thread that has entered the namespace called `name`, and waits for the thread. The caller's
/// namespace does not change. For processes that may enter namespaces.
pub fn in_netns<T: Send>(name: &str, work: impl FnOnce() -> Result<T, DeviceError> + Send) -> Result<T, DeviceError> {
    Netns::open(name)?.run_on_a_thread_within(work)
}

thread_local! {
    /// The namespace in which this thread opens its sockets during [`Netns::run`].
    static WITHIN: Cell<Option<String>> = const { Cell::new(None) };
}

/// A socket of the namespace in which the calling thread works by [`Netns::run`]; `None` for the thread's own
/// namespace.
pub(super) fn socket_within(kind: SocketKind) -> Option<io::Result<OwnedFd>> {
    let name = WITHIN.take()?;
    let entered = |error: io::Error| io::Error::new(error.kind(), format!("enter netns {name}: {error}"));
    let socket = helper::open_in(&name, kind).map_err(entered);
    WITHIN.set(Some(name));
    Some(socket)
}
