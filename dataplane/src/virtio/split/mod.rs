//! A split virtqueue in guest memory, seen from the device: indices, used elements, notifications.
//!
//! **How it works.** A [`SplitRing`] works on the host pointers of its [`RingLayout`]. `receive.rs` reads the guest's
//! transmit ring, `send.rs` fills its receive ring; this file holds the shared part.
//!
//! **Invariants.**
//! - Chains are completed strictly in the order they were made available, so a ring resumes from its own used index
//!   after the switch was stopped or killed, and needs no in-flight log.
//! - The used index is stored once per burst, after all used elements; at most one interrupt follows.
//! - While pages are logged, each is marked after it was written: buffers and used elements before the index is stored.
//! - Indices and flags are accessed as 16-bit atomics only; everything else is read once by volatile or raw copy.
//!
//! Reference: Virtio 1.2, 2.7 "Split Virtqueues" (2.7.6 available ring, 2.7.8 used ring, 2.7.7 and 2.7.10 notification
//! suppression, 2.7.13.4 for the barriers).

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

mod receive;
mod send;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use labsw_switch::BURST_FRAMES;

use super::chain::{Direction, Walker};
use super::dirty_log::RingLog;
use super::doorbell::{Doorbells, passed};
use super::error::RingError;
use super::features::{F_EVENT_IDX, F_INDIRECT_DESC, F_MRG_RXBUF};
use super::layout::{RingLayout, RingSetup};
use super::net::NetFormat;
use crate::frame::{Segment, prefetch};

/// `used.flags`: the device needs no kicks.
const NO_NOTIFY: u16 = 1;
/// `avail.flags`: the driver needs no interrupts.
const NO_INTERRUPT: u16 = 1;

/// A chain that the guest made available.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// The chain's buffer, if it has a single one; otherwise the segment has no length, and the chain has to be walked.
    buffer: Segment,
    /// The chain's first descriptor.
    head: u16,
}

impl Chain {
    const NONE: Chain = Chain { buffer: Segment::EMPTY, head: 0 };
}

/// A started split ring.
#[derive(Debug)]
pub struct SplitRing {
    layout: RingLayout,
    pub(super) walker: Walker,
    size: u16,
    mask: u16,
    event_idx: bool,
    mergeable: bool,
    format: NetFormat,
    /// Next entry of the available ring to take.
    next_avail: u16,
    /// The guest's available index as last read.
    avail_seen: u16,
    /// Next used element to write.
    next_used: u16,
    /// The used index the guest can see.
    published: u16,
    /// The used index when an interrupt was last considered; `None` before the first time.
    considered: Option<u16>,
    /// The next chains of the available ring, as [`SplitRing::gather`] found them.
    gathered: Box<[Chain; BURST_FRAMES]>,
    /// Number of chains lent to the current burst: the first of `gathered`.
    lent_count: usize,
    /// The buffers of the current frame, if it has several.
    segments: Vec<Segment>,
    /// The chains of the current frame: head, bytes used.
    chains: Vec<(u16, u32)>,
    pub(super) doorbells: Doorbells,
    /// The log of pages that the ring writes, while pages are logged.
    pub(super) log: Option<RingLog>,
}

