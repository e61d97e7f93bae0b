//! The forwarding decision: one burst of one ingress port in, per-egress lists out.
//!
//! [`Forwarder::frame`] decides about one frame; everything it decides is pushed into [`Egress`], which
//! the worker then walks port by port. Nothing here touches frame bytes beyond the header snapshot.
//!
//! **Order of the decision.** Port up? Mirror destination? Header. Ingress mirrors. MTU. Link-local policy.
//! VLAN. Learning. Look-up. Then per egress port: up? mirror destination? VLAN and tag edit, MTU, egress mirrors.
//! The first check that fails is the one that is counted.
//!
//! **Invariants.** A frame never leaves by the port it came in on, a port gets a frame at most once, a mirror
//! destination gets at most one copy of a frame, and no copy is made of a frame from or to a mirror
//! destination. The way of a unicast frame to a known address takes no lock and allocates nothing.

use crate::fdb::Fdb;
use crate::header::Header;
use crate::tables::{LinkLocal, Port, Tables, Watch};
use crate::{DropReason, MirrorId, PortId, Vid, vlan};

mod egress;

pub use egress::Egress;

/// How the outgoing frame differs from the received one: at most one VLAN tag removed and one inserted,
/// both right behind the MAC addresses (offset 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagEdit {
    /// Bytes removed at offset 12: 0 or 4.
    pub strip_bytes: u8,
    /// Tag inserted at offset 12: TPID and TCI in network order.
    pub insert: Option<[u8; 4]>,
}

impl TagEdit {
    /// The frame leaves as it came.
    pub const KEEP: TagEdit = TagEdit { strip_bytes: 0, insert: None };

    /// Change in frame length, bytes.
    #[inline]
    pub fn growth_bytes(self) -> i32 {
        (if self.insert.is_some() { 4 } else { 0 }) - i32::from(self.strip_bytes)
    }
}

/// One frame for one egress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxItem {
    /// Index of the frame in the burst.
    pub frame: u8,
    /// What changes on the way out.
    pub edit: TagEdit,
    /// Only this many bytes leave (the copy of a mirror with a snap length); 0: the whole frame.
    pub snap_bytes: u16,
}

impl TxItem {
    /// The whole frame.
    pub fn whole(frame: u8, edit: TagEdit) -> TxItem {
        TxItem { frame, edit, snap_bytes: 0 }
    }
}

/// One frame for one mirror destination.
///
/// Items of one destination stand in frame order; items with the same `frame` are alternatives, of which
/// the first whose `after` holds is sent, so that a destination gets one copy per frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorItem {
    /// Index of the frame in the burst.
    pub frame: u8,
    /// What changes on the way out.
    pub edit: TagEdit,
    /// The session that selected it.
    pub mirror: MirrorId,
    /// The copy of an egress is made only if that port really took the frame; `None`: copy of an ingress.
    pub after: Option<PortId>,
}

/// Decides about frames; made anew for each turn of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Forwarder<'a> {
    /// The configuration in force.
    pub tables: &'a Tables,
    /// Where addresses are.
    pub fdb: &'a Fdb,
    /// The time, seconds of the clock that the fdb lives by.
    pub now_seconds: u32,
}

/// A frame that passed the checks at its ingress.
struct Admitted<'h> {
    header: &'h Header,
    ingress: PortId,
    vid: Vid,
    index: u8,
    payload_bytes: u32,
}

