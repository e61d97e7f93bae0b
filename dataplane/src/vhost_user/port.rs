//! A vhost-user port's rings as the workers see them: receive rings, transmit rings, operations between bursts.
//!
//! **How it works.** The guest's transmit rings are the port's receive queues: each is a [`VhostRx`] owned by one
//! worker, which carries out operations on it between two of its bursts. The guest's receive rings are in the port's
//! [`VhostTx`], which all workers send through: each ring has a lock of its own, taken once per burst; the control
//! thread operates on the rings under the same lock. [`VhostPort`] has both halves.
//!
//! **States of a ring** (vhost-user.rst, "Ring states"): stopped (absent here); started but disabled (the guest's
//! transmit ring is drained and its frames dropped, its receive ring gets nothing); started and enabled.
//!
//! **Invariants.**
//! - A transmit ring of the guest starts, stops and vanishes only between two bursts of its worker, when no frame of it
//!   is lent.
//! - After a fault the broken ring is gone at once; the others go when the control thread resets the port.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use super::announce::rarp_request;
use super::operation::{VhostOp, VhostReply};
use crate::flow::spread;
use crate::frame::Burst;
use crate::losses::TxReport;
use crate::offload::Offers;
use crate::port::{Fault, RxQueue, Turn, TxPort, lock};
use crate::stats::PortDelta;
use crate::virtio::sigbus;
use crate::virtio::{Direction, Ring, RingError};
use crate::watchdog;

/// A slot for a ring, which the front end starts and stops.
#[derive(Debug)]
struct RingSlot {
    /// The ring's number in the protocol.
    index: usize,
    ring: Option<Ring>,
    enabled: bool,
    /// The connection number of the front end that the ring belongs to.
    connection: u64,
    /// Value of [`sigbus::poisonings`] when the memory was last looked at.
    poisonings: usize,
}

impl RingSlot {
    fn new(index: usize) -> RingSlot {
        RingSlot { index, ring: None, enabled: false, connection: 0, poisonings: sigbus::poisonings() }
    }

    fn takes_frames(&self) -> bool {
        self.enabled && self.ring.is_some()
    }

    fn operate(&mut self, op: VhostOp) -> VhostReply {
        match op {
            VhostOp::StartRing { setup, enabled, connection, .. } => {
                let direction = if self.index.is_multiple_of(2) { Direction::ToGuest } else { Direction::FromGuest };
                let ring = Ring::start(*setup, direction);
                (self.ring, self.enabled, self.connection) = (Some(ring), enabled, connection);
                // A page may have been replaced before this ring came.
                self.poisonings = sigbus::poisonings().wrapping_sub(1);
            }
            VhostOp::StopRing { .. } => {
                return VhostReply::Stopped { base: self.ring.take().map(|ring| ring.base()) };
            }
            VhostOp::EnableRing { enabled, .. } => self.enabled = enabled,
            VhostOp::SetCall { call, .. } => {
                if let Some(ring) = &mut self.ring {
                    ring.set_call(call);
                }
            }
            VhostOp::SetLog { log, .. } => {
                if let Some(ring) = &mut self.ring {
                    ring.set_log(log);
                }
            }
            VhostOp::Interrupt { .. } => {
                if let Some(ring) = &mut self.ring {
                    ring.interrupt();
                }
            }
            // This operation is for the queue around a transmit ring; a receive ring takes no frames in.
            VhostOp::Announce { .. } => {}
            VhostOp::Reset => (self.ring, self.enabled) = (None, false),
        }
        VhostReply::Done
    }

    /// Checks that the guest has not truncated its memory; costs one look at a counter unless that has happened.
    #[inline]
    fn check_memory(&mut self) -> Result<(), Fault> {
        let seen = sigbus::poisonings();
        if seen == self.poisonings {
            return Ok(());
        }
        if let Some(what) = self.ring.as_ref().and_then(Ring::truncated) {
            let reason = format!("the front end truncated its {what} while it was in use");
            return Err(Fault::new(self.connection, reason));
        }
        self.poisonings = seen;
        Ok(())
    }

    /// Checks that the worker did not hang in the guest's doorbell.
    #[inline]
    fn check_doorbell(&self) -> Result<(), Fault> {
        if self.ring.as_ref().is_some_and(Ring::doorbell_blocks) {
            let reason = "the front end made its interrupt eventfd block (O_NONBLOCK cleared, counter full)";
            return Err(Fault::new(self.connection, reason));
        }
        Ok(())
    }

    /// The fault for a ring error. A guest that truncated its memory left zeros, which look like a broken ring.
    #[cold]
    fn broken(&mut self, error: &RingError) -> Fault {
        match self.check_memory() {
            Err(truncated) => truncated,
            Ok(()) => fault(self.index, self.connection, error),
        }
    }

