//! How commands reach the workers, and how their acknowledgements come back.
//!
//! A command is carried out between two turns: within microseconds when the worker polls, after one wake-up when it
//! sleeps. The calls that wait give up after [`PATIENCE`] rather than hang the control thread. While a call waits, all
//! workers are woken ([`crate::watchdog`]): the worker that does not answer may wait for the lock of a transmit ring
//! whose holder hangs in a guest's doorbell.

use std::sync::Arc;
use std::time::Instant;

use labsw_switch::PortId;
use rustix::thread::Pid;

use crate::capture::Captures;
use crate::inline::Sensor;
use crate::port::RxQueue;
use crate::sync::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crate::watchdog::{PATIENCE, ROUSE_AFTER, interrupt};
use crate::worker::{Command, Power, Snapshot};

/// Why a worker can't be started or commanded.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The thread, its poll set or its pinning failed.
    #[error("worker on {cpu}: {source}")]
    Start {
        /// "CPU n" or "any CPU".
        cpu: String,
        /// The system's error.
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
    /// The worker does not have the queue.
    #[error("worker {worker} does not have queue {queue} of this port")]
    NoQueue {
        /// The worker.
        worker: usize,
        /// The queue.
        queue: usize,
    },
}

/// A way to send commands to the workers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Links(Arc<[Link]>);

/// The workers stand still while this lives.
#[derive(Debug)]
pub struct Held {
    _go_on: Sender<()>,
}

/// The way to one worker.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<mio::Waker>,
    pub(super) thread: Pid,
}

impl Links {
    pub(super) fn new(links: Vec<Link>) -> Links {
        Links(links.into())
    }

    /// The ways to the workers, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn send(&self, worker: usize, command: Command) -> Result<(), WorkerError> {
        let link = self.0.get(worker).ok_or(WorkerError::Gone(worker))?;
        link.commands.send(command).map_err(|_| WorkerError::Gone(worker))?;
        link.waker.wake().map_err(|_| WorkerError::Gone(worker))
    }

    /// Has all workers look whether something is due. A worker that has ended is left out.
    pub fn wake(&self) {
        self.0.iter().for_each(|link| drop(link.waker.wake()));
    }

    /// Gets workers that hang in a peer's doorbell out of it.
    pub(crate) fn rouse(&self) {
        self.0.iter().for_each(|link| interrupt(link.thread));
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

    /// Takes a receive queue away from a worker; frames that have arrived wait in the queue.
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

    /// Replaces the captures; on return no worker gives frames to a capture that was removed.
    pub fn set_captures(&self, captures: &Arc<Captures>) -> Result<(), WorkerError> {
        self.tell_all(|done| Command::SetCaptures { captures: Arc::clone(captures), done })
    }

    /// Replaces the sensors to look after; on return no probe is sent for one that was removed.
    pub fn set_sensors(&self, sensors: &Arc<[Arc<Sensor>]>) -> Result<(), WorkerError> {
        self.tell_all(|done| Command::SetSensors { sensors: Arc::clone(sensors), done })
    }

    /// Pauses all workers between two bursts, until the returned value is dropped.
    ///
    /// # Errors
    /// A worker does not answer; all workers then go on.
    pub fn hold(&self) -> Result<Held, WorkerError> {
        let (on, go_on) = bounded(0);
        self.tell_all(|held| Command::Hold { held, go_on: go_on.clone() })?;
        Ok(Held { _go_on: on })
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
