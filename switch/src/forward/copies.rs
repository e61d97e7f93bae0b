//! Chooses the mirror copies of a burst, in two steps.
//!
//! **How it works.** [`Copies::select`], before the egress ports take their frames: each mirror is asked for the set of
//! frames that it selects, as received if it watches the ingress, and as sent for each egress that it watches. The
//! mirror's sources (port and direction) choose the sets; its VLANs, marked by [`Egress`], and its filter choose the
//! frames of a set. A frame that no mirror selects may then be given away by its only taker. [`Copies::choose`], after
//! the ports took their frames: several mirrors may select one frame for a destination; the first wins, in this order:
//! the mirrors of the ingress, ascending by mirror; then egress by egress, ascending by port, the mirrors of that
//! egress, ascending by mirror. A destination's list fills in this order, set by set, and is sorted by frame at the end
//! if there were several.
//!
//! The copies of a mirror to an RSPAN VLAN are one selection for each port that they leave by, but for the port that
//! the frame came from ([`rspan`](super::rspan)). A port may be a destination of several such VLANs, and gets a frame
//! once for each.
//!
//! A frame injected from a mirror destination is not copied back to that destination. If the frame is judged as
//! received on a port, the mirrors of that port see it.
//!
//! **Invariants.** A destination (a port, and of RSPAN the VLAN) gets at most one copy of a frame, in the order of the
//! frames. A copy of what an egress sends is made only if that egress really took the frame. `matched` counts a
//! selected frame once for each mirror, even if no copy is sent. All lists have their room from the start: choosing
//! allocates nothing, but for RSPAN with more destinations than ever before.

use super::egress::frame_bit;
use super::{Egress, TagEdit, TxItem};
use crate::filter::{Frames, Picker};
use crate::tables::{PortMirror, PortMirrors, Remote, Tables};
use crate::{BURST_FRAMES, MAX_MIRRORS, MAX_PORTS, MirrorId, PortId, Vid};

const _: () = assert!(MAX_MIRRORS <= 64, "a set of mirrors is one u64");

/// The copies of one burst; see the module.
#[derive(Debug)]
pub struct Copies {
    /// One for each port that only gets copies, and more if there were more destinations. The first `used` are of this
    /// burst.
    destinations: Vec<Destination>,
    used: usize,
    /// Bit per mirror: it selected some frame.
    selecting: u64,
    /// The frames that each mirror selected; those of mirrors not in `selecting` are of an earlier burst.
    matched: [u64; MAX_MIRRORS],
    /// The egress ports that are watched, ascending.
    watched: Vec<PortId>,
    /// The selections of the mirrors, in the order in which copies are tried.
    selections: Vec<Selection>,
    /// Per mirror.
    pickers: Box<[Pickers]>,
}

/// The remembered windows of a mirror's filter.
#[derive(Clone, Debug, Default)]
struct Pickers {
    received: Picker,
    sent: Picker,
}

/// Frames that a mirror selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The mirror.
    pub mirror: MirrorId,
    /// Where its copies go.
    pub to: PortId,
    /// The RSPAN VLAN that they are tagged with.
    pub rspan: Option<Vid>,
    /// The frames (bit = index in the burst) with a received tag that the one of the RSPAN VLAN replaces.
    replaced: u64,
    /// Its snap length, bytes; 0: whole frames.
    pub snap_bytes: u16,
    /// The egress that sends them; `None`: as received.
    pub egress: Option<PortId>,
    /// The frames (bit = index in the burst).
    pub frames: u64,
}

/// The copies for one mirror destination.
#[derive(Debug)]
pub struct Destination {
    /// The destination.
    pub to: PortId,
    /// The RSPAN VLAN that the copies are in.
    pub rspan: Option<Vid>,
    /// The copies, ascending by frame.
    pub items: Vec<TxItem>,
    /// Whose copies they are. A mirror may be there several times, a frame only once.
    pub parts: Vec<Part>,
    /// All frames in `items`.
    chosen: u64,
}

/// Copies that one mirror had made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The mirror.
    pub mirror: MirrorId,
    /// The frames (bit = index in the burst).
    pub frames: u64,
    /// Its snap length, bytes; 0: whole frames.
    pub snap_bytes: u16,
}

impl Destination {
    fn new() -> Destination {
        Destination {
            to: PortId(0),
            rspan: None,
            items: Vec::with_capacity(BURST_FRAMES),
            parts: Vec::with_capacity(BURST_FRAMES),
            chosen: 0,
        }
    }
}

