//! A whole configuration at run time: shown, compared, checked, and applied as a whole or not at all.
//!
//! [`plan`](crate::plan) says which steps lead from the configuration that runs to the one that is wanted. What can be
//! known beforehand (what the file says, what needs a restart, devices that are never opened) is refused before the first
//! step; when a step fails, those before it are undone, last first. What the file can't say stays as it is: ports that are
//! switched off, static addresses, pins.
//!
//! The switch remembers what it was last given, at its start or by an apply ([`Switch::given`]): what runs and differs from
//! that was changed at run time, and is called *drift*.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use labsw_dataplane::worker;

use super::impairments::Impaired;
use super::mirrors::Mirror;
use super::open::{Attachment, preflight};
use super::{Switch, ageing_seconds, group_id};
use crate::api::{ConfigChange, ConfigText, Error, ShownConfig};
use crate::config::{
    AfXdpConfig, Config, ConfigError, PortConfig, PortKind, Power, ProfileConfig, SwitchConfig, VhostRole,
    VhostUserConfig,
};
use crate::device::Links;
use crate::metrics::Listener;
use crate::plan::{Step, changes, keep_runtime, plan};

/// What makes a step undone.
enum Undo {
    RestoreMirror(Box<Mirror>),
    DeleteMirror(String),
    Attach(String),
    /// The port had this configuration, and was detached or not.
    SetPort(Box<PortConfig>, bool),
    SetSwitch(Box<SwitchConfig>),
    SetProfiles(Vec<ProfileConfig>),
    /// The port had this impairment, or none.
    Impair(String, Box<Option<Impaired>>),
    DeletePort(String),
    /// The port had this configuration, was switched on or off, and had this impairment.
    AddPort(Box<PortConfig>, bool, Box<Option<Impaired>>),
}

impl Switch {
    /// The configuration that runs.
    pub(super) fn running(&self) -> Config {
        Config {
            switch: self.config.clone(),
            ports: self.ports.values().map(|port| port.config.clone()).collect(),
            mirrors: self.mirrors.values().map(|mirror| mirror.config.clone()).collect(),
            profiles: self.profiles.clone(),
            impairments: self.ports.values().filter_map(|port| Some(port.impaired.as_ref()?.config.clone())).collect(),
        }
    }

    /// The configuration that runs, as a file.
    pub(super) fn show_config(&self) -> ShownConfig {
        let table = self.running().to_toml();
        ShownConfig { text: table.to_string(), config: serde_json::to_value(&table).unwrap_or_default() }
    }

    /// Whether `source` could be applied; what its ports would wait for.
    pub(super) fn check_config(&mut self, source: &ConfigText) -> Result<Vec<String>, Error> {
        let wanted = read(source)?;
        let steps = plan(&self.running(), &wanted).map_err(|needs| refused(source, needs.to_string()))?;
        self.check_steps(&steps, &wanted, source)?;
        Ok(awaited_by(&wanted, &mut self.links))
    }

    /// What applying `source` would change.
    pub(super) fn diff_config(&mut self, source: &ConfigText, keep: bool) -> Result<Vec<ConfigChange>, Error> {
        let running = self.running();
        let wanted = self.wanted(source, &read(source)?, keep)?;
        Ok(changes(&self.given, &running, &wanted))
    }

    /// Applies `source` and says what has changed. On an error everything is as it was.
    pub(super) fn apply_config(&mut self, source: &ConfigText, keep: bool) -> Result<Vec<ConfigChange>, Error> {
        let running = self.running();
        let given = read(source)?;
        let wanted = self.wanted(source, &given, keep)?;
        let steps = plan(&running, &wanted).map_err(|needs| refused(source, needs.to_string()))?;
        self.check_steps(&steps, &wanted, source)?;
        let changes = changes(&self.given, &running, &wanted);
        let mut done = Vec::new();
        for step in steps {
            self.beat();
            let key = key_of(&step);
            match self.carry_out(step) {
                Ok(undo) => done.extend(undo),
                Err(error) => {
                    let undone = self.undo(done);
                    let reason = format!("{}; {undone}", super::reason_of(&error));
                    return Err(complaint(source, &key, &reason));
                }
            }
        }
        self.given = given;
        tracing::info!(file = source.file, changes = changes.len(), "configuration applied");
        Ok(changes)
    }

