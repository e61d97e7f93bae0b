//! The polling worker: the whole way of a frame, from a port's receive queue to its egress ports.
//!
//! **How it works.** [`Worker::turn`] visits each receive queue once: receive a burst (borrowed), decide
//! about each frame ([`Forwarder::frame`]), let each egress port take its copies, then the mirrors, then give
//! the burst back and publish the counters. Between turns the worker obeys [`Command`]s, so a command
//! never meets a half-handled burst: its reply is the acknowledgement that the old state is gone.
//! When nothing has arrived for a while (`adaptive` power) the worker arms every port, looks once more,
//! and blocks until a port or a command wakes it ([`Worker::run`]).
//!
//! **Invariants.**
//! - No frame is held over a turn; no lock, no allocation and no `Arc` per frame.
//! - A [`Fault`] takes one port out of service: its driver is reset (vhost-user) or handed to the control
//!   thread to be closed; everything else goes on.
//! - File descriptors are taken out of the poll set before the driver that owns them changes: an eventfd
//!   that a guest's process still holds would stay registered after our own end is closed (epoll(7), Q6).

mod command;
mod sleep;

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_switch::fdb::Fdb;
use labsw_switch::forward::{Egress, Forwarder, TxItem};
use labsw_switch::tables::Tables;
use labsw_switch::{BURST_FRAMES, DropReason, MAX_PORTS, MirrorId, PortId};
use mio::Token;

use crate::frame::Burst;
use crate::load::{Load, WorkerLoad};
use crate::port::{Fault, PortDriver, Resources};
use crate::stats::{MirrorStats, PortDelta, PortStats};
use crate::vhost::VhostOp;

pub use command::{Command, ControlEnds, Event};

/// An adaptive worker sleeps after this long without a frame.
const SPIN: Duration = Duration::from_micros(50);
/// Drivers are ticked at least this often while there is traffic.
const TICK: Duration = Duration::from_millis(5);
/// Ports and commands that can end one sleep.
const MAX_EVENTS: usize = 64;
/// The token of the command waker; ports have token = port index.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// Whether an idle worker sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Spin while there is traffic, sleep when there is none.
    Adaptive,
    /// Spin always.
    Performance,
}

/// What a worker shares with the rest of the switch.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The forwarding database.
    pub fdb: Arc<Fdb>,
    /// Counters of the mirror sessions, by mirror id.
    pub mirrors: Arc<[MirrorStats]>,
    /// What second 0 of the forwarding database is.
    pub epoch: Instant,
}

impl Shared {
    /// Seconds since the epoch.
    pub fn now_seconds(&self) -> u32 {
        u32::try_from(self.epoch.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug)]
struct Slot {
    /// `None` after a fault, until the port is removed.
    driver: Option<Box<dyn PortDriver>>,
    stats: Arc<PortStats>,
    delta: PortDelta,
    /// Frames of the current burst that this port did not take (bit = index).
    failed: u64,
    /// Descriptors in the poll set.
    polled: Vec<i32>,
    /// A descriptor of this port could not be put there.
    deaf: bool,
}

/// One polling thread's state.
#[derive(Debug)]
pub struct Worker {
    slots: Vec<Option<Slot>>,
    /// The slots in use.
    ports: Vec<PortId>,
    /// The ports that ended the last sleep, until the next turn.
    woken: Vec<PortId>,
    /// Ports were asked for notifications and not told yet that the worker is awake.
    armed: bool,
    resources: Resources,
    tables: Arc<Tables>,
    shared: Shared,
    power: Power,
    burst: Burst,
    egress: Egress,
    /// Scratch for the mirror copies of one destination.
    copies: Vec<TxItem>,
    /// The session each of them was selected by.
    copied_for: Vec<MirrorId>,
    /// Ports whose delta has something to publish.
    dirty: Vec<PortId>,
    now_seconds: u32,
    load: Load,
    control: ControlEnds,
    poll: mio::Poll,
    poll_events: mio::Events,
}

impl Worker {
    /// A worker without ports.
    pub fn new(
        shared: Shared,
        tables: Arc<Tables>,
        power: Power,
        load: Arc<WorkerLoad>,
        control: ControlEnds,
        poll: mio::Poll,
    ) -> Worker {
        Worker {
            slots: (0..MAX_PORTS).map(|_| None).collect(),
            ports: Vec::new(),
            woken: Vec::with_capacity(MAX_EVENTS),
            armed: false,
            resources: Resources::default(),
            tables,
            now_seconds: shared.now_seconds(),
            shared,
            power,
            burst: Burst::new(),
            egress: Egress::new(),
            copies: Vec::with_capacity(BURST_FRAMES),
            copied_for: Vec::with_capacity(BURST_FRAMES),
            dirty: Vec::with_capacity(MAX_PORTS),
            load: Load::new(load),
            control,
            poll,
            poll_events: mio::Events::with_capacity(MAX_EVENTS),
        }
    }

