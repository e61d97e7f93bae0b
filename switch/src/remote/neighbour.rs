//! Messages between neighbours: ARP for IPv4, neighbour discovery for IPv6; no more of them than a mirror's remote end
//! needs.
//!
//! **Invariants.** Whatever arrives is checked before it is believed: lengths, types, and in IPv6 the hop limit, which
//! proves that the sender is on the link, and the checksum. The options of a message are read up to the end of the
//! snapshot, which has room for those that Linux and routers send.
//!
//! References: RFC 826; RFC 4861 4.3, 4.4, 7.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{
    ETHERTYPE_IPV6, IPV6_HEADER_BYTES, PROTOCOL_ICMPV6, TAG_OFFSET, TCI_VID_MASK, TPID_C_TAG, internet_sum, u16_at,
};
use crate::{Mac, Vid};

const ETHERTYPE_ARP: u16 = 0x0806;
const ARP_BYTES: usize = 28;
/// Ethernet, IPv4, addresses of 6 and 4 bytes.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
/// The hop limit of messages from the same link.
const ON_LINK: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, flags, target address.
const DISCOVERY_BYTES: usize = 24;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// Flags of an advertisement: solicited, and override.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Longest message: Ethernet with a tag, IPv6, an advertisement with an option.
const MESSAGE_BYTES: usize = 14 + 4 + IPV6_HEADER_BYTES + DISCOVERY_BYTES + 8;

/// A message to send: a whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: [u8; MESSAGE_BYTES],
    len: usize,
}

impl Message {
    fn new() -> Message {
        Message { bytes: [0; MESSAGE_BYTES], len: 0 }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn ethernet(&mut self, to: Mac, from: Mac, vlan: Option<Vid>, ethertype: u16) {
        self.put(&to.octets());
        self.put(&from.octets());
        if let Some(vid) = vlan {
            self.put(&TPID_C_TAG.to_be_bytes());
            self.put(&vid.get().to_be_bytes());
        }
        self.put(&ethertype.to_be_bytes());
    }
}

/// The content of a message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Who says which MAC address is theirs.
    pub(super) sender: Option<(IpAddr, Mac)>,
    /// The address whose MAC address is asked for.
    pub(super) asks_for: Option<IpAddr>,
    /// Where an answer goes.
    reply_to: (IpAddr, Mac),
}

/// The type of a frame, and where its payload begins; one tag is passed over.
fn payload(frame: &[u8]) -> Option<(u16, usize)> {
    match u16_at(frame, TAG_OFFSET)? {
        TPID_C_TAG => Some((u16_at(frame, TAG_OFFSET + 4)?, TAG_OFFSET + 6)),
        ethertype => Some((ethertype, TAG_OFFSET + 2)),
    }
}

/// True for ARP, solicitations and advertisements.
pub(super) fn is_message(frame: &[u8]) -> bool {
    match payload(frame) {
        Some((ETHERTYPE_ARP, _)) => true,
        Some((ETHERTYPE_IPV6, at)) => {
            frame.get(at + 6) == Some(&PROTOCOL_ICMPV6)
                && matches!(frame.get(at + IPV6_HEADER_BYTES), Some(&(SOLICITATION | ADVERTISEMENT)))
        }
        _ => false,
    }
}

/// Reads a message in this VLAN; `None` if it is none, or broken.
pub(super) fn read(frame: &[u8], vlan: Option<Vid>) -> Option<Heard> {
    let tagged = match u16_at(frame, TAG_OFFSET)? {
        TPID_C_TAG => u16_at(frame, TAG_OFFSET + 2)? & TCI_VID_MASK,
        _ => 0,
    };
    if tagged != vlan.map_or(0, Vid::get) {
        return None;
    }
    let (ethertype, at) = payload(frame)?;
    let from = mac(frame.get(6..12)?)?;
    match ethertype {
        ETHERTYPE_ARP => read_arp(frame.get(at..at + ARP_BYTES)?),
        ETHERTYPE_IPV6 => read_discovery(frame.get(at..)?, from),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac::new)
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into())
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

fn read_arp(packet: &[u8]) -> Option<Heard> {
    if packet.get(..6)? != ARP_KIND {
        return None;
    }
    let operation = u16_at(packet, 6)?;
    let (sender_mac, sender) = (mac(packet.get(8..14)?)?, v4(packet.get(14..18)?)?);
    let target = v4(packet.get(24..28)?)?;
    let says = |ip: IpAddr| !ip.is_unspecified();
    Some(Heard {
        sender: Some((sender, sender_mac)).filter(|(ip, _)| says(*ip)),
        asks_for: Some(target).filter(|_| operation == ARP_REQUEST),
        reply_to: (sender, sender_mac),
    })
}

