//! The outcomes of learning an address and of adding a static entry.

use crate::{Mac, PortId, Vid};

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
    /// No entry could fairly be evicted; not learned.
    Full,
}

impl Learned {
    /// True if the address is known on this port afterwards.
    pub fn is_here(self) -> bool {
        matches!(self, Learned::Known | Learned::Refreshed | Learned::New | Learned::Moved { .. })
    }
}

/// An address that was known at one port and was learned at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its VLAN.
    pub vid: Vid,
    /// The address.
    pub mac: Mac,
    /// The port it was on.
    pub from: PortId,
    /// The port it is on.
    pub to: PortId,
}

/// Moves since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// The first [`MAX_MOVES`] of them, in their order.
    pub first: Vec<Moved>,
    /// The number of all the others.
    pub further: u64,
}

/// The most moves that are kept one by one until they are taken.
pub const MAX_MOVES: usize = 64;

impl Moves {
    /// Notes one.
    pub(super) fn note(&mut self, moved: Moved) {
        if self.first.len() < MAX_MOVES { self.first.push(moved) } else { self.further += 1 }
    }
}

/// No room for a static entry: the table, or the few places of this key, hold nothing but static entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding database has no room for another static entry")]
pub struct FdbFull;
