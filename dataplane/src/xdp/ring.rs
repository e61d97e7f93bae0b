//! The four rings of an AF_XDP socket: single producer, single consumer, shared with the kernel.
//!
//! **How it works.** A ring is an array of a power of two of entries and two free-running 32-bit indices, each written
//! by one side only. [`Producer`] (transmit, fill) writes entries, then publishes its index; [`Consumer`] (receive,
//! completion) reads entries, then publishes how far it got. Both keep the other side's index cached and look
//! at the shared one only when the cached one is used up: one cache-line transfer per burst, not per frame.
//!
//! **Ordering.** Entry written → producer index stored *Release* | producer index loaded *Acquire* → entry read.
//! Entry read → consumer index stored *Release* | consumer index loaded *Acquire* → entry overwritten.
//! The kernel does its half with `smp_store_release` / `smp_load_acquire` (`net/xdp/xsk_queue.h`).
//!
//! **Invariants.** Entries are copied out, never borrowed. An index of the other side that is out of range (more than a
//! whole ring away) is clamped, so no entry outside the ring is touched; what an entry *says* is the reader's to check.
//! The rings work over any memory: the tests build both ends over an anonymous mapping, without a socket.

#![allow(unsafe_code, reason = "rings and packet memory shared with the kernel, and its socket calls")]

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::{XdpDesc, XdpRingFlags, XdpRingOffset};

/// A type that may be an entry of a ring.
///
/// # Safety
/// Plain data: any bit pattern is a valid value.
pub(super) unsafe trait Entry: Copy {}
// SAFETY: an integer: the UMEM address of the fill and completion ring.
unsafe impl Entry for u64 {}
// SAFETY: three integers (the options are a transparent u32): the frame descriptor of the receive and transmit ring.
unsafe impl Entry for XdpDesc {}

/// The mapping a ring lies in.
#[derive(Debug)]
pub(super) struct RingMemory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is valid from any thread; which end is used by whom is upheld by Producer and Consumer.
unsafe impl Send for RingMemory {}

impl RingMemory {
    /// Maps the ring of `socket` at page offset `which` (`XDP_PGOFF_*`).
    pub(super) fn of_socket(socket: BorrowedFd<'_>, which: u64, bytes: usize) -> io::Result<RingMemory> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags, socket, which)? };
        RingMemory::new(base, bytes)
    }

    fn new(base: *mut c_void, bytes: usize) -> io::Result<RingMemory> {
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(RingMemory { base, bytes })
    }

    /// Pointer to `count` items of type `T` at `offset`, if they are inside the mapping and aligned.
    fn at<T>(&self, offset: u64, count: u32) -> Option<NonNull<T>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(size_of::<T>().checked_mul(count as usize)?)?;
        if end > self.bytes || start % align_of::<T>() != 0 {
            return None;
        }
        // SAFETY: `start <= end <= bytes`, so the result is inside the mapping.
        Some(unsafe { self.base.add(start) }.cast::<T>())
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; the ring that owns this is going away with it.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.bytes) };
    }
}

/// The addresses that both ends need.
#[derive(Debug)]
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    mask: u32,
    _entry: PhantomData<T>,
    /// Keeps all pointers above valid.
    _memory: RingMemory,
}

