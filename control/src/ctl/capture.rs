//! `labsw-ctl capture`: writes captured frames to a file or a pipe, or prints a line for each.
//!
//! **How it works.** The switch sends the bytes of a pcapng file in pieces; this command writes them to the target, as
//! they are or as lines ([`super::dump`]). The file is opened when the first piece arrives, so that a refused capture
//! touches nothing. Two threads watch for the
//! end: one waits for SIGINT and SIGTERM and has the switch finish; the other waits for the reader of a pipe to close
//! it, which would otherwise be noticed only with the next frame.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use clap::builder::PossibleValuesParser;
use labsw_switch::DropReason;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::dump::{Dump, Style};
use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use super::table::{Screen, list, number, text};
use crate::api::{CaptureSpec, DEFAULT_SNAPLEN, Reply, Request, RunningCapture, Source};

/// Exit status after a second signal, which ends the program at once.
const INTERRUPTED: i32 = 130;

/// The capture to make, and its target.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The ports to capture at: PORT, PORT:rx (from the port), PORT:tx (to the port) or PORT:both. Left out: every port
    /// that may be mirrored.
    #[arg(value_name = "PORT[:rx|:tx]")]
    ports: Vec<Source>,
    /// The pcapng file to write; -: standard output, for a pipe. Left out: a line for each frame is printed.
    #[arg(short, long, value_name = "FILE|-")]
    write: Option<PathBuf>,
    /// MAC addresses in each line.
    #[arg(short = 'e', long, conflicts_with = "write")]
    macs: bool,
    /// Capture only frames that match (tcpdump syntax, as in 'tcp port 445 or arp').
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// Bytes kept of each frame; 0: all.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN)]
    snaplen: u32,
    /// End after this many frames.
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time (as in 10s).
    #[arg(long, value_name = "TIME", value_parser = parse::some_milliseconds)]
    duration: Option<u64>,
    /// Capture the frames that the switch drops, in place of those that pass.
    #[arg(long)]
    drops: bool,
    /// Capture only drops for this reason; may be given several times.
    #[arg(long = "reason", value_name = "REASON", requires = "drops", hide_possible_values = true,
        value_parser = PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.name())))]
    reasons: Vec<String>,
    /// List the running captures.
    #[arg(long, conflicts_with_all = ["write", "macs", "ports", "filter", "count", "duration", "drops"])]
    list: bool,
}

/// The target of a capture.
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// A file, which is created or emptied, or a named pipe.
    File(PathBuf),
    /// Standard output, as lines of text.
    Lines(Style),
}

/// The counts of a finished capture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub(super) captured: u64,
    pub(super) dropped: u64,
}

/// Captures, or lists captures.
pub(super) fn run(arguments: Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    if arguments.list {
        let reply = Session::open(socket)?.call(&Request::ListCaptures)?;
        return output.reply(&reply);
    }
    let target = Target::or_lines(arguments.write, arguments.macs, output)?;
    let spec = CaptureSpec {
        ports: arguments.ports,
        drops: arguments.drops,
        reasons: arguments.reasons,
        filter: arguments.filter,
        snaplen: arguments.snaplen,
        count: arguments.count,
        duration_milliseconds: arguments.duration,
        last_milliseconds: None,
    };
    let Summary { captured, dropped } = record(spec, socket, &target)?;
    // Standard output may be the capture itself.
    let mut stderr = io::stderr();
    let _ = if output.is_json() {
        writeln!(stderr, "{}", json!({"captured": captured, "dropped": dropped}))
    } else {
        writeln!(stderr, "{captured} frames captured, {dropped} dropped because the capture was too slow")
    };
    Ok(())
}

