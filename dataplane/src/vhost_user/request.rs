//! The payloads and descriptors of requests, and every way in which they can be wrong.
//!
//! All payloads that a network back end gets consist of 64-bit words, or of halves of them; a doorbell message (kick,
//! call, error) is one word: the ring number, and a bit that is set if no eventfd is attached.
//!
//! Reference: vhost-user.rst, "Message Specification".

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::vhost_user::message::FrontendReq;

use super::operation::RingsError;
use crate::reaper::PeerFd;
use crate::virtio::LayoutError;
use crate::virtio::dirty_log::LogError;
use crate::virtio::memory::{MemoryError, RegionInfo};

/// In a doorbell message: the ring number.
pub(super) const DOORBELL_RING: u64 = 0xff;
/// In a doorbell message: no descriptor is attached.
const DOORBELL_NONE: u64 = 0x100;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The protocol does not have this request.
    #[error("the front end sent request {code}, which the protocol does not have")]
    UnknownRequest {
        /// Request number.
        code: u32,
    },
    /// The request belongs to a feature that was not offered.
    #[error("the front end sent {request:?}, which belongs to a feature that was not offered")]
    NotOffered {
        /// The request.
        request: FrontendReq,
    },
    /// A payload of the wrong size.
    #[error("the front end sent {request:?} with a payload of {bytes} bytes, which is not its size")]
    PayloadSize {
        /// The request.
        request: FrontendReq,
        /// Size of the received payload.
        bytes: usize,
    },
    /// Missing or unexpected descriptors.
    #[error("the front end sent {request:?} with {count} descriptors instead of {expected}")]
    Descriptors {
        /// The request.
        request: FrontendReq,
        /// Number of descriptors received.
        count: usize,
        /// Number of descriptors that the request has.
        expected: usize,
    },
    /// The descriptor is not an eventfd.
    #[error("the front end sent {request:?} with a descriptor that is no eventfd")]
    NotEventfd {
        /// The request.
        request: FrontendReq,
    },
    /// Feature bits that were not offered.
    #[error("the front end sent {request:?} with the bits {bits:#x}, which were not offered")]
    Features {
        /// The request.
        request: FrontendReq,
        /// The surplus bits.
        bits: u64,
    },
    /// The port does not have a ring of this number.
    #[error("the front end sent {request:?} for ring {index}; the port has {rings} rings (2 per queue pair)")]
    RingNumber {
        /// The request.
        request: FrontendReq,
        /// Ring number.
        index: u64,
        /// Rings of the port.
        rings: usize,
    },
    /// A memory table without regions.
    #[error(
        "the front end sent a memory table without regions: the guest's memory is not shared (QEMU: -object \
         memory-backend-memfd,share=on and -machine memory-backend=…)"
    )]
    NoRegions,
    /// Memory that cannot be used.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A ring that cannot start.
    #[error("ring {index} cannot start: {source}")]
    Ring {
        /// Ring number.
        index: u16,
        /// Why.
        source: LayoutError,
    },
    /// A log that cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A ring's log address outside the log.
    #[error("ring {index} cannot be logged: {source}")]
    RingLog {
        /// Ring number.
        index: u16,
        /// Why.
        source: LogError,
    },
    /// The worker does not answer.
    #[error(transparent)]
    Rings(#[from] RingsError),
}

/// A payload as native 64-bit words, if its length is a multiple of 8 bytes.
pub(super) fn words(payload: &[u8]) -> Option<Vec<u64>> {
    let (chunks, rest) = payload.as_chunks();
    rest.is_empty().then(|| chunks.iter().map(|&bytes| u64::from_ne_bytes(bytes)).collect())
}

/// A region from the words of its message.
pub(super) fn region_info([guest_start, bytes, user_start, file_offset]: [u64; 4]) -> RegionInfo {
    RegionInfo { guest_start, bytes, user_start, file_offset }
}

/// Checks that only offered bits are set.
pub(super) fn within(request: FrontendReq, bits: u64, offered: u64) -> Result<(), SessionError> {
    match bits & !offered {
        0 => Ok(()),
        bits => Err(SessionError::Features { request, bits }),
    }
}

/// The one descriptor that belongs to a request.
pub(super) fn one(request: FrontendReq, fds: Vec<PeerFd>) -> Result<PeerFd, SessionError> {
    match <[PeerFd; 1]>::try_from(fds) {
        Ok([fd]) => Ok(fd),
        Err(fds) => Err(SessionError::Descriptors { request, count: fds.len(), expected: 1 }),
    }
}

/// The eventfd of a doorbell message, non-blocking, or `None` if the message says that there is none.
pub(super) fn eventfd(
    request: FrontendReq,
    doorbell: u64,
    fds: Vec<PeerFd>,
) -> Result<Option<Arc<OwnedFd>>, SessionError> {
    if doorbell & DOORBELL_NONE != 0 {
        return match fds.len() {
            0 => Ok(None),
            count => Err(SessionError::Descriptors { request, count, expected: 0 }),
        };
    }
    let fd = one(request, fds)?;
    // Any other file could block the worker or could not be waited for. /proc shows the kind of a descriptor.
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    let is_eventfd = name.to_string_lossy().starts_with("anon_inode:[eventfd");
    if !is_eventfd {
        return Err(SessionError::NotEventfd { request });
    }
    // Closing an eventfd never blocks.
    let fd = fd.keep();
    let flags = fcntl_getfl(&fd).unwrap_or(OFlags::empty());
    match fcntl_setfl(&fd, flags | OFlags::NONBLOCK) {
        Ok(()) => Ok(Some(Arc::new(fd))),
        Err(_) => Err(SessionError::NotEventfd { request }),
    }
}

/// The session serves requests of this kind: one that it refuses has a wrong payload.
pub(super) fn is_served(request: FrontendReq) -> bool {
    use FrontendReq as Req;
    matches!(
        request,
        Req::GET_FEATURES
            | Req::GET_PROTOCOL_FEATURES
            | Req::GET_QUEUE_NUM
            | Req::GET_MAX_MEM_SLOTS
            | Req::SET_OWNER
            | Req::RESET_OWNER
            | Req::SET_FEATURES
            | Req::SET_PROTOCOL_FEATURES
            | Req::NET_SET_MTU
            | Req::SET_MEM_TABLE
            | Req::ADD_MEM_REG
            | Req::REM_MEM_REG
            | Req::SET_VRING_KICK
            | Req::SET_VRING_CALL
            | Req::SET_VRING_ERR
            | Req::SET_LOG_BASE
            | Req::SET_LOG_FD
            | Req::SEND_RARP
            | Req::SET_VRING_NUM
            | Req::SET_VRING_BASE
            | Req::SET_VRING_ADDR
            | Req::GET_VRING_BASE
            | Req::SET_VRING_ENABLE
    )
}
