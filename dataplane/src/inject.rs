//! Frames that the control thread puts into the switch as if they were received on a port.
//!
//! **How it works.** An injection is one more receive queue of a port. The control thread fills it
//! ([`InjectQueue::push`]) with owned frames, each with the time at which it is due; the worker that has the other half
//! ([`InjectRx`]) receives those that are due. A timer's descriptor wakes a sleeping worker at the time of the next
//! one, and when frames are put into an empty queue.
//!
//! **Take-over.** While the workers stand still, the control thread writes the frames that wait one behind the other
//! ([`InjectQueue::pack_waiting`]); those of another process are the first of a new injection ([`InjectQueue::go_on`]).
//!
//! **Limits.** At most [`QUEUE_FRAMES`] and [`QUEUE_BYTES`] wait; the control thread checks [`InjectQueue::room`]
//! before it adds frames.
//!
//! **Invariant.** Frames leave in the order they came in: none is due before the one ahead of it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam::queue::ArrayQueue;
use labsw_switch::DropReason;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::frame::Burst;
use crate::impair;
use crate::port::{Fault, RxQueue, Turn, lock};
use crate::stats::PortDelta;

/// Frames that wait in one injection at most.
pub const QUEUE_FRAMES: usize = 4096;
/// Most bytes of frames that wait in one injection, without the last one.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// A frame, and when it is due.
#[derive(Debug)]
struct Waiting {
    due_ns: u64,
    bytes: Box<[u8]>,
}

/// The control thread's half of an injection.
#[derive(Clone, Debug)]
pub struct InjectQueue(Arc<Core>);

#[derive(Debug)]
struct Core {
    /// The first one, if the worker has found that it is not due yet.
    next: Mutex<Option<Waiting>>,
    waiting: ArrayQueue<Waiting>,
    /// Bytes in `waiting`.
    bytes: AtomicUsize,
    /// When the last one put in is due.
    last_due_ns: AtomicU64,
    received: AtomicU64,
    timer: OwnedFd,
}

/// The worker's half.
#[derive(Debug)]
pub struct InjectRx {
    core: Arc<Core>,
}

/// Both halves of a new injection.
///
/// # Errors
/// Those of timerfd_create(2).
pub fn injection() -> std::io::Result<(InjectQueue, InjectRx)> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let core = Arc::new(Core {
        next: Mutex::new(None),
        waiting: ArrayQueue::new(QUEUE_FRAMES),
        bytes: AtomicUsize::new(0),
        last_due_ns: AtomicU64::new(0),
        received: AtomicU64::new(0),
        timer,
    });
    Ok((InjectQueue(Arc::clone(&core)), InjectRx { core }))
}

impl InjectQueue {
    /// How many more frames there is room for.
    pub fn room(&self) -> usize {
        let full = self.0.bytes.load(Ordering::Relaxed) >= QUEUE_BYTES;
        if full { 0 } else { QUEUE_FRAMES - self.0.waiting.len() }
    }

    /// Puts a frame in, due at `due_ns` ([`crate::clock`]) or with the one before it if that is later. False: there is
    /// no room.
    pub fn push(&self, due_ns: u64, bytes: &[u8]) -> bool {
        if self.room() == 0 {
            return false;
        }
        let due_ns = self.0.last_due_ns.fetch_max(due_ns, Ordering::Relaxed).max(due_ns);
        self.0.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.0.waiting.push(Waiting { due_ns, bytes: bytes.into() }).is_ok()
    }

    /// Wakes the worker for the frames that were added.
    pub fn wake(&self) {
        self.0.wake_in(1);
    }

    /// The frames that wait, in order, in the form that [`impair::unpack`] reads. The workers stand still.
    pub fn pack_waiting(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        let pack = |frame: &Waiting, packed: &mut Vec<u8>| {
            impair::pack(std::iter::once((frame.due_ns, &frame.bytes[..])), packed);
        };
        lock(&self.0.next).iter().for_each(|frame| pack(frame, &mut packed));
        // Each goes once around.
        for _ in 0..self.0.waiting.len() {
            let Some(frame) = self.0.waiting.pop() else { break };
            pack(&frame, &mut packed);
            let _ = self.0.waiting.push(frame);
        }
        packed
    }

    /// Goes on where another process's injection stood, with the frames that waited there. False: they are more than
    /// an injection holds.
    pub fn go_on(&self, received: u64, frames: &[(u64, &[u8])]) -> bool {
        self.0.received.store(received, Ordering::Relaxed);
        let Some(((due_ns, bytes), others)) = frames.split_first() else { return true };
        self.0.last_due_ns.store(*due_ns, Ordering::Relaxed);
        *lock(&self.0.next) = Some(Waiting { due_ns: *due_ns, bytes: (*bytes).into() });
        others.iter().all(|(due_ns, bytes)| self.push(*due_ns, bytes))
    }

    /// Frames that the worker has received.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Core {
    /// Makes the descriptor readable after `ns` nanoseconds.
    fn wake_in(&self, ns: u64) {
        let it_value = Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // It can't fail with a valid time; late frames are received when the worker wakes for another reason.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }

    fn pop(&self) -> Option<Waiting> {
        let frame = self.waiting.pop()?;
        self.bytes.fetch_sub(frame.bytes.len(), Ordering::Relaxed);
        Some(frame)
    }
}

impl RxQueue for InjectRx {
    fn is_waiting(&self, turn: &Turn) -> bool {
        match &*lock(&self.core.next) {
            Some(next) => next.due_ns <= turn.now_ns,
            None => !self.core.waiting.is_empty(),
        }
    }

