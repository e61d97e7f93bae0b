//! Delayed frames, and the schedules that they follow, on their way to another process.
//!
//! **How it works.** While the workers stand still, the frames of each delay queue are written one behind the other, in
//! the order in which they are due ([`pack`]): when each is due, its length, its bytes. The clock is the machine's, so
//! they are due at the same time in the other process.
//!
//! **Invariant.** What another process wrote is read as a whole or not at all ([`unpack`]).

use std::sync::{Arc, Weak};

use labsw_switch::impair::Progress;

use super::store::Store;
use super::{DelayQueue, Schedule, TxDelay};
use crate::frame::MAX_FRAME_BYTES;
use crate::port::lock;

/// Length of the due time and the length before a frame, bytes.
const HEADER_BYTES: usize = 12;

/// Writes frames with the times at which they are due.
pub(crate) fn pack<'a>(frames: impl Iterator<Item = (u64, &'a [u8])>, out: &mut Vec<u8>) {
    for (due_ns, bytes) in frames {
        let Ok(len) = u32::try_from(bytes.len()) else { continue };
        out.extend(due_ns.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend(bytes);
    }
}

/// Frames with the times at which they are due, as [`Schedule::pack_waiting`] and [`TxDelay::pack_waiting`] write them.
/// `None` if the bytes are garbled, or a frame is longer than any may be.
pub fn unpack(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (due_ns, len) = header.split_first_chunk::<8>()?;
        let len = Some(u32::from_le_bytes(len.try_into().ok()?)).filter(|len| *len <= MAX_FRAME_BYTES)?;
        let (frame, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        frames.push((u64::from_le_bytes(*due_ns), frame));
        bytes = rest;
    }
    Some(frames)
}

impl Schedule {
    /// Where the schedule stands.
    pub fn progress(&self) -> Progress {
        lock(&self.impairment).progress()
    }

    /// Goes on where the schedule of another process stood.
    pub fn go_on(&self, progress: &Progress) {
        lock(&self.impairment).go_on(progress);
    }

    /// The frames that wait in the receive queues that follow the schedule, packed, for each queue. The workers stand
    /// still.
    pub fn pack_waiting(&self) -> Vec<Vec<u8>> {
        let lines: Vec<_> = lock(&self.lines).iter().filter_map(Weak::upgrade).collect();
        let packed = lines.iter().map(|line| {
            let mut packed = Vec::new();
            pack(lock(line).waiting(), &mut packed);
            packed
        });
        packed.filter(|packed| !packed.is_empty()).collect()
    }

    /// Takes over the frames that waited in one receive queue, for the next queue that follows the schedule; returns
    /// how many found no room.
    pub fn keep_on(&self, frames: &[(u64, &[u8])]) -> usize {
        let mut store = Store::default();
        let lost = store.fill(frames);
        lock(&self.inherited).push(store);
        lost
    }
}

impl DelayQueue {
    /// The frames that wait, in the order in which they are due.
    fn waiting(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.store.waiting().into_iter()
    }
}

impl TxDelay {
    /// Where the schedule stands.
    pub fn progress(&self) -> Progress {
        self.schedule.progress()
    }

    /// Goes on where the schedule of another process stood.
    pub fn go_on(&self, progress: &Progress) {
        self.schedule.go_on(progress);
    }

    /// The frames that wait, packed. The workers stand still.
    pub fn pack_waiting(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        pack(lock(&self.leaving).delayed.waiting(), &mut packed);
        packed
    }

    /// Takes over frames that waited; returns how many found no room. The first worker sends them, once it
    /// [looks](crate::workers::Links::wake).
    pub fn keep_on(&self, frames: &[(u64, &[u8])]) -> usize {
        let leaving = &mut *lock(&self.leaving);
        let lost = leaving.delayed.store.fill(frames);
        self.due_ns.store(leaving.delayed.next_due_ns(), std::sync::atomic::Ordering::Relaxed);
        lost
    }
}

/// A delay queue for a receive queue, with frames that waited in another process if there are some.
pub(super) fn line(schedule: &Arc<Schedule>) -> Arc<std::sync::Mutex<DelayQueue>> {
    let mut queue = DelayQueue::new(Arc::clone(schedule));
    queue.store = lock(&schedule.inherited).pop().unwrap_or_default();
    let line = Arc::new(std::sync::Mutex::new(queue));
    let mut lines = lock(&schedule.lines);
    lines.retain(|line| line.strong_count() > 0);
    lines.push(Arc::downgrade(&line));
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use labsw_switch::impair::ImpairSpec;

    use super::*;

    fn schedule() -> Schedule {
        Schedule::new(ImpairSpec { delay_ns: 1_000_000, ..ImpairSpec::NONE }).unwrap()
    }

    #[test]
    fn frames_that_wait_come_out_in_another_process_when_they_are_due() {
        let frames: Vec<(u64, Vec<u8>)> = [(50, 60), (50, 61), (10, 1514), (70, 0), (60, 9000)]
            .into_iter()
            .map(|(due, len)| (due, vec![u8::try_from(due).unwrap(); len]))
            .collect();
        let frames: Vec<(u64, &[u8])> = frames.iter().map(|(due, bytes)| (*due, &bytes[..])).collect();
        let mut in_order = frames.clone();
        in_order.sort_by_key(|(due, _)| *due);
        let tx = TxDelay::new(schedule());
        assert_eq!(tx.keep_on(&frames), 0);
        assert_eq!(tx.next_due(0), 10);
        assert_eq!(unpack(&tx.pack_waiting()).unwrap(), in_order);
        // Of received frames, each queue takes over those of one.
        let rx = Arc::new(schedule());
        assert_eq!(rx.keep_on(&frames[..2]) + rx.keep_on(&frames[2..]), 0);
        assert!(rx.pack_waiting().is_empty(), "no queue has them yet");
        let lines = [line(&rx), line(&rx), line(&rx)];
        let packed = rx.pack_waiting();
        let mut again: Vec<_> = packed.iter().flat_map(|packed| unpack(packed).unwrap()).collect();
        again.sort_by_key(|(due, _)| *due);
        assert_eq!((packed.len(), again), (2, in_order));
        drop(lines);
        assert!(rx.pack_waiting().is_empty());
    }

    #[test]
    fn garbled_frames_are_taken_as_none_and_too_many_are_counted() {
        let mut packed = Vec::new();
        pack([(1, &[7; 60][..]), (2, &[])].into_iter(), &mut packed);
        assert_eq!(unpack(&packed).unwrap().len(), 2);
        assert!((1..packed.len()).filter(|len| *len != HEADER_BYTES + 60).all(|len| unpack(&packed[..len]).is_none()));
        packed[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&packed).is_none());
        let longest = vec![0; MAX_FRAME_BYTES as usize + 1];
        for (len, is_taken) in [(longest.len() - 1, true), (longest.len(), false)] {
            packed.clear();
            pack([(1, &longest[..len])].into_iter(), &mut packed);
            assert_eq!(unpack(&packed).is_some(), is_taken, "{len} bytes");
        }
        let long = vec![0; 65_000];
        let many = vec![(1, &long[..]); 600];
        let tx = TxDelay::new(schedule());
        let lost = tx.keep_on(&many);
        assert!(lost > 0 && unpack(&tx.pack_waiting()).unwrap().len() + lost == many.len());
    }
}
