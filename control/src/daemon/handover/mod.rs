//! Hands the switch over to a new process, and takes it over from an old one ([`crate::takeover`] describes the
//! protocol).
//!
//! **How it works.** The [`Door`] listens beside the control socket. A visitor is a process that connects to it, as
//! root or as the user of the switch. Each visitor is heard by a thread of its own, so that a silent or garbling one
//! costs the switch nothing. When a visitor is ready for the state, the control thread carries out the rest with it in
//! one go (`give`). Meanwhile the control thread serves nobody else: the state does not change, and messages of front
//! ends and clients wait in their sockets. The workers run until the last moment. `take` is the new process's side.
//!
//! **Invariants.**
//! - The control thread waits for the new process no longer than the timeouts of [`crate::takeover`].
//! - If a port can't be handed over, the switch refuses before anything is touched.
//! - After a take-over the old process ends without undoing anything; after a failed one the new process does.

mod error;
mod give;
mod service;
mod take;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use labsw_dataplane::reaper::PeerFd;
use labsw_dataplane::sys::socket::{self, Credentials, SocketAccess, SocketError, SocketFile};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::{SocketFlags, accept_with};

use crate::takeover::{Channel, HELLO_PATIENCE, Message, WireError};

pub use error::TakeOverError;
pub use take::Successor;

/// Length of the queue of connections that wait to be accepted.
const BACKLOG: i32 = 4;
/// Connections accepted in one go.
const ACCEPTS: usize = 4;

/// The socket for take-overs.
pub(super) struct Door {
    listener: SocketFile,
    steps: Receiver<Step>,
    desk: Desk,
}

/// The shared state of the threads that hear visitors.
#[derive(Clone)]
struct Desk {
    steps: Sender<Step>,
    waker: Arc<mio::Waker>,
    /// A visitor is being served.
    busy: Arc<AtomicBool>,
}

/// A request of a visitor to the control thread.
enum Step {
    /// Asks for the configuration.
    Welcome(Sender<Message>),
    /// Asks for the switch.
    Prepare(Channel),
}

impl Door {
    /// Listens at `path`.
    pub(super) fn listen(path: &Path, waker: &Arc<mio::Waker>) -> Result<Door, SocketError> {
        let access = SocketAccess { mode: 0o600, owner: None, group: None };
        Ok(Door::of(SocketFile::listen(path, access, BACKLOG)?, waker))
    }

    /// Adopts a socket that another process listens on. The socket stays that process's until [`Door::own`].
    pub(super) fn adopt(listener: OwnedFd, path: &Path, waker: &Arc<mio::Waker>) -> Door {
        Door::of(SocketFile::adopt(listener, path), waker)
    }

    fn of(listener: SocketFile, waker: &Arc<mio::Waker>) -> Door {
        let (sender, steps) = unbounded();
        let desk = Desk { steps: sender, waker: Arc::clone(waker), busy: Arc::default() };
        Door { listener, steps, desk }
    }

    /// Makes this process the owner of the socket.
    fn own(&mut self) {
        self.listener.own();
    }

