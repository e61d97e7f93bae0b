//! Checks of ports before anything is touched: does this machine have what they need, and what would they wait for.

use std::collections::BTreeMap;

use super::attach::{self, OpenError};
use crate::config::{Config, PortConfig, SwitchConfig};
use crate::device::Links;

/// Runs [`attach::Attachable::preflight`]; a device that is merely absent is no reason to refuse the port.
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

/// The devices that ports of `config` would wait for if the switch were started now, one line each.
pub fn awaited(config: &Config) -> Vec<String> {
    Links::open().map_or_else(|_| Vec::new(), |mut links| awaited_by(config, &mut links))
}

/// The same as [`awaited`], with links that are open already.
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

/// Finds a device that two of `ports` name, each in its own way: returns the key of the second, and the reason.
/// `running` has the index of the device of each port that keeps its device.
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

/// True if one of `ports` has sockets in packet memory.
pub(super) fn needs_memory(ports: &[PortConfig]) -> bool {
    ports.iter().any(|port| attach::of(&port.kind).has_sockets())
}
