//! Metrics for Prometheus: the switch's counters, as families of samples and as the text of a scrape.
//!
//! [`families`] is a pure function of the same [`Status`] that `labsw-ctl status` shows, so all outputs agree. The
//! daemon only listens ([`MetricsSocket`]); `labsw-ctl` reads requests and answers ([`Scrapes`]). Counters begin at 0
//! when the port or mirror is added. Names follow <https://prometheus.io/docs/practices/naming/>, the text
//! <https://prometheus.io/docs/instrumenting/exposition_formats/> (version 0.0.4).

mod scrapes;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

pub use scrapes::Scrapes;
pub use socket::{MetricsSocket, is_open};

use crate::api::{
    Impairment, Inline, InlineState, Mirror, MirrorState, MulticastTotals, Port, PortState, Status, Worker,
};

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
}

/// One value, with its labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Labels, by name.
    pub labels: BTreeMap<&'static str, String>,
    /// The value.
    pub value: f64,
}

/// All values of one name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Family {
    /// The name.
    pub name: &'static str,
    /// The kind of the family.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// A description for people, one line.
    pub help: &'static str,
    /// The values.
    pub samples: Vec<Sample>,
}

/// The metrics of a switch.
pub fn families(status: &Status) -> Vec<Family> {
    let version = sample([("version", status.version.clone())], 1.0);
    let mut families = vec![
        family("labsw_build_info", Kind::Gauge, "Version of the switch, in its label; always 1.", vec![version]),
        family(
            "labsw_uptime_seconds",
            Kind::Gauge,
            "Seconds since the switch started.",
            vec![sample([], float(status.uptime_seconds))],
        ),
    ];
    families.extend(worker_families(&status.workers));
    families.extend(port_families(&status.ports));
    families.extend(mirror_families(&status.mirrors));
    families.push(inline_family(&status.inlines));
    families.push(impairment_family(&status.impairments));
    families.extend(multicast_families(&status.multicast));
    families.push(family(
        "labsw_mac_moves_total",
        Kind::Counter,
        "How often MAC addresses were seen at another port than before.",
        vec![sample([], float(status.mac_moves))],
    ));
    families
}