/// Captures until the end, a signal or an error.
///
/// # Errors
/// The switch refuses, or the target can't be written; [`Failure::ReaderGone`] if the reader of a pipe closed it.
pub(super) fn record(spec: CaptureSpec, socket: &Path, target: &Target) -> Result<Summary, Failure> {
    let mut session = Session::open(socket)?;
    let end = Arc::new(session.wait_for_ever()?);
    end_on_signals(Arc::clone(&end)).map_err(Failure::Output)?;
    let gone = Arc::new(AtomicBool::new(false));
    let (mut summary, mut file, mut dump) = (Summary::default(), None, target.dump());
    let outcome = session.stream(&Request::Capture(spec), |reply| {
        let Reply::CapturePiece(piece) = reply else { return Ok(()) };
        let mut bytes = STANDARD.decode(&piece.pcapng).map_err(|error| Failure::Output(io::Error::other(error)))?;
        if let Some(dump) = &mut dump {
            bytes = dump.lines(&bytes).map_err(|error| Failure::Output(io::Error::other(error)))?.into_bytes();
        }
        let file = match &mut file {
            Some(file) => file,
            none => {
                let opened = target.open()?;
                end_with_reader(&opened, Arc::clone(&end), Arc::clone(&gone)).map_err(|error| target.failure(error))?;
                none.insert(opened)
            }
        };
        file.write_all(&bytes).map_err(|error| target.failure(error))?;
        summary = Summary { captured: piece.captured, dropped: piece.dropped };
        Ok(())
    });
    if gone.load(Ordering::Relaxed) {
        return Err(Failure::ReaderGone);
    }
    outcome.map(|()| summary)
}

impl Target {
    /// The file, or standard output for `-`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if standard output is a terminal.
    pub(super) fn new(file: PathBuf) -> Result<Target, Failure> {
        if !parse::is_dash(&file) {
            return Ok(Target::File(file));
        }
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "standard output is a terminal; send it into a pipe, name a file with -w FILE, or leave -w out",
            ));
        }
        Ok(Target::Stdout)
    }

    /// The file; without one, lines on standard output, with the MAC addresses if `macs` says so.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the file is `-` and standard output is a terminal.
    pub(super) fn or_lines(file: Option<PathBuf>, macs: bool, output: &Output) -> Result<Target, Failure> {
        let lines = || Target::Lines(Style { json: output.is_json(), macs, screen: output.screen() });
        file.map_or_else(|| Ok(lines()), Target::new)
    }

    /// The writer of lines, if these are wanted.
    fn dump(&self) -> Option<Dump> {
        match self {
            Target::Lines(style) => Some(Dump::new(*style)),
            Target::Stdout | Target::File(_) => None,
        }
    }

    /// Opens the file.
    ///
    /// # Errors
    /// The file can't be made.
    pub(super) fn open(&self) -> Result<File, Failure> {
        let opened = match self {
            Target::Stdout | Target::Lines(_) => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            // Frames contain passwords: a new file is for its owner only. An existing file keeps its mode.
            Target::File(path) => OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path),
        };
        opened.map_err(|error| self.failure(error))
    }

    /// The failure that an error of writing is.
    pub(super) fn failure(&self, error: io::Error) -> Failure {
        match self {
            Target::File(file) if error.kind() != io::ErrorKind::BrokenPipe => {
                Failure::File { file: file.clone(), reason: error }
            }
            _ => error.into(),
        }
    }
}

/// Has the switch finish on the first signal; on the second, ends the process.
fn end_on_signals(end: Arc<UnixStream>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut waiting = signals.forever();
        if waiting.next().is_some() {
            // If the switch has gone, the stream ends anyway.
            let _ = end.shutdown(Shutdown::Write);
        }
        if waiting.next().is_some() {
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}

/// Ends the capture when the reader of a pipe closes it. A regular file has no reader, so nothing happens there.
fn end_with_reader(file: &File, end: Arc<UnixStream>, gone: Arc<AtomicBool>) -> io::Result<()> {
    let file = file.try_clone()?;
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let mut watched = [PollFd::new(&file, PollFlags::empty())];
        while poll(&mut watched, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        if watched.iter().any(|fd| fd.revents().contains(PollFlags::ERR)) {
            gone.store(true, Ordering::Relaxed);
            let _ = end.shutdown(Shutdown::Both);
        }
    })?;
    Ok(())
}

/// The running captures.
pub(super) fn table(screen: Screen, captures: &[RunningCapture]) -> String {
    let row = |capture: &RunningCapture| {
        vec![
            number(capture.pid),
            text(list(&capture.ports, "all")),
            text(if capture.drops { "drops" } else { "frames" }),
            text(capture.filter.as_deref().unwrap_or("-")),
            number(capture.age_seconds),
            number(capture.captured),
            number(capture.dropped),
        ]
    };
    let headings = ["process", "ports", "of", "filter", "seconds", "captured", "dropped"];
    screen.rows(&headings, captures.iter().map(row).collect(), "no captures")
}
