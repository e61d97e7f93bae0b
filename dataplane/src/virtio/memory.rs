//! Guest memory: the regions a front end shares, mapped, checked, and translated.
//!
//! A front end announces regions as (guest address, size, front-end address, file, offset). Descriptors hold
//! guest-physical addresses, ring addresses are virtual addresses of the front end. Both are translated to host
//! pointers of ranges that lie wholly in one region.
//!
//! **Invariants.**
//! - A region is mapped only if its file can be mapped safely (`mapping`).
//! - The mapped memory of one guest, and of all guests together, is bounded ([`super::memory_limit`]).
//! - Regions of one table overlap neither in guest nor in front-end addresses, and none wraps around.
//! - A [`GuestMemory`] never changes: a new table is a new value that shares the regions it keeps. The user of a host
//!   pointer holds the `Arc` that the pointer came from. The bytes are never a Rust reference: the guest writes to them
//!   at any time.
//!
//! Reference: vhost-user.rst, "Memory regions description".

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::mapping::{MappingError, SharedMapping};
use super::memory_limit::{MemoryLimit, MemoryLimitError};
use crate::reaper::PeerFd;

/// The most regions of one guest; the answer to GET_MAX_MEM_SLOTS.
pub const MAX_REGIONS: usize = 64;

/// Why memory was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region without bytes.
    #[error("the memory region at guest address {guest_start:#x} is empty")]
    Empty {
        /// Guest address.
        guest_start: u64,
    },
    /// An address range that wraps.
    #[error("the memory region at guest address {guest_start:#x} with {bytes} bytes wraps around the address space")]
    Wraps {
        /// Guest address.
        guest_start: u64,
        /// Size.
        bytes: u64,
    },
    /// Two regions share addresses.
    #[error("the memory regions at guest addresses {first:#x} and {second:#x} overlap")]
    Overlap {
        /// Guest address of one.
        first: u64,
        /// Guest address of the other.
        second: u64,
    },
    /// The file is on a disk, a network or FUSE, or is not a regular file.
    #[error(
        "the memory region at guest address {guest_start:#x} is neither shared memory (memfd, tmpfs) nor huge pages; \
         with QEMU: memory-backend-memfd, or memory-backend-file in /dev/shm or on hugetlbfs"
    )]
    NotShared {
        /// Guest address.
        guest_start: u64,
    },
    /// More memory than a guest may map.
    #[error(transparent)]
    Limit(#[from] MemoryLimitError),
    /// The file ends before the region does.
    #[error(
        "the memory region at guest address {guest_start:#x} needs {needed} bytes of its file, which has only {present}"
    )]
    FileTooShort {
        /// Guest address.
        guest_start: u64,
        /// Offset plus size of the region.
        needed: u64,
        /// Size of the file.
        present: u64,
    },
    /// More than [`MAX_REGIONS`].
    #[error("{count} memory regions; at most {MAX_REGIONS} are supported")]
    TooMany {
        /// Number of regions that there would be.
        count: usize,
    },
    /// REM_MEM_REG names a region that does not exist.
    #[error("there is no memory region at guest address {guest_start:#x} to remove")]
    Unknown {
        /// Guest address.
        guest_start: u64,
    },
    /// The kernel refused to map the region.
    #[error("cannot map the memory region at guest address {guest_start:#x}: {source}")]
    Map {
        /// Guest address.
        guest_start: u64,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// A region as the front end announces it. Sizes and offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Guest-physical start.
    pub guest_start: u64,
    /// Size.
    pub bytes: u64,
    /// Start in the front end's own address space.
    pub user_start: u64,
    /// Offset of the region in the file.
    pub file_offset: u64,
}

/// One mapped region.
#[derive(Debug)]
pub struct Region {
    info: RegionInfo,
    mapping: SharedMapping,
}

impl Region {
    /// The same as [`Region::map_within`], without a limit.
    pub fn map(info: RegionInfo, file: impl Into<PeerFd>) -> Result<Region, MemoryError> {
        Region::map_within(&Arc::default(), 0, info, file)
    }

    /// Checks and maps a region of `file`, for a guest whose other regions have `others` bytes together.
    pub fn map_within(
        limit: &Arc<MemoryLimit>,
        others: u64,
        info: RegionInfo,
        file: impl Into<PeerFd>,
    ) -> Result<Region, MemoryError> {
        let RegionInfo { guest_start, bytes, user_start, file_offset } = info;
        if bytes == 0 {
            return Err(MemoryError::Empty { guest_start });
        }
        let wraps = || MemoryError::Wraps { guest_start, bytes };
        guest_start.checked_add(bytes).ok_or_else(wraps)?;
        user_start.checked_add(bytes).ok_or_else(wraps)?;
        let mapping = SharedMapping::map(limit, others, file_offset, bytes, file.into());
        let mapping = mapping.map_err(|error| match error {
            MappingError::Wraps => wraps(),
            MappingError::NotShared => MemoryError::NotShared { guest_start },
            MappingError::Limit(source) => source.into(),
            MappingError::FileTooShort { needed, present } => {
                MemoryError::FileTooShort { guest_start, needed, present }
            }
            MappingError::Map(source) => MemoryError::Map { guest_start, source },
        })?;
        Ok(Region { info, mapping })
    }

