//! The reasons for which an offload request is refused.

use labsw_switch::DropReason;

use super::gso::{GsoKind, MAX_SEGMENTS};

/// Why a request is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Fewer than ten bytes of virtio-net header.
    #[error("the virtio-net header is cut")]
    HeaderCut,
    /// The checksum was left unfinished without checksum offload.
    #[error("checksum offload was not offered")]
    ChecksumNotOffered,
    /// The sum would begin behind the frame.
    #[error("csum_start {start} is behind the frame's end ({frame_bytes} bytes)")]
    ChecksumStart {
        /// `csum_start` of the request.
        start: u16,
        /// Length of the frame.
        frame_bytes: u32,
    },
    /// The checksum would be stored behind the frame, or behind the part of it that is at hand.
    #[error("the checksum field at {start} + {offset} is behind the end ({frame_bytes} bytes)")]
    ChecksumField {
        /// `csum_start` of the request.
        start: u16,
        /// `csum_offset` of the request.
        offset: u16,
        /// Length of the frame, or of the part at hand.
        frame_bytes: u32,
    },
    /// TCP and UDP keep no checksum there, or the frame carries neither.
    #[error("csum_start {start} and csum_offset {offset} are not those of a checksum of IP protocol {protocol}")]
    ChecksumPlace {
        /// `csum_start` of the request.
        start: u16,
        /// `csum_offset` of the request.
        offset: u16,
        /// The protocol in the outermost IP header.
        protocol: u8,
    },
    /// Segments need checksums.
    #[error("segmentation without checksum offload")]
    SegmentsWithoutChecksum,
    /// A `gso_type` that is neither TCP nor UDP datagrams (UDP fragments, or undefined), or has an ECN bit and is UDP.
    #[error("gso_type {0:#04x} is unknown")]
    KindUnknown(u8),
    /// A `gso_type` that was not negotiated.
    #[error("segmentation of {0:?} was not offered")]
    KindNotOffered(GsoKind),
    /// The ECN bit, which was not negotiated.
    #[error("segmentation of ECN frames was not offered")]
    EcnNotOffered,
    /// Smaller than [`MIN_SEGMENT_BYTES`](super::MIN_SEGMENT_BYTES) and TCP, or 0.
    #[error("gso_size {0} is too small")]
    SegmentSize(u16),
    /// The frame ends inside its headers.
    #[error("the frame ends inside its headers")]
    FrameCut,
    /// The headers are longer than the part of the frame that was copied for looking at.
    #[error("the headers are longer than the part that is checked")]
    HeadersTooLong,
    /// Behind MAC addresses and VLAN tags is another ethertype than that of the kind.
    #[error("ethertype {0:#06x} is not that of the segmentation asked for")]
    Ethertype(u16),
    /// An IP version or header length that is impossible.
    #[error("malformed IP header")]
    Ip,
    /// An IPv4 fragment.
    #[error("an IP fragment cannot be segmented")]
    Fragment,
    /// Not the protocol of the kind, or an IPv6 extension header that cannot be repeated in each segment.
    #[error("IP protocol {0} is not that of the segmentation asked for")]
    Protocol(u8),
    /// An impossible TCP header length.
    #[error("malformed TCP header")]
    Tcp,
    /// The checksum asked for is not that of the TCP or UDP header.
    #[error("the checksum asked for is not that of the header to be repeated")]
    ChecksumOfAnother,
    /// A segment would be longer than IP can say.
    #[error("a segment would be longer than an IP packet")]
    SegmentTooLong,
    /// More than [`MAX_SEGMENTS`].
    #[error("{0} segments are more than the {MAX_SEGMENTS} that one frame may become")]
    Segments(u32),
    /// The frames of a burst would become more segments than they may together.
    #[error("the burst would become more than {0} segments")]
    SegmentsOfBurst(u32),
    /// [`super::Cutter`] was given a frame that is not to be cut.
    #[error("no segmentation is asked for")]
    NotAsked,
}

impl Refused {
    /// The drop reason under which the frame is counted.
    pub fn drop_reason(&self) -> DropReason {
        match self {
            Refused::Segments(_) | Refused::SegmentsOfBurst(_) => DropReason::SegmentLimit,
            _ => DropReason::BadOffload,
        }
    }
}
