//! The guest's receive ring, as a packed ring: frames are copied into the buffers it holds.
//!
//! A frame that fits its buffer is written straight into it. For any other, the buffers of the whole frame are gathered
//! before the first is written, so that a frame that does not fit consumes nothing; they are completed in reverse, so
//! that the driver sees all of them or none. Nobody waits: no buffer means the frame is lost.
//!
//! Reference: Virtio 1.2, 5.1.6.3 "Setting Up Receive Buffers".

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use std::sync::atomic::Ordering;

use labsw_switch::forward::TxItem;

use super::position::skip_done;
use super::{Chain, PackedRing};
use crate::frame::{Burst, FrameReader, MAX_FRAME_BYTES};
use crate::losses::TxReport;
use crate::virtio::budget::{FRAME_DESCRIPTORS, FindBudget};
use crate::virtio::chain::Direction;
use crate::virtio::error::RingError;
use crate::virtio::net::{Asks, Tally, usable_bytes, write, write_plain};
use crate::virtio::sent::Sent;

impl PackedRing {
    /// Copies frames of a burst into the guest's next buffers, in order, and reports each. The guest is told by
    /// [`PackedRing::publish`]. After an error no frame was reported as sent.
    pub fn send(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), RingError> {
        if self.log.is_some() {
            self.send_logged(burst, items, report)
        } else {
            self.fill::<false>(burst, items, report)
        }
    }

    // Cold: only while a guest is being saved or moved.
    #[cold]
    fn send_logged(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), RingError> {
        // After an error the ring ends, with slots that the guest may see already.
        self.fill::<true>(burst, items, report).inspect_err(|_| self.mark_completed())
    }

    /// [`PackedRing::send`], with the buffers' pages marked or not.
    #[inline]
    fn fill<const LOGGED: bool>(
        &mut self,
        burst: &Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), RingError> {
        let mut tally = Tally::default();
        let mut budget = FindBudget::new();
        for item in items {
            let at = self.next_avail;
            if let (Some(frame), Some((buffer, id))) = (burst.plain(item), self.single(at, Direction::ToGuest))
                && buffer.len >= self.format.header_bytes + frame.bytes()
            {
                // SAFETY: the buffer comes from the walker, whose memory the ring keeps mapped.
                unsafe { write_plain(buffer, self.format.header_bytes, frame) };
                if LOGGED && let Some(log) = &self.log {
                    log.buffer(buffer.ptr, self.format.header_bytes + frame.bytes());
                }
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
        if let Some(log) = &self.log {
            log.buffers(&self.segments, needed);
        }
        self.reserve(slots);
        self.complete_frame();
        self.next_avail = self.next_avail.after(slots, self.size);
        self.next_used = self.next_avail;
        Ok(Sent::Done)
    }

    /// Gathers the next chains for `needed` bytes, and their buffers. [`Sent::Done`]: they were found; the number is
    /// that of their slots. No further chain is looked at when the walker has read `limit` descriptors.
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

    /// Completes the first buffers of a frame in the receive ring whose last ones are complete already: all but the
    /// last one of a frame are filled, so these are. No frame has more bytes, or needs more descriptors, than are
    /// looked at. A broken chain is left for the next burst to find.
    pub(super) fn finish_frame(&mut self) {
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
                self.mark_slots(self.next_avail, slots);
                self.next_used = skip_done(&self.layout, at, self.size);
                self.next_avail = self.next_used;
                break;
            }
        }
    }
}
