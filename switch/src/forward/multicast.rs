//! Multicast frames in VLANs where snooping is on ([`crate::multicast`]): the receivers of a flooded frame, and
//! learning from whole frames. Nothing here is reached by unicast frames, nor by any frame of a VLAN without snooping.

use super::{Egress, Forwarder};
use crate::header::Header;
use crate::inline::Part;
use crate::multicast::{PortSet, look};
use crate::tables::Port;
use crate::vlan::Tags;
use crate::{PortId, Vid};

impl<'a> Forwarder<'a> {
    /// The port by whose rules frames that arrive on `ingress` enter, and its id.
    fn entrance(self, ingress: PortId) -> Option<(&'a Port, PortId)> {
        if let Some(Part::Far { of, .. }) = self.tables.part(ingress) {
            return Some((self.tables.port(of)?, of));
        }
        let began = self.ingress(ingress);
        let began = began.injected_ingress().unwrap_or(began);
        Some((began.port.ok()?, began.id))
    }

    /// Those of the VLAN's ports that get a frame to a group address; `None`: all. A frame that may teach something is
    /// marked in `egress`.
    #[inline(never)]
    pub(super) fn audience(
        &self,
        index: u8,
        vid: Vid,
        header: &Header,
        tags: &Tags,
        snapshot: &[u8],
        egress: &mut Egress,
    ) -> Option<PortSet> {
        let snooping = self.tables.snooping(vid)?;
        // The packet after a second tag belongs to a customer's VLAN, not to this one.
        if tags.inner.is_some() {
            return None;
        }
        let look = look(header, snapshot);
        if look.is_message() {
            egress.mark_message(index);
        }
        snooping.audience(vid, look)
    }

    /// Learns from a whole frame, received on `ingress`, that [`Egress::messages`] names; an injected frame counts as
    /// received where it entered.
    pub fn observe(&self, ingress: PortId, frame: &[u8]) {
        let Some((port, ingress)) = self.entrance(ingress) else { return };
        let Ok(header) = Header::parse(frame) else { return };
        let Ok(vid) = port.rules.vlan.classify(header.outer) else { return };
        if let Some(snooping) = self.tables.snooping(vid) {
            snooping.observe(vid, ingress, &header, frame, self.now_seconds);
        }
    }
}
