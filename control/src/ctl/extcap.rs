//! `labsw-ctl extcap`: the ports as interfaces of Wireshark, tshark and dumpcap.
//!
//! **How it works.** Wireshark asks the programs in its extcap directory for their interfaces and options, and has one
//! of the programs write a capture into a pipe. `extcap install` puts a script there that calls this command. The port
//! `web` is the interface `labsw-web`; [`DROPS`] is an interface with all frames that the switch drops.
//!
//! The user of Wireshark needs the right to capture: root, or the admin group. Without a switch there are no
//! interfaces, which is no error: Wireshark asks each time it starts.
//!
//! Reference: extcap(4), Wireshark's developer's guide, "Extcap".

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Args, Subcommand, ValueEnum};

use super::capture::{Target, record};
use super::output::Output;
use super::session::{Failure, Session};
use crate::api::{self, CaptureSpec, DEFAULT_SNAPLEN, Port, Ports, Reply, Request, Source};
use crate::filter;

/// The interface with all dropped frames. No port's interface has this name, since a hyphen follows `labsw` in those.
const DROPS: &str = "labsw_drops";
const PORT_PREFIX: &str = "labsw-";
/// Name of the script in Wireshark's directory.
const SCRIPT: &str = "labsw";

/// The arguments that Wireshark passes; Wireshark prescribes the flags.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// List the interfaces.
    #[arg(long)]
    extcap_interfaces: bool,
    /// List the link types of an interface.
    #[arg(long)]
    extcap_dlts: bool,
    /// List the options of an interface.
    #[arg(long)]
    extcap_config: bool,
    /// Capture from an interface into --fifo.
    #[arg(long, requires = "extcap_interface", requires = "fifo")]
    capture: bool,
    /// The interface.
    #[arg(long, value_name = "NAME")]
    extcap_interface: Option<String>,
    /// The file or pipe to capture to.
    #[arg(long, value_name = "FILE")]
    fifo: Option<PathBuf>,
    /// Only frames that match; without --capture the expression is only checked.
    #[arg(long, value_name = "EXPR")]
    extcap_capture_filter: Option<String>,
    /// Wireshark's own version.
    #[arg(long, value_name = "VERSION", num_args = 0..=1)]
    extcap_version: Option<Option<String>>,
    /// Frames from the port, to the port, or both.
    #[arg(long, value_enum, default_value_t = Way::Both)]
    direction: Way,
    /// The frames that were dropped at the port, in place of those that pass.
    #[arg(long)]
    drops: bool,
    /// Bytes kept of each frame; 0: all.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN)]
    snaplen: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Both,
    Rx,
    Tx,
}

