//! The guest's receive ring, as a split ring: frames are copied into the buffers it holds.
//!
//! [`SplitRing::send`] looks at the buffers for a whole burst first. A frame that fits its buffer is written straight
//! into it. For any other, the buffers of the whole frame are gathered before the first is written, so that a frame
//! that does not fit consumes nothing. Nobody waits: no buffer means the frame is lost.
//!
//! Reference: Virtio 1.2, 5.1.6.3 "Setting Up Receive Buffers".

use labsw_switch::forward::TxItem;

use super::{Chain, SplitRing};
use crate::frame::{Burst, FrameReader};
use crate::losses::TxReport;
use crate::virtio::budget::FindBudget;
use crate::virtio::chain::Direction;
use crate::virtio::error::RingError;
use crate::virtio::net::{Asks, Tally, usable_bytes, write, write_plain};
use crate::virtio::sent::Sent;

impl SplitRing {
    /// Copies frames of a burst into the guest's next buffers, in order, and reports each. The guest sees them after
    /// [`SplitRing::publish`]. After an error no frame was reported as sent.
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
        // After an error the ring ends, with elements that are never published.
        self.fill::<true>(burst, items, report).inspect_err(|_| self.mark_elements())
    }

    /// [`SplitRing::send`], with the buffers' pages marked or not.
    #[inline]
    fn fill<const LOGGED: bool>(
        &mut self,
        burst: &Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), RingError> {
        let gathered = self.gather(items.len(), Direction::ToGuest)?;
        let mut taken = 0;
        let mut tally = Tally::default();
        let mut budget = FindBudget::new();
        for item in items {
            let next = self.gathered.get(..gathered).and_then(|chains| chains.get(usize::from(taken)));
            if let (Some(frame), Some(&Chain { buffer, head })) = (burst.plain(item), next)
                && buffer.len >= self.format.header_bytes + frame.bytes()
            {
                // SAFETY: the buffer comes from the walker, whose memory the ring keeps mapped.
                unsafe { write_plain(buffer, self.format.header_bytes, frame) };
                if LOGGED && let Some(log) = &self.log {
                    log.buffer(buffer.ptr, self.format.header_bytes + frame.bytes());
                }
                self.complete(head, self.format.header_bytes + frame.bytes());
                taken += 1;
                tally.sent(frame.bytes());
            } else {
                let accepts = self.format.accepts;
                tally.send(burst, item, accepts, report, |frame, asks| {
                    self.scatter(&mut taken, frame, asks, &mut budget)
                })?;
            }
        }
        self.next_avail = self.next_avail.wrapping_add(taken);
        tally.close(report);
        Ok(())
    }

    /// Copies a frame into the next buffers, however many and of whatever form, behind the `taken` chains that were
    /// filled already.
    fn scatter(
        &mut self,
        taken: &mut u16,
        frame: &mut FrameReader<'_>,
        asks: Asks,
        budget: &mut FindBudget,
    ) -> Result<Sent, RingError> {
        let needed = self.format.header_bytes + frame.remaining();
        if let Some(refusal) = budget.refusal(*taken, needed) {
            return Ok(refusal);
        }
        let before = self.walker.descriptors_read();
        let found = self.find_room(*taken, needed, before + budget.for_frame())?;
        budget.spend(self.walker.descriptors_read() - before, *taken, needed, found);
        if found != Sent::Done {
            return Ok(found);
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most the ring's size")]
        let count = self.chains.len() as u16;
        // SAFETY: the segments come from the walker, whose memory the ring keeps mapped.
        unsafe { write(&self.segments, self.format.header_bytes, asks, frame, count) };
        if let Some(log) = &self.log {
            log.buffers(&self.segments, needed);
        }
        *taken += count;
        for place in 0..self.chains.len() {
            if let Some(&(head, bytes)) = self.chains.get(place) {
                self.complete(head, bytes);
            }
        }
        Ok(Sent::Done)
    }

    /// Gathers the chains for `needed` bytes behind the `taken` ones, and their buffers. [`Sent::Done`]: they are
    /// found. No further chain is looked at when the walker has read `limit` descriptors.
    fn find_room(&mut self, taken: u16, needed: u32, limit: u64) -> Result<Sent, RingError> {
        self.segments.clear();
        self.chains.clear();
        let mut gathered = 0u32;
        let mut count = 0u16;
        while gathered < needed {
            if self.walker.descriptors_read() >= limit {
                return Ok(Sent::BufferTooSmall);
            }
            let place = taken.saturating_add(count);
            if self.available(place.saturating_add(1))? <= place {
                return Ok(if count == self.size { Sent::BufferTooSmall } else { Sent::RingFull });
            }
            let head = self.head(place)?;
            let missing = needed - gathered;
            let walk = self.walker.walk(head, Direction::ToGuest, u64::from(missing), &mut self.segments)?;
            let bytes = usable_bytes(walk, missing, self.format.header_bytes)?;
            self.chains.push((head, bytes));
            gathered += bytes;
            count += 1;
            if gathered < needed && !self.mergeable {
                return Ok(Sent::BufferTooSmall);
            }
        }
        Ok(Sent::Done)
    }
}
