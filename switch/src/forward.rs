//! The forwarding decision: one burst of one ingress port in, per-egress lists out.
//!
//! [`Forwarder::ingress`] begins a burst, [`Ingress::frame`] decides about one frame of it; everything it decides is
//! pushed into [`Egress`], which the worker then walks port by port. Nothing here touches frame bytes beyond the
//! header snapshot. When the ports have taken their frames, [`Copies::choose`] works out the mirror copies of the burst.
//!
//! **Order of the decision.** Port up? Mirror destination? Header. From here on mirrors may copy the frame. MTU.
//! Link-local policy. VLAN. Learning. Look-up. Then per egress port: up? mirror destination? VLAN and tag edit, MTU.
//! The first check that fails is the one that is counted.
//!
//! **Repetition.** Frames come in runs of one conversation. What is decided depends on the header, the tables and the
//! forwarding database only, and a frame that was learned from changes nothing when it comes again; so a frame whose header
//! is that of the one before it in the burst, and which is not too long, goes where that one went ([`Known`]).
//!
//! **Invariants.** A frame never leaves by the port it came in on, a port gets a frame at most once, a mirror
//! destination gets at most one copy of a frame, and no copy is made of a frame from or to a mirror
//! destination. The way of a unicast frame to a known address takes no lock and allocates nothing.

use crate::fdb::Fdb;
use crate::header::{Header, HeaderWords};
use crate::tables::{LinkLocal, Port, Tables};
use crate::{DropReason, PortId, Vid, vlan};

mod copies;
mod egress;
mod witness;

pub use copies::{Copies, Destination, Part};
pub use egress::Egress;
pub use witness::Witness;

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

    /// Whether the frame leaves as it came.
    #[inline]
    pub fn keeps(self) -> bool {
        self.strip_bytes == 0 && self.insert.is_none()
    }

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

/// What decisions are made by; the same for all frames of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Forwarder<'a> {
    /// The configuration in force.
    pub tables: &'a Tables,
    /// Where addresses are.
    pub fdb: &'a Fdb,
    /// The time, seconds of the clock that the fdb lives by.
    pub now_seconds: u32,
}

/// Decides about the frames of one burst.
#[derive(Debug)]
pub struct Ingress<'a> {
    by: Forwarder<'a>,
    id: PortId,
    /// The port, or why it takes nothing.
    port: Result<&'a Port, DropReason>,
    /// Where the frame before went.
    known: Option<Known>,
}

/// The decision about a frame to a known address, for all that have the same header.
#[derive(Debug)]
struct Known {
    header: HeaderWords,
    third_word_mask: u64,
    /// Longer frames are too long for one of the two ports.
    most_bytes: u32,
    vid: Vid,
    to: PortId,
    edit: TagEdit,
    /// Some mirror is in force.
    noted: bool,
    /// One at the ingress or at the egress selects the frame.
    copied: bool,
}

impl<'a> Forwarder<'a> {
    /// Begins a burst received on `port`.
    #[inline]
    pub fn ingress(self, port: PortId) -> Ingress<'a> {
        let found = match self.tables.port(port) {
            Some(found) if !found.rules.enabled => Err(DropReason::PortDown),
            Some(found) if found.mirror_destination => Err(DropReason::MirrorDestination),
            Some(found) => Ok(found),
            None => Err(DropReason::PortDown),
        };
        Ingress { by: self, id: port, port: found, known: None }
    }
}

