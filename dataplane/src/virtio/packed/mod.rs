//! A packed virtqueue in guest memory, seen from the device.
//!
//! **How it works.** Driver and device write the same ring of descriptors. A slot is available in a lap if its AVAIL
//! bit is the lap's wrap counter and its USED bit is not; the device completes a chain by writing buffer id, length and
//! flags over its first slot. Event suppression areas replace the flags and event indices of split rings; kicks are
//! asked for without naming a descriptor, which the driver has to understand whatever was negotiated.
//!
//! A [`PackedRing`] takes what the guest transmits in `receive.rs` and fills its receive buffers in `send.rs`; this
//! file holds what both share. A ring resumes where its own memory says it stands (`position.rs`). A frame that was cut
//! off between its buffers is completed on resuming: its bytes had been written before, and the buffers left over are
//! full.
//!
//! **Invariants.**
//! - Frames are completed strictly in order; the buffers of one frame in reverse, so that the driver sees all or none.
//! - No more slots are in hand than the ring has, whatever the flags say. Positions are ours, never the guest's.
//! - While pages are logged, each is marked after it was written, and before the burst ends.
//! - Length, id and flags of a slot are read once, in one atomic word; the address once, after it.
//!
//! Reference: Virtio 1.2, 2.8 "Packed Virtqueues" (2.8.1 wrap counters, 2.8.6 next flag, 2.8.7 indirect, 2.8.14 event
//! suppression).

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

mod position;
mod receive;
mod send;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use labsw_switch::BURST_FRAMES;

use super::chain::{Direction, PackedWalk, Walker};
use super::dirty_log::RingLog;
use super::doorbell::{Doorbells, passed};
use super::error::RingError;
use super::features::{F_EVENT_IDX, F_INDIRECT_DESC, F_MRG_RXBUF};
use super::layout::{RingLayout, RingSetup};
use super::net::NetFormat;
use crate::frame::Segment;
use position::{AVAIL, Position, USED, WRAP, skip_done};

pub(super) use position::resume;

/// Descriptor flag, in a slot's word: the length of a used descriptor counts.
const WRITTEN: u64 = 1 << (48 + 1);
/// Event suppression: always notify.
const EVENT_ENABLE: u16 = 0;
/// Event suppression: never notify.
const EVENT_DISABLE: u16 = 1;
/// Event suppression: notify at a descriptor.
const EVENT_DESCRIPTOR: u16 = 2;

/// Number of slots that a ring passes over at once.
const BURST_SLOTS: u16 = 64;

/// A chain in hand.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    id: u16,
    slots: u16,
}

/// A started packed ring.
#[derive(Debug)]
pub struct PackedRing {
    layout: RingLayout,
    pub(super) walker: Walker,
    size: u16,
    event_idx: bool,
    mergeable: bool,
    format: NetFormat,
    /// Next slot to take.
    next_avail: Position,
    /// Next slot to complete.
    next_used: Position,
    /// Slots completed since the guest was last considered for an interrupt.
    unannounced: u16,
    /// Slots completed since the position was saved in the ring.
    unsaved: u16,
    /// The guest was considered for an interrupt before.
    considered: bool,
    /// The chains lent to the current burst, in order.
    lent: Box<[Chain; BURST_FRAMES]>,
    lent_count: usize,
    /// The buffers of the current frame.
    segments: Vec<Segment>,
    /// The chains of the current frame, with the position at which each begins and the bytes used.
    chains: Vec<(Position, Chain, u32)>,
    pub(super) doorbells: Doorbells,
    /// The log of pages that the ring writes, while pages are logged.
    pub(super) log: Option<RingLog>,
}

