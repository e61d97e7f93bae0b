//! Closing descriptors whose close may block.
//!
//! **Why.** The last `close` of a descriptor runs the file's own code. A TCP socket with `SO_LINGER` blocks for its
//! linger time, a file on FUSE or NFS until a server has answered. A peer that passes such a descriptor (`SCM_RIGHTS`)
//! decides how long the receiver hangs. A Unix socket is no better: closing one closes every descriptor that waits
//! unread in it, and closing a listening socket closes the connections in its backlog.
//!
//! **How it works.** A [`PeerFd`] owns a descriptor that came from a peer, or a socket that a peer can write to. When
//! it is dropped, its descriptor goes to a queue, and threads that do nothing else close what is in the queue. The
//! threads start on demand, [`MAX_THREADS`] at most. Each descriptor belongs to the [`Account`] of its peer, and an
//! account has one thread at a time: a peer whose descriptors block holds up its own descriptors only. A descriptor
//! known to close at once (an eventfd, shared memory) leaves the queue's care with [`PeerFd::keep`].
//!
//! **Bounds.** An account with [`MANY_WAITING`] descriptors waiting is overdrawn: its owner disconnects the peer and
//! serves nobody on that account until the queue has drained. Should the bound of an account or of the whole queue be
//! exceeded all the same, the descriptor stays open for good (it leaks), which is counted.
//!
//! **Invariants.** [`PeerFd`]'s drop never blocks and makes no system call except to start a thread. A process that
//! ends while a close blocks ends at once: the kernel does not linger for a process that exits.
//!
//! Reference: socket(7) SO_LINGER, unix(7) SCM_RIGHTS, close(2).

#![allow(unsafe_code, reason = "system calls")]

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
#[cfg(not(all(shuttle, test)))]
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, thread};

/// The most threads that close descriptors.
pub const MAX_THREADS: usize = 16;
/// So many descriptors of one account waiting are too many: the peer is to be disconnected.
pub const MANY_WAITING: usize = 64;
/// The most descriptors of one account that wait; more leak. A message brings at most 253 (`SCM_MAX_FD`).
const MAX_WAITING: usize = 512;
/// The most descriptors of all accounts that wait; more leak.
const MAX_WAITING_IN_ALL: usize = 8192;
/// A thread without work ends after this long, if it is not the only one.
#[cfg(not(all(shuttle, test)))]
const IDLE: Duration = Duration::from_secs(5);
/// A closing thread calls `close` and nothing else.
const STACK_BYTES: usize = 128 << 10;

static REAPER: Reaper<OwnedFd> = Reaper::new();

/// The descriptors of one peer, or of the peers of one socket.
#[derive(Clone, Debug, Default)]
pub struct Account(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Descriptors that wait or are being closed.
    waiting: AtomicUsize,
    /// Descriptors that were left open.
    leaked: AtomicUsize,
    /// A thread is closing one of them. Changes under the queue's lock only.
    busy: AtomicBool,
}

impl Account {
    /// An account without descriptors.
    pub fn new() -> Account {
        Account::default()
    }

    /// Descriptors that are not closed yet.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Relaxed)
    }

    /// Descriptors that were left open because too many waited.
    pub fn leaked(&self) -> usize {
        self.0.leaked.load(Relaxed)
    }

    /// True if too many descriptors wait: the peer is to be disconnected, and no other is to be served in its place.
    pub fn is_overdrawn(&self) -> bool {
        self.waiting() >= MANY_WAITING
    }
}

/// A descriptor that came from a peer, or a socket whose other end a peer holds. Dropping it never blocks.
#[derive(Debug)]
pub struct PeerFd {
    /// Taken in `keep` and in `drop`, and nowhere else.
    fd: ManuallyDrop<OwnedFd>,
    account: Account,
}

impl PeerFd {
    /// Takes `fd` over, on `account`.
    pub fn new(fd: OwnedFd, account: &Account) -> PeerFd {
        PeerFd { fd: ManuallyDrop::new(fd), account: account.clone() }
    }

    /// The plain descriptor, which closes where it is dropped: for files known to close at once.
    pub fn keep(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the fields are taken here once, and `drop`, which takes the descriptor as well, does not run for
        // `this`.
        unsafe {
            std::ptr::drop_in_place(&raw mut this.account);
            ManuallyDrop::take(&mut this.fd)
        }
    }
}

impl From<OwnedFd> for PeerFd {
    /// On an account of its own.
    fn from(fd: OwnedFd) -> PeerFd {
        PeerFd::new(fd, &Account::new())
    }
}

impl AsFd for PeerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for PeerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for PeerFd {
    fn drop(&mut self) {
        // SAFETY: nothing uses the descriptor after `drop`; `keep` took it only from a value that is never dropped.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        REAPER.take(fd, &self.account);
    }
}

/// The queue and its threads. They close (drop) descriptors, or objects that a model observes.
struct Reaper<F: 'static> {
    state: Mutex<State<F>>,
    changed: Condvar,
}

struct State<F> {
    waiting: VecDeque<(F, Account)>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
}

impl<F> State<F> {
    /// The first descriptor whose account no thread is busy with.
    fn next(&mut self) -> Option<(F, Account)> {
        let at = self.waiting.iter().position(|(_, account)| !account.0.busy.load(Relaxed))?;
        self.waiting.remove(at)
    }
}

