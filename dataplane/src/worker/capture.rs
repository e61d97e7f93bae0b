//! Captures in the worker: which frames of a burst go to which [`Watch`](crate::capture::Watch).
//!
//! What came from a port is captured before it is sent anywhere, as it was received; what went to a port after that
//! port took it, as it was sent. Drops are noted while they are decided about; those at an egress port, with their
//! reasons, are in the [`Losses`] of the send.
//!
//! While a port is watched no buffer is given away on the way to it, so that the bytes are still there afterwards.
//! All of this is out of line: what is not captured costs one test a burst and one per egress port.

use std::sync::Arc;

use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::{BURST_FRAMES, DropReason, PortId};

use super::{Worker, slot};
use crate::capture::{Captures, Recorder, Way, wall_clock_ns};
use crate::frame::Burst;
use crate::losses::{Losses, TxReport};
use crate::offload::Offers;
use crate::stage::{self, Stage};
use crate::stats::PortDelta;

/// Decide with captures of what passes.
const OTHERS: u8 = 1;
/// Decide with captures of drops.
pub(super) const DROPS: u8 = 2;

/// What a worker captures.
#[derive(Debug)]
pub(super) struct Capturing {
    captures: Arc<Captures>,
    /// There is a capture, at whatever port.
    pub(super) any: bool,
    /// Drops decided about in this burst, if drops are captured: at most one per frame and port.
    noted: Vec<(u8, PortId, DropReason)>,
    /// Frames chosen for a watch.
    chosen: Vec<TxItem>,
}

impl Capturing {
    pub(super) fn new() -> Capturing {
        Capturing { captures: Arc::default(), any: false, noted: Vec::new(), chosen: Vec::with_capacity(BURST_FRAMES) }
    }

    /// Notes a drop that was decided about.
    pub(super) fn note(&mut self, frame: u8, port: PortId, reason: DropReason) {
        self.noted.push((frame, port, reason));
    }

    /// A port was given these frames and lost those in `losses`.
    fn sent(&mut self, by: &mut Stage, burst: &Burst, port: PortId, items: &[TxItem], losses: &Losses) {
        let Some(captures) = self.captures.port(port) else { return };
        let time_ns = wall_clock_ns();
        let took = |item: &&TxItem| losses.reason(item.frame).is_none();
        self.chosen.clear();
        self.chosen.extend(items.iter().filter(took));
        for watch in &captures.sent {
            let mut recorder = Recorder { watch, way: Way::Tx, dropped: None, time_ns };
            show(&mut recorder, by, burst, &self.chosen);
        }
        if captures.dropped.is_empty() || self.chosen.len() == items.len() {
            return;
        }
        for item in items {
            let Some(reason) = losses.reason(item.frame) else { continue };
            for watch in captures.dropped.iter().filter(|watch| watch.wants(Way::Tx, reason)) {
                let mut recorder = Recorder { watch: &watch.watch, way: Way::Tx, dropped: Some(reason), time_ns };
                show(&mut recorder, by, burst, &[as_received(item.frame)]);
            }
        }
    }
}

impl Worker {
    /// Captures by these from the next burst on.
    pub(super) fn set_captures(&mut self, captures: Arc<Captures>) {
        self.capturing.any = captures.any();
        self.capturing.captures = captures;
        self.mark_watched();
    }

    /// Says in each slot whether what is sent there is captured.
    pub(super) fn mark_watched(&mut self) {
        for (id, slot) in (0..).map(PortId).zip(&mut self.slots) {
            let captures = self.capturing.captures.port(id);
            if let Some(slot) = slot {
                slot.watched = captures.is_some_and(|port| !port.sent.is_empty() || !port.dropped.is_empty());
            }
        }
    }

    /// Decides about the burst, and captures what came from `ingress` and what of it is dropped by that.
    #[cold]
    #[inline(never)]
    pub(super) fn decide_and_capture(&mut self, ingress: PortId) {
        if self.capturing.captures.drops() {
            self.decide_noting(ingress);
        } else {
            self.decide_beside(ingress);
        }
        // A frame with a capture among its takers is read once, as one with a mirror.
        self.burst.copy_frames(self.captured(ingress));
        self.capture_received(ingress);
    }

