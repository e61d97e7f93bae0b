//! Shows, compares, checks and applies a whole configuration at run time. An apply succeeds as a whole or changes
//! nothing.
//!
//! [`plan`](crate::plan) lists the steps that lead from the running configuration to the wanted one. Mistakes that can
//! be found beforehand (in the file itself, settings that need a restart, devices that are never opened) are refused
//! before the first step. If a step fails, another plan leads back from the state reached by then. State that no file
//! describes is kept: ports that are switched off, static addresses, pins.
//!
//! The switch remembers the configuration that it was last given, at its start or by an apply ([`Switch::given`]). The
//! difference between that configuration and the running one was made at run time, and is called *drift*.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use labsw_dataplane::sys::socket::{self, SocketError};

use super::accounts::group_id;
use super::attach::{self, OwnAccess};
use super::errand::Errand;
use super::fabric::ageing_seconds;
use super::impairments::Impaired;
use super::mirrors::Mirrors;
use super::preflight::{awaited_by, device_twice, needs_memory, preflight};
use super::switch::Switch;
use crate::api::{ConfigChange, ConfigText, Error, Event, EventKind, EventSubject, ShownConfig};
use crate::config::{Config, ConfigError, ConfigErrors, PortConfig, SwitchConfig};
use crate::metrics::MetricsSocket;
use crate::plan::{Step, changes, keep_runtime, plan};

/// A configuration that was read.
struct Wanted {
    /// The configuration that was given.
    given: Config,
    /// The configuration to reach.
    wanted: Config,
    /// The configuration that runs.
    running: Config,
}

/// The state before an apply, for the way back.
struct Former {
    config: Config,
    /// The mirror sessions with the state that a configuration does not describe: slot and counters.
    mirrors: Mirrors,
    /// For each port: true if it was enabled, and its impairment with the frames that the schedule holds.
    ports: BTreeMap<String, (bool, Option<Impaired>)>,
}

impl Switch {
    /// The configuration that runs.
    pub(super) fn running(&self) -> Config {
        Config {
            switch: self.config.clone(),
            ports: self.ports.iter().map(|port| port.config.clone()).collect(),
            mirrors: self.mirrors.iter().map(|mirror| mirror.config.clone()).collect(),
            inlines: self.inlines.configs().cloned().collect(),
            profiles: self.profiles.clone(),
            impairments: self.ports.iter().filter_map(|port| Some(port.impaired.as_ref()?.config.clone())).collect(),
        }
    }

    /// The configuration that runs, as a file.
    pub(super) fn show_config(&self) -> ShownConfig {
        let table = self.running().to_toml();
        ShownConfig {
            text: table.to_string(),
            config: serde_json::to_value(&table).unwrap_or_default(),
            file: std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone()).display().to_string(),
            unconfirmed: self.show_trial(Instant::now()),
        }
    }

    /// The present state; `running` is its configuration.
    fn former(&self, running: Config) -> Former {
        let ports = self.ports.iter().map(|port| {
            let enabled = port.enabled || port.flap.is_some();
            (port.config.name.clone(), (enabled, port.impaired.clone()))
        });
        Former { config: running, mirrors: self.mirrors.clone(), ports: ports.collect() }
    }

    /// Moves the metrics to another address; on an error they stay at the former one.
    fn set_metrics(&mut self, address: Option<SocketAddr>) -> Result<(), MetricsError> {
        // The new address may have the same port number as the former one.
        self.metrics = None;
        match metrics_socket(address, MetricsSocket::open) {
            Ok(socket) => {
                self.metrics = socket;
                Ok(())
            }
            Err(error) => {
                self.metrics = metrics_socket(self.config.metrics_listen, MetricsSocket::open).unwrap_or_default();
                Err(error)
            }
        }
    }
}

