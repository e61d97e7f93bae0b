//! Network devices: finds them, makes and removes veth pairs, prepares both ends.
//!
//! Everything is synchronous and happens in the network namespace of the calling thread; [`Netns::run`] runs a closure
//! with the sockets of another one. Only the ledger keeps state; everything else asks the kernel each time.
//!
//! | file | content | reference |
//! |---|---|---|
//! | `netlink` | one request, one answer | netlink(7), rtnetlink(7) |
//! | `links` | links: look up, make, change, delete | linux/if_link.h |
//! | `removal` | deletes links without waiting for processes that hold them | |
//! | `select` | the link of a port, and links that are never opened | |
//! | `events` | news that links have changed | rtnetlink(7) |
//! | `ethtool` | offloads and channels, by ioctl, read back | linux/ethtool.h |
//! | `offload_news` | gates shut when a device takes tags out | kernel ethtool-netlink.rst |
//! | `prepare` | a device made ready for AF_XDP | |
//! | `ledger` | changes to be undone, also after a kill | |
//! | `promiscuous` | promiscuous mode that ends with its holder | packet(7) |
//! | `deferral` | the settings that defer a device's interrupts | kernel napi.rst |
//! | `napi` | defers the interrupts of a device under busy polling | kernel napi.rst |
//! | `netns` | named namespaces | ip-netns(8), setns(2) |
//! | `tap` | the interface of a TAP port, made, taken over and removed | kernel tuntap.rst |
//! | `veth` | the pair of a veth port, made, reused and removed | veth(4) |
//!
//! Unsafe code is confined to `ethtool`, `promiscuous` and `netlink`, one call each.

#![deny(unsafe_code)]

mod deferral;
pub mod ethtool;
mod events;
mod ledger;
mod links;
mod napi;
pub(crate) mod netlink;
mod netns;
mod offload_news;
pub mod prepare;
mod promiscuous;
mod removal;
mod select;
mod tap;
mod veth;

#[cfg(test)]
mod tests;

use std::io;

pub use deferral::Deferral;
pub use events::LinkEvents;
pub use ledger::{Before, Ledger};
pub use links::{Link, Links};
pub use napi::defer_interrupts;
pub use netns::{Netns, in_netns};
pub use offload_news::{OffloadNews, Watched};
pub use promiscuous::Promiscuous;
pub use tap::{TapLink, TapPlan, TapUse};
pub use veth::{VethPair, VethPlan};

/// Why a device could not be found, made or changed. One line, naming the device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel refused a request.
    #[error("{what}: {source}")]
    Refused {
        /// The request, with the name of the device.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("{what}: the kernel's answer is not understood: {detail}")]
    Answer {
        /// The request.
        what: String,
        /// The mistake in the answer.
        detail: String,
    },
    /// There is no such network namespace.
    #[error("there is no network namespace {0:?} in /run/netns; make it first (ip netns add {0})")]
    NoNetns(String),
    /// Several devices match.
    #[error("{spec} fits several interfaces: {names}; name the one that is meant (name:…)")]
    Ambiguous {
        /// The device as configured.
        spec: String,
        /// The names of the devices that match.
        names: String,
    },
    /// An offload was switched off and is still on.
    #[error("{device}: {features} can't be switched off; {consequence}")]
    OffloadStuck {
        /// The device.
        device: String,
        /// The kernel's names of the offloads, comma separated.
        features: String,
        /// Where that leads.
        consequence: &'static str,
    },
    /// A link is being deleted, and the kernel has not released it yet.
    #[error("interface {index} is still being removed: something holds it, for example a container that keeps frames")]
    Held {
        /// Index of the link.
        index: u32,
    },
    /// A TAP interface can't be opened.
    #[error(transparent)]
    Tap(#[from] labsw_dataplane::tap::TapError),
    /// The device does not take an MTU this large.
    #[error("mtu {mtu}: {device} takes at most {max}; lower the port's mtu, or use another device")]
    Mtu {
        /// The device.
        device: String,
        /// The port's MTU, bytes.
        mtu: u32,
        /// The device's limit, bytes.
        max: u32,
    },
    /// The device does not have this many queues.
    #[error("{device}: {wanted} queues wanted, but {detail}")]
    Channels {
        /// The device.
        device: String,
        /// Receive queues asked for.
        wanted: u32,
        /// The reason.
        detail: String,
    },
    /// The interfaces of a veth port do not fit the port.
    #[error("{0}")]
    Veth(String),
}

/// The alias of links that were made for a port (`IFLA_IFALIAS`). A link is the switch's if its index, kind and alias
/// fit.
fn alias_of(port: &str) -> String {
    format!("labsw port {port}")
}

impl DeviceError {
    /// The error for a refusal of the kernel; `what` is the request.
    fn refused(what: impl Into<String>, error: impl Into<io::Error>) -> DeviceError {
        DeviceError::Refused { what: what.into(), source: error.into() }
    }
}
