//! How an idle worker sleeps, and what ends its sleep.
//!
//! **How it works.** Every port is asked for a notification (armed), then looked at once more: a peer that saw no wish for
//! one has made its frame visible before that look. Then the worker blocks until a descriptor of the poll set, the command
//! waker, or the time-out of a driver's timed work ends it. The next turn serves those who did first, and only then tells
//! the ports that no notification is needed any more.
//!
//! **Invariant.** Between the arming of a port and the block nothing happens but looks: a frame that none of them saw
//! will notify.
//!
//! References: Virtio 1.2, 2.7.10 and 2.8.21 (notification suppression); epoll(7), "Level-triggered and edge-triggered".

use std::time::Duration;

use labsw_switch::PortId;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::{Worker, driver_of, slot};

/// The longest sleep while a port has a descriptor that can't be polled: it is served when the sleep ends.
const DEAF_SLEEP: Duration = Duration::from_millis(100);

impl Worker {
    /// Arms every port, looks once more, and blocks until something arrives or a driver's timed work is due. Returns whether
    /// there is, or may be, something to do; which ports said so is in `woken`.
    pub(super) fn sleep(&mut self) -> bool {
        self.tick();
        let mut waiting = false;
        let mut longest: Option<Duration> = None;
        let mut bound = |sleep: Duration| longest = Some(longest.map_or(sleep, |longest| longest.min(sleep)));
        for &port in &self.ports {
            let Some(slot) = slot(&mut self.slots, port) else { continue };
            let Some(driver) = &mut slot.driver else { continue };
            waiting |= driver.arm();
            driver.tick_within().map(&mut bound);
            if slot.deaf {
                bound(DEAF_SLEEP);
            }
        }
        let mut woken = true;
        self.armed = true;
        if !waiting && self.control.commands.is_empty() {
            self.load.sleeps();
            // An interrupted or failed wait only means looking earlier.
            let waited = self.poll.poll(&mut self.poll_events, longest);
            woken = waited.is_err() || !self.poll_events.is_empty();
            let tokens = self.poll_events.iter().map(|event| event.token().0);
            self.woken.extend(tokens.filter_map(|token| u16::try_from(token).ok()).map(PortId));
        }
        woken
    }

    /// Ends what the sleep began.
    #[cold]
    pub(super) fn disarm(&mut self) {
        self.armed = false;
        for &port in &self.ports {
            if let Some(driver) = driver_of(&mut self.slots, port) {
                driver.disarm();
            }
        }
    }

    /// Puts the descriptors of a port into the poll set.
    pub(super) fn poll_port(&mut self, id: PortId) {
        let Some(slot) = slot(&mut self.slots, id) else { return };
        let Some(driver) = &slot.driver else { return };
        slot.deaf = false;
        for fd in driver.wait_fds() {
            match self.poll.registry().register(&mut SourceFd(&fd), Token(id.index()), Interest::READABLE) {
                Ok(()) => slot.polled.push(fd),
                Err(error) => {
                    slot.deaf = true;
                    tracing::warn!(port = id.0, fd, %error, "descriptor can't be polled");
                }
            }
        }
    }

    /// Takes the descriptors of a port out of the poll set.
    pub(super) fn unpoll(&mut self, id: PortId) {
        let Some(slot) = slot(&mut self.slots, id) else { return };
        for fd in slot.polled.drain(..) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}
