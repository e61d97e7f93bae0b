//! Network links: finds, makes, changes and deletes them over netlink.
//!
//! Links are addressed by index, which a rename does not change. The bus address of a link comes from its parent
//! device (`IFLA_PARENT_DEV_NAME`) and /sys/bus, which, unlike /sys/class/net, are the same in every namespace.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use labsw_switch::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, LinkXdp, Prop, XdpAttached,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::DeviceError;
use super::netlink::Netlink;
use super::netns::Netns;
use super::removal::Deletions;

/// A network link as the kernel described it at the time of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its namespace.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// Its other names (`ip link property add … altname`).
    pub alternative_names: Vec<String>,
    /// Current MAC address, if the link has one.
    pub mac: Option<Mac>,
    /// MAC address burnt into the device; virtual links have none.
    pub permanent_mac: Option<Mac>,
    /// MTU, bytes.
    pub mtu: u32,
    /// The largest MTU that the driver takes, in bytes, if it is known.
    pub max_mtu: Option<u32>,
    /// The link is set up.
    pub up: bool,
    /// The link has a carrier: its other end is there.
    pub carrier: bool,
    /// The kind of a virtual link: `veth`, `bridge`, `vlan`, …
    pub kind: Option<String>,
    /// Kernel driver of the link's device.
    pub driver: Option<String>,
    /// PCI address of the link's device, with its domain.
    pub pci_address: Option<String>,
    /// The alias that a program wrote on the link (`IFLA_IFALIAS`).
    pub alias: Option<String>,
    /// Index of the lower link (`IFLA_LINK`: the device under a VLAN, the peer of a veth).
    pub lower: Option<u32>,
    /// The number of another namespace that `lower` is an index of.
    pub lower_netns: Option<i32>,
    /// Index of the bridge or bond that the link belongs to.
    pub controller: Option<u32>,
    /// The host talks to itself over the link (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// The driver runs an XDP program on received frames.
    pub xdp_in_driver: bool,
}

/// The links of one namespace: the namespace of the thread that opened it.
pub struct Links {
    pub(super) netlink: Netlink,
    deletions: Deletions,
}

impl Link {
    /// True if `name` is the link's name or one of its alternative names.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternative_names.iter().any(|other| other == name)
    }

    /// True if the lower link is in another namespace.
    pub fn lower_is_elsewhere(&self) -> bool {
        self.lower_netns.is_some()
    }
}

impl Links {
    /// Opens a socket to the kernel.
    pub fn open() -> Result<Links, DeviceError> {
        let netlink = Netlink::open().map_err(|error| DeviceError::refused("open a netlink socket", error))?;
        Ok(Links { netlink, deletions: Deletions::default() })
    }

    /// The number of requests to the kernel so far.
    pub fn requests(&self) -> u64 {
        self.netlink.requests
    }

