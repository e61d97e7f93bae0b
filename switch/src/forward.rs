//! The forwarding decision: one burst of one ingress port in, per-egress lists out.
//!
//! [`Forwarder::ingress`] begins a burst, [`Ingress::frame`] decides about one frame of it; everything it decides is
//! pushed into [`Egress`], which the worker then walks port by port. Nothing here touches frame bytes beyond the
//! header snapshot. When the ports have taken their frames, [`Copies::choose`] works out the mirror copies of the burst.
//!
//! **Order of the decision.** Port up? Mirror destination? Header. From here on mirrors may copy the frame. MTU.
//! Link-local policy. VLAN. Guards. Learning. Look-up. Storm control if it floods (of a multicast frame: who wants it). Then per egress
//! port: up? mirror destination? VLAN and tag edit, MTU, isolation.
//! The first check that fails is the one that is counted.
//!
//! **Repetition.** Frames come in runs of one conversation. What is decided depends on the header, the tables and the
//! forwarding database only, and a frame that was learned from changes nothing when it comes again; so a frame whose header
//! is that of the one before it in the burst, and which is not too long, goes where that one went ([`Known`]). Guards that look
//! behind the header, or count, keep that from being noted.
//!
//! **Injection.** A mirror destination that may inject ([`crate::inject`]) takes frames in through its gate; what has passed is decided
//! about as a frame of another port is, by the same code. Its copies go to other destinations, never back.
//!
//! **Invariants.** A frame never leaves by the port it came in on, a port gets a frame at most once, a mirror
//! destination gets at most one copy of a frame, and no copy is made of a frame from or to a mirror
//! destination. The way of a unicast frame to a known address takes no lock and allocates nothing.

use crate::fdb::{Fdb, Learned};
use crate::header::{Header, HeaderWords};
use crate::inject::Entry;
use crate::multicast::PortSet;
use crate::tables::{Gate, LinkLocal, Port, Tables};
use crate::vlan::{Leaves, Tags};
use crate::{DropReason, PortId, Vid, vlan};

mod copies;
mod egress;
mod multicast;
mod witness;

pub use copies::{Copies, Destination, Part};
pub use egress::Egress;
pub use witness::Witness;

const NS_PER_SECOND: u64 = 1_000_000_000;

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
    /// The time for what is finer than seconds, of the same clock.
    now_ns: u64,
    /// The port, or why it takes nothing.
    port: Result<&'a Port, DropReason>,
    /// Where the frame before went.
    known: Option<Known>,
    /// The way in, if it is a mirror destination that may inject.
    gate: Option<&'a Gate>,
    /// The time, for the gate.
    gate_ns: u64,
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
        let gate = if found.is_err() { self.gate(port) } else { None };
        let now_ns = u64::from(self.now_seconds) * NS_PER_SECOND;
        Ingress { by: self, id: port, now_ns, port: found, known: None, gate, gate_ns: 0 }
    }

    /// The way in from a port that takes nothing in otherwise.
    #[cold]
    fn gate(self, port: PortId) -> Option<&'a Gate> {
        self.tables.port(port).filter(|port| port.rules.enabled)?.gate.as_ref()
    }
}

impl<'a> Ingress<'a> {
    /// The time of the burst, nanoseconds of the clock of [`Forwarder::now_seconds`], for rates; else it is the begin of that
    /// second.
    #[inline]
    pub fn at_ns(self, now_ns: u64) -> Ingress<'a> {
        Ingress { now_ns, ..self }
    }

    /// Whether what it receives has to pass a gate, which needs the time: [`Ingress::set_gate_time`].
    #[inline]
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// The time, ns of any clock that all who inject on the port and all who send copies to it share.
    #[inline]
    pub fn set_gate_time(&mut self, now_ns: u64) {
        self.gate_ns = now_ns;
    }

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
            Err(reason) => return self.inject(index, snapshot, frame_bytes, reason, egress, witness),
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
        let guards = port.rules.guards.as_deref();
        if let Some(guards) = guards
            && let Err(reason) = guards.admit(header.src, snapshot)
        {
            return witness.dropped(index, ingress, reason);
        }
        let mut repeats = guards.is_none_or(|guards| !guards.looks_behind_header());
        if port.rules.learning {
            let learned = match is_dry(witness) {
                false => fdb.learn(vid, header.src, ingress, now_seconds),
                true => fdb.would_learn(vid, header.src, ingress, now_seconds),
            };
            match learned {
                Learned::Sticky => return witness.dropped(index, ingress, DropReason::MacSticky),
                Learned::PortLimit => {
                    repeats = false;
                    if let Some(guards) = guards
                        && let Err(reason) = guards.over_limit(header.src, is_dry(witness))
                    {
                        return witness.dropped(index, ingress, reason);
                    }
                }
                _ => {}
            }
        }
        let tags = port.rules.vlan.tags(&header);
        let known = if header.dst.is_group() { None } else { fdb.lookup(vid, header.dst, now_seconds) };
        let to = match known {
            Some(to) if to == ingress => return witness.dropped(index, ingress, DropReason::SamePort),
            Some(to) => to,
            None => {
                if let Some(guards) = guards
                    && let Err(reason) = guards.flood(header.dst, self.now_ns, is_dry(witness))
                {
                    return witness.dropped(index, ingress, reason);
                }
                let audience = if header.dst.is_group() {
                    self.by.audience(index, vid, &{ header }, &{ tags }, snapshot, egress)
                } else {
                    None
                };
                let audience = audience.as_ref();
                return self.by.flood(ingress, index, vid, &{ tags }, payload_bytes, audience, egress, witness);
            }
        };
        match unicast(tables, to, vid, tags, payload_bytes) {
            Ok((port_to, _)) if guards.is_some() && port.is_isolated() && port_to.is_isolated() => {
                witness.dropped(index, to, DropReason::Isolated);
            }
            Ok((port_to, edit)) => {
                let known = Known {
                    header: words.unwrap_or_default(),
                    third_word_mask: HeaderWords::third_word_mask(header.l3_offset),
                    most_bytes: port
                        .rules
                        .mtu_bytes
                        .min(port_to.rules.mtu_bytes.saturating_sub(customer_bytes(edit, tags)))
                        .saturating_add(header.l3_offset.into()),
                    vid,
                    to,
                    edit,
                    noted,
                    copied: copied || port_to.tx_mirrors.select(Some(vid)),
                };
                known.send(index, egress);
                // A header cut short (22 bytes are looked at, 14 are enough) is not compared with others.
                self.known = (words.is_some() && repeats).then_some(known);
            }
            Err(reason) => witness.dropped(index, to, reason),
        }
    }
}

