//! Promiscuous mode that ends with its holder.
//!
//! The kernel counts the holders of promiscuous mode at a device. A membership of a packet socket (`PACKET_MR_PROMISC`,
//! packet(7)) counts as one and ends when the socket closes, also when the daemon is killed; the device then returns to
//! its former mode. The socket is of protocol 0 and receives nothing.

#![allow(unsafe_code, reason = "one setsockopt that rustix does not wrap")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use labsw_dataplane::sys::raw::{self, RawSocket};

use super::DeviceError;

/// Keeps the device promiscuous until dropped.
#[derive(Debug)]
pub struct Promiscuous {
    socket: OwnedFd,
}

impl Promiscuous {
    /// Makes the link with `index`, called `name`, promiscuous.
    pub fn hold(index: u32, name: &str) -> Result<Promiscuous, DeviceError> {
        let refused = |error: io::Error| DeviceError::refused(format!("make {name} promiscuous"), error);
        let socket = raw::open(RawSocket::Packet).map_err(refused)?;
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(index).map_err(|error| refused(io::Error::other(error)))?,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).map_err(|error| refused(io::Error::other(error)))?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&request)).map_err(|e| refused(io::Error::other(e)))?;
        // SAFETY: the kernel reads `length` bytes at the pointer, which are those of `request`, initialised just
        // above and alive until the call returns; it keeps no reference. The descriptor is owned by `socket`.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                length,
            )
        };
        if result != 0 {
            return Err(refused(io::Error::last_os_error()));
        }
        Ok(Promiscuous { socket })
    }
    /// The membership.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The membership that another process has.
    pub fn adopt(socket: OwnedFd) -> Promiscuous {
        Promiscuous { socket }
    }
}
