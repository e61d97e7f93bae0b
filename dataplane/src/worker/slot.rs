//! A port as one worker sees it, and how it is given frames.
//!
//! Most bursts go to the port as they are. One with frames that are not finished, or that might be merged, is compared
//! with what the port accepts first ([`TxPort::offers`](crate::port::TxPort::offers)), and the [`Stage`] does the rest.

use labsw_switch::forward::TxItem;
use labsw_switch::{DropReason, PortId};

use super::Output;
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::port::{Fault, PortSink, Turn};
use crate::stage::{self, Stage};
use crate::stats::PortDelta;

/// A port as this worker sees it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) output: Output,
    pub(super) delta: PortDelta,
    /// The frames of the current burst that this port lost.
    pub(super) losses: Losses,
    /// What is sent here, or dropped here, is captured.
    pub(super) watched: bool,
}

/// The slot of a port.
#[inline]
pub(super) fn slot(slots: &mut [Option<Slot>], port: PortId) -> Option<&mut Slot> {
    slots.get_mut(port.index())?.as_mut()
}

/// Whether this burst may need staging for a port: frames to be finished, cut, or merged.
#[inline]
pub(super) fn needs_staging(burst: &Burst, items: &[TxItem]) -> bool {
    burst.asking() != 0 || (burst.is_movable() && items.len() > 1)
}

impl Slot {
    pub(super) fn new(output: &Output) -> Slot {
        Slot { output: output.clone(), delta: PortDelta::ZERO, losses: Losses::NONE, watched: false }
    }

    /// Hands frames to the port; afterwards `losses` says which it lost.
    #[inline]
    pub(super) fn send(&mut self, turn: &Turn, burst: &mut Burst, items: &[TxItem], sole: u64) -> Result<(), Fault> {
        let Slot { output, delta: stats, losses, .. } = self;
        losses.clear();
        let mut report = TxReport { stats, losses };
        match &output.tx {
            Some(tx) => tx.send(turn, burst, items, sole, &mut report),
            None => {
                report.lose_all(items, DropReason::NotConnected);
                Ok(())
            }
        }
    }

    /// As [`Slot::send`], after doing what the port does not accept to be left to it.
    pub(super) fn prepare_and_send(
        &mut self,
        stage: &mut Stage,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
        sole: u64,
    ) -> Result<(), Fault> {
        let Slot { output, delta: stats, losses, .. } = self;
        losses.clear();
        let report = &mut TxReport { stats, losses };
        let Some(tx) = &output.tx else {
            report.lose_all(items, DropReason::NotConnected);
            return Ok(());
        };
        let offers = tx.offers();
        if burst.asking() != 0 && stage::is_needed(burst, items, offers) {
            stage.resolve(&mut PortSink { tx: &**tx, turn }, burst, items, offers, report)
        } else if burst.is_movable() && offers.takes_merged() && stage::may_merge(burst, items) {
            stage.merge(&mut PortSink { tx: &**tx, turn }, burst, items, offers, report)
        } else {
            tx.send(turn, burst, items, sole, report)
        }
    }

    /// As [`Slot::send`], every frame as it is on a wire.
    pub(super) fn send_finished(
        &mut self,
        stage: &mut Stage,
        turn: &Turn,
        burst: &mut Burst,
        items: &[TxItem],
    ) -> Result<(), Fault> {
        let Slot { output, delta: stats, losses, .. } = self;
        losses.clear();
        let report = &mut TxReport { stats, losses };
        let Some(tx) = &output.tx else {
            report.lose_all(items, DropReason::NotConnected);
            return Ok(());
        };
        if burst.asking() != 0 && stage::is_needed(burst, items, Offers::NONE) {
            stage.resolve(&mut PortSink { tx: &**tx, turn }, burst, items, Offers::NONE, report)
        } else {
            tx.send(turn, burst, items, 0, report)
        }
    }
}
