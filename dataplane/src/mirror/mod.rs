//! The transmit side of a mirror destination: a bounded backlog, and the records by which returning copies are
//! recognised.
//!
//! **How it works.** A [`MirrorTx`] stands before the port's own transmit side. Copies for which the port's ring has no
//! room are kept, in order, in a ring of bytes of the switch's own, and sent when there is room again: before the next
//! copies, and by the timed work of the workers. While any are kept, all others go behind them. Without any, the cost
//! is one look a burst.
//!
//! If the destination may inject, every copy is noted in [`Echoes`](labsw_switch::inject::Echoes) before it is sent.
//!
//! **Long copies.** A device drops frames above its MTU without telling anybody. If some port has a larger MTU than the
//! destination ([`MirrorTx::set_limit`]), copies that are too long are dropped here, as `oversize`. Otherwise no copy
//! is looked at for that.
//!
//! **Limits.** [`BACKLOG_FRAMES`] and [`BACKLOG_BYTES`]; copies beyond are dropped under the reason for which the port
//! itself last had no room.
//!
//! **Counting.** A frame that is kept counts as sent. Should the port drop it in the end for another reason than a full
//! ring, that is counted then. What is kept when the port goes is lost, as what is in a ring then.
//!
//! **Invariants.** No port waits: the lock is held for copying into the backlog and for one burst at a time. The bytes
//! of a kept frame are not written while they are lent to the port.

mod backlog;
mod remote;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::header::SNAPSHOT_BYTES;
use labsw_switch::inject::Injection;
use labsw_switch::{BURST_FRAMES, DropReason};

use crate::clock::NEVER;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::offload::Offers;
use crate::port::{Fault, Turn, TxPort, lock};
use crate::stats::PortDelta;

pub use backlog::{BACKLOG_BYTES, BACKLOG_FRAMES};
pub use remote::RemoteTx;

use backlog::Backlog;

/// How soon a full port is looked at again, ns; doubled each time in vain.
const FIRST_LOOK_NS: u64 = 1_000_000;
const MAX_DOUBLINGS: u32 = 6;

/// See the module.
#[derive(Debug)]
pub struct MirrorTx {
    port: Arc<dyn TxPort>,
    injection: Option<Arc<Injection>>,
    backlog: Mutex<Backlog>,
    /// When the port is looked at again; [`NEVER`]: nothing is kept.
    due_ns: AtomicU64,
    /// The longest copy that is sent, bytes; `u32::MAX`: any.
    limit: AtomicU32,
}

impl MirrorTx {
    /// Before `port`; with a gate if it may inject.
    pub fn new(port: Arc<dyn TxPort>, injection: Option<Arc<Injection>>) -> MirrorTx {
        let backlog = Mutex::new(Backlog::new());
        MirrorTx { port, injection, backlog, due_ns: AtomicU64::new(NEVER), limit: AtomicU32::new(u32::MAX) }
    }

    /// Has copies of more bytes (with Ethernet header and tags) dropped; `None`: none. Returns whether that is news.
    pub fn set_limit(&self, bytes: Option<u32>) -> bool {
        let bytes = bytes.unwrap_or(u32::MAX);
        self.limit.swap(bytes, Ordering::Relaxed) != bytes
    }

    /// Sends the copies that are short enough, and drops the others.
    #[cold]
    fn send_within(
        &self,
        limit: u32,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        let mut fitting = [TxItem::whole(0, TagEdit::KEEP); BURST_FRAMES];
        let mut count = 0;
        for item in items {
            // A frame that the port's peer cuts into segments is no frame of that length on a wire.
            let is_cut = burst.asked(item.frame.into()).request.gso.is_some();
            let is_long = !is_cut && burst.reader(item).is_some_and(|reader| reader.remaining() > limit);
            if is_long {
                report.lose(item.frame, DropReason::Oversize);
            } else if let Some(slot) = fitting.get_mut(count) {
                *slot = *item;
                count += 1;
            }
        }
        self.send_fitting(turn, burst, fitting.get(..count).unwrap_or_default(), report)
    }

    fn send_fitting(
        &self,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        if let Some(injection) = &self.injection {
            // Before they are sent: one may be back before this worker goes on.
            self.note(turn.now_ns, injection, burst, items);
        }
        if self.due_ns.load(Ordering::Acquire) != NEVER {
            return self.send_behind(turn, burst, items, report);
        }
        self.send_or_keep(turn, burst, items, report)
    }

    /// The kept copies, first to last, each with the worker that kept it: the state with which another process goes on.
    pub fn kept(&self) -> Vec<(usize, Vec<u8>)> {
        lock(&self.backlog).frames().map(|(worker, frame)| (worker, frame.to_vec())).collect()
    }

