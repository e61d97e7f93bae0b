//! News that reaches an attachment: links have changed, a worker met a fault.

use std::collections::{BTreeMap, BTreeSet};

use labsw_switch::Mac;

use super::error::OpenError;
use super::tags::Asked;
use crate::api::PortState;
use crate::daemon::host::HostWork;
use crate::device::Link;

/// The links of the switch's namespace.
#[derive(Debug)]
pub(in crate::daemon) struct LinkMap {
    by_index: BTreeMap<u32, Link>,
    /// Links of attachments that do not exist any more.
    gone: BTreeSet<u32>,
}

impl LinkMap {
    /// These links, from a list, which may lack a link that exists.
    pub(in crate::daemon) fn new(links: Vec<Link>) -> LinkMap {
        LinkMap { by_index: links.into_iter().map(|link| (link.index, link)).collect(), gone: BTreeSet::new() }
    }

    /// The same links, with those that were asked for one by one and have gone.
    pub(in crate::daemon) fn with_gone(self, gone: BTreeSet<u32>) -> LinkMap {
        LinkMap { gone, ..self }
    }

    /// The link with this index.
    pub(in crate::daemon) fn get(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
    }

    /// All links.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values()
    }

    /// True if a link of an attachment does not exist any more.
    pub(super) fn has_gone(&self, index: u32) -> bool {
        self.gone.contains(&index)
    }
}

/// The state of one attachment's device after links have changed.
pub(in crate::daemon) enum Seen {
    /// The device is there.
    Here,
    /// The device has gone.
    Gone,
    /// The container's end has come back, and is to be prepared again.
    Back(HostWork<Result<(), OpenError>>),
}

/// The answers to questions about a device beside the list of links.
#[derive(Default)]
pub(in crate::daemon) struct Findings {
    /// Its VLAN tags, if they were asked about.
    pub(super) tags: Option<Asked>,
    /// The address of the container's end, see [`super::attachment::Attachment::station`].
    pub(super) station: Option<Mac>,
}

/// The counts of a device, once a second.
pub(in crate::daemon) struct Measured {
    /// Active receive queues, if the driver tells.
    pub(super) queues: Option<u32>,
    /// Frames received, by the driver's count.
    pub(super) received: Option<u64>,
}

/// Why a device does not serve its port.
pub(in crate::daemon) enum Trouble {
    /// It has to be opened again.
    Lost(String),
    /// It does not go on with busy polling.
    BusyPolling(String),
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
