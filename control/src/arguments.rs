//! The arguments of `labswd`: for the program itself, and for its man page.

use std::path::PathBuf;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// A virtual Ethernet switch for lab hosts.
#[derive(Debug, Parser)]
#[command(name = "labswd", version, after_long_help = AFTER)]
pub struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the configuration and exit; nothing is touched.
    #[arg(long)]
    pub check: bool,
    /// Take over from the running labswd with this configuration's control socket, without losing a frame; if that
    /// fails, the running one goes on.
    #[arg(long, conflicts_with = "check")]
    pub take_over: bool,
    /// Take over in the background: end when the new process runs, and do nothing if the running labswd was started
    /// from this program file. For ExecReload= of systemd.
    #[arg(long, requires = "take_over")]
    pub detach: bool,
    /// Log level: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: EnvFilter,
}

const AFTER: &str = "\
Signals: SIGTERM and SIGINT end the switch, which removes what it made. SIGHUP reads the configuration file again.

Exit status: 0 after SIGTERM or SIGINT, or if --check found no mistake; 1 if the configuration or the machine has a \
fault; 2 on wrong usage.

labsw-ctl(1) controls the switch; `labsw-ctl config schema` describes the configuration file.";
