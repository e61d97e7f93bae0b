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
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::api::Request;

mod capture;
mod config;
mod doctor;
mod extcap;
mod fdb;
mod guest;
mod impair;
pub mod inject;
mod mcast;
mod metrics;
mod mirror;
mod monitor;
mod output;
mod parse;
mod port;
mod rates;
mod render;
mod session;
mod stats;
mod status;
mod table;
mod top;
mod trace;
mod vlan;
mod wait;
mod worker;

use output::Output;
use session::{Failure, Session};

/// Controls labsw, the virtual Ethernet switch.
#[derive(Debug, Parser)]
#[command(name = "labsw-ctl", version, disable_help_subcommand = true)]
struct Arguments {
    /// The control socket of the switch.
    #[arg(long, global = true, value_name = "PATH", env = "LABSW_SOCKET", default_value = "/run/labsw/control.sock")]
    socket: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The switch at a glance: uptime, workers and their load, ports, mirrors.
    Status,
    /// Workers: their load, and the receive queues that each one serves.
    #[command(subcommand)]
    Worker(worker::Command),
    /// Ports: list, show, add, change, remove, enable and disable.
    #[command(subcommand)]
    Port(port::Command),
    /// VLANs and the ports in them.
    #[command(subcommand)]
    Vlan(vlan::Command),
    /// The forwarding database: the port of each MAC address.
    #[command(subcommand)]
    Fdb(fdb::Command),
    /// Multicast snooping: the members of each group, and the ports with routers.
    #[command(subcommand)]
    Mcast(mcast::Command),
    /// Mirrors: copies of frames, sent to a port or a VLAN.
    #[command(subcommand)]
    Mirror(mirror::Command),
    /// Impairments: slow, lossy or late links, per port and direction.
    #[command(subcommand)]
    Impair(impair::Command),
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
    /// Captures frames that pass, or that are dropped, as pcapng.
    Capture(capture::Arguments),
    /// Offers the ports to Wireshark as interfaces; `extcap install` registers them.
    Extcap(extcap::Arguments),
    /// Prints the metrics in Prometheus's format, or serves them over HTTP.
    Metrics(metrics::Arguments),
    /// Prints the configuration that plugs a guest or container into a port.
    Guest(guest::Arguments),
    /// Replays a capture into the switch, as if received on a port.
    Inject(inject::Arguments),
    /// Lists what the host lacks, and the command or option that mends it; nothing is changed.
    Doctor(doctor::Arguments),
    /// Prints the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs the tool with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = match &failure {
                Failure::Config(mistakes) => mistakes.to_string(),
                other => table::one_line(&other.to_string()),
            };
            for line in text.lines() {
                // If stderr is closed as well the message is lost.
                let _ = writeln!(io::stderr(), "labsw-ctl: {line}");
            }
            failure.exit_status()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.json);
    let request = match arguments.noun {
        Noun::Doctor(doctor) => return doctor::run(&doctor, &arguments.socket, &mut output),
        Noun::Completions { shell } => return completions(shell, &mut output),
        Noun::Top(top) => return top::run(&top, &arguments.socket, arguments.json),
        Noun::Stats(stats) if stats.watch => {
            return stats::watch(stats, &mut Session::open(&arguments.socket)?, &mut output);
        }
        Noun::Monitor(monitor) => return monitor::run(&monitor, &arguments.socket, &mut output),
        Noun::Wait(wait) => return wait::run(wait, &arguments.socket, &mut output),
        Noun::Capture(capture) => return capture::run(capture, &arguments.socket, &mut output),
        Noun::Extcap(extcap) => return extcap::run(extcap, &arguments.socket, &mut output),
        Noun::Config(command) => return config::run(command, &arguments.socket, &mut output),
        Noun::Metrics(metrics) => return metrics::run(&metrics, &arguments.socket, &mut output),
        Noun::Guest(guest) => return guest::run(guest, &mut Session::open(&arguments.socket)?, &mut output),
        Noun::Inject(inject) => return inject::run(inject, &mut Session::open(&arguments.socket)?, &mut output),
        Noun::Status => Request::GetStatus,
        Noun::Worker(command) => command.request(),
        Noun::Port(command) => command.request(),
        Noun::Vlan(command) => command.request(),
        Noun::Fdb(command) => command.request(),
        Noun::Mcast(command) => command.request(),
        Noun::Mirror(command) => command.request(),
        Noun::Trace(trace) => trace.request(),
        Noun::Impair(command) => command.request(),
        Noun::Stats(stats) => stats.request(),
    };
    let reply = Session::open(&arguments.socket)?.call(&request)?;
    output.reply(&reply)
}

fn completions(shell: Shell, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "labsw-ctl", &mut script);
    output.bytes(&script)
}
