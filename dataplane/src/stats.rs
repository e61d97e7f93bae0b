//! Counters: a local delta while a burst is handled, published once at its end.
//!
//! **How it works.** A worker and the drivers add to a [`PortDelta`] (plain integers in the worker's own
//! cache lines). At burst end the worker adds it to its own set of counters in the port's [`PortStats`] (atomics with a
//! single writer, so a load and a store do, no locked instruction). Readers sum the sets any time.
//!
//! **Invariant.** A set of counters has one writer, its worker, and shares no cache line with another's.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use labsw_switch::DropReason;
use labsw_switch::drop_reason::DROP_REASONS;

/// The counts of one port during one burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDelta {
    /// Frames received from the port, dropped ones included.
    pub rx_frames: u64,
    /// Bytes of those frames.
    pub rx_bytes: u64,
    /// Frames the port took.
    pub tx_frames: u64,
    /// Bytes of those frames.
    pub tx_bytes: u64,
    /// Frames dropped, by reason.
    pub drops: [u64; DROP_REASONS],
    /// True if any of `drops` is not 0, so that the usual case needs no look at all of them.
    dropped: bool,
}

impl PortDelta {
    /// All zero.
    pub const ZERO: PortDelta =
        PortDelta { rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0, drops: [0; DROP_REASONS], dropped: false };

    /// Counts one dropped frame.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// Counts `frames` dropped frames.
    #[inline]
    pub fn drop_many(&mut self, reason: DropReason, frames: u64) {
        self.drops[reason as usize] += frames;
        self.dropped |= frames > 0;
    }

    /// A frame counted as dropped for this reason is not dropped after all.
    pub(crate) fn undrop(&mut self, reason: DropReason) {
        let count = &mut self.drops[reason as usize];
        *count = count.saturating_sub(1);
    }

    /// A frame of `bytes` that was counted as received is none of the port's traffic. It may have been published.
    pub(crate) fn forget_received(&mut self, bytes: u32) {
        self.rx_frames = self.rx_frames.wrapping_sub(1);
        self.rx_bytes = self.rx_bytes.wrapping_sub(u64::from(bytes));
    }

    /// Counts one frame of `bytes` that the port took.
    #[inline]
    pub fn sent(&mut self, bytes: u32) {
        self.tx_frames += 1;
        self.tx_bytes += u64::from(bytes);
    }

    /// Counts one frame of `bytes` received.
    #[inline]
    pub fn received(&mut self, bytes: u32) {
        self.rx_frames += 1;
        self.rx_bytes += u64::from(bytes);
    }
}

/// The counters of one port since it was added.
#[derive(Debug)]
pub struct PortStats {
    /// One set for each worker, and one for counts from before ([`PortStats::add_before`]).
    sets: Box<[CachePadded<PortCounters>]>,
}

#[derive(Debug)]
struct PortCounters {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    drops: [AtomicU64; DROP_REASONS],
}

impl Default for PortCounters {
    fn default() -> PortCounters {
        let [rx_frames, rx_bytes, tx_frames, tx_bytes] = Default::default();
        PortCounters { rx_frames, rx_bytes, tx_frames, tx_bytes, drops: [const { AtomicU64::new(0) }; DROP_REASONS] }
    }
}

/// A reading of [`PortStats`]; fields as in [`PortDelta`].
pub type PortSnapshot = PortDelta;

impl PortStats {
    /// All counters 0, for `workers` workers.
    pub fn new(workers: usize) -> PortStats {
        PortStats { sets: (0..=workers).map(|_| CachePadded::default()).collect() }
    }

    /// Adds the counts of the process that the switch was taken over from. The caller has the switch's lock.
    pub fn add_before(&self, before: &PortSnapshot) {
        let before = PortDelta { dropped: true, ..before.clone() };
        self.publish(self.sets.len().saturating_sub(1), &mut { before });
    }

    /// Adds a delta and zeroes it. Only `worker` itself may call this with its number.
    #[inline]
    pub fn publish(&self, worker: usize, delta: &mut PortDelta) {
        let Some(set) = self.sets.get(worker) else { return };
        add(&set.rx_frames, &mut delta.rx_frames);
        add(&set.rx_bytes, &mut delta.rx_bytes);
        add(&set.tx_frames, &mut delta.tx_frames);
        add(&set.tx_bytes, &mut delta.tx_bytes);
        if std::mem::take(&mut delta.dropped) {
            for (total, count) in set.drops.iter().zip(&mut delta.drops) {
                add(total, count);
            }
        }
    }

    /// Reads all counters; each is exact, together they may be of different bursts.
    pub fn snapshot(&self) -> PortSnapshot {
        let mut sum = PortSnapshot::ZERO;
        let more = |sum: &mut u64, counter: &AtomicU64| *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
        for set in &self.sets {
            more(&mut sum.rx_frames, &set.rx_frames);
            more(&mut sum.rx_bytes, &set.rx_bytes);
            more(&mut sum.tx_frames, &set.tx_frames);
            more(&mut sum.tx_bytes, &set.tx_bytes);
            for (to, from) in sum.drops.iter_mut().zip(&set.drops) {
                more(to, from);
            }
        }
        sum.dropped = sum.drops != [0; DROP_REASONS];
        sum
    }
}

