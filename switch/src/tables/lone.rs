//! The VLANs in which nothing but the forwarding database decides about known unicast of a port: there somebody else
//! may pass it, who looks addresses up in the same database ([`crate::fdb::Layout`]).

use super::Tables;
use crate::vlan::{Leaves, VlanSet};
use crate::{PortId, Vid};

/// The VLANs of a port in which known unicast is delivered by the forwarding database alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoneVlans {
    /// The VLAN of untagged frames from the port.
    pub native: Option<Vid>,
    /// Frames of `native` leave the port tagged.
    pub native_leaves_tagged: bool,
    /// The VLANs whose frames may come with their tag. Those of every one but `native` leave tagged.
    pub tagged: VlanSet,
}

impl Tables {
    /// The VLANs in which known unicast of `port` goes to the port of its destination, if nothing else decides about
    /// it: no rule of the port but its VLANs and its MTU, and no mirror.
    ///
    /// # Errors
    /// Why something else does, in one clause.
    pub fn lone_vlans(&self, port: PortId) -> Result<LoneVlans, &'static str> {
        let port = self.port(port).ok_or("the port takes no frames")?;
        if port.part.is_some() {
            return Err("a sensor is in the port's wire, or at the port");
        }
        let port = Some(port).filter(|port| port.is_open).ok_or("the port takes no frames")?;
        let mirrors = [&port.rx_mirrors, &port.tx_mirrors];
        match port {
            _ if port.rules.guards.is_some() => return Err("the port has guards"),
            _ if !port.is_plain => return Err("the port is a tunnel, or learns nothing"),
            _ if mirrors.iter().any(|mirrors| mirrors.iter().next().is_some()) => {
                return Err("a mirror watches the port");
            }
            _ => {}
        }
        let vlan = &port.rules.vlan;
        let is_watched = |vid: &Vid| self.mirror_vlans().is_some_and(|vlans| vlans.contains(*vid));
        let native = vlan.tag().filter(|vid| !is_watched(vid));
        let native_leaves_tagged = native.is_some_and(|vid| vlan.leaves(vid) == Leaves::Tagged);
        let mut tagged = vlan.trunks().clone();
        if !vlan.mode().has_one_vlan() {
            native.into_iter().for_each(|vid| tagged.insert(vid));
        }
        if self.mirror_vlans().is_some() {
            tagged = tagged.iter().filter(|vid| !is_watched(vid)).collect();
        }
        match native.is_none() && tagged.is_empty() {
            true => Err("a mirror watches the VLAN"),
            false => Ok(LoneVlans { native, native_leaves_tagged, tagged }),
        }
    }
}
