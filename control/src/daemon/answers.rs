//! Answers to the control socket. Each request goes to one method of the switch; [`show`](super::show) turns objects of
//! the switch into replies.

use std::time::{Duration, Instant};

use labsw_switch::fdb::{Fdb, FdbFilter};
use labsw_switch::{Mac, Vid};

use super::errand::Errand;
use super::events;
use super::show::{show_fdb, show_impairments, show_mirror, show_mirrors, show_vlans, show_workers};
use super::switch::Switch;
use super::trace::trace;
use super::view::View;
use crate::api::{
    AppliedConfig, Awaited, CaptureSpec, Captures, Change, Changes, Done, Error, FdbEntries, Feed, Handler,
    Impairments, InlineSettings, Inlines, Mirrors, OneInline, OneMirror, OnePort, Peer, Ports, Removed, Reply, Request,
    Vlans, WantedConfig, Workers,
};
use crate::config::{ConfigError, ImpairConfig, InlineConfig, MirrorConfig, PortConfig, Settings};

impl Handler for Switch {
    fn call(&mut self, peer: &Peer, request: Request) -> Result<Reply, Error> {
        match request {
            Request::GetStatus => Ok(Reply::Status(self.show_status())),
            Request::ListWorkers => Ok(Reply::Workers(Workers { workers: show_workers(&self.fabric, &self.ports) })),
            Request::ListPorts => Ok(Reply::Ports(Ports { ports: self.show_ports() })),
            Request::ShowPort { name } => {
                let port = Box::new(self.show_port(&name)?);
                Ok(Reply::Port(OnePort { port }))
            }
            Request::ListVlans => Ok(Reply::Vlans(Vlans { vlans: show_vlans(&self.ports) })),
            Request::ListFdb { vlan, port } => {
                let entries = show_fdb(self.view(), self.fdb_filter(vlan, port.as_deref())?);
                Ok(Reply::Fdb(FdbEntries { entries }))
            }
            Request::ListMulticast { vlan } => {
                Ok(Reply::Multicast(self.multicast.show(vlan.map(vid).transpose()?, &self.ports)))
            }
            Request::ListMirrors => Ok(Reply::Mirrors(Mirrors { mirrors: show_mirrors(self.view()) })),
            Request::ShowMirror { name } => {
                let mirror = Box::new(show_mirror(self.mirrors.get(&name)?, self.view()));
                Ok(Reply::Mirror(OneMirror { mirror }))
            }
            Request::ListInlines => Ok(Reply::Inlines(Inlines { inlines: self.inlines.show(&self.ports) })),
            Request::ShowInline { name } => {
                let inline = Box::new(self.inlines.show_one(&name, &self.ports)?);
                Ok(Reply::Inline(OneInline { inline }))
            }
            Request::ListImpairments => {
                Ok(Reply::Impairments(Impairments { impairments: show_impairments(&self.ports) }))
            }
            Request::GetStats { port, .. } => Ok(Reply::Stats(self.show_stats(port.as_deref())?)),
            Request::TraceFrame { port, frame } => Ok(Reply::Trace(trace(self.view(), &port, &frame)?)),
            Request::ShowConfig => Ok(Reply::Config(self.show_config())),
            Request::Capture(_) | Request::Monitor { .. } => Err(Error::ExpectedMore {}),
            Request::ListCaptures => Ok(Reply::Captures(Captures { captures: self.captures.show() })),
            Request::Change(change @ Change::Inject { .. }) => self.inject(peer, change),
            // These go to the device thread.
            deferred @ (Request::Change(_) | Request::CheckConfig(_) | Request::DiffConfig(_)) => {
                Err(Error::MethodNotImplemented { method: deferred.method().to_owned() })
            }
        }
    }

    fn defers(&self, request: &Request) -> bool {
        match request {
            Request::Change(change) => !matches!(change, Change::Inject { .. }),
            request => matches!(request, Request::CheckConfig(_) | Request::DiffConfig(_)),
        }
    }

    fn capture(&mut self, peer: &Peer, spec: CaptureSpec) -> Result<Box<dyn Feed>, Error> {
        let Switch { captures, ports, mirrors, inlines, fabric, .. } = self;
        let feed = captures.begin(peer, spec, View { ports, mirrors, inlines, fabric })?;
        self.renew_gates();
        Ok(self.settling.before(feed))
    }

