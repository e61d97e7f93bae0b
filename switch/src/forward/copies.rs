//! Which mirror copies of a burst are made: worked out per burst, after the egress ports took their frames.
//!
//! **How it works.** Whether a mirror wants a frame depends on the frame's VLAN only, and that [`Egress`] has noted; so each
//! mirror is asked for a set of frames at once. Of a frame a mirror destination may be offered several copies: the frame as
//! received (the ingress is watched), and as each watched egress sends it. They are tried in this order: the mirrors of the
//! ingress, ascending by mirror; then egress by egress, ascending by port, the mirrors of that egress, ascending by
//! mirror. A destination's list fills in this order, set by set, and is sorted by frame at the end if there were several.
//!
//! **Invariants.** A destination gets at most one copy of a frame, in the order of the frames. A copy of what an egress
//! sends is made only if that egress really took the frame. A mirror matches a frame that it selects once, whether or not
//! the copy is made. All lists have their room from the start: choosing allocates nothing.

use super::egress::frame_bit;
use super::{Egress, TagEdit, TxItem};
use crate::tables::{Tables, Watch, Watches};
use crate::{BURST_FRAMES, MAX_MIRRORS, MirrorId, PortId};

const _: () = assert!(MAX_MIRRORS <= 64, "a set of mirrors is one u64");

/// The copies of one burst; see the module.
#[derive(Debug)]
pub struct Copies {
    /// One for each destination there can be, of which the first `used` are of this burst.
    destinations: Box<[Destination]>,
    used: usize,
    /// Bit per mirror: it selected some frame.
    selecting: u64,
    /// The frames that each mirror selected; those of mirrors not in `selecting` are of an earlier burst.
    matched: [u64; MAX_MIRRORS],
    /// The egress ports that are watched, ascending.
    watched: Vec<PortId>,
}

/// What one mirror destination gets.
#[derive(Debug)]
pub struct Destination {
    /// The destination.
    pub to: PortId,
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

impl Default for Copies {
    fn default() -> Copies {
        Copies::new()
    }
}

impl Copies {
    /// Empty, with room for every destination.
    pub fn new() -> Copies {
        let destination = |_| Destination {
            to: PortId(0),
            items: Vec::with_capacity(BURST_FRAMES),
            parts: Vec::with_capacity(BURST_FRAMES),
            chosen: 0,
        };
        Copies {
            destinations: (0..MAX_MIRRORS).map(destination).collect(),
            used: 0,
            selecting: 0,
            matched: [0; MAX_MIRRORS],
            watched: Vec::with_capacity(crate::MAX_PORTS),
        }
    }

    /// The destinations that get copies.
    #[inline]
    pub fn destinations(&self) -> &[Destination] {
        self.destinations.get(..self.used).unwrap_or_default()
    }

    /// The frames of the burst that each mirror selected (bit = index); mirrors that selected none are left out.
    pub fn matched(&self) -> impl Iterator<Item = (MirrorId, u64)> + '_ {
        bits(self.selecting)
            .filter_map(|mirror| Some((MirrorId(mirror.into()), *self.matched.get(usize::from(mirror))?)))
    }

    /// Works out the copies of the burst that came from `ingress` and that `egress` was decided about by `tables`.
    ///
    /// `failed` says which frames a port of [`Egress::active`] did not take (bit = index).
    pub fn choose(&mut self, tables: &Tables, ingress: PortId, egress: &Egress, failed: impl Fn(PortId) -> u64) {
        (self.used, self.selecting) = (0, 0);
        self.watched.clear();
        let candidates = egress.candidates();
        if candidates == 0 {
            return;
        }
        if let Some(port) = tables.port(ingress) {
            self.received(&port.rx_mirrors, candidates, egress);
        }
        let watched = |to: &PortId| tables.port(*to).is_some_and(|port| !port.tx_mirrors.is_empty());
        self.watched.extend(egress.active().iter().copied().filter(watched));
        self.watched.sort_unstable();
        for at in 0..self.watched.len() {
            if let Some(&to) = self.watched.get(at)
                && let Some(port) = tables.port(to)
            {
                self.sent(&port.tx_mirrors, egress, to, failed(to));
            }
        }
        for destination in self.destinations.iter_mut().take(self.used) {
            if destination.parts.len() > 1 {
                destination.items.sort_unstable_by_key(|item| item.frame);
            }
        }
    }

