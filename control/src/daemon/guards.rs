//! The learning limits and the stickiness of ports, which are rules of the forwarding database, too.
//!
//! What guards have seen ([`GuardState`](labsw_switch::guard::GuardState)) belongs to the port, so a change of the
//! tables gives no storm a new burst.

use super::fabric::Fabric;
use super::ports::Ports;

/// Tells the forwarding database the limit and the stickiness of every port. What has not changed costs nothing.
pub(super) fn set_learning_rules(fabric: &Fabric, ports: &Ports) {
    let now_seconds = labsw_dataplane::clock::now_seconds();
    for port in ports.iter() {
        let guards = &port.config.guards;
        fabric.shared.fdb.set_port_limit(port.id, guards.mac_limit.map(|limit| limit.addresses));
        fabric.shared.fdb.set_port_sticky(port.id, guards.sticky, now_seconds);
    }
}
