//! The polling worker: the whole way of a frame, from a port's receive queue to its egress ports.
//!
//! **How it works.** [`Worker::turn`] visits each receive queue that the worker owns once: receive a burst (borrowed),
//! decide about each frame ([`Ingress::frame`](labsw_switch::forward::Ingress::frame)), let each egress port take its
//! copies, then the mirrors, then give the burst back and publish the counters. Between turns the worker obeys
//! [`Command`]s, so a command never meets a half-handled burst: its reply is the acknowledgement that the old state is
//! gone. When nothing has arrived for a while (`adaptive` power) the worker arms its queues, looks once more,
//! and blocks until a queue or a command wakes it ([`Worker::run`]).
//!
//! **Several workers** share the [`Snapshot`] (tables and transmit sides), the forwarding database and nothing else;
//! counters and slots are each worker's own. Timed work of the transmit sides is done by every worker that is awake,
//! and before each sleep, so at the latest when the longest sleep ends.
//!
//! **Invariants.**
//! - No frame is held over a turn; no lock, no allocation and no `Arc` per frame.
//! - A [`Fault`] takes one half of one port out of service and is told to the control thread; everything else goes on.
//! - File descriptors are taken out of the poll set before the queue that owns them changes: an eventfd
//!   that a guest's process still holds would stay registered after our own end is closed (epoll(7), Q6).
//! - All counters are published when a turn ends, so slots can be replaced between turns.

mod capture;
mod command;
mod impair;
mod mirror;
mod queue;
mod sleep;
mod slot;
mod snoop;

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_switch::fdb::Fdb;
use labsw_switch::forward::{Copies, Egress, Forwarder};
use labsw_switch::tables::Tables;
use labsw_switch::{DropReason, MAX_PORTS, PortId};
use mio::Token;

use crate::clock;
use crate::frame::Burst;
use crate::port::{Fault, Turn};
use crate::stage::Stage;
use crate::stats::MirrorStats;
use crate::workers::load::{Load, WorkerLoad};

use capture::Capturing;
use queue::Queue;
use slot::{Slot, needs_staging, slot};

pub use command::{Command, ControlEnds, Event, Output, QueueTask, Snapshot};

/// An adaptive worker sleeps after this long without a frame.
const SPIN: Duration = Duration::from_micros(50);
/// Queues and transmit sides are ticked at least this often while there is traffic.
const TICK: Duration = Duration::from_millis(5);
/// Queues and commands that can end one sleep.
const MAX_EVENTS: usize = 64;
/// The token of the command waker; queues have a number of their own.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// Whether an idle worker sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
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
}

/// One polling thread's state.
#[derive(Debug)]
pub struct Worker {
    /// Which worker it is, and the time at which the turn at hand began.
    now: Turn,
    slots: Vec<Option<Slot>>,
    /// The receive queues it owns.
    queues: Vec<Queue>,
    /// The token of the next queue that is added.
    next_token: usize,
    /// The queues (tokens) that ended the last sleep, until the next turn.
    woken: Vec<Token>,
    /// Queues were asked for notifications and not told yet that the worker is awake.
    armed: bool,
    tables: Arc<Tables>,
    shared: Shared,
    power: Power,
    burst: Burst,
    stage: Stage,
    egress: Egress,
    copies: Copies,
    capturing: Capturing,
    /// A control message of multicast.
    message: snoop::Message,
    /// Ports whose delta has something to publish.
    dirty: Vec<PortId>,
    /// Ports with an impairment before their transmit side.
    impaired: Vec<PortId>,
    load: Load,
    control: ControlEnds,
    poll: mio::Poll,
    poll_events: mio::Events,
}

impl Worker {
    /// A worker without queues and ports; `now` says which of how many, and the time.
    pub fn new(
        now: Turn,
        shared: Shared,
        power: Power,
        load: Arc<WorkerLoad>,
        control: ControlEnds,
        poll: mio::Poll,
    ) -> Worker {
        Worker {
            now,
            slots: Vec::new(),
            queues: Vec::new(),
            next_token: 0,
            woken: Vec::with_capacity(MAX_EVENTS),
            armed: false,
            tables: Arc::new(Tables::empty()),
            shared,
            power,
            burst: Burst::new(),
            stage: Stage::new(),
            egress: Egress::new(),
            copies: Copies::new(),
            capturing: Capturing::new(),
            message: snoop::Message::new(),
            dirty: Vec::with_capacity(MAX_PORTS),
            impaired: Vec::new(),
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
            self.now.now_ns = clock::at(now);
            if !self.impaired.is_empty() {
                self.send_delayed();
            }
            if now - last_tick >= TICK {
                last_tick = now;
                self.run_due();
            }
            if frames > 0 {
                last_frame = now;
            } else if self.power == Power::Adaptive && now - last_frame >= SPIN {
                let woken = self.sleep();
                let now = Instant::now();
                self.load.slept(now);
                // It may have been hours, and the next turn is the one that matters.
                self.now.now_ns = clock::at(now);
                // After a time-out there is no reason to expect more than one look finds.
                if woken {
                    last_frame = now;
                }
            }
        }
    }

