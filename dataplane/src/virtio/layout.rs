//! The layout of a ring: the front end's addresses, checked and turned into host pointers once.
//!
//! **Invariant.** All parts of a [`RingLayout`] lie inside one region each of memory that the layout keeps mapped,
//! aligned as their fields need. It hands out only atomics in that memory, or pointers for its own ring's use.
//!
//! Reference: Virtio 1.2, 2.7 and 2.8 (layout and alignment); 2.8.14 "Event Suppression Structure Format".

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::dirty_log::RingLog;
use super::memory::GuestMemory;

/// Size of a descriptor, bytes.
pub(super) const DESCRIPTOR_BYTES: u64 = 16;
/// The most entries of a ring (Virtio 1.2, 2.7).
pub const MAX_RING_SIZE: u16 = 32768;
/// Descriptors that one chain may have, those of its indirect table included. Drivers need far fewer: Linux at most 47
/// (`MAX_SKB_FRAGS`, which is 17 unless configured up to 45, and two more), FreeBSD 64, DPDK 32 for 64 KiB in 2-KiB
/// buffers.
pub const MAX_CHAIN_DESCRIPTORS: u32 = 256;

/// Why a ring cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Zero, or more than [`MAX_RING_SIZE`].
    #[error("a packed ring of {size} entries; it must have 1 to {MAX_RING_SIZE}")]
    PackedSize {
        /// Entries asked for.
        size: u32,
    },
    /// Not a power of two up to [`MAX_RING_SIZE`].
    #[error("a ring of {size} entries; it must be a power of two of at most {MAX_RING_SIZE}")]
    Size {
        /// Entries asked for.
        size: u32,
    },
    /// A part outside memory.
    #[error("the {part} at front-end address {address:#x} is not inside one region of the guest's memory")]
    OutsideMemory {
        /// The name of the part.
        part: &'static str,
        /// Front-end address.
        address: u64,
    },
    /// A part with the wrong alignment.
    #[error("the {part} at front-end address {address:#x} is not aligned to {align} bytes")]
    Unaligned {
        /// The name of the part.
        part: &'static str,
        /// Front-end address.
        address: u64,
        /// Alignment needed.
        align: usize,
    },
}

/// Addresses of a ring's parts in the front end's address space, as in SET_VRING_ADDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

/// A ring's parts on the host, checked, with the memory they lie in.
#[derive(Clone, Debug)]
pub struct RingLayout {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) size: u16,
    packed: bool,
    /// Descriptor table, or descriptor ring.
    pub(super) descriptors: *mut u8,
    /// Available ring, or driver event suppression.
    available: *mut u8,
    /// Used ring, or device event suppression.
    pub(super) used: *mut u8,
}

// SAFETY: the pointers lead into process-wide mappings that `memory` keeps alive; nothing is tied to a thread.
unsafe impl Send for RingLayout {}

impl RingLayout {
    /// Translates and checks size, bounds and alignment of a split ring.
    pub fn resolve(memory: Arc<GuestMemory>, size: u32, addresses: RingAddresses) -> Result<RingLayout, LayoutError> {
        let entries = u16::try_from(size)
            .ok()
            .filter(|size| size.is_power_of_two() && *size <= MAX_RING_SIZE)
            .ok_or(LayoutError::Size { size })?;
        let count = u64::from(entries);
        let RingAddresses { descriptors, available, used } = addresses;
        // Flags and index, entries, event index.
        let descriptors = place(&memory, "descriptor table", descriptors, DESCRIPTOR_BYTES * count, 16)?;
        let available = place(&memory, "available ring", available, 4 + 2 * count + 2, 2)?;
        let used = place(&memory, "used ring", used, 4 + 8 * count + 2, 4)?;
        Ok(RingLayout { size: entries, packed: false, descriptors, available, used, memory })
    }

    /// Translates and checks size, bounds and alignment of a packed ring; `available` is its driver area, `used` its
    /// device area.
    pub fn resolve_packed(
        memory: Arc<GuestMemory>,
        size: u32,
        addresses: RingAddresses,
    ) -> Result<RingLayout, LayoutError> {
        let entries = u16::try_from(size)
            .ok()
            .filter(|size| (1..=MAX_RING_SIZE).contains(size))
            .ok_or(LayoutError::PackedSize { size })?;
        let bytes = DESCRIPTOR_BYTES * u64::from(entries);
        let descriptors = place(&memory, "descriptor ring", addresses.descriptors, bytes, 16)?;
        let available = place(&memory, "driver event suppression", addresses.available, 4, 4)?;
        let used = place(&memory, "device event suppression", addresses.used, 4, 4)?;
        Ok(RingLayout { size: entries, packed: true, descriptors, available, used, memory })
    }