// SAFETY: the pointers in `layout`, `walker` and `segments` lead into process-wide mappings that `layout.memory` keeps
// alive; nothing is tied to a thread.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Starts at the ring's own used index, with kicks suppressed.
    pub fn start(setup: RingSetup) -> SplitRing {
        let RingSetup { layout, features, kick, call, log } = setup;
        let next = layout.used_index();
        let size = layout.size;
        let indirect = features & F_INDIRECT_DESC != 0;
        let mut ring = SplitRing {
            walker: Walker::new(Arc::clone(&layout.memory), layout.descriptors, size, indirect),
            size,
            mask: size - 1,
            event_idx: features & F_EVENT_IDX != 0,
            mergeable: features & F_MRG_RXBUF != 0,
            format: NetFormat::of(features),
            next_avail: next,
            avail_seen: next,
            next_used: next,
            published: next,
            considered: None,
            gathered: Box::new([Chain::NONE; BURST_FRAMES]),
            lent_count: 0,
            segments: Vec::with_capacity(BURST_FRAMES),
            chains: Vec::with_capacity(BURST_FRAMES),
            doorbells: Doorbells::new(kick, call),
            log,
            layout,
        };
        ring.suppress_kicks();
        ring
    }

    /// The position at which the next start would resume, for GET_VRING_BASE.
    pub fn base(&self) -> u32 {
        u32::from(self.next_avail)
    }

    /// Replaces the guest's interrupt.
    pub fn set_call(&mut self, call: Option<Arc<OwnedFd>>) {
        self.doorbells.call = call;
        self.considered = None;
    }

    /// Number of chains that can be taken; reads the guest's index only if fewer than `wanted` are known.
    #[inline]
    fn available(&mut self, wanted: u16) -> Result<u16, RingError> {
        let known = self.avail_seen.wrapping_sub(self.next_avail);
        if known >= wanted {
            return Ok(known);
        }
        // Acquire: pairs with the driver's barrier between filling descriptors and entries and storing the index.
        let available = self.layout.available_field(2).load(Ordering::Acquire);
        let ahead = available.wrapping_sub(self.next_avail);
        if ahead > self.size {
            return Err(RingError::AvailRanAway { available, next: self.next_avail, ahead, size: self.size });
        }
        self.avail_seen = available;
        Ok(ahead)
    }

    /// True if the guest's index has moved past the chains taken.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        // Relaxed: only a hint, `available` looks again.
        self.layout.available_field(2).load(Ordering::Relaxed) != self.next_avail
    }

    /// The head of the chain `ahead` places after the next one; the caller knows that it is available.
    #[inline]
    fn head(&self, ahead: u16) -> Result<u16, RingError> {
        let slot = self.next_avail.wrapping_add(ahead) & self.mask;
        // Relaxed: ordered behind the index by its acquire load.
        let head = self.layout.available_field(4 + 2 * usize::from(slot)).load(Ordering::Relaxed);
        if head < self.size { Ok(head) } else { Err(RingError::HeadOutside { head, size: self.size }) }
    }

    /// Looks at up to `wanted` (at most 64) next available chains, takes none, and has the processor fetch the front of
    /// their buffers; by the time the last one was looked at, the first has arrived. Returns the number of chains in
    /// `gathered`.
    #[inline(always)]
    fn gather(&mut self, wanted: usize, direction: Direction) -> Result<usize, RingError> {
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let wanted = wanted.min(BURST_FRAMES) as u16;
        let count = self.available(wanted)?.min(wanted);
        for ahead in 0..count {
            let head = self.head(ahead)?;
            let buffer = self.walker.single(head, direction).unwrap_or(Segment::EMPTY);
            prefetch(buffer.ptr);
            prefetch(buffer.ptr.wrapping_add(64));
            if let Some(chain) = self.gathered.get_mut(usize::from(ahead)) {
                *chain = Chain { buffer, head };
            }
        }
        Ok(count.into())
    }

    /// Writes the next used element; the guest does not see it before [`SplitRing::publish`].
    #[inline]
    fn complete(&mut self, head: u16, bytes: u32) {
        let slot = usize::from(self.next_used & self.mask);
        // SAFETY: `slot` is below the ring's size, so the element lies inside the used ring, it
        // belongs to the device until the index is published.
        unsafe {
            let element = u64::from(head) | u64::from(bytes) << 32;
            self.layout.used.add(4 + 8 * slot).cast::<u64>().write_unaligned(element.to_le());
        }
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the guest all completed chains and interrupts it if it wants that. One index store, at most one interrupt.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.next_used == self.published {
            return;
        }
        if self.log.is_some() {
            self.mark_elements();
        }
        // Release: pairs with the driver's barrier between reading the index and the elements and buffers behind it.
        self.layout.used_field(2).store(self.next_used, Ordering::Release);
        self.published = self.next_used;
        self.mark_used(2);
        // Full: the index store must come before the look at flags or event index, against the driver that enables
        // interrupts, then looks at the index once more (Virtio 1.2, 2.7.14).
        fence(Ordering::SeqCst);
        if self.wants_interrupt() {
            self.doorbells.interrupt();
        }
    }

    /// Marks the used elements that are about to be published.
    #[cold]
    fn mark_elements(&self) {
        let Some(log) = &self.log else { return };
        let (first, count) = (self.published & self.mask, self.next_used.wrapping_sub(self.published));
        RingLog::entries(first, count, self.size, 8, |offset, bytes| log.used(4 + offset, bytes));
    }

    /// Marks a 16-bit field of the used ring that was just written.
    #[inline]
    fn mark_used(&self, offset: usize) {
        if let Some(log) = &self.log {
            log.used(offset, 2);
        }
    }

    /// True if the guest asked to be interrupted at the index just published.
    #[inline]
    fn wants_interrupt(&mut self) -> bool {
        if !self.event_idx {
            // Relaxed: ordered by the fence in `publish`.
            return self.layout.available_field(0).load(Ordering::Relaxed) & NO_INTERRUPT == 0;
        }
        let new = self.published;
        let event = self.layout.available_field(4 + 2 * usize::from(self.size)).load(Ordering::Relaxed);
        match self.considered.replace(new) {
            None => true,
            Some(old) => passed(event, new, old),
        }
    }

    /// Asks for a kick at the next available entry. Returns true if one is there already, or the ring must be polled.
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            let event = 4 + 8 * usize::from(self.size);
            self.layout.used_field(event).store(self.next_avail, Ordering::Relaxed);
            self.mark_used(event);
        } else {
            self.layout.used_field(0).store(0, Ordering::Relaxed);
            self.mark_used(0);
        }
        // Full: the request must be visible before the last look, against the driver that stores its index, then reads
        // the request (Virtio 1.2, 2.7.13.4).
        fence(Ordering::SeqCst);
        let available = self.layout.available_field(2).load(Ordering::Acquire);
        available != self.next_avail || self.doorbells.kick.is_none()
    }

    /// Asks for no kicks. With the event index nothing has to be done: a kick is due only when the index passes the one
    /// last asked for.
    pub(super) fn suppress_kicks(&mut self) {
        if !self.event_idx {
            // Relaxed: only a hint, a kick too many does no harm.
            self.layout.used_field(0).store(NO_NOTIFY, Ordering::Relaxed);
            self.mark_used(0);
        }
    }
}
