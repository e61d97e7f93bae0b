//! Puts the learning limits and the stickiness of ports in force at the forwarding database.
//!
//! The state of guards ([`GuardState`](labsw_switch::guard::GuardState)) belongs to the port, so that a change of the
//! tables does not grant a storm a new burst.

use super::fabric::Fabric;
use super::ports::Ports;

/// Sets the learning limit and the stickiness of every port in the forwarding database. Unchanged rules cost nothing.
pub(super) fn set_learning_rules(fabric: &Fabric, ports: &Ports) {
    let now_seconds = labsw_dataplane::clock::now_seconds();
    for port in ports.iter() {
        let guards = &port.config.guards;
        fabric.shared.fdb.set_port_limit(port.id, guards.mac_limit.map(|limit| limit.addresses));
        fabric.shared.fdb.set_port_sticky(port.id, guards.sticky, now_seconds);
    }
}
