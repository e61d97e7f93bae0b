//! Why a port can't be opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use labsw_dataplane::handover::HandoverError;
use labsw_dataplane::sys::socket::SocketError;
use labsw_dataplane::workers::WorkerError;
use labsw_dataplane::xdp::{UmemError, XdpError};

use crate::config::DeviceSpec;
use crate::daemon::accounts::UnknownAccount;
use crate::device::DeviceError;

/// How long until a device that could not be opened is tried again.
pub(in crate::daemon) const RETRY: Duration = Duration::from_secs(1);

/// Why a port can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device that the port names is not there.
    #[error("{device} is awaited: {why}")]
    NoDevice {
        /// The device that the port names.
        device: DeviceSpec,
        /// Why the device counts as absent.
        why: String,
    },
    /// The device is one that is never opened.
    #[error("{0}; use another device")]
    Protected(String),
    /// Sockets of a former run still hold the veth pair.
    #[error("{0} is held by sockets of a former run until the container has freed the frames that they sent")]
    Kept(String),
    /// The interface named for a TAP port is of another kind.
    #[error("interface {0} exists and is no TAP interface; name another for this port")]
    NotATap(String),
    /// The interface of a TAP port was made by another program and has gone.
    #[error("{0} was removed")]
    Removed(String),
    /// The interface belongs to a bridge, a bond or the like, which would lose its frames to the port.
    #[error("interface {0} belongs to a bridge or bond; take it out (ip link set {0} nomaster), or name another")]
    Bridged(String),
    /// The directory of a socket can't be made.
    #[error("directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The event loop takes no more sockets.
    #[error("event loop: {0}")]
    EventLoop(#[source] io::Error),
    /// A device can't be found, made or changed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// AF_XDP is not possible on the device.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// The pair of a veth port with `offloads` can't be wired to its TAP interface.
    #[error("{interface}: offloads = true is not possible ({source}); it needs Linux 6.6 or newer and CAP_BPF")]
    Wires {
        /// The switch's end.
        interface: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// There is no packet memory.
    #[error(transparent)]
    Umem(#[from] UmemError),
    /// The guest's socket can't be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The state handed over by another process can't be used.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// There is no such user or group.
    #[error(transparent)]
    Account(#[from] UnknownAccount),
    /// A worker does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl OpenError {
    /// True if the port lacks something that may still come.
    pub(in crate::daemon) fn is_absence(&self) -> bool {
        matches!(
            self,
            OpenError::NoDevice { .. }
                | OpenError::Kept(_)
                | OpenError::Device(DeviceError::NoNetns(_))
                | OpenError::Xdp(XdpError::NoInterface { .. } | XdpError::Closing { .. })
        )
    }
}

/// The state handed over for a port is of another type than the port.
pub(super) fn not_of_this_type() -> OpenError {
    HandoverError::new("the state that was handed over is not of the port's type").into()
}

/// Makes the directory of a socket, if it is not there.
pub(in crate::daemon) fn make_parent(path: &Path) -> Result<(), OpenError> {
    match path.parent() {
        Some(directory) => {
            let failed = |source| OpenError::Directory { path: directory.to_owned(), source };
            fs::create_dir_all(directory).map_err(failed)
        }
        None => Ok(()),
    }
}