    /// The listening socket.
    fn socket(&self) -> BorrowedFd<'_> {
        self.listener.socket()
    }

    /// Registers the socket with the event loop.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket().as_raw_fd()), token, Interest::READABLE)
    }

    /// Accepts visitors.
    pub(super) fn ready(&self) {
        for _ in 0..ACCEPTS {
            match accept_with(self.socket(), SocketFlags::CLOEXEC) {
                Ok(visitor) => self.admit(visitor),
                Err(_) => return,
            }
        }
    }

    fn admit(&self, visitor: OwnedFd) {
        let who = socket::credentials(visitor.as_fd());
        let refusal = match who {
            Ok(who) if !may_take_over(who) => {
                format!("{who} may not take over: only root and the switch's own user may")
            }
            Ok(_) if self.desk.busy.swap(true, Ordering::AcqRel) => "another take-over is under way".to_owned(),
            Ok(who) => match self.desk.serve(visitor, who) {
                Ok(()) => return,
                Err(error) => return tracing::warn!(%error, "take-over: cannot start a thread for the request"),
            },
            Err(error) => return tracing::warn!(%error, "take-over: the credentials of the peer are not known"),
        };
        tracing::warn!("take-over refused: {refusal}");
        // The send buffer of a new socket has room for this message.
        if let Ok(mut channel) = Channel::new(UnixStream::from(visitor), HELLO_PATIENCE) {
            channel.refuse(&refusal);
            close(channel);
        }
    }

    /// The next request of a visitor, if there is one.
    fn next(&self) -> Option<Step> {
        self.steps.try_recv().ok()
    }

    /// Makes the door free for the next visitor.
    fn is_free(&self) {
        self.desk.busy.store(false, Ordering::Release);
    }
}

/// True if a process with these credentials may take over the switch.
fn may_take_over(who: Credentials) -> bool {
    who.uid == 0 || who.uid == rustix::process::geteuid().as_raw()
}

impl Desk {
    /// Hears a visitor on a thread of its own.
    fn serve(&self, visitor: OwnedFd, who: Credentials) -> io::Result<()> {
        let desk = self.clone();
        let hear = move || {
            if let Err(error) = desk.hear(visitor) {
                tracing::warn!(pid = who.pid, "take-over refused: {error}");
                desk.busy.store(false, Ordering::Release);
            }
        };
        let spawned = std::thread::Builder::new().name("take-over".to_owned()).spawn(hear);
        spawned.map(drop).inspect_err(|_| self.busy.store(false, Ordering::Release))
    }

    /// Speaks with a visitor up to the request for the state.
    fn hear(&self, visitor: OwnedFd) -> Result<(), WireError> {
        let mut channel = Channel::new(UnixStream::from(visitor), HELLO_PATIENCE)?;
        match self.greet(&channel) {
            Ok(true) => self.tell(Step::Prepare(channel)),
            Ok(false) => {
                tracing::info!("the new process was started from the same program file, and leaves");
                close(channel);
                self.busy.store(false, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                // A visitor that sends garbage may still be able to read.
                channel.refuse(&error);
                close(channel);
                Err(error)
            }
        }
    }

    /// Exchanges greetings. The answer says whether the visitor wants the switch.
    fn greet(&self, channel: &Channel) -> Result<bool, WireError> {
        match channel.receive()?.0 {
            Message::Hello { program } => tracing::info!(program, "a new process asks to take over"),
            other => return Err(WireError::OutOfTurn(other.name())),
        }
        let (answer, answered) = bounded(1);
        self.tell(Step::Welcome(answer))?;
        let welcome = answered.recv_timeout(HELLO_PATIENCE).map_err(|_| WireError::TimedOut)?;
        channel.send(&welcome, &[])?;
        match channel.receive()?.0 {
            Message::Prepare => Ok(true),
            Message::SameProgram => Ok(false),
            other => Err(WireError::OutOfTurn(other.name())),
        }
    }

    fn tell(&self, step: Step) -> Result<(), WireError> {
        self.steps.send(step).map_err(|_| WireError::Closed)?;
        Ok(self.waker.wake()?)
    }
}

/// Closes a connection on the helper thread: descriptors waiting in it may make the close slow.
fn close(channel: Channel) {
    drop(PeerFd::from(OwnedFd::from(channel.into_socket())));
}

/// Opens the socket for take-overs; if that fails, only logs a warning.
pub(super) fn open_door(control_socket: &Path, waker: &Arc<mio::Waker>) -> Option<Door> {
    let path: PathBuf = crate::takeover::socket_path(control_socket);
    match Door::listen(&path, waker) {
        Ok(door) => Some(door),
        Err(error) => {
            tracing::warn!(%error, "no other labswd will be able to take over from this one");
            None
        }
    }
}
