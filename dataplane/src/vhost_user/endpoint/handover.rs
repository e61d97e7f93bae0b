//! An endpoint that goes on in another process: its listening socket, its connection, and the session on it.
//!
//! **How it works.** The event loop that hands over serves no request after [`Endpoint::hand_over`]: messages of the
//! front end wait in the socket, and the other process reads them. That process makes an endpoint with
//! [`Endpoint::take_over`], which touches no ring and no file, and has it serve with [`Endpoint::resume`] once the
//! first process has stopped serving.
//!
//! **Invariant.** An adopted endpoint that is dropped before it resumes leaves the socket file, the connection and the
//! rings alone: they still belong to the other process.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::changes::Changes;
use super::connection::Connection;
use super::door::Door;
use super::{Endpoint, EndpointConfig, Rings, Session};
use crate::handover::{Given, HandoverError, Resume, Slot, Taken};
use crate::port::next_connection;
use crate::sys::socket::{self, SocketFile};
use crate::vhost_user::message::InboxHandover;
use crate::vhost_user::session::SessionHandover;

/// The state of an endpoint that is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EndpointHandover {
    listener: Option<Slot>,
    connection: Option<ConnectionHandover>,
    turned_away: u64,
    /// The last front end was disconnected for a fault, or the port is not up for another reason.
    failed: bool,
    reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct ConnectionHandover {
    socket: Slot,
    inbox: InboxHandover,
    /// The front end has sent part of a request.
    heard: bool,
    explained: bool,
    session: SessionHandover,
}

impl Endpoint {
    /// The state of the endpoint, with its descriptors in `given`.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> EndpointHandover {
        EndpointHandover {
            listener: self.listener.as_ref().map(|listener| given.put(listener.socket())),
            connection: self.connection.as_ref().map(|connection| ConnectionHandover {
                socket: given.put(connection.socket.as_fd()),
                inbox: connection.inbox.hand_over(given),
                heard: connection.heard.is_some(),
                explained: connection.explained,
                session: self.session.hand_over(given),
            }),
            turned_away: self.door.turned_away,
            failed: self.failed,
            reason: self.reason.clone(),
        }
    }

    /// Makes an endpoint of the state that another process hands over; that process still serves.
    ///
    /// # Errors
    /// The state does not fit, or memory can't be mapped; nothing was touched.
    pub fn take_over(
        config: EndpointConfig,
        rings: Box<dyn Rings + Send>,
        handover: EndpointHandover,
        taken: &mut Taken,
    ) -> Result<Endpoint, HandoverError> {
        let mut session =
            Session::new(config.queue_pairs, config.mtu, config.offloads).within(Arc::clone(&config.memory_limit));
        let mut door = Door::new(&config);
        door.turned_away = handover.turned_away;
        let listener = handover.listener.map(|slot| taken.take(slot)).transpose()?;
        let listener = listener.map(|listener| SocketFile::adopt(listener, &config.path));
        let now = Instant::now();
        let (mut connection, mut number, mut adopted) = (None, 0, None);
        if let Some(handover) = handover.connection {
            let socket = door.own(taken.take(handover.socket)?);
            let who = socket::credentials(socket.as_fd()).ok();
            let inbox = handover.inbox.adopt(taken, door.account())?;
            adopted = Some(session.adopt(&handover.session, taken, door.account())?);
            number = next_connection();
            session.begin(number);
            connection = Some(Connection {
                inbox,
                heard: handover.heard.then_some(now),
                more: true,
                explained: handover.explained,
                ..Connection::new(socket, who, now)
            });
        }
        Ok(Endpoint {
            config,
            rings,
            session,
            listener,
            connection,
            number,
            served: false,
            registration: None,
            next_attempt: Some(now),
            door,
            failed_number: 0,
            failed: handover.failed,
            reason: handover.reason,
            adopted: Some(adopted.unwrap_or_default()),
            changes: Changes::default(),
            interrupts: false,
        })
    }

    /// A number that has changed if the state that [`Endpoint::hand_over`] gives has.
    pub fn revision(&self) -> u64 {
        self.changes.count
    }

    /// Has this called each time before that state changes.
    pub fn tell_changes(&mut self, tell: Box<dyn FnMut() + Send>) {
        self.changes.tell = Some(tell);
    }

    /// Has the guest interrupted once it is served again: the process that served it may have died before it did that.
    pub fn interrupt_once_resumed(&mut self) {
        self.interrupts = true;
    }

    /// Serves an endpoint that was taken over, one direction a call. The first call starts those of the guest's receive
    /// rings that ran, so frames leave; the second starts its transmit rings, so frames are received. The caller can
    /// thus start the way out of all ports first. A front end whose rings can't be started is disconnected, as if they
    /// had broken now.
    pub fn resume(&mut self, way: Resume, now: Instant) {
        let Some(running) = &self.adopted else { return };
        let of_this_way = |index: &&u16| index.is_multiple_of(2) == (way == Resume::Out);
        let rings: Vec<u16> = running.iter().filter(of_this_way).copied().collect();
        if way == Resume::In {
            self.adopted = None;
            if let Some(listener) = &mut self.listener {
                listener.own();
            }
        }
        self.changes.note();
        let started = self.session.start_all(&rings, self.rings.as_mut());
        let interrupts = way == Resume::In && std::mem::take(&mut self.interrupts);
        let interrupted = started.and_then(|()| match interrupts {
            true => self.session.interrupt_all(self.rings.as_mut()),
            false => Ok(()),
        });
        if let Err(error) = interrupted {
            self.disconnect(Some(error.to_string()), now);
        }
    }
}
