//! Answers to the control socket: each request to the switch's own method, each thing as it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::fdb::{Fdb, FdbFilter};
use labsw_switch::tables::LinkLocal;
use labsw_switch::vlan::{Leaves, PortVlan, VlanSet};
use labsw_switch::{PortId, Vid};

use serde_json::json;

use super::Switch;
use super::flap::Flap;
use super::mirrors::Mirror;
use super::ports::Port;
use crate::api::{
    self, CaptureSpec, Change, Error, Feed, Handler, MirrorState, Peer, PortState, Reply, Request, WantedConfig,
};
use crate::config::{
    AfXdpConfig, ConfigError, ImpairConfig, MirrorConfig, MirrorTo, PortConfig, PortKind, Power, Settings, TapConfig,
    VethConfig, VhostRole, VhostUserConfig,
};
use crate::model::Inject;

impl Handler for Switch {
    fn call(&mut self, _peer: &Peer, request: Request) -> Result<Reply, Error> {
        match request {
            Request::GetStatus => Ok(Reply::Status(self.show_status())),
            Request::ListWorkers => Ok(Reply::Workers(self.show_workers())),
            Request::ListPorts => Ok(Reply::Ports(self.show_ports())),
            Request::ShowPort { name } => {
                self.port(&name)?;
                let port = self.show_ports().into_iter().find(|port| port.name == name);
                port.map(|port| Reply::Port(Box::new(port))).ok_or_else(|| Error::not_found("port", name))
            }
            Request::ListVlans => Ok(Reply::Vlans(self.show_vlans())),
            Request::ListFdb { vlan, port } => Ok(Reply::Fdb(self.show_fdb(vlan, port.as_deref())?)),
            Request::ListMulticast { vlan } => Ok(Reply::Multicast(self.show_multicast(vlan.map(vid).transpose()?))),
            Request::ListMirrors => Ok(Reply::Mirrors(self.show_mirrors())),
            Request::ShowMirror { name } => {
                let mirror = self.show_mirrors().into_iter().find(|mirror| mirror.name == name);
                mirror.map(|mirror| Reply::Mirror(Box::new(mirror))).ok_or_else(|| Error::not_found("mirror", name))
            }
            Request::ListImpairments => Ok(Reply::Impairments(self.show_impairments())),
            Request::GetStats { port, .. } => Ok(Reply::Stats(self.show_stats(port.as_deref())?)),
            Request::TraceFrame { port, frame } => Ok(Reply::Trace(self.trace(&port, &frame)?)),
            Request::ShowConfig => Ok(Reply::Config(self.show_config())),
            Request::CheckConfig(config) => Ok(Reply::Awaited(self.check_config(&config)?)),
            Request::DiffConfig(WantedConfig { config, keep_runtime }) => {
                Ok(Reply::Changes(self.diff_config(&config, keep_runtime)?))
            }
            Request::Capture(_) => Err(Error::ExpectedMore),
            Request::ListCaptures => Ok(Reply::Captures(self.show_captures())),
            Request::Change(change) => self.change(change),
        }
    }

    fn capture(&mut self, peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        self.begin_capture(peer, spec)
    }
}

