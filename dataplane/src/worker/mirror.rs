//! Mirror copies of a burst: after the egress ports took their frames, each mirror destination gets its copies.
//!
//! Which copies those are, [`Copies::choose`](labsw_switch::forward::Copies::choose) works out from what the ports
//! really took; here they are sent and counted, mirror by mirror. What was left to do for a frame is done before: a
//! mirror shows frames as they are on a wire. Counted is a frame once for each port its copies go to, however many
//! segments it was cut into.

use labsw_switch::PortId;
use labsw_switch::forward::TxItem;

use super::{Worker, slot};

impl Worker {
    /// Works out what mirrors select of a burst from `ingress`, before it is sent.
    pub(super) fn select_for_mirrors(&mut self, ingress: PortId) {
        self.copies.select(&self.tables, ingress, &mut self.egress, &self.burst);
        // A frame with a mirror among its takers is read once: the sensor sees what the receiver gets.
        self.burst.copy_frames(self.egress.mirrored());
    }

    /// Copies to the mirror destinations what was selected of the burst and really passed.
    pub(super) fn send_mirrors(&mut self) {
        let slots = &self.slots;
        let failed = |port: PortId| {
            slots.get(port.index()).and_then(Option::as_ref).map_or(u64::MAX, |slot| slot.losses.frames())
        };
        self.copies.choose(&self.egress, failed);
        for (mirror, matched) in self.copies.matched() {
            if let Some(stats) = self.shared.mirrors.get(mirror.index()) {
                stats.add_matched(self.now.worker, matched.count_ones().into());
            }
        }
        for at in 0..self.copies.destinations().len() {
            let Some(destination) = self.copies.destinations().get(at) else { break };
            let to = destination.to;
            let Some(slot) = slot(&mut self.slots, to) else { continue };
            let watched = slot.watched;
            let outcome = slot.send_finished(&mut self.stage, &self.now, &mut self.burst, &destination.items);
            let lost = slot.losses.frames();
            self.count_copies(at, lost);
            self.sent(to, outcome);
            if watched {
                self.capture_mirrored(at);
            }
        }
    }

    /// Counts the copies just made for the `at`-th destination, of which those in `lost` were not sent.
    fn count_copies(&self, at: usize, lost: u64) {
        let Some(destination) = self.copies.destinations().get(at) else { return };
        for part in &destination.parts {
            let Some(stats) = self.shared.mirrors.get(part.mirror.index()) else { continue };
            let sent = part.frames & !lost;
            let truncated = if part.snap_bytes == 0 {
                0
            } else {
                let frames = self.burst.frames();
                let copied_bytes = |item: &TxItem| {
                    let received = frames.get(usize::from(item.frame)).map_or(0, |frame| frame.len);
                    received.saturating_add_signed(item.edit.growth_bytes())
                };
                let items = destination.items.iter().filter(|item| sent >> item.frame & 1 == 1);
                items.filter(|item| copied_bytes(item) > part.snap_bytes.into()).count()
            };
            let dropped = part.frames & lost;
            stats.add_copies(self.now.worker, sent.count_ones().into(), dropped.count_ones().into(), truncated as u64);
        }
    }
}
