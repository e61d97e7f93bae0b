//! The network device of a port: `pci:`, `mac:` or `name:`, as the configuration says and as it is written back.

use std::fmt;
use std::str::FromStr;

use labsw_switch::Mac;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{names, schema, value};

/// The identification of a network device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeviceSpec {
    /// `pci:0000:03:00.1`: the PCI address, lower case, with its domain.
    Pci(String),
    /// `mac:52:54:00:12:34:56`: the permanent MAC address.
    Mac(Mac),
    /// `name:enp3s0f1`: the name of the interface.
    Name(String),
}

impl FromStr for DeviceSpec {
    type Err = String;

    /// The error says what is wrong and how to write it right.
    fn from_str(text: &str) -> Result<DeviceSpec, String> {
        match text.split_once(':') {
            Some(("pci", address)) => pci_address(address).map(DeviceSpec::Pci).ok_or_else(|| {
                format!("{text:?} is not a PCI address with its domain (as `lspci -D` shows, pci:0000:03:00.1)")
            }),
            Some(("mac", address)) => match address.parse::<Mac>() {
                Ok(mac) if !mac.is_group() && mac != Mac::default() => Ok(DeviceSpec::Mac(mac)),
                Ok(_) => Err(format!("{text:?} is not the address of one device")),
                Err(wrong) => Err(format!("{text:?}: {wrong}")),
            },
            Some(("name", name)) => match names::interface(name) {
                Ok(()) => Ok(DeviceSpec::Name(name.to_owned())),
                Err(wrong) => Err(format!("{text:?} is not an interface name: {wrong}")),
            },
            _ => Err(format!("{text:?} does not begin with one of pci: mac: name: (as in name:enp3s0f1)")),
        }
    }
}

/// A PCI address like `0000:03:00.1`, in lower case; `None` for other text.
fn pci_address(text: &str) -> Option<String> {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (bus_device, function) = text.split_once('.')?;
    let mut parts = bus_device.split(':');
    let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
    // Domains beyond 16 bits exist (VMD, Hyper-V) and have up to 8 digits.
    let domain_ok = (4..=8).contains(&domain.len()) && hex(domain, domain.len());
    let function_ok = function.len() == 1 && function.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let legal = domain_ok && hex(bus, 2) && hex(device, 2) && function_ok && parts.next().is_none();
    legal.then(|| text.to_ascii_lowercase())
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Pci(address) => write!(out, "pci:{address}"),
            DeviceSpec::Mac(mac) => write!(out, "mac:{mac}"),
            DeviceSpec::Name(name) => write!(out, "name:{name}"),
        }
    }
}

impl Serialize for DeviceSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DeviceSpec, D::Error> {
        let what = "\"pci:0000:03:00.1\", \"mac:52:54:00:12:34:56\" or \"name:enp3s0f1\"";
        value::text(deserializer, what, str::parse)
    }
}

schema::described!(DeviceSpec, |_| {
    let (pci, mac) = ("pci:[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}[.][0-7]", names::STATION_PATTERN);
    schema::text(&format!("{pci}|mac:{mac}|name:{}", names::INTERFACE_PATTERN))
});
