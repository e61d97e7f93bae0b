//! An unfinished checksum and a segmentation, as values, and the bounds of a segmentation.
//!
//! Reference: Virtio 1.2, 5.1.6.2 "Packet Transmission".

/// The smallest segment payload accepted, bytes: Linux keeps the MSS at 48 or more, of which TCP options can take 40.
pub const MIN_SEGMENT_BYTES: u16 = 8;
/// The most segments that one frame may become: it bounds the work that a guest can ask for. The longest frame with
/// segments of 128 bytes is within it; an MSS of 536 (RFC 9293, 3.7.1) makes 123.
pub const MAX_SEGMENTS: u32 = 512;

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
}

/// A frame to be cut into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocols.
    pub kind: GsoKind,
    /// Payload of each segment but the last, bytes; at least [`MIN_SEGMENT_BYTES`].
    pub size: u16,
    /// The frame may have CWR set.
    pub ecn: bool,
}
