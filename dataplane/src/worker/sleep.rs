//! How an idle worker sleeps, and what ends its sleep.
//!
//! **How it works.** Every queue is asked for a notification (armed), then looked at once more: a peer that saw no wish
//! for one has made its frame visible before that look. Then the worker blocks until a descriptor of the poll set, the
//! command waker, or the time-out of timed work ends it. The next turn serves those who did first, and only then tells
//! the queues that no notification is needed any more. Time-outs are as coarse as milliseconds, so for a delayed frame
//! the worker wakes early, and looks until it is due.
//!
//! **Invariant.** Between the arming of a queue and the block nothing happens but looks: a frame that none of them saw
//! will notify.
//!
//! References: Virtio 1.2, 2.7.10 and 2.8.21 (notification suppression); epoll(7), "Level-triggered and
//! edge-triggered".

use std::time::Duration;

use super::{WAKER, Worker};
use crate::clock::NEVER;

/// A worker does not block for the last part of its wait for a delayed frame, ns: the system's timers count in
/// milliseconds.
const LAST_WAIT_NS: u64 = 1_200_000;
/// The longest sleep while a queue has a descriptor that can't be polled: it is served when the sleep ends, ns.
const DEAF_SLEEP_NS: u64 = 100_000_000;

impl Worker {
    /// Arms every queue, looks once more, and blocks until something arrives or timed work is due. Returns whether
    /// there is, or may be, something to do; which queues said so is in `woken`.
    pub(super) fn sleep(&mut self) -> bool {
        let delayed = self.next_delayed();
        if delayed.saturating_sub(self.now.now_ns) <= LAST_WAIT_NS {
            return true;
        }
        self.run_due();
        let mut waiting = false;
        let mut due = delayed.saturating_sub(LAST_WAIT_NS);
        if delayed == NEVER {
            due = NEVER;
        }
        for queue in &mut self.queues {
            waiting |= queue.rx.arm(&self.now);
            due = due.min(queue.rx.next_due(&self.now));
            if queue.deaf {
                due = due.min(self.now.now_ns.saturating_add(DEAF_SLEEP_NS));
            }
        }
        for tx in self.slots.iter().flatten().filter_map(|slot| slot.output.tx.as_ref()) {
            due = due.min(tx.next_due(&self.now));
        }
        let longest = (due != NEVER).then(|| Duration::from_nanos(due.saturating_sub(self.now.now_ns)));
        let mut woken = true;
        self.armed = true;
        if !waiting && self.control.commands.is_empty() {
            self.load.sleeps();
            // An interrupted or failed wait only means looking earlier.
            let waited = self.poll.poll(&mut self.poll_events, longest);
            woken = waited.is_err() || !self.poll_events.is_empty();
            let tokens = self.poll_events.iter().map(mio::event::Event::token);
            self.woken.extend(tokens.filter(|token| *token != WAKER));
        }
        woken
    }

    /// Ends what the sleep began.
    #[cold]
    pub(super) fn disarm(&mut self) {
        self.armed = false;
        for queue in &mut self.queues {
            queue.rx.disarm();
        }
    }
}
