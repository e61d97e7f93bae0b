//! The socket of a vhost-user port, driven by the control thread's event loop.
//!
//! **How it works.** As a server the endpoint owns a listening socket and serves one front end at a time; others are
//! turned away (`endpoint/door.rs`). As a client it connects, and tries again twice a second for ever. What is said on
//! the connection is in `endpoint/connection.rs`.
//! [`Endpoint::ready`] is called for each event of its two tokens, [`Endpoint::tick`] when the time it returned has
//! passed. Requests go to the [`Session`]; whatever ends a connection resets all rings before the next one is served.
//!
//! **Faults.** A front end that breaks the protocol or its rings is disconnected, and the next one is served after a
//! wait that doubles with each fault. A front end that just leaves is no fault.
//!
//! **Invariants.**
//! - Nothing here blocks except the operations of [`Rings`], which are as long as a burst. Descriptors of front ends
//!   and their connections are closed by the [reaper](crate::reaper).
//! - Who connected while a front end was being served is never served after it: all who are in the backlog when its
//!   connection ends are turned away. Among them may be the same guest restarted, which has to try again; QEMU does
//!   so at once. A front end that never sent a request was not served, and whoever comes behind it is not turned away.
//! - Readiness is edge-triggered: a turn ends when the socket has nothing more, or after 64 requests, and
//!   then says that there is more, so that no front end starves the others.
//! - A socket file is removed only if it is ours, or a dead run's: nobody listens on it.
//!
//! Reference: vhost-user.rst, "Communication"; unix(7).

mod changes;
mod connection;
mod door;
mod handover;
mod settings;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::features::feature_names;
use super::operation::Rings;
use super::session::Session;
use crate::port::{Fault, next_connection};
use crate::sys::socket::{self, Credentials, SocketFile};
use changes::Changes;
use connection::{Connection, Served, Silence};
use door::{Door, REFUSAL_PAUSE, REFUSALS_PER_TURN};

pub use handover::EndpointHandover;
pub use settings::{EndpointConfig, EndpointError, EndpointState, EndpointStatus, Role, Timing};

/// Why a front end that talks has no traffic.
const NO_MEMORY: &str = "connected, but no memory table yet: either the guest's network driver has not started, or its \
                         memory is not shared (QEMU: memory-backend-memfd with share=on)";
/// The reason why a front end that logs has no traffic.
const NO_LOG: &str = "the front end has pages logged (VHOST_F_LOG_ALL), but has not shared its log yet (SET_LOG_BASE)";
/// Front ends that may wait to be accepted.
const BACKLOG: i32 = 16;
/// Requests served in one go.
const REQUESTS_PER_TURN: usize = 64;

/// The event loop's registry and our two tokens in it.
#[derive(Debug)]
struct Registration {
    registry: Registry,
    connection_token: Token,
    listener_token: Token,
}

/// The socket side of one port.
pub struct Endpoint {
    config: EndpointConfig,
    rings: Box<dyn Rings + Send>,
    session: Session,
    listener: Option<SocketFile>,
    connection: Option<Connection>,
    /// The number of the last connection; 0: there was none.
    number: u64,
    /// The last connection that ended had sent a request.
    served: bool,
    registration: Option<Registration>,
    next_attempt: Option<Instant>,
    door: Door,
    /// The number of the last connection that ended with a fault.
    failed_number: u64,
    failed: bool,
    reason: Option<String>,
    /// The rings that ran in the process that the endpoint was taken over from, until it resumes.
    adopted: Option<Vec<u16>>,
    changes: Changes,
    /// The guest is to be interrupted when the endpoint resumes.
    interrupts: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("config", &self.config).field("session", &self.session).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Opens the listening socket (server); a client connects at the first [`Endpoint::tick`].
    pub fn open(config: EndpointConfig, rings: Box<dyn Rings + Send>) -> Result<Endpoint, EndpointError> {
        let listener = match config.role {
            Role::Server => Some(
                SocketFile::listen(&config.path, config.access, BACKLOG)
                    .map_err(|source| EndpointError { port: config.port_name.clone(), source })?,
            ),
            Role::Client => None,
        };
        let session =
            Session::new(config.queue_pairs, config.mtu, config.offloads).within(Arc::clone(&config.memory_limit));
        let door = Door::new(&config);
        Ok(Endpoint {
            config,
            rings,
            session,
            listener,
            connection: None,
            number: 0,
            served: false,
            registration: None,
            next_attempt: None,
            door,
            failed_number: 0,
            failed: false,
            reason: None,
            adopted: None,
            changes: Changes::default(),
            interrupts: false,
        })
    }

