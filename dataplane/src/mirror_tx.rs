//! The transmit side of a mirror destination: a bounded backlog, and the notes by which copies that come back are known.
//!
//! **How it works.** A [`MirrorTx`] stands before the port's own transmit side. Copies for which the port's ring has no room are kept, in
//! order, in a ring of bytes of the switch's own, and sent when there is room again: before the next copies, and by the
//! timed work of the workers. While any are kept, all others go behind them. Without any, the cost is one look a burst.
//!
//! If the destination may inject, every copy is noted in [`Echoes`](labsw_switch::inject::Echoes) before it is sent.
//!
//! **Limits.** [`BACKLOG_FRAMES`] and [`BACKLOG_BYTES`]; what is beyond is dropped under the reason the port gave.
//!
//! **Counting.** A frame that is kept counts as sent. Should the port drop it in the end for another reason than a full ring, that is
//! counted with the next copies. What is kept when the port goes is lost, as what is in a ring then.
//!
//! **Invariants.** No port waits: the lock is held for copying into the backlog and for one burst at a time. The bytes of a kept frame
//! are not written while they are lent to the port.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_switch::inject::Injection;
use labsw_switch::{BURST_FRAMES, DropReason};

use crate::clock::now_ns;
use crate::frame::{Burst, Segment};
use crate::offload::Offers;
use crate::port::{Fault, Lane, TxPort, lock};
use crate::stats::PortDelta;

/// Copies that are kept for one destination.
pub const BACKLOG_FRAMES: usize = 512;
/// Bytes of copies that are kept for one destination.
pub const BACKLOG_BYTES: usize = 1024 * 1024;
/// Why a port that is full drops.
const FULL: [DropReason; 2] = [DropReason::GuestRingFull, DropReason::TxRingFull];
/// How soon a full port is looked at again; doubled each time in vain.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const MAX_DOUBLINGS: u32 = 6;

/// See the module.
#[derive(Debug)]
pub struct MirrorTx {
    port: Arc<dyn TxPort>,
    injection: Option<Arc<Injection>>,
    backlog: Mutex<Backlog>,
    /// Whether anything is kept.
    keeps: AtomicBool,
    /// Looks in vain at the full port.
    in_vain: AtomicU32,
}

/// The copies that are kept.
#[derive(Debug, Default)]
struct Backlog {
    /// Empty until first needed.
    bytes: Box<[u8]>,
    kept: VecDeque<Kept>,
    /// Where the next frame goes if there is room.
    next: usize,
    /// What frames are lent to the port by.
    lent: Option<Box<Burst>>,
    /// What the port dropped of kept frames and nobody has counted yet.
    lost: Vec<(DropReason, u64)>,
}

/// A frame in the backlog.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: usize,
    len: usize,
    lane: Lane,
}

impl MirrorTx {
    /// Before `port`; with a gate if it may inject.
    pub fn new(port: Arc<dyn TxPort>, injection: Option<Arc<Injection>>) -> MirrorTx {
        let (keeps, in_vain) = (AtomicBool::new(false), AtomicU32::new(0));
        MirrorTx { port, injection, backlog: Mutex::default(), keeps, in_vain }
    }

    /// Whether it stands before this port and has this gate.
    pub fn is_of(&self, port: &Arc<dyn TxPort>, injection: Option<&Arc<Injection>>) -> bool {
        let same_gate = match (&self.injection, injection) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        same_gate && Arc::ptr_eq(&self.port, port)
    }

    /// Notes copies, so that they are known should they come back.
    #[cold]
    fn note(&self, injection: &Injection, burst: &Burst, items: &[TxItem]) {
        let now_ns = now_ns();
        for item in items {
            let Some(mut reader) = burst.reader(item) else { continue };
            let mut start = [0; SNAPSHOT_BYTES];
            let len = reader.remaining();
            let known = reader.read_to(&mut start) as usize;
            injection.echoes().note(start.get(..known).unwrap_or_default(), len, now_ns);
        }
    }

    /// Hands frames to the port, and keeps what it is too full for.
    fn send_or_keep(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        let before = full(stats);
        let failed = self.port.send(lane, burst, items, 0, stats)?;
        match only_full(before, stats, failed) {
            Some(reason) => Ok(self.keep_unsent(lane, burst, items, failed, reason, stats)),
            None => Ok(failed),
        }
    }

    /// Keeps what the port did not take for this reason; gives what there is no room for either.
    #[cold]
    fn keep_unsent(
        &self,
        lane: Lane,
        burst: &Burst,
        items: &[TxItem],
        failed: u64,
        reason: DropReason,
        stats: &mut PortDelta,
    ) -> u64 {
        let mut backlog = lock(&self.backlog);
        let mut lost = failed;
        for item in items.iter().filter(|item| failed >> item.frame & 1 == 1) {
            if !backlog.keep(lane, burst, item, stats) {
                break;
            }
            stats.take_back(reason);
            lost &= !(1 << item.frame);
        }
        self.keeps.store(!backlog.kept.is_empty(), Ordering::Release);
        lost
    }

    /// Sends behind what is kept.
    #[cold]
    fn send_behind(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        let mut backlog = lock(&self.backlog);
        self.drain(&mut backlog)?;
        for (reason, frames) in backlog.lost.drain(..) {
            stats.drop_many(reason, frames);
        }
        if backlog.kept.is_empty() {
            drop(backlog);
            return self.send_or_keep(lane, burst, items, stats);
        }
        let mut lost = 0;
        for item in items {
            if !backlog.keep(lane, burst, item, stats) {
                stats.drop(DropReason::TxRingFull);
                lost |= 1 << item.frame;
            }
        }
        Ok(lost)
    }

