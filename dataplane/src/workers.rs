//! The running workers as the control thread holds them: started, commanded, measured, woken, ended.
//!
//! | module | holds |
//! |---|---|
//! | `links` | commands to the workers and their acknowledgements |
//! | `affinity` | which worker serves each receive queue of a port |
//! | [`load`] | how busy a worker is |
//! | [`thread`] | what a worker's thread gives up and asks for when it starts |

mod affinity;
mod links;
pub mod load;
pub mod thread;

use std::sync::Arc;

use crate::clock::now_ns;
use crate::port::Turn;
#[cfg(all(shuttle, test))]
use crate::sync::IsFinished as _;
use crate::sync::channel::{Sender, bounded, unbounded};
use crate::sync::thread::{Builder, JoinHandle};
use crate::watchdog::{self, PATIENCE, interrupt};
use crate::worker::{Command, ControlEnds, Event, Power, Shared, WAKER, Worker};

pub use affinity::QueueAffinity;
pub use links::{Held, Links, WorkerError};

use links::Link;
use load::{LoadSnapshot, Pulse, WorkerLoad};
use thread::{confine, exact_timers};

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
    /// The pulse at the last [`Workers::rouse_if_stuck`].
    seen: Option<Pulse>,
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
        let workers = Workers { links: Links::new(links), handles };
        match failed {
            None => Ok(workers),
            Some(error) => {
                workers.stop();
                Err(error)
            }
        }
    }

    /// Sends commands to the workers from elsewhere.
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
        for (handle, link) in self.handles.iter_mut().zip(self.links.iter()) {
            let now = handle.pulse();
            let seen = handle.seen.replace(now);
            if seen.is_some_and(|seen| !now.beats_since(&seen)) && !now.ended {
                interrupt(link.thread);
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

    /// True if the worker is blocked waiting for frames, or about to.
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
    let thread = Builder::new()
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
#[cfg(shuttle)]
mod models;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
