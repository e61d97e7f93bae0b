//! The objects of the switch as replies show them.

use std::collections::BTreeSet;
use std::time::Instant;

use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::Vid;
use labsw_switch::fdb::FdbFilter;
use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::{Leaves, PortVlan, VlanSet};

use super::attach;
use super::busy_poll::BusyPolls;
use super::destinations;
use super::fabric::Fabric;
use super::flap::Flap;
use super::impairments::Impaired;
use super::mirrors::Mirror;
use super::port::Port;
use super::ports::Ports;
use super::switch::Switch;
use super::view::View;
use crate::api::{self, Error, MirrorState, PortState};
use crate::config::{MirrorConfig, MirrorTo, Power, SwitchConfig};
use crate::model::Inject;

impl Switch {
    pub(super) fn show_status(&mut self) -> api::Status {
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            uptime_milliseconds: self.uptime_milliseconds(),
            power: match self.config.power {
                Power::Adaptive => "adaptive",
                Power::Performance => "performance",
            }
            .to_owned(),
            workers: show_workers(&self.fabric, &self.ports),
            ports: self.show_ports(),
            mirrors: show_mirrors(self.view()),
            inlines: self.inlines.show(&self.ports),
            impairments: show_impairments(&self.ports),
            multicast: self.multicast.totals(),
            mac_moves: self.fabric.shared.fdb.moved(),
            unconfirmed: self.show_trial(Instant::now()),
        }
    }

    /// All ports, by name.
    pub(super) fn show_ports(&mut self) -> Vec<api::Port> {
        let names = self.ports.names();
        names.iter().filter_map(|name| self.show_port(name).ok()).collect()
    }

    /// One port, with its impairment, mirrors and stations.
    pub(super) fn show_port(&mut self, name: &str) -> Result<api::Port, Error> {
        let fast_path = self.fast_path_of(self.ports.get(name)?);
        let inline = self.inlines.show_of_port(name, &self.ports);
        let Switch { ports, mirrors, config, busy_polls, fabric, captures, .. } = self;
        let port = ports.get_mut(name)?;
        let mut shown = show_port(port, config, busy_polls);
        (shown.fast_path, shown.inline) = (fast_path, inline);
        shown.impaired = port.impaired.iter().flat_map(Impaired::show).map(|impaired| impaired.direction).collect();
        let everywhere = port.config.allow_mirror && !mirrors.configs().any(|mirror| mirror.to.port() == Some(name));
        let all = |mirror: &MirrorConfig| everywhere && mirror.sources.iter().any(|source| source.port == "*");
        let of_port = mirrors.configs().filter(|mirror| mirror.names(name) || all(mirror));
        shown.mirrors = of_port.map(|mirror| mirror.name.clone()).collect();
        shown.workers = port.queues.places.iter().filter_map(|placed| placed.home).map(number).collect();
        shown.rewind = captures.show_rewind(name);
        shown.stations = fabric.shared.fdb.len_of_port(port.id) as u64;
        Ok(shown)
    }

    pub(super) fn show_stats(&self, only: Option<&str>) -> Result<api::Stats, Error> {
        let shown = |port: &Port| api::PortStats { name: port.config.name.clone(), counters: shown_counters(port) };
        let ports = match only {
            Some(name) => vec![shown(self.ports.get(name)?)],
            None => self.ports.iter().map(shown).collect(),
        };
        Ok(api::Stats { uptime_milliseconds: self.uptime_milliseconds(), ports })
    }

    fn uptime_milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

pub(super) fn show_workers(fabric: &Fabric, ports: &Ports) -> Vec<api::Worker> {
    let numbered = fabric.workers.handles().iter().zip(&fabric.loads).enumerate();
    let shown = numbered.map(|(id, (worker, [now, before]))| {
        let load = now.since(before);
        api::Worker {
            id: number(id),
            cpu: worker.cpu().map(number),
            busy_percent: load.busy_percent(),
            frames_per_burst: load.frames_per_burst(),
            asleep: worker.asleep(),
            asleep_percent: load.asleep_percent(),
            queues: ports.iter().flat_map(|port| shown_queues(port, id)).collect(),
        }
    });
    shown.collect()
}