impl Switch {
    fn change(&mut self, change: Change) -> Result<Reply, Error> {
        match change {
            Change::AddPort { name, port_type, settings } => {
                let config = PortConfig::from_settings(&name, port_type.name(), &settings, &self.config);
                self.add_port(config.map_err(|error| wrong_setting("port", &name, &error))?)?;
            }
            Change::SetPort { name, settings } => {
                let port = self.port(&name)?;
                let config = port.config.with_settings(&settings);
                self.set_port(&name, config.map_err(|error| wrong_setting("port", &name, &error))?)?;
            }
            Change::DeletePort { name } => self.delete_port(&name)?,
            Change::SetPortState { name, up } => self.switch_port(&name, up)?,
            Change::FlapPort { name, every_milliseconds, count } => {
                self.flap_port(&name, Duration::from_millis(every_milliseconds), count)?;
            }
            Change::AddFdb { vlan, mac, port } => {
                let id = self.port(&port)?.id;
                let refused = |reason: String| Error::refused(format!("fdb entry {mac} in VLAN {vlan}"), reason);
                let vid = vid(vlan)?;
                if mac.is_group() {
                    return Err(refused("a group address is at no single port; use a unicast address".to_owned()));
                }
                self.fabric.shared.fdb.add_static(vid, mac, id).map_err(|error| refused(error.to_string()))?;
            }
            Change::DeleteFdb { vlan, mac } => {
                if !self.fabric.shared.fdb.remove(vid(vlan)?, mac) {
                    return Err(Error::not_found("fdb entry", format!("{mac} in VLAN {vlan}")));
                }
            }
            Change::FlushFdb { vlan, port } => {
                let (vlan, port) = self.fdb_filter(vlan, port.as_deref())?;
                let fdb = &self.fabric.shared.fdb;
                let flush = if port.is_some() { Fdb::flush_with_sticky } else { Fdb::flush };
                return Ok(Reply::Removed(flush(fdb, vlan, port) as u64));
            }
            Change::SetMirror { name, sources, vlans, filter, snaplen, to, to_vlan, force, inject } => {
                let mut set = Settings::new();
                set.insert("sources".to_owned(), json!(sources));
                set.insert("snaplen".to_owned(), json!(snaplen));
                if !vlans.is_empty() {
                    set.insert("vlans".to_owned(), json!(vlans));
                }
                let given = [
                    ("filter", filter.map(|filter| json!(filter))),
                    ("to", to.map(|to| json!(to))),
                    ("to_vlan", to_vlan.map(|vlan| json!(vlan))),
                    ("force", Some(json!(true)).filter(|_| force)),
                    ("inject", inject.map(|inject| json!(inject))),
                ];
                set.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
                let config = MirrorConfig::from_settings(&name, &set);
                self.set_mirror(config.map_err(|error| wrong_setting("mirror", &name, &error))?)?;
            }
            Change::Inject { port, injection, frames, end } => {
                return Ok(Reply::Injected(self.inject(&port, injection, &frames, end)?));
            }
            Change::PinQueue { port, queue, worker } => self.pin_queue(&port, queue, worker)?,
            Change::SetImpairment { port, settings } => {
                self.port(&port)?;
                let config = ImpairConfig::from_settings(&port, &settings, &self.profiles);
                let wrong = |error| wrong_key(format!("impairment of {port:?}"), &format!("impair.{port}"), &error);
                self.impair(config.map_err(wrong)?)?;
            }
            Change::ClearImpairment { port, direction } => self.clear_impairment(&port, direction)?,
            Change::DeleteMirror { name } => self.delete_mirror(&name)?,
            Change::ApplyConfig(WantedConfig { config, keep_runtime }) => {
                return Ok(Reply::Changes(self.apply_config(&config, keep_runtime)?));
            }
        }
        Ok(Reply::Done)
    }

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
            workers: self.show_workers(),
            ports: self.show_ports(),
            mirrors: self.show_mirrors(),
            impairments: self.show_impairments(),
            multicast: self.multicast_totals(),
        }
    }

    fn show_workers(&self) -> Vec<api::Worker> {
        let numbered = self.fabric.workers.handles().iter().zip(&self.fabric.loads).enumerate();
        let shown = numbered.map(|(id, (worker, [now, before]))| {
            let load = now.since(before);
            api::Worker {
                id: number(id),
                cpu: worker.cpu().map(number),
                busy_percent: load.busy_percent(),
                frames_per_burst: load.frames_per_burst(),
                asleep: worker.asleep(),
                asleep_percent: load.asleep_percent(),
                queues: self.ports.values().flat_map(|port| shown_queues(port, id)).collect(),
            }
        });
        shown.collect()
    }

    fn show_ports(&mut self) -> Vec<api::Port> {
        let Switch { ports, config, busy_polls, .. } = self;
        ports
            .values_mut()
            .map(|port| {
                let (state, reason) = port.state();
                let mut shown = api::Port::new(&port.config.name, port.config.kind.port_type(), shown_vlan(port));
                (shown.state, shown.reason) = (state, reason);
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
                shown.guards = api::Guards::of(&port.config.guards, port.guard_state.over_limit.seen());
                shown.socket = port.config.vhost_socket(config).map(|path| path.display().to_string());
                show_kind(&port.config.kind, &mut shown);
                if let Some(attachment) = port.attached.to() {
                    attachment.show(&mut shown);
                }
                if let (PortKind::AfXdp(_), Some(sockets)) =
                    (&port.config.kind, port.attached.to_mut().and_then(|to| to.sockets()))
                {
                    shown.busy_poll = Some(busy_polls.verdict(sockets, shown.counters.rx_frames > 0));
                }
                shown
            })
            .collect()
    }

    /// The VLANs that a port names, and their members. A port that carries every VLAN names none of them.
    fn show_vlans(&self) -> Vec<api::VlanRow> {
        let members: Vec<&Port> = self.ports.values().filter(|port| !port.config.mirror_only).collect();
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

    fn show_fdb(&self, vlan: Option<u16>, port: Option<&str>) -> Result<Vec<api::FdbEntry>, Error> {
        let (vid, port) = self.fdb_filter(vlan, port)?;
        let entries = self.fabric.shared.fdb.entries(FdbFilter { vid, port }, labsw_dataplane::clock::now_seconds());
        let name_of = |id: PortId| self.ports.values().find(|port| port.id == id).map(|port| port.config.name.clone());
        let shown = entries.into_iter().filter_map(|entry| {
            Some(api::FdbEntry {
                vlan: entry.vid.into(),
                mac: entry.mac.to_string(),
                port: name_of(entry.port)?,
                is_static: entry.is_static,
                sticky: entry.is_sticky,
                age_seconds: entry.age_seconds.into(),
            })
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| (a.vlan, &a.mac).cmp(&(b.vlan, &b.mac)));
        Ok(shown)
    }

    fn fdb_filter(&self, vlan: Option<u16>, port: Option<&str>) -> Result<(Option<Vid>, Option<PortId>), Error> {
        let port = port.map(|name| self.port(name)).transpose()?.map(|port| port.id);
        Ok((vlan.map(vid).transpose()?, port))
    }

    fn show_mirrors(&self) -> Vec<api::Mirror> {
        let states = self.ports.iter().map(|(name, port)| (name.clone(), port.state())).collect();
        self.mirrors.values().map(|mirror| self.show_mirror(mirror, &states)).collect()
    }

    fn show_mirror(&self, mirror: &Mirror, states: &BTreeMap<String, (PortState, Option<String>)>) -> api::Mirror {
        let config = &mirror.config;
        let waiting = match &config.to {
            MirrorTo::Port(to) => match states.get(to) {
                None => Some(format!("there is no port {to:?}")),
                Some((PortState::Up, _)) => None,
                Some((state, reason)) => {
                    Some(format!("{to:?} is {state}: {}", reason.as_deref().unwrap_or("no reason given")))
                }
            },
            MirrorTo::Vlan { vid, .. } => {
                let ports = self.ports.values().map(|port| &port.config);
                let names = ports.filter(|port| port.vlan.names(*vid) && !self.sends_copies(port));
                let states: Vec<_> = names.filter_map(|port| states.get(&port.name)).collect();
                match states.iter().any(|(state, _)| *state == PortState::Up) {
                    true => None,
                    false if states.is_empty() => Some(format!("no port names VLAN {vid} in its trunks")),
                    false => Some(format!("no port that names VLAN {vid} in its trunks is up")),
                }
            }
        };
        let counters = self.mirror_counters(mirror);
        api::Mirror {
            name: config.name.clone(),
            state: if waiting.is_some() { MirrorState::Waiting } else { MirrorState::Up },
            reason: waiting,
            to: config.to.port().map(str::to_owned),
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

    fn show_stats(&self, only: Option<&str>) -> Result<api::Stats, Error> {
        let shown = |port: &Port| api::PortStats { name: port.config.name.clone(), counters: shown_counters(port) };
        let ports = match only {
            Some(name) => vec![shown(self.port(name)?)],
            None => self.ports.values().map(shown).collect(),
        };
        Ok(api::Stats { uptime_milliseconds: self.uptime_milliseconds(), ports })
    }

    fn uptime_milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn shown_counters(port: &Port) -> api::Counters {
    let counters = api::Counters::from(&port.counters());
    let kernel =
        port.kernel_counters().iter().flat_map(XdpCounters::named).map(|(name, n)| (name.to_owned(), n)).collect();
    api::Counters { kernel, ..counters }
}

/// The queues of `port` that `worker` has.
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

fn wrong_setting(kind: &str, name: &str, error: &ConfigError) -> Error {
    wrong_key(format!("{kind} {name:?}"), &format!("{kind}s.{name}"), error)
}

/// A setting of the table `table` that is wrong, as a refusal about `object`.
fn wrong_key(object: String, table: &str, error: &ConfigError) -> Error {
    let key = error.key().strip_prefix(table).unwrap_or_default().trim_start_matches('.');
    Error::invalid_setting(object, key, error.within(table))
}

fn vid(vlan: u16) -> Result<Vid, Error> {
    Vid::try_from(vlan).map_err(|_| Error::invalid("vlan"))
}

/// The VLANs that a port's settings name one by one.
fn named_vlans(vlan: &PortVlan) -> Vec<Vid> {
    let all = *vlan.trunks() == VlanSet::ALL;
    vlan.tag().into_iter().chain(vlan.trunks().iter().filter(|_| !all)).collect()
}

fn shown_vlan(port: &Port) -> api::Vlan {
    api::Vlan::shown(&port.config.vlan)
}

/// What the configuration says of this kind of port.
fn show_kind(kind: &PortKind, shown: &mut api::Port) {
    match kind {
        PortKind::AfXdp(AfXdpConfig { device, .. }) => shown.device = Some(device.to_string()),
        PortKind::VhostUser(VhostUserConfig { role, queue_pairs, .. }) => {
            let role = match role {
                VhostRole::Server => "server",
                VhostRole::Client => "client",
            };
            shown.role = Some(role.to_owned());
            shown.queue_pairs = Some((*queue_pairs).into());
        }
        PortKind::Veth(VethConfig { peer, netns, peer_name, .. }) => {
            let in_netns = peer_name.as_ref().filter(|_| netns.is_some());
            shown.peer = Some(in_netns.unwrap_or(peer).clone());
            shown.netns = netns.clone();
        }
        PortKind::Tap(TapConfig { interface, other_end, netns, peer_name, .. }) => {
            shown.role = Some(other_end.name().to_owned());
            if netns.is_some() {
                shown.peer = Some(peer_name.as_ref().unwrap_or(interface).clone());
                shown.netns = netns.clone();
            }
            shown.device = Some(interface.clone());
        }
    }
}
