//! Devices that come and go under their ports: unplugged, their driver loaded anew, a container gone with its end.
//!
//! **How it works.** The kernel says when links of the namespace have changed ([`LinkEvents`](crate::device::LinkEvents)); a moment later
//! [`Switch::look_after_devices`] looks at all of them once. A port whose device has gone is given up (*lost*): its
//! halves are taken from the workers, what is left of the device is put back, and the port waits. A port that waits is
//! opened as it was at its start. TAP interfaces are devices, too; what is left of one that the switch made for a guest stays
//! while the port waits, since the guest's program may have it open. VLANs, counters, mirrors and pins are the port's and not the device's, so they stay. What
//! failed for another reason than absence is tried again every second.
//!
//! **Invariants.** A port is never out of service for good: it is up, set down, or waits. Links are known by index, which
//! a rename does not change; a device is looked for by what the configuration says only while its port waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Switch;
use super::apply::awaited_by;
use super::open::{Attachment, Device, OpenError, Veth};
use super::tap::Tap;
use crate::api::Error;
use crate::config::Config;
use crate::device::{DeviceError, Link, Links};

/// After the first news of a change, more is waited for so long: a device comes with several.
const SETTLE: Duration = Duration::from_millis(20);
/// How long until a device that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a removed link is held until that is said.
const HELD: Duration = Duration::from_secs(2);

/// Why a port has no device, and when to look again.
pub(super) struct Absence {
    /// One clause for people.
    pub(super) reason: String,
    /// Not before then is it tried again; `None`: when links have changed.
    retry_at: Option<Instant>,
    /// What the port had before.
    before: Before,
}

/// What outlives the device that a port has lost.
#[derive(Default)]
struct Before {
    /// The workers that its queues were pinned to.
    pins: Vec<Option<usize>>,
    /// The interface of a TAP port; it may still be there.
    tap: Option<Box<Tap>>,
}

impl Absence {
    /// Of a port whose attachment was taken from it; its queues were pinned like this.
    pub(super) fn detached(pins: Vec<Option<usize>>) -> Absence {
        let before = Before { pins, tap: None };
        Absence { reason: "is being attached anew".to_owned(), retry_at: None, before }
    }

    /// The workers that the queues were pinned to.
    pub(super) fn pins(&self) -> &[Option<usize>] {
        &self.before.pins
    }

    /// Has it tried again soon.
    pub(super) fn retry(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// Of a port that could not be opened.
    pub(super) fn because(error: &OpenError) -> Absence {
        // A namespace comes without any news of links.
        let on_news = matches!(error, OpenError::NoDevice { .. } | OpenError::Removed(_));
        let retry_at = (!on_news).then(|| Instant::now() + RETRY);
        Absence { reason: error.to_string(), retry_at, before: Before::default() }
    }

    /// With the workers that the queues were pinned to.
    pub(super) fn with_pins(self, pins: Vec<Option<usize>>) -> Absence {
        Absence { before: Before { pins, ..self.before }, ..self }
    }

    /// Removes what is left of the device.
    pub(super) fn close(self, links: &mut Links) -> Result<(), DeviceError> {
        self.before.tap.map_or(Ok(()), |tap| tap.close(links))
    }
}

/// What ports of `config` would wait for if the switch were started now, one line each.
pub fn awaited(config: &Config) -> Vec<String> {
    Links::open().map_or_else(|_| Vec::new(), |mut links| awaited_by(config, &mut links))
}

impl Switch {
    /// Links have changed: they are looked at when they have settled.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.look_at = self.look_at.or(Some(now + SETTLE));
    }

