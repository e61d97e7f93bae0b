//! RSPAN: frames in a VLAN that copies of mirrors go to, and the tag of such copies.
//!
//! **Frames in an RSPAN VLAN** are copies that another switch has made. They go to every port that names the VLAN in its trunks
//! but the one they came from, whatever their addresses are: these are of stations elsewhere, so nothing is learned from them and nothing
//! looked up. What a port guards it guards here, too. No mirror copies them, nor frames with such a tag from a port that is not in the VLAN:
//! there are no copies of copies.
//!
//! **Copies to an RSPAN VLAN** carry its tag instead of the outer one that the frame has at the watched port, or in front of all
//! if it has none. At a tunnel port tags are payload, so none is replaced there.

use super::copies::bits;
use super::egress::frame_bit;
use super::{Egress, Ingress, Step, TagEdit, Witness, guard, is_dry};
use crate::filter::Frames;
use crate::header::{Header, TPID_C_TAG, TPID_S_TAG};
use crate::tables::{Port, Remote};
use crate::{DropReason, Vid, vlan};

/// Where the first VLAN tag stands in a frame, bytes.
const TAG_OFFSET: usize = 12;

impl Ingress<'_> {
    /// Decides about a frame in an RSPAN VLAN, or with its tag and in no VLAN.
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all that is known of the frame by then")]
    pub(super) fn pass_on<W: Witness>(
        &self,
        port: &Port,
        index: u8,
        vlan: Result<Vid, DropReason>,
        header: &Header,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        witness: &mut W,
    ) {
        egress.hide(index);
        let payload_bytes = frame_bytes.saturating_sub(u32::from(header.l3_offset));
        let admitted = match vlan {
            _ if payload_bytes > port.rules.mtu_bytes => Err(DropReason::Oversize),
            vlan => port.rules.link_local.admit(header).and(vlan).and_then(|vid| {
                witness.step(index, || Step::Vlan(vid));
                witness.step(index, || Step::Rspan);
                guard::admit(port, header.src, snapshot)?;
                guard::flood(port, header.dst, self.now_ns, is_dry(witness))?;
                Ok(vid)
            }),
        };
        match admitted {
            Ok(vid) => {
                let tags = port.rules.vlan.tags(header);
                self.by.flood(self.id, index, vid, &tags, payload_bytes, None, egress, witness);
            }
            Err(reason) => witness.dropped(index, self.id, reason),
        }
    }
}

impl Remote {
    /// The frames of `set` (bit = index) whose copies, if made of them as received, have a tag replaced.
    pub(super) fn replaces(self, set: u64, frames: &(impl Frames + ?Sized)) -> u64 {
        let tagged = |frame: &u8| {
            let tpid = frames.snapshot(*frame).get(TAG_OFFSET..).and_then(|rest| rest.first_chunk());
            tpid.is_some_and(|tpid| matches!(u16::from_be_bytes(*tpid), TPID_C_TAG | TPID_S_TAG))
        };
        if self.behind { 0 } else { bits(set).filter(tagged).fold(0, |set, frame| set | frame_bit(frame)) }
    }

    /// How a copy in `vid` of what is there after `edit` differs from the received frame; `replaces`: if `edit` changes nothing, the
    /// frame has a tag that is replaced.
    #[inline]
    pub(super) fn edit(vid: Vid, edit: TagEdit, replaces: bool) -> TagEdit {
        let strip_bytes = if edit.keeps() && replaces { 4 } else { edit.strip_bytes };
        TagEdit { strip_bytes, insert: Some(vlan::tag_bytes(TPID_C_TAG, vid.get())) }
    }
}