/// The counters of one mirror session. Slots are reused: a reader subtracts the values from when the session began.
#[derive(Debug)]
pub struct MirrorStats {
    /// One set for each worker, and one for counts from before ([`MirrorStats::add_before`]).
    sets: Box<[CachePadded<MirrorCounters>]>,
}

#[derive(Debug, Default)]
struct MirrorCounters {
    matched: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    truncated: AtomicU64,
}

/// A reading of [`MirrorStats`], in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorSnapshot {
    /// Selected by the session.
    pub matched: u64,
    /// Copies that the destination took.
    pub sent: u64,
    /// Copies that the destination did not take.
    pub dropped: u64,
    /// Copies cut to the snap length, among those sent.
    pub truncated: u64,
}

impl MirrorStats {
    /// All counters 0, for `workers` workers.
    pub fn new(workers: usize) -> MirrorStats {
        MirrorStats { sets: (0..=workers).map(|_| CachePadded::default()).collect() }
    }

    /// Adds the counts of the process that the switch was taken over from. The caller has the switch's lock.
    pub fn add_before(&self, before: &MirrorSnapshot) {
        let last = self.sets.len().saturating_sub(1);
        self.add_matched(last, before.matched);
        self.add_copies(last, before.sent, before.dropped, before.truncated);
    }

    /// Counts frames selected. Only `worker` itself may call this with its number.
    #[inline]
    pub fn add_matched(&self, worker: usize, mut frames: u64) {
        if let Some(set) = self.sets.get(worker) {
            add(&set.matched, &mut frames);
        }
    }

    /// Counts copies: sent, not sent, and cut to the snap length among those sent. Only `worker` itself may call this
    /// with its number.
    pub fn add_copies(&self, worker: usize, mut sent: u64, mut dropped: u64, mut truncated: u64) {
        let Some(set) = self.sets.get(worker) else { return };
        add(&set.sent, &mut sent);
        add(&set.dropped, &mut dropped);
        add(&set.truncated, &mut truncated);
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> MirrorSnapshot {
        let sum = |of: fn(&MirrorCounters) -> &AtomicU64| {
            self.sets.iter().fold(0u64, |sum, set| sum.wrapping_add(of(set).load(Ordering::Relaxed)))
        };
        MirrorSnapshot {
            matched: sum(|set| &set.matched),
            sent: sum(|set| &set.sent),
            dropped: sum(|set| &set.dropped),
            truncated: sum(|set| &set.truncated),
        }
    }
}

impl MirrorSnapshot {
    /// The counts added since `earlier`.
    pub fn since(&self, earlier: &MirrorSnapshot) -> MirrorSnapshot {
        MirrorSnapshot {
            matched: self.matched.wrapping_sub(earlier.matched),
            sent: self.sent.wrapping_sub(earlier.sent),
            dropped: self.dropped.wrapping_sub(earlier.dropped),
            truncated: self.truncated.wrapping_sub(earlier.truncated),
        }
    }
}

#[inline]
fn add(total: &AtomicU64, count: &mut u64) {
    if *count != 0 {
        // A single writer: no read-modify-write needed.
        total.store(total.load(Ordering::Relaxed).wrapping_add(*count), Ordering::Relaxed);
        *count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_adds_and_zeroes_and_readers_sum_over_workers() {
        const WORKERS: usize = 3;
        const BURSTS: u64 = 10_000;
        let (stats, mirror) = (PortStats::new(WORKERS), MirrorStats::new(WORKERS));
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (stats, mirror) = (&stats, &mirror);
                scope.spawn(move || {
                    let mut delta = PortDelta::ZERO;
                    for burst in 0..BURSTS {
                        delta.received(60);
                        delta.sent(64);
                        delta.drop(DropReason::Runt);
                        stats.publish(worker, &mut delta);
                        assert_eq!(delta, PortDelta::ZERO);
                        mirror.add_matched(worker, 2);
                        let sent = u64::from(burst % 2 == 0);
                        mirror.add_copies(worker, sent, 1 - sent, sent);
                    }
                });
            }
        });
        let total = WORKERS as u64 * BURSTS;
        let seen = stats.snapshot();
        assert_eq!((seen.rx_frames, seen.rx_bytes), (total, 60 * total));
        assert_eq!((seen.tx_frames, seen.tx_bytes), (total, 64 * total));
        assert_eq!(seen.drops[DropReason::Runt as usize], total);
        let seen = mirror.snapshot();
        assert_eq!(
            (seen.matched, seen.sent, seen.dropped, seen.truncated),
            (2 * total, total / 2, total / 2, total / 2)
        );
    }
}
