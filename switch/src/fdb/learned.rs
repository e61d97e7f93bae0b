//! The outcomes of learning an address and of adding a static entry.

use crate::PortId;

/// The outcome of learning a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Known on this port; nothing was written.
    Known,
    /// Known on this port; its time stamp is new.
    Refreshed,
    /// A new entry.
    New,
    /// Known on another port until now.
    Moved {
        /// The port it was on.
        from: PortId,
    },
    /// A static entry says that it is on another port; not learned.
    Static,
    /// A group address; not learned.
    Group,
    /// A sticky port has it; not learned.
    Sticky,
    /// The port holds as many entries as [`Fdb::set_port_limit`](super::Fdb::set_port_limit) allows; not learned.
    PortLimit,
    /// No entry could fairly make room; not learned.
    Full,
}

impl Learned {
    /// True if the address is known on this port afterwards.
    pub fn is_here(self) -> bool {
        matches!(self, Learned::Known | Learned::Refreshed | Learned::New | Learned::Moved { .. })
    }
}

/// No room for a static entry: the table, or the few places of this key, hold nothing but static entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding database has no room for another static entry")]
pub struct FdbFull;
