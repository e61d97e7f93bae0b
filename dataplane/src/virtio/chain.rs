//! Descriptor chains: from a head index to host pointers, trusting nothing.
//!
//! **How it works.** `Walker::walk` follows a chain of a split ring, `Walker::walk_packed` one of a packed ring, where
//! the next descriptor is the next slot; both append one segment per descriptor. Each descriptor is
//! copied once into a local and only the local is looked at; each buffer must lie wholly in one memory region (the last
//! two hit are tried first). One indirect table may end a chain.
//!
//! **Invariants.** A walk reads at most [`MAX_CHAIN_DESCRIPTORS`] descriptors, whatever the size of the ring, so loops
//! end; it never goes outside the table or the guest's memory. [`Walker::descriptors_read`] counts the work, and
//! callers that walk several chains charge it to a budget.
//!
//! Reference: Virtio 1.2, 2.7.5 "The Virtqueue Descriptor Table", 2.7.5.3 "Indirect Descriptors"; 2.8.6 and 2.8.7
//! for packed rings.

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::RingError;
use super::layout::{MAX_CHAIN_DESCRIPTORS, RingLayout};
use super::memory::{GuestMemory, Window};
use crate::frame::Segment;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Entries that an indirect table may have whatever the queue's size is: Linux makes tables longer than a small queue,
/// QEMU's own limit is the same.
const INDIRECT_ENTRIES: u32 = 1024;

/// A descriptor, read once.
#[derive(Clone, Copy)]
struct Descriptor {
    address: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// Reads a descriptor.
    ///
    /// # Safety
    /// `at` is readable for 16 bytes.
    unsafe fn read(at: *const u8) -> Descriptor {
        let words = at.cast::<u64>();
        if words.is_aligned() {
            // SAFETY: readable (caller) and aligned.
            return unsafe { Descriptor::read_aligned(words) };
        }
        let mut bytes = [0u8; 16];
        for (offset, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `offset` < 16, readable (caller).
            *byte = unsafe { at.add(offset).read_volatile() };
        }
        let both = u128::from_ne_bytes(bytes);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves, on a little-endian host")]
        Descriptor::of(both as u64, (both >> 64) as u64)
    }

    /// Reads a descriptor, as two words.
    ///
    /// # Safety
    /// `words` is readable for 16 bytes and aligned to 8.
    #[inline(always)]
    unsafe fn read_aligned(words: *const u64) -> Descriptor {
        // SAFETY: readable and aligned (caller); volatile, so that each word is read exactly once.
        let (address, rest) = unsafe { (words.read_volatile(), words.add(1).read_volatile()) };
        Descriptor::of(address, rest)
    }

    /// Takes the two words of a descriptor apart.
    #[inline]
    fn of(address: u64, rest: u64) -> Descriptor {
        #[allow(clippy::cast_possible_truncation, reason = "picks the fields out of the word")]
        Descriptor { address, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }

    /// The same bytes read as a descriptor of a packed ring, which has the buffer id (here `next`) before the flags.
    #[inline]
    fn packed(self) -> Descriptor {
        Descriptor { flags: self.next, next: self.flags, ..self }
    }
}

/// The direction of the bytes in a ring's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The guest wrote the bytes, the switch reads them.
    FromGuest,
    /// The switch writes the bytes.
    ToGuest,
}

/// The outcome of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// The appended segments describe this many bytes.
    Bytes(u64),
    /// A descriptor has the wrong direction.
    WrongWay,
}

/// The outcome of a walk over a chain of a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedWalk {
    /// The outcome as for a split ring.
    pub(super) walk: Walk,
    /// The buffer id, from the last descriptor.
    pub(super) id: u16,
    /// Number of slots that the chain takes: 1 to the ring's size and to [`MAX_CHAIN_DESCRIPTORS`].
    pub(super) slots: u16,
}

/// Follows chains of one ring.
#[derive(Debug)]
pub(super) struct Walker {
    memory: Arc<GuestMemory>,
    /// The two regions of the last hits: guests with some memory below 4 GiB and some above use both all the time.
    windows: [Window; 2],
    table: *const u8,
    size: u16,
    indirect: bool,
    /// Descriptors read by walks so far.
    read: u64,
}

impl Walker {
    /// A walker for a descriptor table of `size` entries at `table`, which lies in `memory`.
    pub(super) fn new(memory: Arc<GuestMemory>, table: *const u8, size: u16, indirect: bool) -> Walker {
        Walker { memory, windows: [Window::EMPTY; 2], table, size, indirect, read: 0 }
    }

