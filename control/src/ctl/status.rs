//! `labsw-ctl status`.

use std::time::Duration;

use super::table::{Screen, one_line};
use super::{mirror, port, worker};
use crate::api::Status;

/// The switch at a glance.
pub(super) fn table(screen: Screen, status: &Status) -> String {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let trial = status.unconfirmed.as_ref().map(|trial| format!("{}\n", one_line(&trial.to_string())));
    format!(
        "labswd {}, up {uptime}, power {}\n{}\n{}\n{}\n{}",
        status.version,
        status.power,
        trial.unwrap_or_default(),
        worker::summary(screen, &status.workers),
        port::table(screen, &status.ports),
        mirror::table(screen, &status.mirrors),
    )
}
