//! Where the copies of a mirror go: `to` a port, or `to_vlan` of every trunk that names this VLAN (RSPAN).

use labsw_switch::Vid;

use super::error::ConfigError;
use super::names;
use super::section::Section;
use super::vlan;

/// Where the copies of a mirror go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorTo {
    /// To the port of this name, which takes no other traffic.
    Port(String),
    /// To every port that names this VLAN in its trunks, tagged with it.
    Vlan {
        /// The VLAN.
        vid: Vid,
        /// Even if it is the VLAN of untagged frames of some port.
        force: bool,
    },
}

impl MirrorTo {
    /// The port, if it is one.
    pub fn port(&self) -> Option<&str> {
        match self {
            MirrorTo::Port(port) => Some(port),
            MirrorTo::Vlan { .. } => None,
        }
    }

    /// The VLAN, if it is one.
    pub fn vlan(&self) -> Option<Vid> {
        match self {
            MirrorTo::Port(_) => None,
            MirrorTo::Vlan { vid, .. } => Some(*vid),
        }
    }

    /// Whether a VLAN is taken that some port uses.
    pub fn is_forced(&self) -> bool {
        matches!(self, MirrorTo::Vlan { force: true, .. })
    }

    pub(super) fn read(section: &Section<'_>) -> Result<MirrorTo, ConfigError> {
        let force = section.get("force").map(|field| field.boolean()).transpose()?;
        match (section.get("to"), section.get("to_vlan")) {
            (Some(_), None) if force.is_some() => {
                Err(section.error_at("force", "is for `to_vlan` only; a port as the destination is never forced"))
            }
            (Some(field), None) => Ok(MirrorTo::Port(field.checked("a port name", names::port)?)),
            (None, Some(field)) => {
                let id = vlan::vlan_id(&field)?;
                let vid = Vid::try_from(id).map_err(|error| field.error(error))?;
                Ok(MirrorTo::Vlan { vid, force: force.unwrap_or(false) })
            }
            (Some(_), Some(field)) => {
                Err(field.error("can't stand beside `to`; copies go to a port or to a VLAN, not both"))
            }
            (None, None) => {
                Err(section.error("neither `to` nor `to_vlan` is there; one of them says where the copies go"))
            }
        }
    }

    pub(super) fn write(&self, table: &mut toml::Table) {
        match self {
            MirrorTo::Port(port) => drop(table.insert("to".into(), port.as_str().into())),
            MirrorTo::Vlan { vid, force } => {
                table.insert("to_vlan".into(), i64::from(vid.get()).into());
                if *force {
                    table.insert("force".into(), true.into());
                }
            }
        }
    }
}

impl std::fmt::Display for MirrorTo {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MirrorTo::Port(port) => out.write_str(port),
            MirrorTo::Vlan { vid, .. } => write!(out, "VLAN {vid}"),
        }
    }
}
