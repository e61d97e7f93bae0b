//! The decision about the frame before: a flow cache of one entry.

use super::{Egress, TagEdit, TxItem};
use crate::header::HeaderWords;
use crate::{PortId, Vid};

/// The decision about a frame to a known address, which holds for every frame of the burst with the same header.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastDecision {
    pub header: HeaderWords,
    /// The bits of the header's third word that are compared.
    pub third_word_mask: u64,
    /// Longer frames are too long for one of the two ports.
    pub most_bytes: u32,
    pub to: PortId,
    pub edit: TagEdit,
    /// The VLAN of the frame, if mirrors select by it.
    pub mirror_vlan: Option<Vid>,
}

impl LastDecision {
    /// True if this is the decision about a frame of `frame_bytes` that begins with `words`.
    #[inline(always)]
    pub(super) fn holds_for(&self, words: HeaderWords, frame_bytes: u32) -> bool {
        frame_bytes <= self.most_bytes && self.header.same_header(self.third_word_mask, words)
    }

    /// Sends the frame to the port of its destination.
    #[inline(always)]
    pub(super) fn deliver(&self, index: u8, egress: &mut Egress) {
        egress.send(self.to, TxItem::whole(index, self.edit));
        if let Some(vid) = self.mirror_vlan {
            egress.mark_vlan(index, vid);
        }
    }
}