/// One port.
fn show_port(port: &mut Port, config: &SwitchConfig, busy_polls: &BusyPolls) -> api::Port {
    let (state, reason) = port.state();
    let mut shown =
        api::Port::new(&port.config.name, port.config.kind.port_type(), api::Vlan::shown(&port.config.vlan));
    (shown.state, shown.reason) = (state, reason);
    shown.settings = port.config.to_settings();
    shown.counters = shown_counters(port);
    shown.mtu = port.config.mtu;
    shown.flap = port.flap.as_ref().map(Flap::show);
    shown.link_local = match port.config.link_local {
        LinkLocal::Transparent => "transparent",
        LinkLocal::Drop => "drop",
    }
    .to_owned();
    shown.mirror_only = port.config.mirror_only;
    shown.allow_mirror = port.config.allow_mirror;
    shown.finish_checksums = port.config.finish_checksums;
    shown.guards = api::Guards::of(&port.config.guards, port.guard_state.over_limit.seen());
    let port_type = attach::of(&port.config.kind);
    port_type.show(&port.config, config, &mut shown);
    if let Some(attachment) = port.attached.to() {
        attachment.show(&mut shown);
    }
    if port_type.polls_busily()
        && let Some(sockets) = port.attached.to_mut().and_then(|to| to.sockets())
    {
        shown.busy_poll = Some(busy_polls.verdict(sockets, shown.counters.rx_frames > 0));
    }
    shown
}

/// All VLANs that some port names, with their members. A port that carries every VLAN names none.
pub(super) fn show_vlans(ports: &Ports) -> Vec<api::VlanRow> {
    let members: Vec<&Port> = ports.iter().filter(|port| !port.config.mirror_only).collect();
    let named: BTreeSet<Vid> = members.iter().flat_map(|port| named_vlans(&port.config.vlan)).collect();
    let row = |vid: Vid| {
        let in_vlan = members.iter().filter(|port| port.config.vlan.is_member(vid));
        let shown = in_vlan.map(|port| api::VlanMember {
            port: port.config.name.clone(),
            tagged: port.config.vlan.leaves(vid) == Leaves::Tagged,
        });
        api::VlanRow { vlan: vid.into(), ports: shown.collect() }
    };
    named.into_iter().map(row).collect()
}

