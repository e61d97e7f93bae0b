//! QinQ: a port whose frames are carried in one VLAN with the tags their customer gave them (802.1ad; `dot1q-tunnel` of
//! OVS).
//!
//! **Invariants.** The customer's tag is never changed. A frame is allowed out where it would be allowed in. Untagged
//! and priority-tagged frames count as customer VLAN 0, as in OVS.
//!
//! Reference: `vswitch.xml` of Open vSwitch, columns `vlan_mode`, `cvlans` and `other_config:qinq-ethtype`.

use super::{Vid, VlanSet};
use crate::DropReason;
use crate::header::Tag;
use crate::wire::TPID_S_TAG;

/// A tunnel port's treatment of its customer's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Which may pass; `None`: all.
    pub cvlans: Option<CustomerVlans>,
    /// TPID of the tag that is put in front: 0x88a8 or 0x8100.
    pub tpid: u16,
}

/// The frames of a customer that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerVlans {
    /// Those without a tag or with a priority tag, listed as VLAN 0.
    pub untagged: bool,
    /// Those with a tag of these VLANs.
    pub tagged: VlanSet,
}

impl Default for Tunnel {
    /// All customer VLANs, 0x88a8 in front.
    fn default() -> Tunnel {
        Tunnel { cvlans: None, tpid: TPID_S_TAG }
    }
}

impl Tunnel {
    /// Checks that a frame with the customer's tag `tag` passes.
    ///
    /// # Errors
    /// [`DropReason::UntaggedNotAllowed`], [`DropReason::VlanNotMember`], [`DropReason::VidReserved`].
    #[cold]
    #[inline(never)]
    pub fn admit(&self, tag: Option<Tag>) -> Result<(), DropReason> {
        let vid = tag.map_or(0, Tag::vid);
        match &self.cvlans {
            None => Ok(()),
            Some(allowed) if vid == 0 && allowed.untagged => Ok(()),
            Some(_) if vid == 0 => Err(DropReason::UntaggedNotAllowed),
            Some(allowed) => match Vid::try_from(vid) {
                Ok(vid) if allowed.tagged.contains(vid) => Ok(()),
                Ok(_) => Err(DropReason::VlanNotMember),
                Err(_) => Err(DropReason::VidReserved),
            },
        }
    }
}