/// The commands for people.
#[derive(Debug, Subcommand)]
enum Command {
    /// Puts a script into Wireshark's extcap directory; to undo it, remove the script.
    Install {
        /// The directory; left out, the one that tshark or Wireshark names (root: for everyone; others: their own).
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// Answers a request of Wireshark.
pub(super) fn run(arguments: Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    if let Some(Command::Install { dir }) = arguments.command {
        return install(dir, output);
    }
    if arguments.capture {
        return capture(arguments, socket);
    }
    let text = if arguments.extcap_interfaces {
        interfaces(&ports(socket))
    } else if arguments.extcap_dlts {
        "dlt {number=1}{name=EN10MB}{display=Ethernet}\n".to_owned()
    } else if arguments.extcap_config {
        options(socket, arguments.extcap_interface.as_deref() == Some(DROPS))
    } else if let Some(expression) = arguments.extcap_capture_filter {
        // A valid filter gives no output.
        filter::compile(&expression).err().map(|error| format!("{error}\n")).unwrap_or_default()
    } else if arguments.extcap_version.is_some() {
        version()
    } else {
        return Err(Failure::Usage("this command is for Wireshark; `labsw-ctl extcap install` makes it known there"));
    };
    output.bytes(text.as_bytes())
}

/// The ports; none without a switch.
fn ports(socket: &Path) -> Vec<Port> {
    match Session::open(socket).and_then(|mut session| session.call(&Request::ListPorts)) {
        Ok(Reply::Ports(Ports { ports })) => ports,
        _ => Vec::new(),
    }
}

fn version() -> String {
    format!("extcap {{version={}}}{{display=labsw}}\n", env!("CARGO_PKG_VERSION"))
}

fn interfaces(ports: &[Port]) -> String {
    let mut text = version();
    for port in ports.iter().filter(|port| port.allow_mirror) {
        let kind = port.port_type.name();
        text += &format!("interface {{value={PORT_PREFIX}{0}}}{{display=labsw port {0} ({kind})}}\n", port.name);
    }
    if !ports.is_empty() {
        text += &format!("interface {{value={DROPS}}}{{display=labsw, dropped frames}}\n");
    }
    text
}

fn options(socket: &Path, of_drops: bool) -> String {
    let mut text = format!(
        "arg {{number=0}}{{call=--socket}}{{display=Control socket}}{{type=string}}{{default={}}}\n\
         arg {{number=1}}{{call=--snaplen}}{{display=Bytes kept of a frame (0: all)}}{{type=unsigned}}{{default={DEFAULT_SNAPLEN}}}\n\
         arg {{number=2}}{{call=--direction}}{{display=Direction}}{{type=selector}}\n\
         value {{arg=2}}{{value=both}}{{display=both}}{{default=true}}\n\
         value {{arg=2}}{{value=rx}}{{display=rx, from the port}}{{default=false}}\n\
         value {{arg=2}}{{value=tx}}{{display=tx, to the port}}{{default=false}}\n",
        socket.display()
    );
    if !of_drops {
        text += "arg {number=3}{call=--drops}{display=Frames dropped there, in place of frames that pass}{type=boolflag}{default=false}\n";
    }
    text
}

fn capture(arguments: Arguments, socket: &Path) -> Result<(), Failure> {
    let name = arguments.extcap_interface.unwrap_or_default();
    let (port, drops) = match name.strip_prefix(PORT_PREFIX) {
        Some(port) => (port, arguments.drops),
        None if name == DROPS => ("*", true),
        None => return Err(Failure::Usage("there is no such interface; --extcap-interfaces lists those there are")),
    };
    let direction = match arguments.direction {
        Way::Both => api::Direction::Both,
        Way::Rx => api::Direction::Rx,
        Way::Tx => api::Direction::Tx,
    };
    let spec = CaptureSpec {
        ports: vec![Source { port: port.to_owned(), direction }],
        drops,
        filter: arguments.extcap_capture_filter.filter(|filter| !filter.trim().is_empty()),
        snaplen: arguments.snaplen,
        ..CaptureSpec::default()
    };
    record(spec, socket, &Target::File(arguments.fifo.unwrap_or_default())).map(drop)
}

fn install(dir: Option<PathBuf>, output: &mut Output) -> Result<(), Failure> {
    let dir = dir.or_else(wireshark_directory).ok_or(Failure::Usage(
        "neither tshark nor wireshark says where its extcap directory is; name it with --dir \
         (Wireshark: Help, About, Folders)",
    ))?;
    let file = dir.join(SCRIPT);
    let written = std::env::current_exe().and_then(|program| {
        let program = program.to_string_lossy().replace('\'', r"'\''");
        fs::create_dir_all(&dir)?;
        fs::write(&file, format!("#!/bin/sh\nexec '{program}' extcap \"$@\"\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
    });
    written.map_err(|reason| Failure::File { file: file.clone(), reason })?;
    output.bytes(format!("{}\n", file.display()).as_bytes())
}

/// The extcap directory of Wireshark: for root the one for all users, otherwise the user's own if there is one.
fn wireshark_directory() -> Option<PathBuf> {
    let folders = ["tshark", "wireshark"].iter().find_map(|program| {
        let said = Process::new(program).args(["-G", "folders"]).output().ok()?;
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
    })?;
    extcap_directory(&folders, rustix::process::geteuid().is_root())
}

/// Finds the directory in the output of `-G folders`: a name, a colon, blanks and a path on each line.
fn extcap_directory(folders: &str, for_everyone: bool) -> Option<PathBuf> {
    let named = |wanted: &str| {
        let mut lines = folders.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, path)| PathBuf::from(path.trim()))
    };
    let personal = || named("Personal Extcap path").filter(|_| !for_everyone);
    personal().or_else(|| named("Global Extcap path")).or_else(|| named("Extcap path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_the_one_wireshark_names() {
        let old = "Temp:\t/tmp\nExtcap path:         \t/usr/lib/wireshark/extcap\n";
        assert_eq!(extcap_directory(old, false), Some("/usr/lib/wireshark/extcap".into()));
        let new = "Personal Extcap path:\t/home/u/.local/lib/wireshark/extcap\nGlobal Extcap path:\t/usr/lib/extcap\n";
        assert_eq!(extcap_directory(new, false), Some("/home/u/.local/lib/wireshark/extcap".into()));
        assert_eq!(extcap_directory(new, true), Some("/usr/lib/extcap".into()));
        assert_eq!(extcap_directory("Temp:\t/tmp\n", true), None);
    }
}