    /// All links.
    pub fn list(&mut self) -> Result<Vec<Link>, DeviceError> {
        let answer = self.netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), "list interfaces")?;
        if let Some(detail) = answer.undecoded {
            tracing::warn!("an interface is left out, its description is not understood: {detail}");
        }
        Ok(answer.messages.into_iter().filter_map(described).collect())
    }

    /// The link called `name`.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, DeviceError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get(message, &format!("look up interface {name}"))
    }

    /// The link with `index`.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, DeviceError> {
        self.get(change_of(index), &format!("look up interface {index}"))
    }

    /// The lower link of `link`, if it is in another namespace.
    pub fn lower_elsewhere(&mut self, link: &Link) -> Result<Option<Link>, DeviceError> {
        let (Some(lower), Some(netns)) = (link.lower, link.lower_netns) else { return Ok(None) };
        let mut message = change_of(lower);
        message.attributes.push(LinkAttribute::IfNetnsId(netns));
        self.get(message, &format!("look up what is under interface {}", link.name))
    }

    /// True if the link does not exist any more. Only an answer about this very link is proof: a list may lack an
    /// existing link.
    pub fn has_gone(&mut self, index: u32) -> bool {
        matches!(self.link_by_index(index), Ok(None))
    }

    /// How many frames the link with `index` has received, by its driver's count.
    pub fn received(&mut self, index: u32) -> Result<Option<u64>, DeviceError> {
        let answer = self.ask(change_of(index), &format!("look up the counters of interface {index}"))?;
        let attributes = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link.attributes),
            _ => None,
        });
        let counted = attributes.flatten().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counters) => Some(counters.rx_packets),
            _ => None,
        });
        Ok(counted)
    }

    fn get(&mut self, message: LinkMessage, what: &str) -> Result<Option<Link>, DeviceError> {
        Ok(self.ask(message, what)?.into_iter().find_map(described))
    }

    /// The kernel's answer about one link; nothing if there is no such link.
    fn ask(&mut self, message: LinkMessage, what: &str) -> Result<Vec<RouteNetlinkMessage>, DeviceError> {
        let answer = match self.netlink.request(RouteNetlinkMessage::GetLink(message), 0, what) {
            Err(DeviceError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                return Ok(Vec::new());
            }
            other => other?,
        };
        match answer.undecoded {
            Some(detail) => Err(DeviceError::Answer { what: what.to_owned(), detail }),
            None => Ok(answer.messages),
        }
    }

    /// Makes a veth pair with `queues` queues each way, both ends down; returns the first end. Fails if one of the
    /// names is taken. udev leaves alone an address that is set here, and changes all others
    /// (`MACAddressPolicy=persistent` of systemd.link(5)).
    pub fn create_veth(&mut self, ends: [(&str, Option<Mac>); 2], mtu: u32, queues: u32) -> Result<Link, DeviceError> {
        let [(first, _), (second, _)] = ends;
        let what = format!("make the veth pair {first} and {second}");
        let end = |(name, mac): (&str, Option<Mac>)| {
            let mut attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Mtu(mtu),
                LinkAttribute::NumRxQueues(queues),
                LinkAttribute::NumTxQueues(queues),
            ];
            attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
            let mut message = LinkMessage::default();
            message.attributes = attributes;
            message
        };
        let [own, peer] = ends.map(end);
        let mut message = own;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &what)?;
        let made = self.link_by_name(first)?;
        made.ok_or_else(|| DeviceError::Answer { what, detail: "it is not there".to_owned() })
    }

    /// Deletes a link, or both ends of a veth pair. Returns when the link can't be found any more; see
    /// [`super::removal`].
    ///
    /// # Errors
    /// The kernel's refusal; [`DeviceError::Held`] if the link is still there after half a second.
    pub fn delete_link(&mut self, index: u32) -> Result<(), DeviceError> {
        let delete = move || Links::open().and_then(|mut links| links.delete_link_and_wait(index));
        let mut deletions = std::mem::take(&mut self.deletions);
        let outcome = deletions.delete(index, delete, || self.has_gone(index));
        self.deletions = deletions;
        outcome
    }

    /// The links whose deletion has not returned for `long` or longer, by index: another process holds them.
    pub fn held(&mut self, long: Duration) -> Vec<u32> {
        self.deletions.held(long)
    }

    /// Deletes a link, and returns when the last reference to it has gone.
    fn delete_link_and_wait(&mut self, index: u32) -> Result<(), DeviceError> {
        let what = format!("delete interface {index}");
        self.netlink.request(RouteNetlinkMessage::DelLink(change_of(index)), 0, &what).map(drop)
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> Result<(), DeviceError> {
        self.set_flags(index, LinkFlags::Up, LinkFlags::Up)
    }

    /// Sets a link down.
    pub fn set_down(&mut self, index: u32) -> Result<(), DeviceError> {
        self.set_flags(index, LinkFlags::Up, LinkFlags::empty())
    }

    fn set_flags(&mut self, index: u32, which: LinkFlags, to: LinkFlags) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.header.change_mask = which;
        message.header.flags = to;
        self.change(message, &format!("set the flags of interface {index}"))
    }

    /// Sets the MTU, bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(message, &format!("set the MTU of interface {index} to {mtu}"))
    }

    /// Sets the MAC address.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
        self.change(message, &format!("set the MAC address of interface {index} to {mac}"))
    }

    /// Writes an alias on a link, which `ip link` shows.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(message, &format!("set the alias of interface {index}"))
    }

    /// Renames a link, which must be down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.change(message, &format!("rename interface {index} to {name}"))
    }

    /// Moves a link into a namespace under the name `name`; the link is down there.
    pub fn move_to_netns(&mut self, index: u32, netns: &Netns, name: &str) -> Result<(), DeviceError> {
        let mut message = change_of(index);
        message.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.change(message, &format!("move interface {index} into netns {} as {name}", netns.name()))
    }

    /// Keeps the host's own stack silent on a link of the switch, which should still be down: no ARP (the host would
    /// answer for addresses of its other interfaces), no IPv6 address, and, if /proc/sys can be written, no IPv6.
    pub fn keep_host_silent(&mut self, link: &Link) -> Result<(), DeviceError> {
        self.set_flags(link.index, LinkFlags::Noarp, LinkFlags::Noarp)?;
        let ipv6 = Path::new("/proc/sys/net/ipv6/conf");
        if !ipv6.exists() {
            return Ok(());
        }
        let mut message = change_of(link.index);
        let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![no_address])]));
        // The kernel refuses to switch IPv6 off on a link whose MTU is below IPv6's 1280 bytes, which has no IPv6
        // anyway.
        if link.mtu >= 1280 {
            self.change(message, &format!("switch off IPv6 addresses on {}", link.name))?;
        }
        if let Err(error) = std::fs::write(ipv6.join(&link.name).join("disable_ipv6"), "1") {
            tracing::debug!("{}: IPv6 stays on, without an address: {error}", link.name);
        }
        Ok(())
    }

    fn change(&mut self, message: LinkMessage, what: &str) -> Result<(), DeviceError> {
        self.netlink.request(RouteNetlinkMessage::SetLink(message), 0, what).map(drop)
    }
}

