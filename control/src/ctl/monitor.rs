//! `labsw-ctl monitor`: events as they happen, one line each.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use signal_hook::consts::SIGINT;

use super::output::Output;
use super::session::{Failure, Session};
use super::table::one_line;
use crate::api::{Events, Reply, Request};

/// Which events.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Begin with the last N events that have happened already.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=u64::from(u32::MAX)))]
    last: u64,
    /// End after N events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Prints events until interrupted, nobody reads them any more, or there were enough. As JSON: one document a line,
/// and `{"lost": N}` where N events are missing.
pub(super) fn run(arguments: &Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let request = Request::Monitor { last: Some(arguments.last) };
    // Ending this way is meant; each reply is written in one piece.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 0, Arc::new(AtomicBool::new(true)))?;
    Session::open(socket)?.stream_until(&request, None, |reply| {
        let Reply::Events(mut told) = reply else { return Ok(false) };
        told.events.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= told.events.len() as u64;
        if output.is_json() {
            if told.lost > 0 {
                output.json_line(&serde_json::json!({"lost": told.lost}))?;
            }
            told.events.iter().try_for_each(|event| output.json_line(event))?;
        } else {
            output.bytes(lines(&told).as_bytes())?;
        }
        Ok(left == 0)
    })?;
    Ok(())
}

/// A line for each event, and one where some are missing.
pub(super) fn lines(told: &Events) -> String {
    let lost = (told.lost > 0).then(|| format!("({} events are missing: this reader was too slow)\n", told.lost));
    let lines = told.events.iter().map(|event| {
        let at = UNIX_EPOCH + Duration::from_millis(event.time_milliseconds);
        format!("{} {}\n", time(at), one_line(&event.to_string()))
    });
    lost.into_iter().chain(lines).collect()
}

/// `2026-01-31T12:00:00.123Z`.
fn time(at: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(at)
}
