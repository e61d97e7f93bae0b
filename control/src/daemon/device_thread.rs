//! The device thread: it makes every change of the switch, and does everything that needs the host.
//!
//! **How it works.** The control thread sends [`Job`]s, which become [errands](super::errand), one after the other in
//! the order of their arrival. The outcomes come back as [`News`], each with a call of the control loop's waker. While
//! no job waits, the thread opens the ports of the configuration file, one at a time.
//!
//! **The end.** Once the control thread has hung up, the thread closes all ports and ends. [`DeviceThread::end`] waits
//! for that, but not for a port that makes no progress within [`LAST_PATIENCE`]: the kernel takes back what belongs to
//! the process, and the next run the rest, as after a kill.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};
use labsw_dataplane::port::Fault;
use labsw_switch::PortId;
use parking_lot::Mutex;

use super::errand::Errand;
use super::error::Refusal;
use super::host::Host;
use super::switch::Switch;
use crate::api::{ConfigText, Error, Reply};
use crate::confine::helper;
use crate::varlink::{Caller, DeferredCall};

/// After this long without progress a device is reported. A request to the helper process fails after five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this long without progress at the end, what is not closed is left to the next run.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(4);

/// Most jobs that wait. There are fewer clients; this bounds what clients leave behind that come and go while a device
/// hangs.
const MOST_JOBS: usize = 256;

/// Work for the device thread.
pub(super) enum Job {
    /// A client's request.
    Call(DeferredCall),
    /// The configuration file is applied.
    Reload(ConfigText),
    /// A worker found a fault at this port, which can't go on.
    Fault(PortId, Fault),
    /// Work that comes again and again.
    Regular(Regular),
    /// The program that serves metrics is started, with its listening socket and its connection.
    ServeMetrics { listener: OwnedFd, connection: OwnedFd },
}

/// Work that comes again and again. A kind is not due again before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Regular {
    /// Devices are looked at, and opened if they have come.
    Devices,
    /// Ports go down and up.
    Flaps,
    /// A configuration that nobody has confirmed is taken back.
    Trial,
    /// The work of once a second.
    Second,
    /// Gates of the kernel fast path settle.
    Gates,
}

/// News for the control thread.
pub(super) enum News {
    /// The answer to a client's request.
    Answer(Caller, Result<Reply, Error>),
    /// The outcome of a reload.
    Reloaded(Result<(), Error>),
    /// Regular work is done.
    Did(Regular),
    /// Other work is done.
    Done,
    /// A port of the configuration file was tried.
    Tried,
    /// All ports of the configuration file have been tried.
    Opened,
    /// The switch can't start.
    Refused(Refusal),
}

/// The device thread, as the control thread sees it.
pub(super) struct DeviceThread {
    thread: JoinHandle<()>,
    jobs: Sender<Job>,
    news: Receiver<News>,
    /// The number of jobs that are not done; the opening of the file's ports is one.
    under_way: usize,
    /// The regular work that is not done.
    regular: BTreeSet<Regular>,
    /// When the thread last got work or told something.
    heard_at: Instant,
    /// Its silence since then was reported.
    warned: bool,
}

