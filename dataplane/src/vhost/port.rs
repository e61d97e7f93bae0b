//! The worker's side of a vhost-user port: rings in, rings out, operations between bursts.
//!
//! **States of a ring** (vhost-user.rst, "Ring states"): stopped (not here), started but disabled (the guest's
//! transmit ring is drained and its frames dropped, its receive ring gets nothing), started and enabled.
//!
//! **Invariant.** Rings start, stop and vanish in [`VhostPort::operate`] only, which the worker calls between bursts:
//! no frame of this port is lent then.

use std::os::fd::RawFd;

use labsw_switch::DropReason;
use labsw_switch::forward::TxItem;

use super::flow::flow_hash;
use super::operation::{VhostOp, VhostReply};
use super::ring::{Ring, RingError};
use super::sigbus;
use crate::frame::Burst;
use crate::port::{Fault, PortDriver, Resources};
use crate::stats::PortDelta;

/// A vhost-user port as its worker sees it.
#[derive(Debug)]
pub struct VhostPort {
    rings: Vec<Place>,
    /// Numbers of the guest's receive rings that take frames.
    outlets: Vec<usize>,
    /// Value of [`sigbus::poisonings`] when the memory was last looked at.
    poisonings: usize,
}

/// A place for a ring.
#[derive(Debug, Default)]
struct Place {
    ring: Option<Ring>,
    enabled: bool,
}

impl VhostPort {
    /// A port with room for this many queue pairs, no ring started.
    pub fn new(queue_pairs: u16) -> VhostPort {
        let rings = (0..usize::from(queue_pairs) * 2).map(|_| Place::default()).collect();
        VhostPort { rings, outlets: Vec::new(), poisonings: sigbus::poisonings() }
    }

    /// Number of queue pairs.
    pub fn queue_pairs(&self) -> usize {
        self.rings.len() / 2
    }

    /// Carries out an operation of the control side. Only between bursts.
    pub fn operate(&mut self, op: VhostOp) -> VhostReply {
        let reply = self.change(op);
        self.outlets = self
            .rings
            .iter()
            .enumerate()
            .filter(|(index, place)| index % 2 == 0 && place.enabled && place.ring.is_some())
            .map(|(index, _)| index)
            .collect();
        reply
    }

    fn change(&mut self, op: VhostOp) -> VhostReply {
        let index = match &op {
            VhostOp::StartRing { index, .. }
            | VhostOp::StopRing { index }
            | VhostOp::EnableRing { index, .. }
            | VhostOp::SetCall { index, .. } => *index,
            VhostOp::Reset => {
                self.rings.fill_with(Place::default);
                return VhostReply::Done;
            }
        };
        let Some(place) = self.rings.get_mut(usize::from(index)) else { return VhostReply::NoSuchRing };
        match op {
            VhostOp::StartRing { setup, enabled, .. } => {
                *place = Place { ring: Some(Ring::start(*setup)), enabled };
                // A page may have been replaced before this ring came.
                self.poisonings = sigbus::poisonings().wrapping_sub(1);
            }
            VhostOp::StopRing { .. } => {
                let base = place.ring.take().map(|ring| ring.base());
                return VhostReply::Stopped { base };
            }
            VhostOp::EnableRing { enabled, .. } => place.enabled = enabled,
            VhostOp::SetCall { call, .. } => {
                if let Some(ring) = &mut place.ring {
                    ring.set_call(call);
                }
            }
            VhostOp::Reset => {}
        }
        VhostReply::Done
    }

    /// The guest's transmit rings that are started.
    fn inlets(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.rings.iter_mut().skip(1).step_by(2).filter_map(|place| place.ring.as_mut())
    }

    /// Whether the guest pulled memory away under our feet; one look at a counter unless something happened.
    #[inline]
    fn check_memory(&mut self) -> Result<(), Fault> {
        let seen = sigbus::poisonings();
        if seen == self.poisonings {
            return Ok(());
        }
        if self.rings.iter().filter_map(|place| place.ring.as_ref()).any(|ring| ring.memory().poisoned()) {
            return Err(Fault::new("the front end truncated its memory file while it was in use"));
        }
        self.poisonings = seen;
        Ok(())
    }
}

