//! A packed virtqueue in guest memory, seen from the device.
//!
//! **How it works.** Driver and device write the same ring of descriptors. A slot is available in a lap if its AVAIL
//! bit is the lap's wrap counter and its USED bit is not; the device completes a chain by writing buffer id, length and
//! flags over its first slot. Event suppression areas replace the flags and event indices of split rings; kicks are
//! asked for without naming a descriptor, which the driver has to understand whatever was negotiated.
//!
//! **Resuming.** The ring holds no used index, and a front end learns none from a switch that was killed. But only the
//! device ever changes a slot's USED bit: it is the wrap counter in all slots that are done, and is not in all others.
//! For that to hold, a chain of several slots has the bit flipped in all of them, the first one last. The offset field
//! of the device event suppression area, which drivers ignore unless its flags say otherwise, remembers where a
//! burst began, so that nothing behind it is mistaken while the slots of one chain or frame are being written. A frame
//! that was cut off between its buffers is completed on resuming: its bytes had been written before, and the buffers
//! left over are full. What the front
//! end says is not looked at; rings that another device began and left with chains of several slots in them cannot
//! be taken over. All this is defined by what a killed process leaves, that is by the order of its stores.
//!
//! **Invariants.**
//! - Frames are completed strictly in order; the buffers of one frame in reverse, so that the driver sees all or none.
//! - No more slots are in hand than the ring has, whatever the flags say. Positions are ours, never the guest's.
//! - Length, id and flags of a slot are read once, in one atomic word; the address once, after it.
//!
//! Reference: Virtio 1.2, 2.8 "Packed Virtqueues" (2.8.1 wrap counters, 2.8.6 next flag, 2.8.7 indirect, 2.8.14 event
//! suppression).

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::TxItem;

use super::budget::{FRAME_DESCRIPTORS, FindBudget, TakeBudget};
use super::chain::{Direction, PackedWalk, Walker};
use super::doorbell::{Doorbells, passed};
use super::error::RingError;
use super::features::{F_EVENT_IDX, F_INDIRECT_DESC, F_MRG_RXBUF};
use super::layout::{RingLayout, RingSetup};
use super::net::{Asks, NetFormat, Sent, Tally, lend, lend_whole, most_bytes, usable_bytes, write, write_plain};
use crate::frame::{Burst, FrameReader, MAX_FRAME_BYTES, Segment};
use crate::losses::TxReport;
use crate::stats::PortDelta;

/// Descriptor flag, in a slot's word: available.
const AVAIL: u64 = 1 << (48 + 7);
/// Descriptor flag, in a slot's word: used.
const USED: u64 = 1 << (48 + 15);
/// Descriptor flag, in a slot's word: the length of a used descriptor counts.
const WRITTEN: u64 = 1 << (48 + 1);
/// Event suppression: always notify.
const EVENT_ENABLE: u16 = 0;
/// Event suppression: never notify.
const EVENT_DISABLE: u16 = 1;
/// Event suppression: notify at a descriptor.
const EVENT_DESCRIPTOR: u16 = 2;
/// The wrap counter in a 16-bit position.
const WRAP: u16 = 1 << 15;

/// A place in a packed ring: slot and lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    /// So many slots (at most `size`) further on.
    #[inline]
    fn after(self, slots: u16, size: u16) -> Position {
        // Both are at most 32768, and the index is less.
        let index = self.index + slots;
        if index < size {
            Position { index, wrap: self.wrap }
        } else {
            Position { index: index - size, wrap: !self.wrap }
        }
    }

    /// As the ring's own structures have it.
    fn word(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// As GET_VRING_BASE has it: next available and next used, which are the same between bursts.
    pub(super) fn base(self) -> u32 {
        u32::from(self.word()) * 0x1_0001
    }

    /// Whether a slot with this word, at this place, is available.
    #[inline]
    fn is_available(self, word: u64) -> bool {
        (word & AVAIL != 0) == self.wrap && (word & USED != 0) != self.wrap
    }

    /// Whether a slot with this word, at this place, is done in this lap.
    #[inline]
    fn is_done(self, word: u64) -> bool {
        (word & USED != 0) == self.wrap
    }
}

/// Where a new device resumes: behind the slots that are done, counted from where the last burst began. In a ring
/// never used before, all zero, that is a whole lap that was never there, and the first slot of the next.
pub(super) fn resume(layout: &RingLayout) -> Position {
    let [offset, _] = layout.device_event();
    let word = offset.load(Ordering::Acquire);
    let mut at = Position { index: word & !WRAP, wrap: word & WRAP != 0 };
    if at.index >= layout.size {
        at = Position { index: 0, wrap: false };
    }
    skip_done(layout, at)
}