impl DeviceThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of making a thread.
    pub(super) fn start(switch: Arc<Mutex<Switch>>, host: Host, waker: Arc<mio::Waker>) -> io::Result<DeviceThread> {
        let ((jobs, queue), (sender, news)) = (unbounded(), unbounded());
        let told = Told { sender, waker };
        #[cfg(test)]
        let world = super::attach::fake::shared();
        let serve = move || {
            #[cfg(test)]
            super::attach::fake::join(world);
            serve(&switch, host, &queue, &told);
        };
        let thread = std::thread::Builder::new().name("devices".to_owned()).spawn(serve)?;
        Ok(DeviceThread {
            thread,
            jobs,
            news,
            under_way: 1,
            regular: BTreeSet::new(),
            heard_at: Instant::now(),
            warned: false,
        })
    }

    /// Has a job done.
    pub(super) fn send(&mut self, job: Job) {
        if self.is_idle() {
            self.heard();
        }
        if self.jobs.send(job).is_ok() {
            self.under_way += 1;
        }
    }

    /// True if another client's request may wait.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < MOST_JOBS
    }

    /// Has regular work done, unless it is under way.
    pub(super) fn want(&mut self, work: Regular) {
        if self.regular.insert(work) {
            self.send(Job::Regular(work));
        }
    }

    /// True if this regular work is under way, so that its end is the next event.
    pub(super) fn does(&self, work: Regular) -> bool {
        self.regular.contains(&work)
    }

    /// True if nothing is under way. Only a job ends that.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    fn heard(&mut self) {
        (self.heard_at, self.warned) = (Instant::now(), false);
    }

    /// Logs, once, that the thread has been at one piece of work for long.
    pub(super) fn report_silence(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.heard_at);
        if !self.is_idle() && silence >= PATIENCE && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(seconds = silence.as_secs(), "a device keeps changes of the switch waiting");
        }
    }

    /// The next piece of news.
    pub(super) fn next(&mut self) -> Option<News> {
        let news = self.news.try_recv().ok()?;
        self.heard();
        match &news {
            News::Tried => return Some(news),
            News::Did(work) => drop(self.regular.remove(work)),
            News::Answer(..) | News::Reloaded(_) | News::Done | News::Opened | News::Refused(_) => {}
        }
        self.under_way = self.under_way.saturating_sub(1);
        Some(news)
    }

    /// Has all ports closed, and returns when that is done, or makes no progress within `patience`.
    pub(super) fn end(self, patience: Duration) {
        let DeviceThread { thread, jobs, news, .. } = self;
        drop(jobs);
        loop {
            match news.recv_timeout(patience) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The thread has nothing more to do. A panic was reported by its hook.
                    let _ = thread.join();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = patience.as_secs();
                    return tracing::error!(seconds, "a port is not closed; the next run puts back what is left");
                }
            }
        }
    }
}

/// The way back to the control thread.
struct Told {
    sender: Sender<News>,
    waker: Arc<mio::Waker>,
}

impl Told {
    fn tell(&self, news: News) {
        // Without a receiver the switch ends.
        let _ = self.sender.send(news);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the control thread can't be woken");
        }
    }
}

/// The thread.
fn serve(switch: &Mutex<Switch>, mut host: Host, queue: &Receiver<Job>, told: &Told) {
    let mut opening = true;
    loop {
        let job = match queue.try_recv() {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) if opening => {
                opening = open_next(Errand::begin(switch, &mut host), told);
                continue;
            }
            Err(TryRecvError::Empty) => match queue.recv() {
                Ok(job) => job,
                Err(_) => break,
            },
        };
        let mut errand = Errand::begin(switch, &mut host);
        if !errand.ending {
            let news = errand.carry_out(job);
            drop(errand);
            told.tell(news);
        }
    }
    Errand::begin(switch, &mut host).close_all(|| told.tell(News::Done));
}

/// Opens a port of the configuration file; true if others are left.
fn open_next(mut errand: Errand<'_>, told: &Told) -> bool {
    match errand.open_next() {
        Ok(()) if !errand.opening.is_over() => told.tell(News::Tried),
        Ok(()) => {
            errand.away(|host| host.ledger.put_back_inherited(&mut host.links));
            told.tell(News::Opened);
            return false;
        }
        Err(refusal) => {
            told.tell(News::Refused(refusal));
            return false;
        }
    }
    true
}

impl Errand<'_> {
    fn carry_out(&mut self, job: Job) -> News {
        match job {
            Job::Call(DeferredCall { caller, peer, request }) => News::Answer(caller, self.answer(&peer, request)),
            Job::Reload(wanted) => {
                self.changing = true;
                let applied = self.apply_config(&wanted, false);
                self.changing = false;
                self.notice_changes();
                self.settle_gates();
                News::Reloaded(applied.map(drop))
            }
            Job::Fault(id, fault) => {
                self.lose_to(id, &fault);
                News::Done
            }
            Job::Regular(work) => {
                match work {
                    Regular::Devices => self.look_after_devices(Instant::now()),
                    Regular::Flaps => self.flap(Instant::now()),
                    Regular::Trial => self.tick_trial(Instant::now()),
                    Regular::Second => self.look_once_a_second(),
                    Regular::Gates => self.settle_gates(),
                }
                News::Did(work)
            }
            Job::ServeMetrics { listener, connection } => {
                // Without a program the connection is closed, which the control thread sees.
                if let Err(error) = self.away(|_| helper::serve_metrics(listener.as_fd(), connection.as_fd())) {
                    tracing::warn!(%error, "the metrics are not served");
                }
                News::Done
            }
        }
    }
}

#[cfg(test)]
mod tests;
