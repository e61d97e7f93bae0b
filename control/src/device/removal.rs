//! Deletes links without waiting for processes that hold them.
//!
//! `RTM_DELLINK` returns when the last reference to the device has gone. Another process may hold a reference: a
//! container that keeps frames in a queue of its own holds the socket that sent them, and through it the device, for as
//! long as the container likes. The caller of `RTM_DELLINK` can't even be killed meanwhile. A short-lived thread
//! therefore makes each deletion. The caller waits until the link is deleted or is not listed any more (its name is
//! then free, and no program can find it), and at most [`PATIENCE`].
//!
//! **Invariants.** No caller waits longer than [`PATIENCE`]. At most [`MAX_UNFINISHED`] deletions are unfinished in
//! this namespace; a further one is refused.
//!
//! Reference: kernel net/core/dev.c `netdev_wait_allrefs_any`, net/xdp/xsk.c `xsk_notifier`.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::DeviceError;

/// Longest wait of a caller for a link to go.
const PATIENCE: Duration = Duration::from_millis(500);
/// Time between two looks for the link.
const LOOK: Duration = Duration::from_millis(10);
/// Most deletions that have not returned yet.
const MAX_UNFINISHED: usize = 16;

/// The deletions of one namespace that have not returned yet.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    unfinished: Vec<Unfinished>,
}

/// A deletion that has not returned.
#[derive(Debug)]
struct Unfinished {
    index: u32,
    since: Instant,
    outcome: Receiver<Result<(), DeviceError>>,
}

impl Deletions {
    /// Runs `delete` for the link with `index` on a thread. Returns when it has returned, or when `has_gone` says that
    /// the link can't be found any more.
    ///
    /// # Errors
    /// The kernel's refusal; [`DeviceError::Held`] if the link is still there after [`PATIENCE`].
    pub(super) fn delete(
        &mut self,
        index: u32,
        delete: impl FnOnce() -> Result<(), DeviceError> + Send + 'static,
        mut has_gone: impl FnMut() -> bool,
    ) -> Result<(), DeviceError> {
        self.forget_finished();
        if has_gone() {
            let gone = std::io::Error::from_raw_os_error(libc::ENODEV);
            return Err(DeviceError::refused(format!("delete interface {index}"), gone));
        }
        if self.unfinished.len() >= MAX_UNFINISHED {
            return Err(DeviceError::Held { index });
        }
        let (done, outcome) = channel();
        // If the deletion took too long, its result has no receiver any more.
        let work = move || drop(done.send(delete()));
        let thread = std::thread::Builder::new().name("link-removal".to_owned()).spawn(work);
        thread.map_err(|error| DeviceError::refused("start a thread", error))?;
        let since = Instant::now();
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(deleted) => return deleted,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let gone = has_gone();
            if gone || since.elapsed() >= PATIENCE {
                self.unfinished.push(Unfinished { index, since, outcome });
                return if gone { Ok(()) } else { Err(DeviceError::Held { index }) };
            }
        }
    }

    /// The links whose deletion has not returned for `long` or longer, by index: another process holds them.
    pub(super) fn held(&mut self, long: Duration) -> Vec<u32> {
        self.forget_finished();
        self.unfinished.iter().filter(|one| one.since.elapsed() >= long).map(|one| one.index).collect()
    }

    fn forget_finished(&mut self) {
        self.unfinished.retain(|one| matches!(one.outcome.try_recv(), Err(TryRecvError::Empty)));
    }
}
