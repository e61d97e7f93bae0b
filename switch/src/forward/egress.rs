//! The decisions about a burst: a list of frames per egress port, and for mirrors the VLANs of frames.
//!
//! All lists have their room from the start, so that filling them allocates nothing. Clearing costs as much as was
//! used.

use crate::tag_edit::TxItem;
use crate::{BURST_FRAMES, MAX_PORTS, PortId, Vid};

const _: () = assert!(BURST_FRAMES <= 64, "a set of frames is one u64");

/// The decisions about one burst; see the module. Frames must be decided in the order of their indexes.
#[derive(Debug)]
pub struct Egress {
    /// Per port, the frames it gets.
    items: Box<[Vec<TxItem>]>,
    /// The ports whose list is not empty.
    active: Vec<PortId>,
    /// Bit per frame: at least one port takes it.
    taken: u64,
    /// Bit per frame: several ports take it.
    shared: u64,
    /// Bit per frame: a mirror selects it.
    mirrored: u64,
    /// Bit per frame: it is not eligible for mirroring.
    unmirrored: u64,
    /// Bit per frame: it is in a VLAN by which some mirror selects.
    marked: u64,
    /// Per frame, that VLAN. Of frames not in `marked`, without meaning.
    vids: [Vid; BURST_FRAMES],
    /// Bit per frame: it may teach multicast snooping something.
    messages: u64,
    /// Bit per frame: it is a probe that has come through a sensor.
    probes: u64,
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
            items: (0..MAX_PORTS).map(|_| Vec::with_capacity(BURST_FRAMES)).collect(),
            active: Vec::with_capacity(MAX_PORTS),
            taken: 0,
            shared: 0,
            mirrored: 0,
            unmirrored: 0,
            marked: 0,
            vids: [Vid::DEFAULT; BURST_FRAMES],
            messages: 0,
            probes: 0,
        }
    }

    /// Forgets the burst.
    #[inline]
    pub fn clear(&mut self) {
        for port in self.active.drain(..) {
            if let Some(list) = self.items.get_mut(port.index()) {
                list.clear();
            }
        }
        (self.taken, self.shared, self.mirrored, self.messages) = (0, 0, 0, 0);
        (self.unmirrored, self.marked, self.probes) = (0, 0, 0);
    }

    /// The ports that get frames, in the order they got their first one.
    #[inline]
    pub fn active(&self) -> &[PortId] {
        &self.active
    }

    /// The frames for a port, in order.
    #[inline]
    pub fn items(&self, port: PortId) -> &[TxItem] {
        self.items.get(port.index()).map_or(&[], |list| list)
    }

    /// Bit per frame: exactly one port takes it and no mirror copies it, so its buffer may be given away.
    /// [`Copies::select`](super::Copies::select) finds the frames that mirrors copy beforehand.
    #[inline]
    pub fn unshared(&self) -> u64 {
        self.taken & !(self.shared | self.mirrored)
    }

    /// Bit per frame: some mirror selects it.
    #[inline]
    pub fn mirrored(&self) -> u64 {
        self.mirrored
    }

    /// Bit per frame: multicast snooping may learn from it, as a whole ([`super::Forwarder::observe`]).
    #[inline]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bit per frame: it ends here and concerns the switch itself: a probe ([`crate::inline`]), which is no traffic, or
    /// a message between neighbours at a mirror destination ([`crate::remote`]).
    #[inline]
    pub fn probes(&self) -> u64 {
        self.probes
    }

    #[cold]
    pub(super) fn mark_probe(&mut self, frame: u8) {
        self.probes |= frame_bit(frame);
    }

    #[inline]
    pub(super) fn mark_message(&mut self, frame: u8) {
        self.messages |= frame_bit(frame);
    }

    /// Bit per frame: it is not eligible for mirroring, whatever mirrors select.
    #[inline]
    pub(super) fn unmirrored(&self) -> u64 {
        self.unmirrored
    }

    /// Bit per frame: it is in a VLAN by which some mirror selects, [`Egress::vid`].
    #[inline]
    pub(super) fn marked(&self) -> u64 {
        self.marked
    }

    /// The VLAN by which mirrors select the frame, if it was marked.
    #[inline]
    pub(super) fn vid(&self, frame: u8) -> Option<Vid> {
        self.vids.get(usize::from(frame)).copied()
    }

    #[inline(always)]
    pub(super) fn send(&mut self, port: PortId, item: TxItem) {
        let bit = frame_bit(item.frame);
        self.shared |= self.taken & bit;
        self.taken |= bit;
        let Some(list) = self.items.get_mut(port.index()) else { return };
        if list.is_empty() {
            self.active.push(port);
        }
        list.push(item);
    }

    /// The frame is in `vid`, by which some mirror selects.
    #[inline(always)]
    pub(super) fn mark_vlan(&mut self, frame: u8, vid: Vid) {
        self.marked |= frame_bit(frame);
        if let Some(place) = self.vids.get_mut(usize::from(frame)) {
            *place = vid;
        }
    }

    /// The frame is not eligible for mirroring.
    #[cold]
    pub(super) fn leave_unmirrored(&mut self, frame: u8) {
        self.unmirrored |= frame_bit(frame);
    }

    /// These frames are selected by mirrors.
    #[inline]
    pub(super) fn set_mirrored(&mut self, frames: u64) {
        self.mirrored = frames;
    }
}

/// The bit of a frame, whose index is below [`BURST_FRAMES`].
#[inline(always)]
pub(super) fn frame_bit(frame: u8) -> u64 {
    debug_assert!(usize::from(frame) < BURST_FRAMES);
    1 << (frame % 64)
}
