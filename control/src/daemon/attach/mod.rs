//! What ports are attached to, one file per type of port.
//!
//! Two traits. A [`PortType`] is the settings of a type under `[ports.NAME]`: looked at on this machine before anything
//! is touched (`preflight`), and opened. An [`Attachment`] is what opening gives: the guest's socket, the network
//! device, the pair, the interface. [`of`] is the one place that knows which types there are; everything else in the
//! daemon asks through the traits.
//!
//! | file | type |
//! |---|---|
//! | `guest` | `vhost_user` |
//! | `nic` | `af_xdp` |
//! | `veth` | `veth` |
//! | `tap` | `tap` |
//! | `sockets` | the AF_XDP sockets that `nic` and `veth` have in common |
//! | `attachment` | the traits, and what is opened and closed |
//! | `news` | news of links and faults, and what an attachment says to it |
//! | `attached` | an attachment, or its absence |
//! | `absence` | what stands in place of an attachment that is not there |
//! | `error` | why a port can't be opened |
//!
//! **Invariants.** An attachment keeps what is known of its device and renews that from news ([`Attachment::look`]);
//! showing it asks nobody. On an error of opening nothing is left of it.

mod absence;
mod attached;
mod attachment;
mod error;
#[cfg(test)]
pub(super) mod fake;
mod guest;
mod news;
mod nic;
mod sockets;
mod tap;
mod veth;

use crate::config::PortKind;

pub(super) use absence::{Absence, RETRY};
pub(super) use attached::Attached;
pub(super) use attachment::{Attachment, Halves, Opened, OwnAccess, PortType, Site};
pub use error::OpenError;
pub(super) use error::make_parent;
pub(super) use news::{LinkMap, OnFault, Seen};
pub(super) use sockets::Sockets;

/// The type that a port's settings are of.
pub(super) fn of(kind: &PortKind) -> &dyn PortType {
    #[cfg(test)]
    if let Some(fake) = fake::stands_for(kind) {
        return fake;
    }
    match kind {
        PortKind::VhostUser(settings) => settings,
        PortKind::AfXdp(settings) => settings,
        PortKind::Veth(settings) => settings,
        PortKind::Tap(settings) => settings,
    }
}
