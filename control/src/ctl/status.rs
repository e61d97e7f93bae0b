//! `labsw-ctl status`.

use std::time::Duration;

use super::table::{number, rows, text};
use super::{mirror, port};
use crate::api::{Status, Worker};

/// The switch at a glance.
pub(super) fn table(status: &Status) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let worker = |worker: &Worker| {
        vec![
            number(worker.id),
            worker.cpu.map_or_else(|| text("any"), text),
            number(format!("{:.1} %", worker.busy_percent)),
            number(format!("{:.1}", worker.frames_per_burst)),
        ]
    };
    let headings = ["worker", "cpu", "busy", "frames/burst"];
    let workers = rows(&headings, status.workers.iter().map(worker).collect(), "no workers");
    format!(
        "labswd {}, up {uptime}, power {}\n\n{workers}\n{}\n{}",
        status.version,
        status.power,
        port::table(&status.ports),
        mirror::table(&status.mirrors),
    )
}
