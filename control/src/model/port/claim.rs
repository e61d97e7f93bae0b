//! Things that only one port can have: a device, an interface, a socket.

use std::fmt;
use std::path::PathBuf;

use crate::model::device::DeviceSpec;

/// A thing that only one port can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A network device of the host.
    Device(DeviceSpec),
    /// A network interface that the port makes, or takes.
    Interface {
        /// Its name.
        name: String,
        /// Its network namespace; `None`: the switch's.
        netns: Option<String>,
    },
    /// A socket's file.
    Socket(PathBuf),
}

impl Claim {
    /// An interface in the network namespace of the switch.
    pub(super) fn here(name: &str) -> Claim {
        Claim::Interface { name: name.to_owned(), netns: None }
    }

    /// The name of an interface in the network namespace of the switch.
    pub(crate) fn interface(&self) -> Option<&String> {
        match self {
            Claim::Device(DeviceSpec::Name(name)) | Claim::Interface { name, netns: None } => Some(name),
            _ => None,
        }
    }

    /// True if both are the same thing, as far as their names tell.
    pub(crate) fn is(&self, other: &Claim) -> bool {
        let same_name = self.interface().is_some_and(|name| other.interface() == Some(name));
        self == other || same_name
    }

    /// True if both are the same thing, or may be the same device under names of two kinds.
    pub(crate) fn may_be(&self, other: &Claim) -> bool {
        match (self, other) {
            (Claim::Device(one), Claim::Device(two)) => {
                one == two || std::mem::discriminant(one) != std::mem::discriminant(two)
            }
            _ => self.is(other),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Device(DeviceSpec::Name(name)) | Claim::Interface { name, netns: None } => {
                write!(out, "interface {name}")
            }
            Claim::Device(device) => write!(out, "device {device}"),
            Claim::Interface { name, netns: Some(netns) } => write!(out, "interface {name} in netns {netns}"),
            Claim::Socket(path) => write!(out, "socket {}", path.display()),
        }
    }
}
