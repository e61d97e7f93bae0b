//! The feature bits of virtio and of its network device, each once.
//!
//! Reference: Virtio 1.2, 5.1.3 "Feature bits" of the network device, 6 "Reserved Feature Bits".

/// VIRTIO_NET_F_CSUM: the device finishes checksums.
pub const F_CSUM: u64 = 1 << 0;
/// VIRTIO_NET_F_GUEST_CSUM: the driver takes unfinished checksums.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// VIRTIO_NET_F_GUEST_TSO4: the driver takes TCP over IPv4 that is still to be cut.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// VIRTIO_NET_F_GUEST_TSO6: the same over IPv6.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// VIRTIO_NET_F_GUEST_ECN: the same with ECN.
pub const F_GUEST_ECN: u64 = 1 << 9;
/// VIRTIO_NET_F_HOST_TSO4: the device cuts TCP over IPv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// VIRTIO_NET_F_HOST_TSO6: the same over IPv6.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// VIRTIO_NET_F_HOST_ECN: the same with ECN.
pub const F_HOST_ECN: u64 = 1 << 13;
/// VIRTIO_NET_F_MTU: the device tells the driver its MTU.
pub const F_MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_MRG_RXBUF: a frame may be spread over several receive buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_GUEST_ANNOUNCE: the guest announces itself when its hypervisor says so.
pub const F_GUEST_ANNOUNCE: u64 = 1 << 21;
/// VIRTIO_NET_F_MQ: several queue pairs.
pub const F_MQ: u64 = 1 << 22;
/// VHOST_F_LOG_ALL: the back end marks the pages it writes; no feature of the driver's.
pub const F_LOG_ALL: u64 = 1 << 26;
/// VIRTIO_F_INDIRECT_DESC: chains may continue in a table of their own.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: each side names the index at which it wants a notification.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1: not a legacy device.
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_PACKED: the rings are packed ones.
pub const F_RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER: chains are completed in the order they were made available.
pub const F_IN_ORDER: u64 = 1 << 35;
/// VIRTIO_NET_F_GUEST_USO4: the driver takes UDP over IPv4 that is still to be cut.
pub const F_GUEST_USO4: u64 = 1 << 54;
/// VIRTIO_NET_F_GUEST_USO6: the same over IPv6.
pub const F_GUEST_USO6: u64 = 1 << 55;
/// VIRTIO_NET_F_HOST_USO: the device cuts UDP.
pub const F_HOST_USO: u64 = 1 << 56;