impl<F: Send> Reaper<F> {
    const fn new() -> Reaper<F> {
        let state = State { waiting: VecDeque::new(), threads: 0, idle: 0 };
        Reaper { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Queues a descriptor, or leaves it open if too many wait.
    fn take(&'static self, fd: F, account: &Account) {
        let mut state = self.lock();
        if account.waiting() >= MAX_WAITING || state.waiting.len() >= MAX_WAITING_IN_ALL {
            account.0.leaked.fetch_add(1, Relaxed);
            std::mem::forget(fd);
            return;
        }
        account.0.waiting.fetch_add(1, Relaxed);
        state.waiting.push_back((fd, account.clone()));
        if state.idle < state.waiting.len() && state.threads < MAX_THREADS {
            let thread = thread::Builder::new().name("closer".to_owned()).stack_size(STACK_BYTES);
            match thread.spawn(|| self.run()) {
                Ok(_) => state.threads += 1,
                // Another thread, or the next one that can be started, closes the waiting descriptors.
                Err(error) => tracing::warn!(%error, "no thread to close descriptors"),
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A thread's life.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some((fd, account)) = state.next() {
                account.0.busy.store(true, Relaxed);
                drop(state);
                drop(fd);
                state = self.lock();
                account.0.busy.store(false, Relaxed);
                account.0.waiting.fetch_sub(1, Relaxed);
                continue;
            }
            state.idle += 1;
            let is_idle;
            (state, is_idle) = self.wait(state);
            state.idle -= 1;
            if is_idle && state.threads > 1 && state.waiting.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(not(all(shuttle, test)))]
impl<F: Send> Reaper<F> {
    /// Waits for work; says whether none came for [`IDLE`].
    fn wait<'a>(&'a self, state: MutexGuard<'a, State<F>>) -> (MutexGuard<'a, State<F>>, bool) {
        let waited = self.changed.wait_timeout(state, IDLE);
        let (state, timeout) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        (state, timeout.timed_out())
    }
}

#[cfg(test)]
#[cfg(shuttle)]
#[path = "reaper/models.rs"]
mod models;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use rustix::net::sockopt::set_socket_linger;

    use super::*;

    /// A descriptor whose close takes `linger`, and the end that does not read.
    fn lingering(linger: Duration) -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (unread, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        set_socket_linger(&stream, Some(linger)).unwrap();
        (stream.into(), unread)
    }

    fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_close_that_blocks_holds_up_its_own_account_only() {
        let (slow, innocent) = (Account::new(), Account::new());
        let linger = Duration::from_secs(2);
        let stuck: Vec<_> = (0..2).map(|_| lingering(linger)).collect();
        let begin = Instant::now();
        let _unread: Vec<TcpStream> = stuck
            .into_iter()
            .map(|(fd, unread)| {
                drop(PeerFd::new(fd, &slow));
                unread
            })
            .collect();
        assert_eq!(slow.waiting(), 2);
        for _ in 0..200 {
            let [reader, writer] = pipe();
            drop(PeerFd::new(writer, &innocent));
            let mut bytes = [0; 1];
            assert_eq!(rustix::io::read(&reader, &mut bytes), Ok(0), "the other end is closed");
        }
        wait_for("the innocent's descriptors are closed", || innocent.waiting() == 0);
        assert!(begin.elapsed() < linger, "{:?}", begin.elapsed());
        assert_eq!(slow.waiting(), 2, "one blocks, the other waits for it");
        wait_for("the slow ones are closed, too", || slow.waiting() == 0);
        assert!(begin.elapsed() >= 2 * linger, "one after the other: {:?}", begin.elapsed());
    }

    #[test]
    fn an_account_with_too_many_is_overdrawn_and_at_last_leaks() {
        let account = Account::new();
        let (fd, _unread) = lingering(Duration::from_secs(3));
        let spare = fd.try_clone().unwrap();
        drop(PeerFd::new(fd, &account));
        // The last close is the one that blocks.
        drop(PeerFd::new(spare, &account));
        wait_for("one blocks", || account.waiting() == 1);
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let leaky = null();
        for _ in 1..MANY_WAITING {
            assert!(!account.is_overdrawn());
            drop(PeerFd::new(null(), &account));
        }
        assert!(account.is_overdrawn());
        for _ in MANY_WAITING..MAX_WAITING {
            drop(PeerFd::new(null(), &account));
        }
        assert_eq!((account.waiting(), account.leaked()), (MAX_WAITING, 0));
        let number = leaky.as_raw_fd();
        drop(PeerFd::new(leaky, &account));
        assert_eq!((account.waiting(), account.leaked()), (MAX_WAITING, 1));
        assert!(std::fs::exists(format!("/proc/self/fd/{number}")).unwrap(), "left open");
        wait_for("all are closed", || account.waiting() == 0);
        assert!(!account.is_overdrawn());
    }

    #[test]
    fn what_is_kept_is_not_queued() {
        let account = Account::new();
        let [reader, writer] = pipe();
        let kept = PeerFd::new(writer, &account).keep();
        assert_eq!(account.waiting(), 0);
        drop(kept);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }

    fn pipe() -> [OwnedFd; 2] {
        let (reader, writer) = std::io::pipe().unwrap();
        [reader.into(), writer.into()]
    }
}
