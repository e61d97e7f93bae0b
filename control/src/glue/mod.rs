//! Snippets for who is at a port: what to paste into a hypervisor's or a container's configuration so that it fits the
//! port as it is.
//!
//! **How it works.** [`snippet`] is a pure function from a port as `port show` describes it to text. First the port is
//! taken apart into what can be plugged in ([`Plug`]); a target that takes no such plug is refused with the targets
//! that do. Each target then has a function that writes the text. Everything that the port decides is in the text
//! (roles, queue pairs, MTU, a MAC address); what it can't decide (the guest's memory) stands in [`Options`].
//!
//! **Invariants.** The text can be used as printed: comments are comments of the target's own language and stand before
//! what they are about. The same port gives the same text in every run.
//!
//! References: qemu(1), "Network options"; libvirt "Domain XML format"; cloud-hypervisor `NetConfig::SYNTAX`;
//! lxc.container.conf(5); systemd-nspawn(1); ip-link(8).

mod container;
mod libvirt;
mod nix;
mod qemu;
mod quote;

use std::fmt;

use labsw_switch::Mac;

use crate::api::{Port, PortType};
use crate::derived_mac;

/// MTU that every driver has by itself, bytes.
const USUAL_MTU: u32 = 1500;
/// Entries of a guest's rings: with QEMU's own 256 bursts are dropped.
const RING_SIZE: u16 = 1024;

/// What a snippet is written for.
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

    /// The name, as the tool takes it.
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

    /// Whether it runs a machine; else it is a namespace of the host's kernel.
    fn is_machine(self) -> bool {
        !matches!(self, Target::Lxc | Target::Nspawn | Target::Netns)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// What the port does not say.
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
        /// What the port is, with an article.
        what: String,
        /// The target.
        target: Target,
        /// Which targets fit, or what else to do.
        hint: String,
    },
    /// The switch did not say enough of the port.
    #[error("port {port:?}: the switch says nothing of its {what}; is it of another version than labsw-ctl?")]
    Silent {
        /// The port.
        port: String,
        /// What is missing.
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

/// A port that something can be plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket<'a> {
    port: &'a str,
    plug: Plug,
    mtu: u32,
    mac: Mac,
}

impl Socket<'_> {
    /// The MTU, where it has to be told.
    fn unusual_mtu(&self) -> Option<u32> {
        Some(self.mtu).filter(|mtu| *mtu != USUAL_MTU)
    }
}

/// The text to paste for what is at `port`.
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

/// What `target` gets of the port, if it takes that.
fn plug(port: &Port, target: Target) -> Result<Plug, GlueError> {
    let unfit = |what: &str, hint: &str| GlueError::Unfit {
        port: port.name.clone(),
        what: what.to_owned(),
        target,
        hint: hint.to_owned(),
    };
    let said =
        |value: &Option<String>, what| value.clone().ok_or_else(|| GlueError::Silent { port: port.name.clone(), what });
    const MACHINES: &str = "use --for qemu, libvirt, nixvirt, microvm or cloud-hypervisor, or a port of type veth";
    const CONTAINERS: &str = "use --for lxc, nspawn or netns, or a port of type vhost_user or tap (for = \"guest\")";
    match port.port_type {
        PortType::VhostUser if target.is_machine() => Ok(Plug::Socket {
            path: said(&port.socket, "socket")?,
            switch_listens: said(&port.role, "role")? == "server",
            queue_pairs: port.queue_pairs.unwrap_or(1),
        }),
        PortType::VhostUser => Err(unfit("a vhost_user socket", MACHINES)),
        PortType::Tap if port.role.as_deref() == Some("host") => {
            let interface = said(&port.device, "interface")?;
            let hint = format!(
                "give the host its address (ip addr add … dev {interface}), or set for = \"guest\" at the port"
            );
            Err(unfit("the host's own TAP interface", &hint))
        }
        PortType::Tap if port.role.as_deref() == Some("container") => match &port.netns {
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
