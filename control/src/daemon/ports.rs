//! Ports over their life: looked at, opened, handed to the workers, changed, in fault, closed.
//!
//! A port is a slot (its [`PortId`]) in the tables and the workers, a configuration, counters that outlive reconnects,
//! what it is attached to ([`Attached`]), a transmit side that all workers share, and receive queues that are spread
//! over them. Opening goes check → open → tables and transmit side (one snapshot) → receive queues, closing the other
//! way round, so that no worker receives a frame of a port that it can't count, and the last to hold a half of a port
//! is this thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::backoff::Backoff;
use labsw_dataplane::port::{Fault, TxPort};
use labsw_dataplane::stats::{PortSnapshot, PortStats};
use labsw_dataplane::vhost_user::Endpoint;
use labsw_dataplane::worker::Output;
use labsw_dataplane::workers::WorkerError;
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::guard::{GuardState, Guards};
use labsw_switch::tables::PortRules;
use labsw_switch::{MAX_PORTS, PortId};
use mio::Token;

use super::attach::{self, Absence, Attached, Halves, OnFault, OpenError, Opened, Site};
use super::destinations::Destination;
use super::devices::loss_backoff;
use super::flap::Flap;
use super::impairments::Impaired;
use super::queues::Queues;
use super::{FIRST_PORT, Switch};
use crate::api::{Error, PortState};
use crate::config::PortConfig;

/// One port.
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    pub(super) enabled: bool,
    pub(super) attached: Attached,
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
    /// Its state, as the log has it.
    pub(super) reported: Option<PortState>,
    /// How its device is waited for that is lost again and again.
    pub(super) losses: Backoff,
}

impl Port {
    /// The counters since the port was added.
    pub(super) fn counters(&self) -> PortSnapshot {
        self.stats.snapshot()
    }

    /// Adds what a process that was taken over from had counted.
    pub(super) fn add_before(&self, counted: &PortSnapshot) {
        self.stats.add_before(counted);
    }

    /// What the kernel counted since the port was added, if it is one that has sockets for that.
    pub(super) fn kernel_counters(&self) -> Option<XdpCounters> {
        attach::of(&self.config.kind).has_sockets().then(|| {
            let mut sum = self.kernel_before;
            self.attached.to().and_then(attach::Attachment::kernel_counters).into_iter().for_each(|now| sum += now);
            sum
        })
    }

    /// What it is doing, and why it is not up. Nobody is asked: what is known of devices is renewed by news.
    pub(super) fn state(&self) -> (PortState, Option<String>) {
        if !self.enabled {
            let reason = if self.flap.is_some() { "flapping" } else { "administratively down" };
            return (PortState::Down, Some(reason.to_owned()));
        }
        match &self.attached {
            Attached::To(attachment) => attachment.state(),
            Attached::Waiting(absence) => absence.state(),
        }
    }

    /// Forgets the faults of its front ends and the losses of its device: the next one is served, or opened, without a
    /// wait.
    pub(super) fn forgive(&mut self) {
        self.losses.clear();
        match &mut self.attached {
            Attached::To(attachment) => attachment.forgive(Instant::now()),
            Attached::Waiting(absence) => absence.forgive(),
        }
    }

    /// The workers that its queues are pinned to.
    pub(super) fn pins(&self) -> Vec<Option<usize>> {
        match &self.attached {
            Attached::Waiting(absence) => absence.before.pins.clone(),
            Attached::To(_) => self.queues.places.iter().map(|place| place.pinned).collect(),
        }
    }

    /// Has what was opened, with its queues pinned like this.
    pub(super) fn attach(&mut self, opened: Opened, pins: Vec<Option<usize>>) {
        self.attached = Attached::To(opened.attachment);
        (self.tx, self.queues) = (Some(opened.tx), opened.queues);
        for (place, pin) in self.queues.places.iter_mut().zip(pins) {
            place.pinned = pin;
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
            enabled: self.enabled && self.attached.to().is_none_or(|attachment| attachment.link_up()),
            mirror_only: self.config.mirror_only,
            allow_mirror: self.config.allow_mirror,
            guards: Guards::new(self.config.guards.clone(), &self.guard_state),
            inject: self.destination.gate.clone(),
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
        self.check_attachable(&config)?;
        let name = config.name.clone();
        let id = self.enter_port(config)?;
        let opened = match self.open(&name) {
            Err(error) if !error.is_absence() => {
                self.ports.remove(&name);
                return Err(refused(error.to_string()));
            }
            other => other,
        };
        let Some(port) = self.ports.get_mut(&name) else { return Ok(()) };
        match opened {
            Ok(opened) => port.attach(opened, Vec::new()),
            Err(error) => {
                tracing::info!(port = name, reason = %error, "waiting");
                port.attached = Attached::Waiting(Absence::because(&error));
            }
        }
        let placed = self.set_tables().and_then(|()| self.place_queues().map_err(|error| refused(error.to_string())));
        if let Err(error) = placed {
            self.close_port(&name)?;
            return Err(error);
        }
        tracing::info!(port = name, id = id.0, "added");
        Ok(())
    }

    /// Gives a port a place among the others. It is attached to nothing, and in no table yet.
    pub(super) fn enter_port(&mut self, config: PortConfig) -> Result<PortId, Error> {
        let full =
            || Error::refused(format!("port {:?}", config.name), format!("a switch has at most {MAX_PORTS} ports"));
        let id = self.free_id().ok_or_else(full)?;
        let name = config.name.clone();
        let port = Port {
            id,
            config,
            enabled: true,
            attached: Attached::Waiting(Absence::opening()),
            tx: None,
            queues: Queues::none(),
            stats: Arc::new(PortStats::new(self.fabric.workers.handles().len())),
            impaired: None,
            flap: None,
            guard_state: Arc::default(),
            over_limit_reported: 0,
            detached: false,
            kernel_before: XdpCounters::default(),
            destination: Destination::default(),
            reported: None,
            losses: loss_backoff(),
        };
        self.ports.insert(name, port);
        Ok(id)
    }

    /// Opens what a port is attached to, as its configuration says. On an error nothing is left of it.
    pub(super) fn open(&mut self, name: &str) -> Result<Opened, OpenError> {
        // A NIC's driver may start anew when a program is attached.
        self.beat_early();
        let Switch { ports, host, fabric, config: switch, .. } = self;
        let Some(port) = ports.get(name) else { return Err(OpenError::Removed(name.to_owned())) };
        let mut site = Site { host, fabric, switch };
        attach::of(&port.config.kind).open(port.id, &port.config, &mut site)
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
            self.fabric.unreturned.insert(port.id);
        }
        self.forget_learned(port.id);
        self.fabric.shared.fdb.remove_port(port.id);
        let placed = self.place_queues().map_err(|error| Error::refused(format!("port {name:?}"), error.to_string()));
        tables.and(released).and(placed)
    }

