//! Events: what happens to the switch, as it happens.
//!
//! An event is flat: a [kind](EventKind), the thing it is about, and the fields that this kind has. As [text](Display)
//! it is one line for people.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::ConfigSetting;

/// The kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon has started; its ports are still to be opened.
    #[default]
    Started,
    /// All ports of the configuration file have been tried.
    Ready,
    /// The daemon ends.
    Stopping,
    /// A port, mirror, inline sensor, impairment or profile is there that was not.
    Added,
    /// Settings of a port, mirror, impairment, profile or of the switch are others.
    Changed,
    /// A port, mirror, inline sensor, impairment or profile has gone.
    Removed,
    /// A port, mirror or inline sensor has another state, or the same for another reason.
    State,
    /// A port met a fault, or has lost its device.
    Fault,
    /// A MAC address that was known at one port was seen at another.
    MacMoved,
    /// Further moves of MAC addresses that are not told one by one.
    MacMoves,
    /// A guard of a port drops or reports frames.
    Guard,
    /// Somebody has changed the switch through the control socket.
    Request,
    /// Somebody wanted to, and was refused.
    Refused,
    /// A configuration file was applied.
    Applied,
    /// A configuration file that was read again was not applied.
    NotApplied,
    /// A configuration that was on trial stays.
    Confirmed,
    /// A configuration that was on trial was taken back.
    Reverted,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 17] = [
        EventKind::Started,
        EventKind::Ready,
        EventKind::Stopping,
        EventKind::Added,
        EventKind::Changed,
        EventKind::Removed,
        EventKind::State,
        EventKind::Fault,
        EventKind::MacMoved,
        EventKind::MacMoves,
        EventKind::Guard,
        EventKind::Request,
        EventKind::Refused,
        EventKind::Applied,
        EventKind::NotApplied,
        EventKind::Confirmed,
        EventKind::Reverted,
    ];
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventLevel {
    /// All is as it should be.
    #[default]
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something was not done that should have been.
    Error,
}

impl EventLevel {
    /// All levels.
    pub const ALL: [EventLevel; 3] = [EventLevel::Info, EventLevel::Warning, EventLevel::Error];
}

/// The kind of thing that an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSubject {
    /// A port.
    Port,
    /// A mirror.
    Mirror,
    /// The impairment of a port; the name is the port's.
    Impairment,
    /// A sensor in the wire of a port.
    Inline,
    /// An impairment profile.
    Profile,
    /// The switch; it has no name.
    Switch,
    /// A configuration file.
    File,
}

impl EventSubject {
    /// All kinds of things.
    pub const ALL: [EventSubject; 7] = [
        EventSubject::Port,
        EventSubject::Mirror,
        EventSubject::Impairment,
        EventSubject::Inline,
        EventSubject::Profile,
        EventSubject::Switch,
        EventSubject::File,
    ];
}

impl Display for EventSubject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            EventSubject::Port => "port",
            EventSubject::Mirror => "mirror",
            EventSubject::Impairment => "impairment of port",
            EventSubject::Inline => "inline",
            EventSubject::Profile => "profile",
            EventSubject::Switch => "the switch",
            EventSubject::File => "file",
        })
    }
}

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSetting {
    /// The key, keys of tables with a dot.
    pub key: String,
    /// Its value before, in TOML; null: none.
    pub before: Option<String>,
    /// Its value now, in TOML; null: none.
    pub now: Option<String>,
}

impl From<&ConfigSetting> for EventSetting {
    fn from(setting: &ConfigSetting) -> EventSetting {
        EventSetting { key: setting.key.clone(), before: setting.running.clone(), now: setting.wanted.clone() }
    }
}

