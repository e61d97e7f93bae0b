//! `vhost_user` ports: the socket of a guest's hypervisor.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::{Fault, RxQueue};
use labsw_dataplane::vhost_user::{
    Endpoint, EndpointConfig, EndpointState, EndpointStatus, PortRings, Role, Timing, VhostPort,
};
use labsw_dataplane::workers::QueueAffinity;
use labsw_switch::PortId;
use mio::Token;

use super::attachment::{Attachable, Attachment, Halves, Opened, OwnAccess, Site};
use super::error::{OpenError, make_parent};
use super::news::OnFault;
use crate::api::{self, PortRole, PortState};
use crate::config::{PortConfig, SwitchConfig, VhostRole, VhostUserConfig};
use crate::daemon::accounts::{group_id, user_id};
use crate::daemon::host::{Host, HostWork};
use crate::daemon::queues::Queues;
use crate::daemon::tokens::port_tokens;
use crate::device::Links;
use crate::takeover::state::PortHandover;

/// The type in the state that is handed over.
const TYPE: &str = "vhost_user";

impl Attachable for VhostUserConfig {
    fn preflight(&self, _: &PortConfig, _: &SwitchConfig, _: &mut Links) -> Result<(), (&'static str, OpenError)> {
        self.owner.as_deref().map(user_id).transpose().map_err(|error| ("owner", error.into()))?;
        self.group.as_deref().map(group_id).transpose().map_err(|error| ("group", error.into()))?;
        Ok(())
    }

    fn open(&self, id: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError> {
        let endpoint = self.endpoint(port, site)?;
        // The switch's own directory has to exist, also for a front end that listens in it.
        if self.role == VhostRole::Server || self.socket.is_none() {
            make_parent(&endpoint.path)?;
        }
        self.attach(id, site, |rings| Endpoint::open(endpoint, rings).map_err(|error| error.source.into()))
    }

    fn take_over(
        &self,
        id: PortId,
        port: &PortConfig,
        site: &mut Site<'_>,
        handover: PortHandover,
        taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        let handover = handover.read(TYPE)?;
        let endpoint = self.endpoint(port, site)?;
        self.attach(id, site, |rings| Ok(Endpoint::take_over(endpoint, rings, handover, taken)?))
    }

    fn opens_first(&self) -> bool {
        true
    }

    fn show(&self, port: &PortConfig, switch: &SwitchConfig, shown: &mut api::Port) {
        let role = match self.role {
            VhostRole::Server => PortRole::Server,
            VhostRole::Client => PortRole::Client,
        };
        shown.role = Some(role);
        shown.queue_pairs = Some(self.queue_pairs.into());
        shown.socket = Some(self.socket_of(&port.name, switch).display().to_string());
    }
}

impl VhostUserConfig {
    /// The access to the socket's file that the port sets itself.
    fn own_access(&self) -> Result<OwnAccess, OpenError> {
        Ok(OwnAccess {
            mode: self.mode,
            owner: self.owner.as_deref().map(user_id).transpose()?,
            group: self.group.as_deref().map(group_id).transpose()?,
        })
    }

    /// The settings of a port's endpoint.
    fn endpoint(&self, port: &PortConfig, site: &Site<'_>) -> Result<EndpointConfig, OpenError> {
        Ok(EndpointConfig {
            port_name: port.name.clone(),
            path: self.socket_of(&port.name, site.switch),
            role: match self.role {
                VhostRole::Server => Role::Server,
                VhostRole::Client => Role::Client,
            },
            access: self.own_access()?.or(site.switch.socket_mode, site.host.socket_group),
            peer_uid: self.peer_uid,
            queue_pairs: self.queue_pairs,
            offloads: self.offloads,
            mtu: port.mtu,
            timing: Timing::default(),
            memory_limit: Arc::clone(&site.host.guest_memory),
        })
    }

