//! `labsw-ctl config save`: the running configuration in a file that people keep.
//!
//! **How it works.** The command asks the switch for its configuration, changes the text of the file so that it reads
//! as that configuration ([`Config::written_into`]), and puts the new file in the place of the old one in one step
//! (rename(2)): who reads meanwhile gets the old file or the new one. The caller's rights decide; the switch itself
//! writes no file. A file that is a link stays one, and what it points to is replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::output::Output;
use super::parse::is_dash;
use super::session::{Failure, Session};
use crate::api::{Done, Reply, Request, ShownConfig};
use crate::config::Config;

/// Runs the command.
///
/// # Errors
/// Those of the switch, the mistakes of the file, and those of reading and writing it.
pub(super) fn run(file: Option<PathBuf>, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let shown = match Session::open(socket)?.call(&Request::ShowConfig)? {
        Reply::Config(shown) => shown,
        other => return output.reply(&other),
    };
    if let Some(trial) = &shown.unconfirmed {
        return Err(Failure::OnTrial(trial.clone()));
    }
    let own = PathBuf::from(&shown.file);
    let file = file.unwrap_or_else(|| own.clone());
    if is_dash(&file) {
        return output.bytes(text_for(&own, &own, &shown)?.as_bytes());
    }
    let text = text_for(&file, &own, &shown)?;
    replace(&file, &text).map_err(|reason| Failure::File { file, reason })?;
    match output.is_json() {
        true => output.reply(&Reply::Done(Done {})),
        false => Ok(()),
    }
}

/// The text to write: that of the file, else that of the switch's own file, changed to the running configuration; else
/// the running configuration alone.
fn text_for(file: &Path, own: &Path, shown: &ShownConfig) -> Result<String, Failure> {
    let running = Config::parse(&shown.text, "the running configuration")?;
    if std::fs::exists(file).is_ok_and(|there| !there) {
        let copied = Config::read_text(own).ok().and_then(|text| running.written_into(&text, "").ok());
        return Ok(copied.unwrap_or_else(|| shown.text.clone()));
    }
    Ok(running.written_into(&Config::read_text(file)?, &file.display().to_string())?)
}

/// Puts a new file in the place of the old one, with its mode, owner and group.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let file = match std::fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(file)?,
        found => found?,
    };
    let before = match std::fs::metadata(&file) {
        Ok(before) if before.is_file() => Some(before),
        Ok(_) => return Err(io::Error::other("is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some((directory, name)) = file.parent().zip(file.file_name()) else {
        return Err(io::Error::other("is no file"));
    };
    let new = directory.join(format!(".{}.{}", name.display(), std::process::id()));
    let mode = if before.is_some() { 0o600 } else { 0o644 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    let written = fill(opened, text, before.as_ref()).and_then(|()| std::fs::rename(&new, &file));
    if written.is_err() {
        // If it can't be removed, the first error still tells what is wrong.
        let _ = std::fs::remove_file(&new);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// Fills the new file, and gives it what the old one has.
fn fill(mut new: File, text: &str, before: Option<&std::fs::Metadata>) -> io::Result<()> {
    if let Some(before) = before {
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (before.uid(), before.gid()) {
            fchown(&new, Some(before.uid()), Some(before.gid()))?;
        }
        new.set_permissions(std::fs::Permissions::from_mode(before.mode() & 0o7777))?;
    }
    new.write_all(text.as_bytes())?;
    new.sync_all()
}
