//! The control thread's end of a worker: spawn it, command it, wait for its acknowledgements.
//!
//! A command is carried out between two turns, within microseconds when the worker polls and after one
//! wake-up when it sleeps; the calls that wait give up after [`PATIENCE`] rather than hang the control thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use labsw_switch::PortId;
use labsw_switch::tables::Tables;
use rustix::thread::Pid;

use crate::load::{LoadSnapshot, WorkerLoad};
use crate::port::PortDriver;
use crate::stats::PortStats;
use crate::thread::exact_timers;
use crate::vhost::{Rings, RingsError, VhostOp, VhostReply};
use crate::watchdog;
use crate::worker::{Command, ControlEnds, Event, Power, Shared, WAKER, Worker};
use crate::xdp::FramePool;

/// How long an acknowledgement is waited for. A worker that needs longer is starved of its CPU.
const PATIENCE: Duration = Duration::from_secs(5);
/// A worker that has not answered for this long may hang in a peer's doorbell, and is roused while we wait: the control
/// thread's once-a-second look can't do it meanwhile.
const ROUSE_AFTER: Duration = Duration::from_millis(500);

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
    #[error("the worker has ended")]
    Gone,
    /// No acknowledgement within the patience.
    #[error("the worker did not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// One running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    link: WorkerLink,
    load: Arc<WorkerLoad>,
    cpu: Option<usize>,
    thread: JoinHandle<()>,
    /// The load at the last [`WorkerHandle::rouse_if_stuck`].
    seen: Option<LoadSnapshot>,
}

/// A way to send commands to a worker; cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    commands: Sender<Command>,
    waker: Arc<mio::Waker>,
    /// The worker's thread.
    id: Pid,
}

impl WorkerHandle {
    /// Starts a worker, pinned to `cpu` if given. `events` and `control` are how it reports faults.
    pub fn spawn(
        cpu: Option<usize>,
        power: Power,
        shared: Shared,
        tables: Arc<Tables>,
        events: Sender<Event>,
        control: Arc<mio::Waker>,
    ) -> Result<WorkerHandle, WorkerError> {
        let failed = |source| WorkerError::Start {
            cpu: cpu.map_or_else(|| "any CPU".to_owned(), |cpu| format!("CPU {cpu}")),
            source,
        };
        let poll = mio::Poll::new().map_err(failed)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).map_err(failed)?);
        let (commands, receiver) = unbounded();
        let load = Arc::new(WorkerLoad::default());
        let control = ControlEnds { commands: receiver, events, waker: control };
        let worker = Worker::new(shared, tables, power, Arc::clone(&load), control, poll);
        watchdog::install().map_err(failed)?;
        let (started, ready) = bounded(1);
        let thread = std::thread::Builder::new()
            .name(cpu.map_or_else(|| "worker".to_owned(), |cpu| format!("worker-{cpu}")))
            .spawn(move || {
                let pinned = cpu.map_or(Ok(()), pin);
                let ready = pinned.and_then(|()| exact_timers());
                let go = ready.is_ok();
                let _ = started.send(ready.map(|()| rustix::thread::gettid()));
                if go {
                    worker.run();
                }
            })
            .map_err(failed)?;
        let id = ready.recv_timeout(PATIENCE).map_err(|_| WorkerError::Silent)?.map_err(failed)?;
        Ok(WorkerHandle { link: WorkerLink { commands, waker, id }, load, cpu, thread, seen: None })
    }

    /// A way to command it from elsewhere.
    pub fn link(&self) -> WorkerLink {
        self.link.clone()
    }

    /// The CPU it is pinned to.
    pub fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Its load since it started.
    pub fn load(&self) -> LoadSnapshot {
        self.load.snapshot()
    }

    /// Gets it out of a system call that a peer made block, if it has not moved since the last call. Called once a second.
    pub fn rouse_if_stuck(&mut self) {
        let now = self.load();
        let seen = self.seen.replace(now);
        if seen.is_some_and(|seen| now.same_turn(&seen)) && !self.load.asleep() {
            watchdog::interrupt(self.link.id);
        }
    }

    /// Ends it and waits for its thread; drivers still in it are dropped.
    pub fn stop(self) {
        if self.link.send(Command::Stop).is_ok() {
            let _ = self.thread.join();
        }
    }
}

impl WorkerLink {
    fn send(&self, command: Command) -> Result<(), WorkerError> {
        self.commands.send(command).map_err(|_| WorkerError::Gone)?;
        self.waker.wake().map_err(|_| WorkerError::Gone)
    }