    /// Polls until told to stop.
    pub fn run(mut self) {
        let mut last_frame = Instant::now();
        let mut last_tick = last_frame;
        loop {
            if !self.control.commands.is_empty() && !self.obey() {
                return;
            }
            let frames = self.turn();
            if self.armed {
                self.disarm();
            }
            let now = Instant::now();
            self.load.turn(now, frames);
            self.now_seconds = self.seconds(now);
            if now - last_tick >= TICK {
                last_tick = now;
                self.tick();
            }
            if frames > 0 {
                last_frame = now;
            } else if self.power == Power::Adaptive && now - last_frame >= SPIN {
                let woken = self.sleep();
                let now = Instant::now();
                self.load.slept(now);
                // It may have been hours, and the next turn is the one that matters.
                self.now_seconds = self.seconds(now);
                // After a time-out there is no reason to expect more than one look finds.
                if woken {
                    last_frame = now;
                }
            }
        }
    }

    /// Serves every receive queue once; returns the number of frames received. The ports that ended a sleep come first: their
    /// frames have waited already, and by now the CPU's caches have forgotten the silent ports, so that merely looking at
    /// them takes its time.
    pub fn turn(&mut self) -> usize {
        let mut frames = 0;
        for at in 0..self.woken.len() + self.ports.len() {
            let next = self.woken.get(at).or_else(|| self.ports.get(at - self.woken.len()));
            let Some(&port) = next else { break };
            let queues = driver_of(&mut self.slots, port).map_or(0, |driver| driver.rx_queues());
            for queue in 0..queues {
                frames += self.serve(port, queue);
            }
        }
        self.woken.clear();
        frames
    }

    /// One burst of one queue: receive, decide, send, mirror, release, publish.
    #[inline]
    fn serve(&mut self, ingress: PortId, queue: usize) -> usize {
        let Some(slot) = slot(&mut self.slots, ingress) else { return 0 };
        let Some(driver) = slot.driver.as_mut().filter(|driver| driver.is_waiting(queue)) else { return 0 };
        // What a driver says of its burst (that it can be moved) must not stick to that of the next one.
        self.burst.clear();
        let received = driver.receive(queue, &mut self.burst, &mut self.resources, &mut slot.delta);
        if let Err(fault) = received {
            self.fault(ingress, fault);
            return 0;
        }
        let frames = self.burst.len();
        if frames == 0 {
            if slot.delta != PortDelta::ZERO {
                slot.stats.publish(&mut slot.delta);
            }
            return 0;
        }
        self.dirty.push(ingress);
        self.decide(ingress);
        self.send();
        if !self.egress.mirror_active().is_empty() {
            self.send_mirrors();
        }
        self.egress.clear();
        let released = match driver_of(&mut self.slots, ingress) {
            Some(driver) => driver.release(queue, &mut self.burst, &mut self.resources),
            None => Ok(()),
        };
        if let Err(fault) = released {
            self.fault(ingress, fault);
        }
        self.publish();
        frames
    }

