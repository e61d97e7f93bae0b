//! Changes the running switch: rules, MTU and attachments of ports, mirrors, impairments.
//!
//! VLANs, `link_local`, `mirror_only`, `allow_mirror`, guards and `finish_checksums` are in the snapshot that workers
//! decide and send by: a change is a new one, and no frame is lost. The MTU is a rule, too, but the interfaces and the
//! guest's session have it as well. They are raised before the tables and lowered after them, so that the interface
//! takes every frame that the tables let pass. All other settings describe the attachment: a change takes the
//! attachment from the port and gives it another (*re-attached*). The port keeps its id, counters, mirrors, static
//! addresses and pins, like a port whose device goes and comes back.
//!
//! **Invariant.** A change that fails leaves the port as it was. If even the former attachment can't be given back, the
//! port waits and is tried again every second.

use super::attach::{self, Absence, Attached, OpenError};
use super::errand::Errand;
use super::impairments::Impaired;
use super::preflight::{needs_memory, preflight};
use super::service::absence_of;
use super::switch::Switch;
use crate::api::{Error, PortDirection};
use crate::config::{ImpairConfig, MirrorConfig, PortConfig};

impl Errand<'_> {
    /// Changes a port. A detached port gets an attachment again.
    pub(super) fn set_port(&mut self, name: &str, config: PortConfig) -> Result<(), Error> {
        let port = self.ports.get(name)?;
        let (id, before) = (port.id, port.config.clone());
        self.mirrors.check_change(&before, &config)?;
        self.inlines.check_port(&config)?;
        if port.detached || !config.is_attached_like(&before, &self.config) || self.needs_new_sockets(name, config.mtu)
        {
            return self.attach_anew(name, config);
        }
        let (mtu, moved) = (config.mtu, config.vlan != before.vlan || config.mirror_only != before.mirror_only);
        if mtu > before.mtu {
            self.resize(name, before.mtu, mtu)?;
        }
        if let Err(error) = self.set_rules(name, config) {
            if mtu > before.mtu {
                self.resize(name, mtu, before.mtu)?;
            }
            return Err(error);
        }
        if mtu < before.mtu
            && let Err(error) = self.resize(name, before.mtu, mtu)
        {
            self.set_rules(name, before)?;
            return Err(error);
        }
        if moved {
            self.forget_learned(id);
        }
        Ok(())
    }

    /// Gives the interfaces of a port another MTU; on an error they keep `from`.
    fn resize(&mut self, name: &str, from: u32, to: u32) -> Result<(), Error> {
        let outcome = self.resize_to(name, to);
        if outcome.is_err()
            && let Err(error) = self.resize_to(name, from)
        {
            tracing::warn!(port = name, %error, "the MTU is not as it was");
        }
        outcome.map_err(|error| Error::refused(format!("port {name:?}"), error.to_string()))
    }

    fn resize_to(&mut self, name: &str, mtu: u32) -> Result<(), OpenError> {
        let Some(work) = self.ports.find(name).and_then(|port| Some(port.attached.to()?.set_mtu(mtu))) else {
            return Ok(());
        };
        self.away(work)?;
        if let Some(attachment) = self.ports.find_mut(name).and_then(|port| port.attached.to_mut()) {
            attachment.has_mtu(mtu);
        }
        Ok(())
    }

    /// Gives a port the attachment and the rules of `config`. On an error the port has its former attachment again.
    fn attach_anew(&mut self, name: &str, config: PortConfig) -> Result<(), Error> {
        self.check_attachable(&config)?;
        let port = self.ports.get(name)?;
        let (before, was_detached) = (port.config.clone(), port.detached);
        if !was_detached {
            self.detach_port(name)?;
        }
        let set = |errand: &mut Errand<'_>, config: PortConfig| {
            if let Some(port) = errand.ports.find_mut(name) {
                port.config = config;
            }
        };
        set(self, config);
        let outcome = self.attach_port(name);
        if outcome.is_err() {
            set(self, before);
            if !was_detached {
                self.reattach_port(name);
            }
        }
        outcome
    }

    /// Checks that a port could be attached as `config` says, as far as that shows without doing so: on this machine,
    /// and beside the other ports. Detached ports need nothing, so they do not count.
    pub(super) fn check_attachable(&mut self, config: &PortConfig) -> Result<(), Error> {
        let refused = |reason: String| Error::refused(format!("port {:?}", config.name), reason);
        let others = self.ports.iter().filter(|port| !port.detached && port.config.name != config.name);
        config
            .check_beside(others.map(|port| &port.config), &self.config)
            .map_err(|error| refused(error.within(&format!("ports.{}", config.name))))?;
        self.mirrors.check_vlans_beside(config)?;
        if let Some(device) = attach::of(&config.kind).device()
            && let Ok(Some(link)) = self.away(|host| host.links.resolve(device))
        {
            let has_it =
                |attachment: &dyn attach::Attachment| attachment.device().is_some_and(|(index, _)| index == link.index);
            let mut others = self.ports.iter().filter(|port| port.config.name != config.name);
            if let Some(other) = others.find(|port| port.attached.to().is_some_and(has_it)) {
                let reason = format!("device: {device} is {}, which port {} has", link.name, other.config.name);
                return Err(refused(format!("{reason}; each port needs its own")));
            }
        }
        let switch = self.config.clone();
        self.away(|host| {
            preflight(config, &switch, &mut host.links).map_err(|(key, reason)| refused(format!("{key}: {reason}")))?;
            match needs_memory(std::slice::from_ref(config)) {
                true => host.require_memory().map_err(|error| refused(error.to_string())),
                false => Ok(()),
            }
        })
    }

    /// Takes the attachment from a port. Goes through to the end even if a step fails.
    pub(super) fn detach_port(&mut self, name: &str) -> Result<(), Error> {
        let port = self.ports.get_mut(name)?;
        let id = port.id;
        let tx = port.tx.take();
        port.detached = true;
        let tables = self.set_tables();
        drop(tx);
        self.leave_fast_path(name);
        let Some(mut port) = self.ports.take(name) else { return tables };
        let pins = port.pins();
        let (released, taken) = port.release(Absence::detached(pins), &self.fabric);
        self.ports.put(port);
        self.forget_learned(id);
        let placed = self.place_queues();
        let closed = self.away(|host| released.close(host));
        tables.and(taken).and(closed).and(placed)
    }

    /// Attaches a detached port as its configuration says. On an error it stays detached.
    fn attach_port(&mut self, name: &str) -> Result<(), Error> {
        let port = self.ports.get(name)?;
        let (enabled, pins) = (port.enabled, port.pins());
        let opened = self.open(name).map_err(|error| absence_of(error, &format!("port {name:?}")));
        let Some(port) = self.ports.find_mut(name) else { return Ok(()) };
        let opened = match opened {
            Ok(opened) => opened,
            Err(absence) => {
                port.attached = Attached::Waiting(absence?.with_pins(pins));
                port.detached = false;
                return self.set_tables();
            }
        };
        port.detached = false;
        if let Err(error) = self.put_in(name, opened, pins) {
            self.detach_port(name)?;
            return Err(error);
        }
        if !enabled {
            self.show_port_state(name);
        }
        Ok(())
    }

    /// Gives a port its attachment back, now or as soon as possible.
    pub(super) fn reattach_port(&mut self, name: &str) {
        let outcome = self.attach_port(name);
        if let (Err(error), Some(port)) = (outcome, self.ports.find_mut(name)) {
            tracing::error!(port = name, %error, "not attached again yet");
            port.detached = false;
            if let Some(absence) = port.attached.absence_mut() {
                absence.retry();
            }
        }
    }
}

