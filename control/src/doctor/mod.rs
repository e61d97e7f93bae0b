//! `labsw-ctl doctor`: what the host lacks, and what mends it. Nothing is ever changed.
//!
//! **How it works.** [`Host`] is what is known of the machine: files under a root directory, read when they are asked
//! for, and [`Facts`], everything that takes more than a file (programs, sockets, netlink, the running switch),
//! gathered beforehand by [`Facts::gather`]. [`examine`] judges: a pure function of the two, so that tests give it
//! made-up machines. Each check gives one [`Finding`] for each thing it is about, also when all is well, with the
//! evidence it was judged by.
//!
//! | file | what is judged |
//! |---|---|
//! | `memory` | huge pages |
//! | `cpu` | isolation, sibling threads, clock, KVM, nested virtualisation, IOMMU |
//! | `kernel` | AF_XDP, XDP, tcx, memfd, TUN, veth |
//! | `nic`, `quirks` | the devices of `af_xdp` ports, and what is known of their drivers |
//! | `sysctl` | forwarding, bridged frames, router advertisements, source checks |
//! | `access` | the switch, its sockets, and who may open them |
//! | `programs` | QEMU, libvirt, LXC |
//!
//! **Levels.** A *problem* keeps something from working that the configuration asks for. *Advice* is about what works,
//! but slower or less safely than it could, or would be needed for something that is not asked for yet.
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

/// How bad a finding is; later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Advice,
    /// Something asked for can't work.
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

/// What one check found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check; stable.
    pub check: &'static str,
    /// What it is about, where a check looks at several: an interface, a port, a CPU.
    pub subject: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// What that means, one sentence.
    pub summary: String,
    /// What was read, and where.
    pub evidence: String,
    /// The command that mends it; null: none does, or nothing is to mend.
    pub command: Option<String>,
    /// What mends it in a NixOS configuration.
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

/// Everything there is to say about `host`, in the order of the table above.
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