// SAFETY: the pointers are into `_memory`, which moves along; entries are plain data (`Entry`).
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn new(memory: RingMemory, offsets: &XdpRingOffset, entries: u32) -> io::Result<Ring<T>> {
        let bad = || io::Error::other("the kernel's ring layout lies outside the ring's mapping");
        if !entries.is_power_of_two() {
            return Err(bad());
        }
        Ok(Ring {
            producer: memory.at(offsets.producer, 1).ok_or_else(bad)?,
            consumer: memory.at(offsets.consumer, 1).ok_or_else(bad)?,
            flags: offsets.flags.and_then(|offset| memory.at(offset, 1)),
            entries: memory.at(offsets.desc, entries).ok_or_else(bad)?,
            mask: entries - 1,
            _entry: PhantomData,
            _memory: memory,
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: checked at construction to be inside `_memory` and aligned; shared with the kernel, hence atomic.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: the mask keeps the slot within the `mask + 1` entries checked at construction.
        unsafe { self.entries.as_ptr().add((index & self.mask) as usize) }
    }

    #[inline]
    fn size(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        self.flags.is_some_and(|flags| {
            // SAFETY: as in `producer`.
            let bits = unsafe { flags.as_ref() }.load(Ordering::Relaxed);
            bits & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
        })
    }
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Producer<T: Entry> {
    ring: Ring<T>,
    /// Entries written, published or not.
    head: u32,
    /// Entries published.
    submitted: u32,
    /// The reader's index when last looked at.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// The writing end of the ring in `memory`. There must be no other writing end.
    pub(super) fn new(memory: RingMemory, offsets: &XdpRingOffset, entries: u32) -> io::Result<Producer<T>> {
        let ring = Ring::new(memory, offsets, entries)?;
        let head = ring.producer().load(Ordering::Relaxed);
        let consumed = ring.consumer().load(Ordering::Relaxed);
        Ok(Producer { ring, head, submitted: head, consumed })
    }

    /// Goes on where another process stopped, which had the writing end until now.
    pub(super) fn resume(&mut self) {
        self.head = self.ring.producer().load(Ordering::Relaxed);
        self.submitted = self.head;
        self.pending();
    }

    /// Number of free slots; looks at the shared index only if fewer than `want` are known to be free.
    #[inline]
    pub(super) fn free(&mut self, want: u32) -> u32 {
        let known = self.ring.size().saturating_sub(self.head.wrapping_sub(self.consumed));
        if known >= want {
            return known;
        }
        self.ring.size() - self.pending()
    }

    /// Number of entries the reader has not taken yet, unpublished ones included.
    #[inline]
    pub(super) fn pending(&mut self) -> u32 {
        // Acquire: pairs with the reader's Release store after it read the entries that are to be overwritten.
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.consumed).min(self.ring.size())
    }

    /// The indices of the next entry that the reader will take and of the next one to be written.
    pub(super) fn unread(&mut self) -> Range<u32> {
        let pending = self.pending();
        self.head.wrapping_sub(pending)..self.head
    }

    /// Writes one entry, unpublished. False if the ring is full.
    #[inline]
    pub(super) fn write(&mut self, entry: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        // SAFETY: the slot is inside the ring, and free: the reader is done with it (`free`) and there is no other
        // writer.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Publishes the written entries; touches no shared memory if there are none.
    #[inline]
    pub(super) fn submit(&mut self) {
        if self.submitted == self.head {
            return;
        }
        self.submitted = self.head;
        // Release: pairs with the reader's Acquire load of this index before it reads the entries.
        self.ring.producer().store(self.head, Ordering::Release);
    }

    /// True if the kernel sleeps on this ring and wants a system call after entries were submitted.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // The index store must not be overtaken by the flag load, or both sides may each miss the other's.
        fence(Ordering::SeqCst);
        self.ring.needs_wakeup()
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Consumer<T: Entry> {
    ring: Ring<T>,
    /// Entries read, given back or not.
    tail: u32,
    /// Entries given back.
    released: u32,
    /// The writer's index when last looked at.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// The reading end of the ring in `memory`. There must be no other reading end.
    pub(super) fn new(memory: RingMemory, offsets: &XdpRingOffset, entries: u32) -> io::Result<Consumer<T>> {
        let ring = Ring::new(memory, offsets, entries)?;
        let tail = ring.consumer().load(Ordering::Relaxed);
        Ok(Consumer { ring, tail, released: tail, produced: tail })
    }

    /// Goes on where another process stopped, which had the reading end until now.
    pub(super) fn resume(&mut self) {
        self.tail = self.ring.consumer().load(Ordering::Relaxed);
        (self.released, self.produced) = (self.tail, self.tail);
    }

    /// Number of entries to read; looks at the shared index only if none is known.
    #[inline]
    pub(super) fn available(&mut self) -> u32 {
        if self.produced == self.tail {
            // Acquire: pairs with the writer's Release store after it wrote the entries.
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.produced.wrapping_sub(self.tail) > self.ring.size() {
                self.produced = self.tail.wrapping_add(self.ring.size());
            }
        }
        self.produced.wrapping_sub(self.tail)
    }

    /// Reads the next entry, if there is one.
    #[inline]
    pub(super) fn read(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        // SAFETY: the slot is inside the ring and was published by the writer (Acquire in `available`), who leaves it
        // alone until `release`; any bit pattern is a valid entry.
        let entry = unsafe { self.ring.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Takes back that the last `count` entries were read. They were read since the last [`Consumer::release`].
    pub(super) fn unread(&mut self, count: u32) {
        self.tail = self.tail.wrapping_sub(count.min(self.tail.wrapping_sub(self.released)));
    }

    /// Gives the slots of everything read back to the writer; touches nothing shared if that is nothing.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.released == self.tail {
            return;
        }
        self.released = self.tail;
        // Release: pairs with the writer's Acquire load of this index before it overwrites the entries.
        self.ring.consumer().store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "ring/tests.rs"]
mod tests;
