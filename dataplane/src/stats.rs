//! Counters: a local delta while a burst is handled, published once at its end.
//!
//! **How it works.** The worker and the drivers add to a [`PortDelta`] (plain integers in the worker's own
//! cache lines). At burst end the worker adds it to the port's [`PortStats`] (atomics with a single
//! writer, so a load and a store do, no locked instruction). Readers take a [`PortSnapshot`] any time.
//!
//! **Invariant.** One `PortStats` has one writer: the worker that owns the port.

use std::sync::atomic::{AtomicU64, Ordering};

use labsw_switch::DropReason;
use labsw_switch::drop_reason::DROP_REASONS;

/// What happened at one port during one burst.
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
}

impl PortDelta {
    /// All zero.
    pub const ZERO: PortDelta =
        PortDelta { rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0, drops: [0; DROP_REASONS] };

    /// Counts one dropped frame.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// Counts `frames` dropped frames.
    #[inline]
    pub fn drop_many(&mut self, reason: DropReason, frames: u64) {
        self.drops[reason as usize] += frames;
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
#[derive(Debug, Default)]
pub struct PortStats {
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    drops: [AtomicU64; DROP_REASONS],
}

/// What a reader sees of [`PortStats`]; fields as in [`PortDelta`].
pub type PortSnapshot = PortDelta;

impl PortStats {
    /// Adds a delta and zeroes it. Only the port's worker may call this.
    #[inline]
    pub fn publish(&self, delta: &mut PortDelta) {
        add(&self.rx_frames, &mut delta.rx_frames);
        add(&self.rx_bytes, &mut delta.rx_bytes);
        add(&self.tx_frames, &mut delta.tx_frames);
        add(&self.tx_bytes, &mut delta.tx_bytes);
        for (total, count) in self.drops.iter().zip(&mut delta.drops) {
            add(total, count);
        }
    }

    /// Reads all counters; each is exact, together they may be of different bursts.
    pub fn snapshot(&self) -> PortSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut snapshot = PortSnapshot {
            rx_frames: read(&self.rx_frames),
            rx_bytes: read(&self.rx_bytes),
            tx_frames: read(&self.tx_frames),
            tx_bytes: read(&self.tx_bytes),
            drops: [0; DROP_REASONS],
        };
        for (to, from) in snapshot.drops.iter_mut().zip(&self.drops) {
            *to = read(from);
        }
        snapshot
    }
}

/// The counters of one mirror session. Slots are reused: a reader subtracts what stood there when the session began.
#[derive(Debug, Default)]
pub struct MirrorStats {
    matched: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    truncated: AtomicU64,
}

/// What a reader sees of [`MirrorStats`], in frames.
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
    /// Counts frames selected.
    #[inline]
    pub fn add_matched(&self, mut frames: u64) {
        add(&self.matched, &mut frames);
    }

    /// Counts one copy.
    #[inline]
    pub fn add_copy(&self, sent: bool, truncated: bool) {
        add(if sent { &self.sent } else { &self.dropped }, &mut 1);
        if sent && truncated {
            add(&self.truncated, &mut 1);
        }
    }

    /// Reads all counters.
    pub fn snapshot(&self) -> MirrorSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MirrorSnapshot {
            matched: read(&self.matched),
            sent: read(&self.sent),
            dropped: read(&self.dropped),
            truncated: read(&self.truncated),
        }
    }
}

impl MirrorSnapshot {
    /// What was counted since `earlier`.
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
    fn publishing_adds_and_zeroes() {
        let stats = PortStats::default();
        let mut delta = PortDelta::ZERO;
        for _ in 0..2 {
            delta.received(60);
            delta.sent(64);
            delta.drop(DropReason::Runt);
            stats.publish(&mut delta);
            assert_eq!(delta, PortDelta::ZERO);
        }
        let seen = stats.snapshot();
        assert_eq!((seen.rx_frames, seen.rx_bytes, seen.tx_frames, seen.tx_bytes), (2, 120, 2, 128));
        assert_eq!(seen.drops[DropReason::Runt as usize], 2);
    }
}
