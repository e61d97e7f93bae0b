//! The log of pages that the switch wrote, with which a front end saves or moves a guest that goes on receiving frames.
//!
//! **How it works.** The front end shares a bitmap with a bit for each 4-KiB page of guest-physical memory, from
//! address 0 on. While it logs (VHOST_F_LOG_ALL), each ring has a [`RingLog`] and marks every page that it writes: the
//! buffers of received frames before they are published, its own entries, indices and event fields. The front end takes
//! the bits out with atomic exchanges and sends the pages again.
//!
//! **Invariants.**
//! - A page is written first and marked then. A bit is set by an atomic read-modify-write, which other workers and the
//!   front end cannot undo, and before which the write is visible. So who takes the bit out finds the write in memory.
//! - No byte outside the log is touched, whatever is to be marked.
//! - All writes of a ring are marked when an operation on the ring is answered: a stopped ring has no unmarked page.
//!
//! Reference: vhost-user.rst, "Migration".

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::mapping::{MappingError, SharedMapping};
use super::memory::GuestMemory;
use super::memory_limit::{MemoryLimit, MemoryLimitError};
use crate::frame::Segment;
use crate::reaper::PeerFd;

/// Bytes of guest memory for each bit (VHOST_LOG_PAGE).
pub const LOG_PAGE: u64 = 4096;
/// Bytes of guest memory for each byte of the log.
const BYTE_COVERS: u64 = 8 * LOG_PAGE;

/// The reason why a log is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A log without bytes, or one that wraps.
    #[error("the dirty log has {bytes} bytes at offset {offset:#x} of its file, which cannot be")]
    Range {
        /// Size of the log, bytes.
        bytes: u64,
        /// Place of the log in its file, bytes.
        offset: u64,
    },
    /// The file is on a disk, a network or FUSE, or no file at all.
    #[error("the dirty log is neither shared memory (memfd, tmpfs) nor huge pages")]
    NotShared,
    /// The file ends before the log does.
    #[error("the dirty log needs {needed} bytes of its file, which has only {present}")]
    FileTooShort {
        /// Offset plus size of the log.
        needed: u64,
        /// Size of the file.
        present: u64,
    },
    /// More than a guest may map.
    #[error("the dirty log counts as guest memory: {0}")]
    Limit(MemoryLimitError),
    /// The kernel would not map it.
    #[error("cannot map the dirty log: {0}")]
    Map(std::io::Error),
    /// Some memory has no bit in the log.
    #[error("the dirty log has {bytes} bytes; the guest's memory, which ends at {end:#x}, needs {needed}")]
    TooSmall {
        /// Size of the log, bytes.
        bytes: u64,
        /// First guest-physical address behind the memory.
        end: u64,
        /// Least size of a log for it, bytes.
        needed: u64,
    },
    /// A ring's own writes have no bit in the log.
    #[error(
        "the used ring is to be logged at guest address {address:#x}, which is not in the dirty log of {bytes} bytes"
    )]
    RingOutside {
        /// Guest-physical address of the ring's first byte.
        address: u64,
        /// Size of the log, bytes.
        bytes: u64,
    },
}

/// A front end's log.
#[derive(Debug)]
pub struct DirtyLog {
    mapping: SharedMapping,
    bytes: u64,
}

impl DirtyLog {
    /// Maps a log of `bytes` bytes at `offset` of `file`, for a guest whose memory has `others` bytes.
    pub fn map(
        limit: &Arc<MemoryLimit>,
        others: u64,
        bytes: u64,
        offset: u64,
        file: impl Into<PeerFd>,
    ) -> Result<DirtyLog, LogError> {
        if bytes == 0 {
            return Err(LogError::Range { bytes, offset });
        }
        let mapping = SharedMapping::map(limit, others, offset, bytes, file.into()).map_err(|error| match error {
            MappingError::Wraps => LogError::Range { bytes, offset },
            MappingError::NotShared => LogError::NotShared,
            MappingError::FileTooShort { needed, present } => LogError::FileTooShort { needed, present },
            MappingError::Limit(source) => LogError::Limit(source),
            MappingError::Map(source) => LogError::Map(source),
        })?;
        Ok(DirtyLog { mapping, bytes })
    }

    /// Size of the log, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its place in its file, bytes.
    pub fn offset(&self) -> u64 {
        self.mapping.offset
    }

