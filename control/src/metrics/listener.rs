//! The HTTP end of the metrics: answers `GET /metrics`, and nothing else, on a `mio` loop.
//!
//! **How it works.** The owner registers the listener under a range of tokens, passes on events, and calls
//! [`Listener::tick`] after each wait. A connection carries one request and is closed with the answer. Without an
//! answer from the switch a scrape gets 503.
//!
//! **Invariants.** Nothing here blocks. There are at most [`MAX_CLIENTS`] connections; a further one is closed at once.
//! A connection lasts at most [`PATIENCE`], and a request has at most [`MAX_REQUEST_BYTES`]. The text is rendered at
//! most once in [`FRESH`], however often it is requested.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// Connections at the same time.
const MAX_CLIENTS: usize = 8;
/// Longest request, with its headers.
const MAX_REQUEST_BYTES: usize = 4096;
/// Most headers of a request.
const MAX_HEADERS: usize = 32;
/// Longest life of a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Greatest age of a text that is sent again.
const FRESH: Duration = Duration::from_millis(100);
/// Time until the next try when accepting failed (no descriptors left).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// The listener and its connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    registry: Registry,
    first_token: usize,
    clients: Vec<Option<Client>>,
    accept_again_at: Option<Instant>,
    /// The last text, and the time when it was rendered.
    text: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    until: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// The verdict on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The request is not complete.
    More,
    Metrics,
    /// The request is refused with this status line and further headers.
    Refused(&'static str, &'static str),
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
        Ok(Listener { socket, registry, first_token, clients, accept_again_at: None, text: None })
    }

    /// The address that the listener is bound to.
    ///
    /// # Errors
    /// Those of the system.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Handles an event; `text` renders the metrics. Other tokens are ignored.
    pub fn ready(&mut self, token: Token, now: Instant, text: &mut dyn FnMut() -> Result<String, String>) {
        match token.0.checked_sub(self.first_token) {
            Some(0) => self.accept(now, text),
            Some(number) => self.serve(number - 1, now, text),
            None => {}
        }
    }

    /// Does the timed work; returns the time until the next call.
    pub fn tick(&mut self, now: Instant, text: &mut dyn FnMut() -> Result<String, String>) -> Option<Duration> {
        if self.accept_again_at.is_some_and(|at| now >= at) {
            self.accept(now, text);
        }
        for client in &mut self.clients {
            client.take_if(|client| now >= client.until);
        }
        let due = self.clients.iter().flatten().map(|client| client.until).chain(self.accept_again_at).min();
        due.map(|due| due.saturating_duration_since(now))
    }

    fn accept(&mut self, now: Instant, text: &mut dyn FnMut() -> Result<String, String>) {
        self.accept_again_at = None;
        loop {
            match self.socket.accept() {
                Ok((stream, _)) => self.admit(stream, now, text),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    tracing::warn!("metrics: accepting a connection: {error}");
                    self.accept_again_at = Some(now + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, now: Instant, text: &mut dyn FnMut() -> Result<String, String>) {
        let Some(place) = self.clients.iter().position(Option::is_none) else {
            tracing::debug!("metrics: {MAX_CLIENTS} connections, another one is closed");
            return;
        };
        let token = Token(self.first_token + 1 + place);
        if let Err(error) = self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            tracing::warn!("metrics: a connection is closed: {error}");
            return;
        }
        if let Some(place) = self.clients.get_mut(place) {
            let until = now + PATIENCE;
            *place = Some(Client { stream, until, input: Vec::new(), output: Vec::new(), written: 0 });
        }
        self.serve(place, now, text);
    }

    /// Serves one client; closes the connection when it is finished.
    fn serve(&mut self, place: usize, now: Instant, text: &mut dyn FnMut() -> Result<String, String>) {
        let Some(slot) = self.clients.get_mut(place) else { return };
        let Some(client) = slot else { return };
        let cached = &mut self.text;
        let mut fresh = || match cached {
            Some((at, text)) if now.saturating_duration_since(*at) < FRESH => Ok(text.clone()),
            _ => Ok(cached.insert((now, text()?)).1.clone()),
        };
        match client.turn(&mut fresh) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The request was answered, or the connection broke: the kernel sends what it has accepted.
            Ok(()) | Err(_) => *slot = None,
        }
    }
}

impl Client {
    /// Reads the request and writes the answer as far as possible. `Ok`: the connection is finished.
    fn turn(&mut self, text: &mut dyn FnMut() -> Result<String, String>) -> io::Result<()> {
        let mut chunk = [0; 1024];
        while self.output.is_empty() {
            let bytes = match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            self.input.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
            self.output = match verdict(&self.input) {
                Verdict::More => continue,
                Verdict::Metrics => match text() {
                    Ok(text) => response("200 OK", "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", &text),
                    Err(reason) => response("503 Service Unavailable", "", &format!("{reason}\n")),
                },
                Verdict::Refused(status, headers) => response(status, headers, &format!("{status}\n")),
            };
        }
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => self.written += other?,
            }
        }
        self.stream.shutdown(Shutdown::Write)
    }
}

fn verdict(input: &[u8]) -> Verdict {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(input) {
        Ok(httparse::Status::Partial) if input.len() < MAX_REQUEST_BYTES => Verdict::More,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Verdict::Refused("431 Request Header Fields Too Large", "")
        }
        Err(_) => Verdict::Refused("400 Bad Request", ""),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.and_then(|path| path.split('?').next());
            match (request.method, path) {
                (Some("GET"), Some("/metrics")) => Verdict::Metrics,
                (Some("GET"), _) => Verdict::Refused("404 Not Found", ""),
                _ => Verdict::Refused("405 Method Not Allowed", "Allow: GET\r\n"),
            }
        }
    }
}

fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}
