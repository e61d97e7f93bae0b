//! A receive queue as its worker holds it: with its impairment, and its place in the poll set.

use std::os::fd::RawFd;

use labsw_switch::PortId;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::frame::Burst;
use crate::impair::ImpairedRx;
use crate::port::{Fault, RxQueue, Turn};
use crate::stage::Stage;
use crate::stats::PortDelta;

/// A receive queue of this worker.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) port: PortId,
    /// Its number at the port.
    pub(super) number: usize,
    pub(super) rx: Box<dyn RxQueue>,
    /// The impairment of received frames.
    pub(super) impaired: Option<Box<ImpairedRx>>,
    /// Its name in the poll set.
    pub(super) token: Token,
    /// Its descriptor in the poll set.
    polled: Option<RawFd>,
    /// Its descriptor could not be put there.
    pub(super) poll_failed: bool,
}

impl Queue {
    pub(super) fn new(port: PortId, number: usize, rx: Box<dyn RxQueue>, token: Token) -> Queue {
        Queue { port, number, rx, impaired: None, token, polled: None, poll_failed: false }
    }

    /// True if there may be frames to receive.
    #[inline]
    pub(super) fn is_waiting(&self, turn: &Turn) -> bool {
        self.rx.is_waiting(turn) || self.impaired.as_ref().is_some_and(|impaired| impaired.next_due() <= turn.now_ns)
    }

    /// Like [`RxQueue::receive`], with the impairment.
    #[inline]
    pub(super) fn receive(
        &mut self,
        turn: &Turn,
        burst: &mut Burst,
        stage: &mut Stage,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        match &mut self.impaired {
            None => self.rx.receive(turn, burst, stats),
            Some(impaired) => impaired.receive(&mut *self.rx, turn, burst, stage, stats),
        }
    }

    /// Like [`RxQueue::release`], with the impairment.
    #[inline]
    pub(super) fn release(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        match &mut self.impaired {
            None => self.rx.release(burst),
            Some(impaired) => {
                impaired.release(burst);
                Ok(())
            }
        }
    }

    /// Puts the descriptor of the queue into the poll set.
    pub(super) fn poll(&mut self, poll: &mio::Poll) {
        self.poll_failed = false;
        let Some(fd) = self.rx.wait_fd() else { return };
        match poll.registry().register(&mut SourceFd(&fd), self.token, Interest::READABLE) {
            Ok(()) => self.polled = Some(fd),
            Err(error) => {
                self.poll_failed = true;
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
