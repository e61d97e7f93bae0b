//! Listening sockets as files, and connections to other people's.
//!
//! A socket file outlives the process that made it. [`SocketFile::listen`] replaces one on which nobody listens any
//! more, and refuses anything else that stands in its place. The permissions are set before the socket listens, so there
//! is no moment in which somebody else can connect.
//!
//! Reference: unix(7), connect(2) ECONNREFUSED.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, chmod, chown};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

/// Why a socket is not ours.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else's.
    #[error("somebody is listening on {} already", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket.
    #[error("{} exists and is not a socket; remove it or choose another path", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot {what} the socket {}: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A listening socket and its file, which is removed with it.
#[derive(Debug)]
pub struct SocketFile {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode, to know the file again.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Listens at `path`, non-blocking, with these permission bits and group; `backlog` peers may wait to be accepted.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind that was not there before.
    pub fn listen(path: &Path, mode: u32, group: Option<u32>, backlog: i32) -> Result<SocketFile, SocketError> {
        let system =
            |what| move |errno: Errno| SocketError::System { what, path: path.to_owned(), source: errno.into() };
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path).map_err(system("name"))?;
        let socket = stream().map_err(system("create"))?;
        bind(&socket, &address).map_err(system("bind"))?;
        let identity = std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        let file = SocketFile { socket, path: path.to_owned(), identity };
        chmod(path, Mode::from_raw_mode(mode)).map_err(system("set the mode of"))?;
        if let Some(group) = group {
            chown(path, None, Some(Gid::from_raw(group))).map_err(system("set the group of"))?;
        }
        rustix::net::listen(&file.socket, backlog).map_err(system("listen on"))?;
        Ok(file)
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl SocketFile {
    /// Removes the file now, unless another one has taken its place.
    pub fn remove(&self) {
        let now = std::fs::symlink_metadata(&self.path).ok().map(|meta| (meta.dev(), meta.ino()));
        if now.is_some() && now == self.identity {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Connects to the socket at `path`; the connection is non-blocking.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = stream()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn stream() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Removes a socket file on which nobody listens.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let system = |what| move |source: io::Error| SocketError::System { what, path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match connect(path) {
        // A full backlog is a live listener, too.
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a dead run");
            std::fs::remove_file(path).map_err(system("remove the stale file of"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system("probe")(error)),
    }
}