    fn go_on(&mut self, peer: &Peer, state: serde_json::Value) -> Result<Box<dyn Feed>, Error> {
        let Switch { captures, ports, mirrors, inlines, fabric, .. } = self;
        captures.go_on(peer, state, View { ports, mirrors, inlines, fabric })
    }

    fn monitor(&mut self, last: u64) -> Result<Box<dyn Feed>, Error> {
        Ok(self.events.read(last))
    }
}

impl Switch {
    /// Takes frames that a client injects. Tells who began or ended an injection.
    fn inject(&mut self, peer: &Peer, change: Change) -> Result<Reply, Error> {
        let described = events::describe(&change);
        let Change::Inject { port, injection, beside, frames, end } = change else {
            return Err(Error::MethodNotImplemented { method: "Inject".to_owned() });
        };
        let Switch { injections, ports, mirrors, inlines, fabric, .. } = self;
        let view = View { ports, mirrors, inlines, fabric };
        let outcome = injections.inject(&port, (injection, beside), (&frames, end), view).map(Reply::Injected);
        if let Some(described) = described {
            self.events.tell(events::outcome(described, peer, &outcome));
        }
        outcome
    }

    /// The impairment that a port gets if `settings` are applied to the directions that they name.
    fn impairment_wanted(&self, port: &str, settings: &Settings, replace: bool) -> Result<ImpairConfig, Error> {
        let before = self.ports.get(port)?.impaired.as_ref().filter(|_| !replace);
        let config = match before {
            Some(before) => before.config.with_settings(settings, &self.profiles),
            None => ImpairConfig::from_settings(port, settings, &self.profiles),
        };
        config.map_err(|error| {
            // Only the settings of a change lie in a direction's own table; a client does not name that table.
            let tables = ["rx", "tx"].map(|direction| format!("impair.{port}.{direction}"));
            let within = tables.into_iter().find(|table| error.key().starts_with(&format!("{table}.")));
            let table = within.filter(|_| !settings.contains_key("rx") && !settings.contains_key("tx"));
            wrong_key(format!("impairment of {port:?}"), &table.unwrap_or_else(|| format!("impair.{port}")), &error)
        })
    }

    /// The sensor that a request describes; what it leaves out stays.
    fn inline_wanted(&self, set: &InlineSettings) -> Result<InlineConfig, Error> {
        let before = self.inlines.get(&set.name).ok().map(|inline| &inline.config).filter(|_| !set.replace);
        let config = InlineConfig::from_settings(&set.name, &set.to_keys(), before);
        config.map_err(|error| wrong_key(format!("inline {:?}", set.name), &format!("inline.{}", set.name), &error))
    }

    /// Adds a static entry.
    fn add_fdb(&self, vid: Vid, mac: Mac, port: &str) -> Result<(), Error> {
        let id = self.ports.get(port)?.id;
        let refused = |reason: String| Error::refused(format!("fdb entry {mac} in VLAN {vid}"), reason);
        if mac.is_group() {
            return Err(refused("a group address is at no single port; use a unicast address".to_owned()));
        }
        self.fabric.shared.fdb.add_static(vid, mac, id).map_err(|error| refused(error.to_string()))
    }

    /// Removes learned entries; returns how many.
    fn flush_fdb(&self, FdbFilter { vid, port }: FdbFilter) -> u64 {
        let flush = if port.is_some() { Fdb::flush_with_sticky } else { Fdb::flush };
        flush(&self.fabric.shared.fdb, vid, port) as u64
    }

    fn fdb_filter(&self, vlan: Option<u16>, port: Option<&str>) -> Result<FdbFilter, Error> {
        let port = port.map(|name| self.ports.get(name)).transpose()?.map(|port| port.id);
        Ok(FdbFilter { vid: vlan.map(vid).transpose()?, port })
    }
}