    /// Closes what a port is attached to that is in no table, or in them without a transmit side; `absence` stands
    /// there then. Goes through to the end whatever fails; also says whether no worker has anything of the port any
    /// more.
    pub(super) fn release(&mut self, port: &mut Port, absence: Absence) -> (Result<(), Error>, bool) {
        // A guest's rings are reset by the workers that have its queues, so before they are taken away.
        if let Some(endpoint) = port.attached.to_mut().and_then(|attachment| attachment.endpoint()) {
            endpoint.hang_up();
        }
        let (rx, taken) = self.fabric.take_queues(port.id, &mut port.queues);
        port.destination = Destination::default();
        let halves = Halves { tx: port.tx.take(), rx };
        let gone = taken.is_ok();
        let closed = match std::mem::replace(&mut port.attached, Attached::Waiting(absence)) {
            Attached::To(attachment) => {
                attachment.kernel_counters().into_iter().for_each(|counted| port.kernel_before += counted);
                attachment.close(halves, &mut self.host)
            }
            Attached::Waiting(absence) => absence.close(&mut self.host),
        };
        let outcome = taken.map_err(OpenError::from).and(closed);
        (outcome.map_err(|error| Error::refused(format!("port {:?}", port.config.name), error.to_string())), gone)
    }

    /// A worker found that a port can't go on: notes why; everything else runs on.
    pub(super) fn port_fault(&mut self, id: PortId, fault: &Fault) {
        let Some((name, port)) = self.ports.iter_mut().find(|(_, port)| port.id == id) else { return };
        let Some(attachment) = port.attached.to_mut() else { return };
        // Both halves, or several workers, may have met it.
        match attachment.fault(fault, Instant::now()) {
            OnFault::Old => {}
            OnFault::GoesOn => tracing::warn!(port = name, reason = %fault, "port fault"),
            OnFault::Lost => {
                // The worker may be the first to see that the device has gone.
                let gone = attachment.device().is_some_and(|(index, _)| self.host.links.has_gone(index));
                let name = name.clone();
                self.lose(&name, (!gone).then_some(fault.reason.as_str()));
            }
        }
    }

    /// Takes the halves of a port that stays in the tables: what is sent to it is dropped and counted. Also says
    /// whether that went as it should.
    pub(super) fn take_out(&mut self, name: &str) -> (Halves, Result<(), Error>) {
        let Some(port) = self.ports.get_mut(name) else { return (Halves::default(), Ok(())) };
        let tx = port.tx.take();
        let outcome = self.set_tables();
        let Some(mut port) = self.ports.remove(name) else { return (Halves { tx, rx: Vec::new() }, outcome) };
        let failed = |error: WorkerError| Error::refused("worker", error.to_string());
        let (rx, taken) = self.fabric.take_queues(port.id, &mut port.queues);
        self.ports.insert(name.to_owned(), port);
        let placed = self.place_queues().map_err(failed);
        let taken = taken.map_err(failed);
        (Halves { tx, rx }, outcome.and(taken).and(placed))
    }

    /// Puts a port in service with what was opened, and its queues pinned as before.
    pub(super) fn put_in(&mut self, name: &str, opened: Opened, pins: Vec<Option<usize>>) -> Result<(), Error> {
        let Some(port) = self.ports.get_mut(name) else { return Ok(()) };
        port.attach(opened, pins);
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
        let taken = |id: &PortId| self.ports.values().any(|port| port.id == *id) || self.fabric.unreturned.contains(id);
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
        let ports = self.ports.values_mut().filter(move |port| which(port));
        ports.filter_map(|port| port.attached.to_mut()?.endpoint())
    }

    /// Writes to the log which ports have another state than a second ago.
    pub(super) fn report_states(&mut self) {
        for (name, port) in &mut self.ports {
            let (state, reason) = port.state();
            if port.reported.replace(state).is_some_and(|before| before != state) {
                let reason = reason.unwrap_or_default();
                tracing::info!(port = name, %state, reason, "state changed");
            }
        }
    }
}
