//! The key `to_remote` of a mirror: another machine to which copies go, wrapped as ERSPAN or VXLAN.
//!
//! `to_remote = { kind = "vxlan", port = "span", source = "192.0.2.1", destination = "198.51.100.7", id = 77 }`

use std::net::IpAddr;

use labsw_switch::Mac;
use labsw_switch::remote::{NextHop, RemoteSpec, Tunnel};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::mistake::AtKey;
use super::names::{self, Station};
use super::vlan::VlanId;
use super::{schema, value};

/// Highest session id of ERSPAN.
const MOST_SESSIONS: u32 = 1023;
/// Highest network identifier of VXLAN.
const MOST_NETWORKS: u32 = 0x00ff_ffff;

/// The `to_remote` table of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// The form of the copies.
    pub kind: RemoteKind,
    /// The port that they leave by; it takes no other traffic.
    #[serde(with = "names::Port")]
    pub port: String,
    /// The VLAN tag that they leave with; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// The IP address that they come from. The switch answers ARP or neighbour discovery for it, and nothing else.
    pub source: Address,
    /// The IP address that they go to.
    pub destination: Address,
    /// The address of the router on the way there, or of another next hop; left out: the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<Address>,
    /// The MAC address of the next hop, which is then not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop_mac: Option<Station>,
    /// The session id of ERSPAN, 0 to 1023, or the network identifier of VXLAN.
    #[serde(with = "Id")]
    pub id: u32,
    /// Copies lose their outer VLAN tag.
    #[serde(default)]
    pub strip_tag: bool,
}

/// The form of copies that go to another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum RemoteKind {
    /// ERSPAN type II.
    Erspan,
    /// VXLAN.
    Vxlan,
}

impl RemoteKind {
    /// The name for people.
    fn title(self) -> &'static str {
        match self {
            RemoteKind::Erspan => "ERSPAN",
            RemoteKind::Vxlan => "VXLAN",
        }
    }
}

/// The IP address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub IpAddr);

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = |why: &str| format!("{text:?} is not the IP address of a machine: {why}");
        let address: IpAddr = text.parse().map_err(|_| wrong("use the form 192.0.2.1 or 2001:db8::1"))?;
        let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        match address {
            _ if address.is_unspecified() || address.is_loopback() => Err(wrong("no other machine has it")),
            _ if address.is_multicast() || is_broadcast => Err(wrong("it is that of a group")),
            _ => Ok(Address(address)),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        value::text(deserializer, "an IP address", str::parse)
    }
}

schema::described!(Address, |_| schema::text("[0-9A-Fa-f.:]+"));

value::numbers! {
    /// A key that holds a session id or network identifier.
    Id, "a session id or network identifier", 0..=MOST_NETWORKS;
}

impl Remote {
    /// Checks keys that depend on each other.
    ///
    /// # Errors
    /// The key that contradicts another.
    pub(super) fn check(&self) -> Result<(), AtKey<&'static str>> {
        let wrong = |text| Err(AtKey::value("to_remote", text));
        let Remote { source: Address(source), destination: Address(destination), .. } = self;
        if source.is_ipv4() != destination.is_ipv4() {
            return wrong("`source` and `destination` are of different families; use IPv4 or IPv6 for both");
        }
        if source == destination {
            return wrong("`source` is `destination`; the switch has an address of its own on the link");
        }
        match (self.next_hop, self.next_hop_mac) {
            (Some(_), Some(_)) => return wrong("`next_hop_mac` can't stand beside `next_hop`; one of them is enough"),
            (Some(Address(hop)), None) if hop.is_ipv4() != source.is_ipv4() => {
                return wrong("`next_hop` is of another family than `source`");
            }
            (Some(hop), None) if hop == self.source => return wrong("`next_hop` is `source`; name the next machine"),
            _ => {}
        }
        if self.kind == RemoteKind::Erspan && self.id > MOST_SESSIONS {
            return wrong("`id` is out of range; sessions of ERSPAN are 0 to 1023");
        }
        Ok(())
    }

    /// The same in the form that the switch takes; copies come from `mac`.
    pub fn spec(&self, mac: Mac) -> RemoteSpec {
        RemoteSpec {
            tunnel: match self.kind {
                RemoteKind::Erspan => Tunnel::Erspan(u16::try_from(self.id).unwrap_or(0)),
                RemoteKind::Vxlan => Tunnel::Vxlan(self.id),
            },
            mac,
            vlan: self.vlan.map(|VlanId(vid)| vid),
            source: self.source.0,
            destination: self.destination.0,
            next_hop: match self.next_hop_mac {
                Some(Station(mac)) => NextHop::Station(mac),
                None => NextHop::Address(self.asked()),
            },
            strip_tag: self.strip_tag,
        }
    }

    /// The address of the next hop.
    pub fn asked(&self) -> IpAddr {
        self.next_hop.unwrap_or(self.destination).0
    }
}

impl std::fmt::Display for Remote {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Remote { kind, destination: Address(destination), id, port, .. } = self;
        write!(out, "{} {id} to {destination} by {port}", kind.title())
    }
}
