//! Configuration snippets for a guest or container at a port, to paste into the configuration of its hypervisor or
//! container manager.
//!
//! **How it works.** [`snippet`] is a pure function from a port, as `port show` describes it, to text. First the port's
//! pluggable end ([`Plug`]) is determined; a target that takes no such plug is refused with the targets that do. Each
//! target then has a function that writes the text. The text has everything that the port decides (roles, queue pairs,
//! MTU, a MAC address); [`Options`] has the rest (the guest's memory).
//!
//! **Invariants.** The text can be used as printed: comments are comments of the target's own language and precede the
//! lines that they explain. The same port gives the same text in every run.
//!
//! References: qemu(1), "Network options"; libvirt "Domain XML format"; cloud-hypervisor `NetConfig::SYNTAX`;
//! lxc.container.conf(5); systemd-nspawn(1); ip-link(8).

mod container;
mod libvirt;
mod nix;
mod qemu;
pub(crate) mod quote;

use std::fmt;

use labsw_switch::Mac;

use crate::api::{Port, PortRole, PortType};
use crate::derived_mac;

/// MTU that every driver has by default, in bytes.
const USUAL_MTU: u32 = 1500;
/// Entries of a guest's rings: QEMU's default of 256 drops bursts.
const RING_SIZE: u16 = 1024;

/// The target that a snippet is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// QEMU's command line.
    Qemu,
    /// libvirt's domain XML.
    Libvirt,
    /// A domain of NixVirt.
    Nixvirt,
    /// A machine of microvm.nix.
    Microvm,
    /// cloud-hypervisor's command line.
    CloudHypervisor,
    /// The configuration of an LXC container.
    Lxc,
    /// systemd-nspawn's command line.
    Nspawn,
    /// A network namespace.
    Netns,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 8] = [
        Target::Qemu,
        Target::Libvirt,
        Target::Nixvirt,
        Target::Microvm,
        Target::CloudHypervisor,
        Target::Lxc,
        Target::Nspawn,
        Target::Netns,
    ];

    /// The name of the target on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Target::Qemu => "qemu",
            Target::Libvirt => "libvirt",
            Target::Nixvirt => "nixvirt",
            Target::Microvm => "microvm",
            Target::CloudHypervisor => "cloud-hypervisor",
            Target::Lxc => "lxc",
            Target::Nspawn => "nspawn",
            Target::Netns => "netns",
        }
    }

    /// True if the target is a virtual machine; false for a namespace of the host's kernel.
    fn is_machine(self) -> bool {
        !matches!(self, Target::Lxc | Target::Nspawn | Target::Netns)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// Settings that the port does not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of the guest's memory, as QEMU's `-m` takes it.
    pub memory: String,
    /// Version of QEMU, major and minor.
    pub qemu_version: (u32, u32),
}

impl Default for Options {
    fn default() -> Options {
        Options { memory: "1G".to_owned(), qemu_version: qemu::RECONNECT_MS }
    }
}

/// Why there is no snippet. One line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlueError {
    /// The target and the port do not fit.
    #[error("port {port:?} is {what}, which {target} can't be plugged into; {hint}")]
    Unfit {
        /// The port.
        port: String,
        /// The type of the port, with an article.
        what: String,
        /// The target.
        target: Target,
        /// The targets that fit, or another remedy.
        hint: String,
    },
    /// The switch's description of the port lacks a field.
    #[error("port {port:?}: the switch does not report its {what}; is it of another version than labsw-ctl?")]
    Silent {
        /// The port.
        port: String,
        /// The missing field.
        what: &'static str,
    },
}

/// The end of a port that is plugged in somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plug {
    /// A vhost-user socket.
    Socket { path: String, switch_listens: bool, queue_pairs: u32 },
    /// A TAP interface that a guest's hypervisor opens, or a container takes.
    Tap { interface: String },
    /// One end of a veth pair, in the switch's own namespace.
    Veth { peer: String },
}