    /// The region as the front end announced it.
    pub fn info(&self) -> RegionInfo {
        self.info
    }

    /// The region's file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.mapping.file()
    }
}

/// A contiguous run of guest memory and its place on the host: the result of a look-up, which rings keep.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start: u64,
    bytes: u64,
    host: *mut u8,
}

impl Window {
    /// An empty window.
    pub const EMPTY: Window = Window { start: 0, bytes: 0, host: std::ptr::null_mut() };

    /// The host address of `bytes` bytes at `address`, if all of them are inside.
    #[inline]
    pub fn host(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        let offset = address.checked_sub(self.start)?;
        if offset >= self.bytes || bytes > self.bytes - offset {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "offset < bytes of a mapping of this process")]
        // SAFETY: `offset` is inside the region that `host` is the first byte of.
        Some(unsafe { self.host.add(offset as usize) })
    }
}

/// All memory of one guest.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Arc<Region>>,
}

impl GuestMemory {
    /// A table of these regions.
    pub fn new(regions: Vec<Arc<Region>>) -> Result<GuestMemory, MemoryError> {
        if regions.len() > MAX_REGIONS {
            return Err(MemoryError::TooMany { count: regions.len() });
        }
        for (index, first) in regions.iter().enumerate() {
            for second in regions.iter().skip(index + 1) {
                let (a, b) = (first.info, second.info);
                if overlap(a.guest_start, a.bytes, b.guest_start, b.bytes)
                    || overlap(a.user_start, a.bytes, b.user_start, b.bytes)
                {
                    return Err(MemoryError::Overlap { first: a.guest_start, second: b.guest_start });
                }
            }
        }
        Ok(GuestMemory { regions })
    }

    /// This table with one more region.
    pub fn with(&self, region: Region) -> Result<GuestMemory, MemoryError> {
        GuestMemory::new(self.regions.iter().cloned().chain([Arc::new(region)]).collect())
    }

    /// This table without a region. `info.file_offset` does not matter.
    pub fn without(&self, info: RegionInfo) -> Result<GuestMemory, MemoryError> {
        let is_it = |region: &Arc<Region>| RegionInfo { file_offset: info.file_offset, ..region.info } == info;
        let regions: Vec<_> = self.regions.iter().filter(|region| !is_it(region)).cloned().collect();
        if regions.len() == self.regions.len() {
            return Err(MemoryError::Unknown { guest_start: info.guest_start });
        }
        Ok(GuestMemory { regions })
    }

    /// Bytes of all regions together.
    pub fn bytes(&self) -> u64 {
        // No region wraps, and no two overlap.
        self.regions.iter().map(|region| region.info.bytes).sum()
    }

    /// The first guest-physical address after all regions; 0: there is no region.
    pub fn end(&self) -> u64 {
        self.regions.iter().map(|region| region.info.guest_start + region.info.bytes).max().unwrap_or(0)
    }

    /// The regions.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.iter().map(|region| &**region)
    }

    /// Number of regions.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// The region around a guest-physical address.
    #[inline]
    pub fn window(&self, guest_address: u64) -> Option<Window> {
        self.regions
            .iter()
            .map(|region| Window {
                start: region.info.guest_start,
                bytes: region.info.bytes,
                host: region.mapping.host,
            })
            .find(|window| window.host(guest_address, 1).is_some())
    }

    /// The host address of `bytes` bytes at a guest-physical address, if they lie in one region.
    pub fn host_of_guest(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        self.window(address)?.host(address, bytes)
    }

    /// The host address of `bytes` bytes at a front-end address, if they lie in one region.
    pub fn host_of_user(&self, address: u64, bytes: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            Window { start: region.info.user_start, bytes: region.info.bytes, host: region.mapping.host }
                .host(address, bytes)
        })
    }

    /// The guest-physical address of a byte at a host address that a look-up gave.
    pub fn guest_of_host(&self, host: *const u8) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = host.addr().checked_sub(region.mapping.host.addr())? as u64;
            (offset < region.info.bytes).then(|| region.info.guest_start + offset)
        })
    }

    /// True if the guest truncated a file so that a region had to be replaced.
    pub fn poisoned(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.poisoned())
    }
}

/// True if two ranges, known not to wrap, share an address.
fn overlap(a: u64, a_bytes: u64, b: u64, b_bytes: u64) -> bool {
    a < b + b_bytes && b < a + a_bytes
}
