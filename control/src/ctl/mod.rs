//! `labsw-ctl`: every operation of a person or a script on the switch.
//!
//! **How it works.** Each noun has a file with its commands, the request of each one, and the table of the reply. A
//! command is a request, a call, and a table or JSON; only `stats --watch`, `top` and `capture` take more than one
//! reply.
//!
//! **Exit status.** 0: done. 1: the switch refused, or the object does not exist; `doctor`: there is a problem. 2:
//! wrong usage. 3: the switch can't be reached. Errors are one line on stderr. A reader that closes the pipe (`| head`)
//! is no error.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::api::{Done, Error, Reply, Request};
use crate::score::time::Time;
use crate::varlink::CallError;

mod capture;
mod completion;
mod config;
mod doctor;
mod dump;
mod extcap;
mod fdb;
mod graph;
mod guest;
mod impair;
pub mod inject;
mod inline;
mod label;
mod labelled;
mod man;
mod mcast;
mod metrics;
mod mirror;
mod monitor;
mod output;
mod parse;
mod picture;
mod port;
mod rates;
mod render;
mod rewind;
mod save;
mod score;
mod session;
mod stats;
mod status;
mod table;
mod top;
mod trace;
mod vlan;
mod wait;
mod web;
mod worker;

use output::Output;
use session::{Failure, Session};
use table::Screen;

/// The heading of the options that every command has.
const GLOBAL: &str = "Options of every command";
/// The control socket, if none is named.
const USUAL_SOCKET: &str = "/run/labsw/control.sock";

/// The end of `--help` and of the manual page.
const AFTER: &str = "\
A noun without a verb lists; `labsw-ctl help NOUN` explains.

Exit status: 0: done. 1: the switch refused, or the object does not exist. 2: wrong usage. 3: the switch can't be \
reached.

Documentation: /usr/share/doc/labsw or /usr/local/share/doc/labsw. labswd(8) is the switch.";

/// Controls labsw, the virtual Ethernet switch.
#[derive(Debug, Parser)]
#[command(name = "labsw-ctl", version, after_long_help = AFTER)]
struct Arguments {
    /// The control socket of the switch.
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "PATH", env = "LABSW_SOCKET", default_value = USUAL_SOCKET)]
    socket: PathBuf,
    /// Print JSON instead of a table.
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Print whole rows, also where they are wider than the terminal.
    #[arg(long, global = true, help_heading = GLOBAL)]
    wide: bool,
    #[command(subcommand)]
    noun: Noun,
}

/// The verb of a noun; left out: list.
#[derive(Debug, Args)]
struct Verb<C: Subcommand + Default> {
    #[command(subcommand)]
    verb: Option<C>,
}

impl<C: Subcommand + Default> Verb<C> {
    fn or_list(self) -> C {
        self.verb.unwrap_or_default()
    }
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The switch at a glance: uptime, workers and their load, ports, mirrors.
    Status,
    /// Workers: their load, and the receive queues that each one serves.
    Worker(Verb<worker::Command>),
    /// Ports: list, show, add, change, remove, enable and disable.
    Port(Verb<port::Command>),
    /// VLANs and the ports in them.
    Vlan(Verb<vlan::Command>),
    /// The forwarding database: the port of each MAC address.
    Fdb(Verb<fdb::Command>),
    /// Multicast snooping: the members of each group, and the ports with routers.
    Mcast(Verb<mcast::Command>),
    /// Mirrors: copies of frames, sent to a port or a VLAN.
    Mirror(Verb<mirror::Command>),
    /// Sensors in the wires of ports: what a port sends and gets goes through its sensor.
    Inline(Verb<inline::Command>),
    /// Impairments: slow, lossy or late links, per port and direction.
    Impair(Verb<impair::Command>),
    /// The running configuration: show it, compare it with a file, apply a file.
    #[command(subcommand)]
    Config(config::Command),
    /// Shows how the switch would handle a frame, step by step; nothing is sent and nothing changes.
    Trace(trace::Arguments),
    /// Counters: frames, bytes, and drops by reason.
    Stats(stats::Arguments),
    /// Shows ports, mirrors and workers live, on the whole screen.
    Top(top::Arguments),
    /// Events as they happen: ports, mirrors, impairments, MAC addresses that move, who changed what.
    Monitor(monitor::Arguments),
    /// Waits until a port has a state.
    Wait(wait::Arguments),
    /// Captures frames that pass, or that are dropped: as pcapng, or a line each.
    Capture(capture::Arguments),
    /// Shows the frames that already passed, or were dropped, at ports that keep some: as pcapng, or a line each.
    Rewind(rewind::Arguments),
    /// Shows the lab live on a page, for a browser on this machine.
    Web(web::Arguments),
    /// Draws the lab: ports by VLAN, who is plugged in, mirrors and impairments.
    Graph(graph::Arguments),
    /// Offers the ports to Wireshark as interfaces; `extcap install` registers them.
    Extcap(extcap::Arguments),
    /// Prints the metrics in Prometheus's format, or serves them over HTTP.
    Metrics(metrics::Arguments),
    /// Prints the configuration that plugs a guest or container into a port.
    Guest(guest::Arguments),
    /// Replays a capture into the switch, as if received on a port.
    Inject(inject::Arguments),
    /// Says which labelled injections and impairments a sensor noticed, and how soon.
    Score(score::Arguments),
    /// Writes the labels of a timeline into a capture, as comments on the frames of their time.
    Label(labelled::Arguments),
    /// Lists what the host lacks, and the command or option that mends it; nothing is changed.
    Doctor(doctor::Arguments),
    /// Prints the script by which a shell completes commands, and names of the running switch.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the manual pages into a directory.
    Man(man::Arguments),
}

