//! The forwarding decision: one burst of one ingress port in, per-egress lists out.
//!
//! [`Forwarder::ingress`] begins a burst, [`Ingress::frame`] decides about one frame of it; everything it decides is
//! pushed into [`Egress`], which the worker then walks port by port. Nothing here touches frame bytes beyond the
//! header snapshot. Before the ports take their frames [`Copies::select`] finds those that mirrors
//! select; when they have taken them, [`Copies::choose`] works out the copies.
//!
//! **Order of the decision.** Port up? Mirror destination? Header. From here on mirrors may copy the frame ([`Copies::select`]). MTU.
//! Link-local policy, MAC control. VLAN. Guards. Learning. Look-up. Storm control if it floods (of a multicast frame: who wants it). Then per egress
//! port: up? mirror destination? VLAN and tag edit, MTU, isolation.
//! The first check that fails is the one that is counted. A frame in an RSPAN VLAN is passed on without learning and look-up
//! ([`rspan`]).
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
use crate::tables::{Gate, Port, Tables};
use crate::vlan::{Leaves, Tags};
use crate::{DropReason, PortId, Vid, vlan};

mod copies;
mod egress;
mod guard;
mod multicast;
mod rspan;
mod witness;

pub use copies::{Copies, Destination, Part, Selection};
pub use egress::Egress;
pub use witness::{Step, Witness};

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
    /// Some mirror selects frames of its VLAN.
    noted: bool,
}

impl<'a> Forwarder<'a> {
    /// Begins a burst received on `port`.
    #[inline]
    pub fn ingress(self, port: PortId) -> Ingress<'a> {
        self.ingress_at(port, u64::from(self.now_seconds) * NS_PER_SECOND)
    }

    /// As [`Forwarder::ingress`], at a time that is known in nanoseconds, of the same clock: rates need that.
    #[inline]
    pub fn ingress_at(self, port: PortId, now_ns: u64) -> Ingress<'a> {
        let found = match self.tables.port(port) {
            Some(found) if !found.rules.enabled => Err(DropReason::PortDown),
            Some(found) if found.mirror_destination => Err(DropReason::MirrorDestination),
            Some(found) => Ok(found),
            None => Err(DropReason::PortDown),
        };
        let gate = if found.is_err() { self.gate(port) } else { None };
        Ingress { by: self, id: port, now_ns, port: found, known: None, gate, gate_ns: 0 }
    }

    /// The way in from a port that takes nothing in otherwise.
    #[cold]
    fn gate(self, port: PortId) -> Option<&'a Gate> {
        self.tables.port(port).filter(|port| port.rules.enabled)?.gate.as_ref()
    }
}

