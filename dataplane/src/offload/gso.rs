//! An unfinished checksum and a segmentation, as values, and the bounds of a segmentation.
//!
//! Reference: Virtio 1.3, 5.1.6.2 "Packet Transmission"; RFC 768; kernel `Documentation/networking/
//! segmentation-offloads.rst`.

use crate::virtio::header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

/// The smallest segment payload of TCP accepted, bytes: Linux keeps the MSS at 48 or more, of which TCP options can
/// take 40. Datagrams of UDP may have any length but 0.
pub const MIN_SEGMENT_BYTES: u16 = 8;
/// The most segments that one frame may become: it bounds the work that a guest can ask for. The longest frame with
/// segments of 128 bytes is within it; an MSS of 536 (RFC 9293, 3.7.1) makes 123.
pub const MAX_SEGMENTS: u32 = 512;
/// The most segments of a UDP frame that is passed on uncut: Linux refuses a frame of more than 64 (before 6.9) or 128.
pub const MAX_UDP_SEGMENTS_PASSED: u32 = 64;

/// A checksum to be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// First byte that is summed, counted from the start of the frame; the sum runs to the frame's end.
    pub start: u16,
    /// Where the checksum is stored, counted from `start`. It holds the sum of the pseudo-header until then.
    pub offset: u16,
}

impl Partial {
    /// Where the checksum is stored, counted from the start of the frame.
    #[inline]
    pub fn field(self) -> usize {
        usize::from(self.start) + usize::from(self.offset)
    }
}

/// Which protocol is to be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, over whichever IP version: each segment is a datagram.
    Udp,
}

impl GsoKind {
    /// The kind that `gso_type` names, and whether it says ECN. `None` if it is not known: UDP has no ECN bit.
    pub(super) fn of_type(gso_type: u8) -> Option<(GsoKind, bool)> {
        match (gso_type & !GSO_ECN, gso_type & GSO_ECN != 0) {
            (GSO_TCPV4, ecn) => Some((GsoKind::Tcp4, ecn)),
            (GSO_TCPV6, ecn) => Some((GsoKind::Tcp6, ecn)),
            (GSO_UDP_L4, false) => Some((GsoKind::Udp, false)),
            _ => None,
        }
    }

    /// Its `gso_type`, without ECN.
    pub(super) fn gso_type(self) -> u8 {
        match self {
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        }
    }

    /// The smallest payload of a segment, bytes.
    pub(super) fn min_segment_bytes(self) -> u16 {
        match self {
            GsoKind::Tcp4 | GsoKind::Tcp6 => MIN_SEGMENT_BYTES,
            GsoKind::Udp => 1,
        }
    }
}

/// A frame to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocols.
    pub kind: GsoKind,
    /// Payload of each segment but the last, bytes; at least [`MIN_SEGMENT_BYTES`] of TCP, 1 of UDP.
    pub size: u16,
    /// The frame may have CWR set.
    pub ecn: bool,
}
