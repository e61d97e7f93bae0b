//! The Ethernet header of a frame: MAC addresses and up to two VLAN tags (802.3 clause 3.2, 802.1Q clause 9).
//!
//! Decisions are made on the first up to [`SNAPSHOT_BYTES`] of a frame, which were copied out of foreign
//! memory once. The longest header looked at here, two tags, has 22 bytes, so that a frame of 22 bytes or
//! more is parsed behind a single bounds check; a shorter one is padded with zeros to 22 bytes first and
//! refused as a runt if its header would end behind its end.
//!
//! TPIDs 0x8100 (C-tag) and 0x88a8 (S-tag) both count as VLAN tags. Lengths are not judged here except for
//! runts; a header that parses has an individual source address and no VLAN id 4095.

use crate::wire::{ETHERTYPE_MAC_CONTROL, TCI_VID_MASK, TPID_C_TAG, TPID_S_TAG};
use crate::{DropReason, Mac};

/// The most bytes of a frame that decisions are made on.
pub const SNAPSHOT_BYTES: usize = 128;
/// VLAN id 4095, reserved (802.1Q table 9-2).
const VID_RESERVED: u16 = 0x0fff;
/// The shortest Ethernet header, bytes.
const MIN_HEADER_BYTES: usize = 14;
/// The header with two tags, bytes.
const MAX_HEADER_BYTES: usize = 22;

/// One VLAN tag as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol identifier: 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Tag control information: PCP (3 bits), DEI (1 bit), VLAN id (12 bits).
    pub tci: u16,
}

impl Tag {
    /// The VLAN id, 0 to 4095; 0 makes it a priority tag.
    #[inline]
    pub fn vid(self) -> u16 {
        self.tci & TCI_VID_MASK
    }
}

/// The parts of a frame's header that decisions need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination address.
    pub dst: Mac,
    /// Source address; never a group address.
    pub src: Mac,
    /// The first VLAN tag.
    pub outer: Option<Tag>,
    /// The tag that follows the first.
    pub inner: Option<Tag>,
    /// The type (or, up to 1500, the length) behind up to two tags.
    pub ethertype: u16,
    /// Where the payload behind up to two tags begins, bytes: 14, 18 or 22.
    pub l3_offset: u8,
}

impl Header {
    /// Length of a header without tags, bytes.
    pub const UNTAGGED_BYTES: u8 = 14;

    /// Reads the header of the frame that begins with `snapshot`.
    ///
    /// # Errors
    /// [`DropReason::Runt`] if the header or a tag is cut, [`DropReason::SourceGroupAddress`], and
    /// [`DropReason::VidReserved`] for VLAN id 4095 in the outer tag; in this order.
    #[inline]
    pub fn parse(snapshot: &[u8]) -> Result<Header, DropReason> {
        match HeaderWords::read(snapshot) {
            Some(words) => words.header(),
            None => Header::parse_short(snapshot),
        }
    }

    /// True if the frame may be of a protocol between neighbours, which is looked at more closely: link-local, or MAC
    /// control.
    #[inline(always)]
    pub fn is_of_neighbours(&self) -> bool {
        (self.dst.is_group() && self.dst.is_link_local()) || self.ethertype == ETHERTYPE_MAC_CONTROL
    }

    /// True for a MAC control frame, after any tags.
    pub fn is_mac_control(&self) -> bool {
        self.dst == Mac::MAC_CONTROL || self.ethertype == ETHERTYPE_MAC_CONTROL
    }

    /// Reads a header that may be cut.
    #[cold]
    pub(crate) fn parse_short(snapshot: &[u8]) -> Result<Header, DropReason> {
        let mut padded = [0; MAX_HEADER_BYTES];
        padded.get_mut(..snapshot.len()).ok_or(DropReason::Runt)?.copy_from_slice(snapshot);
        let header = HeaderWords::of(&padded).unchecked();
        if snapshot.len() < MIN_HEADER_BYTES || snapshot.len() < usize::from(header.l3_offset) {
            return Err(DropReason::Runt);
        }
        header.checked()
    }

