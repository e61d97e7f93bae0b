//! Shared memory of a guest: a file in memory and its mapping, read and written by copying. Its length may change while
//! the switch has it mapped.

use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::MEMORY_BYTES;

/// Shared memory of the guest, seen from the front end.
#[derive(Debug)]
pub struct Memory {
    /// The file.
    pub file: OwnedFd,
    bytes: u64,
    start: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone and is as good on one thread as on another; all access is by copying.
unsafe impl Send for Memory {}

impl Memory {
    /// A file of [`MEMORY_BYTES`], mapped.
    ///
    /// # Panics
    /// When the kernel has no memory.
    pub fn new() -> Self {
        Self::sized(MEMORY_BYTES)
    }

    /// A file of so many bytes, mapped. The kernel gives pages when they are touched.
    ///
    /// # Panics
    /// When the kernel has no memory.
    pub fn sized(size: u64) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        ftruncate(&file, size).expect("size of a memfd");
        Self::map(file, size)
    }

    fn map(file: OwnedFd, size: u64) -> Self {
        let bytes = usize::try_from(size).expect("fits");
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
        };
        Self { file, bytes: size, start: NonNull::new(start.expect("map a memfd").cast()).expect("not null") }
    }

    /// The same memory, mapped again: for somebody who writes at the same time.
    ///
    /// # Panics
    /// When the kernel has no memory.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::map(self.file.try_clone().expect("a descriptor"), self.bytes)
    }

    /// Writes bytes at an offset.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= self.bytes);
        let offset = usize::try_from(offset).expect("fits");
        // SAFETY: inside the mapping (asserted), which lives as long as `self`; the other process is not Rust's
        // concern.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len()) };
    }

    /// Reads bytes at an offset.
    ///
    /// # Panics
    /// When they are not inside.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        assert!(offset + bytes.len() as u64 <= self.bytes);
        let offset = usize::try_from(offset).expect("fits");
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
    }

    pub(super) fn read_u16(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Gives the file another length.
    ///
    /// # Panics
    /// When the kernel does not let us.
    pub fn truncate(&self, bytes: u64) {
        ftruncate(&self.file, bytes).expect("truncate a memfd");
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of the same length; nobody has pointers into it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), usize::try_from(self.bytes).unwrap_or(0)) };
    }
}
