//! The kernel fast path, as the switch runs it: which ports' gates are open.
//!
//! **How it works.** [`Switch::renew_gates`] finds out for every port whether anything but the forwarding database
//! decides about its frames, or looks at them, and opens or shuts its gate
//! ([`labsw_dataplane::fast_path`]). It runs after each change, before the reply to who asked for it, and in each turn
//! of the control loop, for states that change by themselves.
//!
//! **Invariant.** When a gate was shut, no program goes by it any more when [`Switch::renew_gates`] returns.

use std::sync::Arc;
use std::time::Duration;

use std::collections::BTreeSet;

use labsw_dataplane::fast_path::{self, FastPath, Passage, Record, Wires};
use labsw_switch::fdb::Fdb;

use super::attach;
use super::fabric::ageing_seconds;
use super::host::Host;
use super::port::Port;
use super::seed::random_seed;
use super::switch::Switch;
use crate::api::PortState;
use crate::config::{Accelerate, Config, PortConfig};

/// After a take-over all frames take the way through the switch for this long, so that those that have waited in queues
/// leave before others pass them in the kernel.
const AFTER_TAKE_OVER: Duration = Duration::from_millis(200);

/// The forwarding database: in memory that the programs read, if the configuration has ports for it and the kernel can.
pub(super) fn database(config: &Config, host: &mut Host) -> Fdb {
    let (capacity, ageing, seed) = (config.switch.mac_table_size, ageing_seconds(&config.switch), random_seed());
    let is_for_it = |port: &PortConfig| attach::of(&port.kind).wants_fast_path();
    if config.switch.accelerate == Accelerate::Auto && config.ports.iter().any(is_for_it) {
        match FastPath::new(capacity) {
            Ok(path) => {
                if let Some(fdb) = Fdb::in_memory(path.buckets(), capacity, ageing, seed) {
                    host.fast_path = Some(Arc::new(path));
                    return fdb;
                }
            }
            Err(error) => tracing::debug!(%error, "no kernel fast path"),
        }
    }
    Fdb::new(capacity, ageing, seed)
}

impl Port {
    /// The port's record, if its frames could pass in the kernel.
    pub(super) fn fast_path(&self) -> Option<&'static Record> {
        self.attached.to().and_then(|attachment| attachment.wires()).and_then(Wires::record)
    }

    /// Has every frame take the way through the switch, and counts those that did not. For a port that loses its
    /// attachment.
    pub(super) fn leave_fast_path(&mut self) {
        if self.fast_path().is_some_and(Record::shut) {
            fast_path::settle();
        }
        self.counters();
    }
}

impl Switch {
    /// Opens and shuts gates as the present state of the switch wants it.
    pub(super) fn renew_gates(&mut self) {
        let Some(path) = &self.fabric.fast_path else { return };
        path.set_ageing(self.fabric.shared.fdb.ageing_seconds());
        let (mut shut, mut open) = (false, Vec::new());
        let watched = self.captures.watched(self.view());
        for port in self.ports.iter() {
            let Some(record) = port.fast_path() else { continue };
            match self.gate(port, &watched) {
                Ok(passage) if record.is_open_for(&passage) => {}
                Ok(passage) => {
                    shut |= record.shut();
                    open.push((record, passage));
                }
                Err(_) => shut |= record.shut(),
            }
        }
        if shut {
            fast_path::settle();
        }
        for (record, passage) in open {
            record.open(&passage);
        }
    }

    /// Has every frame take the way through the switch, until gates are renewed.
    pub(super) fn shut_gates(&self) {
        let shut = self.ports.iter().filter_map(Port::fast_path).filter(|record| record.shut()).count();
        if shut > 0 {
            fast_path::settle();
        }
    }

    /// The passage for which a port's gate is open, or why it is shut. Captures and rewinds watch the ports `watched`.
    fn gate(&self, port: &Port, watched: &BTreeSet<String>) -> Result<Passage, &'static str> {
        let vlans = match port {
            _ if self.config.accelerate == Accelerate::Off => Err("switch.accelerate is off"),
            _ if port.fast_path().is_none() => Err("the kernel, or the processor, can't"),
            _ if port.state().0 != PortState::Up => Err("the port is not up"),
            _ if self.taken_over.is_some_and(|at| at.elapsed() < AFTER_TAKE_OVER) => Err("the process is new"),
            _ if port.impaired.is_some() => Err("the port is impaired"),
            _ if port.config.finish_checksums => Err("frames to the port are finished"),
            _ if watched.contains(&port.config.name) => Err("a capture or a rewind watches the port"),
            _ => self.fabric.tables.lone_vlans(port.id),
        }?;
        let attachment = port.attached.to().ok_or("the port is not up")?;
        let (ifindex, _) = attachment.device().ok_or("the port is not up")?;
        Ok(Passage { ifindex, station: attachment.station(), vlans })
    }

    /// The word of `port show`: `on`, or why not.
    pub(super) fn fast_path_of(&self, port: &Port) -> Option<String> {
        port.attached.to()?.wires()?;
        let watched = self.captures.watched(self.view());
        Some(self.gate(port, &watched).map_or_else(|why| format!("off: {why}"), |_| "on".to_owned()))
    }
}
