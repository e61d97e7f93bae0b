//! `veth` ports: a pair of virtual Ethernet devices, one end of it for a container.
//!
//! The pair is made with the port and removed with it, before the sockets on it are closed (see [`VethPair::remove`]).
//! A pair that a killed run left is taken over. If it can't be opened it stays, and stays in the ledger: sockets of the
//! former run may hold it, and until they are closed it can neither be opened nor waited for.

use std::time::Instant;

use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::Fault;
use labsw_dataplane::xdp::{self, XdpConfig, XdpCounters, XdpError};
use labsw_switch::PortId;
use serde::{Deserialize, Serialize};

use super::attachment::{Attachable, Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::news::{Findings, LinkMap, OnFault, Seen};
use super::pair::{back, prepare_pair, remove, show_enabled};
use super::sockets::{Sockets, SocketsHandover, XdpHalves};
use super::wired;
use crate::api::{self, PortState};
use crate::config::{PortConfig, SwitchConfig, VethConfig, default_interface};
use crate::daemon::host::{Host, HostWork};
use crate::device::{Links, Netns, Promiscuous, VethPair, VethPlan, prepare};
use crate::takeover::state::PortHandover;

/// The type in the state that is handed over.
const TYPE: &str = "veth";

/// The state of a pair that is handed over.
#[derive(Debug, Serialize, Deserialize)]
struct VethHandover {
    /// The switch's end.
    sockets: SocketsHandover,
    /// The container's end is in another network namespace.
    peer_away: bool,
}

impl Attachable for VethConfig {
    fn preflight(&self, _: &PortConfig, _: &SwitchConfig, _: &mut Links) -> Result<(), (&'static str, OpenError)> {
        let Some(netns) = &self.netns else { return Ok(()) };
        Netns::open(netns).map(drop).map_err(|error| ("netns", error.into()))
    }

    fn open(&self, id: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError> {
        let plan = self.plan(port);
        if let Some(netns) = &self.netns {
            Netns::open(netns)?;
        }
        if self.offloads {
            return wired::open(plan, id, site);
        }
        let pair = prepare_pair(&plan, site.host)?;
        let (sockets, (tx, rx)) = match open_sockets(port, &pair, site.host) {
            Ok(opened) => opened,
            Err(OpenError::Xdp(XdpError::Busy { interface, .. })) if pair.taken_over => {
                return Err(OpenError::Kept(interface));
            }
            Err(reason) => {
                if !pair.taken_over
                    && let Err(error) = remove(&pair, &plan, site.host)
                {
                    tracing::warn!(interface = plan.interface, %error, "not removed");
                }
                return Err(reason);
            }
        };
        let peer_away = sockets.link.lower_is_elsewhere();
        Ok(Opened::new(Veth { sockets, pair, plan, peer_away }, tx, rx))
    }

    fn take_over(
        &self,
        id: PortId,
        port: &PortConfig,
        site: &mut Site<'_>,
        handover: PortHandover,
        taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        if self.offloads {
            return wired::take_over(self.plan(port), id, site, handover, taken);
        }
        let VethHandover { sockets, peer_away } = handover.read(TYPE)?;
        let (sockets, (tx, rx)) = Sockets::take_over(sockets, port.mtu, site.host, taken)?;
        let pair = VethPair { switch_end: sockets.link.clone(), taken_over: false };
        Ok(Opened::new(Veth { sockets, pair, plan: self.plan(port), peer_away }, tx, rx))
    }

    fn wants_fast_path(&self) -> bool {
        self.offloads
    }

    fn has_sockets(&self) -> bool {
        !self.offloads
    }

    fn show(&self, _: &PortConfig, _: &SwitchConfig, shown: &mut api::Port) {
        let in_netns = self.peer_name.as_ref().filter(|_| self.netns.is_some());
        shown.peer = Some(in_netns.unwrap_or(&self.peer).clone());
        shown.netns.clone_from(&self.netns);
    }
}

impl VethConfig {
    fn plan(&self, port: &PortConfig) -> VethPlan {
        VethPlan {
            port: port.name.clone(),
            interface: self.interface.clone().unwrap_or_else(|| default_interface(&port.name)),
            peer: self.peer.clone(),
            netns: self.netns.clone(),
            peer_name: self.peer_name.clone(),
            mtu: port.mtu,
            queues: self.queues.into(),
            offloads: self.offloads,
            mac: self.mac,
        }
    }
}

fn open_sockets(port: &PortConfig, pair: &VethPair, host: &mut Host) -> Result<(Sockets, XdpHalves), OpenError> {
    let link = pair.switch_end.clone();
    host.packet_memory()?;
    let promiscuous = Promiscuous::hold(link.index, &link.name)?;
    prepare::offloads_off(&link.name)?;
    let xdp = XdpConfig {
        interface: link.name.clone(),
        ifindex: link.index,
        queues: xdp::Queues::All,
        mode: xdp::XdpMode::Auto,
        mtu: port.mtu,
        busy_poll: false,
    };
    Sockets::open(link, xdp, promiscuous, host)
}

/// A pair in use.
struct Veth {
    sockets: Sockets,
    pair: VethPair,
    plan: VethPlan,
    /// The container's end was in another namespace when the links were last looked at.
    peer_away: bool,
}

impl Attachment for Veth {
    fn close(self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError> {
        let outcome = remove(&self.pair, &self.plan, host);
        halves.close();
        self.sockets.close();
        Ok(outcome?)
    }

    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        (None, self.close(halves, host))
    }

    fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<PortHandover> {
        let sockets = self.sockets.hand_over(given)?;
        PortHandover::new(TYPE, &VethHandover { sockets, peer_away: self.peer_away })
    }

    fn resume(&mut self, way: Resume, _now: Instant) {
        self.sockets.resume(way);
    }

    fn state(&self) -> (PortState, Option<String>) {
        self.sockets.state()
    }

    fn show(&self, shown: &mut api::Port) {
        self.sockets.show(shown);
    }

    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>> {
        let (pair, plan) = (self.pair.clone(), self.plan.clone());
        Box::new(move |host| {
            // A pair that has gone gets the port's MTU when it comes back.
            let Some(link) = host.links.link_by_index(pair.switch_end.index)? else { return Ok(()) };
            prepare::check_mtu(&link, mtu)?;
            Ok(pair.set_mtu(&mut host.links, &plan, mtu)?)
        })
    }

    fn has_mtu(&mut self, mtu: u32) {
        self.plan.mtu = mtu;
        self.sockets.has_mtu(mtu);
    }

    fn takes_mtu(&self, mtu: u32) -> bool {
        self.sockets.takes_mtu(mtu)
    }

    fn fault(&mut self, fault: &Fault, _now: Instant) -> OnFault {
        self.sockets.fault(fault)
    }

    /// The container's end is prepared again when a container gave it back.
    fn look(&mut self, links: &LinkMap, _findings: Option<Findings>) -> Seen {
        let seen = self.sockets.look(links);
        let away = self.sockets.link.lower_is_elsewhere();
        let is_back = matches!(seen, Seen::Here) && std::mem::replace(&mut self.peer_away, away) && !away;
        match is_back && self.plan.netns.is_none() {
            true => back(&self.pair, &self.plan),
            false => seen,
        }
    }

    fn link_up(&self) -> bool {
        self.sockets.link.up
    }

    /// Setting the switch's end down takes the carrier from the container's end.
    fn show_enabled(&self, enabled: bool) -> Option<HostWork<Result<(), OpenError>>> {
        Some(show_enabled(self.sockets.link.index, enabled))
    }

    fn shows_enabled(&mut self, enabled: bool) {
        self.sockets.link.up = enabled;
    }

    fn takes_frames_when_down(&self) -> bool {
        true
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
