//! A port in the picture: its state and counters, who is plugged in, and the marks of what is done to its frames.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Commands;
use crate::api::{FdbEntry, Guards, Impairment, Inline, InlineState, Port, PortState, PortType, Status};
use crate::ctl::port;

/// The most addresses of a port that are listed.
const MOST_LISTED: usize = 16;

/// A port; see the module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::ctl) struct Node {
    pub name: String,
    #[serde(rename = "type")]
    pub port_type: PortType,
    pub state: PortState,
    /// Why the port is not up.
    pub reason: Option<String>,
    /// The VLAN settings in words.
    pub vlan: String,
    /// Who or what is plugged in; `None`: nobody, or it is not known.
    pub plugged: Option<String>,
    /// The number of addresses that were learned at the port.
    pub stations: u64,
    /// Some of them.
    pub addresses: Vec<Address>,
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub dropped: u64,
    /// Frames dropped, by reason; those that are not 0.
    pub drops: BTreeMap<String, u64>,
    pub marks: Vec<Mark>,
    /// The rest of what `port show` says.
    pub facts: Vec<(&'static str, String)>,
    /// Commands about the port, to copy.
    pub commands: Vec<String>,
}

/// A station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::ctl) struct Address {
    pub vlan: u16,
    pub mac: String,
    pub age_seconds: u64,
    #[serde(rename = "static")]
    pub is_static: bool,
}

/// The kinds of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::ctl) enum MarkKind {
    /// A mirror copies frames of the port.
    Mirrored,
    /// A mirror sends copies to the port.
    MirrorTo,
    /// A sensor is in the wire of the port.
    Inline,
    /// The port is one of a sensor in the wire of another port.
    Sensor,
    /// Frames of the port are impaired.
    Impaired,
    /// The port goes down and up.
    Flapping,
    /// The port has guards.
    Guarded,
    /// The port keeps frames that passed.
    Rewind,
}

/// A mark: something is done to the port's frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::ctl) struct Mark {
    pub kind: MarkKind,
    /// One or two words.
    pub name: String,
    /// The whole of it.
    pub text: String,
}

impl Node {
    /// The class of the port's state in a drawing.
    pub(super) fn class(&self) -> &'static str {
        match self.state {
            PortState::Up => "up",
            PortState::Down => "down",
            PortState::Waiting | PortState::Opening => "waiting",
            PortState::Failed => "failed",
        }
    }

    /// The picture of a port, with its entries in the forwarding database.
    pub(super) fn of(port: &Port, status: &Status, entries: &[&FdbEntry], commands: &Commands) -> Node {
        let counters = &port.counters;
        let address = |entry: &&FdbEntry| Address {
            vlan: entry.vlan,
            mac: entry.mac.clone(),
            age_seconds: entry.age_seconds,
            is_static: entry.is_static,
        };
        Node {
            name: port.name.clone(),
            port_type: port.port_type,
            state: port.state,
            reason: port.reason.clone(),
            vlan: port::vlan(&port.vlan),
            plugged: plugged(port),
            stations: port.stations,
            addresses: entries.iter().take(MOST_LISTED).map(address).collect(),
            rx_frames: counters.rx_frames,
            rx_bytes: counters.rx_bytes,
            tx_frames: counters.tx_frames,
            tx_bytes: counters.tx_bytes,
            dropped: counters.dropped(),
            drops: counters.drops.iter().filter(|(_, count)| **count > 0).map(|(r, n)| (r.clone(), *n)).collect(),
            marks: marks(port, status),
            facts: port::facts(port),
            commands: commands.about(port, status),
        }
    }

    /// The port's stations in a few words: `52:54:00:00:00:01 and 3 more`.
    pub(super) fn stations_text(&self) -> String {
        match (self.stations, self.addresses.first()) {
            (0, None) => String::new(),
            (0 | 1, Some(first)) => first.mac.clone(),
            (1, None) => "1 station".to_owned(),
            (several, None) => format!("{several} stations"),
            (several, Some(first)) => format!("{} and {} more", first.mac, several - 1),
        }
    }
}

