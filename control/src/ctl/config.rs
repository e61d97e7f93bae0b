//! `labsw-ctl config`: the running configuration, and files compared with it.
//!
//! This command reads a file with the rights of the caller and sends its text to the switch. `check` also works without
//! a switch, and without the right to change one: then only the file itself is checked. `schema` needs no switch.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::Output;
use super::session::{Failure, Session};
use super::table::one_line;
use crate::api::{Awaited, Change, Changes, ConfigChange, ConfigText, Error, Reply, Request, WantedConfig};
use crate::config::Config;
use crate::varlink::CallError;

/// The commands for configurations.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints the running configuration, with the changes made at run time.
    Show,
    /// Checks that a file could be applied; nothing is changed.
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Shows what applying a file would change.
    Diff {
        #[command(flatten)]
        wanted: Wanted,
        /// End with status 1 if there is a difference.
        #[arg(long)]
        exit_code: bool,
    },
    /// Applies a file, as a whole or not at all.
    Apply(Wanted),
    /// Prints the JSON schema of the file, with which an editor completes keys and marks mistakes.
    Schema,
}

/// The file, and the treatment of changes made at run time.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// The configuration file.
    file: PathBuf,
    /// Keep changes made at run time.
    #[arg(long)]
    keep_runtime: bool,
}

/// Runs the command.
///
/// # Errors
/// Those of reading the file, of the switch, and of writing.
pub(super) fn run(command: Command, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let mut differences_matter = false;
    let request = match command {
        Command::Show => Request::ShowConfig,
        Command::Schema => return output.pretty(&Config::schema()),
        Command::Check { file } => return check(&file, socket, output),
        Command::Diff { wanted: Wanted { file, keep_runtime }, exit_code } => {
            differences_matter = exit_code;
            Request::DiffConfig(WantedConfig { config: read(&file)?, keep_runtime })
        }
        Command::Apply(Wanted { file, keep_runtime }) => {
            Request::Change(Change::ApplyConfig(WantedConfig { config: read(&file)?, keep_runtime }))
        }
    };
    let reply = Session::open(socket)?.call(&request)?;
    output.reply(&reply)?;
    match reply {
        Reply::Changes(Changes { changes }) if differences_matter && !changes.is_empty() => Err(Failure::Different),
        _ => Ok(()),
    }
}

/// Reads a file and checks it here, so that every mistake is reported, also without a switch.
fn read(file: &Path) -> Result<ConfigText, Failure> {
    let text = Config::read_text(file)?;
    let config = ConfigText { file: file.display().to_string(), text };
    Config::read_here(&config.text, &config.file)?;
    Ok(config)
}

fn check(file: &Path, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let config = read(file)?;
    let checked = Session::open(socket).and_then(|mut session| session.call(&Request::CheckConfig(config)));
    match checked {
        Err(
            beside
            @ (Failure::Unreachable { .. } | Failure::Refused(CallError::Switch(Error::PermissionDenied { .. }))),
        ) => {
            // If stderr is closed the note is lost.
            let beside = one_line(&beside.to_string());
            let _ = writeln!(std::io::stderr(), "labsw-ctl: {beside}; only the file itself was checked");
            output.reply(&Reply::Awaited(Awaited { awaited: Vec::new() }))
        }
        reply => output.reply(&reply?),
    }
}

/// The changes, one line each.
pub(super) fn lines(changes: &[ConfigChange]) -> String {
    if changes.is_empty() {
        return "no difference\n".to_owned();
    }
    changes.iter().map(|change| format!("{}\n", one_line(&change.to_string()))).collect()
}
