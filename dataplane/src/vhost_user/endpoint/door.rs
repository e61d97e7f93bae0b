//! Admission to an endpoint's one place: front ends that are refused, front ends that have to wait, and the log lines
//! about them.
//!
//! **How it works.** The endpoint has room for one front end. While one is connected, a further connection is accepted
//! and closed at once, so that its process fails with a clear error instead of hanging in its handshake. A front end of
//! another user than `peer_uid` is refused as well. After a front end was disconnected for a fault, no connection is
//! accepted for a while, which doubles with each fault ([`Backoff`]). The same holds as long as many descriptors of
//! former front ends are still being closed ([`Account`]).
//!
//! **Invariants.** Refusing costs the control thread at most [`REFUSALS_PER_TURN`] accepts in [`REFUSAL_PAUSE`]. At
//! most ten log lines in ten seconds are written for one port; the others are counted ([`LogLimit`]).
//!
//! Reference: unix(7), SO_PEERCRED; accept(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::settings::EndpointConfig;
use crate::backoff::Backoff;
use crate::log_limit::LogLimit;
use crate::reaper::{Account, PeerFd};
use crate::sys::socket::{Credentials, credentials};

/// Front ends that are refused in one turn of the event loop.
pub(super) const REFUSALS_PER_TURN: usize = 16;
/// The pause after that many refusals.
pub(super) const REFUSAL_PAUSE: Duration = Duration::from_millis(10);

/// The door of one endpoint.
#[derive(Debug)]
pub(super) struct Door {
    port: String,
    peer_uid: Option<u32>,
    /// The descriptors that front ends sent, and their connections.
    account: Account,
    backoff: Backoff,
    log: LogLimit,
    /// Number of front ends that were refused.
    pub(super) turned_away: u64,
    /// Refusing was interrupted: the backlog may hold more connections, and no new event will tell.
    pub(super) more_to_refuse: bool,
}

impl Door {
    pub(super) fn new(config: &EndpointConfig) -> Door {
        Door {
            port: config.port_name.clone(),
            peer_uid: config.peer_uid,
            account: Account::new(),
            backoff: Backoff::new(config.timing.fault_wait, config.timing.longest_fault_wait),
            log: LogLimit::default(),
            turned_away: 0,
            more_to_refuse: false,
        }
    }

    /// The account of the front ends' descriptors.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Takes ownership of a connection, which the reaper will close.
    pub(super) fn own(&self, socket: OwnedFd) -> PeerFd {
        PeerFd::new(socket, &self.account)
    }

    /// Checks that a front end of this process may have the port; if not, counts it as refused.
    pub(super) fn admits(&mut self, who: Option<Credentials>, now: Instant) -> Result<(), String> {
        let Some(wanted) = self.peer_uid else { return Ok(()) };
        if who.is_some_and(|who| who.uid == wanted) {
            return Ok(());
        }
        let reason = format!("turned away {}: peer_uid is {wanted}", name(who));
        self.turned_away += 1;
        self.warn(now, &reason);
        Err(reason)
    }

    /// Closes a connection that came while `owner` had the port; `None`: its last owner was at fault.
    pub(super) fn refuse(&mut self, socket: OwnedFd, owner: Option<Credentials>, now: Instant) {
        let socket = self.own(socket);
        let who = credentials(socket.as_fd()).ok();
        self.turned_away += 1;
        let why = owner.map_or_else(|| "after a fault".to_owned(), |owner| format!("in use by {owner}"));
        self.warn(now, &format!("turned away {}: the port is {why}", name(who)));
        hang_up(socket);
    }

    /// Records that a front end was disconnected for a fault.
    pub(super) fn failed(&mut self, now: Instant) {
        self.backoff.failed(now);
    }

    /// The time until which no connection is accepted.
    pub(super) fn shut_until(&self, now: Instant) -> Option<Instant> {
        let busy = self.account.is_overdrawn().then(|| now + REFUSAL_PAUSE);
        self.backoff.waits_until(now).into_iter().chain(busy).max()
    }

    /// The time left of the back-off.
    pub(super) fn waits(&self, now: Instant) -> Option<Duration> {
        self.backoff.waits_until(now).map(|until| until - now)
    }

    /// Forgets all faults.
    pub(super) fn forgive(&mut self) {
        self.backoff.clear();
    }

    /// Logs a line about a front end, within the limit.
    pub(super) fn info(&mut self, now: Instant, what: &str, who: Option<Credentials>) {
        self.report_withheld(now);
        if self.log.admit(now) {
            match who {
                Some(who) => tracing::info!(port = self.port, pid = who.pid, uid = who.uid, "{what}"),
                None => tracing::info!(port = self.port, "{what}"),
            }
        }
    }

    /// The same as [`Door::info`], as a warning.
    pub(super) fn warn(&mut self, now: Instant, what: &str) {
        self.report_withheld(now);
        if self.log.admit(now) {
            tracing::warn!(port = self.port, "{what}");
        }
    }

    /// Logs the number of lines that were withheld, when it is due; returns the time when it will be due.
    pub(super) fn report_withheld(&mut self, now: Instant) -> Option<Instant> {
        if let Some(count) = self.log.ended(now) {
            let seconds = crate::log_limit::PERIOD.as_secs();
            tracing::warn!(port = self.port, "{count} more lines like this in the last {seconds} s");
        }
        self.log.due()
    }
}

/// Ends a connection. The peer sees the end at once, even if the descriptor is closed later.
pub(super) fn hang_up(socket: PeerFd) {
    // A connection that the peer has closed already is as good.
    let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
}

/// True if the peer has closed its end. Bytes that it sent before may still be unread.
pub(super) fn has_left(socket: BorrowedFd<'_>) -> bool {
    let mut look = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    poll(&mut look, Some(&now)).is_ok() && look.iter().any(|look| look.revents().intersects(gone))
}

/// A process, in words.
fn name(who: Option<Credentials>) -> String {
    who.map_or_else(|| "a process unknown".to_owned(), |who| who.to_string())
}
