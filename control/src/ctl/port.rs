//! `labsw-ctl port`.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::parse;
use super::table::{Screen, list, notes, number, state, text};
use crate::api::{Change, Flap, Guards, Port, PortInline, PortRewind, PortType, PutRight, Request, Vlan};
use crate::model::PortConfig;

/// The commands for ports.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Lists the ports.
    #[command(visible_alias = "ls")]
    #[default]
    List,
    /// Shows one port in full.
    Show(Name),
    /// Adds a port.
    Add {
        #[command(flatten)]
        port: Name,
        /// The type of the port.
        #[arg(long = "type", value_name = "TYPE", value_parser = port_type())]
        port_type: PortType,
        /// A setting as in the configuration: vlan.mode=access or 'vlan.trunks=[10, "20-29"]'.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse::setting)]
        settings: Vec<(String, Value)>,
    },
    /// Changes settings of a port.
    Set {
        #[command(flatten)]
        port: Name,
        /// Settings as in the configuration: vlan.tag=20.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse::setting)]
        settings: Vec<(String, Value)>,
    },
    /// Replaces the settings of a port; settings that are not given are unset.
    Replace {
        #[command(flatten)]
        port: Name,
        /// Settings as in the configuration: vlan.tag=20.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse::setting)]
        settings: Vec<(String, Value)>,
    },
    /// Removes a port.
    #[command(visible_alias = "rm")]
    Del(Gone),
    /// Enables a port.
    Up(Names),
    /// Disables a port.
    Down(Names),
    /// Takes a port down and up repeatedly, and leaves it up; `port up` and `port down` end this.
    Flap {
        #[command(flatten)]
        port: Name,
        /// Time from one time that the port goes down to the next, as in 2s; the port is down for half of it.
        #[arg(long, value_name = "T", value_parser = parse::milliseconds)]
        every: u64,
        /// How often the port goes down.
        #[arg(long, value_name = "N")]
        count: u32,
    },
}

/// The name of a port.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// Name of the port.
    #[arg(value_parser = parse::name)]
    name: String,
}

/// The ports.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// Names of the ports.
    #[arg(required = true, value_name = "NAME", value_parser = parse::name)]
    names: Vec<String>,
}

/// The ports to remove.
#[derive(Debug, Args)]
pub(super) struct Gone {
    #[command(flatten)]
    ports: Names,
    /// A port that does not exist is no error.
    #[arg(long)]
    pub(super) if_exists: bool,
}

fn port_type() -> impl TypedValueParser<Value = PortType> {
    PossibleValuesParser::new(PortType::ALL.iter().map(|port_type| port_type.name())).try_map(|name| {
        PortType::ALL.iter().copied().find(|port_type| port_type.name() == name).ok_or("not a type of port")
    })
}

impl Command {
    /// The requests of this command, one for each port. If a setting is given twice, the last value counts.
    pub(super) fn requests(self) -> Vec<Request> {
        let switched = |names: Vec<String>, up| {
            names.into_iter().map(|name| Request::Change(Change::SetPortState { name, up })).collect()
        };
        let change = match self {
            Command::List => return vec![Request::ListPorts],
            Command::Show(Name { name }) => return vec![Request::ShowPort { name }],
            Command::Add { port: Name { name }, port_type, settings } => {
                Change::AddPort { name, port_type, settings: Map::from_iter(settings) }
            }
            Command::Set { port: Name { name }, settings } => {
                Change::SetPort { name, settings: Map::from_iter(settings), replace: false }
            }
            Command::Replace { port: Name { name }, settings } => {
                Change::SetPort { name, settings: Map::from_iter(settings), replace: true }
            }
            Command::Del(Gone { ports: Names { names }, .. }) => {
                return names.into_iter().map(|name| Request::Change(Change::DeletePort { name })).collect();
            }
            Command::Up(Names { names }) => return switched(names, true),
            Command::Down(Names { names }) => return switched(names, false),
            Command::Flap { port: Name { name }, every, count } => {
                Change::FlapPort { name, every_milliseconds: every, count }
            }
        };
        vec![Request::Change(change)]
    }

    /// True if a thing that does not exist is no error.
    pub(super) fn if_exists(&self) -> bool {
        matches!(self, Command::Del(Gone { if_exists: true, .. }))
    }
}

