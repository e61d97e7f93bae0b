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
//! [`impair::Impairment`] stands beside that way: what a bad link does to the frames of one port and direction.
//!
//! [`guard::Guards`] is what a port refuses, if it guards anything.
//!
//! [`filter::Filter`] says whether a frame is wanted: a program that libpcap compiled.
//!
//! [`inject::Injection`] admits frames that come from a mirror destination.
//!
//! [`multicast::Snooping`] narrows the flooding of multicast frames where that is asked for.
//!
//! [`trace::trace`] says what would become of a frame.
//!
//! [`tables::Tables`] is everything configured, immutable, replaced as a whole.

#![forbid(unsafe_code)]

pub mod drop_reason;
pub mod fdb;
pub mod filter;
pub mod forward;
pub mod guard;
pub mod header;
pub mod impair;
pub mod inject;
pub mod mac;
pub mod multicast;
mod rate;
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
    /// As an index into per-port arrays.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Index of a mirror session in [`tables::Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MirrorId(pub u16);

impl MirrorId {
    /// As an index into per-mirror arrays.
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
