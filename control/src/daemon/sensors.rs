//! Sensors put into the wires of ports and taken out, passed by when they die and put back when they live again.
//!
//! [`Switch::follow_sensors`] runs in each turn of the control loop, which waits for no device: nothing that the device
//! thread does delays it.

use super::errand::Errand;
use super::switch::Switch;
use crate::api::Error;
use crate::config::InlineConfig;

impl Switch {
    /// Tells the workers which sensors there are.
    pub(super) fn set_sensors(&self) -> Result<(), Error> {
        let set = self.fabric.workers.links().set_sensors(&self.inlines.sensors());
        set.map_err(|error| Error::refused("worker", error.to_string()))
    }

    /// Sends frames through sensors or past them, as their states want it, if that has changed.
    pub(super) fn follow_sensors(&mut self) {
        if self.inlines.is_empty() || self.inlines.specs(&self.ports) == self.inlines_in_force {
            return;
        }
        if let Err(error) = self.set_tables() {
            tracing::error!(%error, "the way of a port's frames is not renewed");
        }
    }
}

impl Errand<'_> {
    /// Puts a sensor into the wire of a port, or changes it.
    pub(super) fn set_inline(&mut self, config: InlineConfig) -> Result<(), Error> {
        let (name, through) = (config.name.clone(), config.through.clone());
        let Switch { inlines, ports, mirrors, .. } = &mut **self;
        let before = inlines.enter(config, ports, mirrors)?;
        if let Err(error) = self.set_tables().and_then(|()| self.set_sensors()) {
            self.inlines.take(&name);
            before.into_iter().for_each(|before| self.inlines.put(before));
            return Err(error);
        }
        // The sensor's ports take no other traffic from now on, so no address can be at them.
        for port in through {
            let id = self.ports.get(&port)?.id;
            self.forget_learned(id);
        }
        Ok(())
    }

    /// Takes a sensor out of the wire of a port.
    pub(super) fn delete_inline(&mut self, name: &str) -> Result<(), Error> {
        let inline = self.inlines.take(name).ok_or_else(|| Error::not_found("inline", name))?;
        if let Err(error) = self.set_tables().and_then(|()| self.set_sensors()) {
            self.inlines.put(inline);
            return Err(error);
        }
        Ok(())
    }
}
