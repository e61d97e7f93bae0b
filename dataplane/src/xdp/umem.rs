//! Packet memory (UMEM): one area in 4096-byte chunks, and the pool of its free chunks.
//!
//! **How it works.** [`Umem`] maps the area (`mapping`) once for the whole switch; every AF_XDP socket registers the
//! same area for itself (no `XDP_SHARED_UMEM`), so ports come and go independently and an address received on one
//! port is valid for transmit on any other. [`FramePool`] knows for each chunk whether it is free or which port has
//! it (in a fill, receive, transmit or completion ring, or lent to a burst). [`PacketMemory`] is both, shared by all
//! workers: the pool's lock is taken a few times a burst and never held while a frame is copied.
//!
//! **Invariants.**
//! - A chunk has exactly one owner: the pool or one port. Giving back a chunk that is free, or another owner's, is
//!   refused.
//! - The area stays mapped while a port or a half of one lives (each holds the `Arc<PacketMemory>`).
//! - The bytes are never a Rust reference: the kernel writes to them at any time. Every access goes through the
//!   bounds-checked raw copies of this file, and stays within one chunk.
//!
//! Reference: kernel `Documentation/networking/af_xdp.rst`, "UMEM".

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

mod handover;
mod mapping;

use std::io;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use self::handover::{MemoryHandover, PoolPorts, PoolState};
pub use self::mapping::Backing;
use self::mapping::{HUGE_PAGE_BYTES, Mapping};
use crate::frame::{Burst, FrameReader, Segment};

/// Bytes per chunk: one page, so that chunks never straddle pages and the kernel's alignment rules hold.
pub const CHUNK_BYTES: u32 = 4096;
/// Bytes the kernel leaves free in front of each received frame (`XDP_PACKET_HEADROOM`); kept on copies as well.
pub const HEADROOM_BYTES: u32 = 256;
/// The longest frame that fits a chunk, bytes.
pub const CHUNK_FRAME_BYTES: u32 = CHUNK_BYTES - HEADROOM_BYTES;
/// The most chunks of one frame. The kernel's limit is 18 (`MAX_SKB_FRAGS` and the first).
pub const MAX_PIECES: usize = 18;
/// The most chunks of one area: 4 GiB.
const MAX_CHUNKS: u32 = 1 << 20;

/// Says whether packet memory is to lie in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Hugepages {
    /// Reserved 2-MiB pages if there are enough, otherwise normal pages.
    #[default]
    Auto,
    /// Reserved 2-MiB pages or nothing.
    Required,
    /// Normal pages.
    Off,
}

/// Why there is no packet memory.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// The number of chunks makes no sense.
    #[error("packet memory of {chunks} chunks of 4096 bytes: must be 1 to {MAX_CHUNKS}")]
    Size {
        /// Chunks asked for.
        chunks: u32,
    },
    /// Huge pages are required and there are not enough.
    #[error(
        "packet memory needs {pages} free 2-MiB huge pages (see vm.nr_hugepages), or hugepages = \"auto\": {source}"
    )]
    Hugepages {
        /// Pages needed.
        pages: usize,
        /// The error of mmap(2).
        source: io::Error,
    },
    /// Not enough memory.
    #[error("packet memory of {bytes} bytes can't be mapped: {source}")]
    Map {
        /// Size of the area.
        bytes: usize,
        /// The error of mmap(2).
        source: io::Error,
    },
}

/// One mapped area of packet memory.
#[derive(Debug)]
pub struct Umem {
    area: Mapping,
    chunks: u32,
    backing: Backing,
}

