//! `labsw-ctl config`: the running configuration, and files compared with it.
//!
//! This command reads a file with the rights of the caller and sends its text to the switch; `-` is standard input.
//! `check` also works without a switch, and without the right to change one: then only the file itself is checked.
//! `schema` needs no switch.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::output::Output;
use super::parse;
use super::save;
use super::session::{Failure, Session};
use super::table::one_line;
use crate::api::{
    AppliedConfig, Awaited, Change, Changes, ConfigChange, ConfigText, Error, Reply, Request, ShownConfig, WantedConfig,
};
use crate::config::Config;
use crate::varlink::CallError;

/// The commands for configurations.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints the running configuration, with the changes made at run time.
    Show,
    /// Checks that a file could be applied; nothing is changed.
    Check {
        /// The configuration file; `-`: standard input.
        file: PathBuf,
    },
    /// Shows what applying a file would change.
    Diff {
        /// The configuration file; `-`: standard input; left out: the one that the switch was started with.
        file: Option<PathBuf>,
        /// Keep changes made at run time.
        #[arg(long)]
        keep_runtime: bool,
        /// End with status 1 if there is a difference.
        #[arg(long)]
        exit_code: bool,
    },
    /// Applies a file, as a whole or not at all.
    Apply {
        /// The configuration file; `-`: standard input.
        file: PathBuf,
        /// Keep changes made at run time.
        #[arg(long)]
        keep_runtime: bool,
        /// Take the configuration back after this time, as in 30s, unless `config confirm` comes first.
        #[arg(long, value_name = "T", value_parser = parse::milliseconds)]
        confirm: Option<u64>,
    },
    /// Keeps the configuration that was applied with --confirm.
    Confirm,
    /// Takes back the configuration that was applied with --confirm, now.
    Revert,
    /// Writes the running configuration into a file, which keeps its comments and order.
    Save {
        /// The file; `-`: standard output; left out: the one that the switch was started with. A new file begins as a
        /// copy of that.
        file: Option<PathBuf>,
    },
    /// Prints the JSON schema of the file, with which an editor completes keys and marks mistakes.
    Schema,
}

/// Runs the command.
///
/// # Errors
/// Those of reading the file, of the switch, and of writing.
pub(super) fn run(command: Command, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let mut differences_matter = false;
    let mut trial = None;
    let request = match command {
        Command::Show => Request::ShowConfig,
        Command::Schema => return output.pretty(&Config::schema()),
        Command::Check { file } => return check(&file, socket, output),
        Command::Save { file } => return save::run(file, socket, output),
        Command::Diff { file, keep_runtime, exit_code } => {
            differences_matter = exit_code;
            let file = file.map_or_else(|| own_file(socket), Ok)?;
            Request::DiffConfig(WantedConfig { config: read(&file)?, keep_runtime })
        }
        Command::Apply { file, keep_runtime, confirm } => {
            trial = confirm;
            let wanted = WantedConfig { config: read(&file)?, keep_runtime };
            Request::Change(Change::ApplyConfig(AppliedConfig { wanted, confirm_milliseconds: confirm }))
        }
        Command::Confirm => Request::Change(Change::ConfirmConfig),
        Command::Revert => Request::Change(Change::RevertConfig),
    };
    let reply = Session::open(socket)?.call(&request)?;
    output.reply(&reply)?;
    if let Some(time) = trial.filter(|_| !output.is_json()) {
        let time = humantime::format_duration(Duration::from_millis(time));
        let note = format!("taken back in {time}, unless `labsw-ctl config confirm` comes first");
        // If stderr is closed the note is lost.
        let _ = writeln!(std::io::stderr(), "labsw-ctl: {note}");
    }
    match reply {
        Reply::Changes(Changes { changes }) if differences_matter && !changes.is_empty() => Err(Failure::Different),
        _ => Ok(()),
    }
}

/// The file that the switch was started with.
fn own_file(socket: &Path) -> Result<PathBuf, Failure> {
    match Session::open(socket)?.call(&Request::ShowConfig)? {
        Reply::Config(ShownConfig { file, .. }) if !file.is_empty() => Ok(file.into()),
        _ => Err(Failure::Usage("this switch does not say which file it was started with; name the file")),
    }
}

/// Reads a file and checks it here, so that every mistake is reported, also without a switch.
fn read(file: &Path) -> Result<ConfigText, Failure> {
    let config = match parse::is_dash(file) {
        true => ConfigText { file: "standard input".to_owned(), text: standard_input()? },
        false => ConfigText { file: file.display().to_string(), text: Config::read_text(file)? },
    };
    Config::read_here(&config.text, &config.file)?;
    Ok(config)
}

fn standard_input() -> Result<String, Failure> {
    Ok(Config::read_from(std::io::stdin().lock(), "standard input")?)
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
