//! The kernel's counters of an AF_XDP socket: frames that it dropped before or after the switch had them.
//!
//! **How it works.** A [`Descriptor`](super::socket::Descriptor) shares its file descriptor with any number of
//! [`Statistics`], under a lock and never as a duplicate, so that dropping it really closes it. Its last act is to read
//! the counters once more: a reader finds them also afterwards, so that a port can add up those of all its sockets, one
//! device after the other.
//!
//! **Invariant.** A counter never goes back: the kernel forgets some of them when the device under a socket goes.
//!
//! References: kernel `net/xdp/xsk.c` (`XDP_STATISTICS`), `Documentation/networking/af_xdp.rst`; socket(7),
//! `SO_INCOMING_NAPI_ID`.

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::ops::AddAssign;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::sockopt;

/// `XDP_STATISTICS`, with the kernel's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct XdpCounters {
    /// Frames dropped because there was no free chunk (then `rx_fill_ring_empty` counts as well), or too long for one.
    pub rx_dropped: u64,
    /// Frames dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel wanted a free chunk and the fill ring had none.
    pub rx_fill_ring_empty: u64,
    /// Entries of the receive side that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Frames in the transmit ring that the kernel refused.
    pub tx_invalid_descs: u64,
}

impl XdpCounters {
    /// Each counter with its name.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        let XdpCounters { rx_dropped, rx_ring_full, rx_fill_ring_empty, rx_invalid_descs, tx_invalid_descs } = *self;
        [
            ("rx_dropped", rx_dropped),
            ("rx_ring_full", rx_ring_full),
            ("rx_fill_ring_empty", rx_fill_ring_empty),
            ("rx_invalid_descs", rx_invalid_descs),
            ("tx_invalid_descs", tx_invalid_descs),
        ]
    }

    fn combined(self, other: XdpCounters, combine: impl Fn(u64, u64) -> u64) -> XdpCounters {
        XdpCounters {
            rx_dropped: combine(self.rx_dropped, other.rx_dropped),
            rx_ring_full: combine(self.rx_ring_full, other.rx_ring_full),
            rx_fill_ring_empty: combine(self.rx_fill_ring_empty, other.rx_fill_ring_empty),
            rx_invalid_descs: combine(self.rx_invalid_descs, other.rx_invalid_descs),
            tx_invalid_descs: combine(self.tx_invalid_descs, other.tx_invalid_descs),
        }
    }
}

impl AddAssign for XdpCounters {
    fn add_assign(&mut self, other: XdpCounters) {
        *self = self.combined(other, u64::wrapping_add);
    }
}

/// Reads the kernel's counters of one socket, from any thread.
#[derive(Clone, Debug)]
pub struct Statistics {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// `None` once the socket is closed.
    fd: Option<OwnedFd>,
    /// The last reading.
    seen: XdpCounters,
}

impl Statistics {
    /// The counters of this socket, which is closed by [`Statistics::close`] or with the last reader.
    pub(super) fn new(fd: OwnedFd) -> Statistics {
        Statistics { shared: Arc::new(Mutex::new(Shared { fd: Some(fd), seen: XdpCounters::default() })) }
    }

    /// The counters since the socket was opened; of a closed one, until it was.
    pub fn read(&self) -> XdpCounters {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// The number of the kernel's receive loop (NAPI) behind the socket's queue; `None` if it has none that a program
    /// can drive or, where the kernel copies, no frame was received yet.
    pub fn napi_id(&self) -> Option<u32> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut id = 0u32;
        #[allow(clippy::cast_possible_truncation, reason = "four bytes")]
        let mut bytes = size_of::<u32>() as libc::socklen_t;
        let fd = shared.fd.as_ref()?.as_raw_fd();
        // SAFETY: the option's value is a u32; `id` and `bytes` live across the call.
        let result = unsafe {
            let value = (&raw mut id).cast::<libc::c_void>();
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID, value, &raw mut bytes)
        };
        (result == 0 && id != 0).then_some(id)
    }

    /// Closes the socket. Its last counts stay readable.
    pub(super) fn close(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.read();
        drop(shared.fd.take());
    }
}

impl Shared {
    fn read(&mut self) -> XdpCounters {
        let now = self.fd.as_ref().and_then(|fd| sockopt::xdp_statistics(fd).ok());
        if let Some(now) = now {
            let now = XdpCounters {
                rx_dropped: now.rx_dropped,
                rx_ring_full: now.rx_ring_full.unwrap_or(0),
                rx_fill_ring_empty: now.rx_fill_ring_empty_descs.unwrap_or(0),
                rx_invalid_descs: now.rx_invalid_descs,
                tx_invalid_descs: now.tx_invalid_descs,
            };
            self.seen = self.seen.combined(now, u64::max);
        }
        self.seen
    }
}