    /// Sets the time of the next turn, ns. [`Worker::run`] does that by the clock; whoever drives the turns decides it.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now.now_ns = now_ns;
    }

    /// Serves every receive queue once; returns the number of frames received. The queues that ended a sleep come
    /// first: their frames have waited already, and by now the CPU's caches have forgotten the silent queues, so that
    /// merely looking at them takes its time.
    pub fn turn(&mut self) -> usize {
        let mut frames = 0;
        let (woken, queues) = (self.woken.len(), self.queues.len());
        for step in 0..woken + queues {
            let at = if step < woken { self.queue_of(step) } else { Some(step - woken) };
            // Most queues are silent most of the time: that takes one look here.
            let waiting = |at: &usize| self.queues.get(*at).is_some_and(|queue| queue.is_waiting(&self.now));
            if let Some(at) = at.filter(waiting) {
                frames += self.serve(at);
            }
        }
        self.woken.clear();
        frames
    }

    /// Where the queue that ended a sleep stands.
    #[cold]
    fn queue_of(&self, woken: usize) -> Option<usize> {
        let token = self.woken.get(woken)?;
        self.queues.iter().position(|queue| queue.token == *token)
    }

    /// One burst of one queue: receive, decide, send, mirror, release, publish.
    #[inline]
    fn serve(&mut self, at: usize) -> usize {
        let Some(queue) = self.queues.get_mut(at) else { return 0 };
        let ingress = queue.port;
        // Without the port's slot nothing could be counted: its frames wait in the queue.
        let Some(slot) = slot(&mut self.slots, ingress) else { return 0 };
        // What a queue says of its burst (that it can be moved) must not stick to that of the next one.
        self.burst.clear();
        self.stage.begin();
        if let Err(fault) = queue.receive(&self.now, &mut self.burst, &mut self.stage, &mut slot.delta) {
            self.queue_fault(at, fault);
            return 0;
        }
        let frames = self.burst.len();
        if frames == 0 {
            slot.output.stats.publish(self.now.worker, &mut slot.delta);
            return 0;
        }
        self.dirty.push(ingress);
        if self.capturing.any {
            self.decide_and_capture(ingress);
        } else {
            self.decide::<0>(ingress);
        }
        if self.tables.has_mirrors_in_force() {
            self.select_for_mirrors(ingress);
        }
        if self.egress.messages() != 0 {
            self.snoop(ingress);
        }
        self.send();
        if self.egress.mirrored() != 0 {
            self.send_mirrors();
        }
        self.egress.clear();
        if let Some(queue) = self.queues.get_mut(at)
            && let Err(fault) = queue.release(&mut self.burst)
        {
            self.queue_fault(at, fault);
        }
        self.publish();
        frames
    }

    /// Fills `egress` for the frames of the burst. `CAPTURES` is 0 where there are none, [`capture::DROPS`] where drops
    /// are noted for them; each is compiled for itself.
    #[inline(always)]
    fn decide<const CAPTURES: u8>(&mut self, ingress: PortId) {
        let now_ns = self.now.now_ns;
        let now_seconds = clock::seconds(now_ns);
        let forwarder = Forwarder { tables: &self.tables, fdb: &self.shared.fdb, now_seconds };
        let (slots, dirty, capturing) = (&mut self.slots, &mut self.dirty, &mut self.capturing);
        let mut decisions = forwarder.ingress_at(ingress, now_ns);
        decisions.set_injection_time(now_ns);
        // Made once a burst: inside the loop it would be put together for each frame.
        let mut dropped = |frame: u8, port: PortId, reason: DropReason| {
            if let Some(slot) = slot(slots, port) {
                slot.delta.drop(reason);
                if dirty.last() != Some(&port) {
                    dirty.push(port);
                }
            }
            if CAPTURES == capture::DROPS {
                capturing.note(frame, port, reason);
            }
        };
        for (index, (frame, snapshot)) in (0u8..).zip(self.burst.snapshots()) {
            decisions.frame(index, snapshot, frame.wire_bytes, &mut self.egress, &mut dropped);
        }
    }

    /// Lets every egress port take its frames.
    #[inline]
    fn send(&mut self) {
        let sole = self.egress.unshared();
        for at in 0..self.egress.active().len() {
            let Some(&port) = self.egress.active().get(at) else { break };
            let items = self.egress.items(port);
            let Some(slot) = slot(&mut self.slots, port) else { continue };
            let watched = slot.watched;
            // The bytes of a frame that is captured when it was sent must be there still.
            let sole = if watched { 0 } else { sole };
            let outcome = if needs_staging(&self.burst, items) {
                slot.prepare_and_send(&mut self.stage, &self.now, &mut self.burst, items, sole)
            } else {
                slot.send(&self.now, &mut self.burst, items, sole)
            };
            self.sent(port, outcome);
            if watched {
                self.capture_sent(port);
            }
        }
    }

    #[inline]
    fn sent(&mut self, id: PortId, outcome: Result<(), Fault>) {
        self.dirty.push(id);
        if let Err(fault) = outcome {
            self.notify(Event::PortFault { id, fault });
        }
    }

    /// Publishes the counters of every port touched by the burst.
    #[inline]
    fn publish(&mut self) {
        for port in self.dirty.drain(..) {
            if let Some(slot) = slot(&mut self.slots, port) {
                slot.output.stats.publish(self.now.worker, &mut slot.delta);
            }
        }
    }

    /// Takes a receive queue out of service and tells the control thread.
    #[cold]
    fn queue_fault(&mut self, at: usize, fault: Fault) {
        let Some(queue) = self.queues.get_mut(at) else { return };
        queue.unpoll(&self.poll);
        queue.rx.fail();
        let id = queue.port;
        if let Some(slot) = slot(&mut self.slots, id) {
            slot.output.stats.publish(self.now.worker, &mut slot.delta);
        }
        self.notify(Event::PortFault { id, fault });
    }

    #[cold]
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
                Command::AddQueue { port, queue: number, rx } => {
                    let mut queue = Queue::new(port, number, rx, Token(self.next_token));
                    self.next_token = self.next_token.wrapping_add(1) % WAKER.0;
                    queue.poll(&self.poll);
                    self.queues.push(queue);
                    self.set_impaired_rx(self.queues.len() - 1);
                }
                Command::TakeQueue { port, queue, reply } => {
                    if let Some(at) = self.find(port, queue) {
                        let mut queue = self.queues.remove(at);
                        queue.unpoll(&self.poll);
                        queue.rx.disarm();
                        self.end_impaired_rx(port, queue.impaired.take());
                        if let Err(unwanted) = reply.send(queue.rx) {
                            // Nobody waits for it any more: it stays here, as the control thread thinks.
                            queue.rx = unwanted.into_inner();
                            queue.poll(&self.poll);
                            self.queues.push(queue);
                            self.set_impaired_rx(self.queues.len() - 1);
                        }
                    }
                }
                Command::SetSnapshot { snapshot, done } => {
                    self.set_snapshot(&snapshot);
                    // What only the old one had is given up before that is said.
                    drop(snapshot);
                    let _ = done.send(());
                }
                Command::OnQueue { port, queue, task } => {
                    let at = self.find(port, queue);
                    if let Some(queue) = at.and_then(|at| self.queues.get_mut(at)) {
                        queue.unpoll(&self.poll);
                        task.run(queue.rx.as_mut());
                        queue.poll(&self.poll);
                    }
                }
                Command::SetCaptures { captures, done } => {
                    self.set_captures(captures);
                    let _ = done.send(());
                }
                Command::SetPower(power) => self.power = power,
                Command::Stop => return false,
            }
        }
        true
    }

    /// Number of receive queues it owns.
    #[cfg(test)]
    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    fn find(&self, port: PortId, number: usize) -> Option<usize> {
        self.queues.iter().position(|queue| queue.port == port && queue.number == number)
    }

    fn set_snapshot(&mut self, snapshot: &Snapshot) {
        self.tables = Arc::clone(&snapshot.tables);
        let slots = snapshot.outputs.iter().map(|output| output.as_ref().map(Slot::new)).collect();
        let before = std::mem::replace(&mut self.slots, slots);
        self.set_impairments(before);
        self.mark_watched();
    }

    /// Lets queues and transmit sides do their timed work.
    fn run_due(&mut self) {
        for at in 0..self.queues.len() {
            if let Some(queue) = self.queues.get_mut(at)
                && let Err(fault) = queue.rx.run_due(&self.now)
            {
                self.queue_fault(at, fault);
            }
        }
        for id in (0..).map(PortId).take(self.slots.len()) {
            self.run_due_of(id);
        }
    }

    /// Lets the transmit side of a port do its timed work.
    fn run_due_of(&mut self, id: PortId) {
        let Some(slot) = slot(&mut self.slots, id) else { return };
        let Some(tx) = &slot.output.tx else { return };
        let outcome = tx.run_due(&self.now, &mut slot.delta);
        slot.output.stats.publish(self.now.worker, &mut slot.delta);
        if let Err(fault) = outcome {
            self.notify(Event::PortFault { id, fault });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
pub(crate) mod memory_port;
#[cfg(test)]
mod tests;
