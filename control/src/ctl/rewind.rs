//! `labsw-ctl rewind`: writes what already passed at ports that keep frames to a file or a pipe, or prints a line for
//! each frame.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use labsw_switch::DropReason;
use serde_json::json;

use super::capture::{Summary, Target, record};
use super::output::Output;
use super::parse;
use super::session::Failure;
use crate::api::{CaptureSpec, DEFAULT_SNAPLEN, Source};

/// The part of the past, and where it goes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The ports: PORT, PORT:rx (from the port), PORT:tx (to the port) or PORT:both. Left out: every port that keeps
    /// frames.
    #[arg(value_name = "PORT[:rx|:tx]")]
    ports: Vec<Source>,
    /// How far to go back, as in 30s or 5m; left out: to the oldest frame.
    #[arg(long, value_name = "TIME", value_parser = parse::some_milliseconds)]
    last: Option<u64>,
    /// The pcapng file to write; -: standard output, for a pipe. Left out: a line for each frame is printed.
    #[arg(short, long, value_name = "FILE|-")]
    write: Option<PathBuf>,
    /// MAC addresses in each line.
    #[arg(short = 'e', long, conflicts_with = "write")]
    macs: bool,
    /// Only frames that match (tcpdump syntax, as in 'tcp port 445 or arp').
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Bytes of each frame; 0: all.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN)]
    snaplen: u32,
    /// End after this many frames.
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only the frames that the switch dropped.
    #[arg(long)]
    drops: bool,
    /// Only drops for this reason; may be given several times.
    #[arg(long = "reason", value_name = "REASON", requires = "drops", hide_possible_values = true,
        value_parser = PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name())))]
    reasons: Vec<String>,
}

/// Writes the past.
///
/// # Errors
/// The switch refuses, or the target can't be written.
pub(super) fn run(arguments: Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let target = Target::or_lines(arguments.write, arguments.macs, output)?;
    let spec = CaptureSpec {
        ports: arguments.ports,
        drops: arguments.drops,
        reasons: arguments.reasons,
        filter: arguments.filter,
        snaplen: arguments.snaplen,
        count: arguments.count,
        duration_milliseconds: None,
        last_milliseconds: Some(arguments.last.unwrap_or(u64::MAX >> 1)),
    };
    let Summary { captured, dropped } = record(spec, socket, &target)?;
    // Standard output may be the frames themselves.
    let mut stderr = io::stderr();
    let _ = if output.is_json() {
        writeln!(stderr, "{}", json!({"frames": captured, "missed": dropped}))
    } else {
        writeln!(stderr, "{captured} frames, {dropped} missed because there was no room for them")
    };
    Ok(())
}
