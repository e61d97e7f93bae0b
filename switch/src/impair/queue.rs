//! A slow link: frames leave one after the other, each taking its time, and wait in a bounded queue until then.
//!
//! The queue is simulated: it keeps times of departure, not frames. The time at which the link will be free is known,
//! so the departure of a frame is known on its arrival. A frame counts until its last bit has left. One that finds the
//! link free is always taken, be it longer than the queue.
//!
//! The rate may change in steps ([`super::rates`]). It is that of what Ethernet carries, as rates of IP networks are:
//! the header of 14 bytes takes no time. Times are exact: what a division leaves over is carried to the next frame, so
//! that the rate is met whatever the lengths are.

use std::collections::VecDeque;

use super::RateSpec;
use crate::wire::ETHERNET_HEADER_BYTES;

/// Nanobits (see [`super::rates`]).
const NANOBITS_PER_BYTE: u64 = 8 * 1_000_000_000;

/// The queue of one link.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    rate: RateSpec,
    /// When each frame will have left, and its bytes; oldest first.
    waiting: VecDeque<(u64, u32)>,
    waiting_bytes: u64,
    free_ns: u64,
    /// Sent within less than a nanosecond, in bits times nanoseconds per second: less than the rate.
    carry: u64,
}

impl Queue {
    pub(super) fn new(rate: RateSpec) -> Queue {
        Queue { rate, waiting: VecDeque::new(), waiting_bytes: 0, free_ns: 0, carry: 0 }
    }

    /// When the link is free, and the carry.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.free_ns, self.carry)
    }

    /// The frames that wait: when each has left, and its bytes.
    pub(super) fn frames(&self) -> impl Iterator<Item = (u64, u32)> {
        self.waiting.iter().copied()
    }

    /// Goes on where another queue stood; of its frames, as many as may wait here.
    pub(super) fn go_on(&mut self, waiting: &[(u64, u32)], free_ns: u64, carry: u64) {
        self.waiting = waiting.iter().copied().take(self.rate.queue_frames as usize).collect();
        self.waiting_bytes = self.waiting.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        (self.free_ns, self.carry) = (free_ns, carry);
    }

    /// When a frame of `frame_bytes` that arrives at `now_ns` has left, where rates began at `begun_ns`; `None` if
    /// there is no room for it. `now_ns` never goes backwards.
    pub(super) fn enqueue(&mut self, begun_ns: u64, now_ns: u64, frame_bytes: u32) -> Option<u64> {
        while let Some(&(left_ns, bytes)) = self.waiting.front()
            && left_ns <= now_ns
        {
            self.waiting.pop_front();
            self.waiting_bytes -= u64::from(bytes);
        }
        let frames_full = self.waiting.len() >= self.rate.queue_frames as usize;
        let bytes_full = self.waiting_bytes + u64::from(frame_bytes) > u64::from(self.rate.queue_bytes);
        if !self.waiting.is_empty() && (frames_full || bytes_full) {
            return None;
        }
        if self.free_ns < now_ns {
            (self.free_ns, self.carry) = (now_ns, 0);
        }
        // At most 2^32 bytes times 8e9, plus a rate: within 2^65, hence the wider product.
        let payload_bytes = frame_bytes.saturating_sub(ETHERNET_HEADER_BYTES);
        let work = u128::from(payload_bytes) * u128::from(NANOBITS_PER_BYTE) + u128::from(self.carry);
        let (took_ns, carry) = self.rate.rates.time(self.free_ns.saturating_sub(begun_ns), work);
        self.carry = carry;
        self.free_ns = self.free_ns.saturating_add(took_ns);
        self.waiting.push_back((self.free_ns, frame_bytes));
        self.waiting_bytes += u64::from(frame_bytes);
        Some(self.free_ns)
    }

    /// Number of frames that had not left when the last one arrived, itself included.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
