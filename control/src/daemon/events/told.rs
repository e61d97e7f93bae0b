//! The configuration and the states as last told, and the comparison with those of now.

use std::collections::BTreeMap;

use crate::api::{ConfigAction, ConfigChange, ConfigKind, Event, EventKind, EventSetting, EventSubject};
use crate::config::{Config, ProfileConfig, SwitchConfig};
use crate::plan::changes;

/// A state, and the reason for it.
pub(in crate::daemon) type Seen = (String, Option<String>);

/// States of a thing that are told within a second, if nobody has asked for a change.
pub(in crate::daemon) const PER_SECOND: u8 = 8;

/// The configuration and the states as last told.
#[derive(Default)]
pub(in crate::daemon) struct Told {
    config: Config,
    pub(in crate::daemon) ports: States,
    pub(in crate::daemon) mirrors: States,
    pub(in crate::daemon) inlines: States,
}

/// States, by name, as they were last told.
#[derive(Default)]
pub(in crate::daemon) struct States {
    told: BTreeMap<String, Seen>,
    /// How often each was told in this second.
    spent: BTreeMap<String, u8>,
}

impl States {
    /// Which of the things that there are now are in another state than was told, and may be told.
    pub(in crate::daemon) fn compare(&mut self, now: Vec<(String, Seen)>, limited: bool) -> Vec<(String, Seen)> {
        let mut before = std::mem::take(&mut self.told);
        let mut news = Vec::new();
        for (name, seen) in now {
            let told = before.remove(&name);
            if !told.as_ref().is_none_or(|told| differ(told, &seen)) {
                self.told.insert(name, seen);
                continue;
            }
            let spent = self.spent.entry(name.clone()).or_default();
            if limited && *spent >= PER_SECOND {
                told.map(|told| self.told.insert(name, told));
                continue;
            }
            *spent = spent.saturating_add(1);
            news.push((name.clone(), seen.clone()));
            self.told.insert(name, seen);
        }
        news
    }
}

impl Told {
    /// Takes the settings that the switch starts with as told.
    pub(in crate::daemon) fn begin(&mut self, switch: &SwitchConfig, profiles: &[ProfileConfig]) {
        self.config = Config { switch: switch.clone(), profiles: profiles.to_vec(), ..Config::default() };
    }

    /// Takes another configuration as told; what is to be told of it.
    pub(in crate::daemon) fn compare(&mut self, running: Config) -> Vec<Event> {
        let events = changed(&self.config, &running).iter().map(event_of).collect();
        self.config = running;
        events
    }

    /// Gives every port and mirror a new allowance of states.
    pub(in crate::daemon) fn renew_allowances(&mut self) {
        self.ports.spent.clear();
        self.mirrors.spent.clear();
        self.inlines.spent.clear();
    }
}

/// True if the second state is news after the first. Seconds that a port still waits are none.
fn differ((state, reason): &Seen, (other_state, other_reason): &Seen) -> bool {
    let words = |reason: &Option<String>| {
        let words = reason.iter().flat_map(|reason| reason.chars()).filter(|character| !character.is_ascii_digit());
        words.collect::<String>()
    };
    state != other_state || (reason != other_reason && words(reason) != words(other_reason))
}

/// The differences between two configurations. Only things that are not the same in both are looked at closely.
fn changed(told: &Config, running: &Config) -> Vec<ConfigChange> {
    let [before, now] = [(told, running), (running, told)].map(|(one, other)| {
        let ports: BTreeMap<&str, _> = other.ports.iter().map(|port| (port.name.as_str(), port)).collect();
        let impaired: BTreeMap<&str, _> =
            other.impairments.iter().map(|config| (config.port.as_str(), config)).collect();
        Config {
            ports: one.ports.iter().filter(|port| ports.get(port.name.as_str()) != Some(port)).cloned().collect(),
            mirrors: one.mirrors.iter().filter(|mirror| other.mirror(&mirror.name) != Some(mirror)).cloned().collect(),
            impairments: one
                .impairments
                .iter()
                .filter(|config| impaired.get(config.port.as_str()) != Some(config))
                .cloned()
                .collect(),
            inlines: one.inlines.clone(),
            switch: one.switch.clone(),
            profiles: one.profiles.clone(),
        }
    });
    if before == now { Vec::new() } else { changes(&before, &before, &now) }
}

fn event_of(change: &ConfigChange) -> Event {
    let subject = match change.kind {
        ConfigKind::Port => EventSubject::Port,
        ConfigKind::Mirror => EventSubject::Mirror,
        ConfigKind::Inline => EventSubject::Inline,
        ConfigKind::Impairment => EventSubject::Impairment,
        ConfigKind::Profile => EventSubject::Profile,
        ConfigKind::Switch => EventSubject::Switch,
    };
    let kind = match change.action {
        ConfigAction::Add => EventKind::Added,
        ConfigAction::Remove => EventKind::Removed,
        ConfigAction::Change | ConfigAction::Remake => EventKind::Changed,
    };
    let settings = match kind {
        EventKind::Removed => Vec::new(),
        _ => change.settings.iter().map(EventSetting::from).collect(),
    };
    let name = Some(change.name.clone()).filter(|name| !name.is_empty());
    Event { name, settings, subject: Some(subject), ..Event::new(kind) }
}