impl Ingress<'_> {
    /// Decides about a frame of a port that takes nothing in for this `reason`, but what passes its gate.
    #[cold]
    #[inline(never)]
    fn inject<W: Witness>(
        &mut self,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        reason: DropReason,
        egress: &mut Egress,
        witness: &mut W,
    ) {
        let Some(Gate { injection, own }) = self.gate else { return witness.dropped(index, self.id, reason) };
        if let Err(reason) = injection.admit(snapshot, frame_bytes, self.gate_ns, W::DRY_RUN) {
            return witness.dropped(index, self.id, reason);
        }
        let mut entered = match (injection.spec().entry, own) {
            (Entry::Vlan(_), Some(own)) => Ingress { port: Ok(own), ..self.by.ingress(self.id) },
            (Entry::Port(port), _) => self.by.ingress(port),
            (Entry::Vlan(_), None) => return witness.dropped(index, self.id, reason),
        };
        (entered.now_ns, entered.gate) = (self.now_ns, None);
        entered.frame(index, snapshot, frame_bytes, egress, witness);
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

/// The bytes of customer's tags that are payload to who sends the frame with `edit`: those behind a tag of the VLAN.
#[inline(always)]
fn customer_bytes(edit: TagEdit, tags: Tags) -> u32 {
    if edit.insert.is_some() { tags.customer_bytes.into() } else { 0 }
}

/// The port `to` that a frame's destination is on, and how the frame leaves it; or why it does not.
#[inline(always)]
fn unicast(
    tables: &Tables,
    to: PortId,
    vid: Vid,
    tags: Tags,
    payload_bytes: u32,
) -> Result<(&Port, TagEdit), DropReason> {
    let port = tables.port(to).filter(|port| port.rules.enabled).ok_or(DropReason::PortDown)?;
    if port.mirror_destination {
        return Err(DropReason::MirrorDestination);
    }
    let edit = port.rules.vlan.egress(vid, tags)?;
    if payload_bytes.saturating_add(customer_bytes(edit, tags)) > port.rules.mtu_bytes {
        return Err(DropReason::Oversize);
    }
    Ok((port, edit))
}

impl Forwarder<'_> {
    /// Sends the frame to every other port of its VLAN that is in `audience` (`None`: to all of them).
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "all that is known of the frame by then")]
    fn flood(
        &self,
        ingress: PortId,
        index: u8,
        vid: Vid,
        tags: &Tags,
        payload_bytes: u32,
        audience: Option<&PortSet>,
        egress: &mut Egress,
        witness: &mut impl Witness,
    ) {
        let isolated = self.tables.port(ingress).is_some_and(Port::is_isolated);
        let edit_of = |leaves| vlan::edit(leaves, vid, *tags);
        let edit_tagged = edit_of(Leaves::Tagged);
        let edit_untagged = edit_of(Leaves::Untagged);
        let mut nobody = true;
        for member in self.tables.flood(vid).iter().filter(|member| member.port != ingress) {
            if audience.is_some_and(|audience| !audience.contains(member.port)) {
                continue;
            }
            let edit = match member.leaves {
                Leaves::Tagged => edit_tagged,
                Leaves::Untagged => edit_untagged,
                Leaves::Tunnel if !self.tables.takes_customer(member.port, tags.inner) => continue,
                Leaves::Tunnel => edit_of(Leaves::Tunnel),
            };
            nobody = false;
            let edit = match edit {
                Ok(edit) if payload_bytes.saturating_add(customer_bytes(edit, *tags)) > member.mtu_bytes => {
                    witness.dropped(index, member.port, DropReason::Oversize);
                    continue;
                }
                Ok(_) if isolated && member.isolated => {
                    witness.dropped(index, member.port, DropReason::Isolated);
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
            let reason = if audience.is_some() { DropReason::MulticastNotWanted } else { DropReason::NoDestination };
            witness.dropped(index, ingress, reason);
        }
    }
}

#[cfg(test)]
mod tests;
