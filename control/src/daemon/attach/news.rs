//! News that reaches an attachment: links have changed, a worker met a fault.

use std::collections::BTreeMap;

use crate::api::PortState;
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

/// The state of a port whose device is `link`, or was: `gone`. With the reason if it is not up.
pub(super) fn state_of(link: &Link, gone: bool) -> (PortState, Option<String>) {
    let Link { name, up, carrier, .. } = link;
    match (gone, up, carrier) {
        (true, ..) => (PortState::Waiting, Some(format!("{name} was removed"))),
        (_, false, _) => (PortState::Down, Some(format!("{name} is set down"))),
        (_, _, false) => (PortState::Down, Some(format!("{name} has no carrier: its other end is down"))),
        _ => (PortState::Up, None),
    }
}