/// Who or what is plugged in.
fn plugged(port: &Port) -> Option<String> {
    match port.port_type {
        PortType::VhostUser => match port.front_end {
            Some(process) if process.pid > 0 => Some(format!("process {}, user {}", process.pid, process.uid)),
            Some(process) => Some(format!("process of user {}", process.uid)),
            None => (port.connected == Some(true)).then(|| "connected".to_owned()),
        },
        PortType::Veth => {
            let peer = port.peer.as_ref()?;
            Some(port.netns.as_ref().map_or_else(|| peer.clone(), |netns| format!("{peer} in {netns}")))
        }
        PortType::Tap => {
            let interface = port.interface.as_ref().or(port.device.as_ref())?;
            Some(port.role.map_or_else(|| interface.clone(), |role| format!("{interface} of the {role}")))
        }
        PortType::AfXdp => match (&port.interface, &port.device) {
            (Some(interface), _) => Some(interface.clone()),
            (None, device) => device.clone(),
        },
    }
}

/// The marks of what is done to the port's frames.
fn marks(port: &Port, status: &Status) -> Vec<Mark> {
    let mirrors = status.mirrors.iter().filter(|mirror| port.mirrors.contains(&mirror.name)).map(|mirror| {
        let (name, to) = (mirror.name.clone(), mirror.destination());
        match mirror.to.as_deref() == Some(&port.name) {
            true => Mark { kind: MarkKind::MirrorTo, text: format!("takes the copies of mirror {name}"), name },
            false => Mark { kind: MarkKind::Mirrored, text: format!("mirror {name} copies frames to {to}"), name },
        }
    });
    let inline = status.inlines.iter().filter_map(|inline| sensor(inline, &port.name));
    let impaired = status.impairments.iter().filter(|impaired| impaired.port == port.name).map(impairment);
    let flapping = port.flap.iter().map(|flap| Mark {
        kind: MarkKind::Flapping,
        name: "flapping".to_owned(),
        text: format!("goes down and up, {} times more", flap.left),
    });
    let guards = port.guards.iter().map(|guards| Mark {
        kind: MarkKind::Guarded,
        name: "guards".to_owned(),
        text: format!("guards: {}", Guards::summary(guards)),
    });
    let rewind = port.rewind.iter().map(|kept| Mark {
        kind: MarkKind::Rewind,
        name: "rewind".to_owned(),
        text: format!("keeps the frames that passed, in {} MiB", kept.bytes.div_ceil(1 << 20)),
    });
    mirrors.chain(inline).chain(impaired).chain(flapping).chain(guards).chain(rewind).collect()
}

/// The mark of a sensor at the port of this name, if the sensor has to do with it.
fn sensor(inline: &Inline, port: &str) -> Option<Mark> {
    let Inline { name, state, of, through, .. } = inline;
    let mark = |kind, text| Some(Mark { kind, name: name.clone(), text });
    if of == port {
        let ports = through.join(" and ");
        let reason = inline.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let way = match state {
            InlineState::Through => "frames go through sensor",
            InlineState::Bypassed => "frames go past sensor",
            InlineState::Closed => "frames are dropped before sensor",
        };
        return mark(MarkKind::Inline, format!("{way} {name} at {ports}{reason}"));
    }
    let side = match through.iter().position(|end| end == port)? {
        0 => "the port",
        _ => "the switch",
    };
    mark(MarkKind::Sensor, format!("sensor {name} in the wire of {of}, on the side of {side}"))
}

/// `tx impaired`; the text has the settings.
fn impairment(impaired: &Impairment) -> Mark {
    let settings: Vec<String> =
        impaired.settings().into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    let profile = impaired.profile.iter().map(|profile| format!("profile {profile}"));
    let settings: Vec<String> = profile.chain(settings).collect();
    let direction = impaired.direction;
    let way = if direction == crate::api::PortDirection::Rx { "from" } else { "to" };
    Mark {
        kind: MarkKind::Impaired,
        name: format!("{direction} impaired"),
        text: format!("frames {way} the port are impaired: {}", settings.join(", ")),
    }
}
