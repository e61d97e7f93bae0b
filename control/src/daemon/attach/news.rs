//! News that reaches an attachment: links have changed, a worker met a fault.

use std::collections::BTreeMap;

use crate::device::Link;

/// The links of the switch's namespace, by index.
pub(in crate::daemon) type LinkMap = BTreeMap<u32, Link>;

/// What the looks at links found of one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Seen {
    /// It is there.
    Here,
    /// Its device has gone.
    Gone,
}

/// What an attachment says to a fault that a worker met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum OnFault {
    /// The fault is of a former connection, or known already.
    Old,
    /// The attachment goes on: its connection was ended, and the next one is waited for.
    GoesOn,
    /// The attachment does not go on.
    Lost,
}
