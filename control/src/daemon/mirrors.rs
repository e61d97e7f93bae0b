//! Mirror sessions.
//!
//! A session keeps the names of its ports: if a port goes, or was never there, the session waits until tables with the
//! port arm it again. Counters are kept under the session's [`MirrorId`]. Slots are reused, so a session remembers its
//! slot's counters from when it began.

use std::collections::BTreeMap;
use std::sync::Arc;

use labsw_dataplane::stats::MirrorSnapshot;
use labsw_switch::inject::{IngressAs, InjectSpec};
use labsw_switch::tables::{Direction, MirrorSpec, MirrorTo};
use labsw_switch::{MAX_MIRRORS, MirrorId};

use super::destinations::Wanted;
use super::fabric::Fabric;
use super::ports::Ports;
use crate::api::Error;
use crate::config::{self, InjectConfig, InjectEntry, MirrorConfig, PortConfig};
use crate::derived_mac;

/// One session.
#[derive(Clone)]
pub(super) struct Mirror {
    pub(super) id: MirrorId,
    pub(super) config: MirrorConfig,
    /// The slot's counters when the session began.
    before: MirrorSnapshot,
}

impl Mirror {
    /// The counters since the session began.
    pub(super) fn counters(&self, fabric: &Fabric) -> MirrorSnapshot {
        fabric.mirror_slot(self.id).since(&self.before)
    }

    /// The session in the form that the tables take.
    fn spec(&self, ports: &Ports) -> MirrorSpec {
        let id_of = |name: &str| ports.find(name).map(|port| port.id);
        let mut all_ports = None;
        let mut sources = Vec::new();
        for source in &self.config.sources {
            let direction = Direction { rx: source.rx, tx: source.tx };
            if source.port == "*" {
                all_ports = Some(direction);
            } else if let Some(id) = id_of(&source.port) {
                sources.push((id, direction));
            }
        }
        MirrorSpec {
            id: self.id,
            sources,
            all_ports,
            vlans: self.config.vlans.clone(),
            to: match &self.config.to {
                config::MirrorTo::Port(port) => id_of(port).map(MirrorTo::Port),
                config::MirrorTo::Remote(remote) => id_of(&remote.port).map(MirrorTo::Port),
                config::MirrorTo::Vlan { vid, .. } => Some(MirrorTo::Vlan(*vid)),
            },
            snaplen_bytes: self.config.snaplen,
            filter: self.config.filter.as_ref().map(|filter| Arc::clone(filter.filter())),
        }
    }
}

/// All sessions, by name.
#[derive(Clone, Default)]
pub(super) struct Mirrors {
    by_name: BTreeMap<String, Mirror>,
}

impl Mirrors {
    /// The session of this name.
    pub(super) fn get(&self, name: &str) -> Result<&Mirror, Error> {
        self.by_name.get(name).ok_or_else(|| Error::not_found("mirror", name))
    }

