//! `labswd --take-over --detach`: the process that takes over goes on in the background.
//!
//! **How it works.** Three processes run the same program with the same arguments and differ in one environment
//! variable. The first one waits. The second one starts the third and ends at once, so the third becomes a child of the
//! service manager, which then is told when it ends. The third one takes over, writes one line to the pipe that is its
//! standard output, and closes the pipe. The first one ends with the line. Without a line the third one has failed; its
//! reason is on standard error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The environment variable that tells the second and third process which one they are.
const STAGE: &str = "LABSW_DETACH";
const SECOND: &str = "second";
const THIRD: &str = "third";

/// The third process's way to tell the first one that the work is done.
#[derive(Debug)]
pub struct News {
    /// Opened before the process may not open it any more.
    nowhere: File,
}

/// Plays the part of the first or second process, and gives `None`. The third one has to take over.
///
/// # Errors
/// A process can't be started, or the third one has failed.
pub fn play() -> io::Result<Option<News>> {
    match std::env::var(STAGE).as_deref() {
        Ok(THIRD) => Ok(Some(News { nowhere: File::options().write(true).open("/dev/null")? })),
        Ok(SECOND) => again(THIRD).spawn().map(|_| None),
        _ => wait_for_news().map(|()| None),
    }
}

impl News {
    /// Ends the first process, which prints the line.
    ///
    /// # Errors
    /// The pipe can't be closed.
    pub fn tell(self, line: &str) -> io::Result<()> {
        // The first process may have been killed, which changes nothing here.
        let _ = writeln!(io::stdout(), "{line}");
        Ok(rustix::stdio::dup2_stdout(self.nowhere)?)
    }
}

fn wait_for_news() -> io::Result<()> {
    let mut second = again(SECOND).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut news = String::new();
    if let Some(pipe) = second.stdout.take() {
        BufReader::new(pipe).read_line(&mut news)?;
    }
    second.wait()?;
    if news.is_empty() {
        return Err(io::Error::other("no new process has taken over"));
    }
    print!("{news}");
    Ok(())
}

/// This program with these arguments, as this stage.
fn again(stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("labswd").args(std::env::args_os().skip(1)).env(STAGE, stage);
    command
}