    /// The frames of the burst that some capture may take, here or at a port that they leave by.
    fn captured(&self, ingress: PortId) -> u64 {
        let Capturing { captures, noted, .. } = &self.capturing;
        if captures.port(ingress).is_some_and(|port| !port.received.is_empty()) {
            return u64::MAX;
        }
        let dropped = noted.iter().fold(0, |set, (frame, ..)| set | 1 << frame);
        let is_watched =
            |port: &&PortId| self.slots.get(port.index()).and_then(Option::as_ref).is_some_and(|slot| slot.watched);
        let items = self.egress.active().iter().filter(is_watched).flat_map(|port| self.egress.items(*port));
        items.fold(dropped, |set, item| set | 1 << item.frame)
    }

    #[cold]
    #[inline(never)]
    fn decide_noting(&mut self, ingress: PortId) {
        self.decide::<DROPS>(ingress);
    }

    /// As fast as without captures: this may be another port's.
    #[inline(never)]
    fn decide_beside(&mut self, ingress: PortId) {
        self.decide::<OTHERS>(ingress);
    }

    fn capture_received(&mut self, ingress: PortId) {
        let Worker { capturing, stage, burst, .. } = self;
        let Capturing { captures, noted, chosen, .. } = capturing;
        let received = captures.port(ingress).map_or(&[][..], |port| &port.received);
        if received.is_empty() && noted.is_empty() {
            return;
        }
        let time_ns = wall_clock_ns();
        chosen.clear();
        chosen.extend((0u8..).map(as_received).take(burst.len()));
        for watch in received {
            let mut recorder = Recorder { watch, way: Way::Rx, dropped: None, time_ns };
            show(&mut recorder, stage, burst, chosen);
        }
        for (frame, port, reason) in noted.drain(..) {
            let way = if port == ingress { Way::Rx } else { Way::Tx };
            let watches = captures.port(port).map_or(&[][..], |port| &port.dropped);
            for watch in watches.iter().filter(|watch| watch.wants(way, reason)) {
                let mut recorder = Recorder { watch: &watch.watch, way, dropped: Some(reason), time_ns };
                show(&mut recorder, stage, burst, &[as_received(frame)]);
            }
        }
    }

    /// Captures what a port was sent of the burst, and what it did not take.
    #[cold]
    #[inline(never)]
    pub(super) fn capture_sent(&mut self, port: PortId) {
        let Some(slot) = slot(&mut self.slots, port) else { return };
        self.capturing.sent(&mut self.stage, &self.burst, port, self.egress.items(port), &slot.losses);
    }

    /// As [`Worker::capture_sent`], of what the `at`-th mirror destination was sent.
    #[cold]
    #[inline(never)]
    pub(super) fn capture_mirrored(&mut self, at: usize) {
        let Some(destination) = self.copies.destinations().get(at) else { return };
        let Some(slot) = slot(&mut self.slots, destination.to) else { return };
        self.capturing.sent(&mut self.stage, &self.burst, destination.to, &destination.items, &slot.losses);
    }
}

/// Gives frames to a recorder as they are on a wire.
fn show(recorder: &mut Recorder<'_>, stage: &mut Stage, burst: &Burst, items: &[TxItem]) {
    if burst.asking() != 0 && stage::is_needed(burst, items, Offers::NONE) {
        // A recorder takes everything; what can't be cut is counted at the port that it was for.
        let report = &mut TxReport { stats: &mut PortDelta::ZERO.clone(), losses: &mut Losses::NONE.clone() };
        let _ = stage.resolve(recorder, burst, items, Offers::NONE, report);
    } else {
        recorder.record(burst, items);
    }
}

fn as_received(frame: u8) -> TxItem {
    TxItem::whole(frame, TagEdit::KEEP)
}
