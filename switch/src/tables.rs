//! Everything configured that forwarding looks at: an immutable snapshot, replaced as a whole.
//!
//! [`Tables::build`] checks the specification and works out beforehand what a frame would otherwise have
//! to ask for: per VLAN the list of ports a flooded frame goes to, per port the mirrors that watch it. VLANs
//! next to each other with the same ports share one list. A mirror without a destination, or whose
//! destination is down, is not in any of these lists and so costs nothing and matches nothing.
//!
//! A VLAN that some mirror's copies go to, waiting or not, is an RSPAN VLAN. Its list has the ports that name it in
//! their trunks ([`PortVlan::lists_explicitly`]) and no others; these are the mirror's destinations as well, which go
//! on to take other traffic.
//!
//! **Invariants.** A mirror destination (a port some mirror points to, or declared `mirror_only`) is in no
//! flood list and watched by no mirror, so that there are no copies of copies. Disabled ports are in no
//! flood list.

use std::sync::Arc;

use crate::filter::Filter;
use crate::guard::Guards;
use crate::header::{Header, Tag};
use crate::inject::{IngressAs, Injection};
use crate::inline::{InlineSpec, Part};
use crate::multicast::Snooping;
use crate::vlan::{Leaves, PortVlan, VlanSet};
use crate::{DropReason, MAX_MIRRORS, MAX_PORTS, MirrorId, PortId, Vid};

mod build;
mod inline;
mod lone;

pub use lone::LoneVlans;

/// The MTU of a port about which nothing is said, bytes.
pub const DEFAULT_MTU_BYTES: u32 = 1500;

/// The treatment of frames to 01-80-C2-00-00-00 to -0F (802.1Q table 8-1) received on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LinkLocal {
    /// They are flooded in their VLAN like any multicast frame.
    #[default]
    Transparent,
    /// They are dropped.
    Drop,
}

impl LinkLocal {
    /// Checks that a frame with this header may come in. MAC control frames never may: they are for the other end of
    /// one cable, and a bridge that passed them on would let a station stop a link that is not its own (802.1Q 8.6.3).
    ///
    /// # Errors
    /// [`DropReason::MacControl`], [`DropReason::LinkLocal`].
    #[cold]
    pub(crate) fn admit(self, header: &Header) -> Result<(), DropReason> {
        match self {
            _ if header.is_mac_control() => Err(DropReason::MacControl),
            LinkLocal::Drop if header.dst.is_link_local() => Err(DropReason::LinkLocal),
            LinkLocal::Drop | LinkLocal::Transparent => Ok(()),
        }
    }
}

/// The rules of one port.
#[derive(Clone, Debug)]
pub struct PortRules {
    /// VLAN membership.
    pub vlan: PortVlan,
    /// The treatment of link-local frames received here.
    pub link_local: LinkLocal,
    /// The most bytes behind Ethernet header and VLAN tags.
    pub mtu_bytes: u32,
    /// True if the port forwards: it is switched on, and its link is up.
    pub enabled: bool,
    /// True if source addresses are learned here.
    pub learning: bool,
    /// True if the port is kept for mirror copies even while no mirror points to it.
    pub mirror_only: bool,
    /// True if mirrors with the source `*` copy this port's frames.
    pub allow_mirror: bool,
    /// The guards, if there are any.
    pub guards: Option<Box<Guards>>,
    /// The gate for frames that come from the port while it is a mirror destination; `None`: no frame may enter.
    pub inject: Option<Arc<Injection>>,
    /// Where copies go from here, if they go to another machine.
    pub remote: Option<Arc<crate::remote::Remote>>,
}

impl Default for PortRules {
    /// `native-untagged` in VLAN 1 with all VLANs, transparent, MTU 1500, up, learning, watched, nothing guarded.
    fn default() -> PortRules {
        PortRules {
            vlan: PortVlan::default(),
            link_local: LinkLocal::default(),
            mtu_bytes: DEFAULT_MTU_BYTES,
            enabled: true,
            learning: true,
            mirror_only: false,
            allow_mirror: true,
            guards: None,
            inject: None,
            remote: None,
        }
    }
}

impl PortRules {
    /// True if the port exchanges no frames with other isolated ports.
    #[inline]
    pub(crate) fn is_isolated(&self) -> bool {
        self.guards.as_ref().is_some_and(|guards| guards.spec.isolated)
    }

    /// True if no rule of the port concerns frames without a tag, except their VLAN: the port learns, guards nothing,
    /// and is no tunnel.
    pub(crate) fn is_plain(&self) -> bool {
        self.learning && self.guards.is_none() && self.vlan.tunnel().is_none()
    }
}

