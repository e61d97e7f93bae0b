//! What the kernel says of XDP at its devices: the generic netlink family `netdev`, command `dev-get`.
//!
//! Two requests: the number of the family (asked of the controller), then all devices of the namespace. Attributes are read by
//! hand; a message that is cut short gives what it has.
//!
//! References: kernel `Documentation/netlink/specs/netdev.yaml`, `include/uapi/linux/netdev.h`, `include/uapi/linux/genetlink.h`.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::XdpFeatures;

/// The controller of generic netlink, its question for a family, and the attributes of question and answer.
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Question for devices, and attributes of the answers.
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
/// Bits of the features: programs run and redirect, zero copy, several buffers.
const XDP_ACT_BASIC: u64 = 1;
const XDP_ACT_XSK_ZEROCOPY: u64 = 8;
const XDP_ACT_RX_SG: u64 = 32;
/// Types of messages that end an answer.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Bytes of a netlink header, and of that with the generic one behind it.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// The features of every device of this namespace, by index; `None` if the kernel does not have the family.
pub(super) fn xdp_features() -> io::Result<Option<BTreeMap<u32, XdpFeatures>>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let family = match ask(&socket, GENL_ID_CTRL, NLM_F_REQUEST, CTRL_CMD_GETFAMILY, &name) {
        Ok(answers) => answers.iter().find_map(|answer| number(answer, CTRL_ATTR_FAMILY_ID)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(family) = family.and_then(|family| u16::try_from(family).ok()) else { return Ok(None) };
    let answers = ask(&socket, family, NLM_F_REQUEST | NLM_F_DUMP, NETDEV_CMD_DEV_GET, &[])?;
    Ok(Some(answers.iter().filter_map(|answer| device(answer)).collect()))
}

fn device(answer: &[u8]) -> Option<(u32, XdpFeatures)> {
    let index = u32::try_from(number(answer, NETDEV_A_DEV_IFINDEX)?).ok()?;
    let bits = number(answer, NETDEV_A_DEV_XDP_FEATURES).unwrap_or(0);
    let segments = number(answer, NETDEV_A_DEV_XDP_ZC_MAX_SEGS).unwrap_or(1);
    let features = XdpFeatures {
        native: bits & XDP_ACT_BASIC != 0,
        zero_copy: bits & XDP_ACT_XSK_ZEROCOPY != 0,
        multi_buffer: bits & XDP_ACT_RX_SG != 0,
        zero_copy_segments: u32::try_from(segments).unwrap_or(u32::MAX),
    };
    Some((index, features))
}

/// Sends one request; the attributes of all answers.
fn ask(socket: &Socket, family: u16, flags: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(family.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and sender are left to the kernel: nothing else is asked on this socket.
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, sender) = socket.recv_from_full()?;
        if sender.port_number() != 0 {
            continue;
        }
        let mut rest = datagram.as_slice();
        while let Some((kind, body, behind)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                _ => answers.extend(body.get(HEADERS - HEADER..).map(<[u8]>::to_vec)),
            }
            rest = behind;
        }
        // One question, one answer; a dump says when it is done.
        if flags & NLM_F_DUMP == 0 {
            return Ok(answers);
        }
    }
}

/// Type and body of the first message, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(4);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The number in the attribute `kind`, of whatever width.
fn number(mut attributes: &[u8], kind: u16) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let this = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        // The upper bits are flags.
        if this & 0x3fff == kind {
            return match value.len() {
                2 => value.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes).into()),
                4 => value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes).into()),
                8 => value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
                _ => None,
            };
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_device_is_read_from_its_attributes() {
        let answer = [
            attribute(NETDEV_A_DEV_IFINDEX, &7_u32.to_ne_bytes()),
            attribute(NETDEV_A_DEV_XDP_FEATURES, &(1_u64 | 8 | 32).to_ne_bytes()),
            attribute(NETDEV_A_DEV_XDP_ZC_MAX_SEGS, &8_u32.to_ne_bytes()),
        ];
        let all = XdpFeatures { native: true, zero_copy: true, multi_buffer: true, zero_copy_segments: 8 };
        assert_eq!(device(&answer.concat()), Some((7, all)));
        let none = attribute(NETDEV_A_DEV_IFINDEX, &8_u32.to_ne_bytes());
        assert_eq!(device(&none), Some((8, XdpFeatures { zero_copy_segments: 1, ..XdpFeatures::default() })));
    }

    #[test]
    fn what_is_cut_short_is_not_read_past() {
        let whole = attribute(NETDEV_A_DEV_IFINDEX, &7_u32.to_ne_bytes());
        for length in 0..whole.len() {
            assert_eq!(device(whole.get(..length).unwrap()), None, "{length}");
        }
        // A length of 0 would never end.
        assert_eq!(number(&[0; 16], 5), None);
        assert_eq!(message(&[4, 0, 0, 0, 3, 0]), None);
    }

    #[test]
    fn the_kernel_knows_the_loopback() {
        let Some(devices) = xdp_features().unwrap() else { return };
        assert_eq!(devices.get(&1).map(|lo| lo.zero_copy), Some(false), "{devices:?}");
    }
}
