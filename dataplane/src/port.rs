//! What a port driver is: the contract between the worker and the ways of moving bytes.
//!
//! The worker calls, per receive queue and turn: `receive` → (decide) → `send` on each egress → `release`.
//! Drivers are called from their worker's thread only, and never block.

use std::os::fd::RawFd;
use std::time::Duration;

use labsw_switch::forward::TxItem;

use crate::frame::Burst;
use crate::stats::PortDelta;
use crate::vhost::VhostPort;
use crate::xdp::FramePool;

/// A port that can't go on. The worker takes it out of service and tells the control thread; no other port is touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// One clause for people: what the peer or the device did.
    pub reason: String,
}

impl Fault {
    /// A fault with this reason.
    pub fn new(reason: impl Into<String>) -> Fault {
        Fault { reason: reason.into() }
    }
}

/// What the drivers of one worker share.
#[derive(Debug, Default)]
pub struct Resources {
    /// The worker's packet memory; empty until the first AF_XDP port is added.
    pub pool: FramePool,
}

/// A way of moving bytes, owned by one worker.
pub trait PortDriver: Send + std::fmt::Debug {
    /// Number of receive queues; queues are numbered from 0. May change over the life of the driver.
    fn rx_queues(&self) -> usize;

    /// Whether anything may have arrived on `queue`: a look so cheap that a worker with many silent ports has time left for
    /// the others. [`PortDriver::receive`] is called only after a yes.
    fn is_waiting(&self, _queue: usize) -> bool {
        true
    }

    /// Appends what has arrived on `queue` to the empty `burst`, up to 64 frames, and counts it. The frames stay
    /// borrowed until [`PortDriver::release`] is called with the same queue and burst.
    fn receive(
        &mut self,
        queue: usize,
        burst: &mut Burst,
        resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<(), Fault>;

    /// Gives the frames of `burst` back to where they came from, except those marked as moved, and clears it.
    fn release(&mut self, queue: usize, burst: &mut Burst, resources: &mut Resources) -> Result<(), Fault>;

    /// Sends frames of a burst, in order, counting each as sent or as dropped under a reason.
    ///
    /// `sole` has a bit set for each frame that has no other taker, so that its buffer may be moved ([`Burst::take`]).
    /// Returns a mask of the frames (bit = index in the burst) that were *not* sent. All frames of one call are
    /// published to the peer before it returns (one index store, at most one doorbell).
    fn send(
        &mut self,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
        resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault>;

    /// Work that has to be done even without traffic (reap completions, kick a stuck ring). Called at most every few milliseconds.
    fn tick(&mut self, _resources: &mut Resources) -> Result<(), Fault> {
        Ok(())
    }

    /// How long the driver can go without a tick while nothing arrives; `None`: for ever. Asked before each sleep, right
    /// after a tick.
    fn tick_within(&self) -> Option<Duration> {
        None
    }

    /// Asks the peer for a notification on the next frame. Returns true if a frame is already waiting (then don't sleep).
    fn arm(&mut self) -> bool;

    /// Ends what [`PortDriver::arm`] began.
    fn disarm(&mut self);

    /// The descriptors that become readable when an armed driver has work. Valid until the driver changes or is dropped.
    fn wait_fds(&self) -> Vec<RawFd>;

    /// The vhost-user driver behind this port, if it is one.
    fn as_vhost(&mut self) -> Option<&mut VhostPort> {
        None
    }
}
