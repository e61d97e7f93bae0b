//! The ports of the switch, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::worker::Output;
use labsw_switch::tables::PortRules;
use labsw_switch::{MAX_PORTS, PortId};
use mio::Token;

use super::flap::Flap;
use super::port::Port;
use super::queues::Queues;
use super::tokens::{port_tokens, slot_of};
use crate::api::Error;
use crate::config::PortConfig;

/// All ports.
#[derive(Default)]
pub(super) struct Ports {
    by_name: BTreeMap<String, Port>,
}

impl Ports {
    /// The port of this name.
    pub(super) fn get(&self, name: &str) -> Result<&Port, Error> {
        self.by_name.get(name).ok_or_else(|| Error::not_found("port", name))
    }

    /// The port of this name, to change it; otherwise like [`Ports::get`].
    pub(super) fn get_mut(&mut self, name: &str) -> Result<&mut Port, Error> {
        self.by_name.get_mut(name).ok_or_else(|| Error::not_found("port", name))
    }

    /// The port of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> Option<&Port> {
        self.by_name.get(name)
    }

    /// The port of this name, to change it; otherwise like [`Ports::find`].
    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Port> {
        self.by_name.get_mut(name)
    }

    /// The port that has this slot.
    pub(super) fn at(&self, id: PortId) -> Option<&Port> {
        self.by_name.values().find(|port| port.id == id)
    }

    /// The port that has this slot, to change it.
    pub(super) fn at_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.by_name.values_mut().find(|port| port.id == id)
    }

    /// All ports, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Port> + Clone {
        self.by_name.values()
    }

    /// All ports, to change them, by name.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Port> {
        self.by_name.values_mut()
    }

    /// The configurations of all ports.
    pub(super) fn configs(&self) -> impl Iterator<Item = &PortConfig> + Clone {
        self.by_name.values().map(|port| &port.config)
    }

    /// The names of all ports, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    /// The number of ports.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Adds a port, or puts it back.
    pub(super) fn put(&mut self, port: Port) {
        self.by_name.insert(port.config.name.clone(), port);
    }

    /// Removes a port from the list.
    pub(super) fn take(&mut self, name: &str) -> Option<Port> {
        self.by_name.remove(name)
    }

    /// Removes all ports from the list, in order.
    pub(super) fn take_all(&mut self) -> Vec<Port> {
        std::mem::take(&mut self.by_name).into_values().collect()
    }

    /// The rules of every port, for the tables.
    pub(super) fn rules(&self) -> Vec<(PortId, PortRules)> {
        self.by_name.values().map(|port| (port.id, port.rules())).collect()
    }

    /// The ports as the workers see them, by id. Frames are finished for those of which `sees_wire` is true.
    pub(super) fn outputs(&self, sees_wire: impl Fn(&str) -> bool) -> Arc<[Option<Output>]> {
        let count = self.by_name.values().map(|port| port.id.index() + 1).max().unwrap_or(0);
        let mut outputs = vec![None; count];
        for port in self.by_name.values() {
            if let Some(slot) = outputs.get_mut(port.id.index()) {
                let mut output = port.output();
                output.finished |= sees_wire(&port.config.name);
                *slot = Some(output);
            }
        }
        outputs.into()
    }

    /// The receive queues of every port.
    pub(super) fn queues(&mut self) -> impl Iterator<Item = (&str, PortId, &mut Queues)> {
        self.by_name.iter_mut().map(|(name, port)| (name.as_str(), port.id, &mut port.queues))
    }

    /// An id that no port has and that is not among the `unreturned`.
    pub(super) fn free_id(&self, unreturned: &BTreeSet<PortId>) -> Option<PortId> {
        let highest = u16::try_from(MAX_PORTS).unwrap_or(u16::MAX);
        let taken = |id: &PortId| self.by_name.values().any(|port| port.id == *id) || unreturned.contains(id);
        (0..highest).map(PortId).find(|id| !taken(id))
    }

    /// Handles an event on a port's descriptor.
    pub(super) fn ready(&mut self, token: Token, now: Instant) {
        let mut ports = self.by_name.values_mut();
        let port = ports.find(|port| port.id.index() == slot_of(token));
        if let Some(attachment) = port.and_then(|port| port.attached.to_mut()) {
            attachment.ready(token, now);
        }
    }

    /// Has a port whose sockets were registered with the control loop before it had its attachment take what has come
    /// until now.
    pub(super) fn catch_up(&mut self, name: &str) {
        if let Some(port) = self.by_name.get_mut(name)
            && let Some(attachment) = port.attached.to_mut()
        {
            let [listener, _] = port_tokens(port.id);
            attachment.ready(listener, Instant::now());
        }
    }

    /// Does the timed work of attachments; returns the time until the next is due.
    pub(super) fn tick(&mut self, now: Instant) -> Option<Duration> {
        self.by_name.values_mut().filter_map(|port| port.attached.to_mut()?.tick(now)).min()
    }

    /// The times at which waiting ports are to be tried again.
    pub(super) fn retries(&self) -> impl Iterator<Item = Instant> {
        self.by_name.values().filter_map(|port| port.attached.absence()?.retry_at())
    }

    /// When devices are to be looked at, whatever links do.
    pub(super) fn looks_due(&self) -> impl Iterator<Item = Instant> {
        self.by_name.values().filter_map(|port| port.attached.to()?.look_due())
    }

    /// The ports whose next flap is due, and true for each that comes up; their jobs advance to the next change.
    pub(super) fn flaps_due(&mut self, now: Instant) -> Vec<(String, bool)> {
        let due = self.by_name.iter_mut().filter_map(|(name, port)| {
            let up = !port.enabled;
            let flap = port.flap.as_mut().filter(|flap| flap.is_due(now))?;
            if flap.turn(up, now) {
                port.flap = None;
            }
            Some((name.clone(), up))
        });
        due.collect()
    }

    /// When the next flapping port changes.
    pub(super) fn next_flap(&self) -> Option<Instant> {
        self.by_name.values().filter_map(|port| port.flap.as_ref()).map(Flap::due).min()
    }
}