/// Entries of the forwarding database, by VLAN and address.
pub(super) fn show_fdb(View { ports, fabric, .. }: View<'_>, filter: FdbFilter) -> Vec<api::FdbEntry> {
    let entries = fabric.shared.fdb.entries(filter, labsw_dataplane::clock::now_seconds());
    let shown = entries.into_iter().filter_map(|entry| {
        Some(api::FdbEntry {
            vlan: entry.vid.into(),
            mac: entry.mac.to_string(),
            port: ports.at(entry.port)?.config.name.clone(),
            is_static: entry.is_static,
            fast_path: ports.at(entry.port)?.fast_path().is_some_and(|record| record.passes(entry.vid)),
            sticky: entry.is_sticky,
            age_seconds: entry.age_seconds.into(),
        })
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by(|a, b| (a.vlan, &a.mac).cmp(&(b.vlan, &b.mac)));
    shown
}

/// The mirrors, by name.
pub(super) fn show_mirrors(view: View<'_>) -> Vec<api::Mirror> {
    view.mirrors.iter().map(|mirror| show_mirror(mirror, view)).collect()
}

/// One mirror.
pub(super) fn show_mirror(mirror: &Mirror, view: View<'_>) -> api::Mirror {
    let config = &mirror.config;
    let waiting = waits_for(config, view);
    let counters = mirror.counters(view.fabric);
    api::Mirror {
        name: config.name.clone(),
        state: if waiting.is_some() { MirrorState::Waiting } else { MirrorState::Up },
        reason: waiting,
        to: config.to.port().map(str::to_owned),
        to_remote: config.to.remote().cloned().map(Box::new),
        warning: warning(config, view),
        to_vlan: config.to.vlan().map(u16::from),
        force: config.to.is_forced(),
        sources: config.sources.iter().filter_map(|source| source.to_string().parse().ok()).collect(),
        vlans: config.vlans.iter().flat_map(VlanSet::iter).map(u16::from).collect(),
        filter: config.filter.as_ref().map(|filter| filter.text().to_owned()),
        snaplen: config.snaplen,
        inject: config.inject.as_ref().map(Inject::from),
        matched: counters.matched,
        sent: counters.sent,
        dropped: counters.dropped,
        truncated: counters.truncated,
    }
}

/// Says that copies of a session may be too long for its destination.
fn warning(config: &MirrorConfig, View { ports, .. }: View<'_>) -> Option<String> {
    let port = ports.find(config.to.port()?)?;
    let spec = port.destination.remote.as_ref().map(|remote| remote.spec());
    let largest_mtu = ports.configs().map(|port| port.mtu).max().unwrap_or(0);
    destinations::warning(&port.config.name, port.config.mtu, spec, largest_mtu)
}

/// Why copies of a session reach no destination, if they do not.
pub(super) fn waits_for(config: &MirrorConfig, View { ports, mirrors, .. }: View<'_>) -> Option<String> {
    let not_up = |to: &str| match ports.find(to).map(Port::state) {
        None => Some(format!("there is no port {to:?}")),
        Some((PortState::Up, _)) => None,
        Some((state, reason)) => Some(format!("{to:?} is {state}: {}", reason.as_deref().unwrap_or("no reason given"))),
    };
    match &config.to {
        MirrorTo::Port(to) => not_up(to),
        MirrorTo::Remote(remote) => not_up(&remote.port).or_else(|| {
            let known = ports.find(&remote.port)?.destination.remote.as_ref()?.station();
            let hop = remote.asked();
            let how = if hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
            known.is_none().then(|| format!("the next hop {hop} does not answer {how}"))
        }),
        MirrorTo::Vlan { vid, .. } => {
            let carries =
                |port: &&Port| port.config.vlan.lists_explicitly(*vid) && !mirrors.has_copies_sent_by(&port.config);
            let states: Vec<PortState> = ports.iter().filter(carries).map(|port| port.state().0).collect();
            match states.contains(&PortState::Up) {
                true => None,
                false if states.is_empty() => Some(format!("no port names VLAN {vid} in its trunks")),
                false => Some(format!("no port that names VLAN {vid} in its trunks is up")),
            }
        }
    }
}

/// The impairments, by port and direction.
pub(super) fn show_impairments(ports: &Ports) -> Vec<api::Impairment> {
    ports.iter().filter_map(|port| port.impaired.as_ref()).flat_map(Impaired::show).collect()
}

fn shown_counters(port: &Port) -> api::Counters {
    let counters = api::Counters::from(&port.counters());
    let kernel =
        port.kernel_counters().iter().flat_map(XdpCounters::named).map(|(name, n)| (name.to_owned(), n)).collect();
    api::Counters { kernel, ..counters }
}

/// The queues of `port` that `worker` serves.
fn shown_queues(port: &Port, worker: usize) -> Vec<api::WorkerQueue> {
    let placed = port.queues.places.iter().enumerate().filter(|(_, placed)| placed.home == Some(worker));
    let shown = placed.map(|(queue, placed)| api::WorkerQueue {
        port: port.config.name.clone(),
        queue: number(queue),
        pinned: placed.pinned.is_some(),
    });
    shown.collect()
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The VLANs that a port's settings list one by one.
fn named_vlans(vlan: &PortVlan) -> Vec<Vid> {
    let all = *vlan.trunks() == VlanSet::ALL;
    vlan.tag().into_iter().chain(vlan.trunks().iter().filter(|_| !all)).collect()
}
