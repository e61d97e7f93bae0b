//! The server, driven by the control thread's `mio` loop.
//!
//! **How it works.** The owner registers the server under a range of tokens, passes on events with [`Server::ready`],
//! sleeps no longer than [`Server::next_tick`] says, and calls [`Server::tick`] after each wait. Nothing here blocks.
//!
//! **Invariants.** There are at most [`MAX_CLIENTS`] clients, shared out by `seats`; the time for their calls is
//! shared out by `shares`. There are at most [`MAX_WAITING_BYTES`] of replies that wait for slow clients: a client
//! that would exceed the limit is closed. `connection` has the limits of one client. This thread closes no descriptor
//! that a client sent, and no socket that holds such descriptors.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use labsw_dataplane::handover::{Given, HandoverError, Taken};
use labsw_dataplane::reaper::PeerFd;
use labsw_dataplane::sys::socket::{SocketAccess, SocketError, SocketFile};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::connection::{Connection, Next};
use super::credentials::{Policy, peer_of, refuse_descriptors};
use super::deferred::{Caller, Deferred, DeferredCall};
use super::message;
use super::prepare::{From, Outcome, Preparer};
use super::seats::{self, MAX_CLIENTS};
use super::shares::Shares;
use crate::api::{Error, Handler, Peer, Reply, Request};
use crate::takeover::client::ClientRecord;

/// Length of the queue of connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Bytes of replies not yet taken, by all clients together.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Time until the next try when accepting failed (no descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The server of the control socket.
#[derive(Debug)]
pub struct Server {
    file: SocketFile,
    policy: Policy,
    registry: Option<Registry>,
    first_token: usize,
    clients: Vec<Option<Connection>>,
    /// The time that users' calls have taken since the last tick.
    shares: Shares,
    accept_again_at: Option<Instant>,
    /// Compiles filters; set by [`Server::register`].
    preparer: Option<Preparer>,
    /// The outcome for the daemon's own request.
    prepared: Option<Outcome>,
    /// The requests that the owner has to have carried out, in the order of their arrival.
    deferred: Vec<DeferredCall>,
    /// Number of connections so far.
    served: u64,
}

impl Server {
    /// Number of tokens that a server uses, from the first one given to [`Server::register`]: the listener, the
    /// clients, and the helper thread.
    pub const TOKENS: usize = 2 + MAX_CLIENTS;

    /// Listens at `path`, with these permission bits and this group (unchanged without). Members of `admin_group` may
    /// change the switch, and so may root and the user that the daemon runs as.
    ///
    /// # Errors
    /// [`SocketError`]; a live socket and files that are no sockets are left alone.
    pub fn bind(path: &Path, mode: u32, group: Option<u32>, admin_group: Option<u32>) -> Result<Server, SocketError> {
        let file = SocketFile::listen(path, SocketAccess { mode, owner: None, group }, BACKLOG)?;
        Ok(Server::on(file, admin_group))
    }

    /// Adopts a socket that another process listens on, bound to `path`. The socket stays that process's until
    /// [`Server::own`].
    pub fn adopt_listener(listener: OwnedFd, path: &Path, admin_group: Option<u32>) -> Server {
        Server::on(SocketFile::adopt(listener, path), admin_group)
    }

    /// Makes this process the owner of the adopted socket.
    pub fn own(&mut self) {
        self.file.own();
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.file.socket()
    }

    fn on(file: SocketFile, admin_group: Option<u32>) -> Server {
        refuse_descriptors(&file.socket());
        Server {
            file,
            policy: Policy { own_uid: rustix::process::geteuid().as_raw(), admin_group },
            registry: None,
            first_token: 0,
            clients: std::iter::repeat_with(|| None).take(MAX_CLIENTS).collect(),
            shares: Shares::default(),
            accept_again_at: None,
            preparer: None,
            prepared: None,
            deferred: Vec::new(),
            served: 0,
        }
    }