    /// The memory that contains the ring.
    pub(super) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Number of descriptors that walks have read so far. The one read by [`Walker::single`] is not counted.
    #[inline]
    pub(super) fn descriptors_read(&self) -> u64 {
        self.read
    }

    /// The buffer of the chain at `head`, if the chain is the usual one: a single descriptor with the right direction,
    /// in a region of the last hits. For all other chains, also malformed ones, there is [`Walker::walk`].
    #[inline(always)]
    pub(super) fn single(&self, head: u16, direction: Direction) -> Option<Segment> {
        if head >= self.size {
            return None;
        }
        // SAFETY: the table has `size` entries of 16 bytes and is aligned to 16 (checked when the ring started); `head`
        // is below `size`.
        let descriptor = unsafe { Descriptor::read_aligned(self.table.add(usize::from(head) * 16).cast()) };
        self.whole(descriptor, direction)
    }

    /// The same as [`Walker::single`], for a packed ring, with the buffer id. `head` is the second word of slot
    /// `index`, already found available.
    #[inline(always)]
    pub(super) fn single_packed(&self, index: u16, head: u64, direction: Direction) -> Option<(Segment, u16)> {
        if index >= self.size {
            return None;
        }
        // SAFETY: the ring has `size` slots of 16 bytes (checked when it started) and `index` is below.
        let address = unsafe { self.table.add(usize::from(index) * 16).cast::<u64>().read_volatile() };
        let descriptor = Descriptor::of(address, head).packed();
        self.whole(descriptor, direction).map(|buffer| (buffer, descriptor.next))
    }

    /// The buffer of `descriptor`, if the descriptor is a whole chain and its buffer lies in a region of the last hits.
    #[inline(always)]
    fn whole(&self, descriptor: Descriptor, direction: Direction) -> Option<Segment> {
        let usual = match direction {
            Direction::FromGuest => 0,
            Direction::ToGuest => WRITE,
        };
        if descriptor.flags & (NEXT | WRITE | INDIRECT) != usual {
            return None;
        }
        let ptr = self.known(descriptor.address, descriptor.len)?.cast_const();
        Some(Segment { ptr, len: descriptor.len })
    }