    /// Sends what is kept, as far as the port has room.
    fn drain(&self, backlog: &mut Backlog) -> Result<(), Fault> {
        let mut in_vain = self.in_vain.load(Ordering::Relaxed).saturating_add(1);
        while backlog.send_some(&*self.port)? {
            in_vain = 0;
        }
        self.in_vain.store(in_vain, Ordering::Relaxed);
        self.keeps.store(!backlog.kept.is_empty(), Ordering::Release);
        Ok(())
    }
}

impl TxPort for MirrorTx {
    fn send(
        &self,
        lane: Lane,
        burst: &mut Burst,
        items: &[TxItem],
        _sole: u64,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        if let Some(injection) = &self.injection {
            // Before they are sent: one may be back before this worker goes on.
            self.note(injection, burst, items);
        }
        if self.keeps.load(Ordering::Acquire) {
            return self.send_behind(lane, burst, items, stats);
        }
        self.send_or_keep(lane, burst, items, stats)
    }

    fn offers(&self) -> Offers {
        self.port.offers()
    }

    fn tick(&self) -> Result<(), Fault> {
        if self.keeps.load(Ordering::Acquire) {
            let backlog = match self.backlog.try_lock() {
                Ok(backlog) => Some(backlog),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                // Another worker is at it.
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut backlog) = backlog {
                self.drain(&mut backlog)?;
            }
        }
        self.port.tick()
    }

    fn tick_within(&self) -> Option<Duration> {
        let own = self.port.tick_within();
        if !self.keeps.load(Ordering::Acquire) {
            return own;
        }
        let look = FIRST_LOOK * (1 << self.in_vain.load(Ordering::Relaxed).min(MAX_DOUBLINGS));
        Some(own.map_or(look, |own| own.min(look)))
    }
}

impl Backlog {
    /// Copies a frame; it counts as sent. False: there is no room.
    fn keep(&mut self, lane: Lane, burst: &Burst, item: &TxItem, stats: &mut PortDelta) -> bool {
        let Some(mut reader) = burst.reader(item) else { return false };
        let len = reader.remaining();
        let Some(at) = self.reserve(len as usize) else { return false };
        let Some(place) = self.bytes.get_mut(at..at + len as usize) else { return false };
        reader.read_to(place);
        self.kept.push_back(Kept { at, len: len as usize, lane });
        self.next = at + len as usize;
        stats.sent(len);
        true
    }

    /// Where a frame of so many bytes can go: frames lie in a ring, each in one piece.
    fn reserve(&mut self, len: usize) -> Option<usize> {
        if self.kept.len() >= BACKLOG_FRAMES {
            return None;
        }
        if self.bytes.is_empty() {
            self.bytes = vec![0; BACKLOG_BYTES].into_boxed_slice();
        }
        match self.kept.front() {
            None => Some(0),
            Some(first) if first.at < self.next => {
                if BACKLOG_BYTES - self.next >= len {
                    Some(self.next)
                } else {
                    (first.at > len).then_some(0)
                }
            }
            Some(first) => (first.at - self.next > len).then_some(self.next),
        }
    }

    /// Offers the port the first of the frames; those it is too full for stay. Whether all were taken that were offered, and any
    /// were.
    fn send_some(&mut self, port: &dyn TxPort) -> Result<bool, Fault> {
        let Some(&Kept { lane, .. }) = self.kept.front() else { return Ok(false) };
        let burst = self.lent.get_or_insert_with(|| Box::new(Burst::new()));
        burst.clear();
        let (mut items, mut offered) = ([TxItem::whole(0, TagEdit::KEEP); BURST_FRAMES], 0u8);
        for (kept, item) in self.kept.iter().take_while(|kept| kept.lane == lane).zip(&mut items) {
            let bytes = self.bytes.get(kept.at..kept.at + kept.len).unwrap_or_default();
            let segment = Segment { ptr: bytes.as_ptr(), len: u32::try_from(bytes.len()).unwrap_or(0) };
            // SAFETY: the burst is cleared below, before anything is written to `bytes`.
            unsafe { burst.push_whole(0, segment) };
            item.frame = offered;
            offered += 1;
        }
        let mut stats = PortDelta::ZERO;
        let outcome = port.send(lane, burst, items.get(..offered.into()).unwrap_or_default(), 0, &mut stats);
        burst.clear();
        let failed = outcome?;
        let stay = only_full([0; FULL.len()], &stats, failed).is_some();
        if !stay {
            let dropped = DropReason::ALL.iter().zip(stats.drops).filter(|(_, frames)| *frames > 0);
            self.lost.extend(dropped.map(|(reason, frames)| (*reason, frames)));
        }
        let mut at = 0u8;
        self.kept.retain(|_| {
            let retained = at >= offered || stay && failed >> at & 1 == 1;
            at = at.saturating_add(1);
            retained
        });
        Ok(failed == 0 || !stay)
    }
}

/// Frames dropped because the port was full, by reason as in [`FULL`].
fn full(stats: &PortDelta) -> [u64; FULL.len()] {
    FULL.map(|reason| stats.drops.get(reason as usize).copied().unwrap_or(0))
}

/// The reason for which all of `failed` were dropped since `before`, if it is that the port was full.
#[inline]
fn only_full(before: [u64; FULL.len()], stats: &PortDelta, failed: u64) -> Option<DropReason> {
    if failed == 0 {
        return None;
    }
    let dropped = |(before, now): (u64, u64)| now - before == u64::from(failed.count_ones());
    FULL.into_iter()
        .zip(before.into_iter().zip(full(stats)))
        .find(|(_, counts)| dropped(*counts))
        .map(|(reason, _)| reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
