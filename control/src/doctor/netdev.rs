//! Asks the kernel for the XDP features of its devices: the generic netlink family `netdev`, command `dev-get`.
//!
//! There are two requests: the number of the family (to the controller), then all devices of the namespace.
//!
//! References: kernel `Documentation/netlink/specs/netdev.yaml`, `include/uapi/linux/netdev.h`,
//! `include/uapi/linux/genetlink.h`.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{DecodeError, DefaultNla, Emitable, Nla, NlasIterator, Parseable, ParseableParametrized};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use super::XdpFeatures;
use crate::device::DeviceError;
use crate::device::netlink::Netlink;

const FAMILY: &str = "netdev";
/// The request for devices, and attributes of the answers.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
/// Bits of the features: programs run and redirect, zero copy, several buffers.
const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
const XDP_ACT_RX_SG: u64 = 32;

/// A message of the family, whose attributes are read one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Devices(Vec<DefaultNla>);

impl GenlFamily for Devices {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        NETDEV_CMD_DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Devices {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Devices {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Devices, DecodeError> {
        let attributes = NlasIterator::new(bytes).map(|attribute| DefaultNla::parse(&attribute?));
        attributes.collect::<Result<_, _>>().map(Devices)
    }
}

impl Devices {
    /// The number in the attribute `kind`, of any width.
    fn number(&self, kind: u16) -> Option<u64> {
        let attribute = self.0.iter().find(|attribute| attribute.kind() == kind)?;
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        match value.len() {
            2 => value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes).into()),
            4 => value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes).into()),
            8 => value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
            _ => None,
        }
    }
}

/// The features of every device of this namespace, by index; `None` if the kernel does not have the family.
pub(super) fn xdp_features() -> Result<Option<BTreeMap<u32, XdpFeatures>>, DeviceError> {
    let Some(family) = family_number()? else { return Ok(None) };
    let mut netlink = Netlink::open_generic()?;
    let mut question = GenlMessage::from_payload(Devices::default());
    question.set_resolved_family_id(family);
    let answer = netlink.dump(&question, "list devices with XDP")?;
    Ok(Some(answer.messages.iter().filter_map(|message| device(&message.payload)).collect()))
}

/// The number that the kernel gave the family.
fn family_number() -> Result<Option<u16>, DeviceError> {
    let mut netlink = Netlink::open_generic()?;
    let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())] };
    let answer = match netlink.request(GenlMessage::from_payload(question), 0, "find the netlink family netdev") {
        Err(DeviceError::Refused { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let attributes = answer.messages.iter().flat_map(|message| &message.payload.nlas);
    let mut numbers = attributes.filter_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(number) => Some(*number),
        _ => None,
    });
    Ok(numbers.next_back())
}

fn device(answer: &Devices) -> Option<(u32, XdpFeatures)> {
    let index = u32::try_from(answer.number(NETDEV_A_DEV_IFINDEX)?).ok()?;
    let bits = answer.number(NETDEV_A_DEV_XDP_FEATURES).unwrap_or(0);
    let segments = answer.number(NETDEV_A_DEV_XDP_ZC_MAX_SEGS).unwrap_or(1);
    let features = XdpFeatures {
        native: bits & XDP_ACT_BASIC != 0,
        zero_copy: bits & XDP_ACT_XSK_ZEROCOPY != 0,
        multi_buffer: bits & XDP_ACT_RX_SG != 0,
        zero_copy_segments: u32::try_from(segments).unwrap_or(u32::MAX),
    };
    Some((index, features))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn header() -> GenlHeader {
        GenlHeader { cmd: NETDEV_CMD_DEV_GET, version: 1 }
    }

    /// An answer as the kernel sends it.
    fn bytes(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let devices = Devices(attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_vec())).collect());
        let mut bytes = vec![0; devices.buffer_len()];
        devices.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_device_is_read_from_its_attributes() {
        let read =
            |attributes: &[(u16, &[u8])]| device(&Devices::parse_with_param(&bytes(attributes), header()).unwrap());
        let answer: [(u16, &[u8]); 3] = [
            (NETDEV_A_DEV_IFINDEX, &7_u32.to_ne_bytes()),
            (NETDEV_A_DEV_XDP_FEATURES, &(1_u64 | 8 | 32).to_ne_bytes()),
            (NETDEV_A_DEV_XDP_ZC_MAX_SEGS, &8_u32.to_ne_bytes()),
        ];
        let all = XdpFeatures { native: true, zero_copy: true, multi_buffer: true, zero_copy_segments: 8 };
        assert_eq!(read(&answer), Some((7, all)));
        let none = Some((8, XdpFeatures { zero_copy_segments: 1, ..XdpFeatures::default() }));
        assert_eq!(read(&[(NETDEV_A_DEV_IFINDEX, &8_u32.to_ne_bytes())]), none);
    }

    #[test]
    fn what_is_cut_short_is_not_read_past() {
        let whole = bytes(&[(NETDEV_A_DEV_IFINDEX, &7_u32.to_ne_bytes())]);
        for length in 1..whole.len() {
            assert!(Devices::parse_with_param(whole.get(..length).unwrap(), header()).is_err(), "{length}");
        }
        // A length of 0 would loop for ever.
        assert!(Devices::parse_with_param(&[0; 16], header()).is_err());
    }

    #[test]
    fn the_kernel_knows_the_loopback() {
        let Some(devices) = xdp_features().unwrap() else { return };
        assert_eq!(devices.get(&1).map(|lo| lo.zero_copy), Some(false), "{devices:?}");
    }
}
