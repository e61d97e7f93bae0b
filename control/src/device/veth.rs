//! The pair of a veth port: one end stays with the switch, the other goes to the container.
//!
//! [`VethPair::prepare`] makes the pair, or takes over the one that a killed run left (same name, kind veth, the same
//! other end), and brings it into the state that the port needs:
//!
//! Both ends get their MAC addresses when they are made ([`crate::derived_mac`]), and the switch's end an alias that
//! names the port. A pair is known by index, kind and alias, never by an address, which any program may change.
//!
//! 1. the switch's end: the host's stack silent on it;
//! 2. the container's end: offloads off *before* the handover (they stay off across namespaces), MTU set, moved into
//!    its namespace under its name there, and set up. Without a namespace it stays down until a container takes it
//!    (LXC's `phys`): if it were up, the host itself would speak on the lab;
//! 3. the switch's end up.
//!
//! A pair with an XDP program on it belongs to a running switch and is left alone. On an error, everything that this
//! call made is deleted again.

use labsw_dataplane::xdp::attached_program;
use labsw_switch::Mac;

use super::ethtool;
use super::links::{Link, Links};
use super::netns::Netns;
use super::{DeviceError, alias_of};
use crate::derived_mac;

/// The parameters of a veth port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPlan {
    /// Name of the port.
    pub port: String,
    /// Name of the switch's end.
    pub interface: String,
    /// Name of the container's end, in the namespace of the switch.
    pub peer: String,
    /// Named namespace for the container's end.
    pub netns: Option<String>,
    /// Name of the container's end in its namespace.
    pub peer_name: Option<String>,
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// Queues each way, at both ends.
    pub queues: u32,
    /// The container's end keeps its offloads.
    pub offloads: bool,
    /// MAC address of the container's end; `None`: derived from the port's name.
    pub mac: Option<Mac>,
}

impl VethPlan {
    /// The final name of the container's end.
    fn final_name(&self) -> &str {
        self.peer_name.as_ref().filter(|_| self.netns.is_some()).unwrap_or(&self.peer)
    }

    /// The MAC address of the container's end.
    fn container_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| derived_mac::of_station(&self.port))
    }

    /// An error about this port, in one line. The caller names the port.
    fn error(&self, message: impl std::fmt::Display) -> DeviceError {
        DeviceError::Veth(message.to_string())
    }
}

/// A pair whose ends are prepared.
#[derive(Clone, Debug)]
pub struct VethPair {
    /// The switch's end, up.
    pub switch_end: Link,
    /// A killed run made the pair: sockets of that run may hold it as long as their frames are under way.
    pub taken_over: bool,
}

/// The place of the container's end of an existing pair.
enum Peer {
    /// In the namespace of the switch.
    Here(Link),
    /// In the namespace that the plan names.
    InNetns(Link),
    /// In a namespace that a container made.
    Taken,
}

impl VethPair {
    /// Makes or takes over the pair and prepares both ends. The error names the port.
    pub fn prepare(links: &mut Links, plan: &VethPlan) -> Result<VethPair, DeviceError> {
        VethPair::make_or_take_over(links, plan).map_err(|error| match error {
            DeviceError::Veth(_) => error,
            other => plan.error(other),
        })
    }

    fn make_or_take_over(links: &mut Links, plan: &VethPlan) -> Result<VethPair, DeviceError> {
        let netns = match &plan.netns {
            Some(name) => Some(Netns::open(name).map_err(|error| plan.error(format_args!("netns: {error}")))?),
            None => None,
        };
        if let Some(found) = links.link_by_name(&plan.interface)? {
            // A program goes with the run that attached it, so a pair with a program does not belong to a dead run.
            if let Some(program) = attached_program(found.index) {
                let used = format_args!("interface {} is in use (XDP program {program})", found.name);
                return Err(plan.error(format_args!("{used}; end the other switch, or name another interface")));
            }
            let peer = find_peer(links, plan, netns.as_ref(), &found)?;
            let switch_end = set_up_ends(links, plan, netns.as_ref(), &found, peer)?;
            return Ok(VethPair { switch_end, taken_over: true });
        }
        check_names_free(links, plan, netns.as_ref())?;
        let own = (plan.interface.as_str(), Some(derived_mac::of_switch_end(&plan.port)));
        let peer = (plan.peer.as_str(), Some(plan.container_mac()));
        let made = links.create_veth([own, peer], plan.mtu, plan.queues)?;
        let ready = find_peer(links, plan, netns.as_ref(), &made)
            .and_then(|peer| set_up_ends(links, plan, netns.as_ref(), &made, peer));
        if ready.is_err() {
            // The first error is the one to report; deleting fails only if the pair has gone already.
            let _ = links.delete_link(made.index);
        }
        Ok(VethPair { switch_end: ready?, taken_over: false })
    }

