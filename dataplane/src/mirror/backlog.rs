//! The copies that wait for room at a mirror destination: bytes of the switch's own, in order.

use std::collections::VecDeque;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::{BURST_FRAMES, DropReason};

use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::port::{Fault, Turn, TxPort};
use crate::stats::PortDelta;

/// Copies that are kept for one destination.
pub const BACKLOG_FRAMES: usize = 512;
/// Bytes of copies that are kept for one destination.
pub const BACKLOG_BYTES: usize = 1024 * 1024;

/// The copies that are kept.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Empty until first needed.
    pub(super) bytes: Box<[u8]>,
    kept: VecDeque<Kept>,
    /// Where the next frame goes if there is room.
    next: usize,
    /// The burst in which frames are lent to the port.
    lent: Option<Box<Burst>>,
    /// The reason for which the port last had no room.
    pub(super) full: DropReason,
    /// Looks in vain at the full port.
    pub(super) in_vain: u32,
}

/// A frame in the backlog.
#[derive(Clone, Copy, Debug)]
struct Kept {
    at: usize,
    len: usize,
    worker: usize,
}

impl Backlog {
    pub(super) fn new() -> Backlog {
        Backlog {
            bytes: Box::default(),
            kept: VecDeque::new(),
            next: 0,
            lent: None,
            full: DropReason::TxRingFull,
            in_vain: 0,
        }
    }

    /// Nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Copies a frame as it leaves and returns its length in bytes.
    ///
    /// # Errors
    /// The reason to drop it: there is no room, or it is too short for its tag edit.
    pub(super) fn keep(&mut self, worker: usize, burst: &Burst, item: &TxItem) -> Result<u32, DropReason> {
        let mut reader = burst.reader(item).ok_or(DropReason::Runt)?;
        let bytes = reader.remaining();
        let len = bytes as usize;
        let at = self.reserve(len).ok_or(self.full)?;
        let place = self.bytes.get_mut(at..at + len).ok_or(self.full)?;
        reader.read_to(place);
        self.kept.push_back(Kept { at, len, worker });
        self.next = at + len;
        Ok(bytes)
    }

    /// The frames, first to last, each with the worker that kept it.
    pub(super) fn frames(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.kept.iter().filter_map(|kept| Some((kept.worker, self.bytes.get(kept.at..kept.at + kept.len)?)))
    }

    /// Keeps a frame that another process kept; false: there is no room.
    pub(super) fn keep_bytes(&mut self, worker: usize, frame: &[u8]) -> bool {
        let len = frame.len();
        let Some(at) = self.reserve(len) else { return false };
        let Some(place) = self.bytes.get_mut(at..at + len) else { return false };
        place.copy_from_slice(frame);
        self.kept.push_back(Kept { at, len, worker });
        self.next = at + len;
        true
    }

    /// The place for a frame of `len` bytes: frames lie in a ring, each in one piece.
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

    /// Offers the port the first of the frames; those for which it has no room stay. Returns whether frames were
    /// offered and there was room for all of them.
    pub(super) fn send_some(&mut self, turn: &Turn, port: &dyn TxPort, stats: &mut PortDelta) -> Result<bool, Fault> {
        let Some(&Kept { worker, .. }) = self.kept.front() else { return Ok(false) };
        let Backlog { bytes, kept, lent, .. } = self;
        let burst = lent.get_or_insert_with(|| Box::new(Burst::new()));
        let (mut items, mut offered) = ([TxItem::whole(0, TagEdit::KEEP); BURST_FRAMES], 0u8);
        let same_worker = kept.iter().take_while(|kept| kept.worker == worker);
        for (item, _) in items.iter_mut().zip(same_worker.clone()) {
            item.frame = offered;
            offered += 1;
        }
        let frames = same_worker.take(offered.into()).filter_map(|kept| bytes.get(kept.at..kept.at + kept.len));
        // Kept frames were counted as sent when they were kept, so the port's counts of this call are not used.
        let (mut counted, mut losses) = (PortDelta::ZERO, Losses::NONE);
        let mut report = TxReport { stats: &mut counted, losses: &mut losses };
        let turn = &Turn { worker, ..*turn };
        let items = items.get(..offered.into()).unwrap_or_default();
        let outcome = burst.lend(
            |lender| frames.for_each(|bytes| _ = lender.push(bytes)),
            |burst| port.send(turn, burst, items, &mut report),
        );
        outcome?;
        let full = losses.full();
        let dropped = (0..offered).filter(|frame| full >> frame & 1 == 0);
        dropped.filter_map(|frame| losses.reason(frame)).for_each(|reason| stats.drop(reason));
        let last_full =
            (0..offered).rev().filter(|frame| full >> frame & 1 == 1).find_map(|frame| losses.reason(frame));
        self.full = last_full.unwrap_or(self.full);
        let mut at = 0u8;
        self.kept.retain(|_| {
            let retained = at >= offered || full >> at & 1 == 1;
            at = at.saturating_add(1);
            retained
        });
        Ok(full == 0)
    }
}