// SAFETY: the pointers in `layout`, `walker` and `segments` lead into process-wide mappings that `layout.memory` keeps
// alive; nothing is tied to a thread.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// Starts at the position in the ring's memory, with kicks suppressed. The layout is a packed one.
    pub fn start(setup: RingSetup, direction: Direction) -> PackedRing {
        let RingSetup { layout, features, kick, call, log } = setup;
        let at = resume(&layout);
        let indirect = features & F_INDIRECT_DESC != 0;
        let mut ring = PackedRing {
            walker: Walker::new(Arc::clone(&layout.memory), layout.descriptors, layout.size, indirect),
            size: layout.size,
            event_idx: features & F_EVENT_IDX != 0,
            mergeable: features & F_MRG_RXBUF != 0,
            format: NetFormat::of(features),
            next_avail: at,
            next_used: at,
            unannounced: 0,
            unsaved: 0,
            considered: false,
            lent: Box::new([Chain::default(); BURST_FRAMES]),
            lent_count: 0,
            segments: Vec::with_capacity(BURST_FRAMES),
            chains: Vec::with_capacity(BURST_FRAMES),
            doorbells: Doorbells::new(kick, call),
            log,
            layout,
        };
        if direction == Direction::ToGuest {
            ring.finish_frame();
        }
        ring.save();
        ring.suppress_kicks();
        ring
    }

    /// The position at which the next start would resume, for GET_VRING_BASE.
    pub fn base(&self) -> u32 {
        self.next_used.base()
    }

    /// Replaces the guest's interrupt.
    pub fn set_call(&mut self, call: Option<Arc<OwnedFd>>) {
        self.doorbells.call = call;
        self.considered = false;
    }

    /// The buffer and id of the chain at `at`, if one is available there and it is the usual one: see
    /// [`Walker::single`].
    #[inline(always)]
    fn single(&self, at: Position, direction: Direction) -> Option<(Segment, u16)> {
        // Acquire: pairs with the driver's barrier between filling a chain and storing the flags of its head.
        let head = self.layout.slot(at.index).load(Ordering::Acquire);
        if at.is_available(head) { self.walker.single_packed(at.index, head, direction) } else { None }
    }

    /// The chain at `at`, if one is available there; its buffers are appended to `segments` until they describe `until`
    /// bytes.
    #[inline]
    fn walk(&mut self, at: Position, direction: Direction, until: u64) -> Result<Option<PackedWalk>, RingError> {
        // Acquire: pairs with the driver's barrier between filling a chain and storing the flags of its head.
        let head = self.layout.slot(at.index).load(Ordering::Acquire);
        if !at.is_available(head) {
            return Ok(None);
        }
        self.walker.walk_packed(&self.layout, at.index, head, direction, until, &mut self.segments).map(Some)
    }

    /// Checks that `slots` slots can be in hand at once.
    #[inline]
    fn bounded(&self, slots: u32) -> Result<(), RingError> {
        if slots > u32::from(self.size) { Err(RingError::SlotsRanAway { slots, size: self.size }) } else { Ok(()) }
    }

    /// Reserves `slots` slots that are about to be completed, and saves their position if the last one saved would be
    /// too far back.
    #[inline]
    fn reserve(&mut self, slots: u16) {
        if self.unsaved > self.size - slots {
            self.save();
        }
        self.unsaved += slots;
        self.unannounced = self.unannounced.saturating_add(slots);
    }

    /// Saves in the ring that everything before the next slot is done.
    fn save(&mut self) {
        let [offset, _] = self.layout.device_event();
        // Release: after the slots that the position describes.
        offset.store(self.next_used.word(), Ordering::Release);
        self.unsaved = 0;
        self.mark_event();
    }

    /// Gives a chain that begins at `at` back to the guest.
    #[inline]
    fn complete(&self, at: Position, chain: Chain, bytes: u32) {
        let mut tail = at;
        for _ in 1..chain.slots {
            tail = tail.after(1, self.size);
            let slot = self.layout.slot(tail.index);
            let word = slot.load(Ordering::Relaxed) & !USED;
            slot.store(word | if tail.wrap { USED } else { 0 }, Ordering::Relaxed);
        }
        let flags = if at.wrap { AVAIL | USED } else { 0 } | if bytes > 0 { WRITTEN } else { 0 };
        let word = u64::from(bytes) | u64::from(chain.id) << 32 | flags;
        // Release: behind the bytes written and the rest of the chain.
        self.layout.slot(at.index).store(word, Ordering::Release);
    }

    /// Interrupts the guest for the chains completed since the last call, if it wants that.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.unannounced == 0 {
            return;
        }
        self.save();
        if self.log.is_some() {
            self.mark_completed();
        }
        // Full: the slots must be visible before the look at the driver's wishes, against the driver that enables
        // interrupts, then looks at the ring once more.
        fence(Ordering::SeqCst);
        if self.wants_interrupt() {
            self.doorbells.interrupt();
        }
        self.unannounced = 0;
    }

    /// Marks the slots completed since the guest was last considered for an interrupt.
    #[cold]
    fn mark_completed(&self) {
        let count = self.unannounced.min(self.size);
        let behind = Position { wrap: false, ..self.next_used };
        // As many slots forward as are left of the lap lead to where they begin.
        self.mark_slots(behind.after(self.size - count, self.size), count);
    }

    /// Marks slots that were written, from a place on.
    fn mark_slots(&self, from: Position, count: u16) {
        if let Some(log) = &self.log {
            log.slots(self.layout.descriptors, from.index, count, self.size);
        }
    }

    /// Marks the device event suppression.
    #[inline]
    fn mark_event(&self) {
        if let Some(log) = &self.log {
            log.used(0, 4);
        }
    }

    /// True if the guest asked to be interrupted within the slots just completed.
    #[inline]
    fn wants_interrupt(&mut self) -> bool {
        let [place, flags] = self.layout.driver_event();
        let first = !std::mem::replace(&mut self.considered, true);
        match flags {
            EVENT_DISABLE => false,
            EVENT_DESCRIPTOR if self.event_idx && !first && self.unannounced < self.size => {
                let new = self.next_used.index;
                let lap = if (place & WRAP != 0) == self.next_used.wrap { 0 } else { self.size };
                passed((place & !WRAP).wrapping_sub(lap), new, new.wrapping_sub(self.unannounced))
            }
            _ => true,
        }
    }

    /// True if the next slot is available.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        // Relaxed: only a hint, the walk looks again.
        let at = self.next_avail;
        at.is_available(self.layout.slot(at.index).load(Ordering::Relaxed))
    }

    /// Passes over slots of the next ones that another device completed (see `position.rs`), at most a burst of them.
    /// Only while no chain is lent.
    pub(super) fn pass_done(&mut self) {
        let at = skip_done(&self.layout, self.next_avail, BURST_SLOTS);
        if at != self.next_avail {
            (self.next_avail, self.next_used) = (at, at);
            self.save();
        }
    }

    /// Asks for a kick at the next available chain. Returns true if one is there already, or the ring must be polled.
    pub fn arm(&mut self) -> bool {
        let [_, flags] = self.layout.device_event();
        flags.store(EVENT_ENABLE, Ordering::Relaxed);
        self.mark_event();
        // Full: the request must be visible before the last look, against the driver that makes a chain available, then
        // reads the request.
        fence(Ordering::SeqCst);
        let at = self.next_avail;
        at.is_available(self.layout.slot(at.index).load(Ordering::Acquire)) || self.doorbells.kick.is_none()
    }

    /// Asks for no kicks.
    pub(super) fn suppress_kicks(&mut self) {
        let [_, flags] = self.layout.device_event();
        // Relaxed: only a hint, a kick too many does no harm.
        flags.store(EVENT_DISABLE, Ordering::Relaxed);
        self.mark_event();
    }
}