    /// Copies frames into a receive ring of the guest.
    #[inline]
    fn send(&mut self, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let Some(ring) = self.ring.as_mut().filter(|_| self.enabled) else {
            report.lose_all(items, DropReason::NotConnected);
            return Ok(());
        };
        if let Err(error) = ring.send(burst, items, report) {
            // No frame of this call was published.
            report.lose_all(items, DropReason::NotConnected);
            return Err(self.broken(&error));
        }
        ring.flush();
        self.check_doorbell()?;
        self.check_memory()
    }
}

/// The fault of ring `index`.
#[cold]
fn fault(index: usize, connection: u64, error: &RingError) -> Fault {
    let kind = if index.is_multiple_of(2) { "receive" } else { "transmit" };
    Fault::new(connection, format!("the guest broke its {kind} ring {}: {error}", index / 2))
}

/// The guest's receive rings, which all workers send through.
#[derive(Debug)]
pub struct VhostTx {
    /// By queue pair.
    rings: Box<[Mutex<RingSlot>]>,
    /// A bit for each ring that takes frames, 64 to a word. It changes under the ring's lock. A worker reads it without
    /// the lock to choose a ring, and then checks that ring again under the lock.
    enabled_rings: [AtomicU64; 2],
    /// The features of the driver that the rings belong to, or last belonged to.
    features: AtomicU64,
}

impl VhostTx {
    fn new(queue_pairs: u16) -> VhostTx {
        let rings = (0..usize::from(queue_pairs)).map(|pair| Mutex::new(RingSlot::new(2 * pair))).collect();
        VhostTx { rings, enabled_rings: Default::default(), features: AtomicU64::new(0) }
    }

    /// Carries out an operation on a ring, or for `Reset` on all. `rouse` is called while a worker keeps the ring's
    /// lock for a long time; `None` if the worker never releases the lock.
    pub fn operate(&self, op: VhostOp, rouse: &mut dyn FnMut()) -> Option<VhostReply> {
        if matches!(op, VhostOp::Reset) {
            for pair in 0..self.rings.len() {
                self.operate_on(pair, VhostOp::Reset, rouse)?;
            }
            return Some(VhostReply::Done);
        }
        match op.ring().filter(|index| index % 2 == 0) {
            Some(index) => self.operate_on(usize::from(index / 2), op, rouse),
            None => Some(VhostReply::NoSuchRing),
        }
    }

    fn operate_on(&self, pair: usize, op: VhostOp, rouse: &mut dyn FnMut()) -> Option<VhostReply> {
        let Some(slot) = self.rings.get(pair) else { return Some(VhostReply::NoSuchRing) };
        let mut slot = watchdog::lock_patiently(slot, rouse)?;
        if let VhostOp::StartRing { setup, .. } = &op {
            self.features.store(setup.features, Ordering::Relaxed);
        }
        let reply = slot.operate(op);
        self.note(pair, &slot);
        Some(reply)
    }

