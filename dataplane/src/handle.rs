//! The control thread's end of the workers: spawn them, command them, wait for their acknowledgements.
//!
//! A command is carried out between two turns, within microseconds when the worker polls and after one
//! wake-up when it sleeps; the calls that wait give up after [`PATIENCE`] rather than hang the control thread. While
//! one waits, all workers are roused ([`crate::watchdog`]): the one that does not answer may wait for the lock of a
//! transmit ring that another holds, which hangs in a guest's doorbell.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use labsw_switch::PortId;
use rustix::thread::Pid;

use crate::capture::Captures;
use crate::clock::now_ns;
use crate::load::{LoadSnapshot, Pulse, WorkerLoad};
use crate::port::{RxQueue, Turn};
use crate::thread::{confine, exact_timers};
use crate::watchdog::{self, PATIENCE, ROUSE_AFTER};
use crate::worker::{Command, ControlEnds, Event, Power, Shared, Snapshot, WAKER, Worker};

/// The most workers of a switch.
pub const MAX_WORKERS: usize = 64;

/// Why a worker can't be started or commanded.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread, its poll set or its pinning failed.
    #[error("worker on {cpu}: {source}")]
    Start {
        /// "CPU n" or "any CPU".
        cpu: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The worker thread has ended.
    #[error("worker {0} has ended")]
    Gone(usize),
    /// No acknowledgement within the patience.
    #[error("worker {worker} did not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// The worker.
        worker: usize,
    },
    /// The worker does not have what it was asked about.
    #[error("worker {worker} does not have queue {queue} of this port")]
    NoQueue {
        /// The worker.
        worker: usize,
        /// The queue.
        queue: usize,
    },
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    links: Links,
    handles: Vec<WorkerHandle>,
}

/// One running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    load: Arc<WorkerLoad>,
    cpu: Option<usize>,
    thread: JoinHandle<()>,
    /// How it was at the last [`Workers::rouse_if_stuck`].
    seen: Option<Pulse>,
}

/// A way to send commands to the workers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Links(Arc<[Link]>);

#[derive(Debug)]
struct Link {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    thread: Pid,
}

