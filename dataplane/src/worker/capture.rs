//! Captures in the worker: which frames of a burst go to which [`CapturePoint`](crate::capture::CapturePoint).
//!
//! Frames from a port are captured before they are sent anywhere, as they were received; frames to a port are captured
//! after that port took them, as they were sent. Drops are noted while they are decided about; those at an egress port,
//! with their reasons, are in the [`Losses`] of the send.
//!
//! While a port is watched no buffer is given away on the way to it, so that the bytes are still there afterwards.
//! All of this is out of line: without captures it costs one test a burst and one per egress port.

use std::sync::Arc;

use labsw_switch::forward::{Egress, Forwarder, TagEdit, TxItem};
use labsw_switch::{BURST_FRAMES, DropReason, PortId};

use super::pipeline::Pipeline;
use super::ports::{Ports, Slot};
use crate::capture::{Captures, Recorder, Way, wall_clock_ns};
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::port::Turn;
use crate::stage::{self, Stage};
use crate::stats::PortDelta;

/// The captures of a worker.
#[derive(Debug)]
pub(super) struct Capturing {
    captures: Arc<Captures>,
    /// There is a capture, at whatever port.
    any: bool,
    /// Drops decided about in this burst, if drops are captured: at most one per frame and port.
    noted: Vec<(u8, PortId, DropReason)>,
    /// Frames chosen for a capture point.
    chosen: Vec<TxItem>,
}

impl Capturing {
    pub(super) fn new() -> Capturing {
        Capturing { captures: Arc::default(), any: false, noted: Vec::new(), chosen: Vec::with_capacity(BURST_FRAMES) }
    }

    /// True if there is a capture, at whatever port.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Captures by these from the next burst on.
    pub(super) fn set(&mut self, captures: Arc<Captures>, ports: &mut Ports) {
        self.any = captures.any();
        self.captures = captures;
        self.mark_watched(ports);
    }

    /// Says in each slot whether the frames sent there are captured.
    pub(super) fn mark_watched(&self, ports: &mut Ports) {
        for (id, slot) in (0..).map(PortId).zip(&mut ports.slots) {
            let captures = self.captures.port(id);
            if let Some(slot) = slot {
                slot.watched = captures.is_some_and(|port| !port.sent.is_empty() || !port.dropped.is_empty());
            }
        }
    }

    /// Decides about the burst, and captures the frames that came from `ingress` and those that the decision drops.
    #[cold]
    #[inline(never)]
    pub(super) fn decide(
        &mut self,
        pipeline: &mut Pipeline,
        forwarder: Forwarder<'_>,
        turn: &Turn,
        ingress: PortId,
        ports: &mut Ports,
    ) {
        if self.captures.drops() {
            pipeline.decide(forwarder, turn, ingress, |frame, port, reason| {
                ports.drop(port, reason);
                self.noted.push((frame, port, reason));
            });
        } else {
            // No drop is captured, so the fast decision is used: the capture may be at another port.
            pipeline.decide(forwarder, turn, ingress, |_, port, reason| ports.drop(port, reason));
        }
        // A frame with a capture among its takers is read once, as one with a mirror.
        pipeline.burst.copy_frames(self.captured(ingress, &pipeline.egress, ports));
        self.received(&mut pipeline.stage, &pipeline.burst, pipeline.egress.probes(), ingress);
    }

    /// The frames of the burst that some capture may take, here or at a port that they leave by.
    fn captured(&self, ingress: PortId, egress: &Egress, ports: &Ports) -> u64 {
        if self.captures.port(ingress).is_some_and(|port| !port.received.is_empty()) {
            return u64::MAX;
        }
        let dropped = self.noted.iter().fold(0, |set, (frame, ..)| set | 1 << frame);
        let is_watched = |port: &&PortId| ports.get(**port).is_some_and(|slot| slot.watched);
        let items = egress.active().iter().filter(is_watched).flat_map(|port| egress.items(*port));
        items.fold(dropped, |set, item| set | 1 << item.frame)
    }

    /// Captures the burst as it was received, except `probes` (bit = index), and the drops that were decided.
    fn received(&mut self, stage: &mut Stage, burst: &Burst, probes: u64, ingress: PortId) {
        let Capturing { captures, noted, chosen, .. } = self;
        let received = captures.port(ingress).map_or(&[][..], |port| &port.received);
        if received.is_empty() && noted.is_empty() {
            return;
        }
        let time_ns = wall_clock_ns();
        chosen.clear();
        let is_traffic = |item: &TxItem| probes >> item.frame & 1 == 0;
        chosen.extend((0u8..).map(as_received).take(burst.len()).filter(is_traffic));
        for point in received {
            let mut recorder = Recorder { point, way: Way::Rx, dropped: None, time_ns };
            show(&mut recorder, stage, burst, chosen);
        }
        for (frame, port, reason) in noted.drain(..) {
            let way = if port == ingress { Way::Rx } else { Way::Tx };
            let points = captures.port(port).map_or(&[][..], |port| &port.dropped);
            for point in points.iter().filter(|point| point.wants(way, reason)) {
                let mut recorder = Recorder { point: &point.point, way, dropped: Some(reason), time_ns };
                show(&mut recorder, stage, burst, &[as_received(frame)]);
            }
        }
    }

    /// Captures the frames that `port` was just given, and those of them that it lost.
    #[cold]
    #[inline(never)]
    pub(super) fn sent(&mut self, stage: &mut Stage, burst: &Burst, port: PortId, items: &[TxItem], slot: &Slot) {
        let Some(captures) = self.captures.port(port) else { return };
        let (losses, time_ns) = (&slot.losses, wall_clock_ns());
        let took = |item: &&TxItem| losses.reason(item.frame).is_none();
        self.chosen.clear();
        self.chosen.extend(items.iter().filter(took));
        for point in &captures.sent {
            let mut recorder = Recorder { point, way: Way::Tx, dropped: None, time_ns };
            show(&mut recorder, stage, burst, &self.chosen);
        }
        if captures.dropped.is_empty() || self.chosen.len() == items.len() {
            return;
        }
        for item in items {
            let Some(reason) = losses.reason(item.frame) else { continue };
            for point in captures.dropped.iter().filter(|point| point.wants(Way::Tx, reason)) {
                let mut recorder = Recorder { point: &point.point, way: Way::Tx, dropped: Some(reason), time_ns };
                show(&mut recorder, stage, burst, &[as_received(item.frame)]);
            }
        }
    }
}

/// Gives frames to a recorder as they are on a wire.
fn show(recorder: &mut Recorder<'_>, stage: &mut Stage, burst: &Burst, items: &[TxItem]) {
    if burst.asking() != 0 && stage::is_needed(burst, items, Offers::NONE) {
        // A recorder takes every frame; a frame that can't be cut is counted at the port that it was for.
        let report = &mut TxReport { stats: &mut PortDelta::ZERO.clone(), losses: &mut Losses::NONE.clone() };
        let _ = stage.resolve(recorder, burst, items, Offers::NONE, report);
    } else {
        recorder.record(burst, items);
    }
}

fn as_received(frame: u8) -> TxItem {
    TxItem::whole(frame, TagEdit::KEEP)
}
