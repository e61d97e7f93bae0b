//! That a device leaves VLAN tags in the frames it receives: a port whose device does not passes nothing it receives.
//!
//! A frame without its tag would be in the native VLAN, so in another one than it came in. When a port is opened its
//! device has stopped taking tags out; somebody may have it begin again (`ethtool -K eth0 rxvlan on`).
//!
//! **How it works.** The receive queues' [`Gate`] is shut as soon as the kernel says so
//! ([`OffloadNews`](crate::device::OffloadNews)). Here, the control thread looks at the device whenever links have
//! changed or the gate is shut, has the device stop, reads back that it has, waits until what was received meanwhile
//! must have come through ([`SETTLE`]), looks once more, and opens the gate.
//!
//! **Invariants.** The gate is opened only after a look that found every tag left in, and only if it was not shut since
//! that look began. A device that can't be looked at, or does not stop, stays shut and is looked at again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::xdp::Gate;

use super::absence::RETRY;
use crate::api::PutRight;
use crate::device::DeviceError;

/// A frame that the device received with the offload on has reached the port's queue after this long, also one of a
/// driver that gathers interrupts.
const SETTLE: Duration = Duration::from_millis(100);

/// The device, as far as it concerns tags.
pub(super) trait TagDevice {
    /// The kernel's names of the features by which it takes tags out, of those that are on.
    fn taking(&self) -> Result<Vec<String>, DeviceError>;

    /// Has it stop, and reads back that it has.
    fn stop(&self) -> Result<(), DeviceError>;
}

/// What is known of the tags of one device.
pub(super) struct Tags {
    gate: Arc<Gate>,
    state: State,
    /// How often the device was made to stop, and when last.
    stopped: u32,
    last: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// They are left in.
    LeftIn,
    /// They are left in again; the gate, which has this number, is opened at this time.
    Settling { until: Instant, epoch: u64 },
    /// They may be taken out, for this reason; the device is looked at again at this time.
    Unsure { why: String, again: Instant },
}

impl Tags {
    /// Of a device that was found to leave them in, by its port's gate.
    pub(super) fn new(gate: Arc<Gate>) -> Tags {
        Tags { gate, state: State::LeftIn, stopped: 0, last: None }
    }

    /// Looks at the device called `name`, and puts it right.
    pub(super) fn look(&mut self, name: &str, device: &impl TagDevice, now: Instant) {
        // Before the device is asked.
        let epoch = self.gate.epoch();
        self.state = match device.taking() {
            Ok(on) if on.is_empty() => self.left_in(name, epoch, now),
            Ok(on) => {
                self.gate.shut();
                let epoch = self.gate.epoch();
                let on = on.join(", ");
                match device.stop() {
                    Ok(()) => {
                        (self.stopped, self.last) = (self.stopped.saturating_add(1), Some(now));
                        tracing::warn!(
                            interface = name,
                            "took VLAN tags out of received frames ({on}); switched off again: somebody had switched it on"
                        );
                        State::Settling { until: now + SETTLE, epoch }
                    }
                    Err(error) => self.unsure(name, format!("takes VLAN tags out of received frames: {error}"), now),
                }
            }
            Err(error) => {
                self.gate.shut();
                self.unsure(name, format!("may take VLAN tags out of received frames: {error}"), now)
            }
        };
    }

    /// The device leaves tags in; the gate had this number before that was found.
    fn left_in(&self, name: &str, epoch: u64, now: Instant) -> State {
        match &self.state {
            State::LeftIn if Gate::is_open_at(epoch) => State::LeftIn,
            State::Settling { until, epoch: of } if *of == epoch && now < *until => {
                State::Settling { until: *until, epoch }
            }
            State::Settling { epoch: of, .. } if *of == epoch && self.gate.open(epoch) => {
                tracing::info!(interface = name, "leaves VLAN tags in; what it receives passes again");
                State::LeftIn
            }
            // Shut by news, or again.
            _ => State::Settling { until: now + SETTLE, epoch },
        }
    }

    fn unsure(&self, name: &str, why: String, now: Instant) -> State {
        if !matches!(&self.state, State::Unsure { why: known, .. } if *known == why) {
            tracing::error!(interface = name, "{why}; nothing that it receives passes");
        }
        State::Unsure { why, again: now + RETRY }
    }

    /// When to look at the device, whatever links do.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::LeftIn if self.gate.is_open() => None,
            State::LeftIn => Some(Instant::now()),
            State::Settling { until, .. } => Some(*until),
            State::Unsure { again, .. } => Some(*again),
        }
    }

    /// Why nothing passes that the device called `name` receives, if nothing does.
    pub(super) fn reason(&self, name: &str) -> Option<String> {
        match &self.state {
            State::LeftIn if self.gate.is_open() => None,
            State::LeftIn | State::Settling { .. } => {
                Some(format!("{name} took VLAN tags out of received frames; nothing passes until that is over"))
            }
            State::Unsure { why, .. } => Some(format!("{name} {why}; nothing that it receives passes")),
        }
    }

    /// What was put right, for people.
    pub(super) fn put_right(&self, now: Instant) -> Option<PutRight> {
        let last = self.last?;
        Some(PutRight {
            what: "receive VLAN offload, which was switched on".to_owned(),
            times: self.stopped,
            seconds_ago: now.saturating_duration_since(last).as_secs(),
        })
    }
}

#[cfg(test)]
mod tests;
