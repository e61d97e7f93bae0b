//! Devices that come and go under their ports: unplugged, removed with a reloaded driver, gone with a container.
//!
//! **How it works.** The kernel reports changes of links in the namespace ([`LinkEvents`](crate::device::LinkEvents)).
//! A moment later [`Errand::look_after_devices`] lists all links once, and every attachment looks up its own. A port
//! whose device has gone is *lost*: its halves are taken from the workers, the rest of the device is restored, and the
//! port waits. A waiting port is opened in the same way as at its start. VLANs, counters, mirrors and pins belong to
//! the port and not to the device, so they stay. A port that failed for another reason than absence is tried again
//! every second. A device that is lost again and again (a container deletes its interface in a loop) is opened after
//! longer and longer waits, up to a minute; `port up` ends the wait. A device of the host that was removed is opened as
//! soon as it is back.
//!
//! **Invariants.** A port is never out of service for good: it is up, set down, or waits. Links are known by index,
//! which a rename does not change; the configuration's name for a device is used only while its port waits.

use std::time::{Duration, Instant};

use labsw_dataplane::port::Fault;
use labsw_switch::PortId;

use super::attach::{self, Absence, Attached, LinkMap, OnFault, RETRY, Seen};
use super::errand::Errand;
use super::port::Port;
use super::switch::Switch;
use crate::api::{Event, EventKind, EventSubject};

/// Time from the first news of a change to the look at the links: a device comes with several news.
const SETTLE: Duration = Duration::from_millis(20);

impl Switch {
    /// Schedules a look at the links when their changes have settled.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.look_at = self.look_at.or(Some(now + SETTLE));
    }

    /// When the devices are looked at next: because links have changed, or a port asks for it.
    pub(super) fn devices_due(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.ports.looks_due()).chain(self.ports.retries()).min()
    }

    /// Handles a port at which a worker found a fault: records the reason; all other ports run on. True if the port
    /// can't go on, so that its attachment has to be closed.
    pub(super) fn port_fault(&mut self, id: PortId, fault: &Fault) -> bool {
        let Some(port) = self.ports.at_mut(id) else { return false };
        let name = port.config.name.clone();
        let Some(attachment) = port.attached.to_mut() else { return false };
        // Both halves, or several workers, may have reported the same fault.
        match attachment.fault(fault, Instant::now()) {
            OnFault::Old => false,
            OnFault::GoesOn => {
                self.tell_fault(&name, fault.reason.clone());
                false
            }
            OnFault::Lost => true,
        }
    }

    fn tell_fault(&self, name: &str, reason: String) {
        let about = Event::about(EventKind::Fault, EventSubject::Port, name);
        self.events.warn(Event { reason: Some(reason), ..about });
    }
}

