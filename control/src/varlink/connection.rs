//! One client of the server: its buffers, and the limits that protect the other clients and the switch.
//!
//! **How it works.** [`Connection::turn`] does the work of one turn: it writes waiting output, answers complete calls,
//! and reads more. It ends when it has to wait for the client, or when the turn's share of work or time is used up
//! ([`Next::Again`]), so that no client starves the others.
//!
//! **Invariants.** Calls are answered in order. While more than [`OUTPUT_PAUSE_BYTES`] wait to be written, no call is
//! answered, so the buffer holds at most that and one reply. At most one call of [`MAX_CALL_BYTES`] and one chunk are
//! read ahead. While a stream runs, later calls wait for its end.

mod handover;

use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use labsw_dataplane::reaper::{Account, PeerFd};
use mio::net::UnixStream;
use rustix::cmsg_space;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::deferred::Deferred;
use super::message::{self, Answer, Call};
use super::prepare;
use super::seats::Holder;
use super::service;
use super::shares::SHARE;
use crate::api::{Error, Feed, Handler, Peer, Reply, Request};

/// Largest call, without its zero byte.
pub(super) const MAX_CALL_BYTES: usize = 1 << 20;
/// With more than this waiting to be written, no further call is answered.
pub(super) const OUTPUT_PAUSE_BYTES: usize = 256 << 10;
/// Longest time that a client may take to send one call, or to take the next part of a reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const CALLS_PER_TURN: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
const DEFAULT_INTERVAL_MILLISECONDS: u32 = 1000;
const MIN_INTERVAL_MILLISECONDS: u32 = 100;

/// The state of a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The client has to act first.
    Wait,
    /// There is more work at once.
    Again,
    /// The connection is finished.
    Close,
}

/// A call with `more` that is being answered.
#[derive(Debug)]
enum Stream {
    /// The same request is repeated at an interval.
    Repeat { request: Box<Request>, interval: Duration, due: Instant },
    /// Replies come when there is news.
    Feed(Box<dyn Feed>),
}

