//! A TAP port that goes on in another process: its descriptors.
//!
//! **How it works.** Frames that have arrived and were not received wait in the interface's queue, or in the packet
//! socket. The other process makes a port of the same descriptors ([`TapPort::take_over`]) and receives nothing until
//! its queues are given to workers. The interface stays as long as either process has a descriptor of it.

use std::os::fd::AsFd;

use super::port::{TapPort, TapTx};
use super::vnet::End;
use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::sys::isolate::Isolation;

/// The state of a TAP port that is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TapHandover {
    queues: Vec<Slot>,
    /// If the other end is a guest's: the descriptors that keep the host and other switches off the interface.
    guest: Option<GuestEnd>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct GuestEnd {
    isolation: [Slot; 2],
    reservation: Slot,
}

impl TapTx {
    /// The state of the port, with its descriptors in `given`.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> TapHandover {
        let core = self.core();
        let guest = core.isolation.as_ref().zip(core.reservation.as_ref());
        TapHandover {
            queues: core.queues.iter().map(|queue| given.put(queue.as_fd())).collect(),
            guest: guest.map(|(isolation, reservation)| GuestEnd {
                isolation: isolation.links().map(|link| given.put(link)),
                reservation: given.put(reservation.as_fd()),
            }),
        }
    }
}

impl TapPort {
    /// Makes a port of the state that another process hands over; that process still serves.
    ///
    /// # Errors
    /// A descriptor is missing, or there is no memory.
    pub fn take_over(interface: &str, handover: TapHandover, taken: &mut Taken) -> Result<TapPort, HandoverError> {
        let queues = handover.queues.into_iter().map(|slot| taken.take(slot)).collect::<Result<Vec<_>, _>>()?;
        if queues.is_empty() || queues.len() > usize::from(super::MAX_QUEUES) {
            return Err(HandoverError::new(format!("it was handed over with {} queues", queues.len())));
        }
        let port = match handover.guest {
            None => TapPort::of_tun(interface, queues),
            Some(GuestEnd { isolation: [ingress, egress], reservation }) => {
                let isolation = Isolation::adopt([taken.take(ingress)?, taken.take(egress)?]);
                TapPort::new(interface, queues, End::Interface, Some(isolation), Some(taken.take(reservation)?))
            }
        };
        port.map_err(HandoverError::new)
    }
}
