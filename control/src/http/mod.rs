//! A small HTTP server on a `mio` loop: answers GET requests from a [`Site`], one a connection.
//!
//! **How it works.** [`serve`] is the loop. A [`Listener`] has its sockets registered under a range of tokens, takes
//! their events, and does the timed work in [`Listener::tick`]. A connection carries one request and is closed with the
//! answer.
//!
//! **Invariants.** Nothing here blocks; a [`Site`] should not, either. There are at most [`MAX_CLIENTS`] connections; a
//! further one is closed at once. A connection lasts at most [`PATIENCE`], and a request has at most
//! [`MAX_REQUEST_BYTES`]. Connections share the bytes of an answer.
//!
//! Reference: RFC 9112.

#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

/// Connections at the same time.
pub const MAX_CLIENTS: usize = 32;
/// Longest request, with its headers.
const MAX_REQUEST_BYTES: usize = 4096;
/// Most headers of a request.
const MAX_HEADERS: usize = 32;
/// Longest life of a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time until the next try when accepting failed (no descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// A GET request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The path, without a query.
    pub path: &'a str,
    /// The host that the client believes it talks to, with a port if it has one.
    pub host: Option<&'a str>,
}

impl Request<'_> {
    /// True if the client calls the server `localhost` or by an address of loopback. A page of another site whose name
    /// was made to lead here (DNS rebinding) has its own name in this place.
    pub fn is_for_loopback(&self) -> bool {
        let host = self.host.unwrap_or_default();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code and reason, as in `200 OK`.
    pub status: &'static str,
    /// Headers, each with the end of its line.
    pub headers: &'static str,
    /// The body; connections share it.
    pub body: Arc<[u8]>,
}

impl Answer {
    /// An answer whose body is the status, as one line.
    pub fn of_status(status: &'static str) -> Answer {
        Answer { status, headers: "", body: format!("{status}\n").into_bytes().into() }
    }

    /// The content that was asked for.
    pub fn ok(headers: &'static str, body: impl Into<Arc<[u8]>>) -> Answer {
        Answer { status: "200 OK", headers, body: body.into() }
    }

    /// An answer that says why there is no content at present.
    pub fn unavailable(reason: &str) -> Answer {
        Answer { status: "503 Service Unavailable", headers: "", body: format!("{reason}\n").into_bytes().into() }
    }

    /// The lines before the body.
    fn head(&self) -> Vec<u8> {
        let Answer { status, headers, body } = self;
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes()
    }
}

/// The content of a server.
pub trait Site {
    /// Answers a request.
    fn answer(&mut self, request: &Request<'_>, now: Instant) -> Answer;
}

/// An answer that is given again for some time, however often it is asked for.
#[derive(Debug)]
pub struct Cached {
    age: Duration,
    last: Option<(Instant, Answer)>,
}

impl Cached {
    /// Nothing yet; an answer is given again until it has this age.
    pub fn new(age: Duration) -> Cached {
        Cached { age, last: None }
    }

    /// The answer of a moment ago, or a new one.
    pub fn get(&mut self, now: Instant, make: impl FnOnce() -> Answer) -> Answer {
        match &self.last {
            Some((at, answer)) if now.saturating_duration_since(*at) < self.age => answer.clone(),
            _ => {
                // To make it may take long: its age counts from the end.
                let began = Instant::now();
                let answer = make();
                self.last.insert((now + began.elapsed(), answer)).1.clone()
            }
        }
    }
}

/// Serves a site until `is_over`, which is asked after each event; other tokens than the listener's only wake the loop.
///
/// # Errors
/// Those of the system.
pub fn serve(
    mut poll: Poll,
    mut listener: Listener,
    site: &mut dyn Site,
    is_over: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let mut events = Events::with_capacity(64);
    while !is_over() {
        let wait = listener.tick(Instant::now(), site);
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            listener.ready(event.token(), Instant::now(), site);
        }
    }
    Ok(())
}

/// The listener and its connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    registry: Registry,
    first_token: usize,
    clients: Vec<Option<Client>>,
    accept_again_at: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    until: Instant,
    input: Vec<u8>,
    /// The answer: its head, and its body.
    output: Option<(Vec<u8>, Arc<[u8]>)>,
    written: usize,
}

impl Listener {
    /// Number of tokens that a listener uses, from the first one given to [`Listener::open`].
    pub const TOKENS: usize = 1 + MAX_CLIENTS;