    /// All sessions, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Mirror> + Clone {
        self.by_name.values()
    }

    /// The configurations of all sessions.
    pub(super) fn configs(&self) -> impl Iterator<Item = &MirrorConfig> + Clone {
        self.by_name.values().map(|mirror| &mirror.config)
    }

    /// Puts a session back in place of the one with its name.
    pub(super) fn put(&mut self, mirror: Mirror) {
        self.by_name.insert(mirror.config.name.clone(), mirror);
    }

    /// Removes a session from the list.
    pub(super) fn take(&mut self, name: &str) -> Option<Mirror> {
        self.by_name.remove(name)
    }

    /// Adds a session; it takes effect with the next tables. Returns the session that it replaces.
    pub(super) fn enter(
        &mut self,
        config: MirrorConfig,
        ports: &Ports,
        fabric: &Fabric,
    ) -> Result<Option<Mirror>, Error> {
        let refused = |reason: String| Error::refused(format!("mirror {:?}", config.name), reason);
        let names: Vec<&str> = ports.configs().map(|port| port.name.as_str()).collect();
        if let Some((key, port)) = config.missing_port(&names) {
            return Err(refused(format!(
                "{key}: there is no port {port:?}; `labsw-ctl port list` shows those there are"
            )));
        }
        config.check_beside(self.configs(), ports.configs()).map_err(|error| refused(error.to_string()))?;
        let before = self.take(&config.name);
        let mirror = match &before {
            // The session goes on under its name, and so do its counters.
            Some(before) => Mirror { id: before.id, config, before: before.before },
            None => {
                let full = || refused(format!("a switch has at most {MAX_MIRRORS} mirrors"));
                let id = self.free_id().ok_or_else(full)?;
                Mirror { id, config, before: fabric.mirror_slot(id) }
            }
        };
        self.put(mirror);
        Ok(before)
    }

    fn free_id(&self) -> Option<MirrorId> {
        let highest = u16::try_from(MAX_MIRRORS).unwrap_or(u16::MAX);
        (0..highest).map(MirrorId).find(|id| self.by_name.values().all(|mirror| mirror.id != *id))
    }

    /// Checks that the port does not have the VLAN of a mirror's copies as its VLAN for untagged frames.
    pub(super) fn check_vlans_beside(&self, port: &PortConfig) -> Result<(), Error> {
        let Some(mirror) = self.configs().find(|mirror| mirror.check_vlan_beside(port).is_err()) else { return Ok(()) };
        let (vlan, mirror) = (&mirror.to, &mirror.name);
        let reason = format!("vlan.tag: copies of mirror {mirror:?} go to {vlan}, where the port would be cut off");
        Err(Error::refused(
            format!("port {:?}", port.name),
            format!("{reason}; take another VLAN, or remove the mirror (labsw-ctl mirror del {mirror})"),
        ))
    }

    /// Checks that a port may be changed to these settings while mirrors use it.
    pub(super) fn check_change(&self, before: &PortConfig, port: &PortConfig) -> Result<(), Error> {
        let name = &port.name;
        let refused = |reason: String| Err(Error::refused(format!("port {name:?}"), reason));
        if port.mirror_only && !before.mirror_only {
            if let Some(mirror) = self.configs().find(|mirror| mirror.enters_as() == Some(name.as_str())) {
                return refused(format!("mirror {:?} injects frames as its, so it can't be mirror_only", mirror.name));
            }
            let has_it = |mirror: &&MirrorConfig| mirror.sources.iter().any(|source| source.port == *name);
            if let Some(mirror) = self.configs().find(has_it) {
                return refused(format!("mirror {:?} has it as a source, so it can't be mirror_only", mirror.name));
            }
        }
        if port.vlan != before.vlan {
            self.check_vlans_beside(port)?;
        }
        match self.user_of(name).filter(|_| !port.allow_mirror) {
            None => Ok(()),
            Some(mirror) => refused(format!(
                "mirror {mirror:?} uses it, so allow_mirror can't be false; remove the mirror first (labsw-ctl mirror \
                 del {mirror})"
            )),
        }
    }

    /// The name of a session that uses this port.
    pub(super) fn user_of(&self, port: &str) -> Option<&str> {
        self.configs().find(|mirror| mirror.names(port)).map(|mirror| mirror.name.as_str())
    }

    /// True if a session sends copies to this port.
    pub(super) fn send_to(&self, port: &str) -> bool {
        self.configs().any(|mirror| mirror.to.port() == Some(port))
    }

    /// True if a port sends mirror copies, or is reserved for them (`mirror_only`).
    pub(super) fn has_copies_sent_by(&self, port: &PortConfig) -> bool {
        port.mirror_only || self.send_to(&port.name)
    }

    /// The sessions in the form that the tables take.
    pub(super) fn specs(&self, ports: &Ports) -> Vec<MirrorSpec> {
        self.iter().map(|mirror| mirror.spec(ports)).collect()
    }

    /// Gives every mirror destination its parts, and takes them from ports that are no destinations any more.
    pub(super) fn set_destinations(&self, ports: &mut Ports) {
        // Only frames that some port takes in can be mirrored.
        let largest_mtu = ports.configs().map(|port| port.mtu).max().unwrap_or(0);
        let wanted: Vec<Option<Wanted>> = ports.configs().map(|port| self.wanted_at(&port.name, ports)).collect();
        for (port, wanted) in ports.iter_mut().zip(wanted) {
            port.destination.follow(&port.config, port.tx.as_ref(), wanted, largest_mtu);
        }
    }

    /// The parts that a port needs as a mirror destination, if it is one.
    fn wanted_at(&self, port: &str, ports: &Ports) -> Option<Wanted> {
        let to_it = || self.configs().filter(|mirror| mirror.to.port() == Some(port));
        let inject = to_it().find_map(|mirror| mirror.inject.as_ref());
        to_it().next().map(|mirror| Wanted {
            inject: inject.and_then(|inject| inject_spec(inject, ports)),
            remote: mirror.to.remote().map(|remote| remote.spec(derived_mac::of_mirror(port))),
        })
    }
}

fn inject_spec(inject: &InjectConfig, ports: &Ports) -> Option<InjectSpec> {
    let entry = match &inject.entry {
        InjectEntry::Vlan(vid) => IngressAs::Vlan(*vid),
        InjectEntry::Port(name) => IngressAs::Port(ports.find(name)?.id),
    };
    Some(InjectSpec { ingress: entry, rate_fps: inject.rate_fps, sources: inject.sources.clone() })
}