fn read_discovery(packet: &[u8], from: Mac) -> Option<Heard> {
    let (source, destination) = (packet.get(8..24)?, packet.get(24..40)?);
    let length = usize::from(u16_at(packet, 4)?);
    let message = packet.get(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES + length)?;
    let is_on_link = packet.get(6..8)? == [PROTOCOL_ICMPV6, ON_LINK];
    let [high, low] = *packet.get(4..)?.first_chunk()?;
    let pseudo = [0, 0, high, low, 0, 0, 0, PROTOCOL_ICMPV6];
    if !is_on_link || internet_sum(&[source, destination, &pseudo, message]) != 0xffff || message.get(1)? != &0 {
        return None;
    }
    let (source, target) = (v6(source)?, v6(message.get(8..DISCOVERY_BYTES)?)?);
    let options = message.get(DISCOVERY_BYTES..)?;
    match *message.first()? {
        SOLICITATION => Some(Heard {
            sender: option(options, SOURCE_LINK_ADDRESS).map(|mac| (source.into(), mac)),
            asks_for: Some(target.into()),
            reply_to: (source.into(), from),
        }),
        ADVERTISEMENT => Some(Heard {
            sender: option(options, TARGET_LINK_ADDRESS).map(|mac| (target.into(), mac)),
            asks_for: None,
            reply_to: (source.into(), from),
        }),
        _ => None,
    }
}

/// The link-layer address in an option of this type.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    loop {
        let (&kind, &words) = (options.first()?, options.get(1)?);
        let bytes = 8 * usize::from(words);
        if bytes == 0 {
            return None;
        }
        let option = options.get(..bytes)?;
        if kind == wanted {
            return mac(option.get(2..8)?);
        }
        options = options.get(bytes..)?;
    }
}

/// The question for the MAC address of `wanted`; `None` if the addresses are of different families.
pub(super) fn question(wanted: IpAddr, source: IpAddr, own: Mac, vlan: Option<Vid>) -> Option<Message> {
    match (wanted, source) {
        (IpAddr::V4(wanted), IpAddr::V4(source)) => {
            Some(arp(ARP_REQUEST, (source, own), (wanted, Mac::from_u64(0)), Mac::BROADCAST, vlan))
        }
        (IpAddr::V6(wanted), IpAddr::V6(source)) => {
            let [.., a, b, c] = wanted.octets();
            // The solicited-node address (RFC 4291 2.7.1), and its MAC address (RFC 2464 7).
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let station = Mac::new([0x33, 0x33, 0xff, a, b, c]);
            let message = Discovery { kind: SOLICITATION, flags: 0, target: wanted, option: SOURCE_LINK_ADDRESS };
            Some(message.packet((source, own), (group, station), vlan))
        }
        _ => None,
    }
}

/// The answer that `source` is at `own`.
pub(super) fn answer(heard: &Heard, source: IpAddr, own: Mac, vlan: Option<Vid>) -> Message {
    let (asker, station) = heard.reply_to;
    match (source, asker) {
        (IpAddr::V4(source), IpAddr::V4(asker)) => arp(ARP_REPLY, (source, own), (asker, station), station, vlan),
        (IpAddr::V6(source), IpAddr::V6(asker)) if !asker.is_unspecified() => {
            let flags = SOLICITED | OVERRIDE;
            let message = Discovery { kind: ADVERTISEMENT, flags, target: source, option: TARGET_LINK_ADDRESS };
            message.packet((source, own), (asker, station), vlan)
        }
        (source, _) => {
            // Somebody wants the address for themselves: all nodes learn that it is taken.
            let all = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac::new([0x33, 0x33, 0, 0, 0, 1]));
            let target = match source {
                IpAddr::V6(source) => source,
                IpAddr::V4(source) => source.to_ipv6_mapped(),
            };
            let message = Discovery { kind: ADVERTISEMENT, flags: OVERRIDE, target, option: TARGET_LINK_ADDRESS };
            message.packet((target, own), all, vlan)
        }
    }
}

fn arp(
    operation: u16,
    (sender, own): (Ipv4Addr, Mac),
    (target, target_mac): (Ipv4Addr, Mac),
    to: Mac,
    vlan: Option<Vid>,
) -> Message {
    let mut message = Message::new();
    message.ethernet(to, own, vlan, ETHERTYPE_ARP);
    message.put(&ARP_KIND);
    message.put(&operation.to_be_bytes());
    message.put(&own.octets());
    message.put(&sender.octets());
    message.put(&target_mac.octets());
    message.put(&target.octets());
    message
}

/// A message of neighbour discovery.
struct Discovery {
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    /// The type of the option with the sender's own MAC address.
    option: u8,
}

impl Discovery {
    fn packet(&self, (source, own): (Ipv6Addr, Mac), (to, station): (Ipv6Addr, Mac), vlan: Option<Vid>) -> Message {
        const LENGTH: [u8; 2] = [0, 32];
        let mut body = [0; DISCOVERY_BYTES + 8];
        let fields: [&[u8]; 4] =
            [&[self.kind, 0, 0, 0, self.flags, 0, 0, 0], &self.target.octets(), &[self.option, 1], &own.octets()];
        body.iter_mut().zip(fields.into_iter().flatten()).for_each(|(place, byte)| *place = *byte);
        let pseudo = [0, 0, LENGTH[0], LENGTH[1], 0, 0, 0, PROTOCOL_ICMPV6];
        let checksum = !internet_sum(&[&source.octets(), &to.octets(), &pseudo, &body]);
        [body[2], body[3]] = checksum.to_be_bytes();
        let mut message = Message::new();
        message.ethernet(station, own, vlan, ETHERTYPE_IPV6);
        message.put(&[0x60, 0, 0, 0, LENGTH[0], LENGTH[1], PROTOCOL_ICMPV6, ON_LINK]);
        message.put(&source.octets());
        message.put(&to.octets());
        message.put(&body);
        message
    }
}
