//! Ports looked at before anything is touched: whether this machine has what they need, and what they would wait for.

use std::collections::BTreeMap;

use super::attach::{self, OpenError};
use crate::config::{Config, PortConfig, SwitchConfig};
use crate::device::Links;

/// As [`attach::PortType::preflight`]; what is only absent is no reason to refuse the port.
pub(super) fn preflight(
    port: &PortConfig,
    switch: &SwitchConfig,
    links: &mut Links,
) -> Result<(), (&'static str, OpenError)> {
    match attach::of(&port.kind).preflight(port, switch, links) {
        Err((_, error)) if error.is_absence() => Ok(()),
        other => other,
    }
}

/// What ports of `config` would wait for if the switch were started now, one line each.
pub fn awaited(config: &Config) -> Vec<String> {
    Links::open().map_or_else(|_| Vec::new(), |mut links| awaited_by(config, &mut links))
}

/// As [`awaited`].
pub(super) fn awaited_by(config: &Config, links: &mut Links) -> Vec<String> {
    let mut awaited = Vec::new();
    for port in &config.ports {
        match attach::of(&port.kind).preflight(port, &config.switch, links) {
            Err((key, error)) if error.is_absence() => awaited.push(format!("ports.{}.{key}: {error}", port.name)),
            _ => {}
        }
    }
    awaited
}

/// A device that two of `ports` name, each in its own way: the key of the second, and what is wrong. `running` has the
/// index of the device of ports that keep theirs.
pub(super) fn device_twice(
    ports: &[PortConfig],
    running: &BTreeMap<String, u32>,
    links: &mut Links,
) -> Option<(String, String)> {
    let mut taken: BTreeMap<u32, &str> = BTreeMap::new();
    for port in ports {
        let Some(device) = attach::of(&port.kind).device() else { continue };
        let resolved = || links.resolve(device).ok().flatten().map(|link| link.index);
        let Some(index) = running.get(&port.name).copied().or_else(resolved) else { continue };
        if let Some(other) = taken.insert(index, &port.name) {
            let reason = format!("{device} is the device of port {other}, too; each port needs its own");
            return Some((format!("ports.{}.device", port.name), reason));
        }
    }
    None
}

/// Whether one of `ports` has sockets in packet memory.
pub(super) fn needs_memory(ports: &[PortConfig]) -> bool {
    ports.iter().any(|port| attach::of(&port.kind).has_sockets())
}
