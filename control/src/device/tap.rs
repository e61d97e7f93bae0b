//! The interface of a TAP port: makes or finds it, prepares it, and removes it again.
//!
//! **For the host.** The interface comes and goes with the switch's descriptors, so a killed run leaves none.
//!
//! **For a container.** The same, except that the interface moves: into the namespace that the plan names, or, without
//! one, into the namespace of the program that takes it (LXC's `phys`). Until then the interface is down, so the host
//! is silent on it. The switch's descriptors keep working wherever the interface is, and lose it when its namespace
//! ends.
//!
//! **For a guest.** The interface has to exist before and after the guest's hypervisor, which opens it as an
//! unprivileged user. It is therefore persistent and has an owner. An alias marks it as the switch's, so that the next
//! run after a killed one takes it over, and removes it in the end.
//!
//! An interface that existed before is used as it is, except for MTU and state, and stays.

use labsw_dataplane::tap::{TapPort, make_persistent};
use labsw_switch::Mac;

use super::links::{Link, Links};
use super::netns::Netns;
use super::{DeviceError, alias_of};
use crate::derived_mac;

/// Two VLAN tags, in bytes: an interface for a guest has to pass them beside the MTU.
const TAGS_BYTES: u32 = 8;

/// The parameters of a TAP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapPlan {
    /// Name of the port.
    pub port: String,
    /// Name of the interface.
    pub interface: String,
    /// MTU, bytes.
    pub mtu: u32,
    /// The user of the other end.
    pub other_end: TapUse,
}

/// The user of the other end, with the parameters of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapUse {
    /// The host.
    Host {
        /// Number of queues.
        queues: u16,
        /// MAC address of the interface; `None`: derived from the port's name if the switch makes the interface.
        mac: Option<Mac>,
    },
    /// A container.
    Container {
        /// Number of queues.
        queues: u16,
        /// MAC address of the interface; `None`: derived from the port's name.
        mac: Option<Mac>,
        /// Named namespace for the interface.
        netns: Option<String>,
        /// Name of the interface in that namespace; `None`: the name it was made with.
        peer_name: Option<String>,
    },
    /// A guest's hypervisor.
    Guest {
        /// User who may open the interface.
        owner: Option<u32>,
        /// Group that may open the interface.
        group: Option<u32>,
    },
}

/// An interface in use.
#[derive(Clone, Debug)]
pub struct TapLink {
    /// The interface, up.
    pub link: Link,
    /// The alias of an interface that is persistent and the switch's.
    alias: Option<String>,
}

impl TapPlan {
    /// The final name of the interface.
    fn final_name(&self) -> &str {
        match &self.other_end {
            TapUse::Container { netns: Some(_), peer_name: Some(name), .. } => name,
            _ => &self.interface,
        }
    }

    fn vanished(&self) -> DeviceError {
        DeviceError::Answer { what: format!("open {}", self.interface), detail: "it is not there".to_owned() }
    }
}

impl TapLink {
    /// Opens the port; `found` is the existing interface, if there is one. On an error, everything that this call made
    /// is removed again.
    pub fn open(links: &mut Links, plan: &TapPlan, found: Option<Link>) -> Result<(TapLink, TapPort), DeviceError> {
        match &plan.other_end {
            TapUse::Host { queues, mac } => open_for_host(links, plan, found, *queues, *mac),
            TapUse::Container { .. } => open_for_container(links, plan, found),
            TapUse::Guest { owner, group } => open_for_guest(links, plan, found, *owner, *group),
        }
    }

    /// The interface of a port in another process, which still has it; `ours` is true if that process made it
    /// persistent.
    pub fn adopt(link: Link, port: &str, ours: bool) -> TapLink {
        TapLink { link, alias: ours.then(|| alias_of(port)) }
    }

    /// Gives the interface the MTU for a port with this one. In a namespace without a name, the container sets the MTU.
    pub fn set_mtu(&self, links: &mut Links, plan: &TapPlan, mtu: u32) -> Result<(), DeviceError> {
        match &plan.other_end {
            TapUse::Guest { .. } => links.set_mtu(self.link.index, mtu + TAGS_BYTES),
            TapUse::Container { netns: Some(netns), .. } => {
                within(netns, plan, |links, link| links.set_mtu(link.index, mtu))
            }
            TapUse::Container { netns: None, .. } if links.link_by_index(self.link.index)?.is_none() => Ok(()),
            TapUse::Host { .. } | TapUse::Container { .. } => links.set_mtu(self.link.index, mtu),
        }
    }

    /// Prepares the interface again after it came back from a container, which may have renamed it and set it up.
    pub fn came_back(&self, links: &mut Links, plan: &TapPlan) -> Result<(), DeviceError> {
        let TapUse::Container { mac, netns: None, .. } = &plan.other_end else { return Ok(()) };
        let Some(link) = links.link_by_index(self.link.index)? else { return Ok(()) };
        links.set_down(link.index)?;
        if link.name != plan.interface {
            links.rename(link.index, &plan.interface)?;
        }
        prepare_for_container(links, plan, &link, *mac)
    }

