//! `labswd`: runs the switch in the foreground.
//!
//! Exit status: 0 after SIGTERM or SIGINT, or if `--check` found no mistake (it lists the devices that ports would wait
//! for); 1, with one line on standard error, if the configuration or the machine has a fault; 2 on wrong usage.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use labsw_control::arguments::Arguments;
use labsw_control::config::Config;
use labsw_control::confine::{self, helper};
use labsw_control::daemon::{self, Daemon, DaemonError, Found, Successor};
use labsw_control::detach;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let is_helper = std::env::args_os().nth(1).is_some_and(|argument| argument == helper::ARGUMENT);
    let outcome = if is_helper { helper::main().map_err(Into::into) } else { serve(Arguments::parse()) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            for line in reason.to_string().lines() {
                eprintln!("labswd: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load_all(&arguments.config)?;
    if arguments.check {
        for line in daemon::awaited(&config) {
            println!("{}: {line}", arguments.config.display());
        }
        return Ok(());
    }
    let news = match arguments.detach.then(detach::play).transpose()? {
        Some(None) => return Ok(()),
        news => news.flatten(),
    };
    start_log(arguments.log_level);
    let daemon = if arguments.take_over {
        match take_over(&config, &arguments.config, news)? {
            Some(daemon) => daemon,
            None => return Ok(()),
        }
    } else {
        let found = Found::look();
        confine::enter(&config, &arguments.config)?;
        let mut daemon = Daemon::start(config, &arguments.config)?;
        daemon.recover(found);
        daemon
    };
    daemon.run()?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes over from the running switch; `news` if in the background. `None`: there is nothing to take over.
fn take_over(
    config: &Config,
    file: &Path,
    news: Option<detach::News>,
) -> Result<Option<Daemon>, Box<dyn std::error::Error>> {
    let successor = Successor::knock(&config.switch.control_socket).map_err(DaemonError::from)?;
    let successor = match &news {
        Some(_) => successor.or_leave(),
        None => Some(successor),
    };
    let daemon = successor.map(|successor| -> Result<Daemon, Box<dyn std::error::Error>> {
        confine::enter(successor.config(), file)?;
        Ok(Daemon::take_over(successor, file)?)
    });
    let daemon = daemon.transpose()?;
    if let Some(news) = news {
        news.tell(if daemon.is_some() {
            "taken over"
        } else {
            "the running labswd was started from this program file"
        })?;
    }
    Ok(daemon)
}

/// Starts the log: in the journal with its priorities and fields if standard error goes there, otherwise as text.
fn start_log(level: EnvFilter) {
    let journal = is_journal().then(|| tracing_journald::layer().ok()).flatten();
    let text = journal.is_none().then(|| {
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false)
    });
    let journal = journal.map(|journal| journal.with_field_prefix(Some("LABSW".to_owned())));
    tracing_subscriber::registry().with(level).with(journal).with(text).init();
}

/// True if standard error is the stream that systemd's journal reads (`JOURNAL_STREAM`, systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|of| stream == format!("{}:{}", of.st_dev, of.st_ino))
}