/// A call that waits until its filters are compiled, or until others have carried it out.
#[derive(Debug)]
struct Held {
    request: Request,
    oneway: bool,
    more: bool,
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: UnixStream,
    /// Distinguishes the connection from earlier clients in the same place.
    pub(super) serial: u64,
    peer: Peer,
    /// The other end is this process.
    pub(super) is_own: bool,
    /// The explanation for a peer that may not change the switch.
    explanation: String,
    /// Descriptors that the client sent and that are not closed yet.
    descriptors: Account,
    input: Vec<u8>,
    /// Number of bytes of `input` that are known to hold no zero byte.
    searched: usize,
    output: Vec<u8>,
    written: usize,
    stream: Option<Stream>,
    /// The call that others work on. Later calls wait.
    held: Option<Held>,
    /// The work that others have to begin.
    deferred: Option<Deferred>,
    /// Nothing more is read: the client has finished sending, or broke the protocol.
    ending: bool,
    /// The time since which a call is incomplete.
    partial_since: Option<Instant>,
    /// The last time that the client took output while some waited.
    stalled_since: Option<Instant>,
    /// The time of the last activity.
    active_at: Instant,
    /// True if the last turn used up its share of work.
    pub(super) again: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream, peer: Peer, explanation: String, serial: u64, now: Instant) -> Connection {
        Connection {
            socket,
            serial,
            peer,
            is_own: false,
            explanation,
            descriptors: Account::new(),
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            written: 0,
            stream: None,
            held: None,
            deferred: None,
            ending: false,
            partial_since: None,
            stalled_since: None,
            active_at: now,
            again: false,
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.output.len() - self.written
    }

    /// The user of the client.
    pub(super) fn user(&self) -> u32 {
        self.peer.uid
    }

    /// The facts about this client that count when places are scarce.
    pub(super) fn holder(&self) -> Holder {
        Holder { peer: self.peer.clone(), idle: self.is_idle(), active_at: self.active_at }
    }

    /// True if no work is under way, so that the client would lose nothing but its connection.
    fn is_idle(&self) -> bool {
        self.stream.is_none() && self.held.is_none() && self.partial_since.is_none() && self.waiting_bytes() == 0
    }

    /// The time at which [`Connection::tick`] has work to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let stream = match &self.stream {
            // The feed is polled when the client has taken all output.
            Some(Stream::Feed(feed)) if self.waiting_bytes() == 0 => feed.due(),
            Some(Stream::Repeat { due, .. }) => Some(*due),
            _ => None,
        };
        let timeouts = [self.partial_since, self.stalled_since].into_iter().flatten().map(|since| since + PATIENCE);
        stream.into_iter().chain(timeouts).min()
    }

    /// Does the timed work: sends the next reply of a stream, closes a client that is too slow.
    pub(super) fn tick(&mut self, now: Instant, handler: &mut dyn Handler) -> Next {
        let patience_ended = |since: Option<Instant>| since.is_some_and(|since| now >= since + PATIENCE);
        if patience_ended(self.partial_since) || patience_ended(self.stalled_since) {
            tracing::debug!("control socket: process {} is too slow, closed", self.peer.pid);
            return Next::Close;
        }
        let slow = self.waiting_bytes() > 0;
        let request = match &mut self.stream {
            Some(Stream::Feed(_)) => return self.turn(now, SHARE, handler),
            Some(Stream::Repeat { request, interval, due }) if now >= *due => {
                *due = now + *interval;
                if slow {
                    // The client has not taken the last reply yet, so this one is left out.
                    return Next::Wait;
                }
                Request::clone(request)
            }
            _ => return Next::Wait,
        };
        let result = handler.call(&self.peer, request).map(Answer::from);
        if result.is_err() {
            self.stream = None;
        }
        self.put(&result);
        self.turn(now, SHARE, handler)
    }

    /// Does one turn of work. No call begins when `time` is over.
    pub(super) fn turn(&mut self, now: Instant, time: Duration, handler: &mut dyn Handler) -> Next {
        let next = self.work(now, time, handler).unwrap_or(Next::Close);
        self.again = next == Next::Again;
        next
    }

    fn work(&mut self, now: Instant, time: Duration, handler: &mut dyn Handler) -> io::Result<Next> {
        let began = Instant::now();
        for _ in 0..CALLS_PER_TURN {
            self.flush(now)?;
            if self.waiting_bytes() > OUTPUT_PAUSE_BYTES || self.held.is_some() {
                return Ok(Next::Wait);
            }
            if self.stream.is_none()
                && let Some(call) = self.take_call()
            {
                self.active_at = now;
                self.answer(&call, now, handler);
                if began.elapsed() >= time {
                    break;
                }
                continue;
            }
            if let Some(Stream::Feed(feed)) = &mut self.stream {
                if self.ending {
                    feed.finish(now);
                }
                if self.output.is_empty() {
                    if let Some(reply) = feed.next(now) {
                        self.put_fed(reply);
                        continue;
                    }
                } else if self.ending {
                    return Ok(Next::Wait);
                }
            }
            if self.ending {
                // A stream ends when the client has disconnected.
                let finished = self.waiting_bytes() == 0 || self.stream.is_some();
                return Ok(if finished { Next::Close } else { Next::Wait });
            }
            if self.input.len() > MAX_CALL_BYTES {
                self.refuse();
                continue;
            }
            if !self.fill(now)? {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Again)
    }

    /// Takes the next complete call out of the input.
    fn take_call(&mut self) -> Option<Vec<u8>> {
        let unsearched = self.input.get(self.searched..).unwrap_or_default();
        let Some(offset) = unsearched.iter().position(|&byte| byte == 0) else {
            self.searched = self.input.len();
            return None;
        };
        let rest = self.input.split_off(self.searched + offset + 1);
        let mut call = std::mem::replace(&mut self.input, rest);
        call.pop();
        self.searched = 0;
        self.partial_since = None;
        Some(call)
    }

    /// Reads one chunk; false if there is nothing to read.
    fn fill(&mut self, now: Instant) -> io::Result<bool> {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            match receive(&self.socket, &mut chunk, &self.descriptors) {
                Ok(0) => {
                    self.ending = true;
                    return Ok(true);
                }
                Ok(bytes) => {
                    self.active_at = now;
                    self.input.extend_from_slice(chunk.get(..bytes).unwrap_or_default());
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Calls that wait for the end of a stream are not late.
                    let partial = !self.input.is_empty() && self.stream.is_none();
                    self.partial_since = if partial { self.partial_since.or(Some(now)) } else { None };
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes as much of the output as the client takes.
    fn flush(&mut self, now: Instant) -> io::Result<()> {
        while self.waiting_bytes() > 0 {
            match self.socket.write(self.output.get(self.written..).unwrap_or_default()) {
                Ok(bytes) => {
                    self.written += bytes;
                    self.active_at = now;
                    self.stalled_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_since = self.stalled_since.or(Some(now));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output = Vec::new();
        self.written = 0;
        self.stalled_since = None;
        Ok(())
    }

    fn answer(&mut self, bytes: &[u8], now: Instant, handler: &mut dyn Handler) {
        let call: Call = match serde_json::from_slice(bytes) {
            Ok(call) if bytes.len() <= MAX_CALL_BYTES => call,
            _ => return self.refuse(),
        };
        let (oneway, more) = (call.oneway, call.more && !call.oneway);
        let result = if call.upgrade {
            Err(Error::MethodNotImplemented { method: call.method })
        } else if service::owns(&call.method) {
            service::call(&call.method, &call.parameters).map(Answer::Service)
        } else {
            match Request::parse(&call.method, call.parameters) {
                Ok(request) if self.may_ask(&request).is_ok() && prepare::is_needed(&request) => {
                    self.deferred = Some(Deferred::Filters(request.clone()));
                    self.held = Some(Held { request, oneway, more });
                    return;
                }
                Ok(request) => return self.carry_out(Held { request, oneway, more }, now, handler),
                Err(error) => Err(error),
            }
        };
        if !oneway {
            self.put(&result);
        }
    }

    /// The work that others have to begin, once.
    pub(super) fn take_deferred(&mut self) -> Option<Deferred> {
        self.deferred.take()
    }

    /// Answers the call that waited for its filters, and goes on with later calls.
    pub(super) fn prepared(&mut self, outcome: prepare::Outcome, now: Instant, handler: &mut dyn Handler) -> Next {
        if let Some(held) = self.held.take() {
            match outcome {
                Ok(()) => self.carry_out(held, now, handler),
                Err(_) if held.oneway => {}
                Err(refused) => self.put(&Err(refused)),
            }
        }
        self.turn(now, SHARE, handler)
    }

    /// Answers the call that others have carried out, and goes on with later calls.
    pub(super) fn answered(&mut self, outcome: Result<Reply, Error>, now: Instant, handler: &mut dyn Handler) -> Next {
        if self.held.take().is_some_and(|held| !held.oneway) {
            self.put(&outcome.map(Answer::from));
        }
        self.turn(now, SHARE, handler)
    }

    /// Has the switch carry out a request, and writes the answer.
    fn carry_out(&mut self, Held { request, oneway, more }: Held, now: Instant, handler: &mut dyn Handler) {
        if self.may_ask(&request).is_ok() && handler.defers(&request) {
            self.deferred = Some(Deferred::Whole(self.peer.clone(), request.clone()));
            self.held = Some(Held { request, oneway, more });
            return;
        }
        let result = match (self.may_ask(&request), request) {
            (Err(error), _) => Err(error),
            (Ok(()), request @ (Request::Capture(_) | Request::Monitor { .. })) => {
                match self.begin_feed(request, more, handler) {
                    // The feed writes its own replies.
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            (Ok(()), request) => handler.call(&self.peer, request.clone()).map(|reply| {
                if more {
                    self.stream = stream_of(request, now);
                }
                Answer::from(reply)
            }),
        };
        if !oneway {
            self.put(&result);
        }
    }

    /// Checks that the peer may make this request.
    fn may_ask(&self, request: &Request) -> Result<(), Error> {
        if self.peer.may_change() || !needs_the_right_to_change(request) {
            return Ok(());
        }
        let reason = match request {
            Request::Capture(_) => {
                format!("only those who may change the switch may capture frames, and {}", self.explanation)
            }
            _ => self.explanation.clone(),
        };
        Err(Error::PermissionDenied { reason })
    }

    /// Begins a capture, or a stream of events.
    fn begin_feed(&mut self, request: Request, more: bool, handler: &mut dyn Handler) -> Result<(), Error> {
        if !more {
            return Err(Error::ExpectedMore {});
        }
        self.stream = Some(Stream::Feed(match request {
            Request::Capture(spec) => handler.capture(&self.peer, spec)?,
            Request::Monitor { last } => handler.monitor(last.unwrap_or_default())?,
            other => return Err(Error::MethodNotImplemented { method: other.method().to_owned() }),
        }));
        Ok(())
    }

    /// Sends a reply of a feed.
    fn put_fed(&mut self, (reply, last): (Reply, bool)) {
        if last {
            self.stream = None;
        }
        self.put(&Ok(Answer::from(reply)));
    }

    /// Refuses a malformed message. Nothing further from the client can be parsed reliably.
    fn refuse(&mut self) {
        self.input.clear();
        self.searched = 0;
        self.partial_since = None;
        self.ending = true;
        self.put(&Err(Error::invalid("")));
    }

    fn put(&mut self, result: &Result<Answer, Error>) {
        let continues = self.stream.is_some() && result.is_ok();
        if let Err(error) = message::write_result(result, continues, &mut self.output) {
            tracing::error!("control socket: a reply can't be written: {error}");
            self.ending = true;
        }
    }
}

/// True if only peers that may change the switch may make this request: changes, captures of frames, and work whose
/// cost the caller sets. A configuration to be checked is up to a mebibyte of text to parse and of filters to compile.
fn needs_the_right_to_change(request: &Request) -> bool {
    use Request::{Capture, Change, CheckConfig, DiffConfig};
    matches!(request, Change(_) | Capture(_) | CheckConfig(_) | DiffConfig { .. })
}

/// Most descriptors that one message can bring (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

/// Reads the available bytes. Descriptors that came with the bytes go to the account, to be closed by another thread:
/// their sender may decide how long closing takes. With a plain read(2) the kernel would close them on this thread.
fn receive(socket: &UnixStream, chunk: &mut [u8], descriptors: &Account) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(chunk)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fds.for_each(|fd| drop(PeerFd::new(fd, descriptors)));
        }
    }
    if descriptors.is_overdrawn() {
        return Err(io::Error::other("too many descriptors were sent"));
    }
    Ok(received.bytes)
}

/// The stream that a call with `more` starts; none for a method with one reply.
fn stream_of(request: Request, now: Instant) -> Option<Stream> {
    let Request::GetStats { interval_milliseconds, .. } = &request else { return None };
    let milliseconds = interval_milliseconds.unwrap_or(DEFAULT_INTERVAL_MILLISECONDS).max(MIN_INTERVAL_MILLISECONDS);
    let interval = Duration::from_millis(milliseconds.into());
    Some(Stream::Repeat { request: Box::new(request), interval, due: now + interval })
}
