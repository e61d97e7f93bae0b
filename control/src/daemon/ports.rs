//! Ports over their life: looked at, opened, handed to the workers, changed, in fault, closed.
//!
//! A port is a slot (its [`PortId`]) in the tables and the workers, a configuration, counters that outlive
//! reconnects, an [`Attachment`] (the guest's socket, or the network device), a transmit side that all workers share
//! and receive queues that are spread over them. Opening goes strictly check → open → tables and transmit side (one
//! snapshot) → receive queues, closing the other way round, so that no worker receives a frame of a port that it can't
//! count, and the last to hold a half of a port is this thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::handle::WorkerError;
use labsw_dataplane::port::{Fault, TxPort};
use labsw_dataplane::stats::{PortSnapshot, PortStats};
use labsw_dataplane::vhost::{Endpoint, EndpointState, EndpointStatus};
use labsw_dataplane::worker::Output;
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::guard::{GuardState, Guards};
use labsw_switch::tables::PortRules;
use labsw_switch::{MAX_PORTS, PortId};
use mio::Token;

use super::destinations::Destination;
use super::devices::Absence;
use super::flap::Flap;
use super::impairments::Impaired;
use super::open::{Attachment, Halves, OpenError, Opened};
use super::placement::Queues;
use super::{FIRST_PORT, Switch};
use crate::api::{Error, PortState};
use crate::config::{PortConfig, PortKind};
use crate::device::Links;

/// One port.
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    pub(super) enabled: bool,
    pub(super) attachment: Attachment,
    /// `None` while it is out of service.
    pub(super) tx: Option<Arc<dyn TxPort>>,
    pub(super) queues: Queues,
    stats: Arc<PortStats>,
    pub(super) impaired: Option<Impaired>,
    /// It goes down and up by itself.
    pub(super) flap: Option<Flap>,
    /// What its guards have seen.
    pub(super) guard_state: Arc<GuardState>,
    /// How many of the frames beyond its learning limit were reported.
    pub(super) over_limit_reported: u64,
    /// Its attachment was taken from it, to be given back or replaced within the same change.
    pub(super) detached: bool,
    /// What the kernel counted at devices that are closed.
    pub(super) kernel_before: XdpCounters,
    /// What it has as the destination of mirrors.
    pub(super) destination: Destination,
    /// Its device is set up, as far as is known; a guest's port has none that could be down.
    pub(super) link_up: bool,
}

impl Port {
    /// The counters since the port was added.
    pub(super) fn counters(&self) -> PortSnapshot {
        self.stats.snapshot()
    }

    /// What the kernel counted since the port was added, if it is one that has sockets for that.
    pub(super) fn kernel_counters(&self) -> Option<XdpCounters> {
        if !matches!(self.config.kind, PortKind::AfXdp(_) | PortKind::Veth(_)) {
            return None;
        }
        let mut sum = self.kernel_before;
        if let Attachment::Device(device) = &self.attachment {
            sum += device.kernel_counters();
        }
        Some(sum)
    }

    /// What it is doing, and why it is not up.
    pub(super) fn state(&self, links: &mut Links) -> (PortState, Option<String>) {
        if !self.enabled {
            let reason = if self.flap.is_some() { "flapping" } else { "administratively down" };
            return (PortState::Down, Some(reason.to_owned()));
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
                    EndpointState::Failed => (PortState::Failed, fault_reason(status)),
                }
            }
            Attachment::Absent(absence) => (PortState::Waiting, Some(absence.reason.clone())),
            Attachment::Device(device) => match links.link_by_index(device.link.index) {
                Err(error) => (PortState::Down, Some(error.to_string())),
                Ok(None) => (PortState::Waiting, Some(format!("{} was removed", device.link.name))),
                Ok(Some(link)) if !link.up => (PortState::Down, Some(format!("{} is set down", link.name))),
                Ok(Some(link)) if !link.carrier => {
                    (PortState::Down, Some(format!("{} has no carrier: its other end is down", link.name)))
                }
                Ok(Some(_)) => (PortState::Up, None),
            },
            Attachment::Tap(tap) => tap.state(links),
        }
    }

    /// Forgets the faults of its front ends or its device: the next one is served, or opened, without a wait.
    pub(super) fn forgive(&mut self) {
        match &mut self.attachment {
            Attachment::Guest(endpoint) => endpoint.forgive(Instant::now()),
            Attachment::Device(_) | Attachment::Absent(_) | Attachment::Tap(_) => {}
        }
    }

    /// As the workers see it.
    fn output(&self) -> Output {
        let mut output = Output::new(self.destination.before(self.tx.as_ref()), Arc::clone(&self.stats));
        if let Some(impaired) = &self.impaired {
            output.impaired_rx = impaired.rx().cloned();
            if let Some(delay) = impaired.tx() {
                output = output.impaired_by(Arc::clone(delay));
            }
        }
        output
    }

    fn rules(&self) -> PortRules {
        PortRules {
            vlan: self.config.vlan.clone(),
            link_local: self.config.link_local,
            mtu_bytes: self.config.mtu,
            enabled: self.enabled && self.link_up,
            mirror_only: self.config.mirror_only,
            allow_mirror: self.config.allow_mirror,
            guards: Guards::new(self.config.guards.clone(), &self.guard_state),
            inject: self.destination.gate.clone(),
            ..PortRules::default()
        }
    }
}