impl Default for Copies {
    fn default() -> Copies {
        Copies::new()
    }
}

impl Copies {
    /// Empty, with room for every destination.
    pub fn new() -> Copies {
        Copies {
            destinations: (0..MAX_MIRRORS).map(|_| Destination::new()).collect(),
            used: 0,
            selecting: 0,
            matched: [0; MAX_MIRRORS],
            watched: Vec::with_capacity(MAX_PORTS),
            pickers: vec![Pickers::default(); MAX_MIRRORS].into_boxed_slice(),
            // Memory that is not written is not used.
            selections: Vec::with_capacity(MAX_MIRRORS * (MAX_PORTS + 1)),
        }
    }

    /// The destinations that get copies.
    #[inline]
    pub fn destinations(&self) -> &[Destination] {
        self.destinations.get(..self.used).unwrap_or_default()
    }

    /// The selections of the mirrors for this burst, in the order in which copies are tried.
    pub fn selections(&self) -> &[Selection] {
        &self.selections
    }

    /// The frames of the burst that each mirror selected (bit = index); mirrors that selected none are left out.
    pub fn matched(&self) -> impl Iterator<Item = (MirrorId, u64)> + '_ {
        bits(self.selecting)
            .filter_map(|mirror| Some((MirrorId(mirror.into()), *self.matched.get(usize::from(mirror))?)))
    }

    /// Selects the frames for mirrors in the burst `frames`, which came from `ingress` and which `egress` was decided
    /// about by `tables`, and tells `egress`.
    pub fn select(&mut self, tables: &Tables, ingress: PortId, egress: &mut Egress, frames: &(impl Frames + ?Sized)) {
        (self.used, self.selecting) = (0, 0);
        self.selections.clear();
        let marked = egress.marked();
        if let Some(port) = tables.port(tables.ingress_as(ingress))
            && port.rx_mirrors.may_select(marked)
        {
            let seen = first(frames.count()) & !egress.unmirrored();
            for mirror in port.rx_mirrors.iter().filter(|mirror| mirror.reaches_beyond(ingress)) {
                let mut selected = mirror.pick(seen, egress);
                if let Some(filter) = &mirror.filter
                    && let Some(Pickers { received, .. }) = self.pickers.get_mut(mirror.id.index())
                {
                    selected = received.pick(filter, selected, TagEdit::KEEP, frames);
                }
                self.add(mirror, None, ingress, selected, frames);
            }
        }
        self.watched.clear();
        let watched = |to: &PortId| tables.port(*to).is_some_and(|port| port.tx_mirrors.may_select(marked));
        self.watched.extend(egress.active().iter().copied().filter(watched));
        self.watched.sort_unstable();
        for at in 0..self.watched.len() {
            if let Some(&to) = self.watched.get(at)
                && let Some(port) = tables.port(to)
            {
                self.select_sent(&port.tx_mirrors, egress, to, ingress, frames);
            }
        }
        egress.set_mirrored(self.selections.iter().fold(0, |set, selection| set | selection.frames));
    }

    /// Selects among the frames that `from` has sent to `to`.
    fn select_sent(
        &mut self,
        mirrors: &PortMirrors,
        egress: &Egress,
        to: PortId,
        from: PortId,
        frames: &(impl Frames + ?Sized),
    ) {
        let items = egress.items(to);
        let sent = set_of(items) & !egress.unmirrored();
        for mirror in mirrors.iter().filter(|mirror| mirror.reaches_beyond(from)) {
            let mut selected = mirror.pick(sent, egress);
            if let Some(filter) = &mirror.filter
                && let Some(Pickers { sent, .. }) = self.pickers.get_mut(mirror.id.index())
            {
                // Frames that follow each other mostly leave with the same edit.
                let alike = items.chunk_by(|one, next| one.edit == next.edit);
                selected = alike.fold(0, |picked, run| {
                    let edit = run.first().map_or(TagEdit::KEEP, |item| item.edit);
                    picked | sent.pick(filter, selected & set_of(run), edit, frames)
                });
            }
            self.add(mirror, Some(to), from, selected, frames);
        }
    }

    /// Adds that a mirror selects `selected`, which came in at `from`.
    #[inline]
    fn add(
        &mut self,
        mirror: &PortMirror,
        egress: Option<PortId>,
        from: PortId,
        selected: u64,
        frames: &(impl Frames + ?Sized),
    ) {
        if selected == 0 {
            return;
        }
        let PortMirror { id, snap_bytes, rspan, .. } = *mirror;
        let replaced = rspan.map_or(0, |remote| remote.replaces(selected, frames));
        let rspan = rspan.map(|remote| remote.vid);
        let to = mirror.to.iter().filter(|to| **to != from);
        self.selections.extend(to.map(|to| Selection {
            mirror: id,
            to: *to,
            rspan,
            replaced,
            snap_bytes,
            egress,
            frames: selected,
        }));
        let Some(matched) = self.matched.get_mut(id.index()) else { return };
        let bit = 1u64 << (id.0 % 64);
        *matched = if self.selecting & bit == 0 { selected } else { *matched | selected };
        self.selecting |= bit;
    }

    /// Works out the copies of the selected frames. `failed` returns the frames that a port of [`Egress::active`] did
    /// not take (bit = index).
    pub fn choose(&mut self, egress: &Egress, failed: impl Fn(PortId) -> u64) {
        self.used = 0;
        for at in 0..self.selections.len() {
            let Some(&selection) = self.selections.get(at) else { break };
            let Selection { rspan, replaced, snap_bytes, egress: sender, .. } = selection;
            let Some((destination, frames)) = self.open(selection, sender.map_or(0, &failed)) else { continue };
            let as_copied = |item: TxItem| match rspan {
                None => item,
                Some(vid) => {
                    let edit = Remote::edit(vid, item.edit, replaced & frame_bit(item.frame) != 0);
                    TxItem { edit, ..item }
                }
            };
            match sender {
                None => {
                    let copy = |frame| as_copied(TxItem { frame, edit: TagEdit::KEEP, snap_bytes });
                    destination.items.extend(bits(frames).map(copy));
                }
                Some(sender) => {
                    let sent = egress.items(sender).iter().filter(|item| frames & frame_bit(item.frame) != 0);
                    destination.items.extend(sent.map(|item| as_copied(TxItem { snap_bytes, ..*item })));
                }
            }
        }
        for destination in self.destinations.iter_mut().take(self.used) {
            if destination.parts.len() > 1 {
                destination.items.sort_unstable_by_key(|item| item.frame);
            }
        }
    }

    /// The destination of a selection, and those of its frames that are to be copied there: not `failed` and not copied
    /// to it already. `None` if there are none.
    #[inline]
    fn open(&mut self, selection: Selection, failed: u64) -> Option<(&mut Destination, u64)> {
        let Selection { mirror, to, rspan, snap_bytes, frames, .. } = selection;
        let to_make = frames & !failed;
        if to_make == 0 {
            return None;
        }
        let at = self.destinations().iter().position(|known| known.to == to && known.rspan == rspan);
        if at.is_none() && self.used == self.destinations.len() {
            self.destinations.push(Destination::new());
        }
        let destination = self.destinations.get_mut(at.unwrap_or(self.used))?;
        if at.is_none() {
            self.used += 1;
            (destination.to, destination.rspan, destination.chosen) = (to, rspan, 0);
            destination.items.clear();
            destination.parts.clear();
        }
        let frames = to_make & !destination.chosen;
        if frames == 0 {
            return None;
        }
        destination.chosen |= frames;
        destination.parts.push(Part { mirror, frames, snap_bytes });
        Some((destination, frames))
    }
}

