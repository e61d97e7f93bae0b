//! The decisions of a virtual Ethernet switch, and nothing else.
//!
//! No I/O, no threads, no clocks, no `unsafe`: time and randomness come in as arguments, bytes come in
//! as the first [`header::SNAPSHOT_BYTES`] of each frame, and decisions go out as per-port lists of
//! *(frame index, tag edit)*. How a port moves bytes is not known here.
//!
//! The way of a frame through this crate: [`header::Header::parse`] → [`vlan::PortVlan::classify`] →
//! [`fdb::Fdb::learn`] → [`fdb::Fdb::lookup`] → [`vlan::edit`] → [`forward::Egress`]; all of it is
//! called from one place, [`forward::Ingress::frame`].
//!
//! | module | holds |
//! |---|---|
//! | [`forward`] | the decision about a burst, step by step, and the choice of mirror copies |
//! | [`header`], [`wire`], [`mac`] | the Ethernet header of a frame; facts of the wire; addresses |
//! | [`vlan`], [`tag_edit`] | the VLAN of a frame, the rules by which it leaves a port, and the change of its tags |
//! | [`fdb`] | the forwarding database: VLAN and address → port |
//! | [`tables`] | the whole configuration, immutable, replaced as a whole |
//! | [`guard`] | the frames that a port refuses: spoofed addresses, storms, protocols of bridges |
//! | [`multicast`] | snooping: multicast frames go to the ports that asked for them |
//! | [`filter`] | programs of libpcap, checked and run over snapshots |
//! | [`impair`] | the faults of a bad link: loss, delay, rate, corruption |
//! | [`inject`] | admission of frames that come from a mirror destination |
//! | [`remote`] | copies that go to another machine: their headers, and the messages by which the next hop is found |
//! | [`inline`] | a sensor in the wire of a port, and the probes that show whether it works |
//! | [`trace`] | a dry run: the decision about one frame, step by step, learning nothing |
//! | [`drop_reason`] | the closed list of reasons for which a frame is dropped |
//! | `rate`, `sync` | a token bucket (GCRA); atomics that loom can replace |

#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod drop_reason;
pub mod fdb;
pub mod filter;
pub mod forward;
pub mod guard;
pub mod header;
pub mod impair;
pub mod inject;
pub mod inline;
pub mod mac;
pub mod multicast;
mod rate;
pub mod remote;
mod sync;
pub mod tables;
pub mod tag_edit;
pub mod trace;
pub mod vlan;
pub mod wire;

pub use drop_reason::DropReason;
pub use mac::Mac;
pub use vlan::Vid;

/// Index of a port: a slot in [`tables::Tables`] and in each worker. Slots are reused after a port is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The index into per-port arrays.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Index of a mirror session in [`tables::Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorId(pub u16);

impl MirrorId {
    /// The index into per-mirror arrays.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The most frames handled in one go.
pub const BURST_FRAMES: usize = 64;
/// The most ports of one switch.
pub const MAX_PORTS: usize = 1024;
/// The most mirror sessions of one switch.
pub const MAX_MIRRORS: usize = 64;