impl Errand<'_> {
    /// Checks that `source` could be applied; returns the devices that its ports would wait for.
    pub(super) fn check_config(&mut self, source: &ConfigText) -> Result<Vec<String>, Error> {
        let Wanted { wanted, running, .. } = self.wanted(source, false)?;
        let steps = plan(&running, &wanted).map_err(|needs| refused(source, needs.to_string()))?;
        self.check_steps(&steps, &wanted, source)?;
        Ok(self.away(|host| awaited_by(&wanted, &mut host.links)))
    }

    /// The changes that applying `source` would make.
    pub(super) fn diff_config(&mut self, source: &ConfigText, keep: bool) -> Result<Vec<ConfigChange>, Error> {
        let Wanted { wanted, running, .. } = self.wanted(source, keep)?;
        Ok(changes(&self.given, &running, &wanted))
    }

    /// Reads `source`. With `keep`, the changes made at run time are wanted as well.
    fn wanted(&mut self, source: &ConfigText, keep: bool) -> Result<Wanted, Error> {
        let (before, running) = (self.given.clone(), self.running());
        // A file may be long.
        self.away(|_| {
            let given = read(source)?;
            let wanted = match keep {
                false => given.clone(),
                true => {
                    let text = keep_runtime(&before, &running, &given).to_string();
                    Config::parse(&text, &source.file).map_err(|error| {
                        let (key, message) = (error.key(), error.message());
                        refused(source, format!("with the changes at run time, {key}: {message}"))
                    })?
                }
            };
            Ok(Wanted { given, wanted, running })
        })
    }

    /// Applies `source` and returns the changes made. On an error everything is as it was.
    pub(super) fn apply_config(&mut self, source: &ConfigText, keep: bool) -> Result<Vec<ConfigChange>, Error> {
        self.apply_with_note(source, keep, None)
    }

    /// The same as [`Errand::apply_config`], with a note in the event.
    pub(super) fn apply_with_note(
        &mut self,
        source: &ConfigText,
        keep: bool,
        note: Option<String>,
    ) -> Result<Vec<ConfigChange>, Error> {
        self.check_no_trial(source, Instant::now())?;
        let Wanted { given, wanted, running } = self.wanted(source, keep)?;
        let steps = plan(&running, &wanted).map_err(|needs| refused(source, needs.to_string()))?;
        self.check_steps(&steps, &wanted, source)?;
        let changes = changes(&self.given, &running, &wanted);
        let former = self.former(running);
        for step in steps {
            self.pause();
            if self.ending {
                return Err(Error::refused("switch", "it is being stopped"));
            }
            let key = key_of(&step);
            if let Err(error) = self.take_step(step) {
                let undone = self.go_back(&former);
                let reason = format!("{}; {undone}", reason_of(&error));
                return Err(complaint(source, &key, &reason));
            }
        }
        self.given = given;
        let about = Event::about(EventKind::Applied, EventSubject::File, &source.file);
        self.events.tell(Event { count: Some(changes.len() as u64), reason: note, ..about });
        Ok(changes)
    }

    /// Checks that the steps can be carried out, without touching anything.
    fn check_steps(&mut self, steps: &[Step], wanted: &Config, source: &ConfigText) -> Result<(), Error> {
        let detached = |name: &str| steps.iter().any(|step| matches!(step, Step::DetachPort(port) if port == name));
        let freed: Vec<PortConfig> = {
            let freed = self.ports.iter().filter(|port| detached(&port.config.name));
            freed.map(|port| port.config.clone()).collect()
        };
        let protected_differ = wanted.switch.protected_interfaces != self.config.protected_interfaces;
        let group = wanted.switch.socket_group.as_deref().map(group_id).transpose();
        group.map_err(|error| complaint(source, "switch.socket_group", &error.to_string()))?;
        let to_check: Vec<&PortConfig> = {
            let to_check = wanted.ports.iter().filter(|port| {
                let stays = self.ports.find(&port.name).is_some_and(|running| {
                    running.config.is_attached_like(port, &self.config) && running.config.mtu >= port.mtu
                });
                // A device that another port still holds can only be looked at once that port has released it.
                let taken = freed.iter().any(|other| other.name != port.name && other.may_clash(port, &wanted.switch));
                (!stays || protected_differ) && !taken
            });
            to_check.collect()
        };
        self.away(|host| {
            if protected_differ {
                host.links.warn_of_unknown(&wanted.switch.protected_interfaces);
            }
            for port in to_check {
                preflight(port, &wanted.switch, &mut host.links).map_err(|(key, error)| {
                    complaint(source, &format!("ports.{}.{key}", port.name), &error.to_string())
                })?;
            }
            match needs_memory(&wanted.ports) {
                true => {
                    host.require_memory().map_err(|error| complaint(source, "switch.hugepages", &error.to_string()))
                }
                false => Ok(()),
            }
        })?;
        let devices = self.ports.iter().filter_map(|port| {
            attach::of(&port.config.kind).device()?;
            Some((port.config.name.clone(), port.attached.to()?.device()?.0))
        });
        let running: BTreeMap<String, u32> =
            devices.filter(|(name, _)| !steps.iter().any(|step| is_new_attachment(step, name, self))).collect();
        match self.away(|host| device_twice(&wanted.ports, &running, &mut host.links)) {
            Some((key, reason)) => Err(complaint(source, &key, &reason)),
            None => Ok(()),
        }
    }

    /// Takes one step.
    fn take_step(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::DeleteMirror(name) => self.delete_mirror(&name),
            Step::SetMirror(config) => self.set_mirror(config),
            Step::DeleteInline(name) => self.delete_inline(&name),
            Step::SetInline(config) => self.set_inline(config),
            Step::DetachPort(name) => {
                if let Err(error) = self.detach_port(&name) {
                    tracing::warn!(port = name, %error, "not detached cleanly");
                }
                Ok(())
            }
            Step::SetSwitch(config) => self.set_switch(config),
            Step::AddPort(config) => self.add_port(config),
            Step::SetPort(config) => {
                let name = config.name.clone();
                self.set_port(&name, config)
            }
            Step::SetProfiles(profiles) => {
                self.profiles = profiles;
                Ok(())
            }
            Step::SetImpairment(config) => self.set_impairment(*config),
            Step::ClearImpairment(name) => self.clear_impairment(&name, None),
            Step::DeletePort(name) => {
                // The port is removed even on an error.
                if let Err(error) = self.delete_port(&name) {
                    tracing::warn!(port = name, %error, "not removed cleanly");
                }
                Ok(())
            }
        }
    }

    /// Goes back to the state before the first step; returns a sentence about the outcome. The way back is planned like
    /// any other. At its end, two things that no plan knows are put back: attachments that were taken from ports, and
    /// state that no configuration describes.
    fn go_back(&mut self, former: &Former) -> String {
        let outcome = self.return_to(&former.config);
        let put_back = self.put_back(former);
        match outcome.and(put_back) {
            Ok(()) => "nothing was changed".to_owned(),
            Err(error) => {
                tracing::error!(%error, "a change was not undone");
                format!("earlier changes could not be undone in full: {error}")
            }
        }
    }

    /// Takes all steps to a configuration that ran before, also if some fail.
    ///
    /// # Errors
    /// The first that failed.
    pub(super) fn return_to(&mut self, config: &Config) -> Result<(), Error> {
        let mut outcome = Ok(());
        match plan(&self.running(), config) {
            Ok(steps) => {
                for step in steps {
                    self.pause();
                    let undone = self.take_step(step);
                    outcome = outcome.and(undone);
                }
            }
            Err(error) => outcome = Err(Error::refused("switch", error.to_string())),
        }
        let detached = self.ports.iter().filter(|port| port.detached);
        for name in detached.map(|port| port.config.name.clone()).collect::<Vec<_>>() {
            self.reattach_port(&name);
        }
        outcome
    }

    /// Puts back the state that no configuration describes, at mirrors and ports that exist again.
    fn put_back(&mut self, former: &Former) -> Result<(), Error> {
        for mirror in former.mirrors.iter() {
            if self.mirrors.get(&mirror.config.name).is_ok() {
                self.mirrors.put(mirror.clone());
            }
        }
        for (name, (enabled, impaired)) in &former.ports {
            let Some(port) = self.ports.find_mut(name) else { continue };
            port.impaired.clone_from(impaired);
            if port.flap.is_none() && port.enabled != *enabled {
                self.set_port_state(name, *enabled)?;
            }
        }
        self.set_tables()
    }

    /// Changes settings of the switch that need no restart.
    fn set_switch(&mut self, config: SwitchConfig) -> Result<(), Error> {
        let refused = |key: &str, reason: String| Error::refused(format!("switch.{key}"), reason);
        let group = config.socket_group.as_deref().map(group_id).transpose();
        let group = group.map_err(|error| refused("socket_group", error.to_string()))?;
        if (config.socket_mode, &config.socket_group) != (self.config.socket_mode, &self.config.socket_group) {
            self.set_owners(config.socket_mode, group).map_err(|error| refused("socket_mode", error.to_string()))?;
        }
        if config.metrics_listen != self.config.metrics_listen {
            self.set_metrics(config.metrics_listen).map_err(|error| refused("metrics_listen", error.to_string()))?;
        }
        if config.power != self.config.power {
            self.fabric.workers.links().set_power(config.power).map_err(|error| refused("power", error.to_string()))?;
        }
        let before = std::mem::replace(&mut self.config, config);
        if self.config.multicast_snooping != before.multicast_snooping {
            if let Err(error) = self.set_tables() {
                self.config = before;
                return Err(error);
            }
            self.multicast.retain_vlans(&self.config.multicast_snooping);
        }
        self.fabric.shared.fdb.set_ageing(ageing_seconds(&self.config));
        self.away(|host| host.socket_group = group);
        Ok(())
    }

    /// Gives the sockets of the switch this mode and group, except where a port has its own. On an error the sockets
    /// keep their former mode and group.
    fn set_owners(&mut self, mode: u32, group: Option<u32>) -> Result<(), SocketError> {
        let control_group = self.config.control_group.as_deref().and_then(|name| group_id(name).ok());
        let control = OwnAccess { group: control_group, ..OwnAccess::default() };
        let guests = self.ports.iter().filter_map(|port| port.attached.to()?.listens_on());
        let all = std::iter::once((self.config.control_socket.as_path(), control)).chain(guests);
        let sockets: Vec<_> = all.map(|(path, own)| (path.to_owned(), own)).collect();
        let former = self.config.socket_mode;
        self.away(|host| {
            let set =
                |mode, group| sockets.iter().try_for_each(|(path, own)| socket::set_access(path, own.or(mode, group)));
            set(mode, group).inspect_err(|_| {
                // A socket whose access can't be restored was not changed either.
                let _ = set(former, host.socket_group);
            })
        })
    }
}

