//! Mirror sessions, as requests set them and replies show them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Source;
use super::parameters::{name, optional_vlan, sources, vlans};

use crate::model::{Inject, Remote};

/// The settings of a mirror that a request changes: keys of the mirror's table, and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorSettings {
    /// Name of the mirror.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The sources of mirrored frames; not empty.
    #[serde(default, deserialize_with = "sources", skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Source>>,
    /// Only these VLANs; empty: all.
    #[serde(default, deserialize_with = "vlans", skip_serializing_if = "Option::is_none")]
    pub vlans: Option<Vec<u16>>,
    /// Only frames that match this filter expression, which is never empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes copied of each frame; 0: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Name of the destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The VLAN that copies go to; this or `to`.
    #[serde(default, deserialize_with = "optional_vlan", skip_serializing_if = "Option::is_none")]
    pub to_vlan: Option<u16>,
    /// The other machine that copies go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_remote: Option<Box<Remote>>,
    /// Take the VLAN even if it is the VLAN of untagged frames at a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// The frames that the destination port may inject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inject: Option<Inject>,
    /// Unset all settings that are not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

impl MirrorSettings {
    /// The given keys of the mirror's table; null unsets a key.
    pub fn to_keys(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut keys)) = serde_json::to_value(self) else { return Map::new() };
        keys.retain(|key, _| key != "name" && key != "replace");
        if let Some(vlans) = keys.get_mut("vlans").filter(|vlans| **vlans == json!([])) {
            *vlans = Value::Null;
        }
        // A mirror has one destination.
        let others: &[&str] = match (&self.to, self.to_vlan, &self.to_remote) {
            (Some(_), None, None) => &["to_vlan", "force", "to_remote"],
            (None, Some(_), None) => &["to", "inject", "to_remote"],
            (None, None, Some(_)) => &["to", "to_vlan", "force", "inject"],
            _ => &[],
        };
        for other in others {
            keys.entry(*other).or_insert(Value::Null);
        }
        keys
    }
}

/// The state of a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// Copies are sent.
    #[default]
    Up,
    /// The destination or a source is not there or not up; the reason says which.
    Waiting,
    /// Out of service until the cause is mended.
    Failed,
}

impl fmt::Display for MirrorState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            MirrorState::Up => "up",
            MirrorState::Waiting => "waiting",
            MirrorState::Failed => "failed",
        })
    }
}

/// A mirror session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Name.
    pub name: String,
    /// The state of the mirror.
    pub state: MirrorState,
    /// Why the mirror is not up, in one clause.
    pub reason: Option<String>,
    /// Why some copies are dropped, in one clause: they may be too long for the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Name of the port that all copies leave by; `None` if copies go to a VLAN.
    pub to: Option<String>,
    /// The VLAN that copies go to.
    pub to_vlan: Option<u16>,
    /// The other machine that copies go to, by `to`; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_remote: Option<Box<Remote>>,
    /// The VLAN is taken even if it is the VLAN of untagged frames at a port.
    pub force: bool,
    /// The sources of mirrored frames.
    pub sources: Vec<Source>,
    /// Only frames of these VLANs; empty: all.
    pub vlans: Vec<u16>,
    /// Only frames that match this filter expression; `None`: all.
    pub filter: Option<String>,
    /// Bytes copied of each frame; 0: all.
    pub snaplen: u32,
    /// The `inject` settings of this mirror: the frames that the destination may inject.
    pub inject: Option<Inject>,
    /// Frames selected.
    pub matched: u64,
    /// Copies that the destination took.
    pub sent: u64,
    /// Copies that the destination did not take.
    pub dropped: u64,
    /// Copies cut to `snaplen`.
    pub truncated: u64,
}

impl Mirror {
    /// The destination in words: a port, `VLAN 900`, or `VXLAN 77 to 198.51.100.7 by span`.
    pub fn destination(&self) -> String {
        match (&self.to_remote, &self.to, self.to_vlan) {
            (Some(remote), ..) => remote.to_string(),
            (None, Some(port), _) => port.clone(),
            (None, None, Some(vlan)) => format!("VLAN {vlan}"),
            (None, None, None) => "-".to_owned(),
        }
    }
}
