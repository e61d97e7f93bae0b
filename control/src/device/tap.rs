//! The interface of a TAP port: made or found, prepared, and removed again.
//!
//! **For the host** the interface comes and goes with the switch's descriptors of it, so a killed run leaves none.
//!
//! **For a guest** it has to be there before and after the guest's program, which opens it as an unprivileged user: it
//! is made persistent and given an owner. An alias says that it is ours, so that the next run after a killed one takes
//! it over, and removes it in the end.
//!
//! An interface that was there before is used as it is, except for MTU and state, and stays.

use labsw_dataplane::tap::{TapPort, make_persistent};
use labsw_switch::Mac;

use super::links::{Link, Links};
use super::{DeviceError, alias_of};
use crate::derived_mac;

/// Two VLAN tags, bytes: an interface that is a guest's has to pass them beside the MTU.
const TAGS_BYTES: u32 = 8;

/// What a TAP port needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPlan {
    /// Name of the port.
    pub port: String,
    /// Name of the interface.
    pub interface: String,
    /// MTU, bytes.
    pub mtu: u32,
    /// Whose the other end is.
    pub other_end: TapUse,
}

/// Whose the other end is, and what only that has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapUse {
    /// The host's.
    Host {
        /// Number of queues.
        queues: u16,
        /// MAC address of the interface; `None`: derived from the port's name if the switch makes the interface.
        mac: Option<Mac>,
    },
    /// A guest's.
    Guest {
        /// User who may open it.
        owner: Option<u32>,
        /// Group that may open it.
        group: Option<u32>,
    },
}

/// An interface in use.
#[derive(Debug)]
pub struct TapLink {
    /// The interface, up.
    pub link: Link,
    /// The alias of one that is persistent and ours.
    alias: Option<String>,
}

impl TapPlan {
    fn vanished(&self) -> DeviceError {
        DeviceError::Answer { what: format!("open {}", self.interface), detail: "it is not there".to_owned() }
    }
}

impl TapLink {
    /// Opens the port; `found` is the interface if there is one. If anything fails, what this call made is removed
    /// again.
    pub fn open(links: &mut Links, plan: &TapPlan, found: Option<Link>) -> Result<(TapLink, TapPort), DeviceError> {
        match plan.other_end {
            TapUse::Host { queues, mac } => {
                let port = TapPort::for_host(&plan.interface, queues, found.is_none())?;
                let link = links.link_by_name(&plan.interface)?.ok_or_else(|| plan.vanished())?;
                let derived = found.is_none().then(|| derived_mac::of_station(&plan.port));
                if let Some(mac) = mac.or(derived).filter(|mac| link.mac != Some(*mac)) {
                    links.set_mac(link.index, mac)?;
                }
                links.set_mtu(link.index, plan.mtu)?;
                links.set_up(link.index)?;
                Ok((TapLink { link, alias: None }, port))
            }
            TapUse::Guest { owner, group } => {
                let alias = alias_of(&plan.port);
                let ours = |link: &Link| link.alias.as_ref() == Some(&alias);
                // That of a killed run, which nobody has open: made anew, as its owner may have changed.
                let found = match found {
                    Some(link) if ours(&link) && !link.carrier => {
                        links.delete_link(link.index)?;
                        None
                    }
                    found => found,
                };
                let (link, new) = match found {
                    Some(link) => (link, false),
                    None => {
                        make_persistent(&plan.interface, owner, group)?;
                        (links.link_by_name(&plan.interface)?.ok_or_else(|| plan.vanished())?, true)
                    }
                };
                let made = new || ours(&link);
                let opened = prepare_for_guest(links, plan, &link, made.then_some(&alias));
                if opened.is_err() && new {
                    // The first error is the one to report; deleting fails only if it has gone already.
                    let _ = links.delete_link(link.index);
                }
                Ok((TapLink { link, alias: made.then_some(alias) }, opened?))
            }
        }
    }

    /// Gives the interface the MTU of a port with this one.
    pub fn set_mtu(&self, links: &mut Links, for_guest: bool, mtu: u32) -> Result<(), DeviceError> {
        links.set_mtu(self.link.index, if for_guest { mtu + TAGS_BYTES } else { mtu })
    }

    /// Whether the interface goes with the port.
    pub fn is_ours(&self) -> bool {
        self.alias.is_some()
    }

    /// Removes the interface if it was made for the port. The port is closed.
    pub fn remove(self, links: &mut Links) -> Result<(), DeviceError> {
        match links.link_by_index(self.link.index)? {
            Some(link) if self.is_ours() && link.alias == self.alias => links.delete_link(link.index),
            _ => Ok(()),
        }
    }
}

fn prepare_for_guest(
    links: &mut Links,
    plan: &TapPlan,
    link: &Link,
    alias: Option<&String>,
) -> Result<TapPort, DeviceError> {
    // First the lock: an interface of a switch that runs is left alone.
    let port = TapPort::for_guest(&link.name, link.index)?;
    links.set_mtu(link.index, plan.mtu + TAGS_BYTES)?;
    if let Some(alias) = alias {
        links.set_alias(link.index, alias)?;
        // The port keeps the host off the interface; this does when the port is gone and the interface is not, killed.
        links.keep_host_silent(link)?;
    }
    links.set_up(link.index)?;
    Ok(port)
}
