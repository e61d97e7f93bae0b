//! RSPAN: the tag of copies that go to a VLAN.
//!
//! A copy carries the tag of the RSPAN VLAN instead of the outer one that the frame has at the watched port, or in
//! front of all if it has none. At a tunnel port tags are payload, so none is replaced there. How frames *in* such a
//! VLAN are passed on is a variant of the usual steps ([`super::steps`]).

use super::TagEdit;
use super::copies::bits;
use super::egress::frame_bit;
use crate::filter::Frames;
use crate::tables::Remote;
use crate::wire::{TAG_OFFSET, TPID_C_TAG, TPID_S_TAG, u16_at};
use crate::{Vid, vlan};

impl Remote {
    /// The frames of `set` (bit = index) whose copies, if made of them as received, have a tag replaced.
    pub(super) fn replaces(self, set: u64, frames: &(impl Frames + ?Sized)) -> u64 {
        let tagged = |frame: &u8| matches!(u16_at(frames.snapshot(*frame), TAG_OFFSET), Some(TPID_C_TAG | TPID_S_TAG));
        if self.behind { 0 } else { bits(set).filter(tagged).fold(0, |set, frame| set | frame_bit(frame)) }
    }

    /// How a copy in `vid` of what is there after `edit` differs from the received frame; `replaces`: if `edit` changes
    /// nothing, the frame has a tag that is replaced.
    #[inline]
    pub(super) fn edit(vid: Vid, edit: TagEdit, replaces: bool) -> TagEdit {
        let strip_bytes = if edit.keeps() && replaces { 4 } else { edit.strip_bytes };
        TagEdit { strip_bytes, insert: Some(vlan::tag_bytes(TPID_C_TAG, vid.get())) }
    }
}