    /// Its file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.mapping.file()
    }

    /// Checks that each page of `memory` has a bit.
    pub fn covers(&self, memory: &GuestMemory) -> Result<(), LogError> {
        let (bytes, end) = (self.bytes, memory.end());
        let needed = end.div_ceil(BYTE_COVERS);
        if needed > bytes { Err(LogError::TooSmall { bytes, end, needed }) } else { Ok(()) }
    }

    /// Checks that a ring of `length` bytes which is logged at `address` has bits.
    pub fn covers_ring(&self, address: u64, length: u64) -> Result<(), LogError> {
        match address.checked_add(length) {
            Some(end) if end.div_ceil(BYTE_COVERS) <= self.bytes => Ok(()),
            _ => Err(LogError::RingOutside { address, bytes: self.bytes }),
        }
    }

    /// Marks the pages of `bytes` bytes at a guest-physical address, as far as the log goes.
    pub fn mark(&self, address: u64, bytes: u64) {
        let Some(last) = bytes.checked_sub(1).map(|more| address.saturating_add(more) / LOG_PAGE) else { return };
        for page in address / LOG_PAGE..=last {
            if page / 8 >= self.bytes {
                return;
            }
            #[allow(clippy::cast_possible_truncation, reason = "inside a mapping of this process")]
            // SAFETY: the log is mapped writable for `bytes` bytes as long as `mapping` lives, and all accesses to it
            // are atomic on both sides.
            let byte = unsafe { AtomicU8::from_ptr(self.mapping.host.add((page / 8) as usize)) };
            // Release: behind the writes to the page. On x86 it is a full barrier, as on the front end's side.
            byte.fetch_or(1 << (page % 8), Ordering::AcqRel);
        }
    }

    /// Tells if the front end truncated the log's file so that its memory had to be replaced.
    pub fn poisoned(&self) -> bool {
        self.mapping.poisoned()
    }
}

/// A ring's access to the log, for the pages that it writes.
#[derive(Clone, Debug)]
pub struct RingLog {
    log: Arc<DirtyLog>,
    /// The memory that the ring writes.
    memory: Arc<GuestMemory>,
    /// The guest-physical address at which the ring's own writes are logged; `None`: they are not.
    ring: Option<u64>,
}

impl RingLog {
    /// Marks in `log` the pages that a ring writes in `memory`. `ring` is the guest-physical address of the used ring
    /// (for a packed ring: of the device event suppression), if the front end wants the ring's own writes logged.
    pub fn new(log: Arc<DirtyLog>, memory: Arc<GuestMemory>, ring: Option<u64>) -> RingLog {
        RingLog { log, memory, ring }
    }

    /// Tells if the log's memory had to be replaced.
    pub(super) fn poisoned(&self) -> bool {
        self.log.poisoned()
    }

    /// Marks `bytes` bytes at a host address inside the guest's memory.
    pub(super) fn buffer(&self, host: *const u8, bytes: u32) {
        if let Some(address) = self.memory.guest_of_host(host) {
            self.log.mark(address, bytes.into());
        }
    }

    /// Marks the first `bytes` bytes of buffers.
    pub(super) fn buffers(&self, buffers: &[Segment], bytes: u32) {
        let mut left = bytes;
        for buffer in buffers {
            let here = buffer.len.min(left);
            self.buffer(buffer.ptr, here);
            left -= here;
        }
    }

    /// Marks `bytes` bytes at an offset into the used ring, or into the device event suppression.
    pub(super) fn used(&self, offset: usize, bytes: usize) {
        if let Some(ring) = self.ring {
            self.log.mark(ring.saturating_add(offset as u64), bytes as u64);
        }
    }

    /// Marks `count` entries of `entry_bytes` bytes from number `first` on in an array of `size` entries, which goes
    /// round. `mark` is given offset and length of each run, in bytes.
    pub(super) fn entries(first: u16, count: u16, size: u16, entry_bytes: usize, mut mark: impl FnMut(usize, usize)) {
        let before_end = count.min(size - first);
        mark(usize::from(first) * entry_bytes, usize::from(before_end) * entry_bytes);
        mark(0, usize::from(count.min(size) - before_end) * entry_bytes);
    }

    /// Marks slots of a packed ring whose first slot lies at `descriptors`: `count` (at most `size`) from `first` on.
    pub(super) fn slots(&self, descriptors: *const u8, first: u16, count: u16, size: u16) {
        if self.ring.is_none() {
            return;
        }
        let Some(start) = self.memory.guest_of_host(descriptors) else { return };
        RingLog::entries(first, count, size, 16, |offset, bytes| self.log.mark(start + offset as u64, bytes as u64));
    }
}