impl Workers {
    /// Starts a worker for each of `cpus`, pinned if a CPU is named. `events` and `control` are how they report faults.
    pub fn spawn(
        cpus: &[Option<usize>],
        power: Power,
        shared: &Shared,
        events: &Sender<Event>,
        control: &Arc<mio::Waker>,
    ) -> Result<Workers, WorkerError> {
        let (mut links, mut handles) = (Vec::new(), Vec::new());
        let mut failed = None;
        for (worker, &cpu) in cpus.iter().enumerate() {
            let turn = Turn { worker, workers: cpus.len(), now_ns: now_ns(), clock_runs: true };
            match spawn(turn, cpu, power, shared.clone(), events.clone(), Arc::clone(control)) {
                Ok((link, handle)) => {
                    links.push(link);
                    handles.push(handle);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let workers = Workers { links: Links(links.into()), handles };
        match failed {
            None => Ok(workers),
            Some(error) => {
                workers.stop();
                Err(error)
            }
        }
    }

    /// A way to command them from elsewhere.
    pub fn links(&self) -> Links {
        self.links.clone()
    }

    /// The workers, by number.
    pub fn handles(&self) -> &[WorkerHandle] {
        &self.handles
    }

    /// Gets workers out of a system call that a peer made block, if they have not moved since the last call. Called
    /// once a second.
    pub fn rouse_if_stuck(&mut self) {
        for (handle, link) in self.handles.iter_mut().zip(self.links.0.iter()) {
            let now = handle.pulse();
            let seen = handle.seen.replace(now);
            if seen.is_some_and(|seen| !now.beats_since(&seen)) && !now.ended {
                watchdog::interrupt(link.thread);
            }
        }
    }

    /// Ends them and waits for their threads; queues still in them are dropped.
    pub fn stop(self) {
        let told: Vec<bool> =
            (0..self.handles.len()).map(|worker| self.links.send(worker, Command::Stop).is_ok()).collect();
        for (handle, told) in self.handles.into_iter().zip(told) {
            if told {
                let _ = handle.thread.join();
            }
        }
    }
}

impl WorkerHandle {
    /// The CPU it is pinned to.
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Its load since it started.
    pub fn load(&self) -> LoadSnapshot {
        self.load.snapshot()
    }

    /// Whether it is blocked waiting for frames, or about to.
    pub fn asleep(&self) -> bool {
        self.load.asleep()
    }

    /// How it is at this moment.
    pub fn pulse(&self) -> Pulse {
        Pulse { load: self.load(), asleep: self.asleep(), ended: self.thread.is_finished() }
    }
}

/// Starts one worker.
fn spawn(
    turn: Turn,
    cpu: Option<usize>,
    power: Power,
    shared: Shared,
    events: Sender<Event>,
    control: Arc<mio::Waker>,
) -> Result<(Link, WorkerHandle), WorkerError> {
    let failed = |source| WorkerError::Start {
        cpu: cpu.map_or_else(|| "any CPU".to_owned(), |cpu| format!("CPU {cpu}")),
        source,
    };
    let poll = mio::Poll::new().map_err(failed)?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).map_err(failed)?);
    let (commands, receiver) = unbounded();
    let load = Arc::new(WorkerLoad::default());
    let control = ControlEnds { commands: receiver, events, waker: control };
    let worker = Worker::new(turn, shared, power, Arc::clone(&load), control, poll);
    watchdog::install().map_err(failed)?;
    let (started, ready) = bounded(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{}", turn.worker))
        .spawn(move || {
            let pinned = cpu.map_or(Ok(()), pin);
            let ready = pinned.and_then(|()| exact_timers()).and_then(|()| confine());
            let go = ready.is_ok();
            let _ = started.send(ready.map(|()| rustix::thread::gettid()));
            if go {
                worker.run();
            }
        })
        .map_err(failed)?;
    let thread_id =
        ready.recv_timeout(PATIENCE).map_err(|_| WorkerError::Silent { worker: turn.worker })?.map_err(failed)?;
    Ok((Link { commands, waker, thread: thread_id }, WorkerHandle { load, cpu, thread, seen: None }))
}

impl Links {
    /// Number of workers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn send(&self, worker: usize, command: Command) -> Result<(), WorkerError> {
        let link = self.0.get(worker).ok_or(WorkerError::Gone(worker))?;
        link.commands.send(command).map_err(|_| WorkerError::Gone(worker))?;
        link.waker.wake().map_err(|_| WorkerError::Gone(worker))
    }

    /// Gets workers that hang in a peer's doorbell out of it.
    pub(crate) fn rouse(&self) {
        self.0.iter().for_each(|link| watchdog::interrupt(link.thread));
    }

    /// Waits for an acknowledgement of `worker`. `None`: it dropped the command unanswered.
    pub(crate) fn answer<T>(&self, worker: usize, answered: &Receiver<T>) -> Result<Option<T>, WorkerError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match answered.recv_timeout(ROUSE_AFTER) {
                Ok(answer) => return Ok(Some(answer)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err(WorkerError::Silent { worker });
                }
                Err(RecvTimeoutError::Timeout) => self.rouse(),
            }
        }
    }

    /// Gives a worker a receive queue.
    pub fn add_queue(
        &self,
        worker: usize,
        port: PortId,
        queue: usize,
        rx: Box<dyn RxQueue>,
    ) -> Result<(), WorkerError> {
        self.send(worker, Command::AddQueue { port, queue, rx })
    }

    /// Takes a receive queue away from a worker; what has arrived waits in the queue.
    pub fn take_queue(&self, worker: usize, port: PortId, queue: usize) -> Result<Box<dyn RxQueue>, WorkerError> {
        let (reply, answered) = bounded(1);
        self.send(worker, Command::TakeQueue { port, queue, reply })?;
        self.answer(worker, &answered)?.ok_or(WorkerError::NoQueue { worker, queue })
    }

    /// Moves a receive queue to another worker. No frame is lost: meanwhile they wait in the queue.
    pub fn move_queue(&self, port: PortId, queue: usize, from: usize, to: usize) -> Result<(), WorkerError> {
        if to >= self.count() {
            return Err(WorkerError::Gone(to));
        }
        let rx = self.take_queue(from, port, queue)?;
        self.add_queue(to, port, queue, rx)
    }

    /// Replaces tables and outputs; on return no worker decides by, or sends to, the old ones any more.
    pub fn set_snapshot(&self, snapshot: &Snapshot) -> Result<(), WorkerError> {
        self.tell_all(|done| Command::SetSnapshot { snapshot: snapshot.clone(), done })
    }

    /// Replaces what is captured; on return no worker gives a frame to a capture that went.
    pub fn set_captures(&self, captures: &Arc<Captures>) -> Result<(), WorkerError> {
        self.tell_all(|done| Command::SetCaptures { captures: Arc::clone(captures), done })
    }

    /// Sends a command to all workers, and waits until each says that it is done.
    fn tell_all(&self, command: impl Fn(Sender<()>) -> Command) -> Result<(), WorkerError> {
        let ask = |worker| {
            let (done, answered) = bounded(1);
            self.send(worker, command(done)).map(|()| answered)
        };
        // All are asked before the first is waited for.
        let asked: Vec<_> = (0..self.count()).map(ask).collect();
        let mut outcome = Ok(());
        for (worker, asked) in asked.into_iter().enumerate() {
            let answer = asked.and_then(|answered| self.answer(worker, &answered)?.ok_or(WorkerError::Gone(worker)));
            outcome = outcome.and(answer);
        }
        outcome
    }

    /// Has the workers sleep when nothing arrives, or not.
    pub fn set_power(&self, power: Power) -> Result<(), WorkerError> {
        (0..self.count()).map(|worker| self.send(worker, Command::SetPower(power))).fold(Ok(()), Result::and)
    }
}

/// Which worker has each receive queue of a port. Written by the control thread only.
#[derive(Clone, Debug)]
pub struct Homes(Arc<[AtomicUsize]>);

impl Homes {
    /// Of a port with these workers, by queue.
    pub fn new(workers: impl IntoIterator<Item = usize>) -> Homes {
        Homes(workers.into_iter().map(AtomicUsize::new).collect())
    }

    /// Number of queues.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The worker that has `queue`.
    pub fn get(&self, queue: usize) -> Option<usize> {
        self.0.get(queue).map(|worker| worker.load(Ordering::Relaxed))
    }

    /// `queue` is now with `worker`.
    pub fn set(&self, queue: usize, worker: usize) {
        if let Some(home) = self.0.get(queue) {
            home.store(worker, Ordering::Relaxed);
        }
    }
}

/// Pins the calling thread to one CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::Error::other("no such CPU"));
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests;