/// A message that changes the link with `index`.
fn change_of(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    message.header.index = index;
    message
}

/// The link that a message describes.
fn described(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alternative_names: Vec::new(),
        mac: None,
        permanent_mac: None,
        mtu: 0,
        max_mtu: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        kind: None,
        alias: None,
        driver: None,
        pci_address: None,
        lower: None,
        lower_netns: None,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        xdp_in_driver: false,
        controller: None,
    };
    let (mut bus, mut device) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::PropList(properties) => {
                link.alternative_names.extend(properties.into_iter().filter_map(alternative_name));
            }
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            // 0: the link has no limit of its own.
            LinkAttribute::MaxMtu(mtu) => link.max_mtu = Some(mtu).filter(|mtu| *mtu != 0),
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::PermAddress(bytes) => link.permanent_mac = mac(&bytes),
            LinkAttribute::Link(index) => link.lower = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(netns) => link.lower_netns = Some(netns),
            LinkAttribute::Xdp(xdp) => link.xdp_in_driver = xdp.iter().any(is_in_driver),
            LinkAttribute::Controller(index) => link.controller = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkInfo(infos) => link.kind = infos.into_iter().find_map(kind),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            LinkAttribute::ParentDevName(name) => device = Some(name),
            _ => {}
        }
    }
    if let (Some(bus), Some(device)) = (bus, device) {
        (link.pci_address, link.driver) = parent(&bus, &device);
    }
    Some(link)
}

fn is_in_driver(xdp: &LinkXdp) -> bool {
    matches!(xdp, LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple))
}

fn alternative_name(property: Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac::new)
}

fn kind(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// PCI address and driver of the device `name` on `bus`. A virtio device is a child of the PCI device.
fn parent(bus: &str, name: &str) -> (Option<String>, Option<String>) {
    let Ok(path) = Path::new("/sys/bus").join(bus).join("devices").join(name).canonicalize() else {
        return ((bus == "pci").then(|| name.to_owned()), None);
    };
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_pci = |path: &Path| path.join("subsystem").canonicalize().is_ok_and(|s| s == Path::new("/sys/bus/pci"));
    let pci = path.ancestors().find(|ancestor| is_pci(ancestor)).and_then(last);
    let driver = path.join("driver").canonicalize().ok().and_then(|driver| last(&driver));
    (pci, driver)
}