// SAFETY: the area is plain memory, valid from any thread until drop, and only accessed by raw copies; who may touch
// which chunk is decided by the one FramePool's owner table.
unsafe impl Send for Umem {}
// SAFETY: as above; `&Umem` gives no reference to the bytes.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps an area of `chunks` chunks of 4096 bytes.
    pub fn new(chunks: u32, hugepages: Hugepages) -> Result<Umem, UmemError> {
        if chunks == 0 || chunks > MAX_CHUNKS {
            return Err(UmemError::Size { chunks });
        }
        let bytes = chunks as usize * CHUNK_BYTES as usize;
        if hugepages != Hugepages::Off {
            match Mapping::new(bytes, Backing::Huge2M) {
                Ok(area) => return Ok(Umem { area, chunks, backing: Backing::Huge2M }),
                Err(source) if hugepages == Hugepages::Required => {
                    return Err(UmemError::Hugepages { pages: bytes.div_ceil(HUGE_PAGE_BYTES), source });
                }
                Err(_) => {}
            }
        }
        let backing = if hugepages == Hugepages::Auto { Backing::Transparent } else { Backing::Normal };
        let area = Mapping::new(bytes, backing).map_err(|source| UmemError::Map { bytes, source })?;
        Ok(Umem { area, chunks, backing })
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The kind of pages in use.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Start address for `XDP_UMEM_REG`.
    pub(super) fn address(&self) -> u64 {
        self.area.base().as_ptr().addr() as u64
    }

    /// Size in bytes for `XDP_UMEM_REG`.
    pub(super) fn len_bytes(&self) -> u64 {
        u64::from(self.chunks) * u64::from(CHUNK_BYTES)
    }

    /// Pointer to `len` bytes at UMEM address `addr`, if they lie within one chunk of the area.
    #[inline]
    fn within_chunk(&self, addr: u64, len: u32) -> Option<*mut u8> {
        let offset = addr % u64::from(CHUNK_BYTES);
        if addr >= self.len_bytes() || offset + u64::from(len) > u64::from(CHUNK_BYTES) {
            return None;
        }
        let start = usize::try_from(addr).ok()?;
        // SAFETY: `addr < len_bytes()`, which the mapping covers, so the result is inside it.
        Some(unsafe { self.area.base().as_ptr().add(start) })
    }

    /// Appends the `len` bytes at `addr` to `burst` as a frame of one segment. False, and nothing added, if they are
    /// not within one chunk or the burst is full.
    ///
    /// # Safety
    /// The chunk is not given back (to the pool or the kernel) and this `Umem` lives until the burst is cleared.
    #[inline]
    pub(super) unsafe fn lend(&self, burst: &mut Burst, addr: u64, len: u32) -> bool {
        let Some(ptr) = self.within_chunk(addr, len) else { return false };
        // SAFETY: the bytes are inside the mapping (checked above), which lives until the burst is cleared (caller).
        unsafe { burst.push_whole(addr, Segment { ptr, len }) }
    }

    /// Like [`Umem::lend`], for a frame in several pieces, each address with a length; its token is the first address.
    ///
    /// # Safety
    /// The contract of [`Umem::lend`], for each of the chunks.
    pub(super) unsafe fn lend_pieces(&self, burst: &mut Burst, pieces: impl Iterator<Item = (u64, u32)>) -> bool {
        let mut segments = [Segment::EMPTY; MAX_PIECES];
        let (mut count, mut token) = (0, 0);
        for (addr, len) in pieces {
            let (Some(ptr), Some(slot)) = (self.within_chunk(addr, len), segments.get_mut(count)) else { return false };
            *slot = Segment { ptr, len };
            if count == 0 {
                token = addr;
            }
            count += 1;
        }
        // SAFETY: the bytes are inside the mapping (checked above), which lives until the burst is cleared (caller).
        unsafe { burst.push(token, segments.get(..count).unwrap_or_default()) }
    }

    /// Copies the rest of a frame, or as much of it as a chunk holds after its headroom, to `addr`; returns the number
    /// of bytes. 0 if `addr` is not where a copy begins.
    #[inline]
    pub(super) fn copy_piece(&self, addr: u64, reader: &mut FrameReader<'_>) -> u32 {
        let len = reader.remaining().min(CHUNK_FRAME_BYTES);
        let Some(to) = self.within_chunk(addr, len) else { return 0 };
        // SAFETY: as in `copy_frame`.
        unsafe { reader.read(to, len) }
    }

    /// Copies a whole frame to `addr`. False if it does not fit the chunk.
    #[inline]
    pub(super) fn copy_frame(&self, addr: u64, mut reader: FrameReader<'_>) -> bool {
        let len = reader.remaining();
        let Some(to) = self.within_chunk(addr, len) else { return false };
        // SAFETY: `to` is writable for `len` bytes (checked above). The chunk was taken from the pool for this frame,
        // so it is not among the reader's segments: a lent chunk is never free (owner table).
        unsafe { reader.read(to, len) == len }
    }

    /// Copies `bytes` to `addr`. False if they are not within one chunk.
    #[inline]
    pub(super) fn write(&self, addr: u64, bytes: &[u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        let Some(to) = self.within_chunk(addr, len) else { return false };
        // SAFETY: `to` is writable for `len` bytes (checked above); `bytes` is ordinary memory outside the area.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        true
    }
}

/// One port may have one in this many of all chunks in its transmit and completion rings.
const SEND_SHARE: usize = 8;
/// One in this many of all chunks is never taken for sending.
const SEND_RESERVE: usize = 4;
/// A port may always have one in this many of all chunks under way (two bursts of the usual 16384), because the fill
/// rings of many ports may hold almost all chunks.
const SEND_LEAST: usize = 128;
/// Owner of a chunk that is in the pool.
const FREE: u16 = u16::MAX;

/// A chunk was given back that is not the giver's: free already, another port's, or outside the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet memory address {addr:#x} is not a chunk of this port")]
pub struct NotOwned {
    /// The UMEM address given.
    pub addr: u64,
}

/// The packet memory of a switch: the area, and the pool of its chunks.
#[derive(Debug)]
pub struct PacketMemory {
    /// The area.
    pub umem: Umem,
    pool: Mutex<FramePool>,
}

impl PacketMemory {
    /// Maps an area of `chunks` chunks of 4096 bytes, all of them free.
    pub fn new(chunks: u32, hugepages: Hugepages) -> Result<PacketMemory, UmemError> {
        Ok(PacketMemory { umem: Umem::new(chunks, hugepages)?, pool: Mutex::new(FramePool::new(chunks)) })
    }

    /// The pool, locked. A panic can't leave it half changed in a way that matters: each chunk still has one owner.
    #[inline]
    pub fn pool(&self) -> MutexGuard<'_, FramePool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The free chunks, and the owners of the others.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<u32>,
    /// Per chunk: its port, or [`FREE`].
    owners: Box<[u16]>,
    /// Per port number: whether it is taken, and the chunks in the port's transmit and completion rings.
    ports: Vec<Account>,
}

/// The pool's record of a port, besides its chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    taken: bool,
    sending: u32,
}

