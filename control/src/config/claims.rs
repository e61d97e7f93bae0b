//! Things that only one port can have: a device, an interface, a socket.
//!
//! The same check serves the file (each port beside those before it) and `port add` (the new port beside the running
//! ones). The check compares names; whether `mac:…` and `name:…` are the same device shows only when the device is
//! resolved.

use std::fmt;
use std::path::PathBuf;

use super::{AfXdpConfig, DeviceSpec, PortConfig, PortKind, TapConfig, VethConfig, VhostUserConfig, default_interface};
use super::{SwitchConfig, error::ConfigError};
use crate::model::names::SOCKET_PATH_BYTES;

/// A thing that only one port can have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    Device(DeviceSpec),
    Interface { name: String, netns: Option<String> },
    Socket(PathBuf),
}

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Device(device) => write!(out, "device {device}"),
            Claim::Interface { name, netns: None } => write!(out, "interface {name}"),
            Claim::Interface { name, netns: Some(netns) } => write!(out, "interface {name} in netns {netns}"),
            Claim::Socket(path) => write!(out, "socket {}", path.display()),
        }
    }
}

impl PortConfig {
    /// Name of the switch's end, if this is a veth port.
    pub fn veth_interface(&self) -> Option<String> {
        match &self.kind {
            PortKind::Veth(VethConfig { interface, .. }) => {
                Some(interface.clone().unwrap_or_else(|| default_interface(&self.name)))
            }
            _ => None,
        }
    }

    /// Path of the socket, if this is a vhost-user port.
    pub fn vhost_socket(&self, switch: &SwitchConfig) -> Option<PathBuf> {
        match &self.kind {
            PortKind::VhostUser(VhostUserConfig { socket, .. }) => {
                Some(socket.clone().unwrap_or_else(|| switch.default_socket(&self.name)))
            }
            _ => None,
        }
    }

    /// Checks this port against `others` (itself not among them) and the switch: the same name, device, interface or
    /// socket, and protected interfaces.
    pub fn check_beside<'p>(
        &self,
        others: impl IntoIterator<Item = &'p PortConfig>,
        switch: &SwitchConfig,
    ) -> Result<(), ConfigError> {
        let error = |(key, message): (&str, String)| {
            let path =
                if key.is_empty() { format!("ports.{}", self.name) } else { format!("ports.{}.{key}", self.name) };
            ConfigError::new(None, &path, &message)
        };
        self.conflict(others, switch).map_err(error)
    }

    /// The same as [`PortConfig::check_beside`]; the error is the key (empty: the port as a whole) and the reason.
    pub(super) fn conflict<'p>(
        &self,
        others: impl IntoIterator<Item = &'p PortConfig>,
        switch: &SwitchConfig,
    ) -> Result<(), (&'static str, String)> {
        let claims = self.claims(switch);
        for (key, claim) in &claims {
            match claim {
                Claim::Interface { name, netns: None } if switch.protected_interfaces.contains(name) => {
                    return Err((
                        key,
                        format!("{name} is protected (switch.protected_interfaces); use another device"),
                    ));
                }
                Claim::Socket(path) if *path == switch.control_socket => {
                    return Err((key, format!("{} is the control socket; use another path", path.display())));
                }
                Claim::Socket(path) if path.as_os_str().len() > SOCKET_PATH_BYTES => {
                    let path = path.display();
                    return Err((
                        key,
                        format!("{path} is longer than the {SOCKET_PATH_BYTES} bytes a Unix socket takes"),
                    ));
                }
                _ => {}
            }
        }
        for other in others {
            if other.name == self.name {
                return Err(("", "there is a port of this name already".to_owned()));
            }
            let theirs = other.claims(switch);
            if let Some((key, claim)) = claims.iter().find(|(_, claim)| theirs.iter().any(|(_, c)| c == claim)) {
                return Err((key, format!("{claim} is already used by port {}; each port needs its own", other.name)));
            }
        }
        Ok(())
    }

    /// True if this port and `other` can't be attached at the same time, or if their names alone don't tell.
    pub fn may_clash(&self, other: &PortConfig, switch: &SwitchConfig) -> bool {
        if let (PortKind::AfXdp(AfXdpConfig { device: one, .. }), PortKind::AfXdp(AfXdpConfig { device: two, .. })) =
            (&self.kind, &other.kind)
        {
            return one == two || std::mem::discriminant(one) != std::mem::discriminant(two);
        }
        let theirs = other.claims(switch);
        self.claims(switch).iter().any(|(_, claim)| theirs.iter().any(|(_, other)| other == claim))
    }

    fn claims(&self, switch: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        let here = |name: &str| Claim::Interface { name: name.to_owned(), netns: None };
        match &self.kind {
            PortKind::AfXdp(AfXdpConfig { device: DeviceSpec::Name(name), .. }) => vec![("device", here(name))],
            PortKind::AfXdp(AfXdpConfig { device, .. }) => vec![("device", Claim::Device(device.clone()))],
            PortKind::VhostUser(_) => {
                self.vhost_socket(switch).map(|path| ("socket", Claim::Socket(path))).into_iter().collect()
            }
            PortKind::Tap(TapConfig { interface, .. }) => vec![("interface", here(interface))],
            PortKind::Veth(VethConfig { peer, netns, peer_name, .. }) => {
                let mut claims: Vec<_> =
                    self.veth_interface().map(|name| ("interface", here(&name))).into_iter().collect();
                claims.push(("peer", here(peer)));
                if netns.is_some() {
                    let (key, name) = peer_name.as_ref().map_or(("peer", peer), |name| ("peer_name", name));
                    claims.push((key, Claim::Interface { name: name.clone(), netns: netns.clone() }));
                }
                claims
            }
        }
    }
}
