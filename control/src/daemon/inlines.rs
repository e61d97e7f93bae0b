//! The sensors in the wires of ports, and the way that the frames of these ports take.
//!
//! **How it works.** The workers send probes into a [`Sensor`] and tell when it begins or ceases to let them pass. The
//! [state](Inline::state) of a sensor follows from that, from the states of its ports, and from `on_failure`; it is
//! worked out each time that tables are built. [`sensors`](super::sensors) has them built when a state has changed.
//!
//! **Take-over.** The key of the probes and the directions that are alive go to the new process ([`Inlines::records`]),
//! so that frames go through the sensor, or past it, as before. The new process's workers look after its sensors once
//! they serve the ports.
//!
//! **Invariant.** A sensor that has let no probe pass yet gets no frames of the port.

use std::collections::BTreeMap;
use std::sync::Arc;

use labsw_dataplane::inline::Sensor;
use labsw_switch::inline::{Direction, InlineSpec, Way};

use super::mirrors::Mirrors;
use super::port::Port;
use super::ports::Ports;
use super::seed::random_seed;
use crate::api::{self, Error, InlineState, PortState};
use crate::config::{InlineConfig, MirrorConfig, OnFailure, PortConfig};
use crate::takeover::sensor::SensorRecord;

/// One sensor.
#[derive(Clone)]
pub(super) struct Inline {
    pub(super) config: InlineConfig,
    /// The sensor that the workers look after.
    sensor: Arc<Sensor>,
    /// Frames went through the sensor, or did not, in the process that is taken over; until this one serves the ports.
    inherited: Option<bool>,
}

impl Inline {
    /// Why no frame goes through the sensor, if none does.
    fn trouble(&self, ports: &Ports) -> Option<String> {
        if let Some(through) = self.inherited {
            return (!through).then(|| "the switch is being taken over".to_owned());
        }
        for name in &self.config.through {
            match ports.find(name).map(Port::state) {
                Some((PortState::Up, _)) => {}
                None => return Some(format!("there is no port {name:?}")),
                Some((state, reason)) => {
                    return Some(format!("{name:?} is {state}: {}", reason.as_deref().unwrap_or("no reason given")));
                }
            }
        }
        let [near, far] = &self.config.through;
        let (from, to) = match self.sensor.dead()? {
            Direction::Inward => (near, far),
            Direction::Outward => (far, near),
        };
        Some(format!("no probe passes from {from:?} to {to:?}"))
    }

    /// The way of the port's frames, and why it is not through the sensor.
    pub(super) fn state(&self, ports: &Ports) -> (InlineState, Option<String>) {
        match (self.trouble(ports), self.config.on_failure) {
            (None, _) => (InlineState::Through, None),
            (reason, OnFailure::Open) => (InlineState::Bypassed, reason),
            (reason, OnFailure::Closed) => (InlineState::Closed, reason),
        }
    }

    /// The sensor in the form that the tables take; `None` while one of its ports is not there.
    fn spec(&self, ports: &Ports) -> Option<InlineSpec> {
        let [near, far] = &self.config.through;
        let id = |name: &str| ports.find(name).map(|port| port.id);
        let way = match self.state(ports).0 {
            InlineState::Through => Way::Through,
            InlineState::Bypassed => Way::Past,
            InlineState::Closed => Way::Closed,
        };
        Some(InlineSpec { port: id(&self.config.of)?, near: id(near)?, far: id(far)?, way })
    }

    fn show(&self, ports: &Ports) -> api::Inline {
        let (state, reason) = self.state(ports);
        let InlineConfig { name, of, through, on_failure } = self.config.clone();
        api::Inline { name, state, reason, of, through: through.into(), on_failure }
    }
}

/// All sensors, by name.
#[derive(Clone, Default)]
pub(super) struct Inlines {
    by_name: BTreeMap<String, Inline>,
}

impl Inlines {
    /// The sensor of this name.
    pub(super) fn get(&self, name: &str) -> Result<&Inline, Error> {
        self.by_name.get(name).ok_or_else(|| Error::not_found("inline", name))
    }

