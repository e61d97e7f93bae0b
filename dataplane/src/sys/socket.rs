//! Listening sockets as files, and connections to sockets of other processes.
//!
//! A socket file outlives the process that made it. [`SocketFile::listen`] replaces a socket file without a listener,
//! and refuses any other file in its place. The permissions are set before the socket listens, so there is never a
//! moment in which another user can connect, and they are set at the file itself, not at whatever its path names by
//! then. [`credentials`] tells the process at the other end of a connection.
//!
//! Reference: unix(7), SO_PEERCRED and "Pathname socket ownership and permissions"; connect(2) ECONNREFUSED.

#![allow(unsafe_code, reason = "system calls")]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmod, chownat, fchmod, fstat, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{getegid, geteuid};

use crate::reaper::PeerFd;

/// Why a socket is not ours.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens on the socket.
    #[error("another process is listening on {} already", path.display())]
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
        /// The step that failed.
        what: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The access to a listening socket: the owner, group and permission bits of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits.
    pub mode: u32,
    /// Owner, as a number; `None`: the process's user.
    pub owner: Option<u32>,
    /// Group, as a number; `None`: the process's group.
    pub group: Option<u32>,
}

/// Gives the file of a socket, of which there is a handle, another owner and group.
pub type Giver = fn(BorrowedFd<'_>, Option<u32>, Option<u32>) -> io::Result<()>;

static GIVER: OnceLock<Giver> = OnceLock::new();

/// Names the function that gives socket files away from now on, for a program that may not. The first one stays.
pub fn set_giver(giver: Giver) {
    let _ = GIVER.set(giver);
}

/// Gives the file of a socket away with the rights of the calling thread.
///
/// # Errors
/// Those of chown(2); the file is no socket.
pub fn give_here(file: BorrowedFd<'_>, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(file)?.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK.into());
    }
    let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
    Ok(chownat(file, c"", owner, group, AtFlags::EMPTY_PATH)?)
}

/// A listening socket and its file, which is removed with it.
#[derive(Debug)]
pub struct SocketFile {
    /// Closed by the reaper: the connections in its backlog are closed with it.
    socket: PeerFd,
    path: PathBuf,
    /// To know the file again.
    identity: Option<Identity>,
}

impl SocketFile {
    /// Listens at `path`, non-blocking; `backlog` peers may wait to be accepted.
    ///
    /// # Errors
    /// [`SocketError`]; nothing is left behind that was not there before.
    pub fn listen(path: &Path, access: SocketAccess, backlog: i32) -> Result<SocketFile, SocketError> {
        let system =
            |what| move |errno: Errno| SocketError::System { what, path: path.to_owned(), source: errno.into() };
        remove_stale(path)?;
        let address = SocketAddrUnix::new(path).map_err(system("name"))?;
        let socket = stream().map_err(system("create"))?;
        // The file gets these bits, less those of the umask, in the moment it appears.
        fchmod(&socket, Mode::from_raw_mode(access.mode)).map_err(system("set the mode of"))?;
        bind(&socket, &address).map_err(system("bind"))?;
        let identity = identity(path);
        let file = SocketFile { socket: socket.into(), path: path.to_owned(), identity };
        let handle = file_of(file.socket(), path).map_err(system("look at"))?;
        set_mode(&handle, access.mode).map_err(system("set the mode of"))?;
        if access.owner.is_some() || access.group.is_some() {
            give(&handle, access.owner, access.group, path)?;
        }
        rustix::net::listen(file.socket(), backlog).map_err(system("listen on"))?;
        Ok(file)
    }

    /// Takes over a listening socket that another process bound to `path`; the file stays that one's until
    /// [`SocketFile::own`].
    pub fn adopt(socket: OwnedFd, path: &Path) -> SocketFile {
        SocketFile { socket: socket.into(), path: path.to_owned(), identity: None }
    }

    /// The file at the path of an adopted socket is ours from now on, and removed with it.
    pub fn own(&mut self) {
        self.identity = identity(&self.path);
    }

    /// The listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Device and inode of a file, and when it was made in seconds and nanoseconds: another file may get the same inode.
/// The time is that of the last change of content, which a socket has none of.
pub type Identity = (u64, u64, i64, i64);

/// The identity of the file at `path`.
pub fn identity(path: &Path) -> Option<Identity> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

/// A handle (`O_PATH`) of the file of a bound socket. The kernel gives the very file (SIOCUNIXFILE) to a process with
/// CAP_NET_ADMIN; other processes get the socket that is at `path` now.
fn file_of(socket: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: this request takes no argument and returns a new descriptor, or -1.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE as _, 0) };
    if fd >= 0 {
        // SAFETY: the descriptor was just made for us and nobody else knows it.
        let handle = unsafe { OwnedFd::from_raw_fd(fd) };
        return fcntl_setfd(&handle, FdFlags::CLOEXEC).map(|()| handle);
    }
    file_at(path)
}

