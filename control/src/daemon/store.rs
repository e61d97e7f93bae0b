//! Guests' connections outlive a crash: systemd's file-descriptor store keeps them.
//!
//! **How it works.** Each port whose state is kept has a shelf: a pair of connected sockets. systemd keeps a copy of
//! the reading end (`FDSTORE=1`), and unread in the pair lies one message, [`Message::Kept`]: the state of the port
//! with its descriptors, in the form of a take-over. A new state is written behind the old one, which is then read
//! away. Before a guest's front end changes anything, [`Message::Stale`] is written behind the state. If the process
//! dies, systemd gives the reading ends to the next one (`LISTEN_FDS=`), which reads each to its end ([`Found`]): a
//! port whose last message is its state can be served where it stood; the front end of any other port connects again.
//!
//! **Invariants.** A state is used only if the dead process had finished whatever its front end asked for. A shelf is
//! given up before its state is used, so a state that makes the switch crash does so once. A shelf holds one state, and
//! there are as many shelves as ports at most. The unit's `FileDescriptorStoreMax=` has room for all.
//!
//! References: sd_notify(3) `FDSTORE=1`, `FDNAME=`, `FDPOLL=0`; sd_listen_fds(3); unix(7).

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use labsw_dataplane::reaper::PeerFd;
use labsw_dataplane::sys::socket;
use labsw_switch::MAX_PORTS;
use sd_notify::NotifyState;

use crate::takeover::state::{KeptPort, Message};
use crate::takeover::{Channel, WireError};

/// The longest wait at a shelf; it has room for what is written, and there is what is read.
const PATIENCE: Duration = Duration::from_millis(100);
/// The names of shelves begin so.
const PREFIX: &str = "port.";

/// The shelves of this process.
#[derive(Default)]
pub(super) struct Store {
    /// A service manager keeps descriptors.
    pub(super) is_open: bool,
    shelves: BTreeMap<String, Shelf>,
}

struct Shelf {
    reader: Channel,
    writer: Arc<Mutex<Writer>>,
    revision: u64,
}

/// The writing end of a shelf.
pub(super) struct Writer {
    channel: Channel,
    /// Messages that lie in the shelf.
    messages: usize,
    stale: bool,
}

impl Store {
    /// The store of the service manager, if there is one.
    pub(super) fn of_service() -> Store {
        Store { is_open: std::env::var_os("NOTIFY_SOCKET").is_some(), shelves: BTreeMap::new() }
    }

    /// True if the state of this revision is kept.
    pub(super) fn has(&self, name: &str, revision: u64) -> bool {
        self.shelves.get(name).is_some_and(|shelf| shelf.revision == revision)
    }

    /// Keeps a state. A new shelf's writer is given back.
    pub(super) fn keep(
        &mut self,
        name: &str,
        revision: u64,
        kept: KeptPort,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<Arc<Mutex<Writer>>>, WireError> {
        let mut new = None;
        let shelf = match self.shelves.remove(name) {
            Some(shelf) => shelf,
            None if self.shelves.len() >= MAX_PORTS => return Ok(None),
            None => {
                let shelf = Shelf::put_up(name)?;
                new = Some(Arc::clone(&shelf.writer));
                shelf
            }
        };
        let mut shelf = Shelf { revision, ..shelf };
        match shelf.replace(kept, descriptors) {
            Ok(()) => drop(self.shelves.insert(name.to_owned(), shelf)),
            Err(error) => {
                shelf.take_down(name);
                return Err(error);
            }
        }
        Ok(new)
    }

    /// Gives up the shelves of all ports but these.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.shelves.keys().filter(|name| !is_there(name)).cloned().collect();
        for name in gone {
            if let Some(shelf) = self.shelves.remove(&name) {
                shelf.take_down(&name);
            }
        }
    }

    /// Gives up all shelves.
    pub(super) fn clear(&mut self) {
        self.retain(|_| false);
    }
}

impl Shelf {
    /// A new shelf, of which the service manager has a copy. A former one of this name is given up.
    fn put_up(name: &str) -> Result<Shelf, WireError> {
        let (reader, writer) = UnixStream::pair()?;
        give_up(name);
        let name = shelf_name(name);
        // Without FDPOLL=0 the service manager would let go of it when this process dies.
        let states = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
        sd_notify::notify_with_fds(&states, &[std::os::fd::AsFd::as_fd(&reader)])?;
        let (reader, channel) = (Channel::new(reader, PATIENCE)?, Channel::new(writer, PATIENCE)?);
        Ok(Shelf { reader, writer: Arc::new(Mutex::new(Writer { channel, messages: 0, stale: false })), revision: 0 })
    }

    fn replace(&mut self, kept: KeptPort, descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let mut writer = lock(&self.writer);
        writer.channel.allow(PATIENCE);
        writer.channel.send(&Message::Kept(Box::new(kept)), descriptors)?;
        (writer.messages, writer.stale) = (writer.messages + 1, false);
        while writer.messages > 1 {
            read_away(&mut self.reader)?;
            writer.messages -= 1;
        }
        Ok(())
    }

    fn take_down(mut self, name: &str) {
        let messages = lock(&self.writer).messages;
        // After an error the rest goes with the pair.
        let _ = (0..messages).try_for_each(|_| read_away(&mut self.reader));
        give_up(name);
    }
}