/// Listening at the address for metrics failed.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}; name another address or port")]
pub(super) struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

/// Opens the socket for metrics, if an address is configured.
pub(super) fn metrics_socket(
    address: Option<SocketAddr>,
    open: impl FnOnce(SocketAddr) -> io::Result<MetricsSocket>,
) -> Result<Option<MetricsSocket>, MetricsError> {
    address.map(|address| open(address).map_err(|source| MetricsError { address, source })).transpose()
}

/// True if `step` attaches the port of this name to something other than its present attachment.
fn is_new_attachment(step: &Step, name: &str, switch: &Switch) -> bool {
    match step {
        Step::SetPort(config) if config.name == name => {
            let running = switch.ports.find(name);
            !running.is_some_and(|port| port.config.is_attached_like(config, &switch.config))
        }
        Step::DeletePort(port) => port == name,
        _ => false,
    }
}

/// Reads a configuration. The refusal is about the first mistake and lists all further ones after it.
fn read(source: &ConfigText) -> Result<Config, Error> {
    Config::read_here(&source.text, &source.file).map_err(|ConfigErrors(errors)| match errors.split_first() {
        None => refused(source, "cannot be read".to_owned()),
        Some((first, others)) => {
            let (object, reason) = object_and_reason(first, source);
            let others = others.iter().map(|error| format!("; {error}"));
            Error::invalid_setting(object, first.key(), reason + &others.collect::<String>())
        }
    })
}

/// The reason of a refusal, without its object: the place in the file says that.
pub(super) fn reason_of(error: &Error) -> String {
    match error {
        Error::Refused { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

/// The table of the file that a step changes.
fn key_of(step: &Step) -> String {
    match step {
        Step::SetSwitch(_) => "switch".to_owned(),
        Step::DeleteMirror(name) => format!("mirrors.{name}"),
        Step::SetMirror(mirror) => format!("mirrors.{}", mirror.name),
        Step::DeleteInline(name) => format!("inline.{name}"),
        Step::SetInline(inline) => format!("inline.{}", inline.name),
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
    let (object, reason) = object_and_reason(error, source);
    Error::invalid_setting(object, error.key(), reason)
}

/// The place of a mistake, and the key with the reason.
fn object_and_reason(error: &ConfigError, source: &ConfigText) -> (String, String) {
    let object =
        error.place().map_or_else(|| source.file.clone(), |at| format!("{}:{}:{}", at.file, at.line, at.column));
    let key = if error.key().is_empty() { String::new() } else { format!("{}: ", error.key()) };
    (object, format!("{key}{}", error.message()))
}

fn refused(source: &ConfigText, reason: String) -> Error {
    Error::refused(source.file.clone(), reason)
}
