//! The offload state of a frame on its way through the switch: the work that is left to do for it.
//!
//! [`Asked::admit`] judges the virtio-net header of a received frame by the frame's own headers, once: whatever it lets
//! pass can be cut or finished, and [`Asked::wire_bytes`] is the length of its longest segment. [`Asked::encode`] is
//! the header for the next receiver that takes the frame unfinished.

use super::gso::{Gso, GsoKind, MAX_SEGMENTS, MAX_UDP_SEGMENTS_PASSED};
use super::layout::judge_checksum;
use super::refused::Refused;
use super::request::{HEADER_BYTES, Offers, Request, Resolution};
use crate::virtio::header::DATA_VALID;

/// The work left to do for a frame, and the known state of its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The checksum to finish, the segments to cut.
    pub request: Request,
    /// Length of the headers of a frame to be cut, which each segment will have, bytes; otherwise 0.
    header_bytes: u16,
    /// Segments that a frame to be cut will become; otherwise 0.
    segments: u16,
    /// The checksum is right: the sender or the switch has verified it.
    pub verified: bool,
}

impl Asked {
    /// A frame whose checksum the switch has verified.
    pub const VERIFIED: Asked = Asked { request: Request::NONE, header_bytes: 0, segments: 0, verified: true };

    /// Judges `header`, the virtio-net header of a frame of `frame_bytes` that begins with `snapshot`. A frame that
    /// would be cut into a single segment keeps only its checksum request.
    ///
    /// # Errors
    /// [`Refused`]: not among `offers`, or impossible for this frame.
    pub fn admit(
        header: &[u8; HEADER_BYTES],
        snapshot: &[u8],
        frame_bytes: u32,
        offers: Offers,
    ) -> Result<Asked, Refused> {
        let request = Request::parse(header, frame_bytes, offers)?;
        Ok(match request {
            Request { csum: None, .. } => {
                Asked { verified: offers.verified && header[0] & DATA_VALID != 0, ..Asked::default() }
            }
            Request { csum: Some(partial), gso: None } => {
                judge_checksum(snapshot, frame_bytes, partial)?;
                Asked { request, ..Asked::default() }
            }
            Request { gso: Some(gso), .. } => {
                let layout = request.layout(snapshot, frame_bytes)?;
                let header_bytes = u16::try_from(layout.header_bytes).map_err(|_| Refused::HeadersTooLong)?;
                match frame_bytes.saturating_sub(header_bytes.into()).div_ceil(gso.size.into()) {
                    0 | 1 => Asked { request: Request { gso: None, ..request }, ..Asked::default() },
                    many if many > MAX_SEGMENTS => return Err(Refused::Segments(many)),
                    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_SEGMENTS")]
                    segments => Asked { request, header_bytes, segments: segments as u16, verified: false },
                }
            }
        })
    }

    /// Segments that a frame to be cut will become; 0 of any other.
    #[inline]
    pub fn segments(&self) -> u32 {
        self.segments.into()
    }

    /// Length of the longest frame on a wire that the frame of `frame_bytes` will be.
    #[inline]
    pub fn wire_bytes(&self, frame_bytes: u32) -> u32 {
        match self.request.gso {
            Some(gso) => frame_bytes.min(u32::from(self.header_bytes) + u32::from(gso.size)),
            None => frame_bytes,
        }
    }

    /// The work for an egress that accepts `offers`.
    #[inline]
    pub fn resolve(&self, offers: Offers) -> Resolution {
        match self.request.gso {
            Some(Gso { kind: GsoKind::Udp, .. }) if self.segments() > MAX_UDP_SEGMENTS_PASSED => Resolution::Cut,
            _ => self.request.resolve(offers),
        }
    }

    /// True if a receiver that accepts `offers` can take the frame unfinished.
    #[inline]
    pub fn passes(&self, offers: Offers) -> bool {
        self.resolve(offers) == Resolution::PassOn
    }

    /// The header for a receiver that accepts `offers`, for the frame with `growth_bytes` more in front of its headers.
    /// `None` if the receiver does not accept it.
    #[inline]
    pub fn encode(&self, offers: Offers, growth_bytes: i32) -> Option<[u8; HEADER_BYTES]> {
        if !self.passes(offers) {
            return None;
        }
        let request = self.request.shifted(growth_bytes)?;
        let header_bytes = match self.header_bytes {
            0 => 0,
            bytes => u16::try_from(i32::from(bytes) + growth_bytes).ok()?,
        };
        let mut header = request.encode(header_bytes);
        if self.verified && offers.verified {
            header[0] |= DATA_VALID;
        }
        Some(header)
    }
}
