//! Why a frame was not forwarded: a closed list, one counter per port and reason.
//!
//! Each row of `drop_reasons!` says all there is to know of a reason: its sentence, its name, the [`Side`] on which it
//! is counted, the [`Stage`] of a frame's way that found it, and whether it says that the port is full and will take
//! frames again ([`DropReason::is_full`]). The names are part of the outside contract (`stats`, `port list --json`,
//! metrics).

/// Where a reason is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the port the frame came from.
    In,
    /// At the port the frame was to leave by.
    Out,
    /// At either.
    Both,
}

/// The part of a frame's way in which it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A driver takes it from its port.
    Receive,
    /// The ingress or egress port forwards: it is up, and no mirror destination.
    Port,
    /// The gate of a mirror destination.
    Injection,
    /// Its Ethernet header.
    Header,
    /// Its length.
    Mtu,
    /// Protocols between neighbours (`link_local`).
    LinkLocal,
    /// VLAN membership and tags.
    Vlan,
    /// The guards of a port.
    Guard,
    /// Where its destination is.
    Lookup,
    /// The ports that asked for the frame's multicast group.
    Multicast,
    /// An impairment of a port.
    Impairment,
    /// A driver gives it to its port.
    Send,
}

impl Stage {
    /// The stable name, as in the JSON of a trace.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Port => "port",
            Stage::Injection => "injection",
            Stage::Header => "header",
            Stage::Mtu => "mtu",
            Stage::LinkLocal => "link_local",
            Stage::Vlan => "vlan",
            Stage::Guard => "guard",
            Stage::Lookup => "lookup",
            Stage::Multicast => "multicast",
            Stage::Impairment => "impairment",
            Stage::Send => "send",
        }
    }
}

