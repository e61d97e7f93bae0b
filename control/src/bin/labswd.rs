//! `labswd`: runs the switch in the foreground.
//!
//! Exit status: 0 after SIGTERM or SIGINT, or when `--check` found nothing wrong (it says what ports would wait for); 1 with one line on standard error
//! when the configuration or the machine is not in order; 2 on wrong usage.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use labsw_control::config::Config;
use labsw_control::daemon::{self, Daemon};
use tracing_subscriber::EnvFilter;

/// A virtual Ethernet switch for lab hosts.
#[derive(Debug, Parser)]
#[command(name = "labswd", version, about)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and exit; nothing is touched.
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: EnvFilter,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("labswd: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        for line in daemon::awaited(&config) {
            println!("{}: {line}", arguments.config.display());
        }
        return Ok(());
    }
    let log = tracing_subscriber::fmt().with_env_filter(arguments.log_level).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal()).with_target(false);
    // Under systemd the journal stamps each line itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init()
    } else {
        log.init()
    }
    Daemon::start(config, &arguments.config)?.run()?;
    Ok(())
}