/// The ports.
pub(super) fn table(screen: Screen, ports: &[Port]) -> String {
    let row = |port: &Port| {
        vec![
            text(&port.name),
            text(port.port_type),
            state(port.state),
            text(if port.mirror_only { "mirror only".to_owned() } else { vlan(&port.vlan) }),
            number(port.stations),
            number(port.counters.rx_frames),
            number(port.counters.tx_frames),
            number(port.counters.dropped()),
            notes(remarks(port)),
        ]
    };
    let headings = ["name", "type", "state", "vlan", "macs", "rx frames", "tx frames", "dropped", "notes"];
    screen.rows(&headings, ports.iter().map(row).collect(), "no ports")
}

/// The impairment of a port, the reason for its state, and the mirrors that copy its frames or send to it.
fn remarks(port: &Port) -> String {
    let impaired = (!port.impaired.is_empty()).then(|| format!("IMPAIRED {}", list(&port.impaired, "")));
    let flapping = port.flap.map(|flap| format!("flapping {}", flapping(flap)));
    let mirrors = (!port.mirrors.is_empty()).then(|| format!("mirrors: {}", list(&port.mirrors, "")));
    let inline = port.inline.as_ref().map(|inline| format!("inline: {}", sensor(inline)));
    let reason = port.reason.clone().filter(|_| flapping.is_none() || port.reason.as_deref() != Some("flapping"));
    [impaired, reason, flapping, inline, mirrors].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// `ips through`, `ips bypassed: no probe passes from "ips-in" to "ips-out"`.
fn sensor(PortInline { name, state, reason }: &PortInline) -> String {
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{name} {state}{reason}")
}

/// VLAN settings on one line: mode, tag, and the trunks in parentheses.
pub(super) fn vlan(vlan: &Vlan) -> String {
    let tag = vlan.tag.map(|tag| format!(" {}", tag.0)).unwrap_or_default();
    let trunks = vlan.trunks.as_ref().filter(|trunks| !trunks.is_empty());
    let trunks = trunks.map(|trunks| format!(" ({trunks})")).unwrap_or_default();
    let mode = vlan.mode.map(|mode| mode.to_string()).unwrap_or_default();
    let cvlans = vlan.cvlans.as_ref().map(|cvlans| format!(" (customer {cvlans})")).unwrap_or_default();
    let ethertype = vlan.ethertype.map(|ethertype| format!(" {}", ethertype.name())).unwrap_or_default();
    format!("{mode}{tag}{ethertype}{trunks}{cvlans}")
}

/// `every 2s, 3 times left`.
fn flapping(flap: Flap) -> String {
    let every = humantime::format_duration(Duration::from_millis(flap.every_milliseconds));
    format!("every {every}, {} times left", flap.left)
}

/// `receive VLAN offload, which was switched on: 2 times, last 13 s ago`.
fn put_right(PutRight { what, times, seconds_ago }: &PutRight) -> String {
    let times = if *times == 1 { "once".to_owned() } else { format!("{times} times, last") };
    format!("{what}: {times} {seconds_ago} s ago")
}

/// `64 MiB, 1 MiB in use, back to 95 s ago`.
fn rewind(rewind: &PortRewind) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let age = rewind.oldest_seconds_ago.map(|age| format!(", back to {age} s ago")).unwrap_or_default();
    let missed = Some(rewind.missed_frames).filter(|missed| *missed > 0);
    let missed = missed.map(|missed| format!(", {missed} frames missed")).unwrap_or_default();
    format!("{} MiB, {} MiB in use{age}{missed}", mib(rewind.bytes), mib(rewind.used_bytes))
}