    /// Looks at the devices if it is time to; returns how long until the next look.
    pub(super) fn tick_devices(&mut self, now: Instant) -> Option<Duration> {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.look_after_devices(now);
        } else if self.retries().any(|at| at <= now) {
            self.look_after_devices(now);
        }
        let next = self.retries().chain(self.look_at).min();
        next.map(|at| at.saturating_duration_since(now))
    }

    fn retries(&self) -> impl Iterator<Item = Instant> {
        self.ports.values().filter_map(|port| match &port.attachment {
            Attachment::Absent(absence) => absence.retry_at,
            _ => None,
        })
    }

    /// Gives up devices that have gone and opens those that have come.
    fn look_after_devices(&mut self, now: Instant) {
        let links: BTreeMap<u32, Link> = match self.links.list() {
            Ok(links) => links.into_iter().map(|link| (link.index, link)).collect(),
            Err(error) => {
                tracing::warn!(%error, "devices not looked at");
                self.look_at = Some(now + RETRY);
                for port in self.ports.values_mut() {
                    if let Attachment::Absent(Absence { retry_at: Some(at), .. }) = &mut port.attachment {
                        *at = now + RETRY;
                    }
                }
                return;
            }
        };
        let mut moved = false;
        for name in self.ports.keys().cloned().collect::<Vec<_>>() {
            let Switch { ports, links: netlink, .. } = self;
            let Some(port) = ports.get_mut(&name) else { continue };
            let gone = match &mut port.attachment {
                Attachment::Guest(_) => continue,
                Attachment::Absent(absence) => {
                    if absence.retry_at.is_none_or(|at| at <= now) {
                        self.try_open(&name);
                    }
                    continue;
                }
                Attachment::Tap(tap) => match links.get(&tap.index()) {
                    Some(link) => {
                        tap.renamed(&link.name);
                        false
                    }
                    None => netlink.has_gone(tap.index()),
                },
                Attachment::Device(device) => match links.get(&device.link.index) {
                    Some(link) => {
                        device.link.name.clone_from(&link.name);
                        moved |= port.link_up != link.up;
                        port.link_up = link.up;
                        look_after_peer(device, link, netlink);
                        false
                    }
                    None => netlink.has_gone(device.link.index),
                },
            };
            if gone {
                self.lose(&name, None);
                self.try_open(&name);
            }
        }
        if moved && let Err(error) = self.set_tables() {
            tracing::error!(%error, "tables not renewed");
        }
    }

    /// Takes a port out of service whose device has gone or, if a `fault` is given, does not go on.
    pub(super) fn lose(&mut self, name: &str, fault: Option<&str>) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let id = port.id;
        let pins = port.queues.places.iter().map(|place| place.pinned).collect();
        let reason = match (fault, &port.attachment) {
            (Some(fault), _) => fault.to_owned(),
            (None, Attachment::Device(device)) => format!("{} was removed", device.link.name),
            (None, Attachment::Tap(tap)) => format!("{} was removed", tap.name()),
            (None, Attachment::Guest(_) | Attachment::Absent(_)) => return,
        };
        tracing::warn!(port = name, reason, "device lost");
        let (halves, taken_out) = self.take_out(name);
        if let Err(error) = taken_out {
            tracing::error!(port = name, %error, "not taken out of service cleanly");
        }
        let retry_at = Some(Instant::now() + if fault.is_some() { RETRY } else { Duration::ZERO });
        let absence = Absence { reason, retry_at, before: Before { pins, tap: None } };
        let Some(port) = self.ports.get_mut(name) else { return };
        let lost = std::mem::replace(&mut port.attachment, Attachment::Absent(absence));
        match (lost, &mut port.attachment) {
            (Attachment::Device(device), _) => {
                port.kernel_before += device.kernel_counters();
                if let Err(error) = device.close(halves, &mut self.links, &mut self.ledger) {
                    tracing::warn!(port = name, %error, "the device is not as it was before");
                }
            }
            (Attachment::Tap(tap), Attachment::Absent(absence)) => absence.before.tap = Some(tap),
            _ => {}
        }
        self.forget_learned(id);
    }

    /// Opens the device of a port that waits, if it is there.
    fn try_open(&mut self, name: &str) {
        let Some(port) = self.ports.get(name) else { return };
        let (id, config, enabled) = (port.id, port.config.clone(), port.enabled);
        let Attachment::Absent(Absence { before: Before { tap, .. }, .. }) = &port.attachment else { return };
        let may_open = tap.as_ref().map_or(Ok(()), |tap| tap.check_back(&config, &mut self.links));
        let opened = may_open.and_then(|()| self.open(id, &config));
        let Some(port) = self.ports.get_mut(name) else { return };
        let Attachment::Absent(absence) = &mut port.attachment else { return };
        let before = std::mem::take(&mut absence.before);
        match opened {
            Ok(mut opened) => {
                for (place, pin) in opened.queues.places.iter_mut().zip(before.pins) {
                    place.pinned = pin;
                }
                tracing::info!(port = name, "back in service");
                if let Err(error) = self.put_in(name, opened) {
                    self.lose(name, Some(&error.to_string()));
                } else if !enabled {
                    self.show_port_state(name);
                }
            }
            Err(error) => {
                let now = Absence { before, ..Absence::because(&error) };
                if absence.reason != now.reason {
                    tracing::info!(port = name, reason = now.reason, "waiting");
                }
                port.attachment = Attachment::Absent(now);
            }
        }
    }

    /// Shows a container whether its port is on: the switch's end of the pair, set down, takes the carrier from the other.
    /// A device of the host is not ours to set down, and a guest's link state is not for a vhost-user back end to say.
    pub(super) fn show_port_state(&mut self, name: &str) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let Attachment::Device(device) = &port.attachment else { return };
        if device.veth.is_none() {
            return;
        }
        let index = device.link.index;
        let outcome = if port.enabled { self.links.set_up(index) } else { self.links.set_down(index) };
        match outcome {
            Ok(()) => port.link_up = port.enabled,
            Err(error) => tracing::warn!(port = name, %error, "the link does not show the port's state"),
        }
    }

    /// Says, once each, which links are deleted and still held by somebody.
    pub(super) fn report_held_links(&mut self) {
        let held = self.links.held(HELD);
        for index in held.iter().filter(|index| !self.held_links.contains(index)) {
            tracing::warn!(index, "a removed interface is still held, as by a container that keeps frames of it");
        }
        self.held_links = held;
    }

    /// The port of a device that is not there: it waits.
    pub(super) fn absent(error: OpenError, object: &str) -> Result<Attachment, Error> {
        match error.is_absence() {
            true => Ok(Attachment::Absent(Absence::because(&error))),
            false => Err(Error::refused(object, error.to_string())),
        }
    }
}

/// Where the ledger of a switch with this control socket is.
pub(super) fn ledger_path(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".devices");
    path.into()
}

/// Sees to the container's end of a pair that a container gave back.
fn look_after_peer(device: &mut Device, link: &Link, links: &mut Links) {
    let Some(Veth { pair, plan, peer_away }) = &mut device.veth else { return };
    let away = link.lower_is_elsewhere;
    if std::mem::replace(peer_away, away) && !away && plan.netns.is_none() {
        let prepared: Result<(), DeviceError> = pair.peer_came_back(links, plan);
        if let Err(error) = prepared {
            tracing::warn!(port = plan.port, %error, "the container's end is not as it was");
        }
    }
}
