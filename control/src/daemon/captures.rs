//! Captures of frames at ports, streamed to clients of the control socket.
//!
//! **How it works.** A capture is a [`Session`] and a [`Pieces`]. The switch has the workers fill the session; the
//! control socket empties it for one client through the pieces. The session numbers the ports that it watches, as
//! pcapng interfaces, and knows them by name: a port that comes back is the same interface, a port that is added
//! becomes a further one. The watched ports are computed again with each new set of tables ([`Sessions::follow`]).
//!
//! **Ending.** The client, the count or the time ends a session by closing its queue; frames left in the queue are
//! still sent. When the client disconnects its [`Pieces`] are dropped, and the control loop takes the session from the
//! workers ([`Sessions::sweep`]).
//!
//! **Take-over.** [`handover`] says how a capture goes on in another process.
//!
//! **Limits.** At most [`MAX_CAPTURES`] captures run. The next piece, of [`PIECE_BYTES`], is made only when the client
//! has taken the one before. A client with a steady stream gets one piece every [`PACE`] rather than one a frame.

mod handover;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labsw_dataplane::capture::{self, Budget, CapturePoint, Captured, Captures};
use serde_json::Value;

use super::rewind::{self, Rewinds};
use super::selected::{PIECE_BYTES, bound, comment, now_ns, reasons, watched};
use super::view::View;
use crate::api::{self, CapturePiece, CaptureSpec, Error, Feed, Peer, Reply};
use crate::config::PortConfig;
use crate::filter;
use crate::pcapng::{self, Packet, Statistics};

/// Captures at the same time; this leaves places for other clients of the control socket.
const MAX_CAPTURES: usize = 100;
/// Frames that arrive within this time are sent in one piece.
const PACE: Duration = Duration::from_millis(5);

/// All captures.
pub(super) struct Sessions {
    list: Vec<Arc<Session>>,
    /// The number of the newest capture.
    last: u64,
    /// The frames that ports keep.
    rewinds: Rewinds,
    budget: Arc<Budget>,
    /// Wakes the control thread.
    waker: Arc<mio::Waker>,
}

impl Sessions {
    /// No captures yet.
    pub(super) fn new(waker: Arc<mio::Waker>) -> Sessions {
        Sessions { list: Vec::new(), last: 0, rewinds: Rewinds::default(), budget: Arc::default(), waker }
    }
}

impl Sessions {
    /// The names of the ports that captures watch, and of those that keep what passes.
    pub(super) fn watched(&self, view: View<'_>) -> BTreeSet<String> {
        let running = self.list.iter().filter(|session| !session.is_over());
        let captured = running.flat_map(|session| watched(&session.spec, view).into_keys());
        captured.chain(rewind::kept(view).map(|(name, _)| name)).map(str::to_owned).collect()
    }
}

/// A capture that runs.
#[derive(Debug)]
struct Session {
    number: u64,
    spec: CaptureSpec,
    pid: i32,
    started: Instant,
    queue: Arc<capture::Capture>,
    interfaces: Mutex<Vec<Interface>>,
    /// The client has disconnected.
    over: AtomicBool,
    /// Captured frames that are handed over or taken over, older than those of the queue.
    inherited: Mutex<VecDeque<Captured>>,
}

/// A port in a capture.
#[derive(Debug)]
struct Interface {
    port: String,
    /// The port's type, for readers of the file.
    description: String,
    captured: u64,
    /// Frames for which the queue had no room.
    missed: Arc<AtomicU64>,
}

impl Session {
    fn interfaces(&self) -> MutexGuard<'_, Vec<Interface>> {
        self.interfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inherited(&self) -> MutexGuard<'_, VecDeque<Captured>> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// True if frames may wait.
    fn has_news(&self) -> bool {
        self.queue.is_awake() || !self.inherited().is_empty()
    }

    /// Takes the frame that waits longest.
    fn fetch(&self) -> Option<Captured> {
        self.inherited().pop_front().or_else(|| self.queue.fetch())
    }

    /// The tap for this port, which becomes an interface of the capture if it is not one yet.
    fn point(&self, config: &PortConfig) -> CapturePoint {
        let mut interfaces = self.interfaces();
        let at = interfaces.iter().position(|interface| interface.port == config.name).unwrap_or_else(|| {
            let description = format!("labsw port, {}", config.kind.port_type().name());
            let port = config.name.clone();
            interfaces.push(Interface { port, description, captured: 0, missed: Arc::default() });
            interfaces.len() - 1
        });
        let missed = interfaces.get(at).map(|interface| Arc::clone(&interface.missed)).unwrap_or_default();
        CapturePoint::new(Arc::clone(&self.queue), u32::try_from(at).unwrap_or(u32::MAX), missed)
    }

