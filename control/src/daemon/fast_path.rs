//! The kernel fast path, as the switch runs it: which ports' gates are open.
//!
//! **How it works.** [`Switch::renew_gates`] finds out for every port whether anything but the forwarding database
//! decides about its frames, or looks at them, and opens or shuts its gate
//! ([`labsw_dataplane::fast_path`]). It runs after each change, before the reply to who asked for it, and in each turn
//! of the control loop, for states that change by themselves.
//!
//! A program that has read a gate before it was shut goes by it for a while. The kernel says when that is over, which
//! takes tens of milliseconds, and far longer on a busy machine. The device thread waits for it, and others have the
//! switch meanwhile ([`Errand::settle_gates`]).
//!
//! **Invariants.** A gate is opened only when all gates that were shut have settled. Whoever asked for a change, or for
//! a capture, is answered after that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use labsw_dataplane::fast_path::{self, FastPath, Passage, Record, Wires};
use labsw_switch::fdb::Fdb;

use super::attach;
use super::errand::Errand;
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
}

impl Switch {
    /// Opens and shuts gates as the present state of the switch wants it; none is opened before all have settled.
    pub(super) fn renew_gates(&mut self) {
        let Some(path) = &self.fabric.fast_path else { return };
        path.set_ageing(self.fabric.shared.fdb.ageing_seconds());
        let (mut shut, mut open) = (0, Vec::new());
        let watched = self.captures.watched(self.view());
        for port in self.ports.iter() {
            let Some(record) = port.fast_path() else { continue };
            match self.gate(port, &watched) {
                Ok(passage) if record.is_open_for(&passage) => {}
                wanted => {
                    shut += u64::from(record.shut());
                    open.extend(wanted.ok().map(|passage| (record, passage)));
                }
            }
        }
        self.settling.shut += shut;
        if self.settling.is_over() {
            open.iter().for_each(|(record, passage)| record.open(passage));
        }
    }

    /// Has every frame take the way through the switch, until gates are renewed.
    pub(super) fn shut_gates(&mut self) {
        let shut = self.ports.iter().filter_map(Port::fast_path).filter(|record| record.shut()).count();
        self.settling.shut += shut as u64;
        if !self.settling.is_over() {
            fast_path::settle();
            self.settling.settled_up_to(self.settling.shut);
        }
    }

    /// The passage for which a port's gate is open, or why it is shut. Captures and rewinds watch the ports `watched`.
    fn gate(&self, port: &Port, watched: &BTreeSet<String>) -> Result<Passage, &'static str> {
        let vlans = match port {
            _ if self.config.accelerate == Accelerate::Off => Err("switch.accelerate is off"),
            _ if port.fast_path().is_none() => Err("the kernel, or the processor, can't"),
            _ if port.state().0 != PortState::Up || port.detached || port.tx.is_none() => Err("the port is not up"),
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

impl Errand<'_> {
    /// Waits until no program goes by a gate any more that was shut, and opens those that may be open. Others have the
    /// switch meanwhile.
    pub(super) fn settle_gates(&mut self) {
        if self.settling.is_over() {
            return;
        }
        let shut = self.settling.shut;
        self.away(|_| fast_path::settle());
        self.settling.settled_up_to(shut);
        self.renew_gates();
    }

    /// Has every frame of a port take the way through the switch, and counts those that did not. For a port that loses
    /// its attachment: it is detached, or has no transmit side any more, so its gate stays shut.
    pub(super) fn leave_fast_path(&mut self, name: &str) {
        let Some(record) = self.ports.find(name).and_then(Port::fast_path) else { return };
        self.settling.shut += u64::from(record.shut());
        self.settle_gates();
        self.ports.find(name).map(Port::counters);
    }
}
