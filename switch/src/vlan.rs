//! VLAN membership of a port: which VLAN a received frame is in, and how a frame of a VLAN leaves.
//!
//! The modes and their meaning are those of OVS (`vswitch.xml`, column `vlan_mode`); tags are 802.1Q
//! clause 9.
//!
//! | mode | untagged or VID 0 in | VID ≠ 0 in | native frames out | other members out |
//! |---|---|---|---|---|
//! | `access` | VLAN `tag` | dropped | untagged | (none) |
//! | `trunk` | dropped | if listed | (none) | tagged |
//! | `native-tagged` | VLAN `tag` | `tag`, or listed | tagged | tagged |
//! | `native-untagged` | VLAN `tag` | `tag`, or listed | untagged | tagged |
//! | `dot1q-tunnel` | VLAN `tag` | VLAN `tag`, if the VID is allowed | as the customer sent them | (none) |
//!
//! A frame that stays tagged keeps TPID, priority and DEI; an inserted tag is 0x8100 with priority 0. A
//! priority tag (VID 0) is rewritten where the frame leaves tagged and removed where it leaves untagged.
//!
//! **Whose tag it is.** A tunnel port takes each received tag for the customer's, and checks it only against `cvlans`
//! ([`Tunnel`]); the tag of the VLAN is put in front of it where the frame leaves tagged. [`Tags`] says of a received
//! frame which tag is that of its VLAN and which one stands behind it. Only a tunnel port removes a tag from in front
//! of another one, or sends a frame of its VLAN with one that is not the VLAN's: everywhere else the inner tag would be
//! taken for that of a VLAN.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::DropReason;
use crate::header::{Header, Tag};
use crate::tag_edit::TagEdit;
use crate::wire::{TCI_VID_MASK, TPID_C_TAG};

mod set;
mod tunnel;

pub use set::VlanSet;
pub use tunnel::{CustomerVlans, Tunnel};

/// A VLAN id a frame can be in: 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vid(NonZeroU16);

impl Vid {
    /// VLAN 1, the one of a port about which nothing is said.
    pub const DEFAULT: Vid = Vid(NonZeroU16::MIN);
    /// The highest VLAN id.
    pub const MAX: u16 = 4094;

    /// The id as a number, 1 to 4094.
    #[inline]
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// The index into arrays of 4096.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.get())
    }

    /// The VLAN id in a tag: `None` for 0 (priority tag) and 4095 (reserved).
    #[inline]
    pub fn from_tag(tag: Tag) -> Option<Vid> {
        Vid::try_from(tag.vid()).ok()
    }
}

impl TryFrom<u16> for Vid {
    type Error = VlanError;

    #[inline]
    fn try_from(vid: u16) -> Result<Vid, VlanError> {
        match NonZeroU16::new(vid) {
            Some(nonzero) if vid <= Vid::MAX => Ok(Vid(nonzero)),
            _ => Err(VlanError::VidOutOfRange(vid)),
        }
    }
}

impl From<Vid> for u16 {
    fn from(vid: Vid) -> u16 {
        vid.get()
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for Vid {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<Vid, VlanError> {
        match text.parse::<u16>() {
            Ok(vid) => Vid::try_from(vid),
            Err(_) => Err(VlanError::NotAVid),
        }
    }
}

/// Why VLAN settings are not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VlanError {
    /// A VLAN id outside 1..=4094.
    #[error("VLAN {0} is out of range; VLAN ids are 1 to 4094")]
    VidOutOfRange(u16),
    /// Text that is no VLAN id.
    #[error("not a VLAN id; a number from 1 to 4094 is right")]
    NotAVid,
    /// A range whose end comes before its start.
    #[error("VLAN range {start}-{end} is empty; write {end}-{start}")]
    EmptyRange {
        /// First VLAN id as written.
        start: u16,
        /// Last VLAN id as written.
        end: u16,
    },
    /// Text that is no VLAN mode.
    #[error("not a VLAN mode; access, trunk, native-tagged, native-untagged and dot1q-tunnel are right")]
    UnknownMode,
    /// The mode needs a tag.
    #[error("VLAN mode {0} needs a tag (the VLAN of untagged frames)")]
    TagMissing(VlanMode),
    /// Trunk mode has no native VLAN.
    #[error("VLAN mode trunk takes no tag; native-tagged and native-untagged do")]
    TagNotAllowed,
    /// Access and tunnel mode have one VLAN.
    #[error("VLAN mode {0} takes no trunks; trunk, native-tagged and native-untagged do")]
    TrunksNotAllowed(VlanMode),
}

/// How a port takes part in VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum VlanMode {
    /// One VLAN, frames untagged.
    Access,
    /// Tagged frames of the listed VLANs only.
    Trunk,
    /// A trunk with a native VLAN, whose frames leave tagged.
    NativeTagged,
    /// A trunk with a native VLAN, whose frames leave untagged.
    NativeUntagged,
    /// One VLAN; every received frame, tagged or not, is carried in it unchanged.
    Dot1qTunnel,
}

