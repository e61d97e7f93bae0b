//! The old process's side: what it hands over, and in which order it lets go.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::Instant;

use labsw_dataplane::clock::now_seconds;
use labsw_dataplane::handover::Given;
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::PortId;
use labsw_switch::fdb::{FdbEntry, FdbFilter};

use super::{Step, service};
use crate::daemon::control::Control;
use crate::daemon::flap::Flap;
use crate::daemon::port::Port;
use crate::daemon::switch::Switch;
use crate::daemon::trial::Trial;
use crate::takeover::impairment::DelayedFrames;
use crate::takeover::multicast::MulticastRecord;
use crate::takeover::state::{FdbRecord, KeptFrame, Last, Message, PortState, Rest, State};
use crate::takeover::{Channel, READY_PATIENCE, RUNNING_PATIENCE, STILL_PATIENCE, WireError};

/// The entries of the forwarding database in the part that frames depend on: port and static flag, by VLAN and address.
type Known = BTreeMap<(u16, u64), (PortId, bool)>;

/// The state that the workers go on to change while the new process prepares.
struct Before {
    fdb: Vec<FdbEntry>,
    multicast: Option<MulticastRecord>,
}

impl Control {
    /// Answers processes at the door. Returns true if the switch now belongs to another process; this one then ends and
    /// undoes nothing. A process that is ready for the switch waits while the device thread is `busy`.
    pub(in crate::daemon) fn serve_door(&mut self, switch: &mut Switch, busy: bool) -> bool {
        while let Some(step) = self.door.as_ref().and_then(super::Door::next) {
            match step {
                Step::Welcome(answer) => {
                    let welcome = Message::Welcome {
                        config: switch.running().to_toml().to_string(),
                        given: switch.given.to_toml().to_string(),
                        program_file: service::program_file(),
                        service: service::supervised(),
                    };
                    // The process that asked may have given up.
                    let _ = answer.send(welcome);
                }
                Step::Prepare(channel) => self.visitor = Some(channel),
            }
        }
        if busy && switch.opening.is_over() {
            return false;
        }
        let Some(mut channel) = self.visitor.take() else { return false };
        let Err(error) = self.hand_over(switch, &mut channel) else { return true };
        tracing::warn!("take-over failed, this switch goes on: {error}");
        // The other side may be the one that failed, and may have hung up.
        channel.refuse(&error);
        super::close(channel);
        if let Some(door) = &self.door {
            door.is_free();
        }
        false
    }

    /// Hands the switch over. On an error the switch still belongs to this process, and its workers run.
    fn hand_over(&self, switch: &mut Switch, channel: &mut Channel) -> Result<(), WireError> {
        if let Some(obstacle) = switch.obstacle() {
            return Err(WireError::Refused(obstacle));
        }
        switch.beat_early();
        let before = Before { fdb: switch.entries(), multicast: switch.multicast_record() };
        channel.allow(READY_PATIENCE);
        let mut given = Given::default();
        let state = self.state(switch, &before, &mut given)?;
        channel.send(&Message::State(Box::new(state)), given.descriptors())?;
        expect(channel, |message| matches!(message, Message::Ready))?;
        // From here on frames of containers wait in the kernel's queues while no worker runs.
        switch.shut_gates();
        let begin = Instant::now();
        let held = switch.fabric.workers.links().hold().map_err(refused)?;
        // Before a worker stands still it reports the faults that it found.
        if !self.worker_events.is_empty() {
            return Err(WireError::Refused("a port failed at this moment; try again".to_owned()));
        }
        channel.allow(STILL_PATIENCE);
        Self::give_last(switch, channel, &before)?;
        expect(channel, |message| matches!(message, Message::Prepared))?;
        channel.send(&Message::Go, &[])?;
        channel.allow(RUNNING_PATIENCE);
        match channel.receive() {
            Ok((Message::Running, _)) => {
                Control::give_rest(switch, channel);
                service::make_main(channel);
            }
            // The new process has ended, so it uses nothing of what it was given.
            Err(WireError::Closed) => return Err(WireError::Closed),
            other => tracing::error!(?other, "the process that took over does not say whether it runs"),
        }
        tracing::info!(still_us = begin.elapsed().as_micros(), "handed over");
        // The workers never go on.
        std::mem::forget(held);
        Ok(())
    }

    /// Sends the last changes. The workers stand still.
    fn give_last(switch: &Switch, channel: &Channel, before: &Before) -> Result<(), WireError> {
        let mut delayed = DelayedFrames::default();
        let mut last = switch.last(before, &mut delayed);
        let (file, mut given) = (delayed.file()?, Given::default());
        last.delayed = file.as_ref().map(|file| given.put(file.as_fd()));
        channel.send(&Message::Last(Box::new(last)), given.descriptors())
    }

    /// Sends what the new process needs last, if there is anything.
    fn give_rest(switch: &Switch, channel: &mut Channel) {
        let rest = Rest { captures: switch.captures.waiting() };
        if rest.captures.is_empty() {
            return;
        }
        channel.allow(STILL_PATIENCE);
        if let Err(error) = channel.send(&Message::Rest(Box::new(rest)), &[]) {
            tracing::warn!(%error, "captured frames that wait were not handed over");
        }
    }