    /// Goes on with copies that another process kept; returns for how many there was no room.
    pub fn keep_on(&self, frames: impl Iterator<Item = (usize, Vec<u8>)>, now_ns: u64) -> usize {
        let mut backlog = lock(&self.backlog);
        let lost = frames.filter(|(worker, frame)| !backlog.keep_bytes(*worker, frame)).count();
        if !backlog.is_empty() {
            self.due_ns.store(now_ns, Ordering::Release);
        }
        lost
    }

    /// True if this stands before `port` and has this injection.
    pub fn is_of(&self, port: &Arc<dyn TxPort>, injection: Option<&Arc<Injection>>) -> bool {
        let same_gate = match (&self.injection, injection) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        same_gate && Arc::ptr_eq(&self.port, port)
    }

    /// Records copies, so that they are recognised if they come back.
    #[cold]
    fn note(&self, now_ns: u64, injection: &Injection, burst: &Burst, items: &[TxItem]) {
        for item in items {
            let Some(mut reader) = burst.reader(item) else { continue };
            let mut start = [0; SNAPSHOT_BYTES];
            let len = reader.remaining();
            let known = reader.read_to(&mut start) as usize;
            injection.echoes().note(start.get(..known).unwrap_or_default(), len, now_ns);
        }
    }

    /// Hands frames to the port, and keeps those for which it has no room.
    fn send_or_keep(
        &self,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        self.port.send(turn, burst, items, report)?;
        if !report.losses.is_empty() {
            self.keep_lost(turn, burst, items, report);
        }
        Ok(())
    }

    /// Keeps the frames for which the port had no room, as many as there is room for here.
    #[cold]
    fn keep_lost(&self, turn: &Turn, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) {
        let full = report.losses.full();
        let mut backlog = lock(&self.backlog);
        for item in items.iter().filter(|item| full >> item.frame & 1 == 1) {
            backlog.full = report.losses.reason(item.frame).unwrap_or(backlog.full);
            let Ok(bytes) = backlog.keep(turn.worker, burst, item) else { break };
            report.recover(item.frame, bytes);
        }
        if !backlog.is_empty() && self.due_ns.load(Ordering::Relaxed) == NEVER {
            self.due_ns.store(turn.now_ns.saturating_add(FIRST_LOOK_NS), Ordering::Release);
        }
    }

    /// Sends behind the frames that are kept.
    #[cold]
    fn send_behind(
        &self,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        report: &mut TxReport<'_>,
    ) -> Result<(), Fault> {
        let mut backlog = lock(&self.backlog);
        let drained = self.drain(turn, &mut backlog, report.stats);
        if let Err(fault) = drained {
            report.lose_all(items, DropReason::NotConnected);
            return Err(fault);
        }
        if backlog.is_empty() {
            drop(backlog);
            return self.send_or_keep(turn, burst, items, report);
        }
        for item in items {
            match backlog.keep(turn.worker, burst, item) {
                Ok(bytes) => report.sent(bytes),
                Err(reason) => report.lose(item.frame, reason),
            }
        }
        Ok(())
    }

    /// Sends kept copies, as far as the port has room.
    fn drain(&self, turn: &Turn, backlog: &mut Backlog, stats: &mut PortDelta) -> Result<(), Fault> {
        backlog.in_vain = backlog.in_vain.saturating_add(1);
        while backlog.send_some(turn, &*self.port, stats)? {
            backlog.in_vain = 0;
        }
        let look_ns = FIRST_LOOK_NS << backlog.in_vain.min(MAX_DOUBLINGS);
        let due_ns = if backlog.is_empty() { NEVER } else { turn.now_ns.saturating_add(look_ns) };
        self.due_ns.store(due_ns, Ordering::Release);
        Ok(())
    }
}

impl TxPort for MirrorTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        match self.limit.load(Ordering::Relaxed) {
            u32::MAX => self.send_fitting(turn, burst, items, report),
            limit => self.send_within(limit, turn, burst, items, report),
        }
    }

    fn offers(&self) -> Offers {
        self.port.offers()
    }

    fn run_due(&self, turn: &Turn, stats: &mut PortDelta) -> Result<(), Fault> {
        if self.due_ns.load(Ordering::Acquire) != NEVER {
            let backlog = match self.backlog.try_lock() {
                Ok(backlog) => Some(backlog),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                // Another worker is at it.
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(mut backlog) = backlog {
                self.drain(turn, &mut backlog, stats)?;
            }
        }
        self.port.run_due(turn, stats)
    }

    fn next_due(&self, turn: &Turn) -> u64 {
        self.due_ns.load(Ordering::Acquire).min(self.port.next_due(turn))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
