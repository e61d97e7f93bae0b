//! Guards of ports: what the forwarding database is told of them, and what people hear.
//!
//! A port's guards are rules of the tables like others; its learning limit and stickiness are rules of the forwarding
//! database too. What they have seen ([`GuardState`](labsw_switch::guard::GuardState)) belongs to the port, so a change
//! of the tables gives no storm a new burst.

use labsw_switch::guard::{LimitAction, MacLimit};

use super::Switch;

impl Switch {
    /// Tells the forwarding database the limit and the stickiness of every port. What has not changed costs nothing.
    pub(super) fn set_learning_rules(&self) {
        let now_seconds = labsw_dataplane::clock::now_seconds();
        for port in self.ports.values() {
            let guards = &port.config.guards;
            self.fabric.shared.fdb.set_port_limit(port.id, guards.mac_limit.map(|limit| limit.addresses));
            self.fabric.shared.fdb.set_port_sticky(port.id, guards.sticky, now_seconds);
        }
    }

    /// Says of each port that got frames from further sources than it may have, once a second at most.
    pub(super) fn report_over_limit(&mut self) {
        for (name, port) in &mut self.ports {
            let seen = port.guard_state.over_limit.seen();
            let new = seen.frames - std::mem::replace(&mut port.over_limit_reported, seen.frames);
            if let Some(MacLimit { addresses, action: LimitAction::Alert }) = port.config.guards.mac_limit
                && new > 0
            {
                tracing::warn!(port = name, frames = new, last = %seen.last, "further sources than mac_limit = {addresses}");
            }
        }
    }
}
