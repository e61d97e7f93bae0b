//! Shuts receive gates as soon as a device removes VLAN tags from frames, whichever program switched that on.
//!
//! **How it works.** A thread listens to the kernel's notifications about features of devices (generic netlink family
//! `ethtool`, group `monitor`). A notification carries the features that are then active, as bits in the order of their
//! names. If one of those that remove tags is among them, the [`Gate`] of the device's port is shut, even while the
//! device thread is busy. The device thread opens it again, once the offload is off.
//!
//! **Invariants.** The thread shuts gates and never opens them. A notification that can't be read shuts the gate of its
//! device, and lost notifications (the socket's buffer overran) shut all gates: the device thread looks at every
//! device whose gate is shut. The thread starts with the first device that is watched. Without the thread (a kernel
//! without the family), changes are found when the device thread looks at its devices.
//!
//! Reference: kernel `Documentation/networking/ethtool-netlink.rst`, `include/uapi/linux/ethtool_netlink.h`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use labsw_dataplane::xdp::Gate;
use netlink_packet_core::NlasIterator;
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::DeviceError;
use super::ethtool::{self, Offload};
use super::netlink::Netlink;

const FAMILY: &str = "ethtool";
const GROUP: &str = "monitor";
/// `struct nlmsghdr` and `struct genlmsghdr`, bytes.
const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// `struct nlattr`, bytes.
const ATTRIBUTE_HEADER: usize = 4;
/// `ETHTOOL_MSG_FEATURES_NTF`, and attributes of such a message.
const FEATURES_CHANGED: u8 = 13;
const HEADER: u16 = 1;
const ACTIVE: u16 = 4;
const HEADER_DEVICE_INDEX: u16 = 1;
const BITSET_VALUE: u16 = 4;
/// The most bytes of a datagram that are read.
const NEWS_BYTES: usize = 16 << 10;

/// The gates, by index of the device.
type Gates = Arc<Mutex<BTreeMap<u32, Arc<Gate>>>>;

/// The thread, and the gates that it shuts.
#[derive(Default)]
pub struct OffloadNews {
    gates: Gates,
    started: bool,
}

/// While this value lives, a gate is shut when its device removes tags.
pub struct Watched {
    gates: Gates,
    index: u32,
}

impl OffloadNews {
    /// Watches a device from now on. The caller looks at the device afterwards, for earlier changes.
    pub fn watch(&mut self, index: u32, name: &str, gate: Arc<Gate>) -> Watched {
        locked(&self.gates).insert(index, gate);
        if !self.started {
            match listen(name, &self.gates) {
                Ok(()) => self.started = true,
                Err(error) => tracing::warn!(%error, "news of offloads are not listened to; changes are noticed later"),
            }
        }
        Watched { gates: Arc::clone(&self.gates), index }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        locked(&self.gates).remove(&self.index);
    }
}

fn locked(gates: &Gates) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<Gate>>> {
    gates.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread. The names of features are the same for all devices; `device` is any device that can be asked for
/// them.
fn listen(device: &str, gates: &Gates) -> Result<(), DeviceError> {
    let refused = |error: io::Error| DeviceError::refused("listen for changes of offloads", error);
    let bits = ethtool::bits_of(device, Offload::RxVlan)?;
    let (family, group) = ethtool_group()?;
    let mut socket = Socket::new(NETLINK_GENERIC).map_err(refused)?;
    socket.bind(&SocketAddr::new(0, 0)).map_err(refused)?;
    socket.add_membership(group).map_err(refused)?;
    let gates = Arc::clone(gates);
    let watch = move || {
        let mut news = vec![0; NEWS_BYTES];
        loop {
            match socket.recv_from(&mut &mut news[..], 0) {
                Ok((length, sender)) if sender.port_number() == 0 => {
                    judge(news.get(..length).unwrap_or(&news), family, &bits, &gates);
                }
                // Other processes can send to a netlink socket, too.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => shut_all(&gates),
                Err(error) => {
                    tracing::error!(%error, "news of offloads end; changes are noticed later");
                    return shut_all(&gates);
                }
            }
        }
    };
    std::thread::Builder::new().name("offload-news".to_owned()).spawn(watch).map(drop).map_err(refused)
}

/// The numbers that the kernel gave the family and its group.
fn ethtool_group() -> Result<(u16, u32), DeviceError> {
    let what = "find the netlink family ethtool";
    let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())] };
    let answer = Netlink::open_generic()?.request(GenlMessage::from_payload(question), 0, what)?;
    let (mut family, mut group) = (None, None);
    for attribute in answer.messages.into_iter().flat_map(|message| message.payload.nlas) {
        match attribute {
            GenlCtrlAttrs::FamilyId(number) => family = Some(number),
            GenlCtrlAttrs::McastGroups(groups) => group = groups.into_iter().find_map(|group| number_of(&group)),
            _ => {}
        }
    }
    let missing = || DeviceError::Answer { what: what.to_owned(), detail: format!("no group {GROUP}") };
    family.zip(group).ok_or_else(missing)
}

fn number_of(group: &[McastGrpAttrs]) -> Option<u32> {
    let named = group.iter().any(|attribute| matches!(attribute, McastGrpAttrs::Name(name) if name == GROUP));
    group.iter().find_map(|attribute| match attribute {
        McastGrpAttrs::Id(number) if named => Some(*number),
        _ => None,
    })
}

fn shut_all(gates: &Gates) {
    locked(gates).values().for_each(|gate| gate.shut());
}

/// Shuts the gates of devices that remove tags, or may remove them, according to a datagram.
fn judge(mut datagram: &[u8], family: u16, bits: &[usize], gates: &Gates) {
    while let Some((length, kind)) = datagram.first_chunk().zip(datagram.get(4..6)) {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let message = datagram.get(NETLINK_HEADER..length);
        if kind == family.to_ne_bytes() {
            match message {
                Some(message) => judge_message(message, bits, gates),
                None => shut_all(gates),
            }
        }
        // At least the header: a length of 0 would never end. Messages are aligned to four bytes (NLMSG_ALIGN).
        let next = length.max(NETLINK_HEADER).checked_next_multiple_of(4).unwrap_or(usize::MAX);
        datagram = datagram.get(next..).unwrap_or_default();
    }
}

fn judge_message(message: &[u8], bits: &[usize], gates: &Gates) {
    if message.first() != Some(&FEATURES_CHANGED) {
        return;
    }
    let attributes = message.get(GENERIC_HEADER..).unwrap_or_default();
    let index = attribute(attributes, HEADER).and_then(|header| attribute(header, HEADER_DEVICE_INDEX));
    let index = index.and_then(|index| index.first_chunk().copied()).map(u32::from_ne_bytes);
    let active = attribute(attributes, ACTIVE).and_then(|active| attribute(active, BITSET_VALUE));
    let taken_out = active.is_none_or(|active| bits.iter().any(|bit| is_set(active, *bit)));
    match index {
        None => shut_all(gates),
        Some(index) if taken_out => locked(gates).get(&index).into_iter().for_each(|gate| gate.shut()),
        Some(_) => {}
    }
}

/// The value of the first attribute of a kind.
fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut attributes = NlasIterator::new(attributes).map_while(Result::ok);
    let attribute = attributes.find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(attribute.length());
    attribute.into_inner().get(ATTRIBUTE_HEADER..length)
}

/// True if a bit is set in 32-bit words of this machine's byte order.
fn is_set(words: &[u8], bit: usize) -> bool {
    let word =
        words.chunks_exact(4).nth(bit / 32).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_ne_bytes(*word));
    word & (1 << (bit % 32)) != 0
}

#[cfg(test)]
mod tests;