/// One row a reason: `/// Sentence.`, `Variant = "name": Side, Stage;`, and `full` behind the stage of a port that is
/// full.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal: $side:ident, $stage:ident $(, $full:ident)?;)+) => {
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

            /// Where it is counted.
            pub fn side(self) -> Side {
                match self { $(DropReason::$variant => Side::$side),+ }
            }

            /// The part of a frame's way that drops for this reason.
            pub fn stage(self) -> Stage {
                match self { $(DropReason::$variant => Stage::$stage),+ }
            }

            /// The port has no room now, and will have some when its peer has taken frames: sending again may work.
            #[inline]
            pub const fn is_full(self) -> bool {
                match self { $(DropReason::$variant => drop_reasons!(@full $($full)?)),+ }
            }
        }
    };
    (@full) => { false };
    (@full full) => { true };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or cut inside a VLAN tag.
    Runt = "runt": Both, Header;
    /// Longer than the MTU of the port allows.
    Oversize = "oversize": Both, Mtu;
    /// The source is a group address.
    SourceGroupAddress = "source_group_address": In, Header;
    /// VLAN id 4095 is reserved (802.1Q table 9-2).
    VidReserved = "vid_reserved": In, Header;
    /// A tagged frame on an access port.
    TaggedNotAllowed = "tagged_not_allowed": In, Vlan;
    /// An untagged or priority-tagged frame on a trunk without a native VLAN.
    UntaggedNotAllowed = "untagged_not_allowed": Both, Vlan;
    /// The port is no member of the frame's VLAN.
    VlanNotMember = "vlan_not_member": Both, Vlan;
    /// Removing the outer tag would expose an inner one (VLAN hopping).
    DoubleTag = "double_tag": Out, Vlan;
    /// A link-local protocol frame (01-80-C2-00-00-0X) on a port that drops them.
    LinkLocal = "link_local": In, LinkLocal;
    /// The port takes part in nothing but mirroring (mirror destination without injection).
    MirrorDestination = "mirror_destination": Both, Port;
    /// The port is down: switched off, or its link is.
    PortDown = "port_down": Both, Port;
    /// The destination was learned on the port the frame came from.
    SamePort = "same_port": In, Lookup;
    /// No other port is in the frame's VLAN.
    NoDestination = "no_destination": In, Lookup;
    /// The guest asked for an offload that was not negotiated, or an impossible one, or one that the kernel refuses.
    BadOffload = "bad_offload": Both, Receive;
    /// A descriptor chain without a whole virtio-net header, or larger than any frame.
    BadChain = "bad_chain": In, Receive;
    /// Nobody is connected to the port's socket, or its rings are stopped.
    NotConnected = "not_connected": Both, Send;
    /// The guest has no free receive buffer.
    GuestRingFull = "guest_ring_full": Out, Send, full;
    /// The frame does not fit the receive buffers that the guest offers.
    GuestBufferTooSmall = "guest_buffer_too_small": Out, Send;
    /// The device's transmit ring is full.
    TxRingFull = "tx_ring_full": Out, Send, full;
    /// The port has used its share of packet memory: its peer has not returned earlier frames.
    HeldByPeer = "held_by_peer": Out, Send, full;
    /// No free buffer in the switch's own packet memory.
    NoBuffer = "no_buffer": Out, Send;
    /// An impairment of the port lost the frame, as it was asked to.
    ImpairLoss = "impair_loss": Both, Impairment;
    /// The queue of an impairment's rate is full.
    ImpairQueueFull = "impair_queue_full": Both, Impairment;
    /// An impairment keeps as many frames as it may.
    ImpairMemoryFull = "impair_memory_full": Both, Impairment;
    /// The frame waited in an impairment that was changed or cleared, or whose port went.
    ImpairCleared = "impair_cleared": Both, Impairment;
    /// More broadcast frames than the port's storm control lets flood.
    StormBroadcast = "storm_broadcast": In, Guard;
    /// More multicast frames than the port's storm control lets flood.
    StormMulticast = "storm_multicast": In, Guard;
    /// More frames to unknown unicast addresses than the port's storm control lets flood.
    StormUnknownUnicast = "storm_unknown_unicast": In, Guard;
    /// The source is one more than the port may have.
    MacLimit = "mac_limit": In, Guard;
    /// The source is known at another port, where it stays (sticky).
    MacSticky = "mac_sticky": In, Guard;
    /// The port is pinned to other sources.
    MacNotAllowed = "mac_not_allowed": In, Guard;
    /// The frame came from an isolated port, and this is another one.
    Isolated = "isolated": Out, Guard;
    /// A DHCP server's message, or one that might be, on a port without a DHCP server.
    DhcpGuard = "dhcp_guard": In, Guard;
    /// An IPv6 router's message, or one that might be, on a port without a router.
    RaGuard = "ra_guard": In, Guard;
    /// A mirror copy that came back to the port it was sent to.
    MirrorLoop = "mirror_loop": In, Injection;
    /// More frames than the port may inject.
    InjectRate = "inject_rate": In, Injection;
    /// The source is not among those that the port may inject.
    InjectSource = "inject_source": In, Injection;
    /// Multicast snooping: no other port has a member of the group or a multicast router.
    MulticastNotWanted = "multicast_not_wanted": In, Multicast;
    /// A MAC control frame (01-80-C2-00-00-01 or ethertype 0x8808: PAUSE, PFC), which no bridge relays.
    MacControl = "mac_control": In, LinkLocal;
    /// TCP segmentation would make more segments than one frame, or one burst, may.
    SegmentLimit = "segment_limit": Both, Receive;
    /// The device may have taken the frame's VLAN tag out of it.
    TagUnsure = "tag_unsure": In, Receive;
    /// The frame arrived within the outage of an impairment of the port.
    ImpairOutage = "impair_outage": Both, Impairment;
    /// The sensor in the port's wire does not let frames pass, and nothing may go past it.
    InlineClosed = "inline_closed": Both, Port;
    /// The port is a sensor's: it takes no frames but those of the port in whose wire the sensor is.
    InlineSensor = "inline_sensor": Both, Port;
    /// A mirror's copy that goes to another machine, while the next hop on the way there is not known.
    NoNextHop = "no_next_hop": Out, Send;
}

/// Number of drop reasons, the length of per-reason counter arrays.
pub const DROP_REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_port_is_an_egress_and_sending_is_where_it_shows() {
        let full: Vec<_> = DropReason::ALL.iter().filter(|reason| reason.is_full()).collect();
        assert_eq!(full, [&DropReason::GuestRingFull, &DropReason::TxRingFull, &DropReason::HeldByPeer]);
        assert!(full.iter().all(|reason| (reason.side(), reason.stage()) == (Side::Out, Stage::Send)));
    }
}
