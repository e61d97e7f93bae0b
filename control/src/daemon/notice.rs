//! The comparison of the switch with the events told so far: configuration, states of ports and mirrors, guards, places
//! of addresses.

use std::time::Instant;

use labsw_switch::DropReason;
use labsw_switch::drop_reason::Stage;
use labsw_switch::guard::{LimitAction, MacLimit};

use super::events::Seen;
use super::port::Port;
use super::show::waits_for;
use super::switch::Switch;
use crate::api::{Event, EventKind, EventLevel, EventSubject, InlineState, MirrorState, PortState};

impl Switch {
    /// Tells what is configured otherwise than it was, and what is in another state. For after a change that somebody
    /// has asked for.
    pub(super) fn notice_changes(&mut self) {
        let running = self.running();
        for event in self.events.told.compare(running) {
            self.events.tell(event);
        }
        self.compare_states(false);
    }

    /// Tells which ports and mirrors are in another state than they were, unless a change is under way. A port that
    /// comes and goes in a loop, as one whose front end does, is told a few times a second.
    pub(super) fn notice_states(&mut self) {
        match self.changing {
            false => self.compare_states(true),
            true => self.renew_gates(),
        }
    }

    /// Tells what is looked at once a second: guards that fire, addresses that have moved.
    pub(super) fn notice_every_second(&mut self, now: Instant) {
        self.events.told.renew_allowances();
        self.notice_guards(now);
        self.notice_moves();
    }

    fn compare_states(&mut self, limited: bool) {
        self.renew_gates();
        let ports = self.ports.iter().map(|port| {
            let (state, reason) = port.state();
            (port.config.name.clone(), (state.to_string(), reason))
        });
        let news = self.events.told.ports.compare(ports.collect(), limited);
        self.tell_states(EventSubject::Port, news);
        let mirrors = self.mirrors.configs().map(|config| {
            let reason = waits_for(config, self.view());
            let state = if reason.is_some() { MirrorState::Waiting } else { MirrorState::Up };
            (config.name.clone(), (state.to_string(), reason))
        });
        let mirrors = mirrors.collect();
        let news = self.events.told.mirrors.compare(mirrors, limited);
        self.tell_states(EventSubject::Mirror, news);
        let inlines = self.inlines.iter().map(|inline| {
            let (state, reason) = inline.state(&self.ports);
            (inline.config.name.clone(), (state.to_string(), reason))
        });
        let inlines = inlines.collect();
        let news = self.events.told.inlines.compare(inlines, limited);
        self.tell_states(EventSubject::Inline, news);
    }

    fn tell_states(&self, subject: EventSubject, news: Vec<(String, Seen)>) {
        for (name, (state, reason)) in news {
            let works = |state: InlineState| state == InlineState::Through;
            let dead = InlineState::ALL.into_iter().any(|dead| !works(dead) && state == dead.to_string());
            let failed = state == PortState::Failed.to_string() || (subject == EventSubject::Inline && dead);
            let level = if failed { EventLevel::Warning } else { EventLevel::Info };
            let about = Event::about(EventKind::State, subject, &name);
            self.events.tell(Event { level, state: Some(state), reason, ..about });
        }
    }

    /// Tells which addresses have moved between ports.
    pub(super) fn notice_moves(&self) {
        let moves = self.fabric.shared.fdb.take_moves();
        let name_of = |id| self.ports.at(id).map(|port| port.config.name.clone());
        for moved in moves.first {
            let about = Event { subject: Some(EventSubject::Port), ..Event::new(EventKind::MacMoved) };
            self.events.warn(Event {
                name: name_of(moved.to),
                from: name_of(moved.from),
                vlan: Some(moved.vid.into()),
                mac: Some(moved.mac.to_string()),
                ..about
            });
        }
        if moves.further > 0 {
            self.events.warn(Event { count: Some(moves.further), ..Event::new(EventKind::MacMoves) });
        }
    }

    fn notice_guards(&mut self, now: Instant) {
        let Switch { events, ports, .. } = self;
        let mut news = Vec::new();
        events.firing.retain(|id| ports.at(id).is_some());
        for port in ports.iter() {
            for (reason, count) in guarded(port) {
                if let Some(frames) = events.firing.look(port.id, reason, count, now) {
                    news.push(guard_event(port, reason, frames));
                }
            }
        }
        news.into_iter().for_each(|event| events.warn(event));
    }
}

/// The counts of a port's guards. Frames between isolated ports are dropped all the time, so nobody is told.
fn guarded(port: &Port) -> Vec<(Option<&'static str>, u64)> {
    let drops = port.counters().drops;
    let fires = |reason: DropReason| reason.stage() == Stage::Guard && reason != DropReason::Isolated;
    let counted = DropReason::ALL.iter().copied().zip(drops).filter(|(reason, count)| fires(*reason) && *count > 0);
    let mut counted: Vec<_> = counted.map(|(reason, count)| (Some(reason.name()), count)).collect();
    if let Some(MacLimit { action: LimitAction::Alert, .. }) = port.config.guards.mac_limit {
        counted.push((None, port.guard_state.over_limit.seen().frames));
    }
    counted
}

fn guard_event(port: &Port, reason: Option<&'static str>, frames: u64) -> Event {
    let limit = port.config.guards.mac_limit.map_or(0, |limit| limit.addresses);
    let (reason, mac) = match reason {
        Some(reason) => (reason.to_owned(), None),
        None => (
            format!("further sources than mac_limit = {limit}"),
            Some(port.guard_state.over_limit.seen().last.to_string()),
        ),
    };
    let about = Event::about(EventKind::Guard, EventSubject::Port, &port.config.name);
    Event { reason: Some(reason), mac, count: Some(frames), ..about }
}
