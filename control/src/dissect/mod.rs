//! A frame on one line of text, much as `tcpdump -n` prints it: VLAN, addresses, protocol, ports, flags, length.
//!
//! **How it works.** `etherparse` finds the headers; this module and [`ip`] put them in words, and [`application`] does
//! so for DNS and DHCP. A header that is broken or cut off ends the line with the part that was found, and says so.
//!
//! **Invariants.** No frame makes it fail, and a line holds a bounded part of a frame. Bytes of the frame that are text
//! (names) may hold anything: whoever prints a line on a terminal makes it harmless first.
//!
//! References: IEEE 802.3, 802.1Q; RFC 826 (ARP); see the submodules for the others.

mod application;
mod ip;
#[cfg(test)]
mod tests;

use etherparse::{ArpOperation, ArpPacketSlice, EtherType, LaxNetSlice, LaxSlicedPacket, LinkSlice};
use labsw_switch::Mac;

use crate::trace::ETHERTYPES;

/// Values of the type field below this are the length of an IEEE 802.3 frame.
const LEAST_ETHERTYPE: u16 = 0x600;
/// The line for a frame of `wire_bytes`, of which `frame` may be the beginning. With `macs` it begins with the MAC
/// addresses; a frame without IP or ARP has them anyway.
pub fn line(frame: &[u8], wire_bytes: usize, macs: bool) -> String {
    let Ok(parts) = LaxSlicedPacket::from_ethernet(frame) else {
        return format!("no whole Ethernet header, length {wire_bytes}");
    };
    let missing = wire_bytes.saturating_sub(frame.len());
    let mut line = String::new();
    if macs || parts.net.is_none() {
        line += &stations(&parts);
    }
    for vlan in parts.vlan_ids() {
        line += &format!("vlan {}, ", vlan.value());
    }
    line += &match &parts.net {
        Some(LaxNetSlice::Arp(packet)) => arp(packet),
        Some(LaxNetSlice::Ipv4(packet)) => ip::version_4(packet, parts.transport.as_ref(), missing),
        Some(LaxNetSlice::Ipv6(packet)) => ip::version_6(packet, parts.transport.as_ref(), missing),
        None => format!("{}, length {wire_bytes}", protocol(&parts)),
    };
    if let Some((_, layer)) = &parts.stop_err {
        line += &if missing > 0 { format!(" [cut in the {layer}]") } else { format!(" [broken {layer}]") };
    }
    line
}

/// `52:54:00:00:00:01 > 52:54:00:00:00:02, `
fn stations(parts: &LaxSlicedPacket<'_>) -> String {
    let Some(LinkSlice::Ethernet2(header)) = &parts.link else { return String::new() };
    format!("{} > {}, ", Mac::new(header.source()), Mac::new(header.destination()))
}

/// The protocol of a frame without IP or ARP.
fn protocol(parts: &LaxSlicedPacket<'_>) -> String {
    let Some(payload) = parts.ether_payload() else { return "no payload".to_owned() };
    let EtherType(number) = payload.ether_type;
    if number < LEAST_ETHERTYPE {
        return match payload.payload {
            [0x42, 0x42, ..] => "STP".to_owned(),
            [0xaa, 0xaa, ..] => "802.3 SNAP".to_owned(),
            [destination, ..] => format!("802.3 LLC {destination:#04x}"),
            [] => "802.3".to_owned(),
        };
    }
    let known = ETHERTYPES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("ethertype {number:#06x}"), |(_, name)| (*name).to_owned())
}

/// An ARP packet.
fn arp(packet: &ArpPacketSlice<'_>) -> String {
    let Ok(packet) = packet.to_packet().try_eth_ipv4() else {
        return "ARP of other addresses than Ethernet and IPv4".to_owned();
    };
    let (sender, target) = (packet.sender_ipv4_addr(), packet.target_ipv4_addr());
    let sender_mac = Mac::new(packet.sender_mac);
    match packet.operation {
        ArpOperation::REQUEST if sender == target => format!("ARP, announcement {sender} is-at {sender_mac}"),
        ArpOperation::REQUEST if sender.is_unspecified() => format!("ARP, probe {target} from {sender_mac}"),
        ArpOperation::REQUEST => format!("ARP, request who-has {target} tell {sender}"),
        ArpOperation::REPLY => format!("ARP, reply {sender} is-at {sender_mac}"),
        ArpOperation(other) => format!("ARP, operation {other} from {sender}"),
    }
}