/// A handle (`O_PATH`) of the socket file at `path`.
fn file_at(path: &Path) -> Result<OwnedFd, Errno> {
    let handle = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(fstat(&handle)?.st_mode);
    if kind == FileType::Socket { Ok(handle) } else { Err(Errno::NOTSOCK) }
}

/// Sets the permission bits of a socket file that is the process's own.
fn set_mode(handle: &OwnedFd, mode: u32) -> Result<(), Errno> {
    chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::from_raw_mode(mode))
}

/// Gives a socket file away, through the giver that was set (the helper process) or by this process itself.
fn give(handle: &OwnedFd, owner: Option<u32>, group: Option<u32>, path: &Path) -> Result<(), SocketError> {
    let give = GIVER.get().map_or(give_here as Giver, |giver| *giver);
    give(handle.as_fd(), owner, group).map_err(|source| SocketError::System {
        what: "set the owner or group of",
        path: path.to_owned(),
        source,
    })
}

/// Gives the socket file at `path`, which a switch listens on, another mode, owner and group. An owner or group that is
/// left out is the process's own.
///
/// # Errors
/// [`SocketError`]; the file may have part of the new settings then.
pub fn set_access(path: &Path, access: SocketAccess) -> Result<(), SocketError> {
    let system = |what| move |errno: Errno| SocketError::System { what, path: path.to_owned(), source: errno.into() };
    let handle = file_at(path).map_err(system("look at"))?;
    let own = geteuid().as_raw();
    // The mode is the owner's to set.
    if fstat(&handle).map_err(system("look at"))?.st_uid != own {
        give(&handle, Some(own), None, path)?;
    }
    set_mode(&handle, access.mode).map_err(system("set the mode of"))?;
    let group = access.group.unwrap_or_else(|| getegid().as_raw());
    give(&handle, access.owner, Some(group), path)
}

/// The process that connected to a Unix socket, as the kernel recorded it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process; 0: one that this process's PID namespace does not have.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl std::fmt::Display for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "pid {} (uid {})", self.pid, self.uid)
    }
}

/// A descriptor that the service manager passed to this process (`LISTEN_FDS`), each once; `None` if it is not open, or
/// was taken.
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    let is_first = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(fd);
    // SAFETY: F_GETFD only looks at the number.
    let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    // SAFETY: the descriptor is open; the service manager passed it for this process to own, so nothing else in the
    // process does, and the set sees to it that it is owned once.
    (is_first && is_open).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The process at the other end of a connected Unix socket.
pub fn credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let Ok(mut bytes) = libc::socklen_t::try_from(size_of_val(&found)) else { return Err(Errno::INVAL.into()) };
    // SAFETY: the kernel writes at most `bytes` bytes, the size of `found`, which any bytes make a valid value of.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Credentials { pid: u32::try_from(found.pid).unwrap_or(0), uid: found.uid, gid: found.gid })
}

impl SocketFile {
    /// Removes the file now, unless another one has taken its place.
    pub fn remove(&self) {
        let now = identity(&self.path);
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

/// Tries a socket that was given to another user, by taking its file back. If it has a listener, the file is given away
/// again.
fn connect_as_owner(path: &Path) -> Result<io::Result<OwnedFd>, SocketError> {
    let system = |errno: Errno| SocketError::System { what: "look at", path: path.to_owned(), source: errno.into() };
    let handle = file_at(path).map_err(system)?;
    let owner = fstat(&handle).map_err(system)?.st_uid;
    give(&handle, Some(geteuid().as_raw()), None, path)?;
    let found = connect(path);
    if !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        give(&handle, Some(owner), None, path)?;
    }
    Ok(found)
}

/// Removes the socket file at `path` if it still is the one with this [`Identity`], and nobody listens on it any more.
/// True if it was removed.
///
/// # Errors
/// [`SocketError`]
pub fn remove_dead(path: &Path, known: Identity) -> Result<bool, SocketError> {
    if identity(path) != Some(known) {
        return Ok(false);
    }
    match remove_stale(path) {
        Ok(()) => Ok(true),
        Err(SocketError::InUse { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a socket file without a listener.
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
    let found = match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => connect_as_owner(path)?,
        found => found,
    };
    match found {
        // A full backlog is a live listener, too.
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removing the socket of a dead run");
            std::fs::remove_file(path).map_err(system("remove the stale file of"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system("probe")(error)),
    }
}
