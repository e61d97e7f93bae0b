//! The way from the running configuration to the wanted one: pure functions.
//!
//! [`plan`] compares the two and returns the [`Step`]s between them, in an order in which each step is possible when
//! its turn comes. Nothing here looks at the machine or the switch; `daemon::apply` carries the steps out, and undoes
//! them. [`changes`](fn@changes) describes the difference for people; [`keep_runtime`] merges changes made at run time
//! into the wanted configuration.
//!
//! **Order.** First come the steps that others need: they take inline sensors out, end mirrors, then take attachments
//! (devices, interfaces, sockets) from ports if other ports need them. Next come the steps that may fail: settings of
//! the switch, new ports, changed ports, mirrors, inline sensors, impairments. Ports that are not wanted go last, when
//! nothing can fail any more, so that a failure finds them as they were. They go first only if there would otherwise be
//! more ports than a switch can have, or if a mirror needs the VLAN of one of them.
//!
//! **Invariants.** Two configurations that mean the same have an empty plan. No step changes anything that is the same
//! in both. No step refers to a port that does not exist at that moment, or takes an attachment that is not free. Both
//! configurations are valid, as [`Config::parse`] returns them.

mod changes;
mod keep;
#[cfg(test)]
mod tests;

use labsw_switch::MAX_PORTS;

pub use changes::changes;
pub use keep::keep_runtime;

use crate::config::{Config, ImpairConfig, InlineConfig, MirrorConfig, PortConfig, ProfileConfig, SwitchConfig};

/// One step from one configuration to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes an inline sensor out.
    DeleteInline(String),
    /// Ends a mirror.
    DeleteMirror(String),
    /// Takes its device, interface or socket from a port; the port stays, without an attachment.
    DetachPort(String),
    /// Changes settings of the switch.
    SetSwitch(SwitchConfig),
    /// Adds a port.
    AddPort(PortConfig),
    /// Changes a port. A port whose attachment differs, or was taken from it, is re-attached.
    SetPort(PortConfig),
    /// Makes or replaces a mirror.
    SetMirror(MirrorConfig),
    /// Puts an inline sensor in, or changes it.
    SetInline(InlineConfig),
    /// Replaces the impairment profiles; impairments stay as they are.
    SetProfiles(Vec<ProfileConfig>),
    /// Makes or replaces the impairment of a port.
    SetImpairment(Box<ImpairConfig>),
    /// Ends the impairment of a port that stays.
    ClearImpairment(String),
    /// Removes a port, and its impairment.
    DeletePort(String),
}

