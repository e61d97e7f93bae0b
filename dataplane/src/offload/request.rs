//! An offload request: the virtio-net header, checked and typed.
//!
//! [`Request::parse`] takes the header's bytes as they were copied from the guest, once, and refuses every value that
//! does not fit the frame or was not offered. What needs a look at the frame's own headers (is it TCP at all?) is
//! judged by [`super::Cutter`]. [`Request::encode`] is the reverse, for a guest or a TAP device that accepts the
//! request.
//!
//! `hdr_len` is a hint and not used. Flags other than `NEEDS_CSUM` are ignored, as the standard asks of a device.
//!
//! Reference: Virtio 1.3, 5.1.6 (the header), 5.1.6.2 "Packet Transmission", 5.1.6.4 "Processing of Incoming Packets",
//! 5.1.3 "Feature bits".

use super::gso::{Gso, GsoKind, Partial};
use super::layout::{Layout, MAX_IP_BYTES};
use super::refused::Refused;
use super::sum::put_u16_le;
use crate::virtio::features::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4, F_GUEST_USO6, F_HOST_ECN, F_HOST_TSO4,
    F_HOST_TSO6, F_HOST_USO,
};
use crate::virtio::header::{GSO_ECN, GSO_NONE, NEEDS_CSUM};

pub use crate::virtio::header::OFFLOAD_BYTES as HEADER_BYTES;

/// The work that a sender left to do for a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// A checksum to finish.
    pub csum: Option<Partial>,
    /// Segmentation; then `csum` is there, too.
    pub gso: Option<Gso>,
}

/// The offloads that one side may leave to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// To finish checksums.
    pub csum: bool,
    /// To segment TCP over IPv4.
    pub tcp4: bool,
    /// To segment TCP over IPv6.
    pub tcp6: bool,
    /// The same for frames with ECN bits.
    pub ecn: bool,
    /// To segment UDP, over both IP versions.
    pub udp: bool,
    /// To believe that a checksum was verified.
    pub verified: bool,
}

impl Offers {
    /// Nothing: every frame is finished.
    pub const NONE: Offers = Offers { csum: false, tcp4: false, tcp6: false, ecn: false, udp: false, verified: false };
    /// Everything there is.
    pub const ALL: Offers = Offers { csum: true, tcp4: true, tcp6: true, ecn: true, udp: true, verified: true };

    /// The offloads that a guest with these negotiated features may request in the frames it sends. It is not believed
    /// about checksums.
    pub fn by_guest(features: u64) -> Offers {
        let has = |bit| features & bit != 0;
        Offers {
            csum: has(F_CSUM),
            tcp4: has(F_HOST_TSO4),
            tcp6: has(F_HOST_TSO6),
            ecn: has(F_HOST_ECN),
            udp: has(F_HOST_USO),
            verified: false,
        }
    }

    /// The offloads that a guest with these negotiated features accepts in the frames it receives. One that accepts UDP
    /// of one IP version only gets datagrams of both.
    pub fn to_guest(features: u64) -> Offers {
        let has = |bit| features & bit != 0;
        let csum = has(F_GUEST_CSUM);
        Offers {
            csum,
            tcp4: has(F_GUEST_TSO4),
            tcp6: has(F_GUEST_TSO6),
            ecn: has(F_GUEST_ECN),
            udp: has(F_GUEST_USO4) && has(F_GUEST_USO6),
            verified: csum,
        }
    }

    /// True if segments of some TCP flows may be merged for this side.
    #[inline]
    pub fn takes_merged(self) -> bool {
        self.csum && (self.tcp4 || self.tcp6)
    }

    /// True if segments of TCP flows of this kind may be merged for this side.
    #[inline]
    pub fn takes_merged_of(self, kind: GsoKind) -> bool {
        self.csum && self.kind(kind)
    }

    fn kind(self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::Tcp4 => self.tcp4,
            GsoKind::Tcp6 => self.tcp6,
            GsoKind::Udp => self.udp,
        }
    }
}

/// The work that an egress has to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Nothing, or to pass it on.
    PassOn,
    /// To finish the checksum; nothing else is asked.
    Finish(Partial),
    /// To cut the frame.
    Cut,
}