    /// Fills `egress` for the frames of the burst.
    #[inline]
    fn decide(&mut self, ingress: PortId) {
        let forwarder = Forwarder { tables: &self.tables, fdb: &self.shared.fdb, now_seconds: self.now_seconds };
        let (slots, dirty) = (&mut self.slots, &mut self.dirty);
        let mut decisions = forwarder.ingress(ingress);
        for (index, (frame, snapshot)) in (0u8..).zip(self.burst.snapshots()) {
            decisions.frame(index, snapshot, frame.len, &mut self.egress, &mut |port, reason| {
                if let Some(slot) = slot(slots, port) {
                    slot.delta.drop(reason);
                    if dirty.last() != Some(&port) {
                        dirty.push(port);
                    }
                }
            });
        }
    }

    /// Lets every egress port take its frames.
    #[inline]
    fn send(&mut self) {
        let sole = self.egress.sole_mask();
        for at in 0..self.egress.active().len() {
            let Some(&port) = self.egress.active().get(at) else { break };
            let items = self.egress.items(port);
            let failed = send_to(&mut self.slots, port, &mut self.burst, items, sole, &mut self.resources);
            self.sent(port, failed);
        }
    }

    /// Copies to the mirror destinations what really passed. The frames of one destination leave in order.
    fn send_mirrors(&mut self) {
        for (mirror, matched) in self.egress.matched() {
            if let Some(stats) = self.shared.mirrors.get(mirror.index()) {
                stats.add_matched(matched.into());
            }
        }
        for at in 0..self.egress.mirror_active().len() {
            let Some(&to) = self.egress.mirror_active().get(at) else { break };
            self.choose_copies(to);
            let failed = send_to(&mut self.slots, to, &mut self.burst, &self.copies, 0, &mut self.resources);
            let failed_mask = *failed.as_ref().unwrap_or(&u64::MAX);
            for (copy, mirror) in self.copies.iter().zip(&self.copied_for) {
                let Some(stats) = self.shared.mirrors.get(mirror.index()) else { continue };
                let len = self.burst.frame(copy.frame.into()).map_or(0, |frame| frame.len);
                let truncated = copy.snap_bytes != 0 && len > u32::from(copy.snap_bytes);
                stats.add_copy(failed_mask & (1 << copy.frame) == 0, truncated);
            }
            self.sent(to, failed);
        }
    }

    /// Of the alternatives for each frame, takes the first whose egress really took the frame.
    fn choose_copies(&mut self, to: PortId) {
        self.copies.clear();
        self.copied_for.clear();
        for item in self.egress.mirror_items(to) {
            let passed = match item.after {
                None => true,
                Some(port) => slot(&mut self.slots, port).is_some_and(|slot| slot.failed & (1 << item.frame) == 0),
            };
            if passed && self.copies.last().is_none_or(|last| last.frame != item.frame) {
                let snap_bytes = self.tables.mirror(item.mirror).map_or(0, |mirror| mirror.snaplen_bytes);
                // Longer than any frame is as good as whole.
                let snap_bytes = u16::try_from(snap_bytes).unwrap_or(0);
                self.copies.push(TxItem { frame: item.frame, edit: item.edit, snap_bytes });
                self.copied_for.push(item.mirror);
            }
        }
    }

    fn sent(&mut self, port: PortId, outcome: Result<u64, Fault>) {
        self.dirty.push(port);
        match outcome {
            Ok(failed) => {
                if let Some(slot) = slot(&mut self.slots, port) {
                    slot.failed = failed;
                }
            }
            Err(fault) => {
                if let Some(slot) = slot(&mut self.slots, port) {
                    slot.failed = u64::MAX;
                }
                self.fault(port, fault);
            }
        }
    }

    /// Publishes the counters of every port touched by the burst.
    #[inline]
    fn publish(&mut self) {
        for port in self.dirty.drain(..) {
            if let Some(slot) = slot(&mut self.slots, port) {
                slot.stats.publish(&mut slot.delta);
            }
        }
    }