    /// Frames captured, and frames missed.
    fn counts(&self) -> (u64, u64) {
        self.interfaces().iter().fold((0, 0), |(captured, missed), interface| {
            (captured + interface.captured, missed + interface.missed.load(Ordering::Relaxed))
        })
    }
}

impl Sessions {
    /// Begins a capture.
    pub(super) fn begin(&mut self, peer: &Peer, spec: CaptureSpec, view: View<'_>) -> Result<Box<dyn Feed>, Error> {
        self.sweep(view);
        let refused = |reason: String| Error::refused("capture", reason);
        if self.list.len() >= MAX_CAPTURES {
            return Err(refused(format!("{MAX_CAPTURES} captures run already; end one (labsw-ctl capture --list)")));
        }
        for source in spec.ports.iter().filter(|source| source.port != "*") {
            if !view.ports.get(&source.port)?.config.allow_mirror {
                return Err(Error::refused(
                    format!("port {:?}", source.port),
                    "can't be captured: its allow_mirror is false; set allow_mirror = true at the port if it may be",
                ));
            }
        }
        if let Some(last) = spec.last_milliseconds {
            return self.rewinds.begin(spec, Duration::from_millis(last), view);
        }
        let number = self.last + 1;
        let session = self.enter(number, peer, spec, Instant::now(), Vec::new(), view)?;
        tracing::info!(pid = peer.pid, "capture begun");
        Ok(Box::new(Pieces::new(session)))
    }

    /// Has the workers fill a new session, which knows these interfaces already.
    fn enter(
        &mut self,
        number: u64,
        peer: &Peer,
        spec: CaptureSpec,
        started: Instant,
        interfaces: Vec<Interface>,
        view: View<'_>,
    ) -> Result<Arc<Session>, Error> {
        let filter = spec.filter.as_deref().map(filter::compile).transpose();
        let filter = filter.map_err(|error| Error::refused("capture", format!("filter: {error}")))?;
        let Sessions { budget, waker, .. } = &*self;
        let queue = capture::Capture::new(spec.snaplen, filter, Arc::clone(budget), Arc::clone(waker));
        let session = Arc::new(Session {
            number,
            spec,
            pid: peer.pid,
            started,
            queue: Arc::new(queue),
            interfaces: Mutex::new(interfaces),
            over: AtomicBool::new(false),
            inherited: Mutex::default(),
        });
        self.list.push(Arc::clone(&session));
        if let Err(error) = self.set(view) {
            self.list.pop();
            return Err(error);
        }
        self.last = self.last.max(number);
        Ok(session)
    }

    /// Works out the captures at each port and gives them to the workers.
    fn set(&self, view: View<'_>) -> Result<(), Error> {
        let mut captures = Captures::default();
        self.rewinds.add_to(&mut captures, view);
        for session in self.list.iter().filter(|session| !session.is_over()) {
            let reasons = reasons(&session.spec);
            for (port, direction) in watched(&session.spec, view) {
                let Some(port) = view.ports.find(port) else { continue };
                let point = session.point(&port.config);
                if session.spec.drops {
                    captures.add_drops(port.id, direction, reasons, &point);
                } else {
                    captures.add(port.id, direction, &point);
                }
            }
        }
        let links = view.fabric.workers.links();
        links.set_captures(&Arc::new(captures)).map_err(|error| Error::refused("worker", error.to_string()))
    }

    /// Adapts the captures, and what ports keep, to the ports, once the workers have new tables.
    pub(super) fn follow(&mut self, view: View<'_>) -> Result<(), Error> {
        if self.list.is_empty() && self.rewinds.is_idle(view) {
            return Ok(());
        }
        self.rewinds.follow(view);
        self.set(view)
    }

    /// The memory of a port for frames that passed.
    pub(super) fn show_rewind(&self, port: &str) -> Option<api::PortRewind> {
        self.rewinds.show(port)
    }

    /// Takes captures whose client has disconnected from the workers.
    pub(super) fn sweep(&mut self, view: View<'_>) {
        let before = self.list.len();
        self.list.retain(|session| !session.is_over());
        if self.list.len() == before {
            return;
        }
        // The queues of those captures are closed, so a failure here loses nothing.
        if let Err(error) = self.set(view) {
            tracing::warn!(%error, "captures not taken out");
        }
        tracing::info!(left = self.list.len(), "capture ended");
    }

