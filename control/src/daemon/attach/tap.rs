//! `tap` ports: a TAP interface, of the host, of a container or of a guest's hypervisor.
//!
//! An interface that the switch made is made again at once when it goes; the port waits for an interface that another
//! program made. An interface that moved into another network namespace is served there. It goes with that namespace,
//! and is made again as soon as the namespace is available. The interface of a guest outlives a fault of the port,
//! since the guest's hypervisor has it open.

use std::sync::Arc;
use std::time::Instant;

use labsw_dataplane::handover::{Given, Taken};
use labsw_dataplane::port::Fault;
use labsw_dataplane::tap::{TapHandover, TapPort, TapTx, TapWatch};
use labsw_switch::PortId;
use serde::{Deserialize, Serialize};

use super::attachment::{Attachable, Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::news::{Findings, LinkMap, OnFault, Seen};
use crate::api::{self, PortRole, PortState};
use crate::config::{PortConfig, SwitchConfig, TapConfig, TapEnd};
use crate::daemon::accounts::{group_id, user_id};
use crate::daemon::host::{Host, HostWork};
use crate::device::{Link, Links, TapLink, TapPlan, TapUse};
use crate::takeover::state::PortHandover;

/// The type in the state that is handed over.
const TYPE: &str = "tap";

/// The state of an interface that is handed over.
#[derive(Debug, Serialize, Deserialize)]
struct TapState {
    /// The descriptors of the interface.
    port: TapHandover,
    /// Index of the interface.
    ifindex: u32,
    /// Name of the interface.
    name: String,
    /// The switch made the interface persistent and removes it with the port.
    ours: bool,
    /// The interface existed before the port.
    found: bool,
    /// The interface is in another network namespace.
    away: bool,
}

impl Attachable for TapConfig {
    fn preflight(
        &self,
        _port: &PortConfig,
        switch: &SwitchConfig,
        links: &mut Links,
    ) -> Result<(), (&'static str, OpenError)> {
        self.existing(switch, links).map_err(|error| ("interface", error))?;
        self.owner.as_deref().map(user_id).transpose().map_err(|error| ("owner", error.into()))?;
        self.group.as_deref().map(group_id).transpose().map_err(|error| ("group", error.into()))?;
        Ok(())
    }

    fn open(&self, _id: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError> {
        let plan = self.plan(port)?;
        let links = &mut site.host.links;
        let found = self.existing(site.switch, links)?;
        let was_there = found.is_some();
        let (mut tap, port) = TapLink::open(links, &plan, found)?;
        let (connection, watch) = (port.connection(), port.watch());
        let TapPort { tx, rx } = port;
        // Opening has set the interface up, so its state is read again.
        if let Some(link) = links.link_by_index(tap.link.index)? {
            tap.link = link;
        }
        let found = was_there && !tap.is_ours();
        let away = self.netns.is_some();
        let (queues, sending) = (rx.len(), Some(Arc::clone(&tx)));
        let attachment = Tap { connection, watch, queues, plan, tap, sending, found, away, gone: false };
        Ok(Opened::new(attachment, tx, rx))
    }

    fn take_over(
        &self,
        _id: PortId,
        port: &PortConfig,
        site: &mut Site<'_>,
        handover: PortHandover,
        taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        let TapState { port: handover, ifindex, name, ours, found, away } = handover.read(TYPE)?;
        let plan = self.plan(port)?;
        let link = match site.host.links.link_by_index(ifindex)?.filter(|_| !away) {
            Some(link) => link,
            // Nothing more is known of an interface in another namespace.
            None if away => Link { index: ifindex, name, kind: Some("tun".to_owned()), up: true, ..Link::default() },
            None => return Err(OpenError::Removed(plan.interface)),
        };
        let tap = TapLink::adopt(link, &port.name, ours);
        let port = TapPort::take_over(&plan.interface, handover, taken)?;
        let (connection, watch) = (port.connection(), port.watch());
        let TapPort { tx, rx } = port;
        let (queues, sending) = (rx.len(), Some(Arc::clone(&tx)));
        let attachment = Tap { connection, watch, queues, plan, tap, sending, found, away, gone: false };
        Ok(Opened::new(attachment, tx, rx))
    }

    fn show(&self, _: &PortConfig, _: &SwitchConfig, shown: &mut api::Port) {
        shown.role = Some(match self.other_end {
            TapEnd::Host => PortRole::Host,
            TapEnd::Guest => PortRole::Guest,
            TapEnd::Container => PortRole::Container,
        });
        if self.netns.is_some() {
            shown.peer = Some(self.peer_name.as_ref().unwrap_or(&self.interface).clone());
            shown.netns.clone_from(&self.netns);
        }
        shown.device = Some(self.interface.clone());
    }
}

impl TapConfig {
    fn plan(&self, port: &PortConfig) -> Result<TapPlan, OpenError> {
        let other_end = match self.other_end {
            TapEnd::Host => TapUse::Host { queues: self.queues, mac: self.mac },
            TapEnd::Container => TapUse::Container {
                queues: self.queues,
                mac: self.mac,
                netns: self.netns.clone(),
                peer_name: self.peer_name.clone(),
            },
            TapEnd::Guest => TapUse::Guest {
                owner: self.owner.as_deref().map(user_id).transpose()?,
                group: self.group.as_deref().map(group_id).transpose()?,
            },
        };
        Ok(TapPlan { port: port.name.clone(), interface: self.interface.clone(), mtu: port.mtu, other_end })
    }

    /// The interface, if it exists; an interface that is protected or no TAP interface is an error.
    fn existing(&self, switch: &SwitchConfig, links: &mut Links) -> Result<Option<Link>, OpenError> {
        let Some(link) = links.link_by_name(&self.interface)? else { return Ok(None) };
        match links.protection(&link, &switch.protected_interfaces)? {
            Some(reason) => Err(OpenError::Protected(reason)),
            None if link.kind.as_deref() != Some("tun") => Err(OpenError::NotATap(link.name)),
            // The frames of a guest or container are kept from the host, and so from a bridge of the host, too.
            None if self.other_end != TapEnd::Host && link.controller.is_some() => Err(OpenError::Bridged(link.name)),
            None => Ok(Some(link)),
        }
    }
}

/// A TAP interface in use.
struct Tap {
    /// The connection number that the port's faults carry.
    connection: u64,
    /// Detects that an interface that the daemon cannot see (in another namespace) has gone.
    watch: TapWatch,
    /// Number of receive queues.
    queues: usize,
    plan: TapPlan,
    tap: TapLink,
    /// The transmit half, as long as the port has its device.
    sending: Option<Arc<TapTx>>,
    /// The interface existed before the port: if it goes, the port waits until its maker makes it again.
    found: bool,
    /// The interface is in another network namespace.
    away: bool,
    gone: bool,
}

impl Tap {
    fn is_for_guest(&self) -> bool {
        matches!(self.plan.other_end, TapUse::Guest { .. })
    }
}

impl Attachment for Tap {
    fn close(mut self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError> {
        self.sending = None;
        halves.close();
        Ok(self.tap.remove(&mut host.links)?)
    }

    fn lose(
        mut self: Box<Self>,
        halves: Halves,
        _host: &mut Host,
    ) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        self.sending = None;
        halves.close();
        (Some(self), Ok(()))
    }

    fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<PortHandover> {
        let port = self.sending.as_ref()?.hand_over(given);
        let Link { index: ifindex, name, .. } = &self.tap.link;
        let (ours, name) = (self.tap.is_ours(), name.clone());
        let state = TapState { port, ifindex: *ifindex, name, ours, found: self.found, away: self.away };
        PortHandover::new(TYPE, &state)
    }

    fn state(&self) -> (PortState, Option<String>) {
        let Link { name, up, carrier, .. } = &self.tap.link;
        let down = |reason: String| (PortState::Down, Some(reason));
        match &self.plan.other_end {
            _ if self.gone => (PortState::Waiting, Some(format!("{name} was removed"))),
            _ if self.away => (PortState::Up, None),
            TapUse::Container { netns: None, .. } if !up => down(format!("{name} waits for a container to take it")),
            _ if !up => down(format!("{name} is set down")),
            TapUse::Guest { .. } if !carrier => down(format!("{name} has no carrier: no program has opened it")),
            _ => (PortState::Up, None),
        }
    }

    fn show(&self, shown: &mut api::Port) {
        shown.interface = Some(self.tap.link.name.clone());
        shown.queues = u32::try_from(self.queues).ok();
    }

    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>> {
        let (tap, plan) = (self.tap.clone(), self.plan.clone());
        Box::new(move |host| Ok(tap.set_mtu(&mut host.links, &plan, mtu)?))
    }

    fn has_mtu(&mut self, mtu: u32) {
        self.plan.mtu = mtu;
    }

    fn fault(&mut self, fault: &Fault, _now: Instant) -> OnFault {
        if self.connection == fault.connection { OnFault::Lost } else { OnFault::Old }
    }

    fn look(&mut self, links: &LinkMap, _findings: Option<Findings>) -> Seen {
        let is_tap = |link: &&Link| link.kind.as_deref() == Some("tun");
        // An interface that comes back from another namespace may have another index.
        let back = |link: &&Link| self.away && link.is_called(&self.plan.interface);
        let index = self.tap.link.index;
        let known = links.get(index).filter(is_tap);
        match known.or_else(|| links.iter().filter(is_tap).find(back)) {
            Some(link) => {
                self.tap.link = link.clone();
                if std::mem::replace(&mut self.away, false) {
                    let (tap, plan) = (self.tap.clone(), self.plan.clone());
                    return Seen::Back(Box::new(move |host| Ok(tap.came_back(&mut host.links, &plan)?)));
                }
            }
            None if self.watch.has_interface() && !self.is_for_guest() => self.away = links.has_gone(index),
            None => self.gone = links.has_gone(index),
        }
        if self.gone { Seen::Gone } else { Seen::Here }
    }

    fn may_reopen(&self, host: &mut Host) -> Result<(), OpenError> {
        match self.found && host.links.link_by_name(&self.plan.interface)?.is_none() {
            true => Err(OpenError::Removed(self.plan.interface.clone())),
            false => Ok(()),
        }
    }

    fn device(&self) -> Option<(u32, &str)> {
        Some((self.tap.link.index, &self.tap.link.name))
    }
}