impl FramePool {
    /// A pool of `chunks` chunks, all free.
    fn new(chunks: u32) -> FramePool {
        // The lowest addresses are handed out first, so that the used ones stay compact.
        let free = (0..chunks).rev().collect();
        FramePool { free, owners: vec![FREE; chunks as usize].into_boxed_slice(), ports: Vec::new() }
    }

    /// A number for a port, under which it takes chunks; `None`: all are taken.
    pub fn enter(&mut self) -> Option<u16> {
        let number = self.ports.iter().position(|port| !port.taken).unwrap_or(self.ports.len());
        // Numbers begin with 1.
        let owner = u16::try_from(number + 1).ok().filter(|owner| *owner != FREE)?;
        if number == self.ports.len() {
            self.ports.push(Account::default());
        }
        *self.port(owner)? = Account { taken: true, sending: 0 };
        Some(owner)
    }

    /// Takes back every chunk of a port that is closed, and its number.
    pub fn leave(&mut self, owner: u16) {
        self.reclaim(owner);
        if let Some(port) = self.port(owner) {
            *port = Account::default();
        }
    }

    #[inline]
    fn port(&mut self, owner: u16) -> Option<&mut Account> {
        self.ports.get_mut(usize::from(owner).wrapping_sub(1))
    }

    /// The most chunks that a port may have in its transmit and completion rings: an eighth of all, and half of those
    /// free beyond the last quarter, which is for fill rings, but at least 1/128 of all. A port whose far end never
    /// releases frames thus leaves enough to the others, however many such ports there are; and beside many ports,
    /// whose fill rings hold most of the memory, each port can still send.
    #[inline]
    pub(super) fn send_limit(&self) -> u32 {
        let total = self.owners.len();
        let spare = self.free.len().saturating_sub(total / SEND_RESERVE) / 2;
        u32::try_from(spare.min(total / SEND_SHARE).max(total / SEND_LEAST)).unwrap_or(u32::MAX)
    }