    /// True if the interface is removed with the port.
    pub fn is_ours(&self) -> bool {
        self.alias.is_some()
    }

    /// Removes the interface if it was made for the port. The port is closed already.
    pub fn remove(self, links: &mut Links) -> Result<(), DeviceError> {
        match links.link_by_index(self.link.index)? {
            Some(link) if self.is_ours() && link.alias == self.alias => links.delete_link(link.index),
            _ => Ok(()),
        }
    }
}

/// Opens a port for the host.
fn open_for_host(
    links: &mut Links,
    plan: &TapPlan,
    found: Option<Link>,
    queues: u16,
    mac: Option<Mac>,
) -> Result<(TapLink, TapPort), DeviceError> {
    let port = TapPort::for_host(&plan.interface, queues, found.is_none())?;
    let link = links.link_by_name(&plan.interface)?.ok_or_else(|| plan.vanished())?;
    let derived = found.is_none().then(|| derived_mac::of_station(&plan.port));
    set_mac(links, &link, mac.or(derived))?;
    links.set_mtu(link.index, plan.mtu)?;
    links.set_up(link.index)?;
    Ok((TapLink { link, alias: None }, port))
}

/// Opens a port for a container, and moves its interface if the plan names a namespace.
fn open_for_container(
    links: &mut Links,
    plan: &TapPlan,
    found: Option<Link>,
) -> Result<(TapLink, TapPort), DeviceError> {
    let TapUse::Container { queues, mac, netns, .. } = &plan.other_end else { return Err(plan.vanished()) };
    let netns = netns.as_deref().map(Netns::open).transpose()?;
    if let Some(netns) = &netns
        && netns.run(|| Links::open()?.link_by_name(plan.final_name()))?.is_some()
    {
        let detail = format!("netns {} has an interface of that name already", netns.name());
        return Err(DeviceError::Answer { what: format!("name the interface {}", plan.final_name()), detail });
    }
    let port = TapPort::for_host(&plan.interface, *queues, found.is_none())?;
    let link = links.link_by_name(&plan.interface)?.ok_or_else(|| plan.vanished())?;
    prepare_for_container(links, plan, &link, *mac)?;
    if let Some(netns) = &netns {
        links.move_to_netns(link.index, netns, plan.final_name())?;
        within(netns.name(), plan, |links, link| links.set_up(link.index))?;
    }
    Ok((TapLink { link, alias: None }, port))
}

/// Gives the interface the MTU and address that a container expects. The interface is down, so the host does not speak
/// on it.
fn prepare_for_container(links: &mut Links, plan: &TapPlan, link: &Link, mac: Option<Mac>) -> Result<(), DeviceError> {
    set_mac(links, link, Some(mac.unwrap_or_else(|| derived_mac::of_station(&plan.port))))?;
    links.set_mtu(link.index, plan.mtu)
}

/// Runs `work` on the interface in its namespace.
fn within(
    netns: &str,
    plan: &TapPlan,
    work: impl FnOnce(&mut Links, &Link) -> Result<(), DeviceError> + Send,
) -> Result<(), DeviceError> {
    Netns::open(netns)?.run(|| {
        let mut links = Links::open()?;
        let link = links.link_by_name(plan.final_name())?.ok_or_else(|| plan.vanished())?;
        work(&mut links, &link)
    })
}

fn set_mac(links: &mut Links, link: &Link, mac: Option<Mac>) -> Result<(), DeviceError> {
    match mac.filter(|mac| link.mac != Some(*mac)) {
        Some(mac) => links.set_mac(link.index, mac),
        None => Ok(()),
    }
}

/// Opens a port for a guest's hypervisor, which finds the interface made and owned by its user.
fn open_for_guest(
    links: &mut Links,
    plan: &TapPlan,
    found: Option<Link>,
    owner: Option<u32>,
    group: Option<u32>,
) -> Result<(TapLink, TapPort), DeviceError> {
    let alias = alias_of(&plan.port);
    let ours = |link: &Link| link.alias.as_ref() == Some(&alias);
    // The interface that a killed run left and that no program has open is remade, as its owner may have changed.
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
        // The first error is the one to report; deleting fails only if the interface has gone already.
        let _ = links.delete_link(link.index);
    }
    Ok((TapLink { link, alias: made.then_some(alias) }, opened?))
}

fn prepare_for_guest(
    links: &mut Links,
    plan: &TapPlan,
    link: &Link,
    alias: Option<&String>,
) -> Result<TapPort, DeviceError> {
    // The lock comes first: the interface of a running switch is left alone.
    let port = TapPort::for_guest(&link.name, link.index)?;
    links.set_mtu(link.index, plan.mtu + TAGS_BYTES)?;
    if let Some(alias) = alias {
        links.set_alias(link.index, alias)?;
        // The port keeps the host off the interface; this call does so after a kill, when the port is gone and the
        // interface is not.
        links.keep_host_silent(link)?;
    }
    links.set_up(link.index)?;
    Ok(port)
}
