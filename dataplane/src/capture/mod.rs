//! Captures: copies of the frames that pass at ports, or that are dropped there.
//!
//! **How it works.** A [`Capture`] is a bounded queue of owned copies, filled by the workers and emptied by the control
//! thread ([`Capture::fetch`]). [`Captures`], which the workers have beside their tables, lists the captures at each
//! port; a [`CapturePoint`] there is one capture at one port. A capture is no mirror: it needs no destination and is
//! none of the 64 sessions. Frames are taken as on a wire: the caller cuts segments and finishes checksums before it
//! gives frames to a point.
//!
//! A [`Rewind`] is the other place that points lead to: a memory of what passed at a port, which is read later.
//!
//! **Waking.** The control thread announces that it stops looking ([`Capture::sleep`]); the first frame after that
//! wakes it, once.
//!
//! **Invariants.**
//! - Forwarding never waits: a frame that finds no room in the queue is not captured, and counted.
//! - Memory is bounded: [`MAX_WAITING_FRAMES`] and [`MAX_WAITING_BYTES`] a capture, [`MAX_ALL_WAITING_BYTES`] for all.
//! - A [closed](Capture::close) capture takes no more frames, even if a worker still has it.

mod reasons;
mod rewind;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam::queue::ArrayQueue;
use labsw_switch::filter::{Filter, Frame, Frames};
use labsw_switch::forward::TxItem;
use labsw_switch::tables::Direction;
use labsw_switch::{DropReason, PortId};

use crate::frame::Burst;
use crate::losses::TxReport;
use crate::port::{Fault, FrameSink};

pub use reasons::Reasons;
pub use rewind::{MIN_REWIND_BYTES, Past, Reading, Rewind};

/// Frames that wait in one capture for the control thread.
pub const MAX_WAITING_FRAMES: usize = 4096;
/// Bytes of those frames.
pub const MAX_WAITING_BYTES: usize = 4 << 20;
/// Bytes that wait in all captures together.
pub const MAX_ALL_WAITING_BYTES: usize = 64 << 20;

/// Which way a frame went at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the port into the switch.
    Rx,
    /// From the switch to the port.
    Tx,
}

/// A captured frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured {
    /// The number that the control thread gave the port in this capture.
    pub interface: u32,
    /// Which way it went.
    pub way: Way,
    /// Why it was dropped; `None`: it was not.
    pub dropped: Option<DropReason>,
    /// When, nanoseconds since 1970.
    pub time_ns: u64,
    /// Its length; `bytes` may be fewer.
    pub wire_bytes: u32,
    /// The frame up to the snap length.
    pub bytes: Box<[u8]>,
}

/// Bytes that wait in all captures.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

/// The frames that a capture takes, and the queue in which they wait; see the module.
#[derive(Debug)]
pub struct Capture {
    /// Bytes taken of a frame; 0: all.
    snap_bytes: u32,
    /// Which frames are wanted; `None`: all.
    filter: Option<Filter>,
    waiting: ArrayQueue<Captured>,
    waiting_bytes: AtomicUsize,
    budget: Arc<Budget>,
    open: AtomicBool,
    /// The next frame wakes the control thread.
    asleep: AtomicBool,
    waker: Arc<mio::Waker>,
}

impl Capture {
    /// A capture of the frames that `filter` selects (without: of all), whole or the first `snap_bytes` of each, that
    /// wakes the control thread with `waker`.
    pub fn new(snap_bytes: u32, filter: Option<Filter>, budget: Arc<Budget>, waker: Arc<mio::Waker>) -> Capture {
        Capture {
            snap_bytes,
            filter,
            waiting: ArrayQueue::new(MAX_WAITING_FRAMES),
            waiting_bytes: AtomicUsize::new(0),
            budget,
            open: AtomicBool::new(true),
            asleep: AtomicBool::new(true),
            waker,
        }
    }

    /// Takes the frame that waits longest.
    pub fn fetch(&self) -> Option<Captured> {
        let captured = self.waiting.pop()?;
        self.give_back(captured.bytes.len());
        Some(captured)
    }

    /// True if the capture wants this frame, as it leaves by `item`.
    fn selects(&self, burst: &Burst, item: &TxItem) -> bool {
        let Some(filter) = &self.filter else { return true };
        let (snapshot, wire_bytes) = (Frames::snapshot(burst, item.frame), burst.wire_bytes(item.frame));
        filter.selects(&Frame { snapshot, wire_bytes, edit: item.edit, behind: burst.behind(item.frame) })
    }

    /// Takes no further frame.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// True if the control thread has been woken since it went to sleep.
    pub fn is_awake(&self) -> bool {
        !self.asleep.load(Ordering::Acquire)
    }