    /// What is wanted: what was read, or that with the changes of run time.
    fn wanted(&self, source: &ConfigText, read: &Config, keep: bool) -> Result<Config, Error> {
        if !keep {
            return Ok(read.clone());
        }
        let text = keep_runtime(&self.given, &self.running(), read).to_string();
        Config::parse(&text, &source.file).map_err(|error| {
            let (key, message) = (error.key(), error.message());
            refused(source, format!("with what was changed at run time, {key}: {message}"))
        })
    }

    /// Looks whether steps can be carried out, without touching anything.
    fn check_steps(&mut self, steps: &[Step], wanted: &Config, source: &ConfigText) -> Result<(), Error> {
        let detached = |name: &str| steps.iter().any(|step| matches!(step, Step::DetachPort(port) if port == name));
        let freed: Vec<PortConfig> = {
            let freed = self.ports.values().filter(|port| detached(&port.config.name));
            freed.map(|port| port.config.clone()).collect()
        };
        let protected_differ = wanted.switch.protected_interfaces != self.config.protected_interfaces;
        let group = wanted.switch.socket_group.as_deref().map(group_id).transpose();
        group.map_err(|error| complaint(source, "switch.socket_group", &error.to_string()))?;
        for port in &wanted.ports {
            let stays = self.ports.get(&port.name).is_some_and(|running| {
                running.config.is_attached_like(port, &self.config) && running.config.mtu >= port.mtu
            });
            // What another port still has shows when it is free.
            let taken = freed.iter().any(|other| other.name != port.name && other.may_clash(port, &wanted.switch));
            if (stays && !protected_differ) || taken {
                continue;
            }
            match preflight(port, &wanted.switch, &mut self.links) {
                Err((key, error)) if !error.is_absence() => {
                    return Err(complaint(source, &format!("ports.{}.{key}", port.name), &error.to_string()));
                }
                _ => {}
            }
        }
        self.require_memory(&wanted.ports)
            .map_err(|error| complaint(source, "switch.hugepages", &error.to_string()))?;
        let indices = self.ports.values().filter_map(|port| match &port.attachment {
            Attachment::Device(device) => Some((port.config.name.clone(), device.link.index)),
            _ => None,
        });
        let running: BTreeMap<String, u32> =
            indices.filter(|(name, _)| !steps.iter().any(|step| is_new_attachment(step, name, self))).collect();
        match device_twice(&wanted.ports, &running, &mut self.links) {
            Some((key, reason)) => Err(complaint(source, &key, &reason)),
            None => Ok(()),
        }
    }

    /// Takes one step; gives what undoes it.
    fn carry_out(&mut self, step: Step) -> Result<Option<Undo>, Error> {
        Ok(Some(match step {
            Step::DeleteMirror(name) => Undo::RestoreMirror(Box::new(self.delete_mirror(&name)?)),
            Step::SetMirror(config) => {
                let name = config.name.clone();
                let before = self.mirrors.get(&name).cloned();
                self.set_mirror(config)?;
                before.map_or(Undo::DeleteMirror(name), |mirror| Undo::RestoreMirror(Box::new(mirror)))
            }
            Step::DetachPort(name) => {
                if let Err(error) = self.detach_port(&name) {
                    tracing::warn!(port = name, %error, "not detached cleanly");
                }
                Undo::Attach(name)
            }
            Step::SetSwitch(config) => {
                let before = Box::new(self.config.clone());
                self.set_switch(config)?;
                Undo::SetSwitch(before)
            }
            Step::AddPort(config) => {
                let name = config.name.clone();
                self.add_port(config)?;
                Undo::DeletePort(name)
            }
            Step::SetPort(config) => {
                let port = self.port(&config.name)?;
                let undo = Undo::SetPort(Box::new(port.config.clone()), port.detached);
                let name = config.name.clone();
                self.set_port(&name, config)?;
                undo
            }
            Step::SetProfiles(profiles) => Undo::SetProfiles(std::mem::replace(&mut self.profiles, profiles)),
            Step::SetImpairment(config) => {
                let name = config.port.clone();
                Undo::Impair(name, Box::new(self.set_impairment(config)?))
            }
            Step::ClearImpairment(name) => {
                let before = self.clear_impairment(&name, None)?;
                Undo::Impair(name, Box::new(before))
            }
            Step::DeletePort(name) => {
                let port = self.port(&name)?;
                let impaired = Box::new(port.impaired.clone());
                let undo = Undo::AddPort(Box::new(port.config.clone()), port.enabled || port.flap.is_some(), impaired);
                // The port is gone in any case.
                if let Err(error) = self.delete_port(&name) {
                    tracing::warn!(port = name, %error, "not removed cleanly");
                }
                undo
            }
        }))
    }

