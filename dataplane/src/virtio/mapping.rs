//! A range of a front end's file, mapped and guarded: a region of guest memory, or the log of its pages.
//!
//! **Invariants.**
//! - A range is mapped only if its file lies in shared memory or huge pages: the kernel serves those by itself. The
//!   pages of any other file may wait for a disk, a network or a program of the front end's (FUSE), and so may a mere
//!   `fstat`.
//! - A range is mapped only if its file is at least `offset + size` long *now* (touching a page behind the end raises
//!   SIGBUS); [`super::sigbus`] catches a file that shrinks later.
//! - Each mapping counts against the limit of its port and of all ports ([`super::memory_limit`]).
//! - Core dumps hold none of it. The bytes are never a Rust reference: the front end writes to them at any time.

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::mm::{Advice, madvise};
use vm_memory::{FileOffset, MmapRegion};

use super::memory_limit::{MemoryLimit, MemoryLimitError, Reservation};
use super::sigbus::{self, RegionGuard};
use crate::reaper::PeerFd;

/// `f_type` of hugetlbfs (linux/magic.h).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// The reason why a range of a file is not mapped.
#[derive(Debug)]
pub(super) enum MappingError {
    /// Offset and size together wrap.
    Wraps,
    /// The file is on a disk, a network or FUSE, or no file at all.
    NotShared,
    /// More than may be mapped.
    Limit(MemoryLimitError),
    /// The file ends before the range does.
    FileTooShort {
        /// Offset plus size of the range.
        needed: u64,
        /// Size of the file.
        present: u64,
    },
    /// The kernel would not map it.
    Map(io::Error),
}

/// A mapped range of a file.
#[derive(Debug)]
pub(super) struct SharedMapping {
    /// Host address of the range's first byte, inside `mapping`.
    pub(super) host: *mut u8,
    // Field order is drop order: the registration ends before the mapping does.
    guard: RegionGuard,
    _mapping: MmapRegion,
    file: Arc<File>,
    /// Where in the file the range begins, bytes.
    pub(super) offset: u64,
    /// The mapping's share of the memory limit.
    _reservation: Reservation,
}

// SAFETY: `host` points into `_mapping`, which is owned, process-wide, and only read or written through raw pointers by
// code that holds the mapping alive; nothing in it is tied to a thread.
unsafe impl Send for SharedMapping {}
// SAFETY: as above; a shared `SharedMapping` only hands out copies of the pointer.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps `bytes` bytes (at least one) of `file` from `offset` on, for a guest that has `others` bytes mapped
    /// already.
    pub(super) fn map(
        limit: &Arc<MemoryLimit>,
        others: u64,
        offset: u64,
        bytes: u64,
        file: PeerFd,
    ) -> Result<SharedMapping, MappingError> {
        let needed = offset.checked_add(bytes).ok_or(MappingError::Wraps)?;
        // This call comes first: it is the only one on a file that needs no answer from a file system, and only shared
        // memory and huge pages have seals.
        let seals = fcntl_get_seals(&file).map_err(|_| MappingError::NotShared)?;
        let stat = fstat(&file).map_err(|error| MappingError::Map(error.into()))?;
        let present = u64::try_from(stat.st_size).unwrap_or(0);
        if present < needed {
            return Err(MappingError::FileTooShort { needed, present });
        }
        let reservation = limit.reserve(others, bytes).map_err(MappingError::Limit)?;
        if !seals.contains(SealFlags::SHRINK) {
            tracing::debug!(bytes, "a front end's file is not sealed against shrinking; watching for SIGBUS");
        }
        sigbus::install().map_err(MappingError::Map)?;
        let page_bytes = page_bytes(&file).map_err(MappingError::Map)?;
        // Offsets of huge-page files need not be aligned to a huge page (QEMU splits one file into regions), but the
        // mapping must be: map from the page below to the page above. A huge-page file has whole pages only.
        let lead = offset % page_bytes;
        let length = (lead + bytes).checked_next_multiple_of(page_bytes).ok_or(MappingError::Wraps)?;
        let file = Arc::new(File::from(file.keep()));
        let mapping = MmapRegion::from_file(
            FileOffset::from_arc(Arc::clone(&file), offset - lead),
            usize::try_from(length).map_err(|_| MappingError::Wraps)?,
        )
        .map_err(|error| MappingError::Map(io::Error::other(error)))?;
        // Exposed: the SIGBUS handler makes a pointer of the fault's address.
        let start = mapping.as_ptr().expose_provenance();
        // SAFETY: the mapping made right above, in which nobody has anything yet; the advice changes no contents.
        unsafe { madvise(mapping.as_ptr().cast(), mapping.size(), Advice::LinuxDontDump) }
            .map_err(|error| MappingError::Map(error.into()))?;
        #[allow(clippy::cast_possible_truncation, reason = "less than a page")]
        let lead = lead as usize;
        let full = || MappingError::Map(io::Error::other("too many guest memory regions in this process"));
        let guard = RegionGuard::new(start, mapping.size()).ok_or_else(full)?;
        // SAFETY: `lead` is less than a page and the mapping holds `lead + bytes` bytes.
        let host = unsafe { mapping.as_ptr().add(lead) };
        Ok(SharedMapping { host, guard, _mapping: mapping, file, offset, _reservation: reservation })
    }

    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Tells if the front end truncated the file so that the mapping had to be replaced.
    pub(super) fn poisoned(&self) -> bool {
        self.guard.poisoned()
    }
}

/// Size of the pages that a file is mapped in.
fn page_bytes(file: impl AsFd) -> io::Result<u64> {
    let fs = fstatfs(file)?;
    #[allow(clippy::cast_sign_loss, reason = "magic number and block size are bit patterns of positive numbers")]
    let (kind, block) = (fs.f_type as u64, fs.f_bsize as u64);
    Ok(if kind == HUGETLBFS_MAGIC && block.is_power_of_two() { block } else { rustix::param::page_size() as u64 })
}