    /// Deletes the pair, if it is still the one that was prepared. The sockets on it must still be open: the kernel
    /// then takes the device from them (`xsk_notifier`). Closed sockets would hold the device until the container has
    /// freed the last frame that they sent.
    pub fn remove(&self, links: &mut Links) -> Result<(), DeviceError> {
        match links.link_by_index(self.switch_end.index)? {
            Some(link) if is_veth(&link) && link.alias == self.switch_end.alias => links.delete_link(link.index),
            _ => Ok(()),
        }
    }

    /// Gives both ends another MTU. If the container's end is in a namespace without a name, the container has to set
    /// its MTU.
    pub fn set_mtu(&self, links: &mut Links, plan: &VethPlan, mtu: u32) -> Result<(), DeviceError> {
        let Some(end) = links.link_by_index(self.switch_end.index)? else { return Ok(()) };
        links.set_mtu(end.index, mtu).map_err(|error| plan.error(error))?;
        let Some(peer) = end.lower else { return Ok(()) };
        let outcome = match &plan.netns {
            _ if !end.lower_is_elsewhere() => links.set_mtu(peer, mtu),
            Some(netns) => Netns::open(netns)?.run(|| {
                let mut links = Links::open()?;
                match links.link_by_index(peer)? {
                    Some(link) if is_veth(&link) && link.lower == Some(end.index) => links.set_mtu(peer, mtu),
                    _ => Ok(()),
                }
            }),
            None => {
                tracing::info!(port = plan.port, mtu, "the container's end keeps its MTU until it is set there");
                Ok(())
            }
        };
        outcome.map_err(|error| plan.error(error))
    }

    /// Prepares the container's end again after it came back from a container, which may have renamed it and switched
    /// its offloads on. The next container finds it in the same state as the last one did.
    pub fn peer_came_back(&self, links: &mut Links, plan: &VethPlan) -> Result<(), DeviceError> {
        let Some(end) = links.link_by_index(self.switch_end.index)? else { return Ok(()) };
        let Some(peer) = end.lower.filter(|_| !end.lower_is_elsewhere()) else { return Ok(()) };
        let Some(mut peer) = links.link_by_index(peer)? else { return Ok(()) };
        if peer.name != plan.peer && links.link_by_name(&plan.peer)?.is_none() {
            links.set_down(peer.index)?;
            links.rename(peer.index, &plan.peer)?;
            peer.name.clone_from(&plan.peer);
        }
        prepare_peer(links, &peer, plan)
    }
}

fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// The other end of the existing link `switch_end`, which must be a veth that fits the plan.
fn find_peer(
    links: &mut Links,
    plan: &VethPlan,
    netns: Option<&Netns>,
    switch_end: &Link,
) -> Result<Peer, DeviceError> {
    let name = &switch_end.name;
    let Some(peer_index) = switch_end.lower.filter(|_| is_veth(switch_end)) else {
        return Err(plan.error(format_args!("interface {name} exists and is no veth; name another for this port")));
    };
    if !switch_end.lower_is_elsewhere() {
        return match links.link_by_index(peer_index)? {
            Some(peer) if peer.name == plan.peer => Ok(Peer::Here(peer)),
            other => {
                let other = other.map_or_else(|| "nothing".to_owned(), |link| link.name);
                let wrong = format_args!("interface {name} exists, but its other end is {other} and not {}", plan.peer);
                Err(plan.error(format_args!("{wrong}; delete it (ip link del {name}) or name another")))
            }
        };
    }
    let Some(netns) = netns else {
        return Ok(Peer::Taken);
    };
    match netns.run(|| Links::open()?.link_by_name(plan.final_name()))? {
        Some(peer) if is_veth(&peer) && peer.lower == Some(switch_end.index) && peer.index == peer_index => {
            Ok(Peer::InNetns(peer))
        }
        _ => {
            let where_to = format!("{} in netns {}", plan.final_name(), netns.name());
            let wrong = format_args!("interface {name} exists, but its other end is not {where_to}");
            Err(plan.error(format_args!("{wrong}; delete it (ip link del {name}) or name another")))
        }
    }
}

