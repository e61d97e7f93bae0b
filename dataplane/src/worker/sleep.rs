//! How an idle worker sleeps, and what ends its sleep.
//!
//! **How it works.** Every queue is asked for a notification (armed), then looked at once more: a peer that saw no wish
//! for one has made its frame visible before that look. Then the worker blocks until a descriptor of the poll set, the
//! command waker, or the time-out of timed work ends it. The next turn serves those who did first, and only then tells
//! the queues that no notification is needed any more. Time-outs are as coarse as milliseconds, so for a delayed frame the
//! worker wakes early, and looks until it is due.
//!
//! **Invariant.** Between the arming of a queue and the block nothing happens but looks: a frame that none of them saw
//! will notify.
//!
//! References: Virtio 1.2, 2.7.10 and 2.8.21 (notification suppression); epoll(7), "Level-triggered and
//! edge-triggered".

use std::os::fd::RawFd;
use std::time::Duration;

use labsw_switch::PortId;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::delay::Incoming;
use super::stage::Stage;
use super::{WAKER, Worker};
use crate::frame::Burst;
use crate::impair::LAST_WAIT;
use crate::port::{Fault, RxQueue};
use crate::stats::PortDelta;

/// The longest sleep while a queue has a descriptor that can't be polled: it is served when the sleep ends.
const DEAF_SLEEP: Duration = Duration::from_millis(100);

/// A receive queue of this worker.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) port: PortId,
    /// Its number at the port.
    pub(super) number: usize,
    pub(super) rx: Box<dyn RxQueue>,
    /// The impairment of what it receives.
    pub(super) incoming: Option<Box<Incoming>>,
    /// Its name in the poll set.
    pub(super) token: Token,
    /// Its descriptor in the poll set.
    polled: Option<RawFd>,
    /// Its descriptor could not be put there.
    deaf: bool,
}

impl Queue {
    pub(super) fn new(port: PortId, number: usize, rx: Box<dyn RxQueue>, token: Token) -> Queue {
        Queue { port, number, rx, incoming: None, token, polled: None, deaf: false }
    }

    /// Whether there may be frames to receive.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.rx.is_waiting() || self.incoming.as_ref().is_some_and(|incoming| incoming.is_due())
    }

    /// As [`RxQueue::receive`], with the impairment.
    #[inline]
    pub(super) fn receive(&mut self, burst: &mut Burst, stage: &mut Stage, stats: &mut PortDelta) -> Result<(), Fault> {
        match &mut self.incoming {
            None => self.rx.receive(burst, stats),
            Some(incoming) => incoming.receive(&mut *self.rx, burst, stage, stats),
        }
    }

    /// As [`RxQueue::release`], with the impairment.
    #[inline]
    pub(super) fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        match &mut self.incoming {
            None => self.rx.release(burst),
            Some(incoming) => {
                incoming.release(burst);
                Ok(())
            }
        }
    }

    /// Puts the descriptor of the queue into the poll set.
    pub(super) fn poll(&mut self, poll: &mio::Poll) {
        self.deaf = false;
        let Some(fd) = self.rx.wait_fd() else { return };
        match poll.registry().register(&mut SourceFd(&fd), self.token, Interest::READABLE) {
            Ok(()) => self.polled = Some(fd),
            Err(error) => {
                self.deaf = true;
                tracing::warn!(port = self.port.0, fd, %error, "descriptor can't be polled");
            }
        }
    }

    /// Takes the descriptor of the queue out of the poll set.
    pub(super) fn unpoll(&mut self, poll: &mio::Poll) {
        if let Some(fd) = self.polled.take() {
            let _ = poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}

impl Worker {
    /// Arms every queue, looks once more, and blocks until something arrives or timed work is due. Returns whether there
    /// is, or may be, something to do; which queues said so is in `woken`.
    pub(super) fn sleep(&mut self) -> bool {
        let due = self.next_due();
        if due.is_some_and(|due| due <= LAST_WAIT) {
            return true;
        }
        self.tick();
        let mut waiting = false;
        let mut longest: Option<Duration> = None;
        let mut bound = |sleep: Duration| longest = Some(longest.map_or(sleep, |longest| longest.min(sleep)));
        due.map(|due| due - LAST_WAIT).map(&mut bound);
        for queue in &mut self.queues {
            waiting |= queue.rx.arm();
            queue.rx.tick_within().map(&mut bound);
            if queue.deaf {
                bound(DEAF_SLEEP);
            }
        }
        for slot in self.slots.iter().flatten() {
            slot.output.tx.as_ref().and_then(|tx| tx.tick_within()).map(&mut bound);
        }
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