/// Why a guest's port failed, and how long the next front end has to wait if that is worth a word.
fn fault_reason(status: EndpointStatus) -> Option<String> {
    let reason = status.reason?;
    Some(match status.waits.filter(|wait| *wait >= Duration::from_secs(1)) {
        Some(wait) => format!("{reason}; the next front end is served in {:.0} s", wait.as_secs_f32().ceil()),
        None => reason,
    })
}

impl Switch {
    /// Adds a port and lets frames pass.
    pub(super) fn add_port(&mut self, config: PortConfig) -> Result<(), Error> {
        let object = format!("port {:?}", config.name);
        let refused = |reason: String| Error::refused(object.clone(), reason);
        if self.ports.contains_key(&config.name) {
            return Err(refused("is there already; use `port set`, or `port del` first".to_owned()));
        }
        self.check_attachable(&config)?;
        let id = self.free_id().ok_or_else(|| refused(format!("a switch has at most {MAX_PORTS} ports")))?;
        let stats = Arc::new(PortStats::new(self.workers.handles().len()));
        let name = config.name.clone();
        let Opened { attachment, tx, queues } = match self.open(id, &config) {
            Ok(opened) => opened,
            Err(error) => Opened { attachment: Switch::absent(error, &object)?, tx: None, queues: Queues::none() },
        };
        if let Attachment::Absent(absence) = &attachment {
            tracing::info!(port = name, reason = absence.reason, "waiting");
        }
        let port = Port {
            id,
            config,
            enabled: true,
            attachment,
            tx,
            queues,
            stats,
            impaired: None,
            flap: None,
            guard_state: Arc::default(),
            over_limit_reported: 0,
            detached: false,
            kernel_before: XdpCounters::default(),
            destination: Destination::default(),
            link_up: true,
        };
        self.ports.insert(name.clone(), port);
        let placed = self.set_tables().and_then(|()| self.place_queues().map_err(|error| refused(error.to_string())));
        if let Err(error) = placed {
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

    /// Takes a port out of the tables and the workers, then closes it. Goes through to the end whatever fails.
    pub(super) fn close_port(&mut self, name: &str) -> Result<(), Error> {
        let Some(mut port) = self.ports.remove(name) else { return Ok(()) };
        self.end_injections_of(port.id);
        let tables = self.set_tables();
        let (released, gone) = self.release(&mut port, Absence::detached(Vec::new()));
        if tables.is_err() || !gone {
            self.unreturned.insert(port.id);
        }
        self.forget_learned(port.id);
        self.shared.fdb.remove_port(port.id);
        let placed = self.place_queues().map_err(|error| Error::refused(format!("port {name:?}"), error.to_string()));
        tables.and(released).and(placed)
    }

    /// Closes what a port is attached to that is in no table, or in them without a transmit side; `absence` stands there
    /// then. Goes through to the end whatever fails; also says whether no worker has anything of the port any more.
    pub(super) fn release(&mut self, port: &mut Port, absence: Absence) -> (Result<(), Error>, bool) {
        // A guest's rings are reset by the workers that have its queues, so before they are taken away.
        if let Attachment::Guest(endpoint) = &mut port.attachment {
            endpoint.hang_up();
        }
        let (rx, taken) = self.take_queues(port);
        port.destination = Destination::default();
        let halves = Halves { tx: port.tx.take(), rx };
        let gone = taken.is_ok();
        let closed = match std::mem::replace(&mut port.attachment, Attachment::Absent(absence)) {
            Attachment::Guest(endpoint) => {
                halves.close();
                endpoint.close();
                Ok(())
            }
            Attachment::Device(device) => {
                port.kernel_before += device.kernel_counters();
                device.close(halves, &mut self.links, &mut self.ledger).map_err(OpenError::from)
            }
            Attachment::Absent(absence) => absence.close(&mut self.links).map_err(OpenError::from),
            Attachment::Tap(tap) => {
                halves.close();
                tap.close(&mut self.links).map_err(OpenError::from)
            }
        };
        let outcome = taken.map_err(OpenError::from).and(closed);
        (outcome.map_err(|error| Error::refused(format!("port {:?}", port.config.name), error.to_string())), gone)
    }

    /// A worker found that a port can't go on: notes why; everything else runs on.
    pub(super) fn port_fault(&mut self, id: PortId, fault: &Fault) {
        let Some((name, port)) = self.ports.iter_mut().find(|(_, port)| port.id == id) else { return };
        let (connection, index) = match &mut port.attachment {
            Attachment::Guest(endpoint) => {
                if endpoint.fault(fault, Instant::now()) {
                    tracing::warn!(port = name, reason = %fault, "port fault");
                }
                return;
            }
            Attachment::Tap(tap) => (tap.connection, tap.index()),
            Attachment::Device(device) => (device.connection, device.link.index),
            Attachment::Absent(_) => return,
        };
        // Both halves, or several workers, may have met it.
        if connection == fault.connection {
            let name = name.clone();
            // The worker may be the first to see that the device has gone.
            let reason = (!self.links.has_gone(index)).then_some(fault.reason.as_str());
            self.lose(&name, reason);
        }
    }

    /// Takes the halves of a port that stays in the tables: what is sent to it is dropped and counted. Also says whether
    /// that went as it should.
    pub(super) fn take_out(&mut self, name: &str) -> (Halves, Result<(), Error>) {
        let Some(port) = self.ports.get_mut(name) else { return (Halves::default(), Ok(())) };
        let tx = port.tx.take();
        let outcome = self.set_tables();
        let Some(mut port) = self.ports.remove(name) else { return (Halves { tx, rx: Vec::new() }, outcome) };
        let failed = |error: WorkerError| Error::refused("worker", error.to_string());
        let (rx, taken) = self.take_queues(&mut port);
        self.ports.insert(name.to_owned(), port);
        let placed = self.place_queues().map_err(failed);
        (Halves { tx, rx }, outcome.and(taken.map_err(failed)).and(placed))
    }

    /// Puts a port in service.
    pub(super) fn put_in(&mut self, name: &str, opened: Opened) -> Result<(), Error> {
        let Some(port) = self.ports.get_mut(name) else { return Ok(()) };
        (port.attachment, port.tx, port.queues) = (opened.attachment, opened.tx, opened.queues);
        port.link_up = true;
        self.set_tables()?;
        self.place_queues().map_err(|error| Error::refused("worker", error.to_string()))
    }

    /// Switches a port on or off, within a burst, and shows it to whom it can.
    pub(super) fn set_port_state(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let port = self.ports.get_mut(name).ok_or_else(|| Error::not_found("port", name))?;
        port.enabled = up;
        let id = port.id;
        if up {
            self.show_port_state(name);
        }
        self.set_tables()?;
        if !up {
            self.show_port_state(name);
            self.forget_learned(id);
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

    /// The ports as the workers see them, by id.
    pub(super) fn outputs(&self) -> Arc<[Option<Output>]> {
        let count = self.ports.values().map(|port| port.id.index() + 1).max().unwrap_or(0);
        let mut outputs = vec![None; count];
        for port in self.ports.values() {
            if let Some(slot) = outputs.get_mut(port.id.index()) {
                *slot = Some(port.output());
            }
        }
        outputs.into()
    }

    /// An id that no port has, nor any worker that did not answer in time.
    fn free_id(&self) -> Option<PortId> {
        let highest = u16::try_from(MAX_PORTS).unwrap_or(u16::MAX);
        let taken = |id: &PortId| self.ports.values().any(|port| port.id == *id) || self.unreturned.contains(id);
        (0..highest).map(PortId).find(|id| !taken(id))
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
            Attachment::Device(_) | Attachment::Tap(_) | Attachment::Absent(_) => None,
        })
    }
}
