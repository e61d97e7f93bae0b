//! Injections: captures that clients replay into the switch.
//!
//! Each injection is a receive queue of its own ([`labsw_dataplane::inject`]) that a worker serves for the port, beside
//! the port's own queues. It lasts until its client ends it, until the port goes, or until its client has been silent
//! for [`LEASE`]. A client that dies therefore leaves nothing behind.
//!
//! **Take-over.** The client's connection goes to the new process, and with it the injection: its number, its times,
//! and the frames that are not due yet. A worker of the new process serves it once the switch is the new process's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use labsw_dataplane::clock::now_ns;
use labsw_dataplane::handover::HandoverError;
use labsw_dataplane::inject::{InjectQueue, InjectRx, injection};
use labsw_dataplane::stats::PortSnapshot;
use labsw_switch::{DropReason, PortId};

use super::fabric::Fabric;
use super::port::Port;
use super::ports::Ports;
use super::view::View;
use crate::api::{Error, InjectFrame, Injected};
use crate::takeover::impairment::DelayedFrames;
use crate::takeover::replay::{ReplayProgress, ReplayRecord};

/// Injections at the same time.
const MAX_INJECTIONS: usize = 16;
/// An injection ends when its client has been silent for this long.
const LEASE: Duration = Duration::from_secs(3);
/// Nanoseconds from the arrival of the first frame until it is due; the next frames arrive meanwhile.
const HEAD_START_NS: u64 = 10_000_000;
/// The first queue number of an injection, above those of the port's own queues.
const FIRST_QUEUE: usize = 1 << 16;
/// Lengths of frames, bytes.
const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=65_549;

/// All running injections.
#[derive(Default)]
pub(super) struct Injections {
    running: BTreeMap<u64, Running>,
    last: u64,
}

impl Injections {
    /// True if no injection runs.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

#[cfg(test)]
impl Injections {
    /// When the first frame of each injection is due.
    pub(super) fn starts(&self) -> Vec<Option<u64>> {
        self.running.values().map(|running| running.start_ns).collect()
    }
}

struct Running {
    port: PortId,
    worker: usize,
    queue: InjectQueue,
    /// The worker's half, until a worker has it.
    rx: Option<InjectRx>,
    /// The port's counters when the injection began.
    before: PortSnapshot,
    /// When the first frame is due.
    start_ns: Option<u64>,
    given: u64,
    heard_at: Instant,
}

impl Injections {
    /// Begins an injection, maybe beside another, or goes on with one: takes as many frames as there is room for, and
    /// may end it.
    pub(super) fn inject(
        &mut self,
        name: &str,
        (number, beside): (Option<u64>, Option<u64>),
        (frames, end): (&[InjectFrame], bool),
        view: View<'_>,
    ) -> Result<Injected, Error> {
        let number = match number {
            Some(number) => number,
            None => self.begin(name, beside, view)?,
        };
        let gone = || Error::not_found("injection", number.to_string());
        let id = view.ports.get(name)?.id;
        let running = self.running.get_mut(&number).filter(|running| running.port == id);
        let running = running.ok_or_else(gone)?;
        running.heard_at = Instant::now();
        let mut taken = 0;
        for frame in frames {
            let bytes = frame.bytes().filter(|bytes| FRAME_BYTES.contains(&bytes.len()));
            let Some(bytes) = bytes else {
                self.end_one(number, view.fabric);
                return Err(Error::invalid("frames"));
            };
            let start_ns = *running.start_ns.get_or_insert_with(start);
            if !running.queue.push(start_ns.saturating_add(frame.at_nanoseconds), &bytes) {
                break;
            }
            taken += 1;
        }
        running.given += taken;
        if taken > 0 {
            running.queue.wake();
        }
        let (before, queue, given) = (running.before.clone(), running.queue.clone(), running.given);
        if end {
            self.end_one(number, view.fabric);
        }
        let counted = view.ports.get(name)?.counters();
        let dropped = |reason: &DropReason| {
            let of = |counted: &PortSnapshot| counted.drops.get(*reason as usize).copied().unwrap_or(0);
            (reason.name().to_owned(), of(&counted).wrapping_sub(of(&before)))
        };
        let sent = queue.received();
        Ok(Injected {
            injection: number,
            taken,
            waiting: given - sent.min(given),
            sent,
            drops: DropReason::ALL.iter().map(dropped).filter(|(_, frames)| *frames > 0).collect(),
        })
    }

    /// Gives a worker one more queue of a port.
    fn begin(&mut self, name: &str, beside: Option<u64>, view: View<'_>) -> Result<u64, Error> {
        let refused = |reason: String| Error::refused(format!("port {name:?}"), reason);
        let port = view.ports.get(name)?;
        if view.mirrors.has_copies_sent_by(&port.config) && port.destination.gate.is_none() {
            return Err(refused("it is a mirror destination, which takes nothing in".to_owned()));
        }
        if !port.enabled {
            return Err(refused(format!("it is switched off; switch it on (labsw-ctl port up {name})")));
        }
        if self.running.len() >= MAX_INJECTIONS {
            return Err(refused(format!("{MAX_INJECTIONS} injections run already; wait until one has ended")));
        }
        // Both count from now.
        let start_ns = match beside {
            None => None,
            Some(other) => {
                let running = self.running.get_mut(&other);
                let running = running.ok_or_else(|| Error::not_found("injection", other.to_string()))?;
                Some(*running.start_ns.get_or_insert_with(start))
            }
        };
        let (queue, rx) = injection().map_err(|error| refused(format!("no timer for an injection: {error}")))?;
        let (worker, before) = (worker_of(port), port.counters());
        let number = self.last + 1;
        let mut running = Running {
            port: port.id,
            worker,
            queue,
            rx: Some(rx),
            before,
            start_ns,
            given: 0,
            heard_at: Instant::now(),
        };
        running.serve(number, view.fabric)?;
        self.last = number;
        self.running.insert(number, running);
        tracing::info!(port = name, injection = number, "injection begins");
        Ok(number)
    }