/// The text of a scrape.
pub fn text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, kind, help, samples } in families {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for Sample { labels, value } in samples {
            let labels: Vec<String> =
                labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
            let _ = match labels.is_empty() {
                true => writeln!(out, "{name} {value}"),
                false => writeln!(out, "{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }
    out
}

fn worker_families(workers: &[Worker]) -> Vec<Family> {
    let each = |value: fn(&Worker) -> f64| {
        let labels = |worker: &Worker| {
            let cpu = worker.cpu.map(|cpu| cpu.to_string()).unwrap_or_default();
            [("worker", worker.id.to_string()), ("cpu", cpu)]
        };
        workers.iter().map(|worker| sample(labels(worker), value(worker))).collect()
    };
    let gauge = |name, help, value| family(name, Kind::Gauge, help, each(value));
    vec![
        gauge("labsw_worker_busy_ratio", "Share of the last second spent on frames, 0 to 1.", |w| {
            w.busy_percent / 100.0
        }),
        gauge("labsw_worker_asleep_ratio", "Share of the last second spent asleep, 0 to 1.", |w| {
            w.asleep_percent / 100.0
        }),
        gauge(
            "labsw_worker_frames_per_burst",
            "Mean number of frames per burst that was not empty, over the last second.",
            |w| w.frames_per_burst,
        ),
    ]
}

fn port_families(ports: &[Port]) -> Vec<Family> {
    let of = |port: &Port| [("port", port.name.clone()), ("type", port.port_type.to_string())];
    let each = |value: fn(&Port) -> u64| ports.iter().map(|port| sample(of(port), float(value(port)))).collect();
    let counter = |name, help, value| family(name, Kind::Counter, help, each(value));
    let states = [PortState::Up, PortState::Down, PortState::Waiting, PortState::Failed, PortState::Opening];
    let state = |port: &Port, state: PortState| {
        let labels = [("port", port.name.clone()), ("type", port.port_type.to_string()), ("state", state.to_string())];
        sample(labels, f64::from(u8::from(port.state == state)))
    };
    let states = ports.iter().flat_map(|port| states.map(|one| state(port, one))).collect();
    let named = |port: &Port, label, name: &String| {
        [("port", port.name.clone()), ("type", port.port_type.to_string()), (label, name.clone())]
    };
    let drops = ports.iter().flat_map(|port| {
        port.counters.drops.iter().map(move |(name, count)| sample(named(port, "reason", name), float(*count)))
    });
    let kernel = ports.iter().flat_map(|port| {
        port.counters.kernel.iter().map(move |(name, count)| sample(named(port, "counter", name), float(*count)))
    });
    vec![
        family("labsw_port_state", Kind::Gauge, "1 for the state the port is in, 0 for the others.", states),
        family("labsw_port_mtu_bytes", Kind::Gauge, "The port's MTU.", each(|port| port.mtu.into())),
        counter("labsw_port_received_frames_total", "Frames received from the port, dropped ones included.", |port| {
            port.counters.rx_frames
        }),
        counter("labsw_port_received_bytes_total", "Bytes of those frames.", |port| port.counters.rx_bytes),
        counter("labsw_port_sent_frames_total", "Frames the port took.", |port| port.counters.tx_frames),
        counter("labsw_port_sent_bytes_total", "Bytes of those frames.", |port| port.counters.tx_bytes),
        family(
            "labsw_port_dropped_frames_total",
            Kind::Counter,
            "Frames dropped at the port, by reason.",
            drops.collect(),
        ),
        family(
            "labsw_port_kernel_events_total",
            Kind::Counter,
            "What the kernel counted at the port's AF_XDP sockets, by its own names; nothing of it is in other counters.",
            kernel.collect(),
        ),
    ]
}

fn mirror_families(mirrors: &[Mirror]) -> Vec<Family> {
    let of = |mirror: &Mirror| [("mirror", mirror.name.clone()), ("to", mirror.destination())];
    let each =
        |value: fn(&Mirror) -> u64| mirrors.iter().map(|mirror| sample(of(mirror), float(value(mirror)))).collect();
    let counter = |name, help, value| family(name, Kind::Counter, help, each(value));
    let up = each(|mirror| u64::from(mirror.state == MirrorState::Up));
    vec![
        family("labsw_mirror_up", Kind::Gauge, "Whether copies are sent.", up),
        counter("labsw_mirror_matched_frames_total", "Frames the mirror selected.", |mirror| mirror.matched),
        counter("labsw_mirror_sent_frames_total", "Copies the destination took.", |mirror| mirror.sent),
        counter("labsw_mirror_dropped_frames_total", "Copies the destination did not take.", |mirror| mirror.dropped),
        counter("labsw_mirror_truncated_frames_total", "Copies that were cut.", |mirror| mirror.truncated),
    ]
}

fn inline_family(inlines: &[Inline]) -> Family {
    let samples = inlines.iter().flat_map(|inline| {
        InlineState::ALL.map(|state| {
            let (sensor, port) = (inline.name.clone(), inline.of.clone());
            let labels = [("sensor", sensor), ("port", port), ("state", state.to_string())];
            sample(labels, f64::from(u8::from(inline.state == state)))
        })
    });
    let help = "1 for the way that frames of a port with a sensor inline take, 0 for the others.";
    family("labsw_inline_state", Kind::Gauge, help, samples.collect())
}

fn impairment_family(impairments: &[Impairment]) -> Family {
    let outcomes = |shown: &Impairment| {
        [
            ("passed", shown.frames - (shown.lost + shown.queue_full).min(shown.frames)),
            ("delayed", shown.delayed),
            ("lost", shown.lost),
            ("queue_full", shown.queue_full),
            ("duplicated", shown.duplicated),
            ("corrupted", shown.corrupted),
            ("reordered", shown.reordered),
        ]
    };
    let samples = impairments.iter().flat_map(|shown| {
        let labels = |outcome: &str| {
            let direction = shown.direction.to_string();
            [("port", shown.port.clone()), ("direction", direction), ("outcome", outcome.to_owned())]
        };
        outcomes(shown).map(|(outcome, count)| sample(labels(outcome), float(count)))
    });
    let help = "What an impairment did to frames, since it was set; a frame may have several outcomes.";
    family("labsw_impair_frames_total", Kind::Counter, help, samples.collect())
}

fn multicast_families(totals: &MulticastTotals) -> Vec<Family> {
    let one = |name, kind, help, value| family(name, kind, help, vec![sample([], float(value))]);
    vec![
        one("labsw_multicast_groups", Kind::Gauge, "Groups that snooping knows.", totals.groups),
        one(
            "labsw_multicast_invalid_messages_total",
            Kind::Counter,
            "Control messages that were not whole or not right.",
            totals.invalid_messages,
        ),
        one(
            "labsw_multicast_refused_memberships_total",
            Kind::Counter,
            "Memberships for which there was no room.",
            totals.refused_memberships,
        ),
    ]
}

fn family(name: &'static str, kind: Kind, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, kind, help, samples }
}

fn sample<const LABELS: usize>(labels: [(&'static str, String); LABELS], value: f64) -> Sample {
    Sample { labels: labels.into(), value }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers; exact up to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// A label's value, escaped for the text format.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