/// Settings that only a restart can change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} can't change while the switch runs; restart labswd for that, or leave as is", .0.iter().map(|key| format!("switch.{key}")).collect::<Vec<_>>().join(", "))]
pub struct NeedsRestart(pub Vec<&'static str>);

/// The steps from `running` to `wanted`.
///
/// # Errors
/// [`NeedsRestart`] with every key that needs one.
pub fn plan(running: &Config, wanted: &Config) -> Result<Vec<Step>, NeedsRestart> {
    let restart = running.switch.restart_keys(&wanted.switch);
    if !restart.is_empty() {
        return Err(NeedsRestart(restart));
    }
    let (running, wanted) = (running.normalised(), wanted.normalised());
    let switch = &wanted.switch;

    let unwanted: Vec<&PortConfig> = running.ports.iter().filter(|port| wanted.port(&port.name).is_none()).collect();
    let added: Vec<&PortConfig> = wanted.ports.iter().filter(|port| running.port(&port.name).is_none()).collect();
    let changed: Vec<(&PortConfig, &PortConfig)> = wanted
        .ports
        .iter()
        .filter_map(|port| Some((running.port(&port.name)?, port)))
        .filter(|(a, b)| a != b)
        .collect();
    let remade: Vec<(&PortConfig, &PortConfig)> = changed.iter().copied().filter(|(a, b)| a.kind != b.kind).collect();
    // Ports go first if their places are needed, or a mirror needs the VLAN of one of them.
    let takes_vlan_of = |port: &PortConfig| wanted.mirrors.iter().any(|mirror| mirror.check_vlan_beside(port).is_err());
    let first = running.ports.len() + added.len() > MAX_PORTS || unwanted.iter().copied().any(takes_vlan_of);

    // The attachments that ports get in this plan.
    let attached: Vec<&PortConfig> = added.iter().copied().chain(remade.iter().map(|(_, new)| *new)).collect();
    let in_the_way =
        |port: &PortConfig| attached.iter().any(|taker| taker.name != port.name && taker.may_clash(port, switch));
    let detached = unwanted.iter().copied().filter(|_| !first).chain(remade.iter().map(|(old, _)| *old));

    let mut steps: Vec<Step> = Vec::new();
    steps.extend(displaced(&running, &wanted));
    let stays = |mirror: &&MirrorConfig| stays(mirror, &wanted, if first { &unwanted } else { &[] });
    let goes = running.mirrors.iter().filter(|mirror| !stays(mirror));
    steps.extend(goes.map(|mirror| Step::DeleteMirror(mirror.name.clone())));
    let deletions = unwanted.iter().map(|port| Step::DeletePort(port.name.clone()));
    if first {
        steps.extend(deletions.clone());
    }
    steps.extend(detached.filter(|port| in_the_way(port)).map(|port| Step::DetachPort(port.name.clone())));
    if running.switch != wanted.switch {
        steps.push(Step::SetSwitch(wanted.switch.clone()));
    }
    steps.extend(added.iter().map(|port| Step::AddPort((*port).clone())));
    steps.extend(changed.iter().map(|(_, new)| Step::SetPort((*new).clone())));
    let mirrors = wanted.mirrors.iter().filter(|mirror| running.mirror(&mirror.name) != Some(mirror));
    steps.extend(mirrors.map(|mirror| Step::SetMirror(mirror.clone())));
    let inlines = wanted.inlines.iter().filter(|inline| running.inline(&inline.name) != Some(inline));
    steps.extend(inlines.map(|inline| Step::SetInline(inline.clone())));
    if running.profiles != wanted.profiles {
        steps.push(Step::SetProfiles(wanted.profiles.clone()));
    }
    let impaired =
        wanted.impairments.iter().filter(|impairment| running.impairment(&impairment.port) != Some(impairment));
    steps.extend(impaired.map(|impairment| Step::SetImpairment(Box::new(impairment.clone()))));
    steps.extend(cleared(&running, &wanted));
    if !first {
        steps.extend(deletions);
    }
    Ok(steps)
}

/// The ends of the sensors that do not stay where they are.
fn displaced(running: &Config, wanted: &Config) -> impl Iterator<Item = Step> {
    let remains = |inline: &&InlineConfig| {
        let same = |wanted: &InlineConfig| wanted.of == inline.of && wanted.through == inline.through;
        wanted.inline(&inline.name).is_some_and(same)
    };
    let removed = running.inlines.iter().filter(move |inline| !remains(inline));
    removed.map(|inline| Step::DeleteInline(inline.name.clone()))
}

/// The ends of the impairments of ports that stay.
fn cleared(running: &Config, wanted: &Config) -> impl Iterator<Item = Step> {
    let over = running.impairments.iter().map(|impairment| impairment.port.as_str());
    let over = over.filter(|port| wanted.port(port).is_some() && wanted.impairment(port).is_none());
    over.map(|port| Step::ClearImpairment(port.to_owned()))
}

/// True if a running mirror can stay until the wanted one of its name replaces it, while ports and mirrors change as
/// wanted and the ports in `gone` go.
fn stays(mirror: &MirrorConfig, wanted: &Config, gone: &[&PortConfig]) -> bool {
    wanted.mirror(&mirror.name).is_some()
        && mirror.check_beside(&wanted.mirrors, &wanted.ports).is_ok()
        && !gone.iter().any(|port| mirror.names(&port.name))
}
