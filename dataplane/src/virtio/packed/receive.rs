//! The guest's transmit ring, as a packed ring: frames come out of it borrowed.
//!
//! [`PackedRing::receive`] takes up to 64 chains, checks each and lends its buffers to the burst;
//! [`PackedRing::release`] completes them all, in order. A broken ring is an error, after which the ring must not be
//! used any more.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission".

#![allow(unsafe_code, reason = "guest memory and the rings in it are raw pointers")]

use labsw_switch::BURST_FRAMES;

use super::{Chain, PackedRing};
use crate::frame::Burst;
use crate::stats::PortDelta;
use crate::virtio::budget::Taken;
use crate::virtio::chain::{Direction, PackedWalk};
use crate::virtio::error::RingError;
use crate::virtio::net::{lend, lend_whole, most_bytes};

impl PackedRing {
    /// Lends the frames that have arrived to `burst`, up to 64, fewer if they are costly, until
    /// [`PackedRing::release`].
    pub fn receive(&mut self, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), RingError> {
        let mut taken = Taken::default();
        self.lent_count = 0;
        let result = self.take(burst, &mut taken, stats);
        taken.close(self.lent_count, stats);
        result?;
        if burst.is_empty() {
            self.release();
        }
        Ok(())
    }

    /// Lends the next chains, until the burst is full or has cost enough.
    #[inline(always)]
    fn take(&mut self, burst: &mut Burst, taken: &mut Taken, stats: &mut PortDelta) -> Result<(), RingError> {
        let mut slots = 0;
        while self.lent_count < BURST_FRAMES && !taken.is_spent() {
            let at = self.next_avail;
            // SAFETY: the segments come from the walker, and rings are dropped between bursts only.
            let (chain, outcome) = unsafe {
                if let Some((buffer, id)) = self.single(at, Direction::FromGuest) {
                    let outcome = lend_whole(buffer, id.into(), &self.format, burst, taken);
                    (Chain { id, slots: 1 }, outcome)
                } else {
                    self.segments.clear();
                    let before = self.walker.descriptors_read();
                    let until = most_bytes(self.format.header_bytes) + 1;
                    let Some(found) = self.walk(at, Direction::FromGuest, until)? else { break };
                    let PackedWalk { walk, id, slots } = found;
                    taken.charge_descriptors(self.walker.descriptors_read() - before);
                    let outcome = lend(walk, id.into(), &mut self.segments, &self.format, burst, taken);
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
}
