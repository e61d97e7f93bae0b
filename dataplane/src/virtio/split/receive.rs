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
use crate::virtio::budget::{BURST_BYTES, TakeBudget};
use crate::virtio::chain::Direction;
use crate::virtio::error::RingError;
use crate::virtio::net::{lend, lend_whole, most_bytes};

impl SplitRing {
    /// Lends the frames that have arrived to `burst`, up to 64, fewer if they are costly, until [`SplitRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        let (gathered, bytes) = self.gather(BURST_FRAMES, Direction::FromGuest)?;
        self.lent_count = if bytes > BURST_BYTES { self.affordable(gathered) } else { gathered };
        let mut budget = TakeBudget::default();
        for (place, chain) in self.gathered.iter().take(self.lent_count).enumerate() {
            let id = u64::from(chain.head);
            if chain.buffer.len > 0 {
                // SAFETY: the buffer comes from the walker, and rings are dropped between bursts only.
                if let Some(reason) = unsafe { lend_whole(chain.buffer, id, &self.format, burst, stats) } {
                    stats.drop(reason);
                }
                continue;
            }
            self.segments.clear();
            let before = self.walker.descriptors_read();
            let until = most_bytes(self.format.header_bytes) + 1;
            let walk = self.walker.walk(chain.head, Direction::FromGuest, until, &mut self.segments)?;
            // SAFETY: as above, each segment.
            if let Some(reason) = unsafe { lend(walk, id, &mut self.segments, &self.format, burst, stats) } {
                stats.drop(reason);
            }
            budget.charge_descriptors(self.walker.descriptors_read() - before);
            budget.charge_bytes(walk.bytes());
            if budget.is_spent() {
                self.lent_count = place + 1;
                break;
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most 64")]
        let taken = self.lent_count as u16;
        self.next_avail = self.next_avail.wrapping_add(taken);
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// How many of the first `count` chains in `gathered` a burst may have, at least one, whose single buffers hold too
    /// many bytes together.
    #[cold]
    fn affordable(&self, count: usize) -> usize {
        let mut bytes = 0;
        let fits = |chain: &&Chain| {
            bytes += u64::from(chain.buffer.len);
            bytes <= BURST_BYTES
        };
        self.gathered.iter().take(count).take_while(fits).count().max(1)
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