impl VlanMode {
    /// Every mode.
    pub const ALL: [VlanMode; 5] =
        [VlanMode::Access, VlanMode::Trunk, VlanMode::NativeTagged, VlanMode::NativeUntagged, VlanMode::Dot1qTunnel];

    /// The name in configuration and JSON.
    pub fn name(self) -> &'static str {
        match self {
            VlanMode::Access => "access",
            VlanMode::Trunk => "trunk",
            VlanMode::NativeTagged => "native-tagged",
            VlanMode::NativeUntagged => "native-untagged",
            VlanMode::Dot1qTunnel => "dot1q-tunnel",
        }
    }

    /// True if a port of this mode is in VLAN `tag` and no other.
    pub fn has_one_vlan(self) -> bool {
        matches!(self, VlanMode::Access | VlanMode::Dot1qTunnel)
    }
}

impl fmt::Display for VlanMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for VlanMode {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<VlanMode, VlanError> {
        VlanMode::ALL.into_iter().find(|mode| mode.name() == text).ok_or(VlanError::UnknownMode)
    }
}

/// The VLAN membership of one port. Always valid: the tag is there exactly in the modes that have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVlan {
    mode: VlanMode,
    tag: Option<Vid>,
    /// The VLAN whose frames leave without a tag; worked out from mode and tag.
    untagged: Option<Vid>,
    trunks: VlanSet,
    /// There exactly in tunnel mode.
    tunnel: Option<Box<Tunnel>>,
}

/// The tags of a received frame, as its ingress port sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// The tag of its VLAN, or a priority tag.
    pub outer: Option<Tag>,
    /// The tag behind that, or the customer's in front of everything else.
    pub inner: Option<Tag>,
    /// The TPID of a tag that is put in front of it.
    pub tpid: u16,
    /// The customer's tags that are payload to the VLAN, bytes.
    pub customer_bytes: u8,
}

impl Tags {
    /// The frame has none.
    pub const NONE: Tags = Tags { outer: None, inner: None, tpid: TPID_C_TAG, customer_bytes: 0 };
}

/// How the frames of a VLAN leave a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Without a tag.
    Untagged,
    /// With the tag of the VLAN.
    Tagged,
    /// Without the tag of the VLAN, with that of the customer if there is one.
    Tunnel,
}

impl Default for PortVlan {
    /// `native-untagged`, tag 1, all VLANs as trunks.
    fn default() -> PortVlan {
        let (tag, trunks) = (Some(Vid::DEFAULT), VlanSet::ALL);
        PortVlan { mode: VlanMode::NativeUntagged, tag, untagged: tag, trunks, tunnel: None }
    }
}

impl PortVlan {
    /// Checks and builds the membership of a port. `trunks` are ranges of VLAN ids; none in a trunk mode
    /// means all VLANs.
    ///
    /// # Errors
    /// A VLAN id outside 1..=4094, an empty range, a tag or trunks missing or given where the mode has none.
    pub fn new(mode: VlanMode, tag: Option<u16>, trunks: &[RangeInclusive<u16>]) -> Result<PortVlan, VlanError> {
        let tag = tag.map(Vid::try_from).transpose()?;
        let listed = VlanSet::from_ranges(trunks)?;
        match (mode, tag) {
            (VlanMode::Trunk, Some(_)) => return Err(VlanError::TagNotAllowed),
            (VlanMode::Trunk, None) => {}
            (_, None) => return Err(VlanError::TagMissing(mode)),
            (_, Some(_)) if mode.has_one_vlan() && !trunks.is_empty() => {
                return Err(VlanError::TrunksNotAllowed(mode));
            }
            _ => {}
        }
        let trunks = if !mode.has_one_vlan() && listed.is_empty() { VlanSet::ALL } else { listed };
        let tunnel = (mode == VlanMode::Dot1qTunnel).then(Box::default);
        let untagged = tag.filter(|_| matches!(mode, VlanMode::Access | VlanMode::NativeUntagged));
        Ok(PortVlan { mode, tag, untagged, trunks, tunnel })
    }

    /// A tunnel port in VLAN `vid`.
    pub fn tunnel_in(vid: Vid, tunnel: Tunnel) -> PortVlan {
        let tunnel = Some(Box::new(tunnel));
        PortVlan { mode: VlanMode::Dot1qTunnel, tag: Some(vid), untagged: None, trunks: VlanSet::EMPTY, tunnel }
    }

    /// An access port in VLAN `vid`.
    pub fn access(vid: Vid) -> PortVlan {
        let tag = Some(vid);
        PortVlan { mode: VlanMode::Access, tag, untagged: tag, trunks: VlanSet::EMPTY, tunnel: None }
    }