impl Request {
    /// Nothing is left to do.
    pub const NONE: Request = Request { csum: None, gso: None };

    /// Reads the header of a frame of `frame_bytes` (without that header) from a sender with `offers`.
    ///
    /// # Errors
    /// See [`Refused`]: not offered, or impossible for a frame of this length.
    #[inline]
    pub fn parse(header: &[u8], frame_bytes: u32, offers: Offers) -> Result<Request, Refused> {
        let header = header.first_chunk::<HEADER_BYTES>().ok_or(Refused::HeaderCut)?;
        if header[0] & NEEDS_CSUM == 0 && header[1] == GSO_NONE {
            return Ok(Request::NONE);
        }
        Request::parse_asking(*header, frame_bytes, offers)
    }

    fn parse_asking(header: [u8; HEADER_BYTES], frame_bytes: u32, offers: Offers) -> Result<Request, Refused> {
        let [flags, gso_type, _, _, size0, size1, start0, start1, offset0, offset1] = header;
        if flags & NEEDS_CSUM == 0 {
            return Err(Refused::SegmentsWithoutChecksum);
        }
        if !offers.csum {
            return Err(Refused::ChecksumNotOffered);
        }
        let start = u16::from_le_bytes([start0, start1]);
        let offset = u16::from_le_bytes([offset0, offset1]);
        if u32::from(start) >= frame_bytes {
            return Err(Refused::ChecksumStart { start, frame_bytes });
        }
        if u32::from(start) + u32::from(offset) + 2 > frame_bytes {
            return Err(Refused::ChecksumField { start, offset, frame_bytes });
        }
        let csum = Some(Partial { start, offset });
        if gso_type == GSO_NONE {
            return Ok(Request { csum, gso: None });
        }
        let (kind, ecn) = GsoKind::of_type(gso_type).ok_or(Refused::KindUnknown(gso_type))?;
        if !offers.kind(kind) {
            return Err(Refused::KindNotOffered(kind));
        }
        if ecn && !offers.ecn {
            return Err(Refused::EcnNotOffered);
        }
        let size = u16::from_le_bytes([size0, size1]);
        if size < kind.min_segment_bytes() {
            return Err(Refused::SegmentSize(size));
        }
        Ok(Request { csum, gso: Some(Gso { kind, size, ecn }) })
    }

    /// The header that says this, `num_buffers` apart. `header_bytes` is the length of the frame's headers through TCP
    /// or UDP, as a hint for the reader; 0 if unknown.
    pub fn encode(&self, header_bytes: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let Some(Partial { start, offset }) = self.csum else { return header };
        header[0] = NEEDS_CSUM;
        put_u16_le(&mut header, 2, header_bytes);
        put_u16_le(&mut header, 6, start);
        put_u16_le(&mut header, 8, offset);
        if let Some(Gso { kind, size, ecn }) = self.gso {
            header[1] = kind.gso_type() | if ecn { GSO_ECN } else { 0 };
            put_u16_le(&mut header, 4, size);
        }
        header
    }

    /// The layout of the headers of a frame that is to be cut; it has `frame_bytes` and begins with `headers`.
    ///
    /// # Errors
    /// [`Refused`]: the frame does not fit the request, or its headers are not whole in `headers`.
    pub(super) fn layout(&self, headers: &[u8], frame_bytes: u32) -> Result<Layout, Refused> {
        let Request { csum: Some(csum), gso: Some(gso) } = *self else { return Err(Refused::NotAsked) };
        let layout = Layout::of(headers, frame_bytes, gso.kind)?;
        if usize::from(csum.start) != layout.l4 || csum.offset != layout.checksum() {
            return Err(Refused::ChecksumOfAnother);
        }
        let header_bytes = u32::try_from(layout.header_bytes).map_err(|_| Refused::HeadersTooLong)?;
        let largest = header_bytes + u32::from(gso.size);
        if frame_bytes > largest && layout.ip_bytes(largest) > MAX_IP_BYTES {
            return Err(Refused::SegmentTooLong);
        }
        Ok(layout)
    }

