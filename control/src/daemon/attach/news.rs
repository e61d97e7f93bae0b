//! News that reaches an attachment: links have changed, a worker met a fault.

use std::collections::BTreeMap;

use crate::device::Link;

/// The links of the switch's namespace, by index.
pub(in crate::daemon) type LinkMap = BTreeMap<u32, Link>;

/// The state of one attachment's device after links have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Seen {
    /// The device is there.
    Here,
    /// The device has gone.
    Gone,
}

/// How an attachment answers a fault that a worker met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum OnFault {
    /// The fault belongs to a former connection, or is known already.
    Old,
    /// The attachment goes on: it has ended the connection and waits for the next one.
    GoesOn,
    /// The attachment can't go on.
    Lost,
}
