//! The work of once a second that needs the host: whether devices serve their ports, whether busy polling works, which
//! links are held.

use std::fs;

use labsw_dataplane::xdp::BusyPoll;

use super::attach::{self, Sockets, Trouble};
use super::busy_poll::{NETSTAT, polled};
use super::errand::Errand;
use super::host::Host;
use crate::device::defer_interrupts;

impl Errand<'_> {
    /// Does all of it.
    pub(super) fn look_once_a_second(&mut self) {
        self.look_at_busy_polls();
        self.look_at_health();
        self.away(Host::report_held_links);
    }

    /// Takes ports out of service whose devices do not serve them any more, to be reopened.
    fn look_at_health(&mut self) {
        for name in self.ports.names() {
            let Some(port) = self.ports.find(&name) else { continue };
            let Some(measure) = port.attached.to().and_then(attach::Attachment::measure) else { continue };
            let kernel = port.kernel_counters().map_or(0, |counters| counters.named().iter().map(|(_, n)| n).sum());
            let reached = port.counters().rx_frames.saturating_add(kernel);
            let measured = self.away(measure);
            let attachment = self.ports.find_mut(&name).and_then(|port| port.attached.to_mut());
            match attachment.and_then(|attachment| attachment.judge(reached, &measured)) {
                None => {}
                Some(Trouble::Lost(reason)) => self.lose(&name, Some(&reason)),
                Some(Trouble::BusyPolling(reason)) => self.end_busy_poll(&name, &reason),
            }
        }
    }

    /// Looks at busy polling, once a second.
    fn look_at_busy_polls(&mut self) {
        let (mut frames, mut to_defer) = (None, Vec::new());
        for port in self.ports.iter_mut() {
            let received = port.counters().rx_frames;
            let sockets = port.attached.to_mut().and_then(|attachment| attachment.sockets());
            let Some(device) = sockets.filter(|device| device.status.busy_poll == BusyPoll::Asked) else { continue };
            *frames.get_or_insert(0) += received;
            let driven = device.statistics.iter().all(|socket| socket.napi_id().is_some());
            if driven && device.interrupts_deferred == Ok(false) {
                to_defer.push((port.config.name.clone(), device.link.clone()));
            }
        }
        for (name, link) in to_defer {
            let deferred = self.away(|host| defer_interrupts(&mut host.ledger, &link));
            if let Some(device) = self.sockets_of(&name) {
                device.interrupts_deferred = deferred.map(|()| true).map_err(|error| {
                    tracing::warn!(port = name, %error, "interrupts can't be deferred");
                    error.to_string()
                });
            }
        }
        let Some(frames) = frames else { return };
        let text = self.away(|_| fs::read_to_string(NETSTAT));
        if let Some(polled) = text.ok().and_then(|text| polled(&text)) {
            self.busy_polls.look(frames, polled);
        }
    }

    /// Ends busy polling of a port's device, with which the device does not go on: `what` it did. Interrupts are as
    /// before then.
    fn end_busy_poll(&mut self, name: &str, what: &str) {
        let Some(device) = self.sockets_of(name) else { return };
        let link = device.link.clone();
        tracing::warn!("busy polling of {} is ended: the device {what}", link.name);
        let ended = device.end_busy_poll(what);
        let deferral = self.away(|host| host.ledger.interrupts_back(&link)).map_err(|error| error.to_string());
        if let Err(error) = ended.and(deferral) {
            tracing::warn!("busy polling of {} is not ended cleanly: {error}", link.name);
        }
    }

    fn sockets_of(&mut self, port: &str) -> Option<&mut Sockets> {
        self.ports.find_mut(port)?.attached.to_mut()?.sockets()
    }
}