impl<'a> Ingress<'a> {
    /// Decides about the `index`-th frame of the burst, which begins with `snapshot` (see
    /// [`crate::header::SNAPSHOT_BYTES`]).
    ///
    /// `frame_bytes` is its length on the wire; of a frame still to be segmented (TSO), the length of its
    /// largest segment. What is to be sent goes into `egress`; each drop is told to `witness` with the port
    /// it counts at.
    #[inline]
    pub fn frame(
        &mut self,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        witness: &mut impl Witness,
    ) {
        let words = HeaderWords::read(snapshot);
        if let (Some(known), Some(words)) = (&self.known, words)
            && frame_bytes <= known.most_bytes
            && known.header.same_header(known.third_word_mask, words)
        {
            return known.send(index, egress);
        }
        self.known = None;
        let ingress = self.id;
        let port = match self.port {
            Ok(port) => port,
            Err(reason) => return witness.dropped(index, ingress, reason),
        };
        let header = match words.map_or_else(|| Header::parse_short(snapshot), HeaderWords::header) {
            Ok(header) => header,
            Err(reason) => return witness.dropped(index, ingress, reason),
        };
        let Forwarder { tables, fdb, now_seconds } = self.by;
        let vlan = port.rules.vlan.classify(header.outer);
        let noted = tables.has_mirrors_in_force();
        let mut copied = false;
        if noted {
            let vid = vlan.ok().or_else(|| header.outer.and_then(Vid::from_tag));
            egress.note(index, vid);
            copied = port.rx_mirrors.select(vid);
            if copied {
                egress.share(index);
            }
        }
        let payload_bytes = frame_bytes.saturating_sub(u32::from(header.l3_offset));
        if payload_bytes > port.rules.mtu_bytes {
            return witness.dropped(index, ingress, DropReason::Oversize);
        }
        if port.rules.link_local == LinkLocal::Drop && header.dst.is_link_local() {
            return witness.dropped(index, ingress, DropReason::LinkLocal);
        }
        let vid = match vlan {
            Ok(vid) => vid,
            Err(reason) => return witness.dropped(index, ingress, reason),
        };
        if port.rules.learning && !is_dry(witness) {
            fdb.learn(vid, header.src, ingress, now_seconds);
        }
        let known = if header.dst.is_group() { None } else { fdb.lookup(vid, header.dst, now_seconds) };
        let to = match known {
            Some(to) if to == ingress => return witness.dropped(index, ingress, DropReason::SamePort),
            Some(to) => to,
            None => return self.by.flood(ingress, index, vid, &{ header }, payload_bytes, egress, witness),
        };
        match unicast(tables, to, vid, &header, payload_bytes) {
            Ok((port_to, edit)) => {
                let known = Known {
                    header: words.unwrap_or_default(),
                    third_word_mask: HeaderWords::third_word_mask(header.l3_offset),
                    most_bytes: port
                        .rules
                        .mtu_bytes
                        .min(port_to.rules.mtu_bytes)
                        .saturating_add(header.l3_offset.into()),
                    vid,
                    to,
                    edit,
                    noted,
                    copied: copied || port_to.tx_mirrors.select(Some(vid)),
                };
                known.send(index, egress);
                // A header cut short (22 bytes are looked at, 14 are enough) is not compared with others.
                self.known = words.is_some().then_some(known);
            }
            Err(reason) => witness.dropped(index, to, reason),
        }
    }
}

impl Known {
    /// Sends the frame to the port its destination is on.
    #[inline(always)]
    fn send(&self, index: u8, egress: &mut Egress) {
        egress.send(self.to, TxItem::whole(index, self.edit));
        if self.noted {
            egress.note(index, Some(self.vid));
        }
        if self.copied {
            egress.share(index);
        }
    }
}

/// Whether the decision is only asked about.
#[inline(always)]
fn is_dry<W: Witness>(_witness: &W) -> bool {
    W::DRY_RUN
}

/// The port `to` that a frame's destination is on, and how the frame leaves it; or why it does not.
#[inline(always)]
fn unicast<'a>(
    tables: &'a Tables,
    to: PortId,
    vid: Vid,
    header: &Header,
    payload_bytes: u32,
) -> Result<(&'a Port, TagEdit), DropReason> {
    let port = tables.port(to).filter(|port| port.rules.enabled).ok_or(DropReason::PortDown)?;
    if port.mirror_destination {
        return Err(DropReason::MirrorDestination);
    }
    let edit = port.rules.vlan.egress(vid, header.outer, header.inner_tagged)?;
    if payload_bytes > port.rules.mtu_bytes {
        return Err(DropReason::Oversize);
    }
    Ok((port, edit))
}

impl Forwarder<'_> {
    /// Sends the frame to every other port of its VLAN.
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all that is known of the frame by then")]
    fn flood(
        &self,
        ingress: PortId,
        index: u8,
        vid: Vid,
        header: &Header,
        payload_bytes: u32,
        egress: &mut Egress,
        witness: &mut impl Witness,
    ) {
        let Header { outer, inner_tagged, .. } = *header;
        let edit_tagged = vlan::edit(true, vid, outer, inner_tagged);
        let edit_untagged = vlan::edit(false, vid, outer, inner_tagged);
        let mut nobody = true;
        for member in self.tables.flood(vid).iter().filter(|member| member.port != ingress) {
            nobody = false;
            let edit = match if member.tagged { edit_tagged } else { edit_untagged } {
                Ok(_) if payload_bytes > member.mtu_bytes => {
                    witness.dropped(index, member.port, DropReason::Oversize);
                    continue;
                }
                Ok(edit) => edit,
                Err(reason) => {
                    witness.dropped(index, member.port, reason);
                    continue;
                }
            };
            egress.send(member.port, TxItem::whole(index, edit));
            if member.watched {
                egress.share(index);
            }
        }
        if nobody {
            witness.dropped(index, ingress, DropReason::NoDestination);
        }
    }
}

#[cfg(test)]
mod tests;
