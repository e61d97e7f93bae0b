//! Ports over their life: looked at, opened, handed to the worker, changed, in fault, closed.
//!
//! A port is a slot (its [`PortId`]) in the tables and the worker, a configuration, counters that outlive
//! reconnects, and an [`Attachment`]: the guest's socket, or the network device. Opening goes strictly
//! check → open → worker → tables, closing the other way round, so that no table ever names a port that
//! the worker does not have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::port::Fault;
use labsw_dataplane::stats::{PortSnapshot, PortStats};
use labsw_dataplane::vhost::{Endpoint, EndpointState};
use labsw_switch::tables::PortRules;
use labsw_switch::{MAX_PORTS, PortId};
use mio::Token;

use super::open::{Attachment, OpenError, preflight};
use super::{FIRST_PORT, Switch};
use crate::api::{Error, PortState};
use crate::config::PortConfig;
use crate::device::Links;

/// One port.
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    pub(super) enabled: bool,
    pub(super) attachment: Attachment,
    stats: Arc<PortStats>,
    /// Why the worker took it out of service.
    fault: Option<String>,
}

impl Port {
    /// The counters since the port was added.
    pub(super) fn counters(&self) -> PortSnapshot {
        self.stats.snapshot()
    }

    /// What it is doing, and why it is not up.
    pub(super) fn state(&self, links: &mut Links) -> (PortState, Option<String>) {
        if !self.enabled {
            return (PortState::Down, Some("administratively down".to_owned()));
        }
        match &self.attachment {
            Attachment::Guest(endpoint) => {
                let status = endpoint.status();
                match status.state {
                    EndpointState::Up => (PortState::Up, None),
                    EndpointState::Waiting if status.connected => (
                        PortState::Down,
                        Some(status.reason.unwrap_or_else(|| "the guest's driver is not running".to_owned())),
                    ),
                    EndpointState::Waiting => {
                        (PortState::Down, Some(status.reason.unwrap_or_else(|| "no front end is connected".to_owned())))
                    }
                    EndpointState::Failed => (PortState::Failed, status.reason),
                }
            }
            Attachment::Device(device) => match (&self.fault, links.link_by_index(device.link.index)) {
                (Some(fault), _) => (PortState::Failed, Some(fault.clone())),
                (None, Err(error)) => (PortState::Failed, Some(error.to_string())),
                (None, Ok(None)) => (PortState::Failed, Some(format!("{} was removed", device.link.name))),
                (None, Ok(Some(link))) if !link.up => (PortState::Down, Some(format!("{} is set down", link.name))),
                (None, Ok(Some(link))) if !link.carrier => {
                    (PortState::Down, Some(format!("{} has no carrier: its other end is down", link.name)))
                }
                (None, Ok(Some(_))) => (PortState::Up, None),
            },
        }
    }

    /// The worker took the port out of service.
    pub(super) fn fault(&mut self, fault: &Fault, now: Instant) {
        self.fault = Some(fault.reason.clone());
        if let Attachment::Guest(endpoint) = &mut self.attachment {
            endpoint.fault(&fault.reason, now);
        }
    }

    fn rules(&self) -> PortRules {
        PortRules {
            vlan: self.config.vlan.clone(),
            link_local: self.config.link_local,
            mtu_bytes: self.config.mtu,
            enabled: self.enabled,
            mirror_only: self.config.mirror_only,
            ..PortRules::default()
        }
    }
}

impl Switch {
    /// Adds a port and lets frames pass.
    pub(super) fn add_port(&mut self, config: PortConfig) -> Result<(), Error> {
        let object = format!("port {:?}", config.name);
        let refused = |reason: String| Error::refused(object.clone(), reason);
        if self.ports.contains_key(&config.name) {
            return Err(refused("is there already; use `port set`, or `port del` first".to_owned()));
        }
        config
            .check_beside(self.ports.values().map(|port| &port.config), &self.config)
            .map_err(|error| refused(error.within(&format!("ports.{}", config.name))))?;
        preflight(&config, &self.config, &mut self.links)
            .map_err(|(key, reason)| refused(format!("{key}: {reason}")))?;
        let id = self.free_id().ok_or_else(|| refused(format!("a switch has at most {MAX_PORTS} ports")))?;
        let stats = Arc::new(PortStats::default());
        let name = config.name.clone();
        let attachment = self.open(id, &config, &stats).map_err(|error| refused(error.to_string()))?;
        self.ports.insert(name.clone(), Port { id, config, enabled: true, attachment, stats, fault: None });
        if let Err(error) = self.set_tables() {
            self.close_port(&name)?;
            return Err(error);
        }
        tracing::info!(port = name, "added");
        Ok(())
    }