    /// Has the next frame wake the control thread; false if one waits already.
    pub fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Release);
        // Pairs with the fence in `wake`: either the frame is seen here, or the sleep is seen there.
        fence(Ordering::SeqCst);
        let empty = self.waiting.is_empty();
        if !empty {
            self.asleep.store(false, Ordering::Release);
        }
        empty
    }

    /// Wakes the control thread if it sleeps.
    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            // Waking fails only when the switch ends, and then no thread waits.
            let _ = self.waker.wake();
        }
    }

    /// Reserves room for a frame of `bytes`. Returns false if there is none.
    fn reserve(&self, bytes: usize) -> bool {
        let fits = |used: &AtomicUsize, most: usize| {
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= most)
            })
            .is_ok()
        };
        if !fits(&self.waiting_bytes, MAX_WAITING_BYTES) {
            return false;
        }
        if !fits(&self.budget.0, MAX_ALL_WAITING_BYTES) {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(*self.waiting_bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A place that copies of frames at one port go to.
#[derive(Clone, Debug)]
pub enum CapturePoint {
    /// A capture.
    Capture {
        /// Its queue.
        capture: Arc<Capture>,
        /// The port's number in the capture.
        interface: u32,
        /// Frames that found no room.
        missed: Arc<AtomicU64>,
    },
    /// The memory of the port's own past.
    Rewind(Arc<Rewind>),
}

impl CapturePoint {
    /// A point of a capture: `interface` is the port's number there; frames without room are counted in `missed`.
    pub fn new(capture: Arc<Capture>, interface: u32, missed: Arc<AtomicU64>) -> CapturePoint {
        CapturePoint::Capture { capture, interface, missed }
    }

    /// Copies frames of `burst` as they leave, or as they came if `items` say so.
    fn record(&self, burst: &Burst, items: &[TxItem], way: Way, dropped: Option<DropReason>, time_ns: u64) {
        let (capture, interface, missed) = match self {
            CapturePoint::Rewind(rewind) => return rewind.record(burst, items, way, dropped, time_ns),
            CapturePoint::Capture { capture, interface, missed } => (capture, interface, missed),
        };
        if !capture.open.load(Ordering::Acquire) {
            return;
        }
        for item in items.iter().filter(|item| capture.selects(burst, item)) {
            let Some(mut reader) = burst.reader(item) else { continue };
            let wire_bytes = reader.remaining();
            let kept = if capture.snap_bytes == 0 { wire_bytes } else { wire_bytes.min(capture.snap_bytes) } as usize;
            if !capture.reserve(kept) {
                missed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut bytes = vec![0; kept].into_boxed_slice();
            reader.read_to(&mut bytes);
            let captured = Captured { interface: *interface, way, dropped, time_ns, wire_bytes, bytes };
            if capture.waiting.push(captured).is_err() {
                capture.give_back(kept);
                missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        capture.wake();
    }
}

/// A capture point that is given frames of one event, as something that frames are sent to.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    pub point: &'a CapturePoint,
    pub way: Way,
    pub dropped: Option<DropReason>,
    pub time_ns: u64,
}

impl Recorder<'_> {
    /// Takes copies of frames that are as on a wire.
    pub(crate) fn record(&self, burst: &Burst, items: &[TxItem]) {
        self.point.record(burst, items, self.way, self.dropped, self.time_ns);
    }
}

impl FrameSink for Recorder<'_> {
    fn take(&mut self, burst: &mut Burst, items: &[TxItem], _report: &mut TxReport<'_>) -> Result<(), Fault> {
        self.record(burst, items);
        Ok(())
    }
}

/// A capture point for drops.
#[derive(Clone, Debug)]
pub(crate) struct DropPoint {
    pub point: CapturePoint,
    /// At the port the frames came from, or at ports they were to leave by.
    pub direction: Direction,
    pub reasons: Reasons,
}

impl DropPoint {
    /// True if the tap is for a drop for this reason.
    pub(crate) fn wants(&self, way: Way, reason: DropReason) -> bool {
        let direction = match way {
            Way::Rx => self.direction.rx,
            Way::Tx => self.direction.tx,
        };
        direction && self.reasons.contains(reason)
    }
}

/// The captures at one port.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortCaptures {
    pub received: Vec<CapturePoint>,
    pub sent: Vec<CapturePoint>,
    pub dropped: Vec<DropPoint>,
}

/// The captures at all ports. Immutable for the workers; replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    /// By [`PortId::index`].
    ports: Vec<PortCaptures>,
    /// Drops are captured, at whatever port.
    drops: bool,
}

impl Captures {
    /// Makes `point` take the frames that pass at a port.
    pub fn add(&mut self, port: PortId, direction: Direction, point: &CapturePoint) {
        let captures = self.at(port);
        if direction.rx {
            captures.received.push(point.clone());
        }
        if direction.tx {
            captures.sent.push(point.clone());
        }
    }

    /// Makes a memory keep the frames that pass or are dropped at a port.
    pub fn add_rewind(&mut self, port: PortId, rewind: &Arc<Rewind>) {
        let (both, point) = (Direction { rx: true, tx: true }, CapturePoint::Rewind(Arc::clone(rewind)));
        self.add(port, both, &point);
        self.add_drops(port, both, Reasons::ALL, &point);
    }

    /// Makes `point` take the frames that are dropped at a port for one of these reasons.
    pub fn add_drops(&mut self, port: PortId, direction: Direction, reasons: Reasons, point: &CapturePoint) {
        self.at(port).dropped.push(DropPoint { point: point.clone(), direction, reasons });
        self.drops = true;
    }

    fn at(&mut self, port: PortId) -> &mut PortCaptures {
        if self.ports.len() <= port.index() {
            self.ports.resize_with(port.index() + 1, PortCaptures::default);
        }
        &mut self.ports[port.index()]
    }

    /// True if anything is captured anywhere.
    pub(crate) fn any(&self) -> bool {
        !self.ports.is_empty()
    }

    /// True if drops are captured anywhere.
    pub(crate) fn drops(&self) -> bool {
        self.drops
    }

    pub(crate) fn port(&self, port: PortId) -> Option<&PortCaptures> {
        self.ports.get(port.index())
    }
}

/// The time for captured frames, nanoseconds since 1970.
pub(crate) fn wall_clock_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The one reason.
impl From<DropReason> for Reasons {
    fn from(reason: DropReason) -> Reasons {
        Reasons::NONE.with(reason)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