    /// Waits for an acknowledgement; a worker that hangs in a peer's doorbell is got out of it.
    fn answer<T>(&self, answered: &Receiver<T>) -> Result<T, WorkerError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match answered.recv_timeout(ROUSE_AFTER) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(WorkerError::Gone),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => return Err(WorkerError::Silent),
                Err(RecvTimeoutError::Timeout) => watchdog::interrupt(self.id),
            }
        }
    }

    /// Puts the packet memory of the AF_XDP ports in place.
    pub fn install_pool(&self, pool: FramePool) -> Result<(), WorkerError> {
        self.send(Command::InstallPool(pool))
    }

    /// Takes a port into service.
    pub fn add_port(&self, id: PortId, driver: Box<dyn PortDriver>, stats: Arc<PortStats>) -> Result<(), WorkerError> {
        self.send(Command::AddPort { id, driver, stats })
    }

    /// Takes a port out of service, closes its driver on this thread, and gives what it held back to the pool.
    pub fn remove_port(&self, id: PortId) -> Result<(), WorkerError> {
        let (reply, answered) = bounded(1);
        self.send(Command::RemovePort { id, reply })?;
        drop(self.answer(&answered)?);
        self.reclaim(id)
    }

    /// Gives the chunks that a closed port still held back to the pool.
    pub fn reclaim(&self, id: PortId) -> Result<(), WorkerError> {
        self.send(Command::Reclaim(id))
    }

    /// Replaces the tables; on return no frame is decided by the old ones any more.
    pub fn set_tables(&self, tables: Arc<Tables>) -> Result<(), WorkerError> {
        let (done, answered) = bounded(1);
        self.send(Command::SetTables { tables, done })?;
        self.answer(&answered)
    }

    /// Changes the rings of a vhost-user port.
    pub fn vhost(&self, id: PortId, op: VhostOp) -> Result<VhostReply, WorkerError> {
        let (reply, answered) = bounded(1);
        self.send(Command::Vhost { id, op, reply })?;
        self.answer(&answered)
    }

    /// The rings of one vhost-user port, as its session sees them.
    pub fn rings(&self, id: PortId) -> WorkerRings {
        WorkerRings { link: self.clone(), id }
    }
}

/// The rings of a vhost-user port that lives in a worker.
#[derive(Debug)]
pub struct WorkerRings {
    link: WorkerLink,
    id: PortId,
}

impl Rings for WorkerRings {
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError> {
        self.link.vhost(self.id, op).map_err(|error| RingsError { reason: error.to_string() })
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
mod tests {
    use std::os::fd::{OwnedFd, RawFd};

    use labsw_switch::MAX_MIRRORS;
    use labsw_switch::fdb::Fdb;
    use labsw_switch::forward::TxItem;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::frame::Burst;
    use crate::port::{Fault, Resources};
    use crate::stats::{MirrorStats, PortDelta};

    /// A port whose peer made its doorbell block for ever.
    #[derive(Debug)]
    struct Stuck(OwnedFd);

    impl PortDriver for Stuck {
        fn rx_queues(&self) -> usize {
            1
        }

        fn receive(&mut self, _: usize, _: &mut Burst, _: &mut Resources, _: &mut PortDelta) -> Result<(), Fault> {
            rustix::io::write(&self.0, &1u64.to_ne_bytes()).map(drop).map_err(|errno| Fault::new(errno.to_string()))
        }

        fn release(&mut self, _: usize, _: &mut Burst, _: &mut Resources) -> Result<(), Fault> {
            Ok(())
        }

        fn send(
            &mut self,
            _: &mut Burst,
            _: &[TxItem],
            _: u64,
            _: &mut Resources,
            _: &mut PortDelta,
        ) -> Result<u64, Fault> {
            Ok(0)
        }

        fn arm(&mut self) -> bool {
            false
        }

        fn disarm(&mut self) {}

        fn wait_fds(&self) -> Vec<RawFd> {
            Vec::new()
        }
    }

    #[test]
    fn waiting_for_a_stuck_worker_gets_it_out() {
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let shared = Shared {
            fdb: Arc::new(Fdb::new(16, 300, 1)),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::default()).collect(),
            epoch: Instant::now(),
        };
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
        let (events, told) = unbounded();
        let tables = Arc::new(Tables::empty());
        let worker = WorkerHandle::spawn(None, Power::Adaptive, shared, Arc::clone(&tables), events, waker).unwrap();
        worker.link().add_port(PortId(0), Box::new(Stuck(full)), Arc::default()).unwrap();
        // Until the worker hangs in it.
        std::thread::sleep(Duration::from_millis(100));
        let begin = Instant::now();
        worker.link().set_tables(tables).unwrap();
        assert!(begin.elapsed() < PATIENCE);
        let Event::PortFault { id, .. } = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(id, PortId(0));
        worker.stop();
    }
}