impl Errand<'_> {
    /// Answers a request that the control thread defers.
    pub(super) fn answer(&mut self, peer: &Peer, request: Request) -> Result<Reply, Error> {
        match request {
            Request::CheckConfig(config) => Ok(Reply::Awaited(Awaited { awaited: self.check_config(&config)? })),
            Request::DiffConfig(WantedConfig { config, keep_runtime }) => {
                Ok(Reply::Changes(Changes { changes: self.diff_config(&config, keep_runtime)? }))
            }
            Request::Change(change) => self.change_told(peer, change),
            other => self.call(peer, other),
        }
    }

    /// Makes a change, and tells who wanted it and what has become of it.
    fn change_told(&mut self, peer: &Peer, change: Change) -> Result<Reply, Error> {
        let described = events::describe(&change);
        self.changing = true;
        let outcome = self.change(change);
        self.changing = false;
        if let Some(described) = described {
            self.events.tell(events::outcome(described, peer, &outcome));
        }
        self.notice_changes();
        self.settle_gates();
        outcome
    }

    fn change(&mut self, change: Change) -> Result<Reply, Error> {
        match change {
            Change::AddPort { name, port_type, settings } => {
                let config = PortConfig::from_settings(&name, port_type.name(), &settings, &self.config);
                self.add_port(config.map_err(|error| wrong_setting("port", &name, &error))?)?;
            }
            Change::SetPort { name, settings, replace } => {
                let port = &self.ports.get(&name)?.config;
                let config = match replace {
                    true => port.replaced(&settings, &self.config),
                    false => port.with_settings(&settings, &self.config),
                };
                let config = config.map_err(|error| wrong_setting("port", &name, &error))?;
                let others = self.ports.configs().filter(|other| other.name != name);
                let kept = others.filter_map(|other| other.rewind).fold(0, u64::saturating_add);
                let enough = config.check_rewind(kept, &self.config);
                enough.map_err(|reason| {
                    Error::invalid_setting(format!("port {name:?}"), "rewind", format!("rewind: {reason}"))
                })?;
                self.set_port(&name, config)?;
            }
            Change::DeletePort { name } => self.delete_port(&name)?,
            Change::SetPortState { name, up } => self.switch_port(&name, up)?,
            Change::FlapPort { name, every_milliseconds, count } => {
                self.flap_port(&name, Duration::from_millis(every_milliseconds), count)?;
            }
            Change::AddFdb { vlan, mac, port } => self.add_fdb(vid(vlan)?, mac, &port)?,
            Change::DeleteFdb { vlan, mac } => {
                if !self.fabric.shared.fdb.remove(vid(vlan)?, mac) {
                    return Err(Error::not_found("fdb entry", format!("{mac} in VLAN {vlan}")));
                }
            }
            Change::FlushFdb { vlan, port } => {
                let removed = self.flush_fdb(self.fdb_filter(vlan, port.as_deref())?);
                return Ok(Reply::Removed(Removed { removed }));
            }
            Change::SetMirror(set) => {
                let before = self.mirrors.get(&set.name).ok().map(|mirror| &mirror.config).filter(|_| !set.replace);
                let config = MirrorConfig::from_settings(&set.name, &set.to_keys(), before);
                self.set_mirror(config.map_err(|error| wrong_setting("mirror", &set.name, &error))?)?;
            }
            Change::DeleteMirror { name } => self.delete_mirror(&name)?,
            Change::SetInline(set) => self.set_inline(self.inline_wanted(&set)?)?,
            Change::DeleteInline { name } => self.delete_inline(&name)?,
            Change::SetImpairment { port, settings, replace } => {
                let config = self.impairment_wanted(&port, &settings, replace)?;
                self.impair(config)?;
            }
            Change::ClearImpairment { port, direction } => self.clear_impairment(&port, direction)?,
            // The control thread does this by itself: no device is changed, and the next frames come soon.
            Change::Inject { .. } => return Err(Error::MethodNotImplemented { method: "Inject".to_owned() }),
            Change::PinQueue { port, queue, worker } => self.pin_queue(&port, queue, worker)?,
            Change::ApplyConfig(applied) => return self.apply(&applied),
            Change::ConfirmConfig => self.confirm_config()?,
            Change::RevertConfig => return Ok(Reply::Changes(Changes { changes: self.revert_config()? })),
        }
        Ok(Reply::Done(Done {}))
    }

    fn apply(&mut self, AppliedConfig { wanted, confirm_milliseconds }: &AppliedConfig) -> Result<Reply, Error> {
        let time = confirm_milliseconds.map(Duration::from_millis);
        let changes = self.apply_on_trial(wanted, time, Instant::now)?;
        Ok(Reply::Changes(Changes { changes }))
    }
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
