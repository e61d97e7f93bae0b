//! The features that a vhost-user port offers, and their names.
//!
//! The offer is the same in every run of a version: a guest keeps the features that it acknowledged when the switch is
//! restarted.
//!
//! Reference: Virtio 1.2, 5.1.3, 6; QEMU's `docs/interop/vhost-user.rst`, "Protocol features".

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};

use crate::virtio::features::{
    F_CSUM, F_EVENT_IDX, F_GUEST_ANNOUNCE, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_USO4,
    F_GUEST_USO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO, F_IN_ORDER, F_INDIRECT_DESC, F_LOG_ALL, F_MQ,
    F_MRG_RXBUF, F_MTU, F_RING_PACKED, F_VERSION_1,
};

/// VHOST_USER_F_PROTOCOL_FEATURES.
pub(super) const F_PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// The features that every port offers. [`F_MQ`] is added for several queue pairs, [`OFFLOADS`] if the port offers
/// them.
pub(super) const FEATURES: u64 = F_VERSION_1
    | F_MRG_RXBUF
    | F_INDIRECT_DESC
    | F_EVENT_IDX
    | F_RING_PACKED
    | F_IN_ORDER
    | F_PROTOCOL
    | F_MTU
    | F_GUEST_ANNOUNCE
    | F_LOG_ALL;
/// The offloads: work on a frame that guest and switch may leave to each other.
pub(super) const OFFLOADS: u64 = F_CSUM
    | F_GUEST_CSUM
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN
    | F_GUEST_USO4
    | F_GUEST_USO6
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN
    | F_HOST_USO;
/// The protocol features offered.
pub(super) const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::MTU)
    .union(VhostUserProtocolFeatures::LOG_SHMFD)
    .union(VhostUserProtocolFeatures::RARP)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
/// Names for people, by bit.
pub(super) const FEATURE_NAMES: [(u64, &str); 22] = [
    (F_CSUM, "CSUM"),
    (F_GUEST_CSUM, "GUEST_CSUM"),
    (F_GUEST_TSO4, "GUEST_TSO4"),
    (F_GUEST_TSO6, "GUEST_TSO6"),
    (F_GUEST_ECN, "GUEST_ECN"),
    (F_HOST_TSO4, "HOST_TSO4"),
    (F_HOST_TSO6, "HOST_TSO6"),
    (F_HOST_ECN, "HOST_ECN"),
    (F_VERSION_1, "VERSION_1"),
    (F_MRG_RXBUF, "MRG_RXBUF"),
    (F_INDIRECT_DESC, "INDIRECT_DESC"),
    (F_EVENT_IDX, "EVENT_IDX"),
    (F_MQ, "MQ"),
    (F_RING_PACKED, "RING_PACKED"),
    (F_IN_ORDER, "IN_ORDER"),
    (F_PROTOCOL, "PROTOCOL_FEATURES"),
    (F_MTU, "MTU"),
    (F_GUEST_ANNOUNCE, "GUEST_ANNOUNCE"),
    (F_LOG_ALL, "LOG_ALL"),
    (F_GUEST_USO4, "GUEST_USO4"),
    (F_GUEST_USO6, "GUEST_USO6"),
    (F_HOST_USO, "HOST_USO"),
];

/// The names of feature bits, unknown ones left out.
pub(super) fn feature_names(bits: u64) -> Vec<&'static str> {
    FEATURE_NAMES.iter().filter(|(bit, _)| bits & bit != 0).map(|&(_, name)| name).collect()
}