    /// The captures, as `capture --list` shows them.
    pub(super) fn show(&self) -> Vec<api::RunningCapture> {
        let shown = self.list.iter().filter(|session| !session.is_over()).map(|session| {
            let (captured, dropped) = session.counts();
            api::RunningCapture {
                ports: session.spec.ports.clone(),
                drops: session.spec.drops,
                filter: session.spec.filter.clone(),
                pid: session.pid,
                age_seconds: session.started.elapsed().as_secs(),
                captured,
                dropped,
            }
        });
        shown.collect()
    }
}

/// The pieces of a capture that one client gets.
#[derive(Debug)]
struct Pieces {
    session: Arc<Session>,
    begun: bool,
    /// Number of interfaces that were described to the client.
    described: usize,
    /// Number of frames that are still wanted.
    left: u64,
    start_ns: u64,
    end_at: Option<Instant>,
    /// The next piece is not made before this time, while frames come.
    next_at: Instant,
    finishing: bool,
    /// The last piece was given.
    done: bool,
}

impl Pieces {
    fn new(session: Arc<Session>) -> Pieces {
        let started = session.started;
        let duration = session.spec.duration_milliseconds.map(Duration::from_millis);
        Pieces {
            begun: false,
            described: 0,
            left: session.spec.count.unwrap_or(u64::MAX),
            start_ns: now_ns(),
            end_at: duration.and_then(|duration| started.checked_add(duration)),
            next_at: started,
            finishing: false,
            done: false,
            session,
        }
    }

    /// Describes the interfaces that are new.
    fn describe(&mut self, out: &mut Vec<u8>) {
        let spec = &self.session.spec;
        let interfaces = self.session.interfaces();
        for interface in interfaces.iter().skip(self.described) {
            pcapng::interface(out, &interface.port, &interface.description, spec.snaplen, spec.filter.as_deref());
        }
        self.described = interfaces.len();
    }

    /// Adds a frame.
    fn add(&mut self, out: &mut Vec<u8>, frame: &Captured) {
        let mut interfaces = self.session.interfaces();
        let Some(interface) = interfaces.get_mut(frame.interface as usize) else { return };
        interface.captured += 1;
        self.left = self.left.saturating_sub(1);
        pcapng::packet(
            out,
            &Packet {
                interface: frame.interface,
                time_ns: frame.time_ns,
                bound: bound(frame.way),
                wire_bytes: frame.wire_bytes,
                bytes: &frame.bytes,
                comment: &comment(&interface.port, frame.way, frame.dropped),
            },
        );
    }

    /// Adds the counters of all interfaces.
    fn conclude(&self, out: &mut Vec<u8>) {
        let end_ns = now_ns();
        for (number, interface) in (0..).zip(self.session.interfaces().iter()) {
            let dropped = interface.missed.load(Ordering::Relaxed);
            let received = interface.captured + dropped;
            let start_ns = self.start_ns;
            pcapng::statistics(out, &Statistics { interface: number, start_ns, end_ns, received, dropped });
        }
    }
}

impl Feed for Pieces {
    fn due(&self) -> Option<Instant> {
        let next = (self.finishing || self.session.has_news()).then_some(self.next_at);
        next.into_iter().chain(self.end_at).min().filter(|_| !self.done)
    }

    fn next(&mut self, now: Instant) -> Option<(Reply, bool)> {
        if self.end_at.is_some_and(|end| now >= end) {
            self.finish(now);
        }
        let idle = !self.session.has_news() || now < self.next_at;
        if self.done || (self.begun && !self.finishing && idle) {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        if !self.begun {
            self.begun = true;
            pcapng::section(&mut out, concat!("labswd ", env!("CARGO_PKG_VERSION")));
        }
        self.describe(&mut out);
        let mut emptied = false;
        while self.left > 0 && !emptied && out.len() < PIECE_BYTES {
            match self.session.fetch() {
                Some(frame) => self.add(&mut out, &frame),
                None => emptied = true,
            }
        }
        if self.left == 0 {
            self.finish(now);
        }
        if self.finishing && (emptied || self.left == 0) {
            self.done = true;
            self.conclude(&mut out);
        } else if emptied {
            if out.is_empty() {
                // The next frame wakes this thread.
                self.session.queue.sleep();
                return None;
            }
            self.next_at = now + PACE;
        }
        let (captured, dropped) = self.session.counts();
        let piece = CapturePiece { pcapng: STANDARD.encode(&out), captured, dropped };
        Some((Reply::CapturePiece(piece), self.done))
    }

    fn finish(&mut self, now: Instant) {
        self.session.queue.close();
        self.finishing = true;
        self.next_at = now;
    }

    fn hand_over(&self) -> Option<Value> {
        self.record()
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.session.queue.close();
        self.session.over.store(true, Ordering::Relaxed);
    }
}
