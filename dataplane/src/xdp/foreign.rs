//! The other XDP program on a device, for error messages that have to name it.
//!
//! **How it works.** rtnetlink tells the id of the attached program (`IFLA_XDP`), bpf(2) its name. Facts that can't be
//! found are left out: the answer is for people.
//!
//! References: `rtnetlink(7)`, kernel `include/uapi/linux/if_link.h` (`IFLA_XDP_*`).

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys::programs;

const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
/// `struct nlmsghdr` and `struct ifinfomsg`, bytes each.
const HEADER_BYTES: usize = 16;
const IFLA_XDP: u16 = 43;
/// `IFLA_XDP_PROG_ID`, `…DRV_PROG_ID`, `…SKB_PROG_ID`, `…HW_PROG_ID`.
const PROGRAM_IDS: std::ops::RangeInclusive<u16> = 4..=7;
/// Upper bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// Name and id of the XDP program on the interface, as far as the kernel tells.
pub fn attached(ifindex: u32) -> Option<String> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).ok()?;
    rustix::net::send(&socket, &request(ifindex), SendFlags::empty()).ok()?;
    let mut answer = vec![0; 1 << 16];
    let (len, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty()).ok()?;
    let id = program_id(answer.get(..len)?)?;
    Some(match programs::name_of(id) {
        Some(name) => format!("{name}, id {id}"),
        None => format!("id {id}"),
    })
}

fn request(ifindex: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(2 * HEADER_BYTES);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8 + 4]); // sequence, port; family, type
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]); // flags, change
    message
}

/// The id in an answer to [`request`].
fn program_id(answer: &[u8]) -> Option<u32> {
    let link = answer.get(2 * HEADER_BYTES..)?;
    let (_, xdp) = attributes(link).find(|&(kind, _)| kind == IFLA_XDP)?;
    attributes(xdp)
        .filter(|(kind, _)| PROGRAM_IDS.contains(kind))
        .find_map(|(_, value)| Some(u32::from_ne_bytes(value.try_into().ok()?)).filter(|&id| id != 0))
}

/// Walks attributes: length (header included), type, value, padding to four bytes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let number = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let (len, kind) = (usize::from(number(0)?), number(2)? & TYPE_MASK);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_id_is_found_among_other_attributes() {
        let xdp = [attribute(2, &[1]), attribute(4, &77u32.to_ne_bytes())].concat();
        let answer = [vec![0; 32], attribute(3, b"veth0\0"), attribute(0x8000 | IFLA_XDP, &xdp)].concat();
        assert_eq!(program_id(&answer), Some(77));
        for cut in 0..answer.len() {
            assert_eq!(program_id(&answer[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn no_program_no_id() {
        let answer = [vec![0; 32], attribute(IFLA_XDP, &attribute(2, &[0]))].concat();
        assert_eq!(program_id(&answer), None);
        assert_eq!(program_id(&[[0; 32].as_slice(), &[0; 8]].concat()), None, "a zero length ends the walk");
    }
}
