//! What a burst leads to: lists of frames per egress port and per mirror destination.
//!
//! All lists have their room from the start and keep it, so that filling them allocates nothing (lists of
//! mirror alternatives grow to their largest size once). Clearing costs as much as was used.

use super::{MirrorItem, TxItem};
use crate::{BURST_FRAMES, MAX_MIRRORS, MAX_PORTS, MirrorId, PortId};

const _: () = assert!(BURST_FRAMES <= 64 && MAX_MIRRORS <= 64, "sets of frames and of mirrors are one u64 each");

/// The decisions about one burst; see the module. Frames must be decided in the order of their indexes.
#[derive(Debug)]
pub struct Egress {
    items: Lists<TxItem>,
    copies: Lists<MirrorItem>,
    /// Bit per frame: at least one port takes it.
    taken: u64,
    /// Bit per frame: several ports take it, or a mirror may.
    shared: u64,
    /// Bit per mirror: it selected the frame at hand.
    selected: u64,
    /// Bit per mirror: it selected some frame of the burst.
    selected_any: u64,
    /// Frames of the burst that each mirror selected; counts of mirrors not in `selected_any` are of an earlier burst.
    matched: [u32; MAX_MIRRORS],
}

/// A list per port, and which of them are not empty.
#[derive(Debug)]
struct Lists<T> {
    of_port: Box<[Vec<T>]>,
    active: Vec<PortId>,
}

impl<T> Lists<T> {
    fn new(room: usize) -> Lists<T> {
        Lists {
            of_port: (0..MAX_PORTS).map(|_| Vec::with_capacity(room)).collect(),
            active: Vec::with_capacity(MAX_PORTS),
        }
    }

    #[inline]
    fn push(&mut self, port: PortId, item: T) {
        let Some(list) = self.of_port.get_mut(port.index()) else { return };
        if list.is_empty() {
            self.active.push(port);
        }
        list.push(item);
    }

    #[inline]
    fn of(&self, port: PortId) -> &[T] {
        self.of_port.get(port.index()).map_or(&[], |list| list)
    }

    #[inline]
    fn clear(&mut self) {
        for port in self.active.drain(..) {
            if let Some(list) = self.of_port.get_mut(port.index()) {
                list.clear();
            }
        }
    }
}

impl Default for Egress {
    fn default() -> Egress {
        Egress::new()
    }
}

impl Egress {
    /// Empty, with room for every port.
    pub fn new() -> Egress {
        Egress {
            items: Lists::new(BURST_FRAMES),
            copies: Lists::new(0),
            taken: 0,
            shared: 0,
            selected: 0,
            selected_any: 0,
            matched: [0; MAX_MIRRORS],
        }
    }

    /// Forgets the burst.
    #[inline]
    pub fn clear(&mut self) {
        self.items.clear();
        self.copies.clear();
        (self.taken, self.shared, self.selected, self.selected_any) = (0, 0, 0, 0);
    }

    /// The ports that get frames, in the order they got their first one.
    #[inline]
    pub fn active(&self) -> &[PortId] {
        &self.items.active
    }

    /// The frames for a port, in order.
    #[inline]
    pub fn items(&self, port: PortId) -> &[TxItem] {
        self.items.of(port)
    }

    /// The mirror destinations that get copies.
    #[inline]
    pub fn mirror_active(&self) -> &[PortId] {
        &self.copies.active
    }

    /// The copies for a mirror destination, in order; alternatives as [`MirrorItem`] says.
    #[inline]
    pub fn mirror_items(&self, port: PortId) -> &[MirrorItem] {
        self.copies.of(port)
    }

    /// Bit per frame: exactly one port takes it and no mirror copies it, so its buffer may be given away.
    #[inline]
    pub fn sole_mask(&self) -> u64 {
        self.taken & !self.shared
    }

    /// How many frames of the burst each mirror selected; mirrors that selected none are left out.
    pub fn matched(&self) -> impl Iterator<Item = (MirrorId, u32)> + '_ {
        let mut left = self.selected_any;
        std::iter::from_fn(move || {
            let index = u16::try_from(left.trailing_zeros()).ok()?;
            let count = self.matched.get(usize::from(index))?;
            left &= left - 1;
            Some((MirrorId(index), *count))
        })
    }

    /// Opens the books for the next frame.
    #[inline]
    pub(super) fn begin_frame(&mut self) {
        self.selected = 0;
    }

    #[inline]
    pub(super) fn send(&mut self, port: PortId, item: TxItem) {
        let bit = frame_bit(item.frame);
        self.shared |= self.taken & bit;
        self.taken |= bit;
        self.items.push(port, item);
    }

    /// Notes that a mirror selected the frame at hand, and adds its copy unless the destination gets the same one anyway.
    pub(super) fn mirror(&mut self, to: PortId, item: MirrorItem) {
        self.shared |= frame_bit(item.frame);
        let bit = 1u64 << (item.mirror.0 % 64);
        if self.selected & bit == 0
            && let Some(count) = self.matched.get_mut(item.mirror.index())
        {
            *count = if self.selected_any & bit == 0 { 1 } else { *count + 1 };
            self.selected |= bit;
            self.selected_any |= bit;
        }
        let covered =
            |last: &MirrorItem| last.frame == item.frame && (last.after.is_none() || last.after == item.after);
        if !self.copies.of(to).last().is_some_and(covered) {
            self.copies.push(to, item);
        }
    }
}

/// The bit of a frame; none for an index no burst has.
#[inline]
fn frame_bit(frame: u8) -> u64 {
    1u64.checked_shl(u32::from(frame)).unwrap_or(0)
}
