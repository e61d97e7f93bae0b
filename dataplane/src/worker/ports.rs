//! The ports as one worker sees them: their outputs, the counters of the burst at hand, and how frames are handed over.
//!
//! Most bursts go to the port as they are. One with frames that are not finished, or that might be merged, is compared
//! with what the port accepts first ([`TxPort::offers`]), and the [`Stage`] does the rest.

use labsw_switch::forward::TxItem;
use labsw_switch::{DropReason, MAX_PORTS, PortId};

use super::command::{ControlEnds, Event, Output};
use crate::clock::NEVER;
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::port::{Fault, PortSink, Turn, TxPort};
use crate::stage::{self, Stage};
use crate::stats::PortDelta;

/// All ports, by [`PortId::index`].
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) slots: Vec<Option<Slot>>,
    /// Ports whose delta has something to publish.
    dirty: Vec<PortId>,
}

/// One port as this worker sees it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) output: Output,
    pub(super) delta: PortDelta,
    /// The frames of the current burst that this port lost.
    pub(super) losses: Losses,
    /// Frames sent here, or dropped here, are captured.
    pub(super) watched: bool,
}

/// True if this burst may need staging for a port: frames to be finished, cut, or merged.
#[inline]
pub(super) fn needs_staging(burst: &Burst, items: &[TxItem]) -> bool {
    burst.asking() != 0 || (burst.is_movable() && items.len() > 1)
}

impl Ports {
    pub(super) fn new() -> Ports {
        Ports { slots: Vec::new(), dirty: Vec::with_capacity(MAX_PORTS) }
    }

    /// The slot of a port.
    #[inline]
    pub(super) fn get(&self, port: PortId) -> Option<&Slot> {
        self.slots.get(port.index())?.as_ref()
    }

    /// The slot of a port.
    #[inline]
    pub(super) fn get_mut(&mut self, port: PortId) -> Option<&mut Slot> {
        self.slots.get_mut(port.index())?.as_mut()
    }

    /// The ports that exist, each with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PortId, &Slot)> {
        (0..).map(PortId).zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// The counters of `port` have something to publish.
    #[inline]
    pub(super) fn touch(&mut self, port: PortId) {
        self.dirty.push(port);
    }

    /// Counts a drop that was decided.
    #[inline]
    pub(super) fn drop(&mut self, port: PortId, reason: DropReason) {
        if let Some(slot) = self.get_mut(port) {
            slot.delta.drop(reason);
            if self.dirty.last() != Some(&port) {
                self.dirty.push(port);
            }
        }
    }

    /// Records the end of a send to `id`: its counters are published with the burst, and a fault is reported at once.
    #[inline]
    pub(super) fn sent(&mut self, id: PortId, outcome: Result<(), Fault>, control: &ControlEnds) {
        self.dirty.push(id);
        if let Err(fault) = outcome {
            control.notify(Event::PortFault { id, fault });
        }
    }

    /// Publishes the counters of every port touched by the burst.
    #[inline]
    pub(super) fn publish(&mut self, worker: usize) {
        let Ports { slots, dirty } = self;
        for port in dirty.drain(..) {
            if let Some(Some(slot)) = slots.get_mut(port.index()) {
                slot.publish(worker);
            }
        }
    }

    /// Lets the transmit side of a port do its timed work.
    pub(super) fn run_due(&mut self, id: PortId, turn: &Turn, control: &ControlEnds) {
        let Some(slot) = self.get_mut(id) else { return };
        let Some(tx) = &slot.output.tx else { return };
        let outcome = tx.run_due(turn, &mut slot.delta);
        slot.publish(turn.worker);
        if let Err(fault) = outcome {
            control.notify(Event::PortFault { id, fault });
        }
    }

    /// The time at which some transmit side has timed work, ns.
    pub(super) fn next_due(&self, turn: &Turn) -> u64 {
        let due = self.iter().filter_map(|(_, slot)| Some(slot.output.tx.as_ref()?.next_due(turn)));
        due.min().unwrap_or(NEVER)
    }
}

impl Slot {
    pub(super) fn new(output: &Output) -> Slot {
        Slot { output: output.clone(), delta: PortDelta::ZERO, losses: Losses::NONE, watched: false }
    }

    /// Publishes the counters.
    #[inline]
    pub(super) fn publish(&mut self, worker: usize) {
        self.output.stats.publish(worker, &mut self.delta);
    }

    /// The port's transmit side, and the report of a send to it; `None`, and all frames are lost, if it has none.
    #[inline]
    fn begin(&mut self, items: &[TxItem]) -> Option<(&dyn TxPort, TxReport<'_>)> {
        let Slot { output, delta: stats, losses, .. } = self;
        losses.clear();
        let mut report = TxReport { stats, losses };
        if output.tx.is_none() {
            report.lose_all(items, DropReason::NotConnected);
        }
        Some((&**output.tx.as_ref()?, report))
    }

    /// Hands frames to the port; afterwards `losses` says which it lost. No other port gets the frames in `unshared`
    /// (bit = index in the burst), so that their buffers may be moved.
    #[inline]
    pub(super) fn send(
        &mut self,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        unshared: u64,
    ) -> Result<(), Fault> {
        let Some((tx, mut report)) = self.begin(items) else { return Ok(()) };
        burst.set_exclusive(unshared);
        tx.send(turn, burst, items, &mut report)
    }

    /// Like [`Slot::send`], after the stage has done the work that the port does not accept.
    pub(super) fn prepare_and_send(
        &mut self,
        stage: &mut Stage,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        unshared: u64,
    ) -> Result<(), Fault> {
        let finished = self.output.finished;
        let Some((tx, mut report)) = self.begin(items) else { return Ok(()) };
        let offers = if finished { Offers::NONE } else { tx.offers() };
        burst.set_exclusive(0);
        if burst.asking() != 0 && stage::is_needed(burst, items, offers) {
            stage.resolve(&mut PortSink { tx, turn }, burst, items, offers, &mut report)
        } else if burst.is_movable() && offers.takes_merged() && stage::may_merge(burst, items) {
            stage.merge(&mut PortSink { tx, turn }, burst, items, offers, &mut report)
        } else {
            burst.set_exclusive(unshared);
            tx.send(turn, burst, items, &mut report)
        }
    }

    /// Like [`Slot::send`], with every frame finished as on a wire.
    pub(super) fn send_finished(
        &mut self,
        stage: &mut Stage,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
    ) -> Result<(), Fault> {
        let Some((tx, mut report)) = self.begin(items) else { return Ok(()) };
        burst.set_exclusive(0);
        if burst.asking() != 0 && stage::is_needed(burst, items, Offers::NONE) {
            stage.resolve(&mut PortSink { tx, turn }, burst, items, Offers::NONE, &mut report)
        } else {
            tx.send(turn, burst, items, &mut report)
        }
    }
}