    /// Undoes steps, last first; says how that went.
    fn undo(&mut self, done: Vec<Undo>) -> String {
        let mut outcome = Ok(());
        for undo in done.into_iter().rev() {
            self.beat();
            let undone = match undo {
                Undo::RestoreMirror(mirror) => self.restore_mirror(*mirror),
                Undo::DeleteMirror(name) => self.delete_mirror(&name).map(drop),
                Undo::Attach(name) => {
                    self.reattach_port(&name);
                    Ok(())
                }
                Undo::SetPort(config, true) => {
                    let name = config.name.clone();
                    let detached = self.detach_port(&name);
                    if let Some(port) = self.ports.get_mut(&name) {
                        port.config = *config;
                    }
                    detached
                }
                Undo::SetPort(config, false) => {
                    let name = config.name.clone();
                    self.set_port(&name, *config)
                }
                Undo::SetSwitch(config) => self.set_switch(*config),
                Undo::DeletePort(name) => self.delete_port(&name),
                Undo::SetProfiles(profiles) => {
                    self.profiles = profiles;
                    Ok(())
                }
                Undo::Impair(name, before) => self.replace_impairment(&name, *before).map(drop),
                Undo::AddPort(config, enabled, impaired) => {
                    let name = config.name.clone();
                    let added = self.add_port(*config);
                    let added = added.and_then(|()| if enabled { Ok(()) } else { self.set_port_state(&name, false) });
                    added.and_then(|()| self.replace_impairment(&name, *impaired).map(drop))
                }
            };
            outcome = outcome.and(undone);
        }
        match outcome {
            Ok(()) => "nothing was changed".to_owned(),
            Err(error) => {
                tracing::error!(%error, "a change was not undone");
                format!("what was changed before is not undone in full: {error}")
            }
        }
    }

    /// Changes settings of the switch that it can follow while it runs.
    fn set_switch(&mut self, config: SwitchConfig) -> Result<(), Error> {
        let refused = |key: &str, reason: String| Error::refused(format!("switch.{key}"), reason);
        let group = config.socket_group.as_deref().map(group_id).transpose();
        let group = group.map_err(|error| refused("socket_group", error.to_string()))?;
        if (config.socket_mode, &config.socket_group) != (self.config.socket_mode, &self.config.socket_group) {
            let group = group.unwrap_or_else(|| rustix::process::getegid().as_raw());
            for path in self.own_sockets() {
                if let Err(error) = set_owner(&path, config.socket_mode, group) {
                    // Those before it get back what they had.
                    let group = self.socket_group.unwrap_or_else(|| rustix::process::getegid().as_raw());
                    for path in self.own_sockets() {
                        let _ = set_owner(&path, self.config.socket_mode, group);
                    }
                    return Err(refused("socket_mode", format!("{}: {error}", path.display())));
                }
            }
        }
        if config.metrics_listen != self.config.metrics_listen {
            // It may be the same port at another address.
            self.metrics = None;
            match metrics_listener(config.metrics_listen, &self.registry) {
                Ok(listener) => self.metrics = listener,
                Err(error) => {
                    self.metrics = metrics_listener(self.config.metrics_listen, &self.registry).unwrap_or_default();
                    return Err(refused("metrics_listen", error.to_string()));
                }
            }
        }
        if config.power != self.config.power {
            let power = worker_power(config.power);
            self.workers.links().set_power(power).map_err(|error| refused("power", error.to_string()))?;
        }
        let before = std::mem::replace(&mut self.config, config);
        if self.config.multicast_snooping != before.multicast_snooping {
            if let Err(error) = self.set_tables() {
                self.config = before;
                return Err(error);
            }
            self.forget_unsnooped();
        }
        self.shared.fdb.set_ageing(ageing_seconds(&self.config));
        self.socket_group = group;
        tracing::info!("settings of the switch changed");
        Ok(())
    }