    /// Takes an injection's queue from its worker.
    fn end_one(&mut self, number: u64, fabric: &Fabric) {
        let Some(running) = self.running.remove(&number) else { return };
        let links = fabric.workers.links();
        if running.rx.is_none()
            && let Err(error) = links.take_queue(running.worker, running.port, queue_number(number))
        {
            tracing::warn!(injection = number, %error, "not ended cleanly");
        }
        tracing::info!(injection = number, frames = running.queue.received(), "injection has ended");
    }

    /// Ends the injections of a port that is removed.
    pub(super) fn end_of(&mut self, port: PortId, fabric: &Fabric) {
        self.end_where(|running| running.port == port, fabric);
    }

    /// Ends the injections whose clients are silent. Called once a second.
    pub(super) fn end_silent(&mut self, fabric: &Fabric) {
        self.end_where(|running| running.heard_at.elapsed() > LEASE, fabric);
    }

    fn end_where(&mut self, which: impl Fn(&Running) -> bool, fabric: &Fabric) {
        let running = self.running.iter();
        let over: Vec<u64> = running.filter(|(_, running)| which(running)).map(|(number, _)| *number).collect();
        over.into_iter().for_each(|number| self.end_one(number, fabric));
    }
}

/// When the first frame of an injection that begins now is due.
fn start() -> u64 {
    now_ns() + HEAD_START_NS
}

impl Running {
    /// Has a worker receive the frames that are due.
    fn serve(&mut self, number: u64, fabric: &Fabric) -> Result<(), Error> {
        let Some(rx) = self.rx.take() else { return Ok(()) };
        let added = fabric.workers.links().add_queue(self.worker, self.port, queue_number(number), Box::new(rx));
        added.map_err(|error| Error::refused("worker", error.to_string()))
    }
}

impl Injections {
    /// The injections, for another process.
    pub(super) fn records(&self, ports: &Ports) -> Vec<ReplayRecord> {
        let record = |(number, running): (&u64, &Running)| {
            let Running { port, before, start_ns, given, .. } = running;
            let port = ports.at(*port)?.config.name.clone();
            Some(ReplayRecord { number: *number, port, before: before.into(), start_ns: *start_ns, given: *given })
        };
        self.running.iter().filter_map(record).collect()
    }

    /// How far each injection is. The workers stand still.
    pub(super) fn progress(&self, file: &mut DelayedFrames) -> Vec<ReplayProgress> {
        let progress = |(number, running): (&u64, &Running)| ReplayProgress {
            number: *number,
            received: running.queue.received(),
            waiting: file.put(&running.queue.pack_waiting()),
        };
        self.running.iter().map(progress).collect()
    }

    /// Enters the injections of another process. No worker has them yet.
    pub(super) fn enter(&mut self, records: Vec<ReplayRecord>, ports: &Ports) -> Result<(), HandoverError> {
        if records.len() > MAX_INJECTIONS {
            return Err(HandoverError::new(format!("{} replays are more than any switch has", records.len())));
        }
        for ReplayRecord { number, port, before, start_ns, given } in records {
            let port = ports.get(&port).map_err(|error| HandoverError::new(error.to_string()))?.id;
            let (queue, rx) = injection().map_err(HandoverError::new)?;
            let (rx, before, heard_at) = (Some(rx), before.snapshot(), Instant::now());
            self.running.insert(number, Running { port, worker: 0, queue, rx, before, start_ns, given, heard_at });
            self.last = self.last.max(number);
        }
        Ok(())
    }

    /// Goes on where the injections of another process stood.
    pub(super) fn go_on(&self, progress: &[ReplayProgress], file: &DelayedFrames) -> Result<(), HandoverError> {
        for ReplayProgress { number, received, waiting } in progress {
            let Some(running) = self.running.get(number) else { continue };
            if !running.queue.go_on(*received, &file.frames(*waiting)?) {
                return Err(HandoverError::new("a replay has more frames than any holds"));
            }
        }
        Ok(())
    }

    /// Has the workers receive the frames of the injections that were entered.
    pub(super) fn resume(&mut self, ports: &Ports, fabric: &Fabric) {
        for (number, running) in &mut self.running {
            running.worker = ports.at(running.port).map_or(0, worker_of);
            if let Err(error) = running.serve(*number, fabric) {
                tracing::error!(injection = number, %error, "a replay does not go on");
            }
        }
    }
}

/// The worker that serves injections at a port.
fn worker_of(port: &Port) -> usize {
    port.queues.places.first().and_then(|place| place.home).unwrap_or(0)
}

/// The queue number of an injection at its port.
fn queue_number(injection: u64) -> usize {
    usize::try_from(injection).map_or(usize::MAX, |number| FIRST_QUEUE.saturating_add(number))
}
