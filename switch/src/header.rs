//! The Ethernet header of a frame: MAC addresses and up to two VLAN tags (802.3 clause 3.2, 802.1Q clause 9).
//!
//! Decisions are made on the first up to [`SNAPSHOT_BYTES`] of a frame, which were copied out of foreign
//! memory once. The longest header looked at here, two tags, has 22 bytes, so that a frame of 22 bytes or
//! more is parsed behind a single bounds check; a shorter one is padded with zeros to 22 bytes first and
//! refused as a runt if its header would end behind its end.
//!
//! TPIDs 0x8100 (C-tag) and 0x88a8 (S-tag) both count as VLAN tags. Lengths are not judged here except for
//! runts; a header that parses has an individual source address and no VLAN id 4095.

use crate::{DropReason, Mac};

/// The most bytes of a frame that decisions are made on.
pub const SNAPSHOT_BYTES: usize = 128;
/// TPID of a customer VLAN tag (802.1Q table 9-1).
pub const TPID_C_TAG: u16 = 0x8100;
/// TPID of a service VLAN tag (802.1Q table 9-1).
pub const TPID_S_TAG: u16 = 0x88a8;
/// The bits of a TCI that are the VLAN id; above them stand DEI and PCP.
pub const TCI_VID_MASK: u16 = 0x0fff;
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

/// What decisions need to know about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination address.
    pub dst: Mac,
    /// Source address; never a group address.
    pub src: Mac,
    /// The first VLAN tag.
    pub outer: Option<Tag>,
    /// Whether a second tag follows the first.
    pub inner_tagged: bool,
    /// The type (or, up to 1500, the length) behind up to two tags.
    pub ethertype: u16,
    /// Where the payload behind up to two tags begins, bytes: 14, 18 or 22.
    pub l3_offset: u8,
}

impl Header {
    /// Reads the header of the frame that begins with `snapshot`.
    ///
    /// # Errors
    /// [`DropReason::Runt`] if the header or a tag is cut, [`DropReason::SourceGroupAddress`], and
    /// [`DropReason::VidReserved`] for VLAN id 4095 in the outer tag; in this order.
    #[inline]
    pub fn parse(snapshot: &[u8]) -> Result<Header, DropReason> {
        match snapshot.first_chunk() {
            Some(bytes) => Header::read(bytes).checked(),
            None => Header::parse_short(snapshot),
        }
    }

    /// Reads a header that may be cut.
    #[cold]
    fn parse_short(snapshot: &[u8]) -> Result<Header, DropReason> {
        let mut padded = [0; MAX_HEADER_BYTES];
        padded.get_mut(..snapshot.len()).ok_or(DropReason::Runt)?.copy_from_slice(snapshot);
        let header = Header::read(&padded);
        if snapshot.len() < MIN_HEADER_BYTES || snapshot.len() < usize::from(header.l3_offset) {
            return Err(DropReason::Runt);
        }
        header.checked()
    }

    #[inline]
    fn read(bytes: &[u8; MAX_HEADER_BYTES]) -> Header {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1, t2, t3, t4, t5, _, _, t8, t9] = *bytes;
        let first = u16::from_be_bytes([t0, t1]);
        let second = u16::from_be_bytes([t4, t5]);
        let outer = is_tpid(first).then_some(Tag { tpid: first, tci: u16::from_be_bytes([t2, t3]) });
        let inner_tagged = outer.is_some() && is_tpid(second);
        let (ethertype, l3_offset) = match (outer.is_some(), inner_tagged) {
            (false, _) => (first, 14),
            (true, false) => (second, 18),
            (true, true) => (u16::from_be_bytes([t8, t9]), 22),
        };
        Header {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac([s0, s1, s2, s3, s4, s5]),
            outer,
            inner_tagged,
            ethertype,
            l3_offset,
        }
    }

    #[inline]
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

#[inline]
fn is_tpid(ethertype: u16) -> bool {
    ethertype == TPID_C_TAG || ethertype == TPID_S_TAG
}

#[cfg(test)]
mod tests;