/// A port with its pluggable end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket<'a> {
    port: &'a str,
    plug: Plug,
    mtu: u32,
    mac: Mac,
}

impl Socket<'_> {
    /// The MTU, if it is not the default.
    fn unusual_mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != USUAL_MTU)
    }
}

/// The snippet for the guest or container at `port`.
///
/// # Errors
/// [`GlueError`]: the target does not fit the port.
pub fn snippet(port: &Port, target: Target, options: &Options) -> Result<String, GlueError> {
    let plug = plug(port, target)?;
    let socket = Socket { port: &port.name, plug, mtu: port.mtu, mac: derived_mac::of_station(&port.name) };
    Ok(match target {
        Target::Qemu => qemu::text(&socket, options),
        Target::Libvirt => libvirt::text(&socket),
        Target::Nixvirt => nix::nixvirt(&socket),
        Target::Microvm => nix::microvm(&socket, options),
        Target::CloudHypervisor => qemu::cloud_hypervisor(&socket, options),
        Target::Lxc => container::lxc(&socket),
        Target::Nspawn => container::nspawn(&socket),
        Target::Netns => container::netns(&socket),
    })
}

/// The pluggable end of the port for `target`, if they fit.
fn plug(port: &Port, target: Target) -> Result<Plug, GlueError> {
    let unfit = |what: &str, hint: &str| GlueError::Unfit {
        port: port.name.clone(),
        what: what.to_owned(),
        target,
        hint: hint.to_owned(),
    };
    let silent = |what| GlueError::Silent { port: port.name.clone(), what };
    let said = |value: &Option<String>, what| value.clone().ok_or_else(|| silent(what));
    const MACHINES: &str = "use --for qemu, libvirt, nixvirt, microvm or cloud-hypervisor, or a port of type veth";
    const CONTAINERS: &str = "use --for lxc, nspawn or netns, or a port of type vhost_user or tap (for = \"guest\")";
    match port.port_type {
        PortType::VhostUser if target.is_machine() => Ok(Plug::Socket {
            path: said(&port.socket, "socket")?,
            switch_listens: port.role.ok_or_else(|| silent("role"))? == PortRole::Server,
            queue_pairs: port.queue_pairs.unwrap_or(1),
        }),
        PortType::VhostUser => Err(unfit("a vhost_user socket", MACHINES)),
        PortType::Tap if port.role == Some(PortRole::Host) => {
            let interface = said(&port.device, "interface")?;
            let hint = format!(
                "give the host its address (ip addr add … dev {interface}), or set for = \"guest\" at the port"
            );
            Err(unfit("the host's own TAP interface", &hint))
        }
        PortType::Tap if port.role == Some(PortRole::Container) => match &port.netns {
            _ if target.is_machine() => Err(unfit("a container's TAP interface", CONTAINERS)),
            None => Ok(Plug::Tap { interface: said(&port.device, "interface")? }),
            Some(netns) => {
                let what = format!("a TAP interface that the switch moves into the namespace {netns:?} itself");
                Err(unfit(&what, "leave netns and peer_name out at the port to give it away by hand"))
            }
        },
        PortType::Tap if target.is_machine() => Ok(Plug::Tap { interface: said(&port.device, "interface")? }),
        PortType::Tap => Err(unfit("a guest's TAP interface", MACHINES)),
        PortType::Veth if target.is_machine() => Err(unfit("one end of a veth pair", CONTAINERS)),
        PortType::Veth => match &port.netns {
            None => Ok(Plug::Veth { peer: said(&port.peer, "peer")? }),
            Some(netns) => {
                let what = format!("a veth pair whose end the switch moves into the namespace {netns:?} itself");
                Err(unfit(&what, "leave netns and peer_name out at the port to give its end away by hand"))
            }
        },
        PortType::AfXdp => {
            Err(unfit("a network device", "plug guests into vhost_user, tap (for = \"guest\") and veth ports"))
        }
    }
}

#[cfg(test)]
mod tests;
