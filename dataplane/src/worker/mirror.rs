//! Mirror copies of a burst: after the egress ports took their frames, each mirror destination gets its copies.
//!
//! **How it works.** [`Egress`](labsw_switch::forward::Egress) lists, per destination, alternatives for each frame in frame
//! order. Of those for one frame the first whose egress really took the frame is chosen, so that a destination gets one
//! copy of what really passed, and the frames of one destination leave in order. Most alternatives in a row are of one
//! session and of one egress, so what has to be asked about those is asked once a run.

use labsw_switch::forward::TxItem;
use labsw_switch::{MirrorId, PortId};

use super::{Worker, send_to, slot};

/// Copies in a row that one session selected.
#[derive(Debug)]
pub(super) struct Run {
    mirror: MirrorId,
    /// Its snap length, bytes; 0: whole frames.
    snap_bytes: u16,
    /// The frames copied (bit = index in the burst).
    frames: u64,
}

impl Worker {
    /// Copies to the mirror destinations what really passed.
    pub(super) fn send_mirrors(&mut self) {
        for (mirror, matched) in self.egress.matched() {
            if let Some(stats) = self.shared.mirrors.get(mirror.index()) {
                stats.add_matched(self.lane.worker, matched.into());
            }
        }
        for at in 0..self.egress.mirror_active().len() {
            let Some(&to) = self.egress.mirror_active().get(at) else { break };
            self.choose_copies(to);
            let outcome = send_to(&mut self.slots, self.lane, to, &mut self.burst, &self.copies, 0);
            self.count_copies(*outcome.as_ref().unwrap_or(&u64::MAX));
            self.sent(to, outcome);
        }
    }

    /// Of the alternatives for each frame, takes the first whose egress really took the frame.
    fn choose_copies(&mut self, to: PortId) {
        self.copies.clear();
        self.copied_for.clear();
        let mut chosen = 0u64;
        // The egress looked at last, and the frames it did not take.
        let mut egress = (None, 0u64);
        for item in self.egress.mirror_items(to) {
            let frame = 1 << item.frame;
            if egress.0 != item.after {
                let failed = |port| slot(&mut self.slots, port).map_or(u64::MAX, |slot| slot.failed);
                egress = (item.after, item.after.map_or(0, failed));
            }
            if (egress.1 | chosen) & frame != 0 {
                continue;
            }
            chosen |= frame;
            let snap_bytes = match self.copied_for.last_mut() {
                Some(run) if run.mirror == item.mirror => {
                    run.frames |= frame;
                    run.snap_bytes
                }
                _ => {
                    let snap_bytes = self.tables.mirror(item.mirror).map_or(0, |mirror| mirror.snaplen_bytes);
                    // Longer than any frame is as good as whole.
                    let snap_bytes = u16::try_from(snap_bytes).unwrap_or(0);
                    self.copied_for.push(Run { mirror: item.mirror, snap_bytes, frames: frame });
                    snap_bytes
                }
            };
            self.copies.push(TxItem { frame: item.frame, edit: item.edit, snap_bytes });
        }
    }

    /// Counts the copies just made, of which those in `failed` were not sent.
    fn count_copies(&self, failed: u64) {
        for run in &self.copied_for {
            let Some(stats) = self.shared.mirrors.get(run.mirror.index()) else { continue };
            let sent = run.frames & !failed;
            let truncated = if run.snap_bytes == 0 {
                0
            } else {
                let frames = (0u32..).zip(self.burst.frames());
                frames.filter(|(at, frame)| sent >> at & 1 == 1 && frame.len > run.snap_bytes.into()).count()
            };
            let dropped = run.frames & failed;
            stats.add_copies(self.lane.worker, sent.count_ones().into(), dropped.count_ones().into(), truncated as u64);
        }
    }
}