    fn receive(&mut self, turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        let mut received = 0;
        let mut next = lock(&self.core.next);
        while !burst.is_full()
            && let Some(frame) = next.take().or_else(|| self.core.pop())
        {
            if frame.due_ns > turn.now_ns {
                *next = Some(frame);
                break;
            }
            let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
            stats.received(len);
            if !burst.push_copy(0, &frame.bytes) {
                stats.drop(DropReason::Oversize);
            }
            received += 1;
        }
        self.core.received.fetch_add(received, Ordering::Relaxed);
        Ok(())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        Ok(())
    }

    fn arm(&mut self, turn: &Turn) -> bool {
        let mut next = lock(&self.core.next);
        if next.is_none() {
            *next = self.core.pop();
        }
        // The timer of an empty queue is left alone: adding a frame sets it.
        let Some(next) = &*next else { return false };
        let wait_ns = next.due_ns.saturating_sub(turn.now_ns);
        if wait_ns > 0 {
            self.core.wake_in(wait_ns);
        }
        wait_ns == 0
    }

    fn disarm(&mut self) {}

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.core.timer.as_raw_fd())
    }

    fn fail(&mut self) {
        *lock(&self.core.next) = None;
        while self.core.pop().is_some() {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock::now_ns;

    fn at(now_ns: u64) -> Turn {
        Turn { now_ns, ..Turn::ONLY }
    }

    fn receive(rx: &mut InjectRx, now_ns: u64) -> Vec<Vec<u8>> {
        let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
        rx.receive(&at(now_ns), &mut burst, &mut stats).unwrap();
        assert_eq!(stats.rx_frames, burst.len() as u64);
        let frames = (0..burst.len()).map(|at| burst.snapshot(at).to_vec()).collect();
        rx.release(&mut burst).unwrap();
        assert!(burst.is_empty());
        frames
    }

    #[test]
    fn frames_are_received_when_they_are_due_in_the_order_they_came_in() {
        let (queue, mut rx) = injection().unwrap();
        let now = now_ns();
        assert!(!rx.is_waiting(&at(now)) && !rx.arm(&at(now)));
        let soon = now + 30_000_000;
        assert!(queue.push(0, &[1; 60]));
        assert!(queue.push(soon, &[2; 60]));
        assert!(queue.push(0, &[3; 60]), "not before the one ahead of it");
        assert!(rx.is_waiting(&at(now)));
        assert_eq!(receive(&mut rx, now), [vec![1; 60]]);
        assert!(!rx.is_waiting(&at(soon - 1)) && !rx.arm(&at(now)), "the next one is not due");
        // The descriptor that a sleeping worker waits for.
        let mut fds = [rustix::event::PollFd::new(&rx.core.timer, rustix::event::PollFlags::IN)];
        let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1));
        assert!(now_ns() >= soon && rx.is_waiting(&at(soon)));
        assert_eq!(receive(&mut rx, soon), [vec![2; 60], vec![3; 60]]);
        assert_eq!(queue.received(), 3);
        assert!(!rx.is_waiting(&at(soon)));
    }

    #[test]
    fn frames_that_wait_go_on_in_another_process_at_their_times() {
        let (old, mut rx) = injection().unwrap();
        let now = now_ns();
        let later = now + 1_000_000;
        for (due_ns, byte) in [(now, 1), (later, 2), (0, 3), (later + 5, 4)] {
            assert!(old.push(due_ns, &[byte; 60]));
        }
        assert_eq!(receive(&mut rx, now), [vec![1; 60]]);
        let packed = old.pack_waiting();
        assert_eq!(old.pack_waiting(), packed, "nothing is taken");
        let frames = impair::unpack(&packed).unwrap();
        assert_eq!(frames, [(later, &[2; 60][..]), (later, &[3; 60]), (later + 5, &[4; 60])]);
        let (new, mut new_rx) = injection().unwrap();
        assert!(new.go_on(old.received(), &frames) && new.received() == 1);
        assert!(new.push(0, &[5; 60]), "not before the last one");
        for rx in [&mut rx, &mut new_rx] {
            assert!(receive(rx, now).is_empty());
            assert_eq!(receive(rx, later), [vec![2; 60], vec![3; 60]]);
        }
        assert_eq!(receive(&mut new_rx, later + 5), [vec![4; 60], vec![5; 60]]);
        assert_eq!(new.received(), 5);
        // A full one is taken over as a whole; more than one holds is refused.
        let mut full = vec![(0, &[0; 60][..]); QUEUE_FRAMES + 1];
        assert!(injection().unwrap().0.go_on(0, &full));
        full.push((0, &[0; 60]));
        assert!(!injection().unwrap().0.go_on(0, &full));
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let (queue, mut rx) = injection().unwrap();
        assert_eq!((0..QUEUE_FRAMES + 10).filter(|_| queue.push(0, &[0; 60])).count(), QUEUE_FRAMES);
        let mut received = 0;
        while rx.is_waiting(&at(1)) {
            received += receive(&mut rx, 1).len();
        }
        assert_eq!((received, queue.room()), (QUEUE_FRAMES, QUEUE_FRAMES));
        let long = vec![0; 65_549];
        let most = QUEUE_BYTES / long.len() + 1;
        assert_eq!((0..1000).filter(|_| queue.push(0, &long)).count(), most);
        rx.fail();
        assert_eq!(queue.room(), QUEUE_FRAMES);
    }
}
