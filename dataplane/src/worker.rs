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
//! - All counters are published when a turn ends, so slots can be replaced between turns.

mod capture;
mod command;
mod impair;
mod inline;
mod mirror;
mod pipeline;
mod ports;
mod queue;
mod sleep;
mod snoop;

use std::sync::Arc;
use std::time::Instant;

use labsw_switch::PortId;
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::Tables;

use crate::clock;
use crate::port::{Fault, Turn};
use crate::stats::{MirrorStats, PortDelta};
use crate::sync::{SPIN, TICK};
use crate::workers::load::{Load, WorkerLoad};

use capture::Capturing;
use impair::Impairments;
use inline::Sensors;
use mirror::Mirrors;
use pipeline::{Pipeline, forwarder};
use ports::{Ports, Slot, needs_staging};
use queue::Queue;
use sleep::Sleeper;

pub use command::{Command, ControlEnds, Event, Output, Power, QueueTask, Snapshot};
pub(crate) use sleep::WAKER;

/// The state that a worker shares with the rest of the switch.
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
    tables: Arc<Tables>,
    fdb: Arc<Fdb>,
    power: Power,
    load: Load,
    control: ControlEnds,
    sleeper: Sleeper,
    /// The receive queues it owns.
    queues: Vec<Queue>,
    ports: Ports,
    pipeline: Pipeline,
    mirrors: Mirrors,
    capturing: Capturing,
    impairments: Impairments,
    sensors: Sensors,
    /// A control message of multicast.
    message: snoop::Message,
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
            tables: Arc::new(Tables::empty()),
            fdb: shared.fdb,
            power,
            load: Load::new(load),
            control,
            sleeper: Sleeper::new(poll),
            queues: Vec::new(),
            ports: Ports::new(),
            pipeline: Pipeline::new(),
            mirrors: Mirrors::new(shared.mirrors),
            capturing: Capturing::new(),
            impairments: Impairments::new(),
            sensors: Sensors::new(),
            message: snoop::Message::new(),
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
            if self.sleeper.is_armed() {
                self.sleeper.disarm(&mut self.queues);
            }
            let now = Instant::now();
            self.load.turn(now, frames);
            self.now.now_ns = clock::at(now);
            self.impairments.send_due(&self.now, &mut self.ports, &self.control);
            self.sensors.run_due(&self.now, &self.tables, &self.ports, &self.control);
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

    /// Arms every queue, looks once more, and blocks until something arrives or timed work is due. Returns whether
    /// there is, or may be, something to do.
    fn sleep(&mut self) -> bool {
        let delayed = self.impairments.next_due(&self.now, &self.ports, &self.queues);
        if sleep::is_imminent(delayed, &self.now) {
            return true;
        }
        self.run_due();
        let (waiting, due) = self.sleeper.arm(&mut self.queues, &self.now);
        let due = due.min(sleep::wake_for(delayed)).min(self.ports.next_due(&self.now)).min(self.sensors.next_due());
        if waiting || !self.control.commands.is_empty() {
            return true;
        }
        self.load.sleeps();
        self.sleeper.block(due, &self.now)
    }

    /// Sets the time of the next turn, ns. [`Worker::run`] takes it from the clock; a caller that drives the turns
    /// itself sets it.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now.now_ns = now_ns;
    }

    /// Serves every receive queue once; returns the number of frames received. The queues that ended a sleep come
    /// first: their frames have waited already, and by now the CPU's caches have forgotten the silent queues, so that
    /// merely looking at them takes its time.
    pub fn turn(&mut self) -> usize {
        let mut frames = 0;
        let (woken, queues) = (self.sleeper.woken(), self.queues.len());
        for step in 0..woken + queues {
            let at = if step < woken { self.sleeper.queue_of(step, &self.queues) } else { Some(step - woken) };
            // Most queues are silent most of the time: that takes one look here.
            let waiting = |at: &usize| self.queues.get(*at).is_some_and(|queue| queue.is_waiting(&self.now));
            if let Some(at) = at.filter(waiting) {
                frames += self.serve(at);
            }
        }
        self.sleeper.forget_woken();
        frames
    }

    /// One burst of one queue: receive, decide, send, mirror, release, publish.
    #[inline]
    fn serve(&mut self, at: usize) -> usize {
        let Some(queue) = self.queues.get_mut(at) else { return 0 };
        let ingress = queue.port;
        // Without the port's slot nothing could be counted: its frames wait in the queue.
        let Some(slot) = self.ports.get_mut(ingress) else { return 0 };
        self.pipeline.begin();
        let Pipeline { burst, stage, .. } = &mut self.pipeline;
        if let Err(fault) = queue.receive(&self.now, burst, stage, &mut slot.delta) {
            self.queue_fault(at, fault);
            return 0;
        }
        let frames = burst.len();
        if frames == 0 {
            slot.publish(self.now.worker);
            return 0;
        }
        self.ports.touch(ingress);
        self.decide(ingress);
        if self.pipeline.egress.probes() != 0 {
            self.hear(at, ingress);
        }
        if self.tables.has_mirrors_in_force() {
            self.mirrors.select(&self.tables, ingress, &mut self.pipeline);
        }
        if self.pipeline.egress.messages() != 0 {
            self.message.snoop(&mut self.pipeline, forwarder(&self.tables, &self.fdb, &self.now), ingress);
        }
        self.send();
        if self.pipeline.egress.mirrored() != 0 {
            self.send_mirrors();
        }
        self.pipeline.egress.clear();
        if let Some(queue) = self.queues.get_mut(at)
            && let Err(fault) = queue.release(&mut self.pipeline.burst)
        {
            self.queue_fault(at, fault);
        }
        self.ports.publish(self.now.worker);
        frames
    }

    /// Fills `egress` for the frames of the burst.
    #[inline(always)]
    fn decide(&mut self, ingress: PortId) {
        let forwarder = forwarder(&self.tables, &self.fdb, &self.now);
        let (pipeline, ports) = (&mut self.pipeline, &mut self.ports);
        if self.capturing.any() {
            self.capturing.decide(pipeline, forwarder, &self.now, ingress, ports);
        } else {
            pipeline.decide(forwarder, &self.now, ingress, |_, port, reason| ports.drop(port, reason));
        }
    }

    /// Takes out of a burst of one queue what concerns the switch itself: messages for the remote end of a mirror
    /// destination, or probes.
    #[cold]
    fn hear(&mut self, at: usize, ingress: PortId) {
        let Pipeline { burst, egress, .. } = &self.pipeline;
        if let Some(remote) = self.tables.rules(ingress).and_then(|rules| rules.remote.as_ref()) {
            let heard = (0..burst.len()).filter(|index| egress.probes() >> index & 1 == 1);
            return heard.for_each(|index| remote.hear(burst.snapshot(index), self.now.now_ns));
        }
        // Frames that an impairment has delayed, lost or doubled were counted before that.
        let is_counted_now = self.queues.get(at).is_some_and(|queue| queue.impaired.is_none());
        let mut elsewhere = PortDelta::ZERO;
        let counted = self.ports.get_mut(ingress).map(|slot| &mut slot.delta).filter(|_| is_counted_now);
        self.sensors.hear(ingress, burst, egress.probes(), counted.unwrap_or(&mut elsewhere));
    }

    /// Lets every egress port take its frames.
    #[inline]
    fn send(&mut self) {
        let Pipeline { burst, stage, egress } = &mut self.pipeline;
        let unshared = egress.unshared();
        for at in 0..egress.active().len() {
            let Some(&port) = egress.active().get(at) else { break };
            let items = egress.items(port);
            let Some(slot) = self.ports.get_mut(port) else { continue };
            let watched = slot.watched;
            // The bytes of a frame that is captured when it was sent must be there still.
            let unshared = if watched { 0 } else { unshared };
            let outcome = if needs_staging(burst, items) {
                slot.prepare_and_send(stage, &self.now, burst, items, unshared)
            } else {
                slot.send(&self.now, burst, items, unshared)
            };
            if watched {
                self.capturing.sent(stage, burst, port, items, slot);
            }
            self.ports.sent(port, outcome, &self.control);
        }
    }

    /// Copies to the mirror destinations the frames that were selected of the burst and really passed.
    fn send_mirrors(&mut self) {
        let destinations = self.mirrors.choose(self.now.worker, &self.pipeline, &self.ports);
        let Pipeline { burst, stage, .. } = &mut self.pipeline;
        for at in 0..destinations {
            let Some(destination) = self.mirrors.destination(at) else { break };
            let (to, items) = (destination.to, &destination.items);
            let Some(slot) = self.ports.get_mut(to) else { continue };
            let outcome = slot.send_finished(stage, &self.now, burst, items);
            self.mirrors.count(self.now.worker, destination, slot, burst);
            if slot.watched {
                self.capturing.sent(stage, burst, to, items, slot);
            }
            self.ports.sent(to, outcome, &self.control);
        }
    }

    /// Takes a receive queue out of service and tells the control thread.
    #[cold]
    fn queue_fault(&mut self, at: usize, fault: Fault) {
        let Some(queue) = self.queues.get_mut(at) else { return };
        self.sleeper.remove(queue);
        queue.rx.fail();
        let id = queue.port;
        if let Some(slot) = self.ports.get_mut(id) {
            slot.publish(self.now.worker);
        }
        self.control.notify(Event::PortFault { id, fault });
    }

    /// Carries out the waiting commands. Returns false on `Stop`.
    #[cold]
    pub fn obey(&mut self) -> bool {
        while let Ok(command) = self.control.commands.try_recv() {
            match command {
                Command::AddQueue { port, queue, rx } => {
                    let token = self.sleeper.token();
                    self.add_queue(Queue::new(port, queue, rx, token));
                }
                Command::TakeQueue { port, queue, reply } => {
                    if let Some(at) = self.find(port, queue) {
                        let mut queue = self.queues.remove(at);
                        self.sleeper.remove(&mut queue);
                        queue.rx.disarm();
                        impair::end_rx(&mut queue, &mut self.ports, self.now.worker);
                        if let Err(unwanted) = reply.send(queue.rx) {
                            // The control thread does not wait for it any more and believes that it stays here, so it
                            // does.
                            queue.rx = unwanted.into_inner();
                            self.add_queue(queue);
                        }
                    }
                }
                Command::SetSnapshot { snapshot, done } => {
                    self.set_snapshot(&snapshot);
                    // Objects that only the old snapshot held are dropped before the acknowledgement.
                    drop(snapshot);
                    let _ = done.send(());
                }
                Command::OnQueue { port, queue, task } => {
                    let at = self.find(port, queue);
                    if let Some(queue) = at.and_then(|at| self.queues.get_mut(at)) {
                        self.sleeper.remove(queue);
                        task.run(queue.rx.as_mut());
                        self.sleeper.add(queue);
                    }
                }
                Command::SetCaptures { captures, done } => {
                    self.capturing.set(captures, &mut self.ports);
                    let _ = done.send(());
                }
                Command::SetSensors { sensors, done } => {
                    self.sensors.set(sensors, &self.now);
                    let _ = done.send(());
                }
                Command::Hold { held, go_on } => {
                    let _ = held.send(());
                    // Nothing is ever sent: the wait is for the end of the channel.
                    let _ = go_on.recv();
                }
                Command::SetPower(power) => self.power = power,
                Command::Stop => return false,
            }
        }
        true
    }

    /// Number of receive queues it owns.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn queues(&self) -> usize {
        self.queues.len()
    }

    fn find(&self, port: PortId, number: usize) -> Option<usize> {
        self.queues.iter().position(|queue| queue.port == port && queue.number == number)
    }

    /// Serves a queue from the next turn on.
    fn add_queue(&mut self, mut queue: Queue) {
        self.sleeper.add(&mut queue);
        impair::set_rx(&mut queue, &mut self.ports, self.now.worker);
        self.queues.push(queue);
    }

    fn set_snapshot(&mut self, snapshot: &Snapshot) {
        self.tables = Arc::clone(&snapshot.tables);
        let slots = snapshot.outputs.iter().map(|output| output.as_ref().map(Slot::new)).collect();
        let before = std::mem::replace(&mut self.ports.slots, slots);
        self.impairments.set(before, &mut self.ports, &mut self.queues, self.now.worker);
        self.capturing.mark_watched(&mut self.ports);
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
        for id in (0..).map(PortId).take(self.ports.slots.len()) {
            self.ports.run_due(id, &self.now, &self.control);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
pub(crate) mod memory_port;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
