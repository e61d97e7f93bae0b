//! The switch handed over to a new process, and taken over from an old one ([`crate::takeover`] says how they speak).
//!
//! **How it works.** The [`Door`] listens beside the control socket. Whoever connects is root, or the user of the
//! switch; a thread of its own hears what it wants, so that one that is silent or talks nonsense costs nothing. When it
//! is ready for the state, the control thread goes through the rest with it in one go (`give`): it serves nobody else
//! meanwhile, so nothing changes under the state, and what front ends and clients send waits in their sockets. The
//! workers go on until the last moment. `take` is the same from the other side.
//!
//! **Invariants.**
//! - The control thread waits for the new process at most as long as the patiences of [`crate::takeover`] say.
//! - A port that can't be handed over makes the switch refuse, before anything is touched.
//! - After a take-over the old process ends without undoing anything; after a failed one, the new one does.

mod error;
mod give;
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

/// Processes that wait to be accepted.
const BACKLOG: i32 = 4;
/// Accepted in one go.
const ACCEPTS: usize = 4;

/// The socket for take-overs.
pub(super) struct Door {
    listener: SocketFile,
    steps: Receiver<Step>,
    desk: Desk,
}

/// What the thread of a visitor needs.
#[derive(Clone)]
struct Desk {
    steps: Sender<Step>,
    waker: Arc<mio::Waker>,
    /// There is a visitor.
    busy: Arc<AtomicBool>,
}

/// What a visitor wants of the control thread.
enum Step {
    /// The configuration.
    Welcome(Sender<Message>),
    /// The switch.
    Prepare(Channel),
}

impl Door {
    /// Listens at `path`.
    pub(super) fn listen(path: &Path, waker: &Arc<mio::Waker>) -> Result<Door, SocketError> {
        let access = SocketAccess { mode: 0o600, owner: None, group: None };
        Ok(Door::of(SocketFile::listen(path, access, BACKLOG)?, waker))
    }

    /// Takes over a socket that another process listens on; it stays that one's until [`Door::own`].
    pub(super) fn adopt(listener: OwnedFd, path: &Path, waker: &Arc<mio::Waker>) -> Door {
        Door::of(SocketFile::adopt(listener, path), waker)
    }

    fn of(listener: SocketFile, waker: &Arc<mio::Waker>) -> Door {
        let (sender, steps) = unbounded();
        let desk = Desk { steps: sender, waker: Arc::clone(waker), busy: Arc::default() };
        Door { listener, steps, desk }
    }

    /// The socket is ours from now on.
    fn own(&mut self) {
        self.listener.own();
    }

    /// The listening socket.
    fn socket(&self) -> BorrowedFd<'_> {
        self.listener.socket()
    }

    /// Has the event loop wait for visitors.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket().as_raw_fd()), token, Interest::READABLE)
    }

    /// Takes visitors in.
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
                Err(error) => return tracing::warn!(%error, "take-over: no thread to hear what is wanted"),
            },
            Err(error) => return tracing::warn!(%error, "take-over: who is there is not known"),
        };
        tracing::warn!("take-over refused: {refusal}");
        // A new socket has room for this.
        if let Ok(mut channel) = Channel::new(UnixStream::from(visitor), HELLO_PATIENCE) {
            channel.refuse(&refusal);
            close(channel);
        }
    }

    /// What a visitor wants, if there is one.
    fn next(&self) -> Option<Step> {
        self.steps.try_recv().ok()
    }

    /// There is no visitor any more.
    fn is_free(&self) {
        self.desk.busy.store(false, Ordering::Release);
    }
}

/// Whether a process may have the switch.
fn may_take_over(who: Credentials) -> bool {
    who.uid == 0 || who.uid == rustix::process::geteuid().as_raw()
}

impl Desk {
    /// Hears a visitor, on a thread.
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

    /// Goes with a visitor as far as the state.
    fn hear(&self, visitor: OwnedFd) -> Result<(), WireError> {
        let mut channel = Channel::new(UnixStream::from(visitor), HELLO_PATIENCE)?;
        match self.greet(&channel) {
            Ok(()) => self.tell(Step::Prepare(channel)),
            Err(error) => {
                // Who garbles its words may still read ours.
                channel.refuse(&error);
                close(channel);
                Err(error)
            }
        }
    }

    fn greet(&self, channel: &Channel) -> Result<(), WireError> {
        match channel.receive()?.0 {
            Message::Hello { program } => tracing::info!(program, "a new process asks to take over"),
            other => return Err(WireError::OutOfTurn(other.name())),
        }
        let (answer, answered) = bounded(1);
        self.tell(Step::Welcome(answer))?;
        let welcome = answered.recv_timeout(HELLO_PATIENCE).map_err(|_| WireError::TimedOut)?;
        channel.send(&welcome, &[])?;
        match channel.receive()?.0 {
            Message::Prepare => Ok(()),
            other => Err(WireError::OutOfTurn(other.name())),
        }
    }

    fn tell(&self, step: Step) -> Result<(), WireError> {
        self.steps.send(step).map_err(|_| WireError::Closed)?;
        Ok(self.waker.wake()?)
    }
}

/// Closes a connection where that may take its time: descriptors may wait in it.
fn close(channel: Channel) {
    drop(PeerFd::from(OwnedFd::from(channel.into_socket())));
}

/// Where the socket for take-overs is, and a warning if there can be none.
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
