//! Things that only one port can have: a device, an interface, a socket.
//!
//! The same check serves the file (each port beside those before it) and `port add` (the new port beside the running
//! ones). The check compares names; whether `mac:…` and `name:…` are the same device shows only when the device is
//! resolved.

use super::{Claim, PortConfig, SwitchConfig, error::ConfigError};
use crate::model::names::SOCKET_PATH_BYTES;

impl PortConfig {
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
            if let Some(name) = claim.interface().filter(|name| switch.protected_interfaces.contains(name)) {
                return Err((key, format!("{name} is protected (switch.protected_interfaces); use another device")));
            }
            match claim {
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
        let mut kept = 0_u64;
        for other in others {
            if other.name == self.name {
                return Err(("", "there is a port of this name already".to_owned()));
            }
            kept = kept.saturating_add(other.rewind.unwrap_or_default());
            let theirs = other.claims(switch);
            if let Some((key, claim)) = claims.iter().find(|(_, claim)| theirs.iter().any(|(_, other)| other.is(claim)))
            {
                return Err((key, format!("{claim} is already used by port {}; each port needs its own", other.name)));
            }
        }
        self.check_rewind(kept, switch).map_err(|reason| ("rewind", reason))
    }

    /// Checks that the memory for frames that passed is there, if other ports have `kept` bytes of it.
    pub(crate) fn check_rewind(&self, kept: u64, switch: &SwitchConfig) -> Result<(), String> {
        let Some(bytes) = self.rewind else { return Ok(()) };
        let left = switch.max_rewind_memory.saturating_sub(kept);
        if bytes <= left {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        Err(format!(
            "{} MiB are more than the {} MiB that other ports leave of switch.max_rewind_memory; raise that, or keep less",
            mib(bytes),
            mib(left),
        ))
    }

    /// True if this port and `other` can't be attached at the same time, or if their names alone don't tell.
    pub fn may_clash(&self, other: &PortConfig, switch: &SwitchConfig) -> bool {
        let theirs = other.claims(switch);
        self.claims(switch).iter().any(|(_, claim)| theirs.iter().any(|(_, other)| other.may_be(claim)))
    }

    /// The things that the port needs for itself alone, each with the key that names it.
    pub(crate) fn claims(&self, switch: &SwitchConfig) -> Vec<(&'static str, Claim)> {
        self.kind.settings().claims(&self.name, switch)
    }
}