    /// True for a packed ring.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// The 16-bit field `offset` bytes into the available ring.
    ///
    /// For a split ring only; `offset` is even and at most `4 + 2 * size`.
    #[inline]
    pub(super) fn available_field(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset <= 4 + 2 * usize::from(self.size));
        // SAFETY: the available ring is mapped for `4 + 2 * size + 2` bytes and 2-aligned (`resolve`), the mapping
        // lives as long as `memory`, and all accesses to these fields are atomic on both sides.
        unsafe { AtomicU16::from_ptr(self.available.add(offset).cast()) }
    }

    /// The 16-bit field `offset` bytes into the used ring: flags (0), index (2), event index (`4 + 8 * size`).
    #[inline]
    pub(super) fn used_field(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset <= 4 + 8 * usize::from(self.size));
        // SAFETY: as above, with `4 + 8 * size + 2` bytes and 4-alignment.
        unsafe { AtomicU16::from_ptr(self.used.add(offset).cast()) }
    }

    /// The ring's own used index, at which a new device resumes.
    pub fn used_index(&self) -> u16 {
        self.used_field(2).load(Ordering::Acquire)
    }

    /// Length, buffer id and flags of slot `index` of a packed ring, which is below its size: one word, so that one
    /// access reads or writes all three.
    #[inline]
    pub(super) fn slot(&self, index: u16) -> &AtomicU64 {
        debug_assert!(self.packed && index < self.size);
        // SAFETY: the descriptor ring is mapped for `16 * size` bytes and 16-aligned (`resolve_packed`), `index` is
        // below `size` (caller), the mapping lives as long as `memory`, and this half of a slot is only accessed
        // atomically.
        unsafe { AtomicU64::from_ptr(self.descriptors.add(16 * usize::from(index) + 8).cast()) }
    }

    /// The driver event suppression of a packed ring: offset and wrap counter, flags.
    #[inline]
    pub(super) fn driver_event(&self) -> [u16; 2] {
        debug_assert!(self.packed);
        // SAFETY: mapped for 4 bytes and 4-aligned (`resolve_packed`); only accessed atomically.
        let word = unsafe { AtomicU32::from_ptr(self.available.cast()) }.load(Ordering::Relaxed);
        let [a, b, c, d] = word.to_le_bytes();
        [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
    }

    /// The device event suppression of a packed ring: offset and wrap counter (0), flags (1).
    #[inline]
    pub(super) fn device_event(&self) -> &[AtomicU16; 2] {
        debug_assert!(self.packed);
        // SAFETY: mapped for 4 bytes and 4-aligned (`resolve_packed`), alive as long as `memory`, only accessed
        // atomically.
        unsafe { &*self.used.cast::<[AtomicU16; 2]>() }
    }
}

/// Everything that a ring needs to start.
#[derive(Clone, Debug)]
pub struct RingSetup {
    /// The layout of the ring.
    pub layout: RingLayout,
    /// The features acknowledged by the driver.
    pub features: u64,
    /// The guest's doorbell, an eventfd; `None`: the ring has to be polled.
    pub kick: Option<Arc<OwnedFd>>,
    /// The guest's interrupt, an eventfd; `None`: the guest polls.
    pub call: Option<Arc<OwnedFd>>,
    /// The log of pages that the ring writes; `None`: pages are not logged.
    pub log: Option<RingLog>,
}

/// The host address of one part of a ring.
fn place(
    memory: &GuestMemory,
    part: &'static str,
    address: u64,
    bytes: u64,
    align: usize,
) -> Result<*mut u8, LayoutError> {
    let host = memory.host_of_user(address, bytes).ok_or(LayoutError::OutsideMemory { part, address })?;
    if host.addr().is_multiple_of(align) { Ok(host) } else { Err(LayoutError::Unaligned { part, address, align }) }
}