    /// Copies frames as they were received.
    fn received(&mut self, watches: &Watches, candidates: u64, egress: &Egress) {
        let wanted = watches.pick(candidates, egress);
        if wanted == 0 {
            return;
        }
        for watch in watches.iter() {
            if let Some((destination, frames)) = self.select(watch, watch.pick(wanted, egress), 0) {
                let copy = |frame| TxItem { frame, edit: TagEdit::KEEP, snap_bytes: watch.snap_bytes };
                destination.items.extend(bits(frames).map(copy));
            }
        }
    }

    /// Copies frames as they are sent to `to`, which did not take those in `failed`.
    fn sent(&mut self, watches: &Watches, egress: &Egress, to: PortId, failed: u64) {
        let items = egress.items(to);
        let given = items.iter().fold(0, |given, item| given | frame_bit(item.frame));
        let wanted = watches.pick(given, egress);
        if wanted == 0 {
            return;
        }
        for watch in watches.iter() {
            if let Some((destination, frames)) = self.select(watch, watch.pick(wanted, egress), failed) {
                let chosen = items.iter().filter(|item| frames & frame_bit(item.frame) != 0);
                destination.items.extend(chosen.map(|item| TxItem { snap_bytes: watch.snap_bytes, ..*item }));
            }
        }
    }

    /// Notes that a mirror selects `frames`. Returns its destination and those of the frames that are to be copied to it:
    /// not `failed` and not copied to it already. `None` if there are none.
    #[inline]
    fn select(&mut self, watch: &Watch, frames: u64, failed: u64) -> Option<(&mut Destination, u64)> {
        if frames == 0 {
            return None;
        }
        let matched = self.matched.get_mut(watch.mirror.index())?;
        let bit = 1u64 << (watch.mirror.0 % 64);
        *matched = if self.selecting & bit == 0 { frames } else { *matched | frames };
        self.selecting |= bit;
        let to_make = frames & !failed;
        if to_make == 0 {
            return None;
        }
        let at = self.destinations().iter().position(|destination| destination.to == watch.to);
        let destination = self.destinations.get_mut(at.unwrap_or(self.used))?;
        if at.is_none() {
            self.used += 1;
            (destination.to, destination.chosen) = (watch.to, 0);
            destination.items.clear();
            destination.parts.clear();
        }
        let frames = to_make & !destination.chosen;
        if frames == 0 {
            return None;
        }
        destination.chosen |= frames;
        destination.parts.push(Part { mirror: watch.mirror, frames, snap_bytes: watch.snap_bytes });
        Some((destination, frames))
    }
}

impl Watches {
    /// Those of `frames` that one of these mirrors selects.
    #[inline]
    fn pick(&self, frames: u64, egress: &Egress) -> u64 {
        if self.takes_any_vlan() { frames } else { pick(frames, |frame| self.select(egress.vid(frame))) }
    }
}

impl Watch {
    /// Those of `frames` that this mirror selects.
    #[inline]
    fn pick(&self, frames: u64, egress: &Egress) -> u64 {
        if self.takes_any_vlan() { frames } else { pick(frames, |frame| self.selects(egress.vid(frame))) }
    }
}

/// Those of `frames` that are wanted.
#[inline]
fn pick(frames: u64, wanted: impl Fn(u8) -> bool) -> u64 {
    bits(frames).filter(|frame| wanted(*frame)).fold(0, |set, frame| set | frame_bit(frame))
}

/// The members of a set, ascending.
#[inline]
fn bits(mut set: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let lowest = u8::try_from(set.trailing_zeros()).ok().filter(|_| set != 0)?;
        set &= set - 1;
        Some(lowest)
    })
}
