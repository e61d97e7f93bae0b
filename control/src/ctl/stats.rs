//! `labsw-ctl stats`.

use clap::Args;
use labsw_switch::DropReason;

use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use super::table::{number, rows, text};
use crate::api::{Counters, PortStats, Reply, Request, Stats};

/// What to count.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this port.
    #[arg(value_parser = parse::name)]
    port: Option<String>,
    /// Go on, and print what was added per second.
    #[arg(long)]
    pub(super) watch: bool,
}

impl Arguments {
    /// The request for one answer, or a stream with one a second.
    pub(super) fn request(self) -> Request {
        Request::GetStats { port: self.port, interval_milliseconds: self.watch.then_some(1000) }
    }
}

/// Counters of each port, then the drops by reason.
pub(super) fn table(stats: &Stats) -> String {
    let row = |port: &PortStats| {
        let counters = &port.counters;
        let numbers =
            [counters.rx_frames, counters.rx_bytes, counters.tx_frames, counters.tx_bytes, counters.dropped()];
        std::iter::once(text(&port.name)).chain(numbers.map(number)).collect()
    };
    let headings = ["port", "rx frames", "rx bytes", "tx frames", "tx bytes", "dropped"];
    let counters = rows(&headings, stats.ports.iter().map(row).collect(), "no ports");

    let drops = stats.ports.iter().flat_map(|port| {
        let seen = port.counters.drops.iter().filter(|(_, count)| **count > 0);
        let row = |name: String, count: &u64, meaning| vec![text(&port.name), text(name), number(count), text(meaning)];
        let kernel = port.counters.kernel.iter().filter(|(_, count)| **count > 0);
        let kernel = kernel.map(move |(name, count)| row(format!("kernel {name}"), count, kernel_explanation(name)));
        seen.map(move |(reason, count)| row(reason.clone(), count, explanation(reason))).chain(kernel)
    });
    let drops = rows(&["port", "drop reason", "frames", "meaning"], drops.collect(), "no drops");
    format!("{counters}\n{drops}")
}

/// What a drop reason means; nothing for one this client does not know.
fn explanation(name: &str) -> &'static str {
    DropReason::ALL.iter().find(|reason| reason.name() == name).map_or("", |reason| reason.explanation())
}

/// What a counter of the kernel means; nothing for one this client does not know.
fn kernel_explanation(name: &str) -> &'static str {
    match name {
        "rx_dropped" => "Before the switch: no free chunk for the frame, or too long for one.",
        "rx_ring_full" => "Before the switch: its receive ring was full.",
        "rx_fill_ring_empty" => "Not frames but times: the kernel found no free chunk.",
        "rx_invalid_descs" => "Entries of the receive side that the kernel refused.",
        "tx_invalid_descs" => "Behind the switch: frames that the kernel refused to send.",
        _ => "",
    }
}

/// Prints what was added per second, until interrupted. As JSON: the counters, one line per answer.
pub(super) fn watch(arguments: Arguments, session: &mut Session, output: &mut Output) -> Result<(), Failure> {
    let mut before: Option<Stats> = None;
    session.stream(&arguments.request(), |reply| {
        let Reply::Stats(now) = reply else { return Ok(()) };
        if output.is_json() {
            output.json_line(&now.ports)?;
        } else if let Some(before) = &before {
            output.bytes(format!("{}\n", rates(before, &now)).as_bytes())?;
        }
        before = Some(now);
        Ok(())
    })
}

/// What was added per second between two readings. A port that is new counts from 0; one that was
/// made anew shows 0 once.
fn rates(before: &Stats, now: &Stats) -> String {
    let milliseconds = now.uptime_milliseconds.saturating_sub(before.uptime_milliseconds).max(1);
    let row = |port: &PortStats| {
        let earlier = before.ports.iter().find(|earlier| earlier.name == port.name);
        let earlier = earlier.map(|earlier| earlier.counters.clone()).unwrap_or_default();
        let per_second = |count: fn(&Counters) -> u64| {
            let added = count(&port.counters).saturating_sub(count(&earlier));
            u128::from(added) * 1000 / u128::from(milliseconds)
        };
        vec![
            text(&port.name),
            number(per_second(|counters| counters.rx_frames)),
            number(megabits(per_second(|counters| counters.rx_bytes))),
            number(per_second(|counters| counters.tx_frames)),
            number(megabits(per_second(|counters| counters.tx_bytes))),
            number(per_second(Counters::dropped)),
        ]
    };
    let headings = ["port", "rx frames/s", "rx Mbit/s", "tx frames/s", "tx Mbit/s", "dropped/s"];
    rows(&headings, now.ports.iter().map(row).collect(), "no ports")
}

/// Bytes as megabits with one decimal.
fn megabits(bytes: u128) -> String {
    let tenths = bytes * 8 / 100_000;
    format!("{}.{}", tenths / 10, tenths % 10)
}