impl PortMirror {
    /// True if any destination is another port than `from`, the ingress.
    #[inline]
    fn reaches_beyond(&self, from: PortId) -> bool {
        self.to.iter().any(|to| *to != from)
    }

    /// Those of `frames` that are in its VLANs.
    #[inline]
    fn pick(&self, frames: u64, egress: &Egress) -> u64 {
        let Some(vlans) = self.vlans() else { return frames };
        let wanted = |frame: &u8| egress.vid(*frame).is_some_and(|vid| vlans.contains(vid));
        bits(frames & egress.marked()).filter(wanted).fold(0, |set, frame| set | frame_bit(frame))
    }
}

/// The set of the first `count` frames.
#[inline]
fn first(count: usize) -> u64 {
    let unused = BURST_FRAMES.saturating_sub(count);
    u32::try_from(unused).ok().and_then(|unused| u64::MAX.checked_shr(unused)).unwrap_or(0)
}

/// The frames of some items.
#[inline]
fn set_of(items: &[TxItem]) -> u64 {
    items.iter().fold(0, |set, item| set | frame_bit(item.frame))
}

/// The members of a set, ascending.
#[inline]
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let lowest = u8::try_from(set.trailing_zeros()).ok().filter(|_| set != 0)?;
        set &= set - 1;
        Some(lowest)
    })
}