impl<'a> Ingress<'a> {
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
        // Pieces of code of their own, so that ports without guards and gates pay nothing for those of others.
        match self.port {
            Ok(port) if port.rules.guards.is_none() => {
                self.unlike::<false>(port, index, snapshot, frame_bytes, egress, witness);
            }
            Ok(port) => self.guarded(port, index, snapshot, frame_bytes, egress, witness),
            Err(reason) => self.inject(index, snapshot, frame_bytes, reason, egress, witness),
        }
    }

    /// As [`Ingress::unlike`], of a port that may have guards.
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "as `unlike`")]
    fn guarded(
        &mut self,
        port: &'a Port,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        witness: &mut impl Witness,
    ) {
        self.unlike::<true>(port, index, snapshot, frame_bytes, egress, witness);
    }

    /// Decides about a frame of `port` that is not like the one before it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "as `frame`, and the port")]
    fn unlike<const GUARDED: bool>(
        &mut self,
        port: &'a Port,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        witness: &mut impl Witness,
    ) {
        let words = HeaderWords::read(snapshot);
        let ingress = self.id;
        let header = match words.map_or_else(|| Header::parse_short(snapshot), HeaderWords::header) {
            Ok(header) => header,
            Err(reason) => {
                egress.hide(index);
                return witness.dropped(index, ingress, reason);
            }
        };
        witness.step(index, || Step::Header(header));
        let Forwarder { tables, fdb, now_seconds } = self.by;
        let vlan = port.rules.vlan.classify(header.outer);
        let mut noted = false;
        if let Some(vlans) = tables.noted_vlans()
            && let Some(vid) = vlan.ok().or_else(|| header.outer.and_then(Vid::from_tag))
            && vlans.contains(vid)
        {
            if tables.is_rspan(vid) {
                return self.pass_on(port, index, vlan, &{ header }, snapshot, frame_bytes, egress, witness);
            }
            egress.note(index, vid);
            noted = true;
        }
        let payload_bytes = frame_bytes.saturating_sub(u32::from(header.l3_offset));
        if payload_bytes > port.rules.mtu_bytes {
            return witness.dropped(index, ingress, DropReason::Oversize);
        }
        if header.is_of_neighbours()
            && let Err(reason) = port.rules.link_local.admit(&header)
        {
            return witness.dropped(index, ingress, reason);
        }
        let vid = match vlan {
            Ok(vid) => vid,
            Err(reason) => return witness.dropped(index, ingress, reason),
        };
        witness.step(index, || Step::Vlan(vid));
        if GUARDED && let Err(reason) = guard::admit(port, header.src, snapshot) {
            return witness.dropped(index, ingress, reason);
        }
        if port.rules.guards.is_some() {
            witness.step(index, || Step::Guarded);
        }
        if port.rules.learning {
            let learned = match is_dry(witness) {
                false => fdb.learn(vid, header.src, ingress, now_seconds),
                true => fdb.would_learn(vid, header.src, ingress, now_seconds),
            };
            witness.step(index, || Step::Source(Some(learned)));
            if learned == Learned::Sticky {
                return witness.dropped(index, ingress, DropReason::MacSticky);
            }
            if GUARDED
                && learned == Learned::PortLimit
                && let Err(reason) = guard::over_limit(port, header.src, is_dry(witness))
            {
                return witness.dropped(index, ingress, reason);
            }
        }
        if !port.rules.learning {
            witness.step(index, || Step::Source(None));
        }
        let tags = port.rules.vlan.tags(&header);
        let known = match header.dst.is_group() {
            true => None,
            // A station that sends to itself is known by its own frame.
            false
                if is_dry(witness)
                    && port.rules.learning
                    && header.dst == header.src
                    && fdb.would_learn(vid, header.src, ingress, now_seconds).is_here() =>
            {
                Some(ingress)
            }
            false => fdb.lookup(vid, header.dst, now_seconds),
        };
        witness.step(index, || self.by.destination(known, vid, &header));
        let to = match known {
            Some(to) if to == ingress => return witness.dropped(index, ingress, DropReason::SamePort),
            Some(to) => to,
            None => {
                if GUARDED && let Err(reason) = guard::flood(port, header.dst, self.now_ns, is_dry(witness)) {
                    return witness.dropped(index, ingress, reason);
                }
                let audience = if header.dst.is_group() {
                    self.by.audience(index, vid, &{ header }, &{ tags }, snapshot, egress)
                } else {
                    None
                };
                if audience.is_some() {
                    witness.step(index, || Step::Snooped);
                }
                let audience = audience.as_ref();
                return self.by.flood(ingress, index, vid, &{ tags }, payload_bytes, audience, egress, witness);
            }
        };
        match unicast(tables, to, vid, tags, payload_bytes) {
            Ok((port_to, _)) if GUARDED && port.is_isolated() && port_to.is_isolated() => {
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
                };
                known.send(index, egress);
                // A header cut short (22 bytes are looked at, 14 are enough) is not compared with others.
                let repeats = !GUARDED || guard::repeats(port);
                self.known = (words.is_some() && repeats).then_some(known);
            }
            Err(reason) => witness.dropped(index, to, reason),
        }
    }
}

impl<'a> Ingress<'a> {
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
        let admitted = match (self.gate, self.entered()) {
            (Some(Gate { injection, .. }), Some(entered)) => injection
                .admit(snapshot, frame_bytes, self.gate_ns, W::DRY_RUN)
                .map(|()| (injection.spec().entry, entered)),
            _ => Err(reason),
        };
        let entered = match admitted {
            Ok((entry, entered)) => {
                witness.step(index, || Step::Injected(entry));
                let id = entered.id;
                entered.port.map(|port| (port, entered)).map_err(|reason| (id, reason))
            }
            Err(reason) => Err((self.id, reason)),
        };
        match entered {
            Ok((port, entered)) => {
                let mut entered = Ingress { now_ns: self.now_ns, ..entered };
                entered.guarded(port, index, snapshot, frame_bytes, egress, witness);
            }
            Err((at, reason)) => {
                egress.hide(index);
                witness.dropped(index, at, reason);
            }
        }
    }

    /// As what injected frames enter.
    fn entered(&self) -> Option<Ingress<'a>> {
        let Gate { injection, own } = self.gate?;
        match (injection.spec().entry, own) {
            (Entry::Vlan(_), Some(own)) => Some(Ingress { port: Ok(own), ..self.by.ingress(self.id) }),
            (Entry::Port(port), _) => Some(self.by.ingress(port)),
            (Entry::Vlan(_), None) => None,
        }
    }
}

impl Known {
    /// Sends the frame to the port its destination is on.
    #[inline(always)]
    fn send(&self, index: u8, egress: &mut Egress) {
        egress.send(self.to, TxItem::whole(index, self.edit));
        if self.noted {
            egress.note(index, self.vid);
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
    /// What a witness is told of where the frame goes.
    fn destination(&self, known: Option<PortId>, vid: Vid, header: &Header) -> Step {
        match known {
            None if header.dst.is_group() => Step::Group,
            None => Step::Unknown,
            Some(at) => {
                let entry = self.fdb.entry(vid, header.dst, self.now_seconds).filter(|entry| entry.port == at);
                let (is_static, age_seconds) = entry.map_or((false, 0), |entry| (entry.is_static, entry.age_seconds));
                Step::Known { at, is_static, age_seconds }
            }
        }
    }

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
        }
        if nobody {
            let reason = if audience.is_some() { DropReason::MulticastNotWanted } else { DropReason::NoDestination };
            witness.dropped(index, ingress, reason);
        }
    }
}

#[cfg(test)]
mod tests;