    /// Ties the endpoint to an event loop; once.
    pub fn register(&mut self, registry: &Registry, listener_token: Token, connection_token: Token) -> io::Result<()> {
        let registration = Registration { registry: registry.try_clone()?, connection_token, listener_token };
        if let Some(listener) = &self.listener {
            let fd = listener.socket().as_raw_fd();
            registration.registry.register(&mut SourceFd(&fd), registration.listener_token, Interest::READABLE)?;
        }
        if let Some(connection) = &self.connection {
            let fd = connection.socket.as_raw_fd();
            registration.registry.register(&mut SourceFd(&fd), connection_token, Interest::READABLE)?;
        }
        self.registration = Some(registration);
        Ok(())
    }

    /// Handles an event of one of the two tokens.
    pub fn ready(&mut self, token: Token, now: Instant) {
        if self.registration.as_ref().is_some_and(|registration| token == registration.connection_token) {
            self.serve(now);
        } else {
            self.next_attempt = self.next_attempt.or(Some(now));
        }
        self.accept(now);
    }

    /// Does the timed work at `now` and returns the time until the next call; `None`: not before the next event.
    pub fn tick(&mut self, now: Instant) -> Option<Duration> {
        if self.connection.as_ref().is_some_and(|connection| connection.more) {
            self.serve(now);
        }
        self.check_patience(now);
        self.accept(now);
        self.connect(now);
        let deadline = match &self.connection {
            Some(connection) if connection.more => Some(now),
            Some(connection) => connection.deadline(&self.config.timing),
            None => None,
        };
        let due = [deadline, self.next_attempt, self.door.report_withheld(now)].into_iter().flatten().min();
        due.map(|due| due.saturating_duration_since(now))
    }

    /// A worker found the port broken: the front end is disconnected, and the next one served after a wait. A fault of
    /// an earlier front end came too late: it is not this one's. Returns whether there was something to do.
    pub fn fault(&mut self, fault: &Fault, now: Instant) -> bool {
        if fault.connection != self.number {
            return false;
        }
        self.disconnect(Some(fault.reason.clone()), now);
        self.note_fault(fault.reason.clone(), now);
        true
    }

    /// Serves the next front end at once, whatever faults there were.
    pub fn forgive(&mut self, now: Instant) {
        self.door.forgive();
        self.next_attempt = Some(now);
        self.accept(now);
    }

    /// Gives the port another MTU in bytes, with which the front end's MTU is compared.
    pub fn set_mtu(&mut self, mtu: u32) {
        self.config.mtu = mtu;
        self.session.set_mtu(mtu);
    }

    /// The state of the port.
    pub fn status(&self) -> EndpointStatus {
        let state = if self.session.is_up() {
            EndpointState::Up
        } else if self.failed {
            EndpointState::Failed
        } else {
            EndpointState::Waiting
        };
        let unshared =
            self.connection.as_ref().is_some_and(|connection| connection.explained) && !self.session.has_memory();
        let reason = match state {
            EndpointState::Up => None,
            _ if self.session.waits_for_log() => Some(NO_LOG.to_owned()),
            _ if unshared => self.session.mtu_refused().or_else(|| Some(NO_MEMORY.to_owned())),
            _ => self.session.mtu_refused().or_else(|| self.reason.clone()),
        };
        EndpointStatus {
            state,
            connected: self.connection.is_some(),
            front_end: self.connection.as_ref().and_then(|connection| connection.who),
            turned_away: self.door.turned_away,
            waits: self.door.waits(Instant::now()),
            reason,
            features_offered: feature_names(self.session.offered()),
            features_acknowledged: feature_names(self.session.acknowledged()),
            memory_regions: self.session.memory_regions(),
            rings: self.session.ring_status(),
        }
    }

