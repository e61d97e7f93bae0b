//! TAP ports in the switch: looked at, opened, shown.
//!
//! A TAP interface comes and goes as other devices do ([`super::devices`]). What is particular: an interface that the switch
//! makes is made again at once, one that somebody else made is waited for; and an interface of a guest outlives a fault of
//! the port, since the guest's program has it open.

use labsw_dataplane::handle::Homes;
use labsw_dataplane::port::RxQueue;
use labsw_dataplane::tap::TapPort;

use super::Switch;
use super::accounts::{group_id, user_id};
use super::open::{Attachment, OpenError, Opened};
use super::placement::Queues;
use crate::api::PortState;
use crate::config::{PortConfig, PortKind, SwitchConfig, TapConfig, TapEnd};
use crate::device::{DeviceError, Link, Links, TapLink, TapPlan, TapUse};

/// A TAP interface in use.
pub(super) struct Tap {
    /// The number by which faults of the port are known.
    pub(super) connection: u64,
    /// Number of receive queues.
    pub(super) queues: usize,
    other_end: TapEnd,
    tap: TapLink,
    /// It was there before the port: whoever made it is waited for.
    found: bool,
}

impl Tap {
    /// Name of the interface.
    pub(super) fn name(&self) -> &str {
        &self.tap.link.name
    }

    /// Gives the interface the MTU of a port with this one.
    pub(super) fn set_mtu(&self, links: &mut Links, mtu: u32) -> Result<(), DeviceError> {
        self.tap.set_mtu(links, self.other_end == TapEnd::Guest, mtu)
    }

    /// Removes what was made. All halves of the port are closed.
    pub(super) fn close(self, links: &mut Links) -> Result<(), DeviceError> {
        self.tap.remove(links)
    }

    /// The index of the interface.
    pub(super) fn index(&self) -> u32 {
        self.tap.link.index
    }

    /// Notes what the interface is called.
    pub(super) fn renamed(&mut self, name: &str) {
        name.clone_into(&mut self.tap.link.name);
    }

    /// As [`super::ports::Port::state`].
    pub(super) fn state(&self, links: &mut Links) -> (PortState, Option<String>) {
        let name = self.name();
        match links.link_by_index(self.index()) {
            Err(error) => (PortState::Failed, Some(error.to_string())),
            Ok(None) => (PortState::Waiting, Some(format!("{name} was removed"))),
            Ok(Some(link)) if !link.up => (PortState::Down, Some(format!("{name} is set down"))),
            Ok(Some(link)) if self.other_end == TapEnd::Guest && !link.carrier => {
                (PortState::Down, Some(format!("{name} has no carrier: no program has opened it")))
            }
            Ok(Some(_)) => (PortState::Up, None),
        }
    }

    /// Looks whether the interface can be opened again: one that was not ours to make has to be there.
    pub(super) fn check_back(&self, config: &PortConfig, links: &mut Links) -> Result<(), OpenError> {
        let PortKind::Tap(TapConfig { interface, .. }) = &config.kind else { return Ok(()) };
        match self.found && links.link_by_name(interface)?.is_none() {
            true => Err(OpenError::Removed(interface.clone())),
            false => Ok(()),
        }
    }
}

/// As [`super::open::preflight`].
pub(super) fn preflight(
    port: &PortConfig,
    switch: &SwitchConfig,
    links: &mut Links,
) -> Result<(), (&'static str, OpenError)> {
    let PortKind::Tap(TapConfig { interface, other_end, owner, group, .. }) = &port.kind else { return Ok(()) };
    existing(interface, *other_end, switch, links).map_err(|error| ("interface", error))?;
    owner.as_deref().map(user_id).transpose().map_err(|error| ("owner", error.into()))?;
    group.as_deref().map(group_id).transpose().map_err(|error| ("group", error.into()))?;
    Ok(())
}

/// The interface called `name`, if it is there; it must be a TAP interface and not a protected one.
fn existing(
    name: &str,
    other_end: TapEnd,
    switch: &SwitchConfig,
    links: &mut Links,
) -> Result<Option<Link>, OpenError> {
    let Some(link) = links.link_by_name(name)? else { return Ok(None) };
    match links.protection(&link, &switch.protected_interfaces)? {
        Some(reason) => Err(OpenError::Protected(reason)),
        None if link.kind.as_deref() != Some("tun") => Err(OpenError::NotATap(link.name)),
        // What a guest sends is kept from the host, so also from a bridge of the host.
        None if other_end == TapEnd::Guest && link.controller.is_some() => Err(OpenError::Bridged(link.name)),
        None => Ok(Some(link)),
    }
}

impl Switch {
    /// Opens the interface of a TAP port. On an error nothing is left of it.
    pub(super) fn open_tap(&mut self, config: &PortConfig) -> Result<Opened, OpenError> {
        let PortKind::Tap(TapConfig { interface, other_end, queues, mac, owner, group }) = &config.kind else {
            return Err(OpenError::NotATap(config.name.clone()));
        };
        let plan = TapPlan {
            port: config.name.clone(),
            interface: interface.clone(),
            mtu: config.mtu,
            other_end: match other_end {
                TapEnd::Host => TapUse::Host { queues: *queues, mac: *mac },
                TapEnd::Guest => TapUse::Guest {
                    owner: owner.as_deref().map(user_id).transpose()?,
                    group: group.as_deref().map(group_id).transpose()?,
                },
            },
        };
        let found = existing(interface, *other_end, &self.config, &mut self.links)?;
        let was_there = found.is_some();
        let (tap, port) = TapLink::open(&mut self.links, &plan, found)?;
        let connection = port.connection();
        let TapPort { tx, rx } = port;
        let homes = Homes::new(rx.iter().map(|_| 0));
        let rx: Vec<Box<dyn RxQueue>> = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
        let found = was_there && !tap.is_ours();
        let tap = Tap { connection, queues: rx.len(), other_end: *other_end, tap, found };
        Ok(Opened { attachment: Attachment::Tap(Box::new(tap)), tx: Some(tx), queues: Queues::new(rx, homes) })
    }
}
