//! One connected front end: its requests, one at a time, and how long it may keep silent.
//!
//! **How it works.** [`Connection::serve_next`] reads one request, has the [`Session`] handle it, and sends the reply.
//! [`Connection::silence`] compares the time since the front end was heard with the patience of the port: a front end
//! that never sends a request, or stops in the middle of one, is at fault. One that shares no memory is not, but its
//! port then says why it has no traffic.
//!
//! Reference: vhost-user.rst, "Communication".

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::FrontendReq;

use super::changes::Changes;
use super::door::Door;
use super::settings::Timing;
use crate::reaper::PeerFd;
use crate::sys::socket::Credentials;
use crate::vhost_user::message::{self, Inbox, Received, Reply};
use crate::vhost_user::operation::Rings;
use crate::vhost_user::session::Session;

/// Why a front end is disconnected whose descriptors do not close.
const SLOW_DESCRIPTORS: &str = "the front end sends descriptors that take long to close (sockets that linger, or files of \
                                a slow file server)";
/// The request whose refusal does not end the connection.
const NET_SET_MTU: u32 = FrontendReq::NET_SET_MTU as u32;

/// A connected front end.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: PeerFd,
    /// The process at the other end, if the kernel knows.
    pub(super) who: Option<Credentials>,
    pub(super) inbox: Inbox,
    pub(super) since: Instant,
    /// When it last sent part of a request; `None` before the first.
    pub(super) heard: Option<Instant>,
    /// Another front end was refused for this one.
    pub(super) contested: bool,
    /// A turn ended before the socket was empty.
    pub(super) more: bool,
    /// It had time enough to share its memory: if it has not, that is explained.
    pub(super) explained: bool,
}

/// The outcome of [`Connection::serve_next`].
pub(super) enum Served {
    /// A request was served.
    One,
    /// The socket has no whole request.
    Pending,
    /// The connection is over, for a fault or, with `None`, because the front end left.
    Over(Option<String>),
}

/// Why a front end that does not go on loses its port.
pub(super) enum Silence {
    /// Another one came. No fault: this one would have others wait.
    Contested,
    /// A fault, in words.
    Fault(String),
}

impl Connection {
    /// A front end that connected at `now`.
    pub(super) fn new(socket: PeerFd, who: Option<Credentials>, now: Instant) -> Connection {
        let inbox = Inbox::default();
        Connection { socket, who, inbox, since: now, heard: None, contested: false, more: false, explained: false }
    }

    /// Serves the next request, if the socket has a whole one.
    pub(super) fn serve_next(
        &mut self,
        session: &mut Session,
        rings: &mut dyn Rings,
        door: &mut Door,
        changes: &mut Changes,
        now: Instant,
    ) -> Served {
        self.more = false;
        let was_partial = self.inbox.is_partial();
        match message::receive(self.socket.as_fd(), &mut self.inbox, door.account()) {
            Ok(Received::Message(request, fds)) => {
                self.heard = Some(now);
                changes.note();
                let outcome = session.handle(&request, fds, rings);
                if let (NET_SET_MTU, Some(reason)) = (request.code, session.mtu_refused()) {
                    door.warn(now, &format!("MTU refused: {reason}"));
                }
                let (reply, error) = match outcome {
                    Ok(reply) => (reply, None),
                    Err(error) => {
                        let refusal = Reply { code: request.code, value: 1 };
                        (session.acknowledges(&request).then_some(refusal), Some(error.to_string()))
                    }
                };
                let sent = reply.map_or(Ok(()), |reply| message::reply(self.socket.as_fd(), &reply));
                match error.or_else(|| sent.err().map(|error| error.to_string())) {
                    Some(reason) => Served::Over(Some(reason)),
                    None if door.account().is_overdrawn() => Served::Over(Some(SLOW_DESCRIPTORS.to_owned())),
                    None => Served::One,
                }
            }
            Ok(Received::Pending) => {
                if self.inbox.is_partial() {
                    changes.note();
                }
                if self.inbox.is_partial() && !was_partial {
                    self.heard = Some(now);
                }
                Served::Pending
            }
            Ok(Received::Closed) => Served::Over(None),
            Err(error) => Served::Over(Some(error.to_string())),
        }
    }

    /// Why the front end has been silent for too long, if it has. Records when one that talks had time enough to share
    /// its memory.
    pub(super) fn silence(&mut self, timing: &Timing, now: Instant) -> Option<Silence> {
        let Timing { patience, contested, .. } = *timing;
        if self.yields_at(contested).is_some_and(|due| now >= due) {
            return Some(Silence::Contested);
        }
        let seconds = patience.as_secs_f32();
        match self.heard {
            None if now >= self.since + patience => {
                Some(Silence::Fault(format!("the front end connected and sent nothing for {seconds} s")))
            }
            Some(heard) if self.inbox.is_partial() && now >= heard + patience => {
                let reason = format!("the front end sent half a request and nothing more for {seconds} s");
                Some(Silence::Fault(reason))
            }
            _ => {
                self.explained |= now >= self.since + patience;
                None
            }
        }
    }

    /// When [`Connection::silence`] has something to do.
    pub(super) fn deadline(&self, timing: &Timing) -> Option<Instant> {
        match self.heard {
            Some(heard) if self.inbox.is_partial() => Some(heard + timing.patience),
            Some(_) if self.explained => None,
            _ => Some(self.yields_at(timing.contested).unwrap_or(self.since + timing.patience)),
        }
    }

    /// When it loses its place to another front end, unless it sends a request before.
    fn yields_at(&self, contested: Duration) -> Option<Instant> {
        (self.contested && self.heard.is_none()).then(|| self.since + contested)
    }
}
