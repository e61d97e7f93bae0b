//! The attachments of ports, one file for each type of port.
//!
//! There are two traits. An [`Attachable`] is the settings of one type under `[ports.NAME]`: it checks this machine
//! before anything is touched (`preflight`), and opens the port. An [`Attachment`] is the result of opening: the
//! guest's socket, the network device, the veth pair, the TAP interface. The table of types is that of the model
//! (`model/port/types.rs`); the rest of the daemon uses the traits.
//!
//! | file | type |
//! |---|---|
//! | `guest` | `vhost_user` |
//! | `nic` | `af_xdp` |
//! | `veth` | `veth` |
//! | `pair` | the pair of a `veth` port, and the ledger |
//! | `wired` | `veth` with `offloads` |
//! | `tap` | `tap` |
//! | `sockets` | the AF_XDP sockets that `nic` and `veth` have in common |
//! | `health` | whether what a device receives reaches its port |
//! | `tags` | what a port does whose device begins to take VLAN tags out |
//! | `attachment` | the two traits, and the values passed when a port is opened and closed |
//! | `news` | news of links and faults, and how an attachment answers them |
//! | `attached` | an attachment, or its absence |
//! | `absence` | stands in for an attachment that is not there |
//! | `error` | why a port can't be opened |
//!
//! **Invariants.** An attachment keeps the state of its device and updates it from news ([`Attachment::look`]); showing
//! a port makes no system call. If opening fails, nothing that was opened is left.

mod absence;
mod attached;
mod attachment;
mod error;
#[cfg(test)]
pub(super) mod fake;
mod guest;
mod health;
mod news;
mod nic;
mod pair;
mod sockets;
mod tags;
mod tap;
mod veth;
mod wired;

use crate::config::{PortKind, settings_of};

pub(super) use absence::Absence;
pub(super) use attached::Attached;
pub(super) use attachment::{Attachable, Attachment, Halves, Opened, OwnAccess, Site};
pub use error::OpenError;
pub(super) use error::{RETRY, make_parent};
pub(super) use news::{LinkMap, OnFault, Seen, Trouble};
pub(super) use sockets::Sockets;

/// The settings of a port's type.
pub(super) fn of(kind: &PortKind) -> &dyn Attachable {
    #[cfg(test)]
    if let Some(fake) = fake::stands_for(kind) {
        return fake;
    }
    settings_of!(kind, settings => settings)
}
