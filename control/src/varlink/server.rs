//! The server, driven by the control thread's `mio` loop.
//!
//! **How it works.** The owner registers it under a range of tokens, passes on events with [`Server::ready`], sleeps no
//! longer than [`Server::next_tick`] says, and calls [`Server::tick`] after each wait. Nothing here blocks.
//!
//! **Invariants.** At most [`MAX_CLIENTS`] clients, and [`MAX_WAITING_BYTES`] of replies that wait for slow ones: a
//! client that would break the limit is closed. The limits of one client are in `connection`.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use labsw_dataplane::socket::{SocketError, SocketFile};
use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::connection::{Connection, Next};
use super::credentials::{Policy, peer_of};
use crate::api::Handler;

/// Clients at the same time.
pub(super) const MAX_CLIENTS: usize = 128;
/// Connections that wait for being accepted.
const BACKLOG: i32 = 128;
/// Replies not yet taken, of all clients together.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long a client must have done nothing to lose its place to a new one.
const IDLE: Duration = Duration::from_secs(10);
/// When accepting failed (no descriptors left), it is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The server of the control socket.
#[derive(Debug)]
pub struct Server {
    file: SocketFile,
    policy: Policy,
    registry: Option<Registry>,
    first_token: usize,
    clients: Vec<Option<Connection>>,
    accept_again_at: Option<Instant>,
}

impl Server {
    /// Number of tokens a server uses, from the first one given to [`Server::register`].
    pub const TOKENS: usize = 1 + MAX_CLIENTS;

    /// Listens at `path`, with these permission bits and this group (unchanged without). Members of `admin_group` may
    /// change the switch, as may root and the user the daemon runs as.
    ///
    /// # Errors
    /// [`SocketError`]; a live socket and files that are no sockets are left alone.
    pub fn bind(path: &Path, mode: u32, group: Option<u32>, admin_group: Option<u32>) -> Result<Server, SocketError> {
        let file = SocketFile::listen(path, mode, group, BACKLOG)?;
        Ok(Server {
            file,
            policy: Policy { own_uid: rustix::process::geteuid().as_raw(), admin_group },
            registry: None,
            first_token: 0,
            clients: std::iter::repeat_with(|| None).take(MAX_CLIENTS).collect(),
            accept_again_at: None,
        })
    }

    /// Begins to listen for events, under the tokens `first_token..first_token + Server::TOKENS`.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        let fd = self.file.socket().as_raw_fd();
        registry.register(&mut SourceFd(&fd), Token(first_token), Interest::READABLE)?;
        self.registry = Some(registry.try_clone()?);
        self.first_token = first_token;
        Ok(())
    }

    /// Whether an event with this token is for the server.
    pub fn owns(&self, token: Token) -> bool {
        (self.first_token..self.first_token + Server::TOKENS).contains(&token.0)
    }

    /// Does what an event asks for. Tokens of others are ignored.
    pub fn ready(&mut self, token: Token, handler: &mut dyn Handler) {
        let now = Instant::now();
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accept(now, handler),
            Some(number) => self.serve(number - 1, |client| client.turn(now, handler)),
            None => {}
        }
    }

    /// Does what time asks for: streams, clients that are too slow, work left from the last turn.
    pub fn tick(&mut self, now: Instant, handler: &mut dyn Handler) {
        if self.accept_again_at.is_some_and(|at| now >= at) {
            self.accept(now, handler);
        }
        for slot in 0..self.clients.len() {
            self.serve(slot, |client| if client.again { client.turn(now, handler) } else { Next::Wait });
            self.serve(slot, |client| {
                if client.due().is_some_and(|due| now >= due) { client.tick(now, handler) } else { Next::Wait }
            });
        }
    }

    /// How long the caller may sleep at most before [`Server::tick`]; none: as long as it likes.
    pub fn next_tick(&self, now: Instant) -> Option<Duration> {
        let clients = self.clients.iter().flatten();
        let due = clients.filter_map(|client| if client.again { Some(now) } else { client.due() });
        due.chain(self.accept_again_at).min().map(|due| due.saturating_duration_since(now))
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.clients.iter().flatten().count()
    }

    /// Stops listening, hangs up, and removes the socket. Also done when dropped.
    pub fn close(&mut self) {
        self.file.remove();
        if let Some(registry) = &self.registry {
            // Not being registered any more is what is wanted; there is nothing to do about an error.
            let _ = registry.deregister(&mut SourceFd(&self.file.socket().as_raw_fd()));
        }
        self.clients.iter_mut().for_each(|client| *client = None);
        self.accept_again_at = None;
    }

    /// Takes clients until nobody waits.
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

    fn admit(&mut self, mut socket: UnixStream, now: Instant, handler: &mut dyn Handler) {
        let (Some(slot), Some(registry)) = (self.free_slot(now), &self.registry) else {
            tracing::debug!("control socket: {MAX_CLIENTS} clients are connected, another one is turned away");
            return;
        };
        let token = Token(self.first_token + 1 + slot);
        let registered = registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE);
        match registered.and_then(|()| peer_of(&socket, &self.policy)) {
            Ok(peer) => {
                if let Some(place) = self.clients.get_mut(slot) {
                    *place = Some(Connection::new(socket, peer, self.policy.explanation(), now));
                }
                self.serve(slot, |client| client.turn(now, handler));
            }
            Err(error) => tracing::debug!("control socket: a client is turned away: {error}"),
        }
    }

    /// A free place, if need be that of the client that has done nothing for longest.
    fn free_slot(&mut self, now: Instant) -> Option<usize> {
        let free = self.clients.iter().position(Option::is_none);
        free.or_else(|| {
            let places = self.clients.iter().enumerate().filter_map(|(slot, client)| Some((slot, client.as_ref()?)));
            let idle = places.filter(|(_, client)| client.is_idle() && now >= client.active_at + IDLE);
            let (slot, _) = idle.min_by_key(|(_, client)| client.active_at)?;
            self.drop_client(slot);
            Some(slot)
        })
    }

    /// Lets one client work, and closes it if that was the end of it.
    fn serve(&mut self, slot: usize, work: impl FnOnce(&mut Connection) -> Next) {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return };
        if work(client) == Next::Close {
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
            // Closing the descriptor deregisters it as well.
            let _ = registry.deregister(&mut client.socket);
        }
    }
}
