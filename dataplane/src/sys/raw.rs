//! Opening sockets that see or send any frame of an interface: AF_XDP and packet sockets.
//!
//! The kernel asks for CAP_NET_RAW when such a socket is opened, and never again. A program that gives this capability
//! up names a function that has another process open them ([`set_opener`]); without one they are opened here.
//!
//! References: kernel `Documentation/networking/af_xdp.rst`, packet(7).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Kinds of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawSocket {
    /// AF_XDP.
    Xdp,
    /// A packet socket of no protocol yet, non-blocking.
    Packet,
}

/// Opens a socket in the network namespace of this process.
pub type Opener = fn(RawSocket) -> io::Result<OwnedFd>;

static OPENER: OnceLock<Opener> = OnceLock::new();

/// Names the function that opens sockets from now on. The first one stays.
pub fn set_opener(opener: Opener) {
    let _ = OPENER.set(opener);
}

/// Opens a socket, through the opener that was set (the helper process) or by this process itself.
///
/// # Errors
/// Those of socket(2).
pub fn open(kind: RawSocket) -> io::Result<OwnedFd> {
    OPENER.get().map_or(open_here as Opener, |opener| *opener)(kind)
}

/// Opens a socket with the rights of the calling thread.
///
/// # Errors
/// Those of socket(2).
pub fn open_here(kind: RawSocket) -> io::Result<OwnedFd> {
    let (family, flags) = match kind {
        RawSocket::Xdp => (AddressFamily::XDP, SocketFlags::CLOEXEC),
        RawSocket::Packet => (AddressFamily::PACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK),
    };
    Ok(socket_with(family, SocketType::RAW, flags, None)?)
}