    /// All sensors, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Inline> + Clone {
        self.by_name.values()
    }

    /// The configurations of all sensors.
    pub(super) fn configs(&self) -> impl Iterator<Item = &InlineConfig> + Clone {
        self.by_name.values().map(|inline| &inline.config)
    }

    /// Puts a sensor back in place of the one with its name.
    pub(super) fn put(&mut self, inline: Inline) {
        self.by_name.insert(inline.config.name.clone(), inline);
    }

    /// Removes a sensor from the list.
    pub(super) fn take(&mut self, name: &str) -> Option<Inline> {
        self.by_name.remove(name)
    }

    /// Adds a sensor; it takes effect with the next tables. Returns the one that it replaces.
    pub(super) fn enter(
        &mut self,
        config: InlineConfig,
        ports: &Ports,
        mirrors: &Mirrors,
    ) -> Result<Option<Inline>, Error> {
        let refused = |reason: String| Error::refused(format!("inline {:?}", config.name), reason);
        let names: Vec<&str> = ports.configs().map(|port| port.name.as_str()).collect();
        if let Some((key, port)) = config.missing_port(&names) {
            return Err(refused(format!(
                "{key}: there is no port {port:?}; `labsw-ctl port list` shows those there are"
            )));
        }
        config
            .check_beside(self.configs(), mirrors.configs(), ports.configs())
            .map_err(|(key, wrong)| refused(format!("{key}: {wrong}")))?;
        let before = self.take(&config.name);
        let sensor = match &before {
            // What is known of it stays.
            Some(before) if before.config.through == config.through => Arc::clone(&before.sensor),
            _ => {
                let [near, far] = &config.through;
                Arc::new(Sensor::new(ports.get(near)?.id, ports.get(far)?.id, random_seed()))
            }
        };
        self.put(Inline { config, sensor, inherited: None });
        Ok(before)
    }

    /// The state of each sensor, by name, for another process.
    pub(super) fn records(&self, ports: &Ports) -> BTreeMap<String, SensorRecord> {
        let record = |inline: &Inline| {
            let Inline { config, sensor, .. } = inline;
            let through = inline.state(ports).0 == InlineState::Through;
            (config.name.clone(), SensorRecord { key: sensor.key(), alive: sensor.alive(), through })
        };
        self.iter().map(record).collect()
    }

    /// Goes on where the sensors of another process stood. For sensors that no worker looks after yet.
    pub(super) fn go_on(&mut self, records: &BTreeMap<String, SensorRecord>, ports: &Ports) {
        for (name, inline) in &mut self.by_name {
            let [near, far] = &inline.config.through;
            let ids = ports.find(near).zip(ports.find(far)).map(|(near, far)| (near.id, far.id));
            let Some((record, (near, far))) = records.get(name).zip(ids) else { continue };
            if inline.sensor.key() != record.key {
                inline.sensor = Arc::new(Sensor::new(near, far, record.key));
            }
            inline.sensor.go_on(record.alive);
            inline.inherited = Some(record.through);
        }
    }

    /// From here on the states follow from this process's ports.
    pub(super) fn own(&mut self) {
        self.by_name.values_mut().for_each(|inline| inline.inherited = None);
    }

    /// The sensors as the workers see them.
    pub(super) fn sensors(&self) -> Arc<[Arc<Sensor>]> {
        self.iter().map(|inline| Arc::clone(&inline.sensor)).collect()
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The name of the sensor that has to do with this port.
    pub(super) fn user_of(&self, port: &str) -> Option<&str> {
        self.configs().find(|inline| inline.names(port)).map(|inline| inline.name.as_str())
    }

    /// True if the port is a sensor's.
    pub(super) fn are_at(&self, port: &str) -> bool {
        self.configs().any(|inline| inline.is_at(port))
    }

    /// The sensors in the form that the tables take.
    pub(super) fn specs(&self, ports: &Ports) -> Vec<InlineSpec> {
        self.iter().filter_map(|inline| inline.spec(ports)).collect()
    }

    /// The sensors as replies show them.
    pub(super) fn show(&self, ports: &Ports) -> Vec<api::Inline> {
        self.iter().map(|inline| inline.show(ports)).collect()
    }

    /// One sensor as replies show it.
    pub(super) fn show_one(&self, name: &str, ports: &Ports) -> Result<api::Inline, Error> {
        Ok(self.get(name)?.show(ports))
    }

    /// The sensor that has to do with a port, as `port show` shows it.
    pub(super) fn show_of_port(&self, port: &str, ports: &Ports) -> Option<api::PortInline> {
        let inline = self.iter().find(|inline| inline.config.names(port))?;
        let (state, reason) = inline.state(ports);
        Some(api::PortInline { name: inline.config.name.clone(), state, reason })
    }

    /// Checks that a mirror takes nothing for itself that a sensor needs.
    pub(super) fn check_mirror(&self, mirror: &MirrorConfig) -> Result<(), Error> {
        let refusal = self.configs().find_map(|inline| Some((inline, inline.check_mirror(mirror).err()?)));
        refusal.map_or(Ok(()), |(inline, (_, wrong))| {
            let advice = format!("take the sensor out first (labsw-ctl inline del {})", inline.name);
            Err(Error::refused(
                format!("mirror {:?}", mirror.name),
                format!("inline {:?}: {wrong}; {advice}", inline.name),
            ))
        })
    }

    /// Checks that a port may have these settings while a sensor has to do with it.
    pub(super) fn check_port(&self, port: &PortConfig) -> Result<(), Error> {
        let refusal = self.configs().find_map(|inline| Some((inline, inline.check_port(port).err()?)));
        refusal.map_or(Ok(()), |(inline, _)| {
            let name = &inline.name;
            let reason = format!("inline {name:?} uses it, so it can't be mirror_only");
            Err(Error::refused(
                format!("port {:?}", port.name),
                format!("{reason}; take the sensor out first (labsw-ctl inline del {name})"),
            ))
        })
    }
}