    /// How many more chunks a port may put into its transmit rings.
    #[inline]
    pub(super) fn may_send(&mut self, owner: u16) -> u32 {
        let limit = self.send_limit();
        limit.saturating_sub(self.port(owner).map_or(0, |port| port.sending))
    }

    /// Records that chunks of a port went into its transmit rings, and that others have come out of the completion
    /// rings.
    #[inline]
    pub(super) fn note_sending(&mut self, owner: u16, more: u32, sent: u32) {
        if let Some(port) = self.port(owner) {
            port.sending = (port.sending + more).saturating_sub(sent);
        }
    }

    /// Number of free chunks.
    #[inline]
    pub fn free_chunks(&self) -> usize {
        self.free.len()
    }

    /// Number of chunks, free or not.
    #[inline]
    pub fn total_chunks(&self) -> usize {
        self.owners.len()
    }

    /// Number of chunks that `owner` has. Walks the whole table: for the control path and tests.
    pub fn owned_chunks(&self, owner: u16) -> usize {
        self.owners.iter().filter(|&&o| o == owner).count()
    }

    /// Takes a free chunk for `owner` and returns its address.
    #[inline]
    pub fn take(&mut self, owner: u16) -> Option<u64> {
        let chunk = self.free.pop()?;
        *self.owners.get_mut(chunk as usize)? = owner;
        Some(u64::from(chunk) * u64::from(CHUNK_BYTES))
    }

    /// Puts the chunk that `addr` lies in back. It must be `owner`'s.
    #[inline]
    pub fn give(&mut self, addr: u64, owner: u16) -> Result<(), NotOwned> {
        let chunk = self.chunk_of(addr, owner)?;
        if let Some(slot) = self.owners.get_mut(chunk as usize) {
            *slot = FREE;
            self.free.push(chunk);
        }
        Ok(())
    }

    /// Passes the chunk at `addr`, whoever owns it, on to `to`. A free chunk can't be passed on.
    #[inline]
    pub fn transfer(&mut self, addr: u64, to: u16) -> Result<(), NotOwned> {
        let slot = usize::try_from(addr / u64::from(CHUNK_BYTES)).ok().and_then(|chunk| self.owners.get_mut(chunk));
        match slot {
            Some(owner) if *owner != FREE => {
                *owner = to;
                Ok(())
            }
            _ => Err(NotOwned { addr }),
        }
    }

    /// True if the chunk that `addr` lies in is `owner`'s.
    #[inline]
    pub fn check(&self, addr: u64, owner: u16) -> Result<(), NotOwned> {
        self.chunk_of(addr, owner).map(drop)
    }

    #[inline]
    fn chunk_of(&self, addr: u64, owner: u16) -> Result<u32, NotOwned> {
        let chunk = u32::try_from(addr / u64::from(CHUNK_BYTES)).map_err(|_| NotOwned { addr })?;
        match self.owners.get(chunk as usize) {
            Some(&of) if of == owner && owner != FREE => Ok(chunk),
            _ => Err(NotOwned { addr }),
        }
    }

    /// Takes back every chunk that `owner` still has, and returns how many. Only after the kernel has let go of the
    /// port's queues: until then it may write to them.
    pub fn reclaim(&mut self, owner: u16) -> usize {
        let before = self.free.len();
        if owner != FREE {
            for (chunk, slot) in (0u32..).zip(self.owners.iter_mut()) {
                if *slot == owner {
                    *slot = FREE;
                    self.free.push(chunk);
                }
            }
        }
        self.free.len() - before
    }
}

#[cfg(test)]
#[path = "umem/tests.rs"]
mod tests;
