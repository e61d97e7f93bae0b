//! The guest's transmit ring, as a split ring: frames come out of it borrowed.
//!
//! [`SplitRing::receive`] takes up to 64 chains, checks each and lends its buffers to the burst; [`SplitRing::release`]
//! completes them all, in order. A broken ring is an error, after which the ring must not be used any more.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission".

use labsw_switch::BURST_FRAMES;

use super::{Chain, SplitRing};
use crate::frame::Burst;
use crate::stats::PortDelta;
use crate::virtio::budget::Taken;
use crate::virtio::chain::Direction;
use crate::virtio::error::RingError;
use crate::virtio::net::{lend, lend_whole, most_bytes};

impl SplitRing {
    /// Lends the frames that have arrived to `burst`, up to 64, fewer if they are costly, until [`SplitRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        let mut taken = Taken::default();
        let result = self.take(burst, &mut taken, stats);
        taken.close(self.lent_count, stats);
        result?;
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let lent = self.lent_count as u16;
        self.next_avail = self.next_avail.wrapping_add(lent);
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// Lends the next chains, until the burst is full or has cost enough.
    #[inline(always)]
    fn take(&mut self, burst: &mut Burst, taken: &mut Taken, stats: &mut PortDelta) -> Result<(), RingError> {
        self.lent_count = self.gather(BURST_FRAMES, Direction::FromGuest)?;
        for (place, chain) in self.gathered.iter().take(self.lent_count).enumerate() {
            let id = u64::from(chain.head);
            let is_spent = if chain.buffer.len > 0 {
                // SAFETY: the buffer comes from the walker, and rings are dropped between bursts only.
                if let Some(reason) = unsafe { lend_whole(chain.buffer, id, &self.format, burst, taken) } {
                    stats.drop(reason);
                }
                taken.is_long()
            } else {
                self.segments.clear();
                let before = self.walker.descriptors_read();
                let until = most_bytes(self.format.header_bytes) + 1;
                let walk = self.walker.walk(chain.head, Direction::FromGuest, until, &mut self.segments)?;
                taken.charge_descriptors(self.walker.descriptors_read() - before);
                // SAFETY: as above, each segment.
                if let Some(reason) = unsafe { lend(walk, id, &mut self.segments, &self.format, burst, taken) } {
                    stats.drop(reason);
                }
                taken.is_spent()
            };
            if is_spent {
                self.lent_count = place + 1;
                break;
            }
        }
        Ok(())
    }

    /// Completes all chains lent to the burst.
    pub fn release(&mut self) {
        for place in 0..self.lent_count {
            if let Some(&Chain { head, .. }) = self.gathered.get(place) {
                self.complete(head, 0);
            }
        }
        self.lent_count = 0;
        self.publish();
    }
}
