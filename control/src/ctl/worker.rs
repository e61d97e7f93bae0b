//! `labsw-ctl worker`.

use clap::Subcommand;

use super::parse;
use super::table::{Screen, Value, number, text};
use crate::api::{Change, Request, Worker, WorkerQueue};

/// The commands for workers.
#[derive(Debug, Default, Subcommand)]
pub(super) enum Command {
    /// Lists the workers, their load over the last second, and the receive queues each of them serves.
    #[command(visible_alias = "ls")]
    #[default]
    List,
    /// Pins a receive queue of a port to this worker, until the port goes.
    Pin {
        /// Name of the port.
        #[arg(value_parser = parse::name)]
        port: String,
        /// Number of the queue at the port, from 0.
        queue: u32,
        /// Number of the worker.
        worker: u32,
    },
}

impl Command {
    /// The request of this command.
    pub(super) fn request(self) -> Request {
        match self {
            Command::List => Request::ListWorkers,
            Command::Pin { port, queue, worker } => Request::Change(Change::PinQueue { port, queue, worker }),
        }
    }
}

/// The workers, with the names of their queues.
pub(super) fn table(screen: Screen, workers: &[Worker]) -> String {
    columns(screen, workers, |worker| text(names(&worker.queues)))
}

/// The workers at a glance, with the number of their queues.
pub(super) fn summary(screen: Screen, workers: &[Worker]) -> String {
    columns(screen, workers, |worker| number(worker.queues.len()))
}

fn columns(screen: Screen, workers: &[Worker], queues: impl Fn(&Worker) -> Value) -> String {
    let row = |worker: &Worker| {
        vec![
            number(worker.id),
            worker.cpu.map_or_else(|| text("any"), text),
            number(format!("{:.1} %", worker.busy_percent)),
            number(format!("{:.1} %", worker.asleep_percent)),
            number(format!("{:.1}", worker.frames_per_burst)),
            queues(worker),
        ]
    };
    let headings = ["worker", "cpu", "busy", "asleep", "frames/burst", "queues"];
    screen.rows(&headings, workers.iter().map(row).collect(), "no workers")
}

/// Queues like `dc01:0 dc01:1* uplink:0`; a star means pinned.
fn names(queues: &[WorkerQueue]) -> String {
    let shown = queues.iter().map(|queue| {
        let star = if queue.pinned { "*" } else { "" };
        format!("{}:{}{star}", queue.port, queue.queue)
    });
    shown.collect::<Vec<_>>().join(" ")
}