/// Which frames of a port a mirror copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Direction {
    /// Those the switch receives on the port.
    pub rx: bool,
    /// Those the switch sends on the port.
    pub tx: bool,
}

impl Direction {
    /// Received and sent frames.
    pub const BOTH: Direction = Direction { rx: true, tx: true };
    /// Received frames.
    pub const RX: Direction = Direction { rx: true, tx: false };
    /// Sent frames.
    pub const TX: Direction = Direction { rx: false, tx: true };
}

/// Where the copies of a mirror go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTo {
    /// To a port, which takes no other traffic.
    Port(PortId),
    /// Tagged with this VLAN, to every port that [lists](PortVlan::lists_explicitly) it.
    Vlan(Vid),
}

impl From<PortId> for MirrorTo {
    fn from(port: PortId) -> MirrorTo {
        MirrorTo::Port(port)
    }
}

impl MirrorTo {
    /// The port that takes copies only.
    pub fn port(self) -> Option<PortId> {
        match self {
            MirrorTo::Port(port) => Some(port),
            MirrorTo::Vlan(_) => None,
        }
    }

    /// The RSPAN VLAN.
    pub fn vlan(self) -> Option<Vid> {
        match self {
            MirrorTo::Vlan(vid) => Some(vid),
            MirrorTo::Port(_) => None,
        }
    }
}

/// One mirror session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSpec {
    /// Its index, below [`MAX_MIRRORS`].
    pub id: MirrorId,
    /// The ports it watches.
    pub sources: Vec<(PortId, Direction)>,
    /// Watches every port that is no mirror destination and [may be](PortRules::allow_mirror), too.
    pub all_ports: Option<Direction>,
    /// Only frames of these VLANs; `None`: all frames.
    pub vlans: Option<VlanSet>,
    /// Where copies go; `None` while that port is absent.
    pub to: Option<MirrorTo>,
    /// The most bytes of a copy; 0: whole frames.
    pub snaplen_bytes: u32,
    /// Only frames that it selects; `None`: all frames.
    pub filter: Option<Arc<Filter>>,
}

/// Why tables cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TablesError {
    /// A port index that is too high.
    #[error("port {} is out of range; there can be {} ports", .0.0, MAX_PORTS)]
    PortOutOfRange(PortId),
    /// Two ports with one index.
    #[error("port {} is there twice", .0.0)]
    DuplicatePort(PortId),
    /// A mirror index that is too high.
    #[error("mirror {} is out of range; there can be {} mirrors", .0.0, MAX_MIRRORS)]
    MirrorOutOfRange(MirrorId),
    /// Two mirrors with one index.
    #[error("mirror {} is there twice", .0.0)]
    DuplicateMirror(MirrorId),
    /// A mirror names a port that does not exist.
    #[error("mirror {} names port {}, which does not exist", .mirror.0, .port.0)]
    UnknownPort {
        /// The mirror.
        mirror: MirrorId,
        /// The port it names.
        port: PortId,
    },
    /// A mirror would copy its own copies, or those of another mirror.
    #[error("mirror {} has port {} as a source, which is a mirror destination", .mirror.0, .port.0)]
    SourceIsDestination {
        /// The mirror.
        mirror: MirrorId,
        /// Its source that is a destination.
        port: PortId,
    },
    /// A sensor is to be in the wire of a port, or at one, that does not exist.
    #[error("a sensor is to be at port {}, which does not exist", .0.0)]
    UnknownInlinePort(PortId),
    /// A port that has to do with two sensors, or twice with one.
    #[error("port {} has to do with two sensors", .0.0)]
    DuplicateInlinePort(PortId),
    /// A sensor is to be in the wire of a mirror destination, or at one.
    #[error("a sensor is to be at port {}, which is a mirror destination", .0.0)]
    InlineDestination(PortId),
}

/// The snapshot; see the module.
#[derive(Clone, Debug)]
pub struct Tables {
    ports: Box<[Option<Port>]>,
    mirrors: Vec<MirrorSpec>,
    /// True if any port is watched by a mirror whose destination is up.
    mirrors_in_force: bool,
    /// VLANs whose frames some active mirror selects by VLAN, and all RSPAN VLANs; `None` if there are none.
    mirror_vlans: Option<Box<VlanSet>>,
    /// The RSPAN VLANs.
    rspan: Box<VlanSet>,
    /// Per VLAN id, index into `floods`.
    flood_of: Box<[u16; 4096]>,
    floods: Vec<Box<[Member]>>,
    /// `None`: multicast frames are flooded in every VLAN.
    snooping: Option<Snooped>,
}

