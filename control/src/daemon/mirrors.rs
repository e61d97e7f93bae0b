//! Mirror sessions, and the tables they are part of.
//!
//! A session keeps the names of its ports: if a port goes and comes back, or was never there, the session waits and is
//! armed again by the next tables. Counters are kept under the session's [`MirrorId`]; slots are
//! reused, so a session remembers what stood there when it began.

use std::sync::Arc;

use labsw_dataplane::stats::MirrorSnapshot;
use labsw_switch::tables::{Direction, MirrorSpec, MirrorTo, Tables};
use labsw_switch::{MAX_MIRRORS, MirrorId};

use super::Switch;
use crate::api::Error;
use crate::config::{self, MirrorConfig, PortConfig};

/// One session.
#[derive(Clone)]
pub(super) struct Mirror {
    pub(super) id: MirrorId,
    pub(super) config: MirrorConfig,
    /// What the slot's counters showed when the session began.
    before: MirrorSnapshot,
}

impl Switch {
    /// Makes or replaces a session, with no frame of the forwarding lost.
    pub(super) fn set_mirror(&mut self, config: MirrorConfig) -> Result<(), Error> {
        let (name, to) = (config.name.clone(), config.to.clone());
        let before = self.enter_mirror(config)?;
        if let Err(error) = self.set_tables() {
            self.mirrors.remove(&name);
            self.mirrors.extend(before.map(|before| (name, before)));
            return Err(error);
        }
        // From now on it takes no other traffic, so nothing can be at it; nor is anything looked up in an RSPAN VLAN.
        if let Some(to) = to.port().and_then(|to| self.ports.get(to)) {
            self.forget_learned(to.id);
        }
        if let Some(vid) = to.vlan() {
            self.fabric.shared.fdb.flush(Some(vid), None);
        }
        tracing::info!(mirror = name, %to, "set");
        Ok(())
    }

    /// Gives a session a place among the others; the next tables have it. Gives the one it replaces.
    pub(super) fn enter_mirror(&mut self, config: MirrorConfig) -> Result<Option<Mirror>, Error> {
        let refused = |reason: String| Error::refused(format!("mirror {:?}", config.name), reason);
        let names: Vec<&str> = self.ports.keys().map(String::as_str).collect();
        if let Some((key, port)) = config.missing_port(&names) {
            return Err(refused(format!(
                "{key}: there is no port {port:?}; `labsw-ctl port list` shows those there are"
            )));
        }
        let ports = self.ports.values().map(|port| &port.config);
        let others = self.mirrors.values().map(|mirror| &mirror.config);
        config.check_beside(others, ports).map_err(|error| refused(error.to_string()))?;
        let before = self.mirrors.remove(&config.name);
        let mirror = match &before {
            // The same session goes on: so do its counters.
            Some(before) => Mirror { id: before.id, config: config.clone(), before: before.before },
            None => {
                let id =
                    self.free_mirror().ok_or_else(|| refused(format!("a switch has at most {MAX_MIRRORS} mirrors")))?;
                Mirror { id, config: config.clone(), before: self.fabric.mirror_slot(id) }
            }
        };
        self.mirrors.insert(config.name, mirror);
        Ok(before)
    }

    /// Whether a port may have these settings beside the VLANs that copies go to.
    pub(super) fn check_rspan_beside(&self, port: &PortConfig) -> Result<(), Error> {
        let in_the_way = self.mirrors.values().find(|mirror| mirror.config.check_vlan_beside(port).is_err());
        let Some(mirror) = in_the_way else { return Ok(()) };
        let (vlan, mirror) = (&mirror.config.to, &mirror.config.name);
        let reason = format!("vlan.tag: copies of mirror {mirror:?} go to {vlan}, where the port would be cut off");
        Err(Error::refused(
            format!("port {:?}", port.name),
            format!("{reason}; take another VLAN, or remove the mirror (labsw-ctl mirror del {mirror})"),
        ))
    }

    /// Ends a session.
    pub(super) fn delete_mirror(&mut self, name: &str) -> Result<(), Error> {
        let mirror = self.mirrors.remove(name).ok_or_else(|| Error::not_found("mirror", name))?;
        if let Err(error) = self.set_tables() {
            self.mirrors.insert(name.to_owned(), mirror);
            return Err(error);
        }
        tracing::info!(mirror = name, "removed");
        Ok(())
    }

    /// The counters of a session since it began.
    pub(super) fn mirror_counters(&self, mirror: &Mirror) -> MirrorSnapshot {
        self.fabric.mirror_slot(mirror.id).since(&mirror.before)
    }

    /// Builds tables from what is there now, and puts them in force at all workers.
    pub(super) fn set_tables(&mut self) -> Result<(), Error> {
        self.set_destinations();
        let specs = self.mirrors.values().map(|mirror| self.spec(mirror)).collect();
        let tables = Tables::build(self.rules(), specs).map_err(|error| Error::refused("tables", error.to_string()))?;
        let (tables, outputs) = (self.with_snooping(tables), self.outputs());
        let set = self.fabric.set_snapshot(tables, outputs);
        set.map_err(|error| Error::refused("worker", error.to_string()))?;
        self.set_learning_rules();
        self.follow_captures()
    }

    fn spec(&self, mirror: &Mirror) -> MirrorSpec {
        let id_of = |name: &str| self.ports.get(name).map(|port| port.id);
        let mut all_ports = None;
        let mut sources = Vec::new();
        for source in &mirror.config.sources {
            let direction = Direction { rx: source.rx, tx: source.tx };
            if source.port == "*" {
                all_ports = Some(direction);
            } else if let Some(id) = id_of(&source.port) {
                sources.push((id, direction));
            }
        }
        MirrorSpec {
            id: mirror.id,
            sources,
            all_ports,
            vlans: mirror.config.vlans.clone(),
            to: match &mirror.config.to {
                config::MirrorTo::Port(port) => id_of(port).map(MirrorTo::Port),
                config::MirrorTo::Vlan { vid, .. } => Some(MirrorTo::Vlan(*vid)),
            },
            snaplen_bytes: mirror.config.snaplen,
            filter: mirror.config.filter.as_ref().map(|filter| Arc::clone(filter.filter())),
        }
    }

    fn free_mirror(&self) -> Option<MirrorId> {
        let highest = u16::try_from(MAX_MIRRORS).unwrap_or(u16::MAX);
        (0..highest).map(MirrorId).find(|id| self.mirrors.values().all(|mirror| mirror.id != *id))
    }
}
