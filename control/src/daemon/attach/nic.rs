//! `af_xdp` ports: a network device of the host, prepared for AF_XDP and put back afterwards.

use std::sync::Arc;
use std::time::Instant;

use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::Fault;
use labsw_dataplane::sys::isolate::Silence;
use labsw_dataplane::xdp::{self, XdpConfig, XdpCounters};
use labsw_switch::PortId;

use super::attachment::{Attachable, Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::health::{Health, Sending, other_queues};
use super::news::{Findings, LinkMap, Measured, OnFault, Seen, Trouble};
use super::sockets::Sockets;
use super::sockets::XdpHalves;
use super::tags::{TagDevice, Tags};
use crate::api::{self, PortState};
use crate::config::{AfXdpConfig, DeviceSpec, PortConfig, Queues, SwitchConfig, XdpMode};
use crate::daemon::host::{Host, HostWork};
use crate::device::ethtool::{self, Offload};
use crate::device::{DeviceError, Link, Links, Promiscuous, Watched, prepare};
use crate::takeover::state::PortHandover;

/// The type in the state that is handed over.
const TYPE: &str = "nic";

impl Attachable for AfXdpConfig {
    fn preflight(
        &self,
        port: &PortConfig,
        switch: &SwitchConfig,
        links: &mut Links,
    ) -> Result<(), (&'static str, OpenError)> {
        let link = find_device(&self.device, switch, links).map_err(|error| ("device", error))?;
        prepare::check_mtu(&link, port.mtu).map_err(|error| ("mtu", error.into()))
    }

    fn open(&self, _: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError> {
        let link = find_device(&self.device, site.switch, &mut site.host.links)?;
        let (sockets, (tx, rx)) = self.open_sockets(port, &link, site.host).inspect_err(|_| {
            if let Err(error) = site.host.put_back(link.index) {
                tracing::warn!(interface = link.name, %error, "not as it was before");
            }
        })?;
        Ok(Opened::new(Nic::of(sockets, site.host), tx, rx))
    }

    fn take_over(
        &self,
        _: PortId,
        port: &PortConfig,
        site: &mut Site<'_>,
        handover: PortHandover,
        taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        let (sockets, (tx, rx)) = Sockets::take_over(handover.read(TYPE)?, port.mtu, site.host, taken)?;
        Ok(Opened::new(Nic::of(sockets, site.host), tx, rx))
    }

    fn has_sockets(&self) -> bool {
        true
    }

    fn device(&self) -> Option<&DeviceSpec> {
        Some(&self.device)
    }

    fn show(&self, _: &PortConfig, _: &SwitchConfig, shown: &mut api::Port) {
        shown.device = Some(self.device.to_string());
    }

    fn polls_busily(&self) -> bool {
        true
    }
}

impl AfXdpConfig {
    fn open_sockets(&self, port: &PortConfig, link: &Link, host: &mut Host) -> Result<(Sockets, XdpHalves), OpenError> {
        // Without packet memory nothing else is touched.
        host.packet_memory()?;
        let promiscuous = Promiscuous::hold(link.index, &link.name)?;
        let count = match self.queues {
            Queues::All => None,
            Queues::Count(count) => Some(count),
        };
        // Set up, the device has the host greet its neighbours; the sockets' own silence begins when they are open.
        let _silence = Silence::hold(link.index);
        prepare::device(&mut host.links, &mut host.ledger, link, port.mtu, count)?;
        let xdp = XdpConfig {
            interface: link.name.clone(),
            ifindex: link.index,
            queues: count.map_or(xdp::Queues::All, xdp::Queues::Count),
            mode: match self.mode {
                XdpMode::Auto => xdp::XdpMode::Auto,
                XdpMode::ZeroCopy => xdp::XdpMode::ZeroCopy,
                XdpMode::Copy => xdp::XdpMode::Copy,
                XdpMode::Skb => xdp::XdpMode::Skb,
            },
            mtu: port.mtu,
            busy_poll: self.busy_poll,
        };
        Sockets::open(link.clone(), xdp, promiscuous, host)
    }
}

/// The link that a port names, if the link exists and may be opened.
fn find_device(device: &DeviceSpec, switch: &SwitchConfig, links: &mut Links) -> Result<Link, OpenError> {
    let absent = || OpenError::NoDevice { device: device.clone(), why: Links::absence(device) };
    let link = links.resolve(device)?.ok_or_else(absent)?;
    match links.protection(&link, &switch.protected_interfaces)? {
        Some(reason) => Err(OpenError::Protected(reason)),
        // The port would take all frames from the bridge or bond.
        None if link.controller.is_some() => Err(OpenError::Bridged(link.name)),
        None => Ok(link),
    }
}

/// A network device in use.
struct Nic {
    sockets: Sockets,
    tags: Tags,
    health: Health,
    sending: Sending,
    _watched: Watched,
}

/// A device, by its name.
struct Device<'a>(&'a str);

impl TagDevice for Device<'_> {
    fn taking(&self) -> Result<Vec<String>, DeviceError> {
        ethtool::active(self.0, &[Offload::RxVlan])
    }

    fn stop(&self) -> Result<(), DeviceError> {
        ethtool::switch_off(self.0, &[Offload::RxVlan]).map(drop)
    }
}