    /// The sockets that the switch listens on.
    fn own_sockets(&self) -> Vec<PathBuf> {
        let guests = self.ports.values().filter(|port| {
            matches!(port.config.kind, PortKind::VhostUser(VhostUserConfig { role: VhostRole::Server, .. }))
                && matches!(port.attachment, Attachment::Guest(_))
        });
        let guests = guests.filter_map(|port| port.config.vhost_socket(&self.config));
        std::iter::once(self.config.control_socket.clone()).chain(guests).collect()
    }
}

/// The address of the metrics can't be listened at.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}; name another address or port")]
pub(super) struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

/// The metrics listener, if there is an address for one.
pub(super) fn metrics_listener(
    address: Option<SocketAddr>,
    registry: &mio::Registry,
) -> Result<Option<Listener>, MetricsError> {
    let open = |address| {
        Listener::open(address, registry, super::METRICS.0).map_err(|source| MetricsError { address, source })
    };
    address.map(open).transpose()
}

/// The workers' word for it.
pub(super) fn worker_power(power: Power) -> worker::Power {
    match power {
        Power::Adaptive => worker::Power::Adaptive,
        Power::Performance => worker::Power::Performance,
    }
}

/// What ports of `config` would wait for, one line each.
pub(super) fn awaited_by(config: &Config, links: &mut Links) -> Vec<String> {
    let mut awaited = Vec::new();
    for port in &config.ports {
        match preflight(port, &config.switch, links) {
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
        let PortKind::AfXdp(AfXdpConfig { device, .. }) = &port.kind else { continue };
        let resolved = || links.resolve(device).ok().flatten().map(|link| link.index);
        let Some(index) = running.get(&port.name).copied().or_else(resolved) else { continue };
        if let Some(other) = taken.insert(index, &port.name) {
            let reason = format!("{device} is the device of port {other}, too; each port needs its own");
            return Some((format!("ports.{}.device", port.name), reason));
        }
    }
    None
}

/// Whether `step` attaches the port of this name to something else than it is.
fn is_new_attachment(step: &Step, name: &str, switch: &Switch) -> bool {
    match step {
        Step::SetPort(config) if config.name == name => {
            let running = switch.ports.get(name);
            !running.is_some_and(|port| port.config.is_attached_like(config, &switch.config))
        }
        Step::DeletePort(port) => port == name,
        _ => false,
    }
}

fn set_owner(path: &Path, mode: u32, group: u32) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, None, Some(group))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn read(source: &ConfigText) -> Result<Config, Error> {
    Config::parse_here(&source.text, &source.file).map_err(|error| as_refusal(&error, source))
}

/// The table of the file that a step is about.
fn key_of(step: &Step) -> String {
    match step {
        Step::SetSwitch(_) => "switch".to_owned(),
        Step::DeleteMirror(name) => format!("mirrors.{name}"),
        Step::SetMirror(mirror) => format!("mirrors.{}", mirror.name),
        Step::DetachPort(name) | Step::DeletePort(name) => format!("ports.{name}"),
        Step::AddPort(port) | Step::SetPort(port) => format!("ports.{}", port.name),
        Step::SetProfiles(_) => "profiles".to_owned(),
        Step::SetImpairment(impairment) => format!("impair.{}", impairment.port),
        Step::ClearImpairment(name) => format!("impair.{name}"),
    }
}

/// A complaint about a key of the file, with its place.
fn complaint(source: &ConfigText, key: &str, reason: &str) -> Error {
    as_refusal(&Config::complaint_in(&source.text, &source.file, key, reason), source)
}

fn as_refusal(error: &ConfigError, source: &ConfigText) -> Error {
    let object =
        error.place().map_or_else(|| source.file.clone(), |at| format!("{}:{}:{}", at.file, at.line, at.column));
    let key = if error.key().is_empty() { String::new() } else { format!("{}: ", error.key()) };
    Error::refused(object, format!("{key}{}", error.message()))
}

fn refused(source: &ConfigText, reason: String) -> Error {
    Error::refused(source.file.clone(), reason)
}
