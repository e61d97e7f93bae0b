//! `labsw-ctl guest`: the configuration to paste for the guest or container at a port.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use crate::api::{OnePort, Reply, Request};
use crate::glue::{self, Options, Target};

/// The port and the target.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the port.
    #[arg(value_parser = parse::name)]
    port: String,
    /// The hypervisor or container manager to print for.
    #[arg(long = "for", value_name = "TARGET", value_parser = target())]
    target: Target,
    /// Size of the guest's memory, as QEMU's -m takes it.
    #[arg(long, value_name = "SIZE", value_parser = parse::memory, default_value = "1G")]
    memory: String,
    /// Version of QEMU, as in 7.2; left out: 9.2 or later.
    #[arg(long, value_name = "VERSION", value_parser = parse::version)]
    qemu_version: Option<(u32, u32)>,
}

fn target() -> impl TypedValueParser<Value = Target> {
    PossibleValuesParser::new(Target::ALL.map(Target::name))
        .try_map(|name| Target::ALL.into_iter().find(|target| target.name() == name).ok_or("not a target"))
}

/// The output with `--json`.
#[derive(Debug, Serialize)]
struct Snippet<'a> {
    #[serde(rename = "for")]
    target: &'static str,
    port: &'a str,
    text: &'a str,
}

/// Asks the switch for the port and prints the snippet.
pub(super) fn run(arguments: Arguments, session: &mut Session, output: &mut Output) -> Result<(), Failure> {
    let Arguments { port: name, target, memory, qemu_version } = arguments;
    let request = Request::ShowPort { name };
    let reply = session.call(&request)?;
    let Reply::Port(OnePort { port }) = reply else { return output.reply(&reply) };
    let usual = Options::default();
    let options = Options { memory, qemu_version: qemu_version.unwrap_or(usual.qemu_version) };
    let text = glue::snippet(&port, target, &options)?;
    if output.is_json() {
        return output.pretty(&Snippet { target: target.name(), port: &port.name, text: &text });
    }
    output.bytes(text.as_bytes())
}