    /// Appends the buffers of the chain at `head` to `segments`, until they describe `until` bytes or the chain ends.
    /// The last descriptor may name a table in which the chain goes on.
    pub(super) fn walk(
        &mut self,
        head: u16,
        direction: Direction,
        until: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<Walk, RingError> {
        let (mut table, mut entries, mut nested) = (self.table, u32::from(self.size), false);
        let (mut index, mut followed) = (head, 0);
        let mut bytes = 0u64;
        for _ in 0..MAX_CHAIN_DESCRIPTORS {
            if followed == entries {
                return Err(RingError::ChainTooLong { limit: entries });
            }
            if u32::from(index) >= entries {
                return Err(RingError::NextOutside { next: index, entries });
            }
            followed += 1;
            self.read += 1;
            // SAFETY: the table has `entries` entries of 16 bytes (checked when the ring started, or translated as one
            // range) and `index` is below.
            let descriptor = unsafe { Descriptor::read(table.add(usize::from(index) * 16)) };
            if descriptor.flags & INDIRECT != 0 {
                if nested {
                    return Err(RingError::IndirectNested);
                }
                (table, entries) = self.indirect_table(descriptor)?;
                (index, followed, nested) = (0, 0, true);
                continue;
            }
            if !self.append(descriptor, direction, segments)? {
                return Ok(Walk::WrongWay);
            }
            bytes += u64::from(descriptor.len);
            if bytes >= until || descriptor.flags & NEXT == 0 {
                return Ok(Walk::Bytes(bytes));
            }
            index = descriptor.next;
        }
        Err(RingError::TooManyDescriptors)
    }

    /// Appends the buffers of the chain of a packed ring that begins at slot `index`, until they describe `until`
    /// bytes; the rest of the chain is only counted. `head` is the second word of that slot, already found available.
    #[inline]
    pub(super) fn walk_packed(
        &mut self,
        ring: &RingLayout,
        mut index: u16,
        head: u64,
        direction: Direction,
        until: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<PackedWalk, RingError> {
        let mut word = head;
        let mut walk = Walk::Bytes(0);
        let start = self.read;
        for slots in 1..=self.size {
            if self.read - start == u64::from(MAX_CHAIN_DESCRIPTORS) {
                return Err(RingError::TooManyDescriptors);
            }
            self.read += 1;
            // SAFETY: the ring has `size` slots of 16 bytes (checked when it started) and `index` is below.
            let address = unsafe { self.table.add(usize::from(index) * 16).cast::<u64>().read_volatile() };
            let descriptor = Descriptor::of(address, word).packed();
            let flags = descriptor.flags;
            if let Walk::Bytes(bytes) = walk {
                if flags & INDIRECT != 0 {
                    let left = u64::from(MAX_CHAIN_DESCRIPTORS) - (self.read - start);
                    walk = self.walk_packed_table(descriptor, direction, until, bytes, left, segments)?;
                } else if bytes < until {
                    let right = self.append(descriptor, direction, segments)?;
                    walk = if right { Walk::Bytes(bytes + u64::from(descriptor.len)) } else { Walk::WrongWay };
                }
            }
            if flags & NEXT == 0 {
                return Ok(PackedWalk { walk, id: descriptor.next, slots });
            }
            index = if index + 1 < self.size { index + 1 } else { 0 };
            word = ring.slot(index).load(Ordering::Relaxed);
        }
        Err(RingError::ChainTooLong { limit: u32::from(self.size) })
    }

    /// Walks the part of a packed ring's chain that lies in the indirect table `table`: all its entries in order, at
    /// most `left`.
    fn walk_packed_table(
        &mut self,
        table: Descriptor,
        direction: Direction,
        until: u64,
        mut bytes: u64,
        left: u64,
        segments: &mut Vec<Segment>,
    ) -> Result<Walk, RingError> {
        let (start, entries) = self.indirect_table(table)?;
        if u64::from(entries) > left {
            return Err(RingError::TooManyDescriptors);
        }
        for index in 0..entries {
            self.read += 1;
            // SAFETY: `entries` descriptors of 16 bytes lie at `start` and `index` is below.
            let descriptor = unsafe { Descriptor::read(start.add(index as usize * 16)) }.packed();
            if descriptor.flags & INDIRECT != 0 {
                return Err(RingError::IndirectNested);
            }
            if bytes >= until {
                break;
            }
            if !self.append(descriptor, direction, segments)? {
                return Ok(Walk::WrongWay);
            }
            bytes += u64::from(descriptor.len);
        }
        Ok(Walk::Bytes(bytes))
    }

    /// The start of an indirect table, and its number of descriptors (16 bytes each).
    fn indirect_table(&mut self, table: Descriptor) -> Result<(*const u8, u32), RingError> {
        if !self.indirect {
            return Err(RingError::IndirectNotNegotiated);
        }
        if table.flags & NEXT != 0 {
            return Err(RingError::IndirectNotLast);
        }
        let entries = table.len / 16;
        if !table.len.is_multiple_of(16) || entries == 0 || entries > INDIRECT_ENTRIES {
            return Err(RingError::IndirectLength { len: table.len });
        }
        Ok((self.host(table.address, table.len)?.cast_const(), entries))
    }

    /// Appends one buffer; false if it has the wrong direction.
    #[inline]
    fn append(
        &mut self,
        descriptor: Descriptor,
        direction: Direction,
        segments: &mut Vec<Segment>,
    ) -> Result<bool, RingError> {
        if (descriptor.flags & WRITE != 0) != (direction == Direction::ToGuest) {
            return Ok(false);
        }
        if descriptor.len > 0 {
            let ptr = self.host(descriptor.address, descriptor.len)?.cast_const();
            segments.push(Segment { ptr, len: descriptor.len });
        }
        Ok(true)
    }

    /// The host address of a range of guest memory in one of the regions of the last hits.
    #[inline(always)]
    fn known(&self, address: u64, len: u32) -> Option<*mut u8> {
        let [first, second] = &self.windows;
        first.host(address, len.into()).or_else(|| second.host(address, len.into()))
    }

    /// The host address of a range of guest memory.
    #[inline]
    fn host(&mut self, address: u64, len: u32) -> Result<*mut u8, RingError> {
        if let Some(host) = self.known(address, len) {
            return Ok(host);
        }
        let outside = || RingError::OutsideMemory { address, len };
        let window = self.memory.window(address).ok_or_else(outside)?;
        self.windows = [window, self.windows[0]];
        window.host(address, len.into()).ok_or_else(outside)
    }
}