    /// The state of the switch while its workers still run.
    fn state<'a>(&'a self, switch: &'a Switch, before: &Before, given: &mut Given<'a>) -> Result<State, WireError> {
        let missing = || WireError::Refused("the switch is about to end".to_owned());
        let server = self.server.as_ref().ok_or_else(missing)?;
        let door = self.door.as_ref().ok_or_else(missing)?;
        let names = switch.names();
        let ports = switch.ports.iter();
        let ports = ports.map(|port| Ok((port.config.name.clone(), port.record(given)?)));
        let ports = ports.collect::<Result<_, WireError>>()?;
        Ok(State {
            config: switch.running().to_toml().to_string(),
            control: given.put(server.listener()),
            take_over: given.put(door.socket()),
            metrics: switch.metrics.as_ref().map(|metrics| given.put(metrics.listener())),
            memory: switch.memory.get().map(|memory| memory.hand_over(given)),
            ports,
            fdb: before.fdb.iter().filter_map(|entry| record(entry, &names)).collect(),
            watchdog_us: switch.watchdog.as_ref().and_then(|watchdog| watchdog.patience().as_micros().try_into().ok()),
            clients: server.hand_over(given),
            multicast: before.multicast.clone(),
            trial: switch.trial.as_ref().map(Trial::record),
            sensors: switch.inlines.records(&switch.ports),
            replays: switch.injections.records(&switch.ports),
        })
    }
}

impl Switch {
    /// The reason why the switch as a whole can't be taken over now, in one line.
    fn obstacle(&self) -> Option<String> {
        if !self.opening.is_over() {
            return Some("the switch is still opening its ports; try again".to_owned());
        }
        None
    }

    /// All entries of the forwarding database.
    fn entries(&self) -> Vec<FdbEntry> {
        self.fabric.shared.fdb.entries(FdbFilter::default(), now_seconds())
    }

    /// The names of the ports, by id.
    fn names(&self) -> BTreeMap<PortId, &str> {
        self.ports.iter().map(|port| (port.id, port.config.name.as_str())).collect()
    }

    /// The knowledge of multicast snooping.
    fn multicast_record(&self) -> Option<MulticastRecord> {
        Some(MulticastRecord::new(self.multicast.record()?, &self.names()))
    }

    /// Everything learned and forgotten since `before`, and all counters. The workers stand still.
    fn last(&self, before: &Before, delayed: &mut DelayedFrames) -> Last {
        let now = self.entries();
        let (known, names) = (known(&before.fdb), self.names());
        let still: Known = self::known(&now);
        let changed = |entry: &&FdbEntry| {
            known.get(&(entry.vid.get(), entry.mac.to_u64())) != Some(&(entry.port, entry.is_static))
        };
        let mirrors = self.mirrors.iter();
        let backlogs = self.ports.iter().map(|port| (&port.config.name, port.destination.backlog()));
        let backlogs = backlogs.filter(|(_, frames)| !frames.is_empty());
        let kernel_before = self.ports.iter().map(|port| (port.config.name.clone(), port.kernel_before));
        let impaired = self.ports.iter().filter_map(|port| Some((port.config.name.clone(), port.impaired.as_ref()?)));
        let gates = self.ports.iter().map(|port| (&port.config.name, &port.destination));
        Last {
            counters: self.ports.iter().map(|port| (port.config.name.clone(), (&port.counters()).into())).collect(),
            mirrors: mirrors.map(|mirror| (mirror.config.name.clone(), mirror.counters(&self.fabric).into())).collect(),
            memory: self.memory.get().map(|memory| memory.state().into()),
            kernel_before: kernel_before.filter(|(_, counted)| *counted != XdpCounters::default()).collect(),
            backlogs: backlogs.map(|(name, frames)| (name.clone(), KeptFrame::list(frames))).collect(),
            forgotten: known.keys().filter(|key| !still.contains_key(key)).copied().collect(),
            learned: now.iter().filter(changed).filter_map(|entry| record(entry, &names)).collect(),
            captures: self.captures.counts(),
            impairments: impaired.map(|(name, impaired)| (name, impaired.record(delayed))).collect(),
            gates: gates.filter_map(|(name, to)| Some((name.clone(), to.gate_record(delayed)?))).collect(),
            sensors: self.inlines.records(&self.ports),
            replays: self.injections.progress(delayed),
            delayed: None,
            multicast: self.multicast_record().zip(before.multicast.as_ref()).map(|(now, before)| now.since(before)),
        }
    }
}

impl Port {
    /// The port as it is handed over. The error names what of it can't be, in one line.
    fn record<'a>(&'a self, given: &mut Given<'a>) -> Result<PortState, WireError> {
        let name = &self.config.name;
        let cannot = |what: &str| WireError::Refused(format!("port {name:?}: {what} can't be handed over yet"));
        let remains = self.attached.absence().is_some_and(|absence| absence.before.remains.is_some());
        if remains {
            return Err(cannot("the rest of its lost device"));
        }
        let attached = self.attached.to().map(|attachment| {
            let kind = self.config.kind.port_type().name();
            attachment.hand_over(given).ok_or_else(|| cannot(&format!("a port of type {kind}")))
        });
        Ok(PortState {
            enabled: self.enabled,
            pins: self.pins(),
            impaired: self.impaired.is_some(),
            injects: self.destination.gate.is_some(),
            flap: self.flap.as_ref().map(Flap::record),
            attached: attached.transpose()?,
        })
    }
}

fn known(entries: &[FdbEntry]) -> Known {
    entries.iter().map(|entry| ((entry.vid.get(), entry.mac.to_u64()), (entry.port, entry.is_static))).collect()
}

fn record(entry: &FdbEntry, names: &BTreeMap<PortId, &str>) -> Option<FdbRecord> {
    Some(FdbRecord::new(entry, names.get(&entry.port)?))
}

fn refused(error: impl std::fmt::Display) -> WireError {
    WireError::Refused(error.to_string())
}

/// Waits for the message that is due.
fn expect(channel: &Channel, is_due: impl Fn(&Message) -> bool) -> Result<(), WireError> {
    match channel.receive()?.0 {
        message if is_due(&message) => Ok(()),
        other => Err(WireError::OutOfTurn(other.name())),
    }
}