/// One event. Fields that its kind does not have are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the event since the daemon started, from 1, without gaps.
    pub number: u64,
    /// When it happened, in milliseconds since 1970 (UTC).
    pub time_milliseconds: u64,
    /// The kind of the event.
    pub kind: EventKind,
    /// How much it matters.
    pub level: EventLevel,
    /// The kind of thing it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<EventSubject>,
    /// The name of that thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `state`: what the port, mirror or inline sensor is doing now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The reason, one clause. `guard`: the drop reason, or what is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `added`, `changed`: the settings that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<EventSetting>,
    /// `mac_moved`: the VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// `mac_moved`: the address. `guard`: the source of the last frame, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// `mac_moved`: the port where the address was; `name` is the one where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `guard`: frames. `mac_moves`: moves. `applied`, `reverted`: changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `request`, `refused`: the method of the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `request`, `refused`: what the call was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// `request`, `refused`: the user who called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// `request`, `refused`: the process; 0: one of another PID namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

impl Event {
    /// An event that has no more than its kind.
    pub fn new(kind: EventKind) -> Event {
        Event { kind, ..Event::default() }
    }

    /// An event about something.
    pub fn about(kind: EventKind, subject: EventSubject, name: &str) -> Event {
        Event { kind, subject: Some(subject), name: Some(name.to_owned()), ..Event::default() }
    }

    /// True if the event is about the port of this name.
    pub fn is_of_port(&self, port: &str) -> bool {
        self.subject == Some(EventSubject::Port) && self.name.as_deref() == Some(port)
    }

    /// `port web`, `the switch`.
    fn thing(&self) -> String {
        let subject = self.subject.map(|subject| subject.to_string()).unwrap_or_default();
        match &self.name {
            Some(name) => format!("{subject} {name}"),
            None => subject,
        }
    }

    /// `mtu 1500 -> 9000, vlan.tag 10 -> 20`.
    pub fn settings_text(&self) -> String {
        let nothing = || "nothing".to_owned();
        let shown = self.settings.iter().map(|setting| {
            let [before, now] = [&setting.before, &setting.now].map(|value| value.clone().unwrap_or_else(nothing));
            format!("{} {before} -> {now}", setting.key)
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// One line for people.
impl Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (thing, count) = (self.thing(), self.count.unwrap_or_default());
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        match self.kind {
            EventKind::Started => write!(out, "labswd has started")?,
            EventKind::Ready => write!(out, "labswd is ready")?,
            EventKind::Stopping => write!(out, "labswd ends")?,
            EventKind::Added => write!(out, "{thing} added")?,
            EventKind::Changed => write!(out, "{thing} changed: {}", self.settings_text())?,
            EventKind::Removed => write!(out, "{thing} removed")?,
            EventKind::State => write!(out, "{thing} is {}", text(&self.state))?,
            EventKind::Fault => write!(out, "{thing} has a fault")?,
            EventKind::MacMoved => {
                let (mac, vlan) = (text(&self.mac), self.vlan.unwrap_or_default());
                let (from, to) = (text(&self.from), text(&self.name));
                write!(out, "MAC {mac} in VLAN {vlan} has moved from port {from} to port {to}")?;
            }
            EventKind::MacMoves => write!(out, "{count} more MAC addresses have moved")?,
            EventKind::Guard => write!(out, "{thing}: guard, {count} frames")?,
            EventKind::Request => write!(out, "{} {}", text(&self.method), text(&self.object))?,
            EventKind::Refused => write!(out, "{} {} refused", text(&self.method), text(&self.object))?,
            EventKind::Applied => write!(out, "{thing} applied, {count} changes")?,
            EventKind::NotApplied => write!(out, "{thing} not applied")?,
            EventKind::Confirmed => write!(out, "{thing} confirmed")?,
            EventKind::Reverted => write!(out, "{thing} taken back, {count} changes")?,
        }
        if let (Some(uid), Some(pid)) = (self.uid, self.pid) {
            write!(out, ", by uid {uid}, pid {pid}")?;
        }
        if let Some(reason) = &self.reason {
            write!(out, ": {reason}")?;
        }
        match &self.mac {
            Some(mac) if self.kind == EventKind::Guard => write!(out, ", last from {mac}"),
            _ => Ok(()),
        }
    }
}

/// A piece of a stream of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The events, in their order.
    pub events: Vec<Event>,
    /// Events before these that the reader was too slow for, and that are lost to it.
    pub lost: u64,
}
