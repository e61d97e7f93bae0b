//! Guards: rules of a port that refuse frames, so that one guest does not break what others rely on. All are off by
//! default.
//!
//! **How it works.** A port that guards anything has a [`Guards`] in its rules; the decision
//! ([`Ingress::frame`](crate::forward::Ingress::frame)) asks it at three places:
//!
//! ```text
//! VLAN ─▶ admits: source pinned? DHCP server? router? ─▶ learning: limit, sticky ─▶ look-up ─▶ isolated? ─▶ sent
//!                                                                                       └─▶ floods: storm? ─▶ flooded
//! ```
//!
//! The configuration of the guards is a [`GuardSpec`], immutable as all of the tables are. Their state (tokens used up,
//! frames over the learning limit) is a [`GuardState`], which stays when the tables are replaced. The limit and
//! stickiness themselves are rules of the forwarding database
//! ([`Fdb::set_port_limit`](crate::fdb::Fdb::set_port_limit),
//! [`Fdb::set_port_sticky`](crate::fdb::Fdb::set_port_sticky)), because it alone sees all workers' learning.
//!
//! **Invariants.** A frame that a guard refuses teaches nothing. A dry run uses up no token and counts nothing. Guards
//! that look behind the header, or count, are asked about every frame, also of a run of frames with equal headers.
//!
//! References: RFC 6105 and RFC 7113 (RA guard), RFC 7610 (DHCPv6-Shield), CVE-2021-27853, -27854, -27861 and -27862
//! (VLAN and LLC/SNAP headers used to get past such guards).

mod frame_rate;
mod limit;
mod packet;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use frame_rate::{FrameRate, MAX_RATE_PPS};
pub use limit::{OverLimit, OverLimitSeen};

use crate::rate::Bucket;
use crate::{DropReason, Mac};
use packet::Packet;

/// The most addresses a port can be pinned to.
pub const MAX_PINNED: usize = 256;

/// The most frames per second that a port may have flooded, by the kind of frame; `None`: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storm {
    /// Frames to the broadcast address.
    pub broadcast: Option<FrameRate>,
    /// Frames to other group addresses.
    pub multicast: Option<FrameRate>,
    /// Frames to unicast addresses that are not in the forwarding database.
    pub unknown_unicast: Option<FrameRate>,
}

/// The treatment of frames from sources beyond the learning limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LimitAction {
    /// They are dropped.
    #[default]
    Drop,
    /// They are forwarded, not learned, and counted.
    Alert,
}

/// How many addresses are learned at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacLimit {
    /// The most.
    pub addresses: u32,
    /// The treatment of frames from further sources.
    pub action: LimitAction,
}

/// The guards of a port; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardSpec {
    /// Storm control.
    pub storm: Storm,
    /// The learning limit.
    pub mac_limit: Option<MacLimit>,
    /// True if learned addresses stay at the port.
    pub sticky: bool,
    /// The only sources that may send, ascending; empty: any.
    pub macs: Vec<Mac>,
    /// True if the port exchanges no frames with other isolated ports.
    pub isolated: bool,
    /// True if messages of DHCP servers are dropped.
    pub dhcp: bool,
    /// True if an IPv6 router's messages to hosts are dropped: advertisements and redirects.
    pub ra: bool,
}

impl GuardSpec {
    /// Returns true if anything is guarded.
    pub fn is_any(&self) -> bool {
        *self != GuardSpec::default()
    }
}

/// The state of a port's guards; shared by all workers, and by all tables the port is ever in.
#[derive(Debug, Default)]
pub struct GuardState {
    broadcast: Bucket,
    multicast: Bucket,
    unknown_unicast: Bucket,
    /// Frames forwarded that came from sources beyond the learning limit.
    pub over_limit: OverLimit,
}

/// The guards of a port.
#[derive(Clone, Debug)]
pub struct Guards {
    /// The configuration.
    pub spec: GuardSpec,
    /// The state.
    pub state: Arc<GuardState>,
}

impl PartialEq for Guards {
    fn eq(&self, other: &Guards) -> bool {
        self.spec == other.spec && Arc::ptr_eq(&self.state, &other.state)
    }
}

impl Eq for Guards {}

impl Guards {
    /// Guards as in `spec` that count in `state`; `None` if there is nothing to guard.
    pub fn new(spec: GuardSpec, state: &Arc<GuardState>) -> Option<Box<Guards>> {
        spec.is_any().then(|| Box::new(Guards { spec, state: Arc::clone(state) }))
    }

    /// True if the guards' verdict on a frame depends on its header only, and nothing is counted: then a frame with the
    /// same header need not be judged again.
    pub(crate) fn is_of_headers(&self) -> bool {
        let GuardSpec { mac_limit, dhcp, ra, .. } = &self.spec;
        !dhcp && !ra && !mac_limit.is_some_and(|limit| limit.action == LimitAction::Alert)
    }

    /// Checks that a frame from `src` that begins with `snapshot` may come in.
    ///
    /// # Errors
    /// The guard that refuses it.
    pub(crate) fn admit(&self, src: Mac, snapshot: &[u8]) -> Result<(), DropReason> {
        let spec = &self.spec;
        if !spec.macs.is_empty() && spec.macs.binary_search(&src).is_err() {
            return Err(DropReason::MacNotAllowed);
        }
        if !spec.dhcp && !spec.ra {
            return Ok(());
        }
        let packet = Packet::of(snapshot);
        if spec.dhcp && packet.may_be_of_dhcp_server() {
            return Err(DropReason::DhcpGuard);
        }
        if spec.ra && packet.may_be_of_router() {
            return Err(DropReason::RaGuard);
        }
        Ok(())
    }

    /// Checks that a frame to `dst`, which is a group address or not in the forwarding database, may be flooded at
    /// `now_ns`. A dry run takes no token.
    ///
    /// # Errors
    /// The limit that is used up.
    pub(crate) fn flood(&self, dst: Mac, now_ns: u64, dry: bool) -> Result<(), DropReason> {
        let Guards { spec: GuardSpec { storm, .. }, state } = self;
        let (rate, bucket, reason) = if dst == Mac::BROADCAST {
            (storm.broadcast, &state.broadcast, DropReason::StormBroadcast)
        } else if dst.is_group() {
            (storm.multicast, &state.multicast, DropReason::StormMulticast)
        } else {
            (storm.unknown_unicast, &state.unknown_unicast, DropReason::StormUnknownUnicast)
        };
        match rate {
            Some(rate) if !bucket.take(rate.limit(), now_ns, dry) => Err(reason),
            _ => Ok(()),
        }
    }

    /// Handles a frame from `src`, which is beyond the learning limit. A dry run is not counted.
    ///
    /// # Errors
    /// The limit, if it is to drop.
    pub(crate) fn over_limit(&self, src: Mac, dry: bool) -> Result<(), DropReason> {
        match self.spec.mac_limit {
            Some(MacLimit { action: LimitAction::Drop, .. }) => Err(DropReason::MacLimit),
            Some(MacLimit { action: LimitAction::Alert, .. }) => {
                if !dry {
                    self.state.over_limit.count(src);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}