    /// The mode.
    pub fn mode(&self) -> VlanMode {
        self.mode
    }

    /// The VLAN of untagged frames; `None` in trunk mode.
    pub fn tag(&self) -> Option<Vid> {
        self.tag
    }

    /// The listed VLANs (all if none were listed); empty in access and tunnel mode.
    pub fn trunks(&self) -> &VlanSet {
        &self.trunks
    }

    /// A tunnel port's treatment of its customer's tags; `None` in the other modes.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_deref()
    }

    /// True if the port is in VLAN `vid`.
    #[inline]
    pub fn is_member(&self, vid: Vid) -> bool {
        self.tag == Some(vid) || self.trunks.contains(vid)
    }

    /// True if `trunks` lists `vid`: it is not the native VLAN, and `trunks` is not all VLANs.
    pub fn lists_explicitly(&self, vid: Vid) -> bool {
        self.tag != Some(vid) && self.trunks.contains(vid) && self.trunks != VlanSet::ALL
    }

    /// How frames of VLAN `vid` leave the port.
    #[inline(always)]
    pub fn leaves(&self, vid: Vid) -> Leaves {
        match &self.tunnel {
            None if self.untagged == Some(vid) => Leaves::Untagged,
            None => Leaves::Tagged,
            Some(_) => Leaves::Tunnel,
        }
    }

    /// The VLAN of a frame received with the outer tag `outer`.
    ///
    /// # Errors
    /// Why it is in none: [`DropReason::UntaggedNotAllowed`], [`DropReason::TaggedNotAllowed`],
    /// [`DropReason::VlanNotMember`] or [`DropReason::VidReserved`].
    #[inline]
    pub fn classify(&self, outer: Option<Tag>) -> Result<Vid, DropReason> {
        if let Some(tunnel) = &self.tunnel {
            return tunnel.admit(outer).and_then(|()| self.tag.ok_or(DropReason::UntaggedNotAllowed));
        }
        let tag = match outer {
            Some(tag) if tag.vid() != 0 => tag,
            _ => return self.tag.ok_or(DropReason::UntaggedNotAllowed),
        };
        let vid = Vid::from_tag(tag).ok_or(DropReason::VidReserved)?;
        if self.mode == VlanMode::Access {
            Err(DropReason::TaggedNotAllowed)
        } else if self.is_member(vid) {
            Ok(vid)
        } else {
            Err(DropReason::VlanNotMember)
        }
    }

    /// The tags of a frame received with this header.
    #[inline]
    pub fn tags(&self, header: &Header) -> Tags {
        match &self.tunnel {
            None => Tags { outer: header.outer, inner: header.inner, tpid: TPID_C_TAG, customer_bytes: 0 },
            Some(tunnel) => {
                let customer_bytes = header.l3_offset.saturating_sub(Header::UNTAGGED_BYTES);
                Tags { outer: None, inner: header.outer, tpid: tunnel.tpid, customer_bytes }
            }
        }
    }

    /// How a frame of VLAN `vid`, received with `tags`, leaves the port if [`edit`] agrees.
    ///
    /// # Errors
    /// [`DropReason::VlanNotMember`]; at a tunnel port what [`Tunnel::admit`] says of the customer's tag.
    #[inline(always)]
    pub(crate) fn admit(&self, vid: Vid, tags: Tags) -> Result<Leaves, DropReason> {
        if !self.is_member(vid) {
            return Err(DropReason::VlanNotMember);
        }
        if let Some(tunnel) = &self.tunnel {
            tunnel.admit(tags.inner)?;
        }
        Ok(self.leaves(vid))
    }
}

/// The change of the tags of a frame of VLAN `vid` that leaves in this way.
///
/// # Errors
/// [`DropReason::DoubleTag`] if popping the VLAN tag would expose an inner tag.
#[inline]
pub fn edit(leaves: Leaves, vid: Vid, Tags { outer, inner, tpid, .. }: Tags) -> Result<TagEdit, DropReason> {
    match (leaves, outer) {
        (Leaves::Tagged, None) => Ok(TagEdit { strip_bytes: 0, insert: Some(tag_bytes(tpid, vid.get())) }),
        (Leaves::Tagged, Some(tag)) if tag.vid() == vid.get() => Ok(TagEdit::KEEP),
        (Leaves::Tagged, Some(tag)) => {
            let tci = tag.tci & !TCI_VID_MASK | vid.get();
            Ok(TagEdit { strip_bytes: 4, insert: Some(tag_bytes(tag.tpid, tci)) })
        }
        (Leaves::Untagged, _) if inner.is_some() => Err(DropReason::DoubleTag),
        (_, None) => Ok(TagEdit::KEEP),
        (_, Some(_)) => Ok(TagEdit { strip_bytes: 4, insert: None }),
    }
}

/// A tag in transmission order.
#[inline]
pub(crate) fn tag_bytes(tpid: u16, tci: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests;