    #[inline(always)]
    fn checked(self) -> Result<Header, DropReason> {
        if self.src.is_group() {
            return Err(DropReason::SourceGroupAddress);
        }
        match self.outer {
            Some(tag) if tag.vid() == VID_RESERVED => Err(DropReason::VidReserved),
            _ => Ok(self),
        }
    }
}

/// The first 22 bytes of a frame in three words, bytes in transmission order from the highest down: 0 to 7, 6 to 13,
/// 14 to 21.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderWords([u64; 3]);

impl HeaderWords {
    /// `None` if the snapshot is shorter.
    #[inline(always)]
    pub(crate) fn read(snapshot: &[u8]) -> Option<HeaderWords> {
        snapshot.first_chunk().map(HeaderWords::of)
    }

    #[inline(always)]
    fn of(bytes: &[u8; MAX_HEADER_BYTES]) -> HeaderWords {
        let word = |offset: usize| {
            let bytes = bytes.get(offset..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        HeaderWords([word(0), word(6), word(14)])
    }

    /// The header in these bytes; errors as for [`Header::parse`].
    #[inline(always)]
    pub(crate) fn header(self) -> Result<Header, DropReason> {
        self.unchecked().checked()
    }

    /// True if no VLAN tag follows the addresses.
    #[inline(always)]
    pub(crate) fn is_untagged(self) -> bool {
        let HeaderWords([_, second, _]) = self;
        #[allow(clippy::cast_possible_truncation, reason = "cuts out 16 bits")]
        let ethertype = second as u16;
        !is_tpid(ethertype)
    }

    /// The header in these bytes, of which [`HeaderWords::is_untagged`] is true.
    #[inline(always)]
    pub(crate) fn untagged_header(self) -> Result<Header, DropReason> {
        let HeaderWords([first, second, _]) = self;
        #[allow(clippy::cast_possible_truncation, reason = "cuts out 16 bits")]
        let ethertype = second as u16;
        let (dst, src) = (Mac::from_u64(first >> 16), Mac::from_u64(second >> 16));
        let l3_offset = Header::UNTAGGED_BYTES;
        Header { dst, src, outer: None, inner: None, ethertype, l3_offset }.checked()
    }

    #[inline(always)]
    fn unchecked(self) -> Header {
        let HeaderWords([first, second, third]) = self;
        // The 16 bits that end `shift` bits above the word's end.
        #[allow(clippy::cast_possible_truncation, reason = "cuts out 16 bits")]
        let half = |word: u64, shift: u32| (word >> shift) as u16;
        let types = [half(second, 0), half(third, 32), half(third, 0)];
        let outer = is_tpid(types[0]).then_some(Tag { tpid: types[0], tci: half(third, 48) });
        let inner = (outer.is_some() && is_tpid(types[1])).then_some(Tag { tpid: types[1], tci: half(third, 16) });
        let (ethertype, l3_offset) = match (outer.is_some(), inner.is_some()) {
            (false, _) => (types[0], 14),
            (true, false) => (types[1], 18),
            (true, true) => (types[2], 22),
        };
        Header { dst: Mac::from_u64(first >> 16), src: Mac::from_u64(second >> 16), outer, inner, ethertype, l3_offset }
    }

    /// The bits of the third word that are header, of one of `l3_offset` bytes: none, the first four bytes, or all.
    #[inline(always)]
    pub(crate) fn third_word_mask(l3_offset: u8) -> u64 {
        !u64::MAX.checked_shr(8 * u32::from(l3_offset).saturating_sub(14)).unwrap_or(0)
    }

    /// True if `other` begins with the same header; `mask` is [`HeaderWords::third_word_mask`].
    #[inline(always)]
    pub(crate) fn same_header(self, mask: u64, other: HeaderWords) -> bool {
        let HeaderWords([a, b, c]) = self;
        let HeaderWords([d, e, f]) = other;
        (a ^ d) | (b ^ e) | ((c ^ f) & mask) == 0
    }
}

#[inline]
fn is_tpid(ethertype: u16) -> bool {
    ethertype == TPID_C_TAG || ethertype == TPID_S_TAG
}

#[cfg(test)]
mod tests;