/// One port in full.
pub(super) fn details(screen: Screen, port: &Port) -> String {
    let mut lines =
        vec![("name", port.name.clone()), ("type", port.port_type.to_string()), ("state", port.state.to_string())];
    lines.extend(port.reason.clone().map(|reason| ("reason", reason)));
    lines.extend(facts(port));
    lines.extend([
        ("rx", format!("{} frames, {} bytes", port.counters.rx_frames, port.counters.rx_bytes)),
        ("tx", format!("{} frames, {} bytes", port.counters.tx_frames, port.counters.tx_bytes)),
    ]);
    let drops = port.counters.drops.iter().filter(|(_, count)| **count > 0);
    lines.push(("drops", list(drops.map(|(reason, count)| format!("{reason} {count}")), "none")));
    if !port.counters.kernel.is_empty() {
        let kernel = port.counters.kernel.iter().filter(|(_, count)| **count > 0);
        lines.push(("kernel", list(kernel.map(|(name, count)| format!("{name} {count}")), "no drops")));
    }
    screen.pairs(lines)
}

/// The settings that [`facts`] has in lines of their own.
const IN_LINES: [&str; 25] = [
    "vlan",
    "mtu",
    "link_local",
    "mirror_only",
    "allow_mirror",
    "rewind",
    "finish_checksums",
    "storm",
    "mac_limit",
    "mac_limit_action",
    "sticky",
    "macs",
    "isolated",
    "dhcp_guard",
    "ra_guard",
    "device",
    "queues",
    "busy_poll",
    "role",
    "for",
    "socket",
    "queue_pairs",
    "interface",
    "peer",
    "netns",
];

/// `mode=skb, owner=alice`: the other settings, less those with the value that they have by default.
fn other_settings(port: &Port) -> Option<String> {
    let differs = |key: &str, value: &Value| PortConfig::default_of(port.port_type, key) != Some(value);
    let others = port.settings.iter().filter(|(key, value)| !IN_LINES.contains(&key.as_str()) && differs(key, value));
    let others: Vec<String> = others.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    (!others.is_empty()).then(|| others.join(", "))
}

/// A value as commands take it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The settings of a port, and what is known of its ends: names and values.
pub(super) fn facts(port: &Port) -> Vec<(&'static str, String)> {
    let optional = [
        ("flapping", port.flap.map(flapping)),
        ("put right", port.put_right.as_ref().map(put_right)),
        ("impaired", (!port.impaired.is_empty()).then(|| list(&port.impaired, ""))),
        ("mirrors", (!port.mirrors.is_empty()).then(|| list(&port.mirrors, ""))),
        ("inline", port.inline.as_ref().map(sensor)),
        ("workers", (!port.workers.is_empty()).then(|| list(&port.workers, ""))),
        ("stations", (port.stations > 0).then(|| port.stations.to_string())),
        ("rewind", port.rewind.as_ref().map(rewind)),
        ("device", port.device.clone()),
        ("interface", port.interface.clone()),
        ("xdp mode", port.xdp_mode.map(|mode| mode.name().to_owned())),
        ("xdp mode reason", port.xdp_mode_reason.clone()),
        ("busy poll", port.busy_poll.clone()),
        ("queues", port.queues.map(|queues| queues.to_string())),
        ("fast path", port.fast_path.clone()),
        ("peer", port.peer.clone()),
        ("netns", port.netns.clone()),
        ("socket", port.socket.clone()),
        ("role", port.role.map(|role| role.to_string())),
        ("connected", port.connected.map(|connected| if connected { "yes" } else { "no" }.to_owned())),
        ("front end", port.front_end.map(|owner| format!("pid {}, uid {}", owner.pid, owner.uid))),
        ("turned away", port.turned_away.filter(|count| *count > 0).map(|count| count.to_string())),
        ("memory regions", port.memory_regions.map(|regions| regions.to_string())),
        ("queue pairs", port.queue_pairs.map(|pairs| pairs.to_string())),
        ("features", port.features.as_ref().map(|features| list(features, "-"))),
        ("checksums", port.finish_checksums.then(|| "finished for the port".to_owned())),
        ("settings", other_settings(port)),
    ];
    let mut facts: Vec<_> = optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    facts.extend([
        ("vlan", vlan(&port.vlan)),
        ("mtu", port.mtu.to_string()),
        ("link-local frames", port.link_local.clone()),
        ("mirror only", if port.mirror_only { "yes" } else { "no" }.to_owned()),
        ("mirrors allowed", if port.allow_mirror { "yes" } else { "no" }.to_owned()),
        ("guards", port.guards.as_ref().map_or_else(|| "none".to_owned(), Guards::summary)),
    ]);
    facts
}
