//! The fields of the virtio-net header (`struct virtio_net_hdr`), each constant once.
//!
//! Reference: Virtio 1.2, 5.1.6 "Device Operation".

/// Length of the part that describes offloads, bytes.
pub const OFFLOAD_BYTES: usize = 10;
/// Length of the header with the number of buffers, bytes.
pub const HEADER_BYTES: usize = 12;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM, in `flags`: the checksum is unfinished.
pub const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID, in `flags`: the checksum was verified.
pub const DATA_VALID: u8 = 2;

/// VIRTIO_NET_HDR_GSO_NONE, in `gso_type`: no segmentation is asked for.
pub const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_TCPV4, in `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6, in `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// VIRTIO_NET_HDR_GSO_UDP_L4, in `gso_type`: UDP, over whichever IP version.
pub const GSO_UDP_L4: u8 = 5;
/// VIRTIO_NET_HDR_GSO_ECN, added to `gso_type`: the frame has ECN bits (CWR) that need care.
pub const GSO_ECN: u8 = 0x80;

/// Where `csum_start` stands, bytes.
pub const CSUM_START: usize = 6;
