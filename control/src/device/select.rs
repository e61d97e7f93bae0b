//! Selects the link of a port, and protects links that must never be opened.
//!
//! Protected are the interfaces that the configuration lists (by any of their names), the loopback device, interfaces
//! with a default route, and all interfaces beneath those: the ports of a protected bridge or bond, the lower device of
//! a protected VLAN. Opening any of these would cut the host off.

use std::path::Path;

use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::DeviceError;
use super::links::{Link, Links};
use crate::config::DeviceSpec;

/// Table of the host's own addresses (`RT_TABLE_LOCAL` of rtnetlink(7)).
const TABLE_LOCAL: u32 = 255;

impl Links {
    /// The link that `spec` names, if it exists. A MAC address means the permanent address of a device; if no device
    /// has it, the current one.
    pub fn resolve(&mut self, spec: &DeviceSpec) -> Result<Option<Link>, DeviceError> {
        let links = match spec {
            DeviceSpec::Name(name) => return self.link_by_name(name),
            DeviceSpec::Mac(_) | DeviceSpec::Pci(_) => self.list()?,
        };
        let fitting = |fits: &dyn Fn(&&Link) -> bool| links.iter().filter(fits).collect::<Vec<_>>();
        let mut found = match spec {
            DeviceSpec::Pci(address) => fitting(&|link| link.pci_address.as_ref() == Some(address)),
            DeviceSpec::Mac(mac) => fitting(&|link| link.permanent_mac == Some(*mac)),
            DeviceSpec::Name(_) => Vec::new(),
        };
        if let (DeviceSpec::Mac(mac), true) = (spec, found.is_empty()) {
            found = fitting(&|link| link.mac == Some(*mac));
        }
        match found.as_slice() {
            [] => Ok(None),
            [link] => Ok(Some((*link).clone())),
            several => {
                let names: Vec<&str> = several.iter().map(|link| link.name.as_str()).collect();
                Err(DeviceError::Ambiguous { spec: spec.to_string(), names: names.join(", ") })
            }
        }
    }

    /// Why there is no link for `spec`, in one clause.
    pub fn absence(spec: &DeviceSpec) -> String {
        let DeviceSpec::Pci(address) = spec else { return "there is no such interface".to_owned() };
        let device = Path::new("/sys/bus/pci/devices").join(address);
        if !device.exists() {
            return "there is no such PCI device".to_owned();
        }
        match device.join("driver").canonicalize() {
            Ok(driver) => {
                let driver = driver.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("the device is there, but its driver, {driver}, makes no network interface here")
            }
            Err(_) => "the device is there, but has no driver".to_owned(),
        }
    }

    /// Warns about protected names in `listed` that no interface has: a misspelt name protects nothing.
    pub fn warn_of_unknown(&mut self, listed: &[String]) {
        let Ok(links) = self.list() else { return };
        for name in listed.iter().filter(|name| !links.iter().any(|link| link.is_called(name))) {
            tracing::warn!(name, "switch.protected_interfaces names an interface that is not there");
        }
    }

    /// Why `link` must not be opened; `None` if it may be. `listed` are the interfaces that the configuration protects.
    pub fn protection(&mut self, link: &Link, listed: &[String]) -> Result<Option<String>, DeviceError> {
        let links = self.list()?;
        let default_routes = self.default_route_links()?;
        let reason = |of: &Link| {
            if listed.iter().any(|name| of.is_called(name)) {
                Some("is protected by switch.protected_interfaces")
            } else if of.loopback {
                Some("is the loopback device, over which the host talks to itself")
            } else if default_routes.contains(&of.index) {
                Some("carries a default route of the host")
            } else {
                None
            }
        };
        // From the link upwards, to everything on top of it.
        let mut seen: Vec<&Link> = vec![link];
        let mut next = 0;
        while let Some(current) = seen.get(next).copied() {
            if let Some(reason) = reason(current) {
                let above =
                    if current.index == link.index { "" } else { &format!("is below {}, which ", current.name) };
                return Ok(Some(format!("{} {above}{reason}; it is never opened", link.name)));
            }
            let new = links.iter().filter(|upper| stands_on(upper, current));
            let new: Vec<_> = new.filter(|upper| seen.iter().all(|link| link.index != upper.index)).collect();
            seen.extend(new);
            next += 1;
        }
        Ok(None)
    }

    /// The links with a default route, IPv4 or IPv6, in any table but `local`.
    fn default_route_links(&mut self) -> Result<Vec<u32>, DeviceError> {
        let mut indexes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let what = "look for default routes";
            let answer = self.netlink.dump(&RouteNetlinkMessage::GetRoute(message), what)?;
            if let Some(detail) = answer.undecoded {
                // This route might be the one that matters.
                return Err(DeviceError::Answer { what: what.to_owned(), detail });
            }
            for message in answer.messages {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    indexes.extend(default_route_via(&route));
                }
            }
        }
        Ok(indexes)
    }
}

/// True if `upper` is a bridge or bond that `lower` belongs to, or a VLAN or the like on it. A veth names its peer as
/// its lower link but is not on top of it.
fn stands_on(upper: &Link, lower: &Link) -> bool {
    let on_top =
        upper.lower == Some(lower.index) && !upper.lower_is_elsewhere() && upper.kind.as_deref() != Some("veth");
    on_top || lower.controller == Some(upper.index)
}

/// The links that a route uses, if it is a default route.
fn default_route_via(route: &RouteMessage) -> Vec<u32> {
    let RouteHeader { destination_prefix_length, table, kind, .. } = route.header;
    let wide_table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let local = wide_table.unwrap_or_else(|| u32::from(table)) == TABLE_LOCAL;
    if destination_prefix_length != 0 || kind != RouteType::Unicast || local {
        return Vec::new();
    }
    let via = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    route.attributes.iter().flat_map(via).collect()
}
