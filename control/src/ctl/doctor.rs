//! `labsw-ctl doctor`: examines the host. Exit status 1 if there is a problem, 0 otherwise; advice is no problem.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::Output;
use super::session::Failure;
use super::table::one_line;
use crate::doctor::{Facts, Finding, Host, Level, examine};

/// The configuration to examine the host for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Examine the host for this configuration; left out: for the running one, else /etc/labsw/labsw.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Leave out the checks without a finding.
    #[arg(long)]
    brief: bool,
}

/// Examines this machine and prints the findings.
///
/// # Errors
/// A problem was found, the configuration has a mistake, or writing fails.
pub(super) fn run(arguments: &Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let facts = Facts::gather(socket, arguments.config.as_deref())?;
    let mut findings = examine(&Host::new("/", facts));
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
    let summary = summary(&findings);
    findings.retain(|finding| !arguments.brief || finding.level > Level::Ok);
    if output.is_json() {
        output.pretty(&findings)?;
    } else {
        output.bytes((findings.iter().map(lines).collect::<String>() + &summary).as_bytes())?;
    }
    if problems > 0 { Err(Failure::Problems(problems)) } else { Ok(()) }
}

/// One finding: a line with the result, and below it the facts and the remedy.
fn lines(finding: &Finding) -> String {
    let subject = finding.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
    let mut text = format!("{:<8} {}{subject}: {}\n", finding.level.name(), finding.check, one_line(&finding.summary));
    let below = [
        ("evidence", Some(&finding.evidence)),
        ("command", finding.command.as_ref()),
        ("nixos", finding.nixos.as_ref()),
    ];
    for (name, value) in below {
        if let Some(value) = value {
            text += &format!("         {name:<9} {}\n", one_line(value));
        }
    }
    text
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let [problems, advice, ok] = [Level::Problem, Level::Advice, Level::Ok].map(count);
    format!("problems: {problems}, advice: {advice}, ok: {ok}\n")
}
