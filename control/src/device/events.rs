//! News from the kernel that network links have changed, without details.
//!
//! A socket of the group `RTMGRP_LINK` (rtnetlink(7)) becomes readable whenever a link of the namespace comes, goes or
//! changes. Its reader then lists the links again. The messages themselves are discarded, so a lost message (the
//! socket's buffer overran) is as good as a read one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::DeviceError;

/// `RTMGRP_LINK` of linux/rtnetlink.h.
const GROUP_LINK: u32 = 1;

/// A socket that is readable when links have changed, in the namespace of the thread that opened it.
pub struct LinkEvents {
    socket: Socket,
}

impl LinkEvents {
    /// Opens the socket.
    pub fn open() -> Result<LinkEvents, DeviceError> {
        let opened = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, GROUP_LINK))?;
            socket.set_non_blocking(true)?;
            Ok(LinkEvents { socket })
        };
        opened().map_err(|error: io::Error| DeviceError::refused("listen for changes of interfaces", error))
    }

    /// Reads all messages; returns true if there was one.
    pub fn drain(&mut self) -> bool {
        // A message that does not fit is cut off, which does no harm.
        let mut message = [0u8; 64];
        let mut any = false;
        loop {
            match self.socket.recv(&mut &mut message[..], 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Messages were lost, so links have changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
