//! Keeps the states of ports for the case of a crash, and goes on with those that a dead process left
//! ([`super::store`]).
//!
//! **How it works.** Once a turn, the control thread writes the states that have changed since the last turn into the
//! store. A process that was started after a crash opens its ports as at any start, except those whose state it found:
//! they are taken over from the dead process.
//!
//! **Invariant.** A state is used only for a port with the very settings that it was kept with.

use labsw_dataplane::handover::{Given, Taken};

use super::Daemon;
use super::port::Port;
use super::store::{Found, close, lock};
use super::switch::Switch;
use crate::takeover::state::{KeptPort, PortState};

impl Switch {
    /// Keeps the states of guests' ports that have changed.
    pub(super) fn keep_ports(&mut self) {
        let Switch { store, ports, .. } = self;
        if !store.is_open {
            return;
        }
        for port in ports.iter_mut() {
            let Some(revision) = port.attached.to().and_then(|attachment| attachment.revision()) else { continue };
            if store.has(&port.config.name, revision) {
                continue;
            }
            let mut given = Given::default();
            let attached = port.attached.to().and_then(|attachment| attachment.hand_over(&mut given));
            let state = PortState { enabled: port.enabled, pins: port.pins(), attached, ..PortState::default() };
            let kept = KeptPort { settings: settings(port), port: state };
            match store.keep(&port.config.name, revision, kept, given.descriptors()) {
                Ok(None) => {}
                Ok(Some(writer)) => {
                    if let Some(attachment) = port.attached.to_mut() {
                        attachment.tell_changes(Box::new(move || lock(&writer).mark_stale()));
                    }
                }
                Err(error) => tracing::warn!(port = port.config.name, %error, "its guest will have to connect again \
                    after a crash"),
            }
        }
        store.retain(|name| ports.find(name).is_some_and(|port| port.attached.to().is_some()));
    }
}

/// The settings of a port, as a text that is the same if they are.
fn settings(port: &Port) -> String {
    format!("{:?}", port.config)
}

impl Daemon {
    /// Serves the guests of a dead process where they stood. A port that does not fit is opened like any other.
    pub fn recover(&mut self, found: Found) {
        let Daemon { host, control } = self;
        let mut switch = control.switch.lock();
        let mut recovered = 0;
        for (name, (kept, descriptors)) in found.0 {
            if switch.ports.find(&name).is_none_or(|port| settings(port) != kept.settings) {
                tracing::info!(port = name, "its guest has to connect again: the port has other settings");
                close(descriptors);
                continue;
            }
            match switch.settle_port(host, &name, kept.port, &mut Taken::new(descriptors)) {
                Ok(()) => recovered += 1,
                Err(error) => tracing::warn!(port = name, error, "its guest has to connect again"),
            }
            let port = switch.ports.find_mut(&name);
            if let Some(attachment) = port.and_then(|port| port.attached.to_mut()) {
                attachment.notify_once_resumed();
            }
        }
        if recovered == 0 {
            return;
        }
        if let Err(error) = switch.set_tables() {
            tracing::error!(%error, "the ports of a dead process are in no tables yet");
        }
        switch.resume_ports();
        tracing::info!(ports = recovered, "guests of a process that died are served where they stood");
    }
}
