//! The sleep of an idle worker, and the events that end it.
//!
//! **How it works.** Every queue is asked for a notification (armed), then looked at once more: a peer that saw no wish
//! for one has made its frame visible before that look. Then the worker blocks until a descriptor of the poll set, the
//! command waker, or the time-out of timed work ends it. The next turn serves the queues that ended the sleep first,
//! and only then tells all queues that no notification is needed any more. Time-outs are as coarse as milliseconds, so
//! for a delayed frame the worker wakes early, and looks until the frame is due.
//!
//! **Invariants.**
//! - Between the arming of a queue and the block nothing happens but looks: a frame that none of them saw will notify.
//! - File descriptors are taken out of the poll set before the queue that owns them changes: an eventfd
//!   that a guest's process still holds would stay registered after our own end is closed (epoll(7), Q6).
//!
//! References: Virtio 1.2, 2.7.10 and 2.8.21 (notification suppression); epoll(7), "Level-triggered and
//! edge-triggered".

use std::time::Duration;

use mio::Token;

use super::queue::Queue;
use crate::clock::NEVER;
use crate::port::Turn;
use crate::sync;

/// A worker does not block for the last part of its wait for a delayed frame, ns: the system's timers count in
/// milliseconds.
const LAST_WAIT_NS: u64 = 1_200_000;
/// The longest sleep while a queue has a descriptor that can't be polled: it is served when the sleep ends, ns.
const DEAF_SLEEP_NS: u64 = 100_000_000;
/// Queues and commands that can end one sleep.
const MAX_EVENTS: usize = 64;
/// The token of the command waker; queues have a number of their own.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// The poll set of a worker, and the events that its last sleep left.
#[derive(Debug)]
pub(super) struct Sleeper {
    poll: mio::Poll,
    events: mio::Events,
    /// The token of the next queue that is added.
    next_token: usize,
    /// The queues (tokens) that ended the last sleep, until the next turn.
    woken: Vec<Token>,
    /// Queues were asked for notifications and not told yet that the worker is awake.
    armed: bool,
}

impl Sleeper {
    pub(super) fn new(poll: mio::Poll) -> Sleeper {
        Sleeper {
            poll,
            events: mio::Events::with_capacity(MAX_EVENTS),
            next_token: 0,
            woken: Vec::with_capacity(MAX_EVENTS),
            armed: false,
        }
    }

    /// A token for a queue that is added.
    pub(super) fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token = self.next_token.wrapping_add(1) % WAKER.0;
        token
    }

    /// Puts the descriptor of a queue into the poll set.
    pub(super) fn add(&self, queue: &mut Queue) {
        queue.poll(&self.poll);
    }

    /// Takes the descriptor of a queue out of the poll set.
    pub(super) fn remove(&self, queue: &mut Queue) {
        queue.unpoll(&self.poll);
    }

    /// Number of queues that ended the last sleep and were not forgotten yet.
    #[inline]
    pub(super) fn woken(&self) -> usize {
        self.woken.len()
    }

    /// Where the queue that ended a sleep stands in `queues`.
    #[cold]
    pub(super) fn queue_of(&self, woken: usize, queues: &[Queue]) -> Option<usize> {
        let token = self.woken.get(woken)?;
        queues.iter().position(|queue| queue.token == *token)
    }

    /// Forgets which queues ended the last sleep.
    #[inline]
    pub(super) fn forget_woken(&mut self) {
        self.woken.clear();
    }

    /// True if queues wait to be [disarmed](Sleeper::disarm).
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    /// Arms every queue and looks at it once more. Returns whether frames wait already, and when a queue has timed
    /// work, ns.
    pub(super) fn arm(&mut self, queues: &mut [Queue], turn: &Turn) -> (bool, u64) {
        self.armed = true;
        let (mut waiting, mut due) = (false, NEVER);
        for queue in queues {
            waiting |= queue.rx.arm(turn);
            due = due.min(queue.rx.next_due(turn));
            if queue.poll_failed {
                due = due.min(turn.now_ns.saturating_add(DEAF_SLEEP_NS));
            }
        }
        (waiting, due)
    }

    /// Blocks until something arrives, or until `due` ns. Returns whether there may be something to do; `woken` has the
    /// queues that said so.
    pub(super) fn block(&mut self, due: u64, turn: &Turn) -> bool {
        let longest = (due != NEVER).then(|| Duration::from_nanos(due.saturating_sub(turn.now_ns)));
        // An interrupted or failed wait only means looking earlier.
        let waited = sync::sleep(&mut self.poll, &mut self.events, longest);
        let tokens = self.events.iter().map(mio::event::Event::token);
        self.woken.extend(tokens.filter(|token| *token != WAKER));
        waited.is_err() || !self.events.is_empty()
    }

    /// Tells every queue that no notification is needed.
    #[cold]
    pub(super) fn disarm(&mut self, queues: &mut [Queue]) {
        self.armed = false;
        for queue in queues {
            queue.rx.disarm();
        }
    }
}

/// True if a delayed frame is due so soon that blocking would miss its time.
pub(super) fn is_imminent(delayed: u64, turn: &Turn) -> bool {
    delayed.saturating_sub(turn.now_ns) <= LAST_WAIT_NS
}

/// When to wake for a delayed frame, ns.
pub(super) fn wake_for(delayed: u64) -> u64 {
    if delayed == NEVER { NEVER } else { delayed.saturating_sub(LAST_WAIT_NS) }
}
