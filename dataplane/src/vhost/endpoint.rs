//! The socket of a vhost-user port, driven by the control thread's event loop.
//!
//! **How it works.** As a server the endpoint owns a listening socket and serves one front end at a time; further ones
//! wait in the backlog. As a client it connects, and tries again twice a second for ever. [`Endpoint::ready`] is called for
//! each event of its two tokens, [`Endpoint::tick`] when the time it returned has passed. Requests go to the
//! [`Session`]; whatever ends a connection resets all rings before the next one is served.
//!
//! **Invariants.**
//! - Nothing here blocks except the operations of [`Rings`], which are as long as a burst.
//! - Readiness is edge-triggered: a turn ends when the socket has nothing more, or after 64 requests, and
//!   then says that there is more, so that no front end starves the others.
//! - A socket file is removed only if it is ours, or a dead run's: nobody listens on it.
//!
//! Reference: vhost-user.rst, "Communication"; unix(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use vhost::vhost_user::message::FrontendReq;

use super::features::feature_names;
use super::message::{self, Inbox, Received, Reply};
use super::operation::Rings;
use super::session::{RingStatus, Session};
use crate::port::{Fault, next_connection};
use crate::socket::{self, SocketError, SocketFile};

/// Why a front end that talks has no traffic.
const NO_MEMORY: &str = "connected, but no memory table yet: either the guest's network driver has not started, or its \
                         memory is not shared (QEMU: memory-backend-memfd with share=on)";
/// Front ends that may wait for the current one to leave.
const BACKLOG: i32 = 16;
/// The request whose refusal does not end the connection.
const NET_SET_MTU: u32 = FrontendReq::NET_SET_MTU as u32;
/// Requests served in one go.
const REQUESTS_PER_TURN: usize = 64;

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The switch listens, front ends connect.
    Server,
    /// The front end listens, the switch connects.
    Client,
}

/// How long the endpoint waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For a front end's first request, for the rest of a request, and before missing memory is explained.
    pub patience: Duration,
    /// Between two attempts to connect.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { patience: Duration::from_secs(5), retry: Duration::from_millis(500) }
    }
}

/// What an endpoint is made from.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The port, for messages.
    pub port_name: String,
    /// The socket.
    pub path: PathBuf,
    /// Who listens on it.
    pub role: Role,
    /// Permission bits of a socket of ours.
    pub mode: u32,
    /// Group of a socket of ours; `None`: unchanged.
    pub group: Option<u32>,
    /// Queue pairs of the port.
    pub queue_pairs: u16,
    /// Checksum and segmentation offloads are offered.
    pub offloads: bool,
    /// MTU of the port, bytes.
    pub mtu: u32,
    /// How long to wait for what.
    pub timing: Timing,
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("port {port}: {source}")]
pub struct EndpointError {
    /// The port.
    pub port: String,
    /// Why.
    pub source: SocketError,
}

/// Where a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// No front end, or one that is not ready.
    Waiting,
    /// At least one queue pair runs.
    Up,
    /// The last front end was thrown out; the next one is welcome.
    Failed,
}

/// A port's state for people and scripts.
#[derive(Clone, Debug)]
pub struct EndpointStatus {
    /// Where it stands.
    pub state: EndpointState,
    /// Whether a front end is connected.
    pub connected: bool,
    /// Why it is not up, if there is something to say.
    pub reason: Option<String>,
    /// Names of the virtio features offered.
    pub features_offered: Vec<&'static str>,
    /// Names of those that the front end acknowledged.
    pub features_acknowledged: Vec<&'static str>,
    /// Regions of the guest's memory that are mapped.
    pub memory_regions: usize,
    /// Each ring: 2i the guest's receive ring of pair i, 2i+1 its transmit ring.
    pub rings: Vec<RingStatus>,
}