    /// Removes a port and what was made for it.
    pub(super) fn delete_port(&mut self, name: &str) -> Result<(), Error> {
        self.port(name)?;
        if let Some((mirror, _)) = self.mirrors.iter().find(|(_, mirror)| mirror.config.names(name)) {
            return Err(Error::refused(
                format!("port {name:?}"),
                format!("mirror {mirror:?} uses it; remove the mirror first (labsw-ctl mirror del {mirror})"),
            ));
        }
        self.close_port(name)?;
        tracing::info!(port = name, "removed");
        Ok(())
    }

    /// Takes a port out of the tables and the worker, then closes it. Goes through to the end whatever fails.
    pub(super) fn close_port(&mut self, name: &str) -> Result<(), Error> {
        let Some(port) = self.ports.remove(name) else { return Ok(()) };
        let mut outcome = self.set_tables();
        let mut also = |result: Result<(), OpenError>| {
            if let (Ok(()), Err(error)) = (&outcome, result) {
                outcome = Err(Error::refused(format!("port {name:?}"), error.to_string()));
            }
        };
        match port.attachment {
            Attachment::Guest(endpoint) => {
                // Its rings are reset in the worker, so before the worker forgets the port.
                endpoint.close();
                also(self.link().remove_port(port.id).map_err(OpenError::from));
            }
            Attachment::Device(device) => {
                also(self.link().remove_port(port.id).map_err(OpenError::from));
                also(device.close(&mut self.links).map_err(OpenError::from));
            }
        }
        self.shared.fdb.remove_port(port.id);
        outcome
    }

    /// Changes settings of a port that frames can pass during: everything but what it is attached to.
    pub(super) fn set_port(&mut self, name: &str, config: PortConfig) -> Result<(), Error> {
        let port = self.ports.get_mut(name).ok_or_else(|| Error::not_found("port", name))?;
        if config.kind != port.config.kind || config.mtu != port.config.mtu {
            let reason =
                "only vlan, link_local and mirror_only can change while it runs; delete the port and add it anew";
            return Err(Error::refused(format!("port {name:?}"), reason));
        }
        let id = port.id;
        let before = std::mem::replace(&mut port.config, config);
        let outcome = self.set_tables();
        if outcome.is_ok() {
            self.shared.fdb.flush(None, Some(id));
        } else if let Some(port) = self.ports.get_mut(name) {
            port.config = before;
        }
        outcome
    }

    /// Switches a port on or off, within a burst.
    pub(super) fn set_port_state(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let port = self.ports.get_mut(name).ok_or_else(|| Error::not_found("port", name))?;
        port.enabled = up;
        let id = port.id;
        self.set_tables()?;
        if !up {
            self.shared.fdb.flush(None, Some(id));
        }
        Ok(())
    }

    /// The port of this name.
    pub(super) fn port(&self, name: &str) -> Result<&Port, Error> {
        self.ports.get(name).ok_or_else(|| Error::not_found("port", name))
    }

    /// The rules of every port, for the tables.
    pub(super) fn rules(&self) -> Vec<(PortId, PortRules)> {
        self.ports.values().map(|port| (port.id, port.rules())).collect()
    }

    fn free_id(&self) -> Option<PortId> {
        let highest = u16::try_from(MAX_PORTS).unwrap_or(u16::MAX);
        (0..highest).map(PortId).find(|id| self.ports.values().all(|port| port.id != *id))
    }

    /// Something happened on a guest's socket.
    pub(super) fn port_ready(&mut self, token: Token, now: Instant) {
        let slot = token.0.saturating_sub(FIRST_PORT) / 2;
        for endpoint in self.endpoints(|port| port.id.index() == slot) {
            endpoint.ready(token, now);
        }
    }

    /// Lets the guests' sockets do their timed work; returns how long until the next is due.
    pub(super) fn tick_ports(&mut self, now: Instant) -> Option<Duration> {
        self.endpoints(|_| true).filter_map(|endpoint| endpoint.tick(now)).min()
    }

    fn endpoints(&mut self, which: impl Fn(&Port) -> bool) -> impl Iterator<Item = &mut Endpoint> {
        self.ports.values_mut().filter(move |port| which(port)).filter_map(|port| match &mut port.attachment {
            Attachment::Guest(endpoint) => Some(&mut **endpoint),
            Attachment::Device(_) => None,
        })
    }
}