    /// A port whose endpoint `open` makes for its rings.
    fn attach(
        &self,
        id: PortId,
        site: &mut Site<'_>,
        open: impl FnOnce(Box<PortRings>) -> Result<Endpoint, OpenError>,
    ) -> Result<Opened, OpenError> {
        let VhostPort { tx, rx } = VhostPort::new(self.queue_pairs);
        let access = self.own_access()?;
        // The queues are placed later; until then worker 0 stands for all of them.
        let affinity = QueueAffinity::new(rx.iter().map(|_| 0));
        let [listener, connection] = port_tokens(id);
        let rings = PortRings::new(site.workers.clone(), id, Arc::clone(&tx), affinity.clone());
        let mut endpoint = open(Box::new(rings))?;
        endpoint.register(&site.host.registry, listener, connection).map_err(OpenError::EventLoop)?;
        if self.role == VhostRole::Server {
            site.host.ledger.socket_is(endpoint.path());
        }
        let rx = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
        let guest = Guest { endpoint, listens: (self.role == VhostRole::Server).then_some(access) };
        Ok(Opened { attachment: Box::new(guest), tx, queues: Queues::new(rx, affinity) })
    }
}

/// A guest's socket.
struct Guest {
    endpoint: Endpoint,
    /// The port's own settings for the file of the socket that it listens on.
    listens: Option<OwnAccess>,
}

impl Attachment for Guest {
    fn close(self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError> {
        halves.close();
        let path = self.listens.map(|_| self.endpoint.path().to_owned());
        self.endpoint.close();
        if let Some(path) = path {
            host.ledger.socket_gone(&path);
        }
        Ok(())
    }

    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        (None, self.close(halves, host))
    }

    fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<PortHandover> {
        PortHandover::new(TYPE, &self.endpoint.hand_over(given))
    }

    fn revision(&self) -> Option<u64> {
        Some(self.endpoint.revision())
    }

    fn tell_changes(&mut self, tell: Box<dyn FnMut() + Send>) {
        self.endpoint.tell_changes(tell);
    }

    fn notify_once_resumed(&mut self) {
        self.endpoint.interrupt_once_resumed();
    }

    fn resume(&mut self, way: Resume, now: Instant) {
        self.endpoint.resume(way, now);
    }

    fn state(&self) -> (PortState, Option<String>) {
        let status = self.endpoint.status();
        let or = |reason: Option<String>, otherwise: &str| reason.unwrap_or_else(|| otherwise.to_owned());
        match status.state {
            EndpointState::Up => (PortState::Up, None),
            EndpointState::Waiting if status.connected => {
                (PortState::Down, Some(or(status.reason, "the guest's driver is not running")))
            }
            EndpointState::Waiting => (PortState::Down, Some(or(status.reason, "no front end is connected"))),
            EndpointState::Failed => (PortState::Failed, fault_reason(status)),
        }
    }

    fn show(&self, shown: &mut api::Port) {
        let status = self.endpoint.status();
        shown.connected = Some(status.connected);
        shown.front_end = status.front_end.map(|owner| api::FrontEnd { pid: owner.pid, uid: owner.uid });
        shown.turned_away = Some(status.turned_away);
        shown.memory_regions = u32::try_from(status.memory_regions).ok();
        shown.features = Some(status.features_acknowledged.into_iter().map(str::to_owned).collect());
    }

    fn set_mtu(&self, _mtu: u32) -> HostWork<Result<(), OpenError>> {
        Box::new(|_| Ok(()))
    }

    fn has_mtu(&mut self, mtu: u32) {
        self.endpoint.set_mtu(mtu);
    }

    fn fault(&mut self, fault: &Fault, now: Instant) -> OnFault {
        if self.endpoint.fault(fault, now) { OnFault::GoesOn } else { OnFault::Old }
    }

    fn forgive(&mut self, now: Instant) {
        self.endpoint.forgive(now);
    }

    fn ready(&mut self, token: Token, now: Instant) {
        self.endpoint.ready(token, now);
    }

    fn tick(&mut self, now: Instant) -> Option<Duration> {
        self.endpoint.tick(now)
    }

    fn hang_up(&mut self) {
        self.endpoint.hang_up();
    }

    fn listens_on(&self) -> Option<(&Path, OwnAccess)> {
        Some((self.endpoint.path(), self.listens?))
    }
}

/// Why a guest's port failed, and how long the next front end has to wait if that is a second or more.
fn fault_reason(status: EndpointStatus) -> Option<String> {
    let reason = status.reason?;
    Some(match status.waits.filter(|wait| *wait >= Duration::from_secs(1)) {
        Some(wait) => format!("{reason}; the next front end is served in {:.0} s", wait.as_secs_f32().ceil()),
        None => reason,
    })
}