    /// Takes a port out of service and tells the control thread.
    #[cold]
    fn fault(&mut self, id: PortId, fault: Fault) {
        self.unpoll(id);
        let Some(slot) = slot(&mut self.slots, id) else { return };
        slot.stats.publish(&mut slot.delta);
        let driver = match slot.driver.as_mut().and_then(|driver| driver.as_vhost()) {
            Some(vhost) => {
                vhost.operate(VhostOp::Reset);
                None
            }
            None => slot.driver.take(),
        };
        self.notify(Event::PortFault { id, fault, driver });
    }

    fn notify(&self, event: Event) {
        // Neither can fail while the switch runs; when it ends, nobody needs to know.
        let _ = self.control.events.send(event);
        let _ = self.control.waker.wake();
    }

    /// Carries out the waiting commands. Returns false on `Stop`.
    #[cold]
    pub fn obey(&mut self) -> bool {
        while let Ok(command) = self.control.commands.try_recv() {
            match command {
                Command::InstallPool(pool) => self.resources.pool = pool,
                Command::AddPort { id, driver, stats } => self.add_port(id, driver, stats),
                Command::RemovePort { id, reply } => {
                    let _ = reply.send(self.remove_port(id));
                }
                Command::Reclaim(id) => {
                    self.resources.pool.reclaim(id.0);
                }
                Command::SetTables { tables, done } => {
                    self.tables = tables;
                    let _ = done.send(());
                }
                Command::Vhost { id, op, reply } => {
                    self.unpoll(id);
                    let answer = driver_of(&mut self.slots, id)
                        .and_then(|driver| driver.as_vhost())
                        .map(|vhost| vhost.operate(op));
                    self.poll_port(id);
                    if let Some(answer) = answer {
                        let _ = reply.send(answer);
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn add_port(&mut self, id: PortId, driver: Box<dyn PortDriver>, stats: Arc<PortStats>) {
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = Some(Slot {
                driver: Some(driver),
                stats,
                delta: PortDelta::ZERO,
                failed: 0,
                polled: Vec::new(),
                deaf: false,
            });
            self.ports.retain(|&port| port != id);
            self.ports.push(id);
            self.poll_port(id);
        }
    }

    fn remove_port(&mut self, id: PortId) -> Option<Box<dyn PortDriver>> {
        self.unpoll(id);
        self.ports.retain(|&port| port != id);
        let mut slot = self.slots.get_mut(id.index())?.take()?;
        slot.stats.publish(&mut slot.delta);
        slot.driver
    }

    /// Lets every driver do its timed work.
    fn tick(&mut self) {
        for at in 0..self.ports.len() {
            let Some(&port) = self.ports.get(at) else { break };
            if let Some(driver) = driver_of(&mut self.slots, port)
                && let Err(fault) = driver.tick(&mut self.resources)
            {
                self.fault(port, fault);
            }
        }
    }

    /// Seconds since the epoch at `now`.
    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from((now - self.shared.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}

#[inline]
fn slot(slots: &mut [Option<Slot>], port: PortId) -> Option<&mut Slot> {
    slots.get_mut(port.index())?.as_mut()
}

#[inline]
fn driver_of(slots: &mut [Option<Slot>], port: PortId) -> Option<&mut Box<dyn PortDriver>> {
    slot(slots, port)?.driver.as_mut()
}

/// Hands frames to one port; those it does not take are counted there. Returns the mask of frames not taken.
#[inline]
fn send_to(
    slots: &mut [Option<Slot>],
    port: PortId,
    burst: &mut Burst,
    items: &[TxItem],
    sole: u64,
    resources: &mut Resources,
) -> Result<u64, Fault> {
    let Some(slot) = slot(slots, port) else { return Ok(u64::MAX) };
    match slot.driver.as_mut() {
        Some(driver) => driver.send(burst, items, sole, resources, &mut slot.delta),
        None => {
            slot.delta.drop_many(DropReason::NotConnected, items.len() as u64);
            Ok(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests;
