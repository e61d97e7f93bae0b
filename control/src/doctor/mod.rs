//! `labsw-ctl doctor`: finds what the host lacks, and how to mend it. Nothing is ever changed.
//!
//! **How it works.** [`Host`] is the machine: files under a root directory, read on demand, and [`Facts`], which take
//! more than a file (programs, sockets, netlink, the running switch) and are gathered beforehand by [`Facts::gather`].
//! [`examine`] is a pure function of the two, so that tests give it made-up machines. Each check gives one [`Finding`]
//! for each thing that it examines, also when all is well, with the evidence.
//!
//! | file | subject |
//! |---|---|
//! | `memory` | huge pages |
//! | `cpu` | isolation, sibling threads, clock, KVM, nested virtualisation, IOMMU |
//! | `kernel` | AF_XDP, XDP, tcx, memfd, TUN, veth |
//! | `nic`, `quirks` | the devices of `af_xdp` ports, and known faults of their drivers |
//! | `sysctl` | forwarding, bridged frames, router advertisements, source checks |
//! | `access` | the switch, its sockets, and their users |
//! | `programs` | QEMU, libvirt, LXC |
//!
//! **Levels.** A *problem* breaks something that the configuration asks for. *Advice* is about something that works,
//! but slower or less safely than it could, or that the configuration does not ask for yet.
//!
//! Reference: `docs/doctor.md`.

mod access;
mod cpu;
mod gather;
mod host;
mod kernel;
mod memory;
mod netdev;
mod nic;
mod programs;
mod quirks;
mod sysctl;

#[cfg(test)]
mod tests;

use serde::Serialize;

pub use host::{ConfigSource, Facts, Host, Nic, Probe, Program, SwitchAnswer, XdpFeatures};

/// The severity of a finding; later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Ok,
    /// It works, but could be better.
    Advice,
    /// Something that the configuration asks for can't work.
    Problem,
}

impl Level {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Advice => "advice",
            Level::Problem => "problem",
        }
    }
}

/// The result of one check for one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check; stable.
    pub check: &'static str,
    /// The thing examined, if a check examines several: an interface, a port, a CPU.
    pub subject: Option<String>,
    /// The severity.
    pub level: Level,
    /// The meaning of the result, in one sentence.
    pub summary: String,
    /// The evidence, and its source.
    pub evidence: String,
    /// The command that mends it; null if no command does, or nothing needs mending.
    pub command: Option<String>,
    /// The NixOS option that mends it.
    pub nixos: Option<String>,
}

impl Finding {
    fn new(level: Level, check: &'static str, summary: impl Into<String>, evidence: impl Into<String>) -> Finding {
        let (summary, evidence) = (summary.into(), evidence.into());
        Finding { check, subject: None, level, summary, evidence, command: None, nixos: None }
    }

    fn ok(check: &'static str, summary: impl Into<String>, evidence: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, check, summary, evidence)
    }

    fn advice(check: &'static str, summary: impl Into<String>, evidence: impl Into<String>) -> Finding {
        Finding::new(Level::Advice, check, summary, evidence)
    }

    fn problem(check: &'static str, summary: impl Into<String>, evidence: impl Into<String>) -> Finding {
        Finding::new(Level::Problem, check, summary, evidence)
    }

    fn about(self, subject: impl Into<String>) -> Finding {
        Finding { subject: Some(subject.into()), ..self }
    }

    fn command(self, command: impl Into<String>) -> Finding {
        Finding { command: Some(command.into()), ..self }
    }

    fn nixos(self, nixos: impl Into<String>) -> Finding {
        Finding { nixos: Some(nixos.into()), ..self }
    }
}

/// All findings about `host`, in the order of the table above.
pub fn examine(host: &Host) -> Vec<Finding> {
    let checks = [
        access::examine,
        memory::examine,
        cpu::examine,
        kernel::examine,
        nic::examine,
        sysctl::examine,
        programs::examine,
    ];
    checks.into_iter().flat_map(|check| check(host)).collect()
}