/// The first place from `at` on that is not done, at most a lap further.
fn skip_done(layout: &RingLayout, mut at: Position) -> Position {
    for _ in 0..layout.size {
        if !at.is_done(layout.slot(at.index).load(Ordering::Acquire)) {
            break;
        }
        at = at.after(1, layout.size);
    }
    at
}

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
    /// Slots completed since the place was saved in the ring.
    unsaved: u16,
    /// The guest was considered for an interrupt before.
    considered: bool,
    /// The chains lent to the current burst, in order.
    lent: Box<[Chain; BURST_FRAMES]>,
    lent_count: usize,
    /// The buffers of the frame at hand.
    segments: Vec<Segment>,
    /// The chains of the frame at hand, with the place they begin at and the bytes used.
    chains: Vec<(Position, Chain, u32)>,
    pub(super) doorbells: Doorbells,
}

// SAFETY: the pointers in `layout`, `walker` and `segments` lead into process-wide mappings that `layout.memory` keeps
// alive; nothing is tied to a thread.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// Starts where the ring's memory says it stands, with kicks suppressed. The layout is a packed one.
    pub fn start(setup: RingSetup, direction: Direction) -> PackedRing {
        let RingSetup { layout, features, kick, call } = setup;
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
            layout,
        };
        if direction == Direction::ToGuest {
            ring.finish_frame();
        }
        ring.save();
        ring.suppress_kicks();
        ring
    }

    /// Completes the first buffers of a frame in the receive ring whose last ones are complete already: all but the
    /// last one of a frame are filled, so these are. No frame has more bytes, or needs more descriptors, than are
    /// looked at. A broken chain is left for the next burst to find.
    fn finish_frame(&mut self) {
        let mut at = self.next_avail;
        let (mut slots, mut left) = (0u16, MAX_FRAME_BYTES + self.format.header_bytes);
        self.chains.clear();
        while self.walker.descriptors_read() < FRAME_DESCRIPTORS {
            self.segments.clear();
            let Ok(Some(chain)) = self.walk(at, Direction::ToGuest, u64::from(u32::MAX)) else { break };
            // A whole lap ends where it began, in slots that only look done.
            if slots + chain.slots >= self.size {
                break;
            }
            let Ok(bytes) = usable_bytes(chain.walk, u32::MAX, self.format.header_bytes) else { break };
            let Some(rest) = left.checked_sub(bytes).filter(|&rest| rest > 0) else { break };
            left = rest;
            self.chains.push((at, Chain { id: chain.id, slots: chain.slots }, bytes));
            slots += chain.slots;
            at = at.after(chain.slots, self.size);
            if at.is_done(self.layout.slot(at.index).load(Ordering::Acquire)) {
                self.complete_frame();
                self.next_used = skip_done(&self.layout, at);
                self.next_avail = self.next_used;
                break;
            }
        }
    }

    /// Where the next start would resume, for GET_VRING_BASE.
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

    /// Lends the frames that have arrived to `burst`, up to 64, fewer if they are costly, until
    /// [`PackedRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        self.lent_count = 0;
        let mut slots = 0;
        let mut budget = TakeBudget::default();
        while self.lent_count < BURST_FRAMES && !budget.is_spent() {
            let at = self.next_avail;
            // SAFETY: the segments come from the walker, and rings are dropped between bursts only.
            let (chain, outcome) = unsafe {
                if let Some((buffer, id)) = self.single(at, Direction::FromGuest) {
                    budget.charge_bytes(buffer.len.into());
                    let outcome = lend_whole(buffer, id.into(), &self.format, burst, stats);
                    (Chain { id, slots: 1 }, outcome)
                } else {
                    self.segments.clear();
                    let before = self.walker.descriptors_read();
                    let until = most_bytes(self.format.header_bytes) + 1;
                    let Some(found) = self.walk(at, Direction::FromGuest, until)? else { break };
                    let PackedWalk { walk, id, slots } = found;
                    budget.charge_descriptors(self.walker.descriptors_read() - before);
                    budget.charge_bytes(walk.bytes());
                    let outcome = lend(walk, id.into(), &mut self.segments, &self.format, burst, stats);
                    (Chain { id, slots }, outcome)
                }
            };
            slots += u32::from(chain.slots);
            self.bounded(slots)?;
            self.next_avail = at.after(chain.slots, self.size);
            if let Some(place) = self.lent.get_mut(self.lent_count) {
                *place = chain;
            }
            self.lent_count += 1;
            if let Some(reason) = outcome {
                stats.drop(reason);
            }
        }
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// Completes all chains lent to the burst.
    pub fn release(&mut self) {
        for place in 0..self.lent_count {
            if let Some(&chain) = self.lent.get(place) {
                self.reserve(chain.slots);
                self.complete(self.next_used, chain, 0);
                self.next_used = self.next_used.after(chain.slots, self.size);
            }
        }
        self.lent_count = 0;
        self.publish();
    }

    /// Copies frames of a burst into the guest's next buffers, in order, and reports each. The guest is told by
    /// [`PackedRing::publish`]. After an error no frame was reported as sent.
    pub fn send(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), RingError> {
        let mut tally = Tally::default();
        let mut budget = FindBudget::new();
        for item in items {
            let at = self.next_avail;
            if let (Some(frame), Some((buffer, id))) = (burst.plain(item), self.single(at, Direction::ToGuest))
                && buffer.len >= self.format.header_bytes + frame.bytes()
            {
                // SAFETY: the buffer comes from the walker, whose memory the ring keeps mapped.
                unsafe { write_plain(buffer, self.format.header_bytes, frame) };
                self.reserve(1);
                self.complete(at, Chain { id, slots: 1 }, self.format.header_bytes + frame.bytes());
                self.next_avail = at.after(1, self.size);
                self.next_used = self.next_avail;
                tally.sent(frame.bytes());
            } else {
                let accepts = self.format.accepts;
                tally.send(burst, item, accepts, report, |frame, asks| self.scatter(frame, asks, &mut budget))?;
            }
        }
        tally.close(report);
        Ok(())
    }

    /// Copies a frame into the next buffers, however many and of whatever form.
    fn scatter(&mut self, frame: &mut FrameReader<'_>, asks: Asks, budget: &mut FindBudget) -> Result<Sent, RingError> {
        let needed = self.format.header_bytes + frame.remaining();
        let place = self.next_avail.word();
        if let Some(refusal) = budget.refusal(place, needed) {
            return Ok(refusal);
        }
        let before = self.walker.descriptors_read();
        let (found, slots) = self.find_room(needed, before + budget.for_frame())?;
        budget.spend(self.walker.descriptors_read() - before, place, needed, found);
        if found != Sent::Done {
            return Ok(found);
        }
        let buffers = u16::try_from(self.chains.len()).unwrap_or(u16::MAX);
        // SAFETY: the segments come from the walker, whose memory the ring keeps mapped.
        unsafe { write(&self.segments, self.format.header_bytes, asks, frame, buffers) };
        self.reserve(slots);
        self.complete_frame();
        self.next_avail = self.next_avail.after(slots, self.size);
        self.next_used = self.next_avail;
        Ok(Sent::Done)
    }

    /// Gathers the next chains for `needed` bytes, and their buffers. [`Sent::Done`]: they are found, in so many slots.
    /// No further chain is looked at when the walker has read `limit` descriptors.
    fn find_room(&mut self, needed: u32, limit: u64) -> Result<(Sent, u16), RingError> {
        self.segments.clear();
        self.chains.clear();
        let mut at = self.next_avail;
        let (mut gathered, mut slots) = (0u32, 0u16);
        while gathered < needed {
            if self.walker.descriptors_read() >= limit {
                return Ok((Sent::BufferTooSmall, slots));
            }
            if slots == self.size {
                return Ok((Sent::BufferTooSmall, slots));
            }
            let missing = needed - gathered;
            let Some(chain) = self.walk(at, Direction::ToGuest, missing.into())? else {
                return Ok((Sent::RingFull, slots));
            };
            let bytes = usable_bytes(chain.walk, missing, self.format.header_bytes)?;
            self.bounded(u32::from(slots) + u32::from(chain.slots))?;
            self.chains.push((at, Chain { id: chain.id, slots: chain.slots }, bytes));
            slots += chain.slots;
            at = at.after(chain.slots, self.size);
            gathered += bytes;
            if gathered < needed && !self.mergeable {
                return Ok((Sent::BufferTooSmall, slots));
            }
        }
        Ok((Sent::Done, slots))
    }

    /// Completes the chains of the frame at hand, the first one last: a driver that finds a frame takes all its
    /// buffers.
    #[inline]
    fn complete_frame(&self) {
        for &(at, chain, bytes) in self.chains.iter().rev() {
            self.complete(at, chain, bytes);
        }
    }

    /// Makes a note of `slots` slots about to be completed, and of where they begin if the last note would be too far
    /// back.
    #[inline]
    fn reserve(&mut self, slots: u16) {
        if self.unsaved > self.size - slots {
            self.save();
        }
        self.unsaved += slots;
        self.unannounced = self.unannounced.saturating_add(slots);
    }

    /// Remembers in the ring that everything before the next slot is done.
    fn save(&mut self) {
        let [offset, _] = self.layout.device_event();
        // Release: behind the slots that it speaks of.
        offset.store(self.next_used.word(), Ordering::Release);
        self.unsaved = 0;
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

    /// Interrupts the guest for what was completed since the last call, if it wants that.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.unannounced == 0 {
            return;
        }
        self.save();
        // Full: the slots must be visible before the look at the driver's wishes, against the driver that enables
        // interrupts, then looks at the ring once more.
        fence(Ordering::SeqCst);
        if self.wants_interrupt() {
            self.doorbells.interrupt();
        }
        self.unannounced = 0;
    }

    /// Whether the guest asked to be interrupted within the slots just completed.
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

    /// Whether the next slot is available.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        // Relaxed: only a hint, the walk looks again.
        let at = self.next_avail;
        at.is_available(self.layout.slot(at.index).load(Ordering::Relaxed))
    }

    /// Asks for a kick at the next available chain. Returns true if one is there already, or the ring must be polled.
    pub fn arm(&mut self) -> bool {
        let [_, flags] = self.layout.device_event();
        flags.store(EVENT_ENABLE, Ordering::Relaxed);
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
    }
}
