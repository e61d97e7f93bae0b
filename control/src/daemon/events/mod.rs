//! Events: each is a line of the log, and goes to everybody who monitors.
//!
//! **How it works.** [`Events::tell`] is the one place where an event becomes a line of the log. [`ring`] keeps the
//! last events for readers. Changes are found by comparison: [`notice`](super::notice) compares the switch with the
//! [configuration and the states last told](told), after every call and in every turn of the loop, so that no change
//! depends on somebody's remembering to tell it. [`audit`] describes calls, [`firing`] counts guards.

mod audit;
mod firing;
mod ring;
#[cfg(test)]
mod tests;
mod told;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::api::{Event, EventKind, EventLevel, EventSubject, Feed};

pub(super) use audit::{describe, outcome};
use firing::Firing;
pub(super) use told::Seen;
use told::Told;

/// The events so far, and the state of the comparisons that find new ones.
#[derive(Default)]
pub(super) struct Events {
    ring: ring::Shared,
    pub(super) told: Told,
    pub(super) firing: Firing,
}

impl Events {
    /// Says that something has happened.
    pub(super) fn tell(&self, event: Event) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let event = ring::lock(&self.ring).push(Event { time_milliseconds, ..event });
        log(&event);
    }

    /// Like [`Events::tell`], as a warning.
    pub(super) fn warn(&self, event: Event) {
        self.tell(Event { level: EventLevel::Warning, ..event });
    }

    /// A reader that begins with the `last` events.
    pub(super) fn read(&self, last: u64) -> Box<dyn Feed> {
        Box::new(ring::Reader::new(&self.ring, last))
    }
}

/// The line of the log.
fn log(event: &Event) {
    let Event { vlan, mac, from, count, method, object, uid, pid, state, reason, .. } = event;
    let named = |subject| event.name.as_deref().filter(|_| event.subject == Some(subject));
    let port = named(EventSubject::Port).or_else(|| named(EventSubject::Impairment));
    let [mirror, inline, profile, file] =
        [EventSubject::Mirror, EventSubject::Inline, EventSubject::Profile, EventSubject::File].map(named);
    // Those of a thing that was added stand in the file, or in `config show`.
    let settings = (event.kind == EventKind::Changed).then(|| event.settings_text());
    let kind = title(event);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                port, mirror, inline, profile, file, state, reason, settings, vlan, mac, from, count, method, object,
                uid, pid, "{kind}"
            )
        };
    }
    match event.level {
        EventLevel::Info => line!(info),
        EventLevel::Warning => line!(warn),
        EventLevel::Error => line!(error),
    }
}

/// The message of the line of the log.
fn title(event: &Event) -> &'static str {
    match (event.kind, event.subject) {
        (EventKind::Started, _) => "started",
        (EventKind::Ready, _) => "ready",
        (EventKind::Stopping, _) => "stopping",
        (EventKind::Added, Some(EventSubject::Impairment)) => "impaired",
        (EventKind::Changed, Some(EventSubject::Impairment)) => "impairment changed",
        (EventKind::Removed, Some(EventSubject::Impairment)) => "impairment cleared",
        (EventKind::Added, _) => "added",
        (EventKind::Changed, Some(EventSubject::Switch)) => "settings of the switch changed",
        (EventKind::Changed, _) => "changed",
        (EventKind::Removed, _) => "removed",
        (EventKind::State, _) => "state changed",
        (EventKind::Fault, _) => "fault",
        (EventKind::MacMoved, _) => "MAC address moved",
        (EventKind::MacMoves, _) => "more MAC addresses moved",
        (EventKind::Guard, _) => "guard",
        (EventKind::Request, _) => "change",
        (EventKind::Refused, _) => "change refused",
        (EventKind::Applied, _) => "configuration applied",
        (EventKind::NotApplied, _) => "configuration not applied",
        (EventKind::Confirmed, _) => "configuration confirmed",
        (EventKind::Reverted, _) => "configuration taken back",
    }
}
