//! Checks that a device leaves VLAN tags in the frames that it receives: while it does not, its port drops all frames
//! from it.
//!
//! A frame without its tag would be in the native VLAN, not in the VLAN in which it came. The device stops removing
//! tags when its port is opened; another program may switch that on again (`ethtool -K eth0 rxvlan on`).
//!
//! **How it works.** The receive queues' [`Gate`] is shut as soon as the kernel reports the change
//! ([`OffloadNews`](crate::device::OffloadNews)). Here, the device thread looks at the device whenever links have
//! changed or the gate is shut. It makes the device stop, reads back that it has, waits until the frames received
//! meanwhile must have come through ([`SETTLE`]), looks once more, and opens the gate.
//!
//! **Invariants.** The gate is opened only after a look that found every tag left in, and only if it was not shut since
//! that look began. The gate of a device that can't be looked at, or does not stop, stays shut, and the device is
//! looked at again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::xdp::Gate;

use super::error::RETRY;
use crate::api::PutRight;
use crate::device::DeviceError;

/// A frame that the device received with the offload on has reached the port's queue after this long, also one of a
/// driver that gathers interrupts.
const SETTLE: Duration = Duration::from_millis(100);

/// The part of a device that concerns tags.
pub(super) trait TagDevice {
    /// The kernel's names of the features that remove tags, of those that are on.
    fn taking(&self) -> Result<Vec<String>, DeviceError>;

    /// Makes the device stop, and reads back that it has.
    fn stop(&self) -> Result<(), DeviceError>;
}

/// The state of the tags of one device.
pub(super) struct Tags {
    gate: Arc<Gate>,
    state: State,
    /// The number of times that the device was made to stop, and the time of the last one.
    stopped: u32,
    last: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The device leaves tags in.
    LeftIn,
    /// The device leaves tags in again; the gate, which has the number `epoch`, is opened at `until`.
    Settling { until: Instant, epoch: u64 },
    /// The device may remove tags, for the reason `why`; it is looked at again at `again`.
    Unsure { why: String, again: Instant },
}

/// A question to a device about its tags.
pub(super) struct Question {
    gate: Arc<Gate>,
}

/// The answer of a device.
pub(in crate::daemon) enum Asked {
    /// It leaves tags in; the gate had the number `epoch` before it was asked.
    LeavesIn { epoch: u64 },
    /// It removed tags by the features `on`, and was made to stop while the gate had the number `epoch`.
    Stopped { on: String, epoch: u64 },
    /// It removes tags, or may do so, for this reason.
    Unsure(String),
}

impl Question {
    /// Asks the device, and makes it stop if it removes tags. Then, or if it can't be asked, the gate is shut.
    pub(super) fn ask(self, device: &impl TagDevice) -> Asked {
        // The number is read before the device is asked.
        let epoch = self.gate.epoch();
        match device.taking() {
            Ok(on) if on.is_empty() => Asked::LeavesIn { epoch },
            Ok(on) => {
                self.gate.shut();
                let (epoch, on) = (self.gate.epoch(), on.join(", "));
                match device.stop() {
                    Ok(()) => Asked::Stopped { on, epoch },
                    Err(error) => Asked::Unsure(format!("takes VLAN tags out of received frames: {error}")),
                }
            }
            Err(error) => {
                self.gate.shut();
                Asked::Unsure(format!("may take VLAN tags out of received frames: {error}"))
            }
        }
    }
}

impl Tags {
    /// The state of a device that was found to leave tags in, with its port's gate.
    pub(super) fn new(gate: Arc<Gate>) -> Tags {
        Tags { gate, state: State::LeftIn, stopped: 0, last: None }
    }

    /// Looks at the device called `name`, and makes it stop if it removes tags.
    pub(super) fn look(&mut self, name: &str, device: &impl TagDevice, now: Instant) {
        let asked = self.question().ask(device);
        self.learn(name, asked, now);
    }

    /// The question to the device, which may be asked while others have this state.
    pub(super) fn question(&self) -> Question {
        Question { gate: Arc::clone(&self.gate) }
    }

    /// Goes on with the answer of the device called `name`.
    pub(super) fn learn(&mut self, name: &str, asked: Asked, now: Instant) {
        self.state = match asked {
            Asked::LeavesIn { epoch } => self.left_in(name, epoch, now),
            Asked::Stopped { on, epoch } => {
                (self.stopped, self.last) = (self.stopped.saturating_add(1), Some(now));
                tracing::warn!(
                    interface = name,
                    "took VLAN tags out of received frames ({on}); switched off again: somebody had switched it on"
                );
                State::Settling { until: now + SETTLE, epoch }
            }
            Asked::Unsure(why) => self.unsure(name, why, now),
        };
    }

    /// The state of a device that leaves tags in; the gate had the number `epoch` before that was found.
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
            // The gate was shut by the kernel's report, or once more.
            _ => State::Settling { until: now + SETTLE, epoch },
        }
    }

    fn unsure(&self, name: &str, why: String, now: Instant) -> State {
        if !matches!(&self.state, State::Unsure { why: known, .. } if *known == why) {
            tracing::error!(interface = name, "{why}; nothing that it receives passes");
        }
        State::Unsure { why, again: now + RETRY }
    }

    /// The time of the next look at the device, even without a change of links.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::LeftIn if self.gate.is_open() => None,
            State::LeftIn => Some(Instant::now()),
            State::Settling { until, .. } => Some(*until),
            State::Unsure { again, .. } => Some(*again),
        }
    }

    /// The reason that the port drops all frames from the device called `name`; `None` if it does not.
    pub(super) fn reason(&self, name: &str) -> Option<String> {
        match &self.state {
            State::LeftIn if self.gate.is_open() => None,
            State::LeftIn | State::Settling { .. } => {
                Some(format!("{name} took VLAN tags out of received frames; nothing passes until that is over"))
            }
            State::Unsure { why, .. } => Some(format!("{name} {why}; nothing that it receives passes")),
        }
    }

    /// The correction that was made, for people.
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