    /// The work for an egress that accepts `offers`.
    #[inline]
    pub fn resolve(&self, offers: Offers) -> Resolution {
        match *self {
            Request { csum: None, .. } => Resolution::PassOn,
            Request { gso: Some(gso), .. } => {
                if offers.csum && offers.kind(gso.kind) && (offers.ecn || !gso.ecn) {
                    Resolution::PassOn
                } else {
                    Resolution::Cut
                }
            }
            Request { csum: Some(partial), gso: None } => {
                if offers.csum {
                    Resolution::PassOn
                } else {
                    Resolution::Finish(partial)
                }
            }
        }
    }

    /// The same request for the frame with `growth_bytes` more in front of `csum_start`: a VLAN tag pushed (4) or
    /// popped (-4). `None` if the checksum would then begin outside any frame.
    #[inline]
    pub fn shifted(self, growth_bytes: i32) -> Option<Request> {
        let Some(Partial { start, offset }) = self.csum else { return Some(self) };
        let start = u16::try_from(i32::from(start) + growth_bytes).ok()?;
        Some(Request { csum: Some(Partial { start, offset }), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offers = Offers::ALL;

    fn header(flags: u8, gso_type: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER_BYTES] {
        let ([a, b], [c, d], [e, f]) = (size.to_le_bytes(), start.to_le_bytes(), offset.to_le_bytes());
        [flags, gso_type, 0xaa, 0xbb, a, b, c, d, e, f]
    }

    #[test]
    fn nothing_asked() {
        for flags in [0, 2, 0xfe] {
            let bytes = header(flags, 0, 9, 0xffff, 0xffff);
            assert_eq!(Request::parse(&bytes, 0, Offers::default()), Ok(Request::NONE));
        }
        assert_eq!(Request::NONE.encode(54), [0; 10]);
        assert_eq!(Request::parse(&[0; 9], 60, ALL), Err(Refused::HeaderCut));
    }

    #[test]
    fn a_checksum_has_to_lie_in_the_frame() {
        let parse = |start, offset| Request::parse(&header(1, 0, 0, start, offset), 60, ALL);
        let asked = |start, offset| Ok(Request { csum: Some(Partial { start, offset }), gso: None });
        assert_eq!(parse(34, 16), asked(34, 16));
        assert_eq!(parse(0, 58), asked(0, 58));
        assert_eq!(parse(58, 0), asked(58, 0));
        for (start, offset) in [(0, 59), (59, 0), (34, 25), (59, 0xffff)] {
            assert_eq!(parse(start, offset), Err(Refused::ChecksumField { start, offset, frame_bytes: 60 }));
        }
        for start in [60, 61, 0xffff] {
            assert_eq!(parse(start, 0xffff), Err(Refused::ChecksumStart { start, frame_bytes: 60 }));
        }
        let without = Offers { csum: false, ..ALL };
        assert_eq!(Request::parse(&header(1, 0, 0, 34, 16), 60, without), Err(Refused::ChecksumNotOffered));
    }

    #[test]
    fn segmentation_has_to_be_offered_and_sane() {
        let parse = |flags, kind, size, offers| Request::parse(&header(flags, kind, size, 34, 16), 4000, offers);
        let gso = |kind, ecn| {
            Ok(Request { csum: Some(Partial { start: 34, offset: 16 }), gso: Some(Gso { kind, size: 1448, ecn }) })
        };
        assert_eq!(parse(1, 1, 1448, ALL), gso(GsoKind::Tcp4, false));
        assert_eq!(parse(1, 0x84, 1448, ALL), gso(GsoKind::Tcp6, true));
        assert_eq!(parse(0, 1, 1448, ALL), Err(Refused::SegmentsWithoutChecksum));
        for kind in [2, 3, 6, 0x80, 0x83, 0x85, 0xff] {
            assert_eq!(parse(1, kind, 1448, ALL), Err(Refused::KindUnknown(kind)));
        }
        for size in [0, 1, 7] {
            assert_eq!(parse(1, 1, size, ALL), Err(Refused::SegmentSize(size)));
        }
        assert_eq!(
            parse(1, 5, 1, ALL).map(|request| request.gso),
            Ok(Some(Gso { kind: GsoKind::Udp, size: 1, ecn: false }))
        );
        assert_eq!(parse(1, 5, 0, ALL), Err(Refused::SegmentSize(0)));
        assert_eq!(parse(0, 5, 1448, ALL), Err(Refused::SegmentsWithoutChecksum));
        let without = |change: fn(&mut Offers)| {
            let mut offers = ALL;
            change(&mut offers);
            offers
        };
        assert_eq!(parse(1, 1, 1448, without(|o| o.tcp4 = false)), Err(Refused::KindNotOffered(GsoKind::Tcp4)));
        assert_eq!(parse(1, 4, 1448, without(|o| o.tcp6 = false)), Err(Refused::KindNotOffered(GsoKind::Tcp6)));
        assert_eq!(parse(1, 5, 1448, without(|o| o.udp = false)), Err(Refused::KindNotOffered(GsoKind::Udp)));
        assert_eq!(parse(1, 0x81, 1448, without(|o| o.ecn = false)), Err(Refused::EcnNotOffered));
        assert_eq!(parse(1, 1, 1448, without(|o| o.csum = false)), Err(Refused::ChecksumNotOffered));
    }

    #[test]
    fn encoded_is_parsed_again() {
        for (kind, ecn_bits) in [(GsoKind::Tcp4, 2), (GsoKind::Tcp6, 2), (GsoKind::Udp, 1)] {
            for ecn in [false, true].into_iter().take(ecn_bits) {
                let csum = Some(Partial { start: 38, offset: 16 });
                for gso in [None, Some(Gso { kind, size: 0x1234, ecn })] {
                    let request = Request { csum, gso };
                    let bytes = request.encode(58);
                    assert_eq!(bytes[2..4], [58, 0]);
                    assert_eq!(Request::parse(&bytes, 9000, ALL), Ok(request));
                }
            }
        }
    }

    #[test]
    fn feature_bits_of_the_standard() {
        let believed = |verified| Offers { verified, ..ALL };
        assert_eq!(Offers::by_guest(1 << 0 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 56), believed(false));
        assert_eq!(Offers::to_guest(1 << 1 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 54 | 1 << 55), ALL);
        for one_version in [1 << 54, 1 << 55, 1 << 56] {
            assert!(!Offers::to_guest(1 << 1 | one_version).udp);
        }
        assert_eq!(Offers::by_guest(1 << 1 | 1 << 7 | 1 << 8 | 1 << 9), Offers::default());
        assert_eq!(Offers::to_guest(1 << 7), Offers { tcp4: true, ..Offers::default() });
    }

    #[test]
    fn the_egress_decides() {
        let csum = Partial { start: 34, offset: 16 };
        let finish = Request { csum: Some(csum), gso: None };
        let cut = |kind, ecn| Request { gso: Some(Gso { kind, size: 1448, ecn }), ..finish };
        let none = Offers::default();
        assert_eq!(Request::NONE.resolve(none), Resolution::PassOn);
        assert_eq!(finish.resolve(none), Resolution::Finish(csum));
        assert_eq!(finish.resolve(Offers { csum: true, ..none }), Resolution::PassOn);
        let v4 = Offers { csum: true, tcp4: true, ..none };
        assert_eq!(cut(GsoKind::Tcp4, false).resolve(v4), Resolution::PassOn);
        assert_eq!(cut(GsoKind::Tcp4, true).resolve(v4), Resolution::Cut);
        assert_eq!(cut(GsoKind::Tcp6, false).resolve(v4), Resolution::Cut);
        assert_eq!(cut(GsoKind::Tcp6, true).resolve(ALL), Resolution::PassOn);
        assert_eq!(cut(GsoKind::Udp, false).resolve(ALL), Resolution::PassOn);
        assert_eq!(cut(GsoKind::Udp, false).resolve(v4), Resolution::Cut);
        assert_eq!(cut(GsoKind::Tcp4, false).resolve(Offers { csum: false, ..v4 }), Resolution::Cut);
    }

    #[test]
    fn a_tag_moves_the_checksum() {
        let at = |start| Request { csum: Some(Partial { start, offset: 16 }), gso: None };
        assert_eq!(at(34).shifted(4), Some(at(38)));
        assert_eq!(at(38).shifted(-4), Some(at(34)));
        assert_eq!(at(3).shifted(-4), None);
        assert_eq!(at(0xffff).shifted(4), None);
        assert_eq!(Request::NONE.shifted(-4), Some(Request::NONE));
    }
}