/// The VLANs with multicast snooping, and the state of snooping.
#[derive(Clone, Debug)]
struct Snooped {
    vlans: Box<VlanSet>,
    table: Arc<Snooping>,
}

/// A port as forwarding sees it.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub rules: PortRules,
    /// [`PortRules::is_plain`].
    pub is_plain: bool,
    /// It is plain, and no mirror selects by the VLAN of untagged frames.
    pub is_usual: bool,
    /// Frames that it receives are decided about: it is up, no mirror destination, and no sensor is in its wire. So are
    /// frames that go to it alone.
    pub is_open: bool,
    /// Sends only copies and takes nothing in.
    pub mirror_destination: bool,
    /// The part that it takes for a sensor.
    pub part: Option<Part>,
    /// Mirrors that watch received frames.
    pub rx_mirrors: PortMirrors,
    /// Mirrors that watch sent frames.
    pub tx_mirrors: PortMirrors,
    /// The injection of this mirror destination.
    pub inject: Option<Inject>,
}

/// The injection of a mirror destination.
#[derive(Clone, Debug)]
pub(crate) struct Inject {
    /// Which frames may enter.
    pub injection: Arc<Injection>,
    /// The ingress port of frames that enter by VLAN; otherwise the ingress is one of the switch's own ports.
    pub virtual_port: Option<Box<Port>>,
}

impl Port {
    /// True if the port exchanges no frames with other isolated ports.
    #[inline]
    pub(crate) fn is_isolated(&self) -> bool {
        self.rules.is_isolated()
    }
}

/// The mirrors that watch one direction of a port.
#[derive(Clone, Debug)]
pub(crate) struct PortMirrors {
    /// Ascending by mirror id.
    list: Box<[PortMirror]>,
    /// True if one of the mirrors is for frames of any VLAN.
    any_vlan: bool,
}

impl FromIterator<PortMirror> for PortMirrors {
    fn from_iter<T: IntoIterator<Item = PortMirror>>(list: T) -> PortMirrors {
        let list: Box<[PortMirror]> = list.into_iter().collect();
        let any_vlan = list.iter().any(|mirror| mirror.vlans.is_none());
        PortMirrors { list, any_vlan }
    }
}

impl PortMirrors {
    /// True if one of the mirrors may select a frame, if the frames `marked` are in VLANs by which some mirror selects.
    #[inline]
    pub(crate) fn may_select(&self, marked: u64) -> bool {
        self.any_vlan || (marked != 0 && !self.list.is_empty())
    }

    /// All of them, ascending by mirror id.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &PortMirror> {
        self.list.iter()
    }
}

/// A mirror at one of its source ports.
#[derive(Clone, Debug)]
pub(crate) struct PortMirror {
    pub id: MirrorId,
    /// The ports that get its copies; not empty.
    pub to: Arc<[PortId]>,
    /// How the copies are tagged; `None`: as the frames are.
    pub rspan: Option<Remote>,
    /// Its snap length, bytes; 0: whole frames.
    pub snap_bytes: u16,
    /// The filter over the frames of the mirror's VLANs; `None`: all frames.
    pub filter: Option<Arc<Filter>>,
    vlans: Option<Box<VlanSet>>,
}

/// How frames of a port are copied to an RSPAN VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The RSPAN VLAN.
    pub vid: Vid,
    /// True if the tags of the frames at this port are payload (a tunnel's): then the tag of the VLAN replaces none.
    pub behind: bool,
}

impl PortMirror {
    /// The VLANs it is for; `None`: frames of any VLAN and of none.
    #[inline]
    pub(crate) fn vlans(&self) -> Option<&VlanSet> {
        self.vlans.as_deref()
    }
}

/// A port as an egress of a VLAN that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub port: PortId,
    /// The port that its frames leave by: itself, or that of the sensor in its wire.
    pub by: PortId,
    /// How frames of this VLAN leave it.
    pub leaves: Leaves,
    /// True if the port takes no frames from isolated ports.
    pub isolated: bool,
    pub mtu_bytes: u32,
}

impl Member {
    #[inline]
    pub(crate) fn is_tunnel(&self) -> bool {
        self.leaves == Leaves::Tunnel
    }
}

impl Tables {
    /// No ports, no mirrors.
    pub fn empty() -> Tables {
        build::tables(Vec::new(), Vec::new(), &[])
    }