impl Nic {
    /// A device with open sockets, whose tags are watched.
    fn of(sockets: Sockets, host: &mut Host) -> Nic {
        let (gate, link) = (&sockets.gate, &sockets.link);
        let watched = host.offload_news.watch(link.index, &link.name, Arc::clone(gate));
        let mut tags = Tags::new(Arc::clone(gate));
        // What was done between the preparing and the watching is seen here.
        tags.look(&link.name, &Device(&link.name), Instant::now());
        Nic { sockets, tags, health: Health::default(), sending: Sending::default(), _watched: watched }
    }
}

impl Attachment for Nic {
    fn close(self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError> {
        let index = self.sockets.link.index;
        halves.close();
        self.sockets.close();
        Ok(host.put_back(index)?)
    }

    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        (None, self.close(halves, host))
    }

    fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<PortHandover> {
        // Frames without their tags may lie in the rings.
        let sockets = self.sockets.gate.is_open().then(|| self.sockets.hand_over(given));
        PortHandover::new(TYPE, &sockets.flatten()?)
    }

    fn resume(&mut self, way: Resume, _now: Instant) {
        self.sockets.resume(way);
    }

    fn state(&self) -> (PortState, Option<String>) {
        match (self.sockets.state(), self.tags.reason(&self.sockets.link.name)) {
            ((PortState::Up, None), Some(reason)) => (PortState::Down, Some(reason)),
            (state, _) => state,
        }
    }

    fn show(&self, shown: &mut api::Port) {
        self.sockets.show(shown);
        shown.put_right = self.tags.put_right(Instant::now());
    }

    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>> {
        let index = self.sockets.link.index;
        Box::new(move |host| {
            // A device that has gone gets the port's MTU when it comes back.
            let Some(link) = host.links.link_by_index(index)? else { return Ok(()) };
            Ok(prepare::change_mtu(&mut host.links, &mut host.ledger, &link, mtu)?)
        })
    }

    fn has_mtu(&mut self, mtu: u32) {
        self.sockets.has_mtu(mtu);
    }

    fn takes_mtu(&self, mtu: u32) -> bool {
        self.sockets.takes_mtu(mtu)
    }

    fn fault(&mut self, fault: &Fault, _now: Instant) -> OnFault {
        self.sockets.fault(fault)
    }

    fn examine(&self, _links: &LinkMap) -> Option<HostWork<Findings>> {
        let (question, name) = (self.tags.question(), self.sockets.link.name.clone());
        Some(Box::new(move |_| Findings { tags: Some(question.ask(&Device(&name))), ..Findings::default() }))
    }

    fn look(&mut self, links: &LinkMap, findings: Option<Findings>) -> Seen {
        let seen = self.sockets.look(links);
        if let (Seen::Here, Some(Findings { tags: Some(tags), .. })) = (&seen, findings) {
            self.tags.learn(&self.sockets.link.name, tags, Instant::now());
        }
        seen
    }

    fn measure(&self) -> Option<HostWork<Measured>> {
        let Link { index, name, .. } = self.sockets.link.clone();
        Some(Box::new(move |host| {
            // A driver that tells nothing of channels has one queue for good.
            let channels = ethtool::channels(&name).ok().flatten();
            let queues = channels.map(|(active, _)| active.receiving());
            Measured { queues, received: host.links.received(index).ok().flatten() }
        }))
    }

    fn judge(&mut self, reached: u64, measured: &Measured) -> Option<Trouble> {
        let name = &self.sockets.link.name;
        let queues = measured.queues.and_then(|queues| other_queues(self.sockets.status.queues, queues));
        let deaf = measured.received.and_then(|received| self.health.look(received, reached, Instant::now()));
        if queues.is_some() || !self.sockets.polls_busily() {
            return queues.or(deaf).map(|why| Trouble::Lost(format!("{name} {why}")));
        }
        let late = self.link_up().then(|| self.sending.look(&self.sockets.sent())).flatten();
        let why = deaf.or(late)?;
        self.health = Health::default();
        Some(Trouble::BusyPolling(why))
    }

    fn look_due(&self) -> Option<Instant> {
        self.tags.due()
    }

    fn link_up(&self) -> bool {
        // Without a carrier, frames would lie in the device's ring and leave when the cable is back.
        self.sockets.link.up && self.sockets.link.carrier
    }

    fn takes_frames_when_down(&self) -> bool {
        self.link_up()
    }

    fn device(&self) -> Option<(u32, &str)> {
        Some((self.sockets.link.index, &self.sockets.link.name))
    }

    fn kernel_counters(&self) -> Option<XdpCounters> {
        Some(self.sockets.kernel_counters())
    }

    fn sockets(&mut self) -> Option<&mut Sockets> {
        Some(&mut self.sockets)
    }
}
