//! Ports in and out of service: added, opened, handed to the workers, switched on and off, closed.
//!
//! Opening goes: check, open, tables and transmit side (one snapshot), receive queues. Closing goes the other way
//! round. A worker therefore never receives a frame of a port that it can't count, and the device thread is the last to
//! hold a half of a port.

use std::time::{Duration, Instant};

use labsw_dataplane::workers::WorkerError;
use labsw_switch::{MAX_PORTS, PortId};

use super::attach::{self, Absence, Attached, Halves, OpenError, Opened, Site};
use super::errand::Errand;
use super::flap::Flap;
use super::port::Port;
use super::switch::Switch;
use crate::api::Error;
use crate::config::PortConfig;

impl Errand<'_> {
    /// Adds a port and lets its frames pass.
    pub(super) fn add_port(&mut self, config: PortConfig) -> Result<(), Error> {
        let object = format!("port {:?}", config.name);
        let refused = |reason: String| Error::refused(object.clone(), reason);
        if self.ports.find(&config.name).is_some() {
            return Err(refused("is there already; use `port set`, or `port del` first".to_owned()));
        }
        self.check_attachable(&config)?;
        let name = config.name.clone();
        self.enter_port(config)?;
        let opened = match self.open(&name) {
            Err(error) if !error.is_absence() => {
                // Somebody may inject or capture at it already.
                self.close_port(&name)?;
                return Err(refused(error.to_string()));
            }
            other => other,
        };
        let Some(port) = self.ports.find_mut(&name) else { return Ok(()) };
        match opened {
            Ok(opened) => port.attach(opened, Vec::new()),
            Err(error) => {
                port.attached = Attached::Waiting(Absence::because(&error));
            }
        }
        let placed = self.set_tables().and_then(|()| self.place_queues());
        if let Err(error) = placed {
            self.close_port(&name)?;
            return Err(error);
        }
        self.ports.catch_up(&name);
        Ok(())
    }

    /// Opens the attachment of a port, as its configuration says. On an error nothing that was opened is left.
    pub(super) fn open(&mut self, name: &str) -> Result<Opened, OpenError> {
        let Some(port) = self.ports.find(name) else { return Err(OpenError::Removed(name.to_owned())) };
        let (id, config, switch) = (port.id, port.config.clone(), self.config.clone());
        let (workers, fdb) = (self.fabric.workers.links(), self.fabric.shared.fdb.layout());
        self.away(|host| {
            let mut site = Site { host, workers, fdb, switch: &switch };
            attach::of(&config.kind).open(id, &config, &mut site)
        })
    }

    /// Removes a port and everything made for it.
    pub(super) fn delete_port(&mut self, name: &str) -> Result<(), Error> {
        self.ports.get(name)?;
        if let Some(mirror) = self.mirrors.user_of(name) {
            return Err(Error::refused(
                format!("port {name:?}"),
                format!("mirror {mirror:?} uses it; remove the mirror first (labsw-ctl mirror del {mirror})"),
            ));
        }
        if let Some(inline) = self.inlines.user_of(name) {
            return Err(Error::refused(
                format!("port {name:?}"),
                format!("inline {inline:?} uses it; take the sensor out first (labsw-ctl inline del {inline})"),
            ));
        }
        self.close_port(name)
    }

    /// Takes a port out of the tables and the workers, then closes it. Goes through to the end even if a step fails.
    pub(super) fn close_port(&mut self, name: &str) -> Result<(), Error> {
        let Some(port) = self.ports.find_mut(name) else { return Ok(()) };
        port.detached = true;
        self.leave_fast_path(name);
        let Some(mut port) = self.ports.take(name) else { return Ok(()) };
        let Switch { injections, fabric, .. } = &mut **self;
        injections.end_of(port.id, fabric);
        let tables = self.set_tables();
        let (released, taken) = port.release(Absence::detached(Vec::new()), &self.fabric);
        if tables.is_err() || taken.is_err() {
            self.fabric.unreturned.insert(port.id);
        }
        self.forget_learned(port.id);
        self.fabric.shared.fdb.remove_port(port.id);
        let placed = self.place_queues();
        let closed = self.away(|host| released.close(host));
        tables.and(taken).and(closed).and(placed)
    }

    /// Closes all ports, for a switch that ends, and calls `closed` after each. They leave the tables together: one
    /// after the other would cost each of them a look at all others.
    pub(super) fn close_all(&mut self, mut closed: impl FnMut()) {
        self.shut_gates();
        let ports = self.ports.take_all();
        let Switch { injections, fabric, .. } = &mut **self;
        ports.iter().for_each(|port| injections.end_of(port.id, fabric));
        if let Err(error) = self.set_tables() {
            tracing::warn!(%error, "the workers still know the ports");
        }
        for mut port in ports {
            let (released, taken) = port.release(Absence::detached(Vec::new()), &self.fabric);
            if let Err(error) = self.away(|host| released.close(host)).and(taken) {
                tracing::warn!(port = port.config.name, %error, "not closed cleanly");
            }
            closed();
        }
    }

    /// Enables or disables a port within a burst, and shows the state at the link where possible.
    pub(super) fn set_port_state(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let port = self.ports.get_mut(name)?;
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

    /// Shows a container the state of its port. The switch does not set a device of the host down, and a vhost-user
    /// back end can't set a guest's link state.
    pub(super) fn show_port_state(&mut self, name: &str) {
        let Some(port) = self.ports.find(name) else { return };
        let enabled = port.enabled;
        let Some(work) = port.attached.to().and_then(|attachment| attachment.show_enabled(enabled)) else { return };
        let outcome = self.away(work);
        let attachment = self.ports.find_mut(name).and_then(|port| port.attached.to_mut());
        match (outcome, attachment) {
            (Ok(()), Some(attachment)) => attachment.shows_enabled(enabled),
            (Ok(()), None) => {}
            (Err(error), _) => tracing::warn!(port = name, %error, "the link does not show the port's state"),
        }
    }

    /// Enables or disables a port by hand, which ends its flapping. An enabled port serves its next front end, or opens
    /// its device, at once, whatever faults there were.
    pub(super) fn switch_port(&mut self, name: &str, up: bool) -> Result<(), Error> {
        let port = self.ports.get_mut(name)?;
        port.flap = None;
        if up {
            port.forgive();
        }
        self.set_port_state(name, up)
    }

    /// Makes a port go down and up `count` times, once in `every`, beginning at once. This ends a former job of the
    /// port.
    pub(super) fn flap_port(&mut self, name: &str, every: Duration, count: u32) -> Result<(), Error> {
        self.ports.get(name)?;
        let flap = Flap::new(name, every, count)?;
        self.set_port_state(name, false)?;
        if let Some(port) = self.ports.find_mut(name) {
            port.flap = Some(flap);
        }
        Ok(())
    }

    /// Carries out the flaps that are due.
    pub(super) fn flap(&mut self, now: Instant) {
        for (name, up) in self.ports.flaps_due(now) {
            if let Err(error) = self.set_port_state(&name, up) {
                tracing::error!(port = name, %error, "flapping");
            }
        }
    }
}

