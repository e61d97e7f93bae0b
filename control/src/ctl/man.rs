//! `labsw-ctl man`: the manual pages, made from the descriptions that `--help` prints.
//!
//! `labsw-ctl.1`, a page for each command (`labsw-ctl-port-add.1`), and `labswd.8`. `make install` puts them in place.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::session::Failure;
use crate::arguments;

/// Writes the pages of `tool` and of the daemon into a directory, which is made if it is not there.
///
/// # Errors
/// A page can't be written.
pub(super) fn write(tool: Command, directory: &Path) -> Result<(), Failure> {
    let failed = |reason: io::Error| Failure::File { file: directory.to_owned(), reason };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(tool, directory).map_err(failed)?;
    let daemon = directory.join("labswd.8");
    let page = Man::new(arguments::Arguments::command()).section("8");
    let written = File::create(&daemon).and_then(|mut file| page.render(&mut file));
    written.map_err(|reason| Failure::File { file: daemon, reason })
}

/// The directory that pages are written into.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory.
    pub(super) directory: PathBuf,
}
