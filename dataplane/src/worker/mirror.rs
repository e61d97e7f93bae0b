//! Mirror copies of a burst: after the egress ports took their frames, each mirror destination gets its copies.
//!
//! [`Copies::choose`] works out the copies from what the ports really took; here they are sent and counted, mirror by
//! mirror. Offload requests are carried out first: a mirror shows frames as they are on a wire. A frame is counted once
//! for each port its copies go to, however many segments it was cut into.

use std::sync::Arc;

use labsw_switch::PortId;
use labsw_switch::forward::{Copies, Destination, TxItem};
use labsw_switch::tables::Tables;

use super::pipeline::Pipeline;
use super::ports::{Ports, Slot};
use crate::frame::Burst;
use crate::stats::MirrorStats;

/// The mirror copies of the burst at hand, and the counters of the mirror sessions.
#[derive(Debug)]
pub(super) struct Mirrors {
    copies: Copies,
    /// By mirror id.
    stats: Arc<[MirrorStats]>,
}

impl Mirrors {
    pub(super) fn new(stats: Arc<[MirrorStats]>) -> Mirrors {
        Mirrors { copies: Copies::new(), stats }
    }

    /// Works out which frames of a burst from `ingress` mirrors select, before it is sent.
    pub(super) fn select(&mut self, tables: &Tables, ingress: PortId, pipeline: &mut Pipeline) {
        let Pipeline { burst, egress, .. } = pipeline;
        self.copies.select(tables, ingress, egress, burst);
        // A frame that a mirror takes is read once: the sensor sees the bytes that the receiver gets.
        burst.copy_frames(egress.mirrored());
    }

    /// Chooses the copies to be made of the burst, after the egress ports took their frames. Returns the number of
    /// destinations.
    pub(super) fn choose(&mut self, worker: usize, pipeline: &Pipeline, ports: &Ports) -> usize {
        let failed = |port: PortId| ports.get(port).map_or(u64::MAX, |slot| slot.losses.frames());
        self.copies.choose(&pipeline.egress, failed);
        for (mirror, matched) in self.copies.matched() {
            if let Some(stats) = self.stats.get(mirror.index()) {
                stats.add_matched(worker, matched.count_ones().into());
            }
        }
        self.copies.destinations().len()
    }

    /// The `at`-th destination.
    pub(super) fn destination(&self, at: usize) -> Option<&Destination> {
        self.copies.destinations().get(at)
    }

    /// Counts the copies just made for a destination; the losses of its `slot` say which were not sent.
    pub(super) fn count(&self, worker: usize, destination: &Destination, slot: &Slot, burst: &Burst) {
        let lost = slot.losses.frames();
        for part in &destination.parts {
            let Some(stats) = self.stats.get(part.mirror.index()) else { continue };
            let sent = part.frames & !lost;
            let truncated = if part.snap_bytes == 0 {
                0
            } else {
                let frames = burst.frames();
                let copied_bytes = |item: &TxItem| {
                    let received = frames.get(usize::from(item.frame)).map_or(0, |frame| frame.len);
                    received.saturating_add_signed(item.edit.growth_bytes())
                };
                let items = destination.items.iter().filter(|item| sent >> item.frame & 1 == 1);
                items.filter(|item| copied_bytes(item) > part.snap_bytes.into()).count()
            };
            let dropped = part.frames & lost;
            stats.add_copies(worker, sent.count_ones().into(), dropped.count_ones().into(), truncated as u64);
        }
    }
}
