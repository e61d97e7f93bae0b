//! The guards of a port, as replies show them.

use labsw_switch::guard::{FrameRate, GuardSpec, LimitAction, OverLimitSeen};
use serde::{Deserialize, Serialize};

/// Storm control, in frames per second; null: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// Frames to the broadcast address.
    pub broadcast: Option<u32>,
    /// Frames to other group addresses.
    pub multicast: Option<u32>,
    /// Frames to unknown unicast addresses.
    pub unknown_unicast: Option<u32>,
}

/// The guards of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guards {
    /// Storm control.
    pub storm: Storm,
    /// The most addresses that are learned; null: no limit of the port's own.
    pub mac_limit: Option<u32>,
    /// How frames from further addresses are handled: `drop` or `alert`.
    pub mac_limit_action: Option<String>,
    /// Frames from further addresses that were forwarded (`alert`), since the port was added.
    pub mac_limit_frames: u64,
    /// The last such source address; null: none.
    pub mac_limit_last: Option<String>,
    /// True if learned addresses stay at the port.
    pub sticky: bool,
    /// The only source addresses that may send; empty: any.
    pub macs: Vec<String>,
    /// True if the port talks only to ports that are not isolated.
    pub isolated: bool,
    /// True if frames of DHCP servers are dropped.
    pub dhcp_guard: bool,
    /// True if IPv6 router advertisements and redirects are dropped.
    pub ra_guard: bool,
}

impl Guards {
    /// The guards and what they counted; `None` if the port has no guard.
    pub fn of(spec: &GuardSpec, over_limit: OverLimitSeen) -> Option<Guards> {
        let action = |action| match action {
            LimitAction::Drop => "drop",
            LimitAction::Alert => "alert",
        };
        spec.is_any().then(|| Guards {
            storm: Storm {
                broadcast: spec.storm.broadcast.map(FrameRate::get),
                multicast: spec.storm.multicast.map(FrameRate::get),
                unknown_unicast: spec.storm.unknown_unicast.map(FrameRate::get),
            },
            mac_limit: spec.mac_limit.map(|limit| limit.addresses),
            mac_limit_action: spec.mac_limit.map(|limit| action(limit.action).to_owned()),
            mac_limit_frames: over_limit.frames,
            mac_limit_last: (over_limit.frames > 0).then(|| over_limit.last.to_string()),
            sticky: spec.sticky,
            macs: spec.macs.iter().map(ToString::to_string).collect(),
            isolated: spec.isolated,
            dhcp_guard: spec.dhcp,
            ra_guard: spec.ra,
        })
    }

    /// The guards in words, on one line.
    pub fn summary(&self) -> String {
        let rate = |name, rate: Option<u32>| rate.map(|rate| format!("{name} {rate}/s"));
        let Storm { broadcast, multicast, unknown_unicast } = &self.storm;
        let storm =
            [rate("broadcast", *broadcast), rate("multicast", *multicast), rate("unknown unicast", *unknown_unicast)];
        let storm: Vec<String> = storm.into_iter().flatten().collect();
        let limit = self.mac_limit.map(|limit| {
            let action = self.mac_limit_action.as_deref().unwrap_or_default();
            let seen = match self.mac_limit_frames {
                0 => String::new(),
                frames => format!(", {frames} frames from others"),
            };
            format!("mac limit {limit} ({action}{seen})")
        });
        let flags = [
            (self.sticky, "sticky"),
            (self.isolated, "isolated"),
            (self.dhcp_guard, "dhcp guard"),
            (self.ra_guard, "ra guard"),
        ];
        let parts = (!storm.is_empty()).then(|| format!("storm {}", storm.join(", "))).into_iter();
        let parts = parts.chain(limit);
        let parts = parts.chain((!self.macs.is_empty()).then(|| format!("only {}", self.macs.join(", "))));
        let parts = parts.chain(flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
        parts.collect::<Vec<_>>().join("; ")
    }
}