/// Whether the worker hung in the guest's doorbell.
#[inline]
fn check_doorbell(ring: &Ring) -> Result<(), Fault> {
    if ring.doorbell_blocks() {
        return Err(Fault::new("the front end made its interrupt eventfd block (O_NONBLOCK cleared, counter full)"));
    }
    Ok(())
}

/// The fault of ring `index`.
#[cold]
fn fault(index: usize, error: &RingError) -> Fault {
    let kind = if index.is_multiple_of(2) { "receive" } else { "transmit" };
    Fault::new(format!("the guest broke its {kind} ring {}: {error}", index / 2))
}

/// Counts frames that no ring can take, and returns the set of them.
fn not_connected(items: &[TxItem], stats: &mut PortDelta) -> u64 {
    stats.drop_many(DropReason::NotConnected, items.len() as u64);
    items.iter().fold(0, |set, item| set | 1 << item.frame)
}

impl PortDriver for VhostPort {
    fn rx_queues(&self) -> usize {
        self.queue_pairs()
    }

    #[inline]
    fn is_waiting(&self, queue: usize) -> bool {
        let ring = self.rings.get(2 * queue + 1).and_then(|place| place.ring.as_ref());
        // Pages put in place of the guest's hold zeros, which may look like an empty ring.
        ring.is_some_and(|ring| ring.is_waiting() || sigbus::poisonings() != self.poisonings)
    }

    fn receive(
        &mut self,
        queue: usize,
        burst: &mut Burst,
        _resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<(), Fault> {
        let index = 2 * queue + 1;
        let Some(Place { ring: Some(ring), enabled }) = self.rings.get_mut(index) else { return Ok(()) };
        if let Err(error) = ring.receive(burst, stats) {
            burst.clear();
            return Err(fault(index, &error));
        }
        check_doorbell(ring).inspect_err(|_| burst.clear())?;
        if !*enabled {
            stats.drop_many(DropReason::NotConnected, burst.len() as u64);
            burst.clear();
            ring.release();
        }
        self.check_memory().inspect_err(|_| burst.clear())
    }

    fn release(&mut self, queue: usize, burst: &mut Burst, _resources: &mut Resources) -> Result<(), Fault> {
        burst.clear();
        if let Some(Place { ring: Some(ring), .. }) = self.rings.get_mut(2 * queue + 1) {
            ring.release();
            check_doorbell(ring)?;
        }
        self.check_memory()
    }

    fn send(
        &mut self,
        burst: &mut Burst,
        items: &[TxItem],
        _sole: u64,
        _resources: &mut Resources,
        stats: &mut PortDelta,
    ) -> Result<u64, Fault> {
        let rings = &mut self.rings;
        let mut send = |index: usize, items: &[TxItem]| match rings.get_mut(index).and_then(|place| place.ring.as_mut())
        {
            Some(ring) => ring.send(burst, items, stats).map_err(|error| fault(index, &error)),
            None => Ok(not_connected(items, stats)),
        };
        let unsent = match *self.outlets.as_slice() {
            [] => not_connected(items, stats),
            [index] => send(index, items)?,
            ref outlets => items.iter().try_fold(0, |unsent, item| {
                let hash = flow_hash(burst.snapshot(usize::from(item.frame))) as usize;
                let outlet = hash.checked_rem(outlets.len()).and_then(|outlet| outlets.get(outlet));
                let index = outlet.copied().unwrap_or_default();
                send(index, std::slice::from_ref(item)).map(|also| unsent | also)
            })?,
        };
        for &index in &self.outlets {
            if let Some(Place { ring: Some(ring), .. }) = self.rings.get_mut(index) {
                ring.flush();
                check_doorbell(ring)?;
            }
        }
        self.check_memory()?;
        Ok(unsent)
    }

    fn arm(&mut self) -> bool {
        // Arms all of them, whatever the first says.
        self.inlets().fold(false, |waiting, ring| ring.arm() | waiting)
    }

    fn disarm(&mut self) {
        self.inlets().for_each(Ring::disarm);
    }

    fn wait_fds(&self) -> Vec<RawFd> {
        self.rings.iter().skip(1).step_by(2).filter_map(|place| place.ring.as_ref()?.kick_fd()).collect()
    }

    fn as_vhost(&mut self) -> Option<&mut VhostPort> {
        Some(self)
    }
}
