//! Why a frame was not forwarded: a closed list, one counter per port and reason.
//!
//! A reason is counted at the port where the frame was lost: at the ingress port for everything decided
//! about the frame itself, at the egress port for what happened on the way out. The names are part of the
//! outside contract (`stats`, `port list --json`, metrics).

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant),+ }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),+];

            /// The stable name in counters and JSON.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),+ }
            }

            /// One sentence for people.
            pub fn explanation(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

drop_reasons! {
    /// Ingress: shorter than an Ethernet header, or cut inside a VLAN tag.
    Runt = "runt",
    /// Longer than the MTU of the port allows.
    Oversize = "oversize",
    /// Ingress: the source is a group address.
    SourceGroupAddress = "source_group_address",
    /// Ingress: VLAN id 4095 is reserved (802.1Q table 9-2).
    VidReserved = "vid_reserved",
    /// Ingress: a tagged frame on an access port.
    TaggedNotAllowed = "tagged_not_allowed",
    /// Ingress: an untagged or priority-tagged frame on a trunk without a native VLAN.
    UntaggedNotAllowed = "untagged_not_allowed",
    /// The port is no member of the frame's VLAN.
    VlanNotMember = "vlan_not_member",
    /// Egress: removing the outer tag would expose an inner one (VLAN hopping).
    DoubleTag = "double_tag",
    /// Ingress: a link-local protocol frame (01-80-C2-00-00-0X) on a port that drops them.
    LinkLocal = "link_local",
    /// The port takes part in nothing but mirroring (mirror destination without injection).
    MirrorDestination = "mirror_destination",
    /// The port is administratively down.
    PortDown = "port_down",
    /// The destination was learned on the port the frame came from.
    SamePort = "same_port",
    /// No other port is in the frame's VLAN.
    NoDestination = "no_destination",
    /// Ingress: the guest asked for an offload that was not negotiated, or an impossible one.
    BadOffload = "bad_offload",
    /// Ingress: a descriptor chain without a whole virtio-net header, or larger than any frame.
    BadChain = "bad_chain",
    /// Egress: nobody is connected to the port's socket, or its rings are stopped.
    NotConnected = "not_connected",
    /// Egress: the guest has no free receive buffer.
    GuestRingFull = "guest_ring_full",
    /// Egress: the frame does not fit the receive buffers that the guest offers.
    GuestBufferTooSmall = "guest_buffer_too_small",
    /// Egress: the device's transmit ring is full.
    TxRingFull = "tx_ring_full",
    /// No free buffer in the switch's own packet memory.
    NoBuffer = "no_buffer",
    /// An impairment of the port lost the frame, as it was asked to.
    ImpairLoss = "impair_loss",
    /// The queue of an impairment's rate is full.
    ImpairQueueFull = "impair_queue_full",
    /// An impairment keeps as many frames as it may.
    ImpairMemoryFull = "impair_memory_full",
    /// The frame waited in an impairment that was changed or cleared, or whose port went.
    ImpairCleared = "impair_cleared",
    /// Ingress: more broadcast frames than the port's storm control lets flood.
    StormBroadcast = "storm_broadcast",
    /// Ingress: more multicast frames than the port's storm control lets flood.
    StormMulticast = "storm_multicast",
    /// Ingress: more frames to unknown unicast addresses than the port's storm control lets flood.
    StormUnknownUnicast = "storm_unknown_unicast",
    /// Ingress: the source is one more than the port may have.
    MacLimit = "mac_limit",
    /// Ingress: the source is known at another port, where it stays (sticky).
    MacSticky = "mac_sticky",
    /// Ingress: the port is pinned to other sources.
    MacNotAllowed = "mac_not_allowed",
    /// Egress: the frame came from an isolated port, and this is another one.
    Isolated = "isolated",
    /// Ingress: what a DHCP server sends, or might be, on a port that has none.
    DhcpGuard = "dhcp_guard",
    /// Ingress: what an IPv6 router sends, or might be, on a port that has none.
    RaGuard = "ra_guard",
    /// Ingress: a mirror copy that came back to the port it was sent to.
    MirrorLoop = "mirror_loop",
    /// Ingress: more frames than the port may inject.
    InjectRate = "inject_rate",
    /// Ingress: the source is not among those that the port may inject.
    InjectSource = "inject_source",
    /// Ingress: with multicast snooping, no other port asked for the group or has a router.
    MulticastNotWanted = "multicast_not_wanted",
}

/// Number of drop reasons, the length of per-reason counter arrays.
pub const DROP_REASONS: usize = DropReason::ALL.len();