/// A connected front end.
#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
    since: Instant,
    /// When it last sent part of a request; `None` before the first.
    heard: Option<Instant>,
    /// A turn ended before the socket was empty.
    more: bool,
    /// It had time enough to share its memory: if it has not, that is explained.
    explained: bool,
}

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
    registration: Option<Registration>,
    next_attempt: Option<Instant>,
    failed: bool,
    reason: Option<String>,
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
                SocketFile::listen(&config.path, config.mode, config.group, BACKLOG)
                    .map_err(|source| EndpointError { port: config.port_name.clone(), source })?,
            ),
            Role::Client => None,
        };
        let session = Session::new(config.queue_pairs, config.mtu, config.offloads);
        let reason = None;
        Ok(Endpoint {
            config,
            rings,
            session,
            listener,
            connection: None,
            number: 0,
            registration: None,
            next_attempt: None,
            failed: false,
            reason,
        })
    }

    /// Ties the endpoint to an event loop; once.
    pub fn register(&mut self, registry: &Registry, listener_token: Token, connection_token: Token) -> io::Result<()> {
        let registration = Registration { registry: registry.try_clone()?, connection_token, listener_token };
        if let Some(listener) = &self.listener {
            let fd = listener.socket().as_raw_fd();
            registration.registry.register(&mut SourceFd(&fd), registration.listener_token, Interest::READABLE)?;
        }
        self.registration = Some(registration);
        Ok(())
    }

    /// Handles an event of one of the two tokens.
    pub fn ready(&mut self, token: Token, now: Instant) {
        if self.registration.as_ref().is_some_and(|registration| token == registration.connection_token) {
            self.serve(now);
        }
        self.accept(now);
    }

    /// Does what is due at `now` and returns how long until it must be called again; `None`: not before the next event.
    pub fn tick(&mut self, now: Instant) -> Option<Duration> {
        if self.connection.as_ref().is_some_and(|connection| connection.more) {
            self.serve(now);
        }
        self.check_patience(now);
        self.accept(now);
        self.connect(now);
        let due = match &self.connection {
            Some(connection) if connection.more => Some(now),
            Some(connection) => connection.deadline(&self.config.timing),
            None => self.next_attempt,
        };
        due.map(|due| due.saturating_duration_since(now))
    }

    /// A worker found the port broken: the front end is thrown out and the next one awaited. A fault of an earlier
    /// front end came too late: it is not this one's. Returns whether there was something to do.
    pub fn fault(&mut self, fault: &Fault, now: Instant) -> bool {
        if fault.connection != self.number {
            return false;
        }
        self.disconnect(Some(fault.reason.clone()), now);
        self.failed = true;
        self.reason = Some(fault.reason.clone());
        self.accept(now);
        true
    }

    /// Gives the port another MTU in bytes: what the front end asks for is compared with it.
    pub fn set_mtu(&mut self, mtu: u32) {
        self.config.mtu = mtu;
        self.session.set_mtu(mtu);
    }

    /// Where the port stands.
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
            _ if unshared => self.session.mtu_refused().or_else(|| Some(NO_MEMORY.to_owned())),
            _ => self.session.mtu_refused().or_else(|| self.reason.clone()),
        };
        EndpointStatus {
            state,
            connected: self.connection.is_some(),
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

    /// Throws the front end out, while its rings can still be reset.
    pub fn hang_up(&mut self) {
        self.disconnect(None, Instant::now());
    }

    /// Throws the front end out, stops listening, and removes the socket file. Dropping the endpoint does the same.
    pub fn close(self) {}

    /// Takes the next front end out of the backlog if there is none.
    fn accept(&mut self, now: Instant) {
        while self.connection.is_none() {
            let Some(listener) = &self.listener else { return };
            match accept_with(listener.socket(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.adopt(socket, now),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => {
                    self.next_attempt = None;
                    return;
                }
                // Out of descriptors, most likely: there will be no new event for who waits already.
                Err(error) => {
                    self.reason = Some(format!("cannot accept a connection: {error}"));
                    self.next_attempt = Some(now + self.config.timing.retry);
                    return;
                }
            }
        }
    }

    /// Connects, as a client, when it is time to.
    fn connect(&mut self, now: Instant) {
        let waiting = self.next_attempt.is_some_and(|at| now < at);
        if self.config.role == Role::Server || self.connection.is_some() || waiting {
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
        if let Some(Registration { registry, connection_token, .. }) = &self.registration
            && let Err(error) =
                registry.register(&mut SourceFd(&socket.as_raw_fd()), *connection_token, Interest::READABLE)
        {
            self.reason = Some(format!("cannot watch the connection: {error}"));
            self.next_attempt = Some(now + self.config.timing.retry);
            return;
        }
        tracing::info!(port = self.config.port_name, "front end connected");
        (self.failed, self.reason, self.next_attempt) = (false, None, None);
        self.number = next_connection();
        self.session.begin(self.number);
        let inbox = Inbox::default();
        self.connection = Some(Connection { socket, inbox, since: now, heard: None, more: false, explained: false });
    }

    /// Serves requests until the socket is empty or the turn is over.
    fn serve(&mut self, now: Instant) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(connection) = &mut self.connection else { return };
            connection.more = false;
            let was_partial = connection.inbox.is_partial();
            let received = message::receive(connection.socket.as_fd(), &mut connection.inbox);
            match received {
                Ok(Received::Message(request, fds)) => {
                    connection.heard = Some(now);
                    let outcome = self.session.handle(&request, fds, self.rings.as_mut());
                    let (reply, error) = match outcome {
                        Ok(reply) => (reply, None),
                        Err(error) => {
                            let refusal = Reply { code: request.code, value: 1 };
                            (self.session.acknowledges(&request).then_some(refusal), Some(error.to_string()))
                        }
                    };
                    if let (NET_SET_MTU, Some(reason)) = (request.code, self.session.mtu_refused()) {
                        tracing::warn!(port = self.config.port_name, reason, "MTU refused");
                    }
                    let sent = reply.map_or(Ok(()), |reply| message::reply(connection.socket.as_fd(), &reply));
                    if let Some(reason) = error.or_else(|| sent.err().map(|error| error.to_string())) {
                        return self.disconnect(Some(reason), now);
                    }
                }
                Ok(Received::Pending) => {
                    if connection.inbox.is_partial() && !was_partial {
                        connection.heard = Some(now);
                    }
                    return;
                }
                Ok(Received::Closed) => return self.disconnect(None, now),
                Err(error) => return self.disconnect(Some(error.to_string()), now),
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.more = true;
        }
    }

    /// Throws out a front end that does not go on, and explains one that shares no memory.
    fn check_patience(&mut self, now: Instant) {
        let patience = self.config.timing.patience;
        let Some(connection) = &mut self.connection else { return };
        let seconds = patience.as_secs_f32();
        let silent = match connection.heard {
            None if now >= connection.since + patience => {
                format!("the front end connected and sent nothing for {seconds} s")
            }
            Some(heard) if connection.inbox.is_partial() && now >= heard + patience => {
                format!("the front end sent half a request and nothing more for {seconds} s")
            }
            _ => {
                connection.explained |= now >= connection.since + patience;
                return;
            }
        };
        self.disconnect(Some(silent), now);
    }

    /// Ends the connection: rings first, so that nothing of it is in use when the next front end is served.
    fn disconnect(&mut self, reason: Option<String>, now: Instant) {
        let Some(connection) = self.connection.take() else { return };
        if let Some(Registration { registry, .. }) = &self.registration {
            // Closing the socket ends the registration, too, unless the front end kept a copy of our end.
            let _ = registry.deregister(&mut SourceFd(&connection.socket.as_raw_fd()));
        }
        drop(connection);
        if let Err(error) = self.session.reset(self.rings.as_mut()) {
            tracing::warn!(port = self.config.port_name, %error, "rings not reset");
        }
        match &reason {
            Some(reason) => tracing::warn!(port = self.config.port_name, reason, "front end thrown out"),
            None => tracing::info!(port = self.config.port_name, "front end disconnected"),
        }
        self.failed = reason.is_some();
        self.reason = reason;
        if self.config.role == Role::Client {
            self.next_attempt = Some(now + self.config.timing.retry);
        }
    }
}

impl Connection {
    /// When [`Endpoint::check_patience`] has something to do.
    fn deadline(&self, timing: &Timing) -> Option<Instant> {
        match self.heard {
            Some(heard) if self.inbox.is_partial() => Some(heard + timing.patience),
            Some(_) if self.explained => None,
            _ => Some(self.since + timing.patience),
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let (Some(Registration { registry, .. }), Some(listener)) = (&self.registration, &self.listener) {
            // The socket is closed right after; this only tidies the event loop's own books.
            let _ = registry.deregister(&mut SourceFd(&listener.socket().as_raw_fd()));
        }
        self.disconnect(None, Instant::now());
    }
}