    /// The socket's path.
    pub fn path(&self) -> &std::path::Path {
        &self.config.path
    }

    /// Disconnects the front end, while its rings can still be reset.
    pub fn hang_up(&mut self) {
        self.disconnect(None, Instant::now());
    }

    /// Disconnects the front end, stops listening, and removes the socket file. Dropping the endpoint does the same.
    pub fn close(self) {}

    /// Accepts connections from the backlog, if it is time to: the first is served if the port is free, others are
    /// refused.
    fn accept(&mut self, now: Instant) {
        if self.config.role == Role::Client || self.next_attempt.is_none_or(|at| now < at) {
            return;
        }
        self.next_attempt = None;
        let turned_away = self.door.turned_away;
        for _ in 0..REFUSALS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            if let Some(until) = self.door.shut_until(now) {
                self.next_attempt = Some(until);
                return;
            }
            match accept_with(listener.socket(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(socket, now),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => {
                    self.door.more_to_refuse = false;
                    return;
                }
                // The process is out of descriptors, most likely: no new event will come for connections that wait
                // already.
                Err(error) => {
                    self.reason = Some(format!("cannot accept a connection: {error}"));
                    self.next_attempt = Some(now + self.config.timing.retry);
                    return;
                }
            }
        }
        // Connections that follow front ends that have left already wait behind none.
        self.door.more_to_refuse = self.door.turned_away > turned_away;
        self.next_attempt = Some(now + REFUSAL_PAUSE);
    }

    /// Serves the front end at `socket` if the port is free.
    fn admit(&mut self, socket: OwnedFd, now: Instant) {
        if let Some(owner) = &self.connection
            && door::has_left(owner.socket.as_fd())
        {
            let who = owner.who;
            // Its last words may be a fault.
            self.serve(now);
            self.disconnect(None, now);
            if self.served {
                // The order is unknown: the owner may have left before this one came, or after.
                return self.door.refuse(socket, who, now);
            }
        }
        match &mut self.connection {
            Some(owner) => {
                owner.contested = true;
                self.door.refuse(socket, owner.who, now);
            }
            None if self.door.shut_until(now).is_some() => self.door.refuse(socket, None, now),
            None => self.adopt(socket, now),
        }
    }

    /// Refuses the connections that came while `owner` had the port and were not refused yet.
    fn refuse_backlog(&mut self, owner: Option<Credentials>, now: Instant) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..=BACKLOG {
            match accept_with(listener.socket(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.door.refuse(socket, owner, now),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => break,
            }
        }
        self.door.more_to_refuse = false;
    }

    /// Connects, as a client, when it is time to.
    fn connect(&mut self, now: Instant) {
        let waiting = self.next_attempt.is_some_and(|at| now < at);
        if self.config.role == Role::Server || self.connection.is_some() || waiting {
            return;
        }
        if let Some(until) = self.door.shut_until(now) {
            self.next_attempt = Some(until);
            return;
        }
        match socket::connect(&self.config.path) {
            Ok(socket) => self.adopt(socket, now),
            Err(error) => {
                self.reason = Some(format!("cannot connect to {}: {error}", self.config.path.display()));
                self.next_attempt = Some(now + self.config.timing.retry);
            }
        }
    }

