//! News from the kernel about network links: that something changed, not what.
//!
//! A socket of the group `RTMGRP_LINK` (rtnetlink(7)) becomes readable whenever a link of the namespace comes, goes or
//! changes. Whoever reads it looks at the links anew, so the messages themselves are thrown away and a lost one (the
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
    /// Begins to listen.
    pub fn open() -> Result<LinkEvents, DeviceError> {
        let opened = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, GROUP_LINK))?;
            socket.set_non_blocking(true)?;
            Ok(LinkEvents { socket })
        };
        opened().map_err(|error: io::Error| DeviceError::refused("listen for changes of interfaces", error))
    }

    /// Reads whatever has come; whether there was anything.
    pub fn drain(&mut self) -> bool {
        // What does not fit is cut off, which does no harm.
        let mut message = [0u8; 64];
        let mut any = false;
        loop {
            match self.socket.recv(&mut &mut message[..], 0) {
                Ok(_) => any = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Messages were lost: links have changed.
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