impl Writer {
    /// Marks the state as out of date: something is about to change.
    pub(super) fn mark_stale(&mut self) {
        if std::mem::replace(&mut self.stale, true) {
            return;
        }
        self.channel.allow(PATIENCE);
        match self.channel.send(&Message::Stale, &[]) {
            Ok(()) => self.messages += 1,
            Err(error) => tracing::warn!(%error, "what is kept of a port for the case of a crash is out of date"),
        }
    }
}

pub(super) fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shelf_name(port: &str) -> String {
    format!("{PREFIX}{port}")
}

/// Has the service manager close its copy of a shelf.
fn give_up(name: &str) {
    super::signals::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&shelf_name(name))]);
}

/// Reads the next message, and closes its descriptors where that may take long.
fn read_away(reader: &mut Channel) -> Result<(), WireError> {
    reader.allow(PATIENCE);
    let (_, descriptors) = reader.receive()?;
    close(descriptors);
    Ok(())
}

/// Closes descriptors where that may take long.
pub(super) fn close(descriptors: Vec<OwnedFd>) {
    descriptors.into_iter().for_each(|fd| drop(PeerFd::from(fd)));
}

/// The states that a dead process left.
#[derive(Debug, Default)]
pub struct Found(pub(super) BTreeMap<String, (KeptPort, Vec<OwnedFd>)>);

impl Found {
    /// Takes what the service manager kept, and has it give up its copies. To be called once, first of all.
    pub fn look() -> Found {
        let mut found = Found::default();
        let descriptors = match sd_notify::listen_fds_with_names() {
            Ok(descriptors) => descriptors,
            Err(error) => {
                tracing::warn!(%error, "what the service manager kept is not used");
                return found;
            }
        };
        for (fd, name) in descriptors {
            let Some(socket) = socket::inherited(fd) else { continue };
            let Some(port) = name.strip_prefix(PREFIX) else { continue };
            give_up(port);
            match last_state(socket) {
                Ok(Some(state)) => drop(found.0.insert(port.to_owned(), state)),
                Ok(None) => tracing::info!(port, "its guest has to connect again: it was changing something"),
                Err(error) => tracing::warn!(port, %error, "its guest has to connect again"),
            }
        }
        found
    }
}

/// The state that lies last in a shelf, if it is the last message.
fn last_state(shelf: OwnedFd) -> Result<Option<(KeptPort, Vec<OwnedFd>)>, WireError> {
    let mut reader = Channel::new(UnixStream::from(shelf), PATIENCE)?;
    let mut last = None;
    loop {
        reader.allow(PATIENCE);
        let before = match reader.receive() {
            Ok((Message::Kept(kept), descriptors)) => last.replace((*kept, descriptors)),
            Ok((_, descriptors)) => {
                close(descriptors);
                last.take()
            }
            Err(WireError::Closed) => return Ok(last),
            Err(error) => {
                close(last.map(|(_, descriptors)| descriptors).unwrap_or_default());
                return Err(error);
            }
        };
        close(before.map(|(_, descriptors)| descriptors).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::takeover::state::PortState;

    fn kept(enabled: bool) -> KeptPort {
        KeptPort { settings: String::new(), port: PortState { enabled, ..PortState::default() } }
    }

    /// A shelf, and the copy of its reading end that outlives it.
    fn shelf() -> (Shelf, OwnedFd) {
        let (reader, writer) = UnixStream::pair().unwrap();
        let copy = reader.as_fd().try_clone_to_owned().unwrap();
        let (reader, channel) = (Channel::new(reader, PATIENCE).unwrap(), Channel::new(writer, PATIENCE).unwrap());
        let writer = Arc::new(Mutex::new(Writer { channel, messages: 0, stale: false }));
        (Shelf { reader, writer, revision: 0 }, copy)
    }

    #[test]
    fn the_last_state_counts_unless_something_was_changing() {
        let null = File::open("/dev/null").unwrap();
        let (mut one, copy) = shelf();
        one.replace(kept(false), &[null.as_fd()]).unwrap();
        one.replace(kept(true), &[null.as_fd(), null.as_fd()]).unwrap();
        assert_eq!(lock(&one.writer).messages, 1, "no more than one state lies there");
        drop(one);
        let (state, descriptors) = last_state(copy).unwrap().unwrap();
        assert!(state.port.enabled);
        assert_eq!(descriptors.len(), 2);

        let (mut one, copy) = shelf();
        one.replace(kept(true), &[null.as_fd()]).unwrap();
        lock(&one.writer).mark_stale();
        lock(&one.writer).mark_stale();
        assert_eq!(lock(&one.writer).messages, 2);
        let other = copy.try_clone().unwrap();
        drop(one);
        assert!(last_state(copy).unwrap().is_none());
        drop(other);

        let (mut one, copy) = shelf();
        one.replace(kept(true), &[]).unwrap();
        lock(&one.writer).mark_stale();
        one.replace(kept(true), &[]).unwrap();
        assert_eq!(lock(&one.writer).messages, 1);
        drop(one);
        assert!(last_state(copy).unwrap().is_some());
    }

    #[test]
    fn a_shelf_that_no_state_lies_in_or_that_is_none_gives_nothing() {
        let (one, copy) = shelf();
        drop(one);
        assert!(last_state(copy).unwrap().is_none());
        let (a, b) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &a, b"GET / HTTP/1.1\r\nHost: labsw\r\n\r\n").unwrap();
        drop(a);
        assert!(last_state(b.into()).is_err());
        // A writer that still lives is not waited for.
        let (one, copy) = shelf();
        assert!(matches!(last_state(copy), Err(WireError::TimedOut)));
        drop(one);
    }
}
