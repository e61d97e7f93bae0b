//! The destination of a mirror's copies: `to` a port, `to_vlan` at every trunk that names this VLAN (RSPAN), or
//! `to_remote`, another machine.

use labsw_switch::Vid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mistake::AtKey;
use super::names;
use super::remote::Remote;
use super::vlan::VlanId;

/// The keys for the destination of a mirror's copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Destination {
    /// The port that copies are sent to; it takes no other traffic.
    #[serde(with = "names::Port")]
    pub to: Option<String>,
    /// The VLAN that copies are sent in, by every port that names it in its trunks (RSPAN).
    pub to_vlan: Option<VlanId>,
    /// The other machine that copies are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_remote: Option<Remote>,
    /// Take the VLAN even if it is the VLAN of untagged frames at a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

impl Destination {
    /// The destination that the keys describe.
    ///
    /// # Errors
    /// None of the keys, or two that contradict each other.
    pub fn checked(self) -> Result<MirrorTo, AtKey<&'static str>> {
        match (self.to, self.to_vlan, self.to_remote) {
            (_, None, _) if self.force.is_some() => {
                Err(AtKey::value("force", "is for `to_vlan` only; a port as the destination is never forced"))
            }
            (Some(port), None, None) => Ok(MirrorTo::Port(port)),
            (None, Some(VlanId(vid)), None) => Ok(MirrorTo::Vlan { vid, force: self.force.unwrap_or(false) }),
            (None, None, Some(remote)) => remote.check().map(|()| MirrorTo::Remote(Box::new(remote))),
            (Some(_), Some(_), None) => {
                Err(AtKey::value("to_vlan", "can't stand beside `to`; copies go to a port or to a VLAN, not both"))
            }
            (_, _, Some(_)) => {
                let wrong = "can't stand beside `to` or `to_vlan`; it has a `port` of its own that copies leave by";
                Err(AtKey::value("to_remote", wrong))
            }
            (None, None, None) => {
                Err(AtKey::table("neither `to` nor `to_vlan` is there; one of them says where the copies go"))
            }
        }
    }
}

impl From<&MirrorTo> for Destination {
    fn from(to: &MirrorTo) -> Destination {
        Destination {
            to: to.port().filter(|_| to.remote().is_none()).map(str::to_owned),
            to_vlan: to.vlan().map(VlanId),
            to_remote: to.remote().cloned(),
            force: to.is_forced().then_some(true),
        }
    }
}

/// The destination of a mirror's copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorTo {
    /// To the port of this name, which takes no other traffic.
    Port(String),
    /// To every port that names this VLAN in its trunks, tagged with it.
    Vlan {
        /// The VLAN.
        vid: Vid,
        /// Take the VLAN even if it is the VLAN of untagged frames at a port.
        force: bool,
    },
    /// To another machine, by a port that takes no other traffic.
    Remote(Box<Remote>),
}

impl Default for MirrorTo {
    /// No port: a placeholder while a mirror is read.
    fn default() -> MirrorTo {
        MirrorTo::Port(String::new())
    }
}

impl MirrorTo {
    /// The port that all copies leave by, if there is one.
    pub fn port(&self) -> Option<&str> {
        match self {
            MirrorTo::Port(port) => Some(port),
            MirrorTo::Vlan { .. } => None,
            MirrorTo::Remote(remote) => Some(&remote.port),
        }
    }

    /// The other machine, if the destination is one.
    pub fn remote(&self) -> Option<&Remote> {
        match self {
            MirrorTo::Remote(remote) => Some(remote),
            MirrorTo::Port(_) | MirrorTo::Vlan { .. } => None,
        }
    }

    /// The key that names the destination.
    pub fn key(&self) -> &'static str {
        match self {
            MirrorTo::Port(_) => "to",
            MirrorTo::Vlan { .. } => "to_vlan",
            MirrorTo::Remote(_) => "to_remote",
        }
    }

    /// The VLAN, if the destination is one.
    pub fn vlan(&self) -> Option<Vid> {
        match self {
            MirrorTo::Port(_) | MirrorTo::Remote(_) => None,
            MirrorTo::Vlan { vid, .. } => Some(*vid),
        }
    }

    /// True if the VLAN is taken even from the untagged frames of a port.
    pub fn is_forced(&self) -> bool {
        matches!(self, MirrorTo::Vlan { force: true, .. })
    }
}

impl std::fmt::Display for MirrorTo {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MirrorTo::Port(port) => out.write_str(port),
            MirrorTo::Vlan { vid, .. } => write!(out, "VLAN {vid}"),
            MirrorTo::Remote(remote) => write!(out, "{remote}"),
        }
    }
}
