//! The memory of packet memory: a file without a name (memfd), mapped shared, so that another process can map the same.
//!
//! **How it works.** Reserved huge pages come from a memfd of them. Normal pages lie at an address where the kernel can
//! put huge pages in their place, and it is asked to. The setting for shared memory (`shmem_enabled` in
//! `/sys/kernel/mm/transparent_hugepage`) decides; it is `never` nearly everywhere, and from Linux 6.1 on some kernels
//! do it on request (`MADV_COLLAPSE`) all the same.
//!
//! **Invariants.** The file is sealed: it keeps its size, so no access beyond its end is possible. A mapping covers no
//! more than the file has. All pages are present.
//!
//! Reference: memfd_create(2), madvise(2), fcntl(2) `F_ADD_SEALS`.

#![allow(unsafe_code, reason = "packet memory shared with the kernel and another process")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;
const NAME: &str = "labsw-packets";

/// The kind of memory that holds the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Backing {
    /// Reserved 2-MiB pages.
    Huge2M,
    /// Normal pages; the kernel was asked to make transparent huge pages of them.
    Transparent,
    /// Normal pages, as asked for.
    Normal,
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backing::Huge2M => "2-MiB huge pages",
            Backing::Transparent => "normal pages (transparent huge pages where the kernel can)",
            Backing::Normal => "normal pages",
        })
    }
}

/// A mapped area, whole pages of its kind.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
}

impl Mapping {
    /// An area of at least so many bytes, all zero.
    pub(super) fn new(bytes: usize, backing: Backing) -> io::Result<Mapping> {
        let file = create(backing)?;
        let bytes = rounded(bytes, backing);
        ftruncate(&file, bytes as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Mapping::map(file, bytes, backing, backing == Backing::Transparent)
    }

    /// The area that another process made; its contents stay. Its pages are huge already if they can be, and the kernel
    /// may take seconds on a busy machine to look at them again.
    pub(super) fn adopt(file: OwnedFd, bytes: usize, backing: Backing) -> io::Result<Mapping> {
        let bytes = rounded(bytes, backing);
        let has = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if has < bytes as u64 || !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::other(format!("its file has {has} bytes, not {bytes} that stay")));
        }
        Mapping::map(file, bytes, backing, false)
    }

    /// Maps the file; `collapse`: makes its pages huge first.
    fn map(file: OwnedFd, bytes: usize, backing: Backing, collapse: bool) -> io::Result<Mapping> {
        let base = match backing {
            // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
            Backing::Huge2M => unsafe {
                mmap(ptr::null_mut(), bytes, READ_WRITE, MapFlags::SHARED | MapFlags::POPULATE, &file, 0)?
            },
            Backing::Transparent | Backing::Normal => map_aligned(&file, bytes)?,
        };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = Mapping { base, bytes, file };
        if collapse {
            mapping.collapse();
        }
        match mapping.advise(Advice::LinuxPopulateWrite) {
            // A kernel before 5.14 makes them present when they are registered.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        // Frames have no business in a core dump, but a kernel that does not take the advice is no reason to do without
        // the area.
        let _ = mapping.advise(Advice::LinuxDontDump);
        Ok(mapping)
    }

    /// The first byte.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The file.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Asks for huge pages; where there are none, or the kernel can't, normal pages stay.
    fn collapse(&self) {
        let _ = self.advise(Advice::LinuxHugepage);
        // SAFETY: the whole of this mapping; the call changes which pages hold the contents, not the contents.
        let _ = unsafe { libc::madvise(self.base.as_ptr().cast::<c_void>(), self.bytes, libc::MADV_COLLAPSE) };
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: the whole of this mapping; the advices used here change no contents.
        unsafe { madvise(self.base.as_ptr().cast::<c_void>(), self.bytes, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; whoever holds the area is going away with it. The kernel's own
        // pins on the pages outlive the mapping, so a socket still closing is harmless.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn rounded(bytes: usize, backing: Backing) -> usize {
    if backing == Backing::Huge2M { bytes.next_multiple_of(HUGE_PAGE_BYTES) } else { bytes }
}

fn create(backing: Backing) -> io::Result<OwnedFd> {
    let huge =
        if backing == Backing::Huge2M { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | huge;
    match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
        // A kernel before 6.3 does not know that nothing of it is to be run.
        Err(Errno::INVAL) => Ok(memfd_create(NAME, flags)?),
        other => Ok(other?),
    }
}

/// Maps the file where a huge page could begin.
fn map_aligned(file: &OwnedFd, bytes: usize) -> io::Result<*mut c_void> {
    let reserved_bytes = bytes + HUGE_PAGE_BYTES;
    // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
    let reserved = unsafe {
        mmap_anonymous(ptr::null_mut(), reserved_bytes, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)?
    };
    let before = reserved.addr().next_multiple_of(HUGE_PAGE_BYTES) - reserved.addr();
    let after = reserved_bytes - before - bytes;
    // SAFETY: `before <= HUGE_PAGE_BYTES`, so `base` up to `base + bytes` is inside the reserved range, which nobody
    // else knows; the file takes that part's place, and what lies before and behind it is given back.
    unsafe {
        let base = reserved.byte_add(before);
        let mapped = mmap(base, bytes, READ_WRITE, MapFlags::SHARED | MapFlags::FIXED, file, 0);
        if mapped.is_err() {
            munmap(reserved, reserved_bytes)?;
            return Ok(mapped?);
        }
        if before > 0 {
            munmap(reserved, before)?;
        }
        if after > 0 {
            munmap(base.byte_add(bytes), after)?;
        }
        Ok(base)
    }
}
