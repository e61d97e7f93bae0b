//! Named network namespaces, as ip-netns(8) keeps them: files in /run/netns.
//!
//! A thread has one network namespace. [`in_netns`] therefore works on a short-lived thread of its own, so that the
//! caller's never changes and there is nothing to put back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::DeviceError;

/// A network namespace that exists; held open, so that it goes on existing.
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens the namespace called `name`.
    pub fn open(name: &str) -> Result<Netns, DeviceError> {
        // Something else than a namespace is refused when it is entered; a pipe is not waited for until then.
        let flags = libc::O_NONBLOCK;
        let opened = File::options().read(true).custom_flags(flags).open(Path::new("/run/netns").join(name));
        match opened {
            Ok(file) => Ok(Netns { name: name.to_owned(), file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DeviceError::NoNetns(name.to_owned())),
            Err(error) => Err(DeviceError::refused(format!("open netns {name}"), error)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread in this namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, DeviceError> + Send) -> Result<T, DeviceError> {
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

/// Runs `work` in the namespace called `name` and waits for it; the caller's namespace stays what it is.
pub fn in_netns<T: Send>(name: &str, work: impl FnOnce() -> Result<T, DeviceError> + Send) -> Result<T, DeviceError> {
    Netns::open(name)?.run(work)
}