    /// Registers the server with the event loop, under the tokens `first_token..first_token + Server::TOKENS`.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        let fd = self.file.socket().as_raw_fd();
        registry.register(&mut SourceFd(&fd), Token(first_token), Interest::READABLE)?;
        let preparer = Preparer::start()?;
        let woken = preparer.descriptor().as_raw_fd();
        let token = Token(first_token + 1 + MAX_CLIENTS);
        registry.register(&mut SourceFd(&woken), token, Interest::READABLE)?;
        self.preparer = Some(preparer);
        self.registry = Some(registry.try_clone()?);
        self.first_token = first_token;
        Ok(())
    }

    /// True if an event with this token is for the server.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + Server::TOKENS).contains(&token.0)
    }

    /// Handles an event. Other tokens are ignored.
    pub fn ready(&mut self, token: Token, handler: &mut dyn Handler) {
        let now = Instant::now();
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accept(now, handler),
            Some(number) if number == 1 + MAX_CLIENTS => self.take_prepared(now, handler),
            Some(number) => self.turn(number - 1, now, handler),
            None => {}
        }
    }

    /// Gives a client a turn, unless its user has to wait for the next tick.
    fn turn(&mut self, slot: usize, now: Instant, handler: &mut dyn Handler) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let user = client.user();
        let Some(left) = self.shares.left(user, slot) else {
            client.again = true;
            return;
        };
        let began = Instant::now();
        self.serve(slot, |client| client.turn(now, left, handler));
        self.shares.charge(user, began);
    }

    /// Does the timed work: streams, clients that are too slow, work left from the last turn.
    pub fn tick(&mut self, now: Instant, handler: &mut dyn Handler) {
        if self.accept_again_at.is_some_and(|at| now >= at) {
            self.accept(now, handler);
        }
        let (first, count) = (self.shares.begin(), self.clients.len());
        for slot in (first..count).chain(0..first) {
            if self.clients.get(slot).and_then(Option::as_ref).is_some_and(|client| client.again) {
                self.turn(slot, now, handler);
            }
            self.timed(slot, now, handler);
        }
    }

    /// Does the timed work of a client, if some is due.
    fn timed(&mut self, slot: usize, now: Instant, handler: &mut dyn Handler) {
        let Some(client) = self.clients.get(slot).and_then(Option::as_ref) else { return };
        if client.due().is_some_and(|due| now >= due) {
            let (user, began) = (client.user(), Instant::now());
            self.serve(slot, |client| client.tick(now, handler));
            self.shares.charge(user, began);
        }
    }

    /// Longest time until the next [`Server::tick`]; none: no limit.
    pub fn next_tick(&self, now: Instant) -> Option<Duration> {
        let clients = self.clients.iter().flatten();
        let due = clients.filter_map(|client| if client.again { Some(now) } else { client.due() });
        due.chain(self.accept_again_at).min().map(|due| due.saturating_duration_since(now))
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.clients.iter().flatten().count()
    }

    /// Stops listening, closes all connections, and removes the socket. Also done when dropped.
    pub fn close(&mut self) {
        self.file.remove();
        if let Some(registry) = &self.registry {
            // On an error the socket is not registered any more, as intended.
            let _ = registry.deregister(&mut SourceFd(&self.file.socket().as_raw_fd()));
        }
        (0..self.clients.len()).for_each(|slot| self.drop_client(slot));
        self.accept_again_at = None;
    }

    /// Accepts clients until no connection waits.
    fn accept(&mut self, now: Instant, handler: &mut dyn Handler) {
        self.accept_again_at = None;
        for _ in 0..MAX_CLIENTS {
            match accept_with(self.file.socket(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(UnixStream::from_std(socket.into()), now, handler),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    tracing::warn!("control socket: accepting a client: {error}");
                    self.accept_again_at = Some(now + ACCEPT_AGAIN);
                    return;
                }
            }
        }
        self.accept_again_at = Some(now);
    }

    /// Adopts the other end of a connection as a client with the rights of `peer`.
    ///
    /// # Errors
    /// There is no place, or the socket can't be registered.
    pub fn adopt(&mut self, socket: std::os::unix::net::UnixStream, peer: Peer) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let now = Instant::now();
        let slot = self.place_for(&peer, now).map_err(io::Error::other)?;
        self.seat(UnixStream::from_std(socket), peer, slot, now)?.is_own = true;
        Ok(())
    }

    /// The clients that another process can go on with.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Vec<ClientRecord> {
        self.clients.iter().flatten().filter_map(|client| client.hand_over(given)).collect()
    }

    /// Takes over a client. It is served from the first [`Server::tick`] on.
    ///
    /// # Errors
    /// The record is garbled, or what the client was getting can't go on.
    pub fn take_over(
        &mut self,
        record: ClientRecord,
        taken: &mut Taken,
        handler: &mut dyn Handler,
    ) -> Result<(), HandoverError> {
        let socket = std::os::unix::net::UnixStream::from(taken.take(record.socket)?);
        let peer = peer_of(&socket, &self.policy).map_err(HandoverError::new)?;
        let now = Instant::now();
        let slot = self.place_for(&peer, now).map_err(HandoverError::new)?;
        let client = self.seat(UnixStream::from_std(socket), peer, slot, now).map_err(HandoverError::new)?;
        client.take_over(record, now, handler)
    }

    /// The place for a newcomer, or why there is none.
    fn place_for(&self, peer: &Peer, now: Instant) -> Result<usize, String> {
        let holders: Vec<_> = self.clients.iter().map(|client| client.as_ref().map(Connection::holder)).collect();
        seats::choose(peer, &holders, now)
    }

    /// Puts a client in its place.
    fn seat(&mut self, mut socket: UnixStream, peer: Peer, slot: usize, now: Instant) -> io::Result<&mut Connection> {
        let Some(registry) = &self.registry else { return Err(io::ErrorKind::NotConnected.into()) };
        let token = Token(self.first_token + 1 + slot);
        if let Err(error) = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE) {
            close(socket);
            return Err(error);
        }
        self.drop_client(slot);
        self.served += 1;
        let place = self.clients.get_mut(slot).ok_or(io::ErrorKind::NotFound)?;
        Ok(place.insert(Connection::new(socket, peer, self.policy.explanation(), self.served, now)))
    }

    fn admit(&mut self, socket: UnixStream, now: Instant, handler: &mut dyn Handler) {
        // The client connected before the listener had the option.
        refuse_descriptors(&socket);
        let peer = match peer_of(&socket, &self.policy) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!("control socket: a client is turned away: {error}");
                return close(socket);
            }
        };
        let slot = match self.place_for(&peer, now) {
            Ok(slot) => slot,
            Err(reason) => return turn_away(socket, &peer, &reason),
        };
        if let Err(error) = self.seat(socket, peer, slot, now) {
            tracing::debug!("control socket: a client is turned away: {error}");
            return;
        }
        self.turn(slot, now, handler);
    }

    /// Goes on with calls whose filters are compiled by now.
    fn take_prepared(&mut self, now: Instant, handler: &mut dyn Handler) {
        let done = self.preparer.as_mut().map(Preparer::take_done).unwrap_or_default();
        for (from, outcome) in done {
            match from {
                From::Client(caller) => self.go_on(caller, |client| client.prepared(outcome, now, handler)),
                From::Daemon => self.prepared = Some(outcome),
            }
        }
    }

    /// Takes the requests that the handler has deferred, in the order of their arrival.
    pub fn take_deferred(&mut self) -> Vec<DeferredCall> {
        std::mem::take(&mut self.deferred)
    }

    /// Answers a deferred request. A client that has gone gets no answer.
    pub fn answer(&mut self, caller: Caller, outcome: Result<Reply, Error>, handler: &mut dyn Handler) {
        self.go_on(caller, |client| client.answered(outcome, Instant::now(), handler));
    }

    /// Lets a client go on whose call was held, if it is still there.
    fn go_on(&mut self, Caller { slot, serial }: Caller, work: impl FnOnce(&mut Connection) -> Next) {
        if self.clients.get(slot).and_then(Option::as_ref).is_some_and(|client| client.serial == serial) {
            self.serve(slot, work);
        }
    }

    /// Compiles the filters of the daemon's own request on the helper thread. [`Server::take_own`] returns the outcome,
    /// after an event of the server.
    pub fn prepare(&self, request: Request) {
        if let Some(preparer) = &self.preparer {
            preparer.submit(From::Daemon, request);
        }
    }

    /// The outcome for the filters of the daemon's own request, once it is known.
    pub fn take_own(&mut self) -> Option<Result<(), Error>> {
        self.prepared.take()
    }

    /// Lets one client work, and closes its connection when it is finished.
    fn serve(&mut self, slot: usize, work: impl FnOnce(&mut Connection) -> Next) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        let next = work(client);
        let caller = Caller { slot, serial: client.serial };
        match (client.take_deferred(), &self.preparer) {
            (Some(Deferred::Filters(request)), Some(preparer)) => preparer.submit(From::Client(caller), request),
            (Some(Deferred::Whole(peer, request)), _) => self.deferred.push(DeferredCall { caller, peer, request }),
            _ => {}
        }
        if next == Next::Close {
            return self.drop_client(slot);
        }
        if client.waiting_bytes() > 0 && self.waiting_bytes() > MAX_WAITING_BYTES {
            tracing::debug!("control socket: clients leave too much unread, one is closed");
            self.drop_client(slot);
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.clients.iter().flatten().map(Connection::waiting_bytes).sum()
    }

    fn drop_client(&mut self, slot: usize) {
        if let Some(mut client) = self.clients.get_mut(slot).and_then(Option::take)
            && let Some(registry) = &self.registry
        {
            // Another thread closes the socket, maybe later; it must cause no events until then.
            let _ = registry.deregister(&mut client.socket);
            close(client.socket);
        }
    }
}

/// Ends a connection. The socket is closed on another thread, since the descriptors that the client sent are closed
/// with it, which may take time.
fn close(socket: UnixStream) {
    // The client has hung up already, or sees the end at once.
    let _ = socket.shutdown(Shutdown::Both);
    drop(PeerFd::from(OwnedFd::from(socket)));
}

/// Refuses a client for which there is no place, as the answer to its first call.
fn turn_away(mut socket: UnixStream, peer: &Peer, reason: &str) {
    tracing::debug!(uid = peer.uid, pid = peer.pid, "control socket: a client is turned away: {reason}");
    let mut bytes = Vec::new();
    let error = Err(Error::refused("control socket", reason));
    if message::write_result(&error, false, &mut bytes).is_ok() {
        // The send buffer of a new socket has room for this; a client that has hung up needs no answer.
        let _ = socket.write(&bytes);
    }
    close(socket);
}