impl Switch {
    /// Adds a port to the list. It has no attachment and is in no table yet.
    pub(super) fn enter_port(&mut self, config: PortConfig) -> Result<PortId, Error> {
        let full =
            || Error::refused(format!("port {:?}", config.name), format!("a switch has at most {MAX_PORTS} ports"));
        let id = self.ports.free_id(&self.fabric.unreturned).ok_or_else(full)?;
        self.ports.put(Port::new(id, config, self.fabric.workers.handles().len()));
        Ok(id)
    }

    /// Takes the halves of a port that stays in the tables: frames sent to it are dropped and counted. The result says
    /// whether the workers gave everything back.
    pub(super) fn take_out(&mut self, name: &str) -> (Halves, Result<(), Error>) {
        let Some(port) = self.ports.find_mut(name) else { return (Halves::default(), Ok(())) };
        let tx = port.tx.take();
        let outcome = self.set_tables();
        let Some(mut port) = self.ports.take(name) else { return (Halves { tx, rx: Vec::new() }, outcome) };
        let failed = |error: WorkerError| Error::refused("worker", error.to_string());
        let (rx, taken) = self.fabric.take_queues(port.id, &mut port.queues);
        self.ports.put(port);
        let placed = self.place_queues();
        let taken = taken.map_err(failed);
        (Halves { tx, rx }, outcome.and(taken).and(placed))
    }

    /// Puts a port in service with the attachment that was opened, its queues pinned as before.
    pub(super) fn put_in(&mut self, name: &str, opened: Opened, pins: Vec<Option<usize>>) -> Result<(), Error> {
        let Some(port) = self.ports.find_mut(name) else { return Ok(()) };
        port.attach(opened, pins);
        self.set_tables()?;
        self.place_queues()?;
        self.ports.catch_up(name);
        Ok(())
    }

    /// Pins a queue to a worker until its port goes.
    pub(super) fn pin_queue(&mut self, name: &str, queue: u32, worker: u32) -> Result<(), Error> {
        let count = self.fabric.workers.handles().len();
        let port = self.ports.get_mut(name)?;
        let queues = port.queues.places.len();
        let index = usize::try_from(queue).unwrap_or(usize::MAX);
        let placed = port.queues.places.get_mut(index).ok_or_else(|| {
            let reason = match queues {
                0 => "has no receive queues while it is out of service".to_owned(),
                _ => format!("there is no queue {queue}; it has {}", numbers("queue", queues)),
            };
            Error::refused(format!("port {name:?}"), reason)
        })?;
        let to = usize::try_from(worker).ok().filter(|worker| *worker < count).ok_or_else(|| {
            let reason = format!("there is no such worker; the switch has {}", numbers("worker", count));
            Error::refused(format!("worker {worker}"), reason)
        })?;
        let before = placed.pinned.replace(to);
        self.place_queues().inspect_err(|_| {
            let port = self.ports.find_mut(name);
            if let Some(placed) = port.and_then(|port| port.queues.places.get_mut(index)) {
                placed.pinned = before;
            }
        })
    }
}

/// `queue 0`, `queues 0 to 3`.
fn numbers(what: &str, count: usize) -> String {
    if count == 1 { format!("{what} 0") } else { format!("{what}s 0 to {}", count.saturating_sub(1)) }
}

/// The absence of a port's attachment, or the refusal if the error is no absence.
pub(super) fn absence_of(error: OpenError, object: &str) -> Result<Absence, Error> {
    match error.is_absence() {
        true => Ok(Absence::because(&error)),
        false => Err(Error::refused(object, error.to_string())),
    }
}