impl Forwarder<'_> {
    /// Decides about one frame received on `ingress`, the `index`-th of its burst, which begins with
    /// `snapshot` (see [`crate::header::SNAPSHOT_BYTES`]).
    ///
    /// `frame_bytes` is its length on the wire; of a frame still to be segmented (TSO), the length of its
    /// largest segment. What is to be sent goes into `egress`; each drop is told to `drops` with the port
    /// it counts at.
    #[inline]
    pub fn frame(
        &self,
        ingress: PortId,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        drops: &mut impl FnMut(PortId, DropReason),
    ) {
        let Some(port) = self.tables.port(ingress).filter(|port| port.rules.enabled) else {
            return drops(ingress, DropReason::PortDown);
        };
        if port.mirror_destination {
            return drops(ingress, DropReason::MirrorDestination);
        }
        let header = match Header::parse(snapshot) {
            Ok(header) => header,
            Err(reason) => return drops(ingress, reason),
        };
        egress.begin_frame();
        let vlan = port.rules.vlan.classify(header.outer);
        if !port.rx_mirrors.is_empty() {
            let vid = vlan.ok().or_else(|| header.outer.and_then(Vid::from_tag));
            copy_to_mirrors(&port.rx_mirrors, vid, index, TagEdit::KEEP, None, egress);
        }
        let payload_bytes = frame_bytes.saturating_sub(u32::from(header.l3_offset));
        if payload_bytes > port.rules.mtu_bytes {
            return drops(ingress, DropReason::Oversize);
        }
        if port.rules.link_local == LinkLocal::Drop && header.dst.is_link_local() {
            return drops(ingress, DropReason::LinkLocal);
        }
        let vid = match vlan {
            Ok(vid) => vid,
            Err(reason) => return drops(ingress, reason),
        };
        if port.rules.learning {
            self.fdb.learn(vid, header.src, ingress, self.now_seconds);
        }
        let frame = Admitted { header: &header, ingress, vid, index, payload_bytes };
        let known = if header.dst.is_group() { None } else { self.fdb.lookup(vid, header.dst, self.now_seconds) };
        match known {
            Some(to) if to == ingress => drops(ingress, DropReason::SamePort),
            Some(to) => self.unicast(&frame, to, egress, drops),
            None => self.flood(&frame, egress, drops),
        }
    }

    /// Sends the frame to the port its destination is on.
    #[inline]
    fn unicast(
        &self,
        frame: &Admitted<'_>,
        to: PortId,
        egress: &mut Egress,
        drops: &mut impl FnMut(PortId, DropReason),
    ) {
        let Some(port) = self.tables.port(to).filter(|port| port.rules.enabled) else {
            return drops(to, DropReason::PortDown);
        };
        match tag_edit(frame, port) {
            Ok(edit) => {
                egress.send(to, TxItem::whole(frame.index, edit));
                copy_to_mirrors(&port.tx_mirrors, Some(frame.vid), frame.index, edit, Some(to), egress);
            }
            Err(reason) => drops(to, reason),
        }
    }

    /// Sends the frame to every other port of its VLAN.
    fn flood(&self, frame: &Admitted<'_>, egress: &mut Egress, drops: &mut impl FnMut(PortId, DropReason)) {
        let Header { outer, inner_tagged, .. } = *frame.header;
        let edit_tagged = vlan::edit(true, frame.vid, outer, inner_tagged);
        let edit_untagged = vlan::edit(false, frame.vid, outer, inner_tagged);
        let mut nobody = true;
        for member in self.tables.flood(frame.vid).iter().filter(|member| member.port != frame.ingress) {
            nobody = false;
            let edit = match if member.tagged { edit_tagged } else { edit_untagged } {
                Ok(_) if frame.payload_bytes > member.mtu_bytes => {
                    drops(member.port, DropReason::Oversize);
                    continue;
                }
                Ok(edit) => edit,
                Err(reason) => {
                    drops(member.port, reason);
                    continue;
                }
            };
            egress.send(member.port, TxItem::whole(frame.index, edit));
            if member.watched
                && let Some(port) = self.tables.port(member.port)
            {
                copy_to_mirrors(&port.tx_mirrors, Some(frame.vid), frame.index, edit, Some(member.port), egress);
            }
        }
        if nobody {
            drops(frame.ingress, DropReason::NoDestination);
        }
    }
}

/// How the frame leaves a port that is up, or why it does not.
#[inline]
fn tag_edit(frame: &Admitted<'_>, port: &Port) -> Result<TagEdit, DropReason> {
    if port.mirror_destination {
        return Err(DropReason::MirrorDestination);
    }
    let edit = port.rules.vlan.egress(frame.vid, frame.header.outer, frame.header.inner_tagged)?;
    if frame.payload_bytes > port.rules.mtu_bytes {
        return Err(DropReason::Oversize);
    }
    Ok(edit)
}

/// Has every mirror of `watches` that selects the frame copy it.
#[inline]
fn copy_to_mirrors(
    watches: &[Watch],
    vid: Option<Vid>,
    frame: u8,
    edit: TagEdit,
    after: Option<PortId>,
    egress: &mut Egress,
) {
    for watch in watches.iter().filter(|watch| watch.selects(vid)) {
        egress.mirror(watch.to, MirrorItem { frame, edit, mirror: watch.mirror, after });
    }
}

#[cfg(test)]
mod tests;