impl Switch {
    /// Puts new rules of a port in force.
    fn set_rules(&mut self, name: &str, config: PortConfig) -> Result<(), Error> {
        let port = self.ports.get_mut(name)?;
        let before = std::mem::replace(&mut port.config, config);
        let outcome = self.set_tables();
        if let (Err(_), Some(port)) = (&outcome, self.ports.find_mut(name)) {
            port.config = before;
        }
        outcome
    }

    /// True if the port's sockets were opened for smaller frames than this MTU allows.
    fn needs_new_sockets(&self, name: &str, mtu: u32) -> bool {
        let attachment = self.ports.find(name).and_then(|port| port.attached.to());
        attachment.is_some_and(|attachment| !attachment.takes_mtu(mtu))
    }

    /// Makes or replaces a session; forwarding loses no frame.
    pub(super) fn set_mirror(&mut self, config: MirrorConfig) -> Result<(), Error> {
        let (name, to) = (config.name.clone(), config.to.clone());
        self.inlines.check_mirror(&config)?;
        let before = self.mirrors.enter(config, &self.ports, &self.fabric)?;
        if let Err(error) = self.set_tables() {
            self.mirrors.take(&name);
            before.into_iter().for_each(|before| self.mirrors.put(before));
            return Err(error);
        }
        // The destination takes no other traffic from now on, so no address can be at it; an RSPAN VLAN has no lookups
        // either.
        if let Some(to) = to.port().and_then(|to| self.ports.find(to)) {
            self.forget_learned(to.id);
        }
        if let Some(vid) = to.vlan() {
            self.fabric.shared.fdb.flush(Some(vid), None);
        }
        Ok(())
    }

    /// Ends a session.
    pub(super) fn delete_mirror(&mut self, name: &str) -> Result<(), Error> {
        let mirror = self.mirrors.take(name).ok_or_else(|| Error::not_found("mirror", name))?;
        if let Err(error) = self.set_tables() {
            self.mirrors.put(mirror);
            return Err(error);
        }
        Ok(())
    }

    /// Impairs a port in the directions that `config` names, from the first frame; the other direction stays as it is.
    pub(super) fn impair(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let name = config.port.clone();
        let impaired = Impaired::over(self.ports.get(&name)?.impaired.as_ref(), config)?;
        self.replace_impairment(&name, Some(impaired))
    }

    /// Sets the impairment of a port. A direction with the same settings as before goes on.
    pub(super) fn set_impairment(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let name = config.port.clone();
        let impaired = Impaired::following(self.ports.get(&name)?.impaired.as_ref(), config)?;
        self.replace_impairment(&name, Some(impaired))
    }

    /// Ends the impairment of a port, or of one direction of it.
    pub(super) fn clear_impairment(&mut self, name: &str, direction: Option<PortDirection>) -> Result<(), Error> {
        let impaired = self.ports.get(name)?.impaired.as_ref();
        let left = impaired.and_then(|impaired| impaired.without(direction).ok());
        let left = left.ok_or_else(|| Error::not_found("impairment of port", name))?;
        self.replace_impairment(name, left)
    }

    /// Replaces the impairment of a port, or ends it.
    fn replace_impairment(&mut self, name: &str, impaired: Option<Impaired>) -> Result<(), Error> {
        let port = self.ports.get_mut(name)?;
        let before = std::mem::replace(&mut port.impaired, impaired);
        if let Err(error) = self.set_tables() {
            if let Some(port) = self.ports.find_mut(name) {
                port.impaired = before;
            }
            return Err(error);
        }
        Ok(())
    }
}