/// Checks that the names of the plan are free.
fn check_names_free(links: &mut Links, plan: &VethPlan, netns: Option<&Netns>) -> Result<(), DeviceError> {
    if links.link_by_name(&plan.peer)?.is_some() {
        return Err(plan.error(format_args!("peer: interface {} exists already; name another", plan.peer)));
    }
    let Some(netns) = netns else {
        return Ok(());
    };
    let name = plan.final_name();
    if netns.run(|| Links::open()?.link_by_name(name))?.is_some() {
        let key = if plan.peer_name.is_some() { "peer_name" } else { "peer" };
        let wrong = format_args!("{key}: netns {} has an interface {name} already; name another", netns.name());
        return Err(plan.error(wrong));
    }
    Ok(())
}

/// Prepares both ends; returns the switch's end in its new state.
fn set_up_ends(
    links: &mut Links,
    plan: &VethPlan,
    netns: Option<&Netns>,
    switch_end: &Link,
    peer: Peer,
) -> Result<Link, DeviceError> {
    let own_end = |links: &mut Links| {
        let link = links.link_by_index(switch_end.index)?;
        link.ok_or_else(|| plan.error(format_args!("interface {} vanished", plan.interface)))
    };
    links.set_alias(switch_end.index, &alias_of(&plan.port))?;
    links.set_mtu(switch_end.index, plan.mtu)?;
    let resized = own_end(links)?;
    links.keep_host_silent(&resized)?;
    match (peer, netns) {
        (Peer::Here(peer), None) => prepare_peer(links, &peer, plan)?,
        (Peer::Here(peer), Some(netns)) => {
            prepare_peer(links, &peer, plan)?;
            links.move_to_netns(peer.index, netns, plan.final_name())?;
            netns.run(|| {
                let mut links = Links::open()?;
                match links.link_by_name(plan.final_name())? {
                    Some(peer) => links.set_up(peer.index),
                    None => Err(plan.error(format_args!("{} vanished from its netns", plan.final_name()))),
                }
            })?;
        }
        (Peer::InNetns(peer), Some(netns)) => netns.run(|| {
            let mut links = Links::open()?;
            send_finished(&mut links, &peer, plan)?;
            // An address that the container set stays, unless the configuration names another.
            set_mac(&mut links, &peer, plan.mac)?;
            links.set_up(peer.index)
        })?,
        (Peer::InNetns(_), None) | (Peer::Taken, _) => {}
    }
    links.set_up(switch_end.index)?;
    own_end(links)
}

/// Gives the container's end the state that a container expects: finished frames, the port's MTU and address.
fn prepare_peer(links: &mut Links, peer: &Link, plan: &VethPlan) -> Result<(), DeviceError> {
    send_finished(links, peer, plan)?;
    set_mac(links, peer, Some(plan.container_mac()))
}

/// Makes the container's end send frames of at most the port's MTU, and finished ones unless it keeps its offloads.
fn send_finished(links: &mut Links, peer: &Link, plan: &VethPlan) -> Result<(), DeviceError> {
    if !plan.offloads {
        ethtool::switch_off(&peer.name, &ethtool::CONTAINER_END)?;
    }
    links.set_mtu(peer.index, plan.mtu)
}

fn set_mac(links: &mut Links, peer: &Link, mac: Option<Mac>) -> Result<(), DeviceError> {
    match mac.filter(|mac| peer.mac != Some(*mac)) {
        Some(mac) => links.set_mac(peer.index, mac),
        None => Ok(()),
    }
}
