//! `labsw-ctl stats`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use labsw_switch::DropReason;
use serde::Serialize;
use signal_hook::consts::SIGINT;

use super::output::Output;
use super::parse;
use super::rates::{Rates, plain};
use super::session::{Failure, Session};
use super::table::{Screen, number, text};
use crate::api::{PortStats, Reply, Request, Stats};

/// The counters to show, and how often.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this port.
    #[arg(value_parser = parse::name)]
    port: Option<String>,
    /// Go on, and print the increase per second.
    #[arg(long)]
    pub(super) watch: bool,
    /// Time between two lines of a port, as in 500ms or 2s; at least 100ms.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = parse::interval, requires = "watch")]
    interval: Duration,
}

impl Arguments {
    /// The request for one answer, or for a stream with one answer each interval.
    pub(super) fn request(self) -> Request {
        let interval = u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX);
        Request::GetStats { port: self.port, interval_milliseconds: self.watch.then_some(interval) }
    }
}

/// Counters of each port, then the drops by reason.
pub(super) fn table(screen: Screen, stats: &Stats) -> String {
    let row = |port: &PortStats| {
        let counters = &port.counters;
        let numbers =
            [counters.rx_frames, counters.rx_bytes, counters.tx_frames, counters.tx_bytes, counters.dropped()];
        std::iter::once(text(&port.name)).chain(numbers.map(number)).collect()
    };
    let headings = ["port", "rx frames", "rx bytes", "tx frames", "tx bytes", "dropped"];
    let counters = screen.rows(&headings, stats.ports.iter().map(row).collect(), "no ports");

    let drops = stats.ports.iter().flat_map(|port| {
        let seen = port.counters.drops.iter().filter(|(_, count)| **count > 0);
        let row = |name: String, count: &u64, meaning| vec![text(&port.name), text(name), number(count), text(meaning)];
        let kernel = port.counters.kernel.iter().filter(|(_, count)| **count > 0);
        let kernel = kernel.map(move |(name, count)| row(format!("kernel {name}"), count, kernel_explanation(name)));
        seen.map(move |(reason, count)| row(reason.clone(), count, explanation(reason))).chain(kernel)
    });
    let drops = screen.rows(&["port", "drop reason", "frames", "meaning"], drops.collect(), "no drops");
    format!("{counters}\n{drops}")
}

/// The explanation of a drop reason; empty if this client does not know the reason.
fn explanation(name: &str) -> &'static str {
    DropReason::ALL.iter().find(|reason| reason.name() == name).map_or("", |reason| reason.explanation())
}

/// The explanation of a counter of the kernel; empty if this client does not know the counter.
fn kernel_explanation(name: &str) -> &'static str {
    match name {
        "rx_dropped" => "Before the switch: no free chunk for the frame, or too long for one.",
        "rx_ring_full" => "Before the switch: its receive ring was full.",
        "rx_fill_ring_empty" => "A count of events, not of frames: the kernel found no free chunk.",
        "rx_invalid_descs" => "Entries of the receive side that the kernel refused.",
        "tx_invalid_descs" => "Behind the switch: frames that the kernel refused to send.",
        _ => "",
    }
}

/// The counters of a port with their rates; `null` in the first line, which has no earlier reading.
#[derive(Serialize)]
struct Watched<'a> {
    #[serde(flatten)]
    port: &'a PortStats,
    rates: Option<Rates>,
}

/// Prints rates until interrupted, or until the reader of a pipe closes it. As JSON: one document a line.
pub(super) fn watch(arguments: Arguments, session: &mut Session, output: &mut Output) -> Result<(), Failure> {
    // An interrupt is the normal end; each answer is written in one piece.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 0, Arc::new(AtomicBool::new(true)))?;
    let mut before: Option<Stats> = None;
    let screen = output.screen();
    session.stream(&arguments.request(), |reply| {
        let Reply::Stats(now) = reply else { return Ok(()) };
        if output.is_json() {
            let rates = |port| before.as_ref().map(|before| rates(before, &now, port));
            let watched = now.ports.iter().map(|port| Watched { port, rates: rates(port) });
            output.json_line(&watched.collect::<Vec<_>>())?;
        } else if let Some(before) = &before {
            output.bytes(format!("{}\n", watched_table(screen, before, &now)).as_bytes())?;
        }
        before = Some(now);
        Ok(())
    })
}

/// The rates of a port between two readings. A new port counts from 0; a port that was removed and added shows 0 once.
fn rates(before: &Stats, now: &Stats, port: &PortStats) -> Rates {
    let milliseconds = now.uptime_milliseconds.saturating_sub(before.uptime_milliseconds);
    let earlier = before.ports.iter().find(|earlier| earlier.name == port.name);
    let earlier = earlier.map(|earlier| earlier.counters.clone()).unwrap_or_default();
    Rates::between(&earlier, &port.counters, milliseconds)
}

fn watched_table(screen: Screen, before: &Stats, now: &Stats) -> String {
    let row = |port: &PortStats| {
        let rates = rates(before, now, port);
        let megabits = |bits: f64| format!("{:.1}", bits / 1e6);
        vec![
            text(&port.name),
            number(plain(rates.rx_frames_per_second)),
            number(megabits(rates.rx_bits_per_second)),
            number(plain(rates.tx_frames_per_second)),
            number(megabits(rates.tx_bits_per_second)),
            number(plain(rates.dropped_per_second)),
            text(rates.main_drop_reason.as_deref().unwrap_or("-")),
        ]
    };
    let headings = ["port", "rx frames/s", "rx Mbit/s", "tx frames/s", "tx Mbit/s", "dropped/s", "most for"];
    screen.rows(&headings, now.ports.iter().map(row).collect(), "no ports")
}