    /// Records whether a ring takes frames.
    fn note(&self, pair: usize, slot: &RingSlot) {
        let (Some(word), bit) = (self.enabled_rings.get(pair / 64), 1 << (pair % 64)) else { return };
        if slot.takes_frames() {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    #[inline]
    fn send_to(&self, pair: usize, burst: &Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let Some(slot) = self.rings.get(pair) else {
            report.lose_all(items, DropReason::NotConnected);
            return Ok(());
        };
        let mut slot = lock(slot);
        let outcome = slot.send(burst, items, report);
        if outcome.is_err() {
            slot.ring = None;
            self.note(pair, &slot);
        }
        outcome
    }
}

impl TxPort for VhostTx {
    fn send(&self, turn: &Turn, burst: &mut Burst, items: &[TxItem], report: &mut TxReport<'_>) -> Result<(), Fault> {
        let [low, high] = &self.enabled_rings;
        let enabled_rings = u128::from(low.load(Ordering::Relaxed)) | u128::from(high.load(Ordering::Relaxed)) << 64;
        // The usual case is one ring. None: a pair that does not exist.
        if enabled_rings & enabled_rings.wrapping_sub(1) == 0 {
            return self.send_to(enabled_rings.trailing_zeros() as usize, burst, items, report);
        }
        let rings = enabled_rings.count_ones() as usize;
        spread(burst, items, turn.count(rings), |nth, burst, items| {
            let before = turn.ring(nth, rings);
            let set = (0..before).fold(enabled_rings, |enabled_rings, _| enabled_rings & enabled_rings.wrapping_sub(1));
            self.send_to(set.trailing_zeros() as usize, burst, items, report)
        })
    }

    fn offers(&self) -> Offers {
        Offers::to_guest(self.features.load(Ordering::Relaxed))
    }
}

/// One of the guest's transmit rings: a receive queue of the switch.
#[derive(Debug)]
pub struct VhostRx {
    slot: RingSlot,
    /// The guest's address, if a RARP request is to be sent in its name.
    announcement: Option<[u8; 6]>,
}

impl VhostRx {
    fn new(pair: usize) -> VhostRx {
        VhostRx { slot: RingSlot::new(2 * pair + 1), announcement: None }
    }

    /// Carries out an operation on this ring. Only between bursts.
    pub fn operate(&mut self, op: VhostOp) -> VhostReply {
        match op {
            VhostOp::Announce { mac, .. } => self.announcement = Some(mac),
            VhostOp::Reset => self.announcement = None,
            _ => {}
        }
        self.slot.operate(op)
    }

    /// Sends the announcement that is due, as a frame from the guest.
    #[cold]
    fn announce(&mut self, burst: &mut Burst, stats: &mut PortDelta) {
        let Some(mac) = self.announcement.take() else { return };
        let frame = rarp_request(mac);
        #[allow(clippy::cast_possible_truncation, reason = "60")]
        stats.received(frame.len() as u32);
        if !burst.push_copy(0, &frame) {
            stats.drop(DropReason::Oversize);
        }
    }
}

impl RxQueue for VhostRx {
    #[inline]
    fn is_waiting(&self, _turn: &Turn) -> bool {
        // Pages that replace truncated memory hold zeros, which may look like an empty ring.
        let ring = self.slot.ring.as_ref();
        ring.is_some_and(|ring| ring.is_waiting() || sigbus::poisonings() != self.slot.poisonings)
            || self.announcement.is_some()
    }

    fn receive(&mut self, _turn: &Turn, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        if self.announcement.is_some() {
            self.announce(burst, stats);
            return Ok(());
        }
        let RingSlot { ring: Some(ring), enabled, .. } = &mut self.slot else { return Ok(()) };
        if let Err(error) = ring.receive(burst, stats) {
            burst.clear();
            return Err(self.slot.broken(&error));
        }
        if !*enabled {
            stats.drop_many(DropReason::NotConnected, burst.len() as u64);
            burst.clear();
            ring.release();
        }
        self.slot.check_doorbell().inspect_err(|_| burst.clear())?;
        self.slot.check_memory().inspect_err(|_| burst.clear())
    }

    fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        burst.clear();
        if let Some(ring) = &mut self.slot.ring {
            ring.release();
        }
        self.slot.check_doorbell()?;
        self.slot.check_memory()
    }

    fn run_due(&mut self, _turn: &Turn) -> Result<(), Fault> {
        if let Some(ring) = &mut self.slot.ring {
            ring.pass_done();
        }
        Ok(())
    }

    fn arm(&mut self, _turn: &Turn) -> bool {
        self.slot.ring.as_mut().is_some_and(Ring::arm) || self.announcement.is_some()
    }

    fn disarm(&mut self) {
        if let Some(ring) = &mut self.slot.ring {
            ring.disarm();
        }
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.slot.ring.as_ref()?.kick_fd()
    }

    fn fail(&mut self) {
        self.slot.ring = None;
    }
}

/// All rings of a port, as it is made and as tests and benches drive it.
#[derive(Debug)]
pub struct VhostPort {
    /// The guest's receive rings.
    pub tx: Arc<VhostTx>,
    /// The guest's transmit rings, by queue pair.
    pub rx: Vec<VhostRx>,
}

impl VhostPort {
    /// A port with room for this many queue pairs, no ring started.
    pub fn new(queue_pairs: u16) -> VhostPort {
        let rx = (0..usize::from(queue_pairs)).map(VhostRx::new).collect();
        VhostPort { tx: Arc::new(VhostTx::new(queue_pairs)), rx }
    }

    /// Carries out an operation of the control side. Only between bursts.
    pub fn operate(&mut self, op: VhostOp) -> VhostReply {
        match op.ring() {
            Some(index) if index % 2 == 1 => {
                self.rx.get_mut(usize::from(index / 2)).map_or(VhostReply::NoSuchRing, |rx| rx.operate(op))
            }
            Some(_) => self.tx.operate(op, &mut || ()).unwrap_or(VhostReply::NoSuchRing),
            None => {
                for rx in &mut self.rx {
                    rx.operate(VhostOp::Reset);
                }
                self.tx.operate(VhostOp::Reset, &mut || ()).unwrap_or(VhostReply::NoSuchRing)
            }
        }
    }

    /// Calls [`RxQueue::receive`] of one queue.
    pub fn receive(&mut self, queue: usize, burst: &mut Burst, stats: &mut PortDelta) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.receive(&Turn::ONLY, burst, stats))
    }

    /// Calls [`RxQueue::release`] of one queue.
    pub fn release(&mut self, queue: usize, burst: &mut Burst) -> Result<(), Fault> {
        self.rx.get_mut(queue).map_or(Ok(()), |rx| rx.release(burst))
    }

    /// Calls [`TxPort::send_set`] as the only worker.
    pub fn send(&mut self, burst: &mut Burst, items: &[TxItem], stats: &mut PortDelta) -> Result<u64, Fault> {
        self.tx.send_set(&Turn::ONLY, burst, items, stats)
    }
}