/// Runs the tool with the arguments of the process.
pub fn main() -> ExitCode {
    completion::answer(Arguments::command);
    let arguments = Arguments::try_parse().unwrap_or_else(|error| refuse(&error));
    let json = arguments.json;
    match run(arguments) {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&failure, json);
            failure.exit_status()
        }
    }
}

/// Prints an error on stderr: one line, one for each mistake of a file, or one JSON object on a line.
fn report(failure: &Failure, json: bool) {
    let text = match failure {
        _ if json => failure.to_json().to_string(),
        Failure::Config(mistakes) => mistakes.to_string(),
        other => table::one_line(&other.to_string()),
    };
    let before = if json { "" } else { "labsw-ctl: " };
    for line in text.lines() {
        // If stderr is closed as well the message is lost.
        let _ = writeln!(io::stderr(), "{before}{line}");
    }
}

/// Says what is wrong with the arguments, as JSON if one of them asks for that, and ends the program with status 2;
/// prints help and version where these were asked for, and ends it with status 0.
fn refuse(error: &clap::Error) -> ! {
    let json = std::env::args_os().any(|argument| argument == "--json" || argument == "-j");
    if !json || !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let _ = writeln!(io::stderr(), "{}", serde_json::json!({"error": "usage", "message": message}));
    std::process::exit(error.exit_code())
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.json;
    let mut output = Output::new(json, Screen::of_stdout(arguments.wide));
    let mut if_exists = false;
    let requests = match arguments.noun {
        Noun::Doctor(doctor) => return doctor::run(&doctor, &arguments.socket, &mut output),
        Noun::Label(label) => return labelled::run(&label, &mut output),
        Noun::Score(score) => return score::run(score, &mut output),
        Noun::Completions { shell } => return completion::script(shell, &mut output),
        Noun::Man(man::Arguments { directory }) => return man::write(Arguments::command(), &directory),
        Noun::Top(top) => return top::run(&top, &arguments.socket, arguments.json),
        Noun::Stats(stats) if stats.watch => {
            return stats::watch(stats, &mut Session::open(&arguments.socket)?, &mut output);
        }
        Noun::Monitor(monitor) => return monitor::run(&monitor, &arguments.socket, &mut output),
        Noun::Wait(wait) => return wait::run(wait, &arguments.socket, &mut output),
        Noun::Capture(capture) => return capture::run(capture, &arguments.socket, &mut output),
        Noun::Rewind(rewind) => return rewind::run(rewind, &arguments.socket, &mut output),
        Noun::Extcap(extcap) => return extcap::run(extcap, &arguments.socket, &mut output),
        Noun::Config(command) => return config::run(command, &arguments.socket, &mut output),
        Noun::Web(web) => return web::run(&web, &arguments.socket, &mut output),
        Noun::Graph(graph) => return graph::run(&graph, &arguments.socket, &mut output),
        Noun::Metrics(metrics) => return metrics::run(&metrics, &arguments.socket, &mut output),
        Noun::Guest(guest) => return guest::run(guest, &mut Session::open(&arguments.socket)?, &mut output),
        Noun::Inject(inject) => return inject::run(inject, &mut Session::open(&arguments.socket)?, &mut output),
        Noun::Status => vec![Request::GetStatus],
        Noun::Worker(noun) => vec![noun.or_list().request()],
        Noun::Port(noun) => {
            let command = noun.or_list();
            if_exists = command.if_exists();
            command.requests()
        }
        Noun::Vlan(noun) => vec![noun.or_list().request()],
        Noun::Fdb(noun) => {
            let command = noun.or_list();
            if_exists = command.if_exists();
            vec![command.request()]
        }
        Noun::Mcast(noun) => vec![noun.or_list().request()],
        Noun::Mirror(noun) => {
            let command = noun.or_list();
            let (if_exists, changed) = (command.if_exists(), command.changed());
            call_each(&command.requests(), if_exists, &arguments.socket, &mut output)?;
            return changed.filter(|_| !json).map_or(Ok(()), |name| mirror::warn(name, &arguments.socket));
        }
        Noun::Inline(noun) => {
            let command = noun.or_list();
            if_exists = command.if_exists();
            command.requests()
        }
        Noun::Trace(trace) => vec![trace.request()],
        Noun::Impair(noun) => {
            let (command, now) = (noun.or_list(), Time::now());
            call_each(&[command.request()], command.if_exists(), &arguments.socket, &mut output)?;
            return command.note(now);
        }
        Noun::Stats(stats) => vec![stats.request()],
    };
    call_each(&requests, if_exists, &arguments.socket, &mut output)
}

/// Makes the requests one after the other, up to the first that fails. With `if_exists`, a missing
/// object is no error.
fn call_each(requests: &[Request], if_exists: bool, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let mut session = Session::open(socket)?;
    for request in requests {
        match session.call(request) {
            Err(Failure::Refused(CallError::Switch(Error::NotFound { .. }))) if if_exists => {
                output.reply(&Reply::Done(Done {}))?;
            }
            reply => output.reply(&reply?)?,
        }
    }
    Ok(())
}