    /// Checks and builds the snapshot.
    ///
    /// # Errors
    /// Indexes out of range or taken twice, mirrors that name absent ports or mirror destinations as sources.
    pub fn build(ports: Vec<(PortId, PortRules)>, mirrors: Vec<MirrorSpec>) -> Result<Tables, TablesError> {
        Tables::build_with(ports, mirrors, &[])
    }

    /// Like [`Tables::build`], with sensors in the wires of ports.
    ///
    /// # Errors
    /// Those of [`Tables::build`], and sensors at ports that are absent, taken or mirror destinations.
    pub fn build_with(
        ports: Vec<(PortId, PortRules)>,
        mirrors: Vec<MirrorSpec>,
        inlines: &[InlineSpec],
    ) -> Result<Tables, TablesError> {
        build::check(&ports, &mirrors, inlines)?;
        Ok(build::tables(ports, mirrors, inlines))
    }

    /// These tables with multicast snooping in `vlans`.
    #[must_use]
    pub fn with_snooping(self, vlans: VlanSet, table: Arc<Snooping>) -> Tables {
        Tables { snooping: Some(Snooped { vlans: Box::new(vlans), table }), ..self }
    }

    /// The state of multicast snooping, if it is on in `vid`.
    #[inline]
    pub(crate) fn snooping(&self, vid: Vid) -> Option<&Snooping> {
        self.snooping.as_ref().filter(|snooped| snooped.vlans.contains(vid)).map(|snooped| &*snooped.table)
    }

    /// The rules of a port; `None` if there is no such port.
    pub fn rules(&self, port: PortId) -> Option<&PortRules> {
        self.port(port).map(|port| &port.rules)
    }

    /// The ports there are, ascending.
    pub fn ports(&self) -> impl Iterator<Item = PortId> + '_ {
        (0u16..).zip(&self.ports).filter(|(_, port)| port.is_some()).map(|(index, _)| PortId(index))
    }

    /// The mirrors there are, waiting ones too, ascending by id.
    pub fn mirrors(&self) -> &[MirrorSpec] {
        &self.mirrors
    }

    /// True if any frame could be copied at all.
    #[inline]
    pub fn has_mirrors_in_force(&self) -> bool {
        self.mirrors_in_force
    }

    /// VLANs whose frames some active mirror selects by VLAN, and all RSPAN VLANs; `None` if there are none.
    #[inline]
    pub(crate) fn mirror_vlans(&self) -> Option<&VlanSet> {
        self.mirror_vlans.as_deref()
    }

    /// True if copies of some mirror go to this VLAN.
    pub fn is_rspan(&self, vid: Vid) -> bool {
        self.rspan.contains(vid)
    }

    /// The ingress port whose rules apply to frames from `port`: another one if it is a mirror destination that injects
    /// so.
    #[inline]
    pub(crate) fn ingress_as(&self, port: PortId) -> PortId {
        match self.injection(port).map(|injection| injection.spec().ingress) {
            Some(IngressAs::Port(other)) => other,
            _ => port,
        }
    }

    /// The gate for frames from a mirror destination, if it may inject.
    #[inline]
    pub fn injection(&self, port: PortId) -> Option<&Arc<Injection>> {
        self.port(port)?.inject.as_ref().map(|inject| &inject.injection)
    }

    /// True if the port sends only mirror copies.
    #[inline]
    pub fn is_mirror_destination(&self, port: PortId) -> bool {
        self.port(port).is_some_and(|port| port.mirror_destination)
    }

    #[inline]
    pub(crate) fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port.index())?.as_ref()
    }

    /// The rules of the port `to`, if a frame may go to it alone, and leaves there.
    #[inline(always)]
    pub(crate) fn egress_rules(&self, to: PortId) -> Option<&PortRules> {
        self.port(to).filter(|port| port.is_open).map(|port| &port.rules)
    }

    /// True if a tunnel port takes frames with this tag of its customer.
    #[inline]
    pub(crate) fn takes_customer(&self, port: PortId, tag: Option<Tag>) -> bool {
        let tunnel = self.port(port).and_then(|port| port.rules.vlan.tunnel());
        tunnel.is_some_and(|tunnel| tunnel.admit(tag).is_ok())
    }

    /// The ports that flooded frames of `vid` go to, ascending.
    #[inline]
    pub(crate) fn flood(&self, vid: Vid) -> &[Member] {
        let index = self.flood_of.get(vid.index()).copied().unwrap_or(0);
        self.floods.get(usize::from(index)).map_or(&[], |members| members)
    }
}

#[cfg(test)]
mod tests;