impl Errand<'_> {
    /// Takes ports whose devices have gone out of service, and opens devices that have come.
    pub(super) fn look_after_devices(&mut self, now: Instant) {
        // What changes from here on is looked at once more.
        self.look_at = None;
        let links = match self.away(|host| host.links.list()) {
            Ok(links) => self.with_gone(LinkMap::new(links)),
            Err(error) => {
                tracing::warn!(%error, "devices not looked at");
                self.look_at = Some(now + RETRY);
                let absences = self.ports.iter_mut().filter_map(|port| port.attached.absence_mut());
                absences.filter(|absence| absence.retry_at().is_some()).for_each(Absence::retry);
                return;
            }
        };
        let mut moved = false;
        for name in self.ports.names() {
            let Some(port) = self.ports.find(&name) else { continue };
            let due = match &port.attached {
                Attached::Waiting(absence) => absence.is_due(now),
                Attached::To(_) => {
                    moved |= self.look_at_device(&name, &links);
                    self.ports.find(&name).is_some_and(|port| port.attached.is_due(Instant::now()))
                }
            };
            if due {
                self.try_open(&name);
            }
        }
        if moved && let Err(error) = self.set_tables() {
            tracing::error!(%error, "tables not renewed");
        }
    }

    /// Finds out which of the links that attachments have, and that the list lacks, have really gone. A list may lack a
    /// link that exists.
    fn with_gone(&mut self, links: LinkMap) -> LinkMap {
        let all = self.ports.iter().filter_map(|port| port.attached.to()).flat_map(attach::Attachment::links);
        let missing: Vec<u32> = all.filter(|index| links.get(*index).is_none()).collect();
        let gone = self.away(|host| missing.into_iter().filter(|index| host.links.has_gone(*index)).collect());
        links.with_gone(gone)
    }

    /// Updates the state of a port's device, and takes the port out of service if the device has gone. True if its link
    /// was set up or down.
    fn look_at_device(&mut self, name: &str, links: &LinkMap) -> bool {
        let Some(attachment) = self.ports.find(name).and_then(|port| port.attached.to()) else { return false };
        let examine = attachment.examine(links);
        let findings = examine.map(|examine| self.away(examine));
        let Some(attachment) = self.ports.find_mut(name).and_then(|port| port.attached.to_mut()) else { return false };
        let up = attachment.link_up();
        let seen = attachment.look(links, findings);
        let moved = attachment.link_up() != up;
        match seen {
            Seen::Here => {}
            Seen::Gone => self.lose(name, None),
            Seen::Back(prepare) => {
                if let Err(error) = self.away(prepare) {
                    tracing::warn!(port = name, %error, "the container's end is not as it was");
                }
            }
        }
        moved
    }

    /// Takes a port out of service whose attachment can't go on with this fault of a worker.
    pub(super) fn lose_to(&mut self, id: PortId, fault: &Fault) {
        let Some(port) = self.ports.at_mut(id) else { return };
        let name = port.config.name.clone();
        let Some(attachment) = port.attached.to_mut() else { return };
        // The port may have been opened anew meanwhile.
        if attachment.fault(fault, Instant::now()) != OnFault::Lost {
            return;
        }
        let index = attachment.device().map(|(index, _)| index);
        // The worker may have noticed before the kernel's news that the device has gone.
        let gone = index.is_some_and(|index| self.away(|host| host.links.has_gone(index)));
        self.lose(&name, (!gone).then_some(fault.reason.as_str()));
    }

    /// Takes a port out of service whose device has gone or, if a `fault` is given, can't go on.
    pub(super) fn lose(&mut self, name: &str, fault: Option<&str>) {
        let Some(port) = self.ports.find_mut(name) else { return };
        let (id, pins) = (port.id, port.pins());
        let device = port.attached.to().and_then(|attachment| attachment.device());
        let reason = match (fault, device) {
            (Some(fault), _) => fault.to_owned(),
            (None, Some((_, device))) => format!("{device} was removed"),
            (None, None) => return,
        };
        let now = Instant::now();
        // A removed device may be back already. A device that is lost again and again, or had a fault, is opened after
        // a wait.
        let retry_at = if fault.is_none() && attach::of(&port.config.kind).device().is_some() {
            // Only the host's administrator removes a device of the host.
            now
        } else {
            let due = port.losses.waits_until(now).unwrap_or(now);
            let next = port.losses.failed(now);
            if fault.is_some() { next } else { due }
        };
        let wait = retry_at - now;
        let reason = if wait < Duration::from_secs(1) {
            reason
        } else {
            format!("{reason}, repeatedly; it is opened again {:.0} s later", wait.as_secs_f32().ceil())
        };
        self.tell_fault(name, reason.clone());
        let (halves, taken_out) = self.take_out(name);
        if let Err(error) = taken_out {
            tracing::error!(port = name, %error, "not taken out of service cleanly");
        }
        self.leave_fast_path(name);
        let Some(port) = self.ports.find_mut(name) else { return };
        let absence = Absence::lost(reason, retry_at).with_pins(pins);
        if let Attached::To(lost) = std::mem::replace(&mut port.attached, Attached::Waiting(absence)) {
            lost.kernel_counters().into_iter().for_each(|counted| port.kernel_before += counted);
            let (remains, closed) = self.away(|host| lost.lose(halves, host));
            if let Err(error) = closed {
                tracing::warn!(port = name, %error, "the device is not as it was before");
            }
            if let Some(absence) = self.ports.find_mut(name).and_then(|port| port.attached.absence_mut()) {
                absence.before.remains = remains;
            }
        }
        self.forget_learned(id);
    }

    /// Opens the device of a waiting port, if the device is there.
    fn try_open(&mut self, name: &str) {
        let Some(absence) = self.ports.find_mut(name).and_then(|port| port.attached.absence_mut()) else { return };
        let before = std::mem::take(&mut absence.before);
        let remains = before.remains.as_ref();
        let may_open = self.away(|host| remains.map_or(Ok(()), |remains| remains.may_reopen(host)));
        let opened = may_open.and_then(|()| self.open(name));
        let Some(port) = self.ports.find_mut(name) else { return };
        let enabled = port.enabled;
        let Port { attached, losses, .. } = port;
        let Some(absence) = attached.absence_mut() else { return };
        match opened {
            Ok(opened) => {
                if let Err(error) = self.put_in(name, opened, before.pins) {
                    self.lose(name, Some(&error.to_string()));
                } else if !enabled {
                    self.show_port_state(name);
                }
            }
            Err(error) => {
                let mut now = Absence::because(&error).keeping(before);
                // The program that takes the device away again and again may also prevent opening it.
                let at = Instant::now();
                if losses.is_fresh(at) {
                    now.not_before(losses.failed(at));
                }
                *absence = now;
            }
        }
    }
}