    /// Listens at `address`, with events under the tokens from `first_token`.
    ///
    /// # Errors
    /// Those of the system: the address is in use, or not of this machine.
    pub fn open(address: SocketAddr, registry: &Registry, first_token: usize) -> io::Result<Listener> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Listener::adopt(socket, registry, first_token)
    }

    /// The same as [`Listener::open`], with a socket that listens already and does not block.
    ///
    /// # Errors
    /// Those of the system.
    pub fn adopt(socket: std::net::TcpListener, registry: &Registry, first_token: usize) -> io::Result<Listener> {
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, Token(first_token), Interest::READABLE)?;
        let clients = std::iter::repeat_with(|| None).take(MAX_CLIENTS).collect();
        let registry = registry.try_clone()?;
        Ok(Listener { socket, registry, first_token, clients, accept_again_at: None })
    }

    /// The address that the listener is bound to.
    ///
    /// # Errors
    /// Those of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Handles an event. Other tokens are ignored.
    pub fn ready(&mut self, token: Token, now: Instant, site: &mut dyn Site) {
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accept(now, site),
            Some(number) => self.serve(number - 1, now, site),
            None => {}
        }
    }

    /// Does the timed work; returns the time until the next call.
    pub fn tick(&mut self, now: Instant, site: &mut dyn Site) -> Option<Duration> {
        if self.accept_again_at.is_some_and(|at| now >= at) {
            self.accept(now, site);
        }
        for client in &mut self.clients {
            client.take_if(|client| now >= client.until);
        }
        let due = self.clients.iter().flatten().map(|client| client.until).chain(self.accept_again_at).min();
        due.map(|due| due.saturating_duration_since(now))
    }

    fn accept(&mut self, now: Instant, site: &mut dyn Site) {
        self.accept_again_at = None;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => self.admit(stream, now, site),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    tracing::warn!("HTTP: accepting a connection: {error}");
                    self.accept_again_at = Some(now + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, now: Instant, site: &mut dyn Site) {
        let Some(place) = self.clients.iter().position(Option::is_none) else {
            tracing::debug!("HTTP: {MAX_CLIENTS} connections, another one is closed");
            return;
        };
        let token = Token(self.first_token + 1 + place);
        if let Err(error) = self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            tracing::warn!("HTTP: a connection is closed: {error}");
            return;
        }
        if let Some(place) = self.clients.get_mut(place) {
            let until = now + PATIENCE;
            *place = Some(Client { stream, until, input: Vec::new(), output: None, written: 0 });
        }
        self.serve(place, now, site);
    }

    /// Serves one client; closes the connection when it is finished.
    fn serve(&mut self, place: usize, now: Instant, site: &mut dyn Site) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        match client.turn(now, site) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The request was answered, or the connection broke: the kernel sends what it has accepted.
            Ok(()) | Err(_) => *slot = None,
        }
    }
}

impl Client {
    /// Reads the request and writes the answer as far as possible. `Ok`: the connection is finished.
    fn turn(&mut self, now: Instant, site: &mut dyn Site) -> io::Result<()> {
        let mut chunk = [0; 1024];
        while self.output.is_none() {
            let bytes = match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.input.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
            self.output = answer(&self.input, now, site).map(|answer| (answer.head(), answer.body));
        }
        let Some((head, body)) = &self.output else { return Ok(()) };
        loop {
            let rest = match self.written.checked_sub(head.len()) {
                None => head.get(self.written..),
                Some(of_body) => body.get(of_body..),
            };
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { break };
            match self.stream.write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => self.written += other?,
            }
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

/// The answer to a request; `None` if the request is not complete.
fn answer(input: &[u8], now: Instant, site: &mut dyn Site) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Partial) if input.len() < MAX_REQUEST_BYTES => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Answer::of_status("431 Request Header Fields Too Large"));
        }
        Err(_) => return Some(Answer::of_status("400 Bad Request")),
        Ok(httparse::Status::Complete(_)) => {}
    }
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().map(|header| std::str::from_utf8(header.value).unwrap_or_default());
    if hosts.next().is_some() {
        return Some(Answer::of_status("400 Bad Request"));
    }
    let path = request.path.and_then(|path| path.split('?').next()).unwrap_or_default();
    Some(match request.method {
        Some("GET") => site.answer(&Request { path, host }, now),
        _ => Answer { headers: "Allow: GET\r\n", ..Answer::of_status("405 Method Not Allowed") },
    })
}