    /// Begins a session with the front end at `socket`.
    fn adopt(&mut self, socket: OwnedFd, now: Instant) {
        let socket = self.door.own(socket);
        let who = socket::credentials(socket.as_fd()).ok();
        if let Err(reason) = self.door.admits(who, now) {
            door::hang_up(socket);
            self.reason = Some(reason);
            if self.config.role == Role::Client {
                self.next_attempt = Some(now + self.config.timing.retry);
            }
            return;
        }
        if let Some(Registration { registry, connection_token, .. }) = &self.registration
            && let Err(error) =
                registry.register(&mut SourceFd(&socket.as_raw_fd()), *connection_token, Interest::READABLE)
        {
            self.reason = Some(format!("cannot watch the connection: {error}"));
            self.next_attempt = Some(now + self.config.timing.retry);
            return;
        }
        self.door.info(now, "front end connected", who);
        (self.failed, self.reason, self.next_attempt) = (false, None, None);
        self.changes.note();
        self.number = next_connection();
        self.session.begin(self.number);
        self.connection = Some(Connection::new(socket, who, now));
    }

    /// Serves requests until the socket is empty or the turn is over.
    fn serve(&mut self, now: Instant) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(connection) = &mut self.connection else { return };
            match connection.serve_next(&mut self.session, self.rings.as_mut(), &mut self.door, &mut self.changes, now)
            {
                Served::One => {}
                Served::Pending => return,
                Served::Over(fault) => return self.disconnect(fault, now),
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.more = true;
        }
    }

    /// Disconnects a front end that does not go on.
    fn check_patience(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        match connection.silence(&self.config.timing, now) {
            Some(Silence::Contested) => {
                let seconds = self.config.timing.contested.as_secs_f32();
                let why = format!("turned out a front end that sent nothing for {seconds} s: another one came");
                self.door.warn(now, &why);
                self.disconnect(None, now);
            }
            Some(Silence::Fault(reason)) => self.disconnect(Some(reason), now),
            None => {}
        }
    }

    /// Ends the connection: rings first, so that nothing of it is in use when the next front end is served.
    fn disconnect(&mut self, reason: Option<String>, now: Instant) {
        let Some(connection) = self.connection.take() else { return };
        self.changes.note();
        if let Some(Registration { registry, .. }) = &self.registration {
            // Closing the socket ends the registration, too, unless the front end kept a copy of our end.
            let _ = registry.deregister(&mut SourceFd(&connection.socket.as_raw_fd()));
        }
        // Connections that waited behind this front end have no claim to its place.
        self.served = connection.heard.is_some();
        if self.served || reason.is_some() || self.door.more_to_refuse {
            self.refuse_backlog(connection.who, now);
        }
        let who = connection.who;
        door::hang_up(connection.socket);
        if let Err(error) = self.session.reset(self.rings.as_mut()) {
            tracing::warn!(port = self.config.port_name, %error, "rings not reset");
        }
        (self.failed, self.reason) = (false, None);
        self.next_attempt = Some(match self.config.role {
            Role::Server => now,
            Role::Client => now + self.config.timing.retry,
        });
        match reason {
            Some(reason) => {
                self.door.warn(now, &format!("front end disconnected for a fault: {reason}"));
                self.note_fault(reason, now);
            }
            None => self.door.info(now, "front end disconnected", who),
        }
    }

    /// Keeps why the last front end was disconnected, and has the next one wait.
    fn note_fault(&mut self, reason: String, now: Instant) {
        (self.failed, self.reason) = (true, Some(reason));
        if self.failed_number != self.number {
            self.failed_number = self.number;
            self.door.failed(now);
            self.next_attempt = self.door.shut_until(now).max(self.next_attempt);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let (Some(Registration { registry, .. }), Some(listener)) = (&self.registration, &self.listener) {
            // The socket is closed right after; this only tidies the event loop's own books.
            let _ = registry.deregister(&mut SourceFd(&listener.socket().as_raw_fd()));
        }
        // An adopted connection that did not resume belongs to another process.
        if self.adopted.is_none() {
            self.disconnect(None, Instant::now());
        }
    }
}
