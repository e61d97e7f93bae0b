//! Judges whether a frame is one that a wire may carry: lengths that agree and checksums that are right (IPv4 header,
//! TCP, UDP, ICMP and ICMPv6), behind any number of VLAN tags. Fragments are put together and judged as the datagram
//! they make. What is no IP is only counted.
//!
//! A checksum is judged by adding up what it covers, itself included: ones in every bit is right (RFC 1071). UDP over
//! IPv6 has to have one (RFC 8200, 8.1); over IPv4 it may be left out, which is counted.

use std::collections::HashMap;

use crate::hostile::NET_HEADER;
use crate::packet::{TPID_8021AD, TPID_8021Q};

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

/// What was judged so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All frames.
    pub frames: u64,
    /// Frames with a VLAN tag.
    pub tagged: u64,
    /// Whole TCP segments.
    pub tcp: u64,
    /// Those of them with data.
    pub tcp_data: u64,
    /// UDP datagrams, put together where they came in fragments.
    pub udp: u64,
    /// Those of them without a checksum.
    pub udp_unchecked: u64,
    /// ICMP and ICMPv6 messages, put together where they came in fragments.
    pub icmp: u64,
    /// Fragments.
    pub fragments: u64,
}

/// One datagram in pieces: addresses, protocol, identification.
type Whole = (Vec<u8>, u8, u32);

/// Pieces by their offset, and the length of the whole once the last one is there.
#[derive(Debug, Default)]
struct Pieces {
    parts: Vec<(usize, Vec<u8>)>,
    length: Option<usize>,
}

/// The judge; one for each place of capture.
#[derive(Debug, Default)]
pub struct Checker {
    /// What was judged.
    pub counts: Counts,
    pieces: HashMap<Whole, Pieces>,
}

/// The Internet checksum's sum of `parts`, each but the last of even length (RFC 1071), folded to 16 bits.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap_or_default()
}

/// A virtio-net header that asks for a checksum from `start`, stored `offset` behind that.
pub fn request(start: u16, offset: u16) -> [u8; NET_HEADER] {
    let mut header = [0; NET_HEADER];
    header[0] = 1;
    header[6..8].copy_from_slice(&start.to_le_bytes());
    header[8..10].copy_from_slice(&offset.to_le_bytes());
    header
}

/// The frame with its last two bytes chosen so that its checksum from `field` on is `wanted`.
///
/// # Panics
/// If frame or field are not of whole words.
pub fn with_checksum(mut frame: Vec<u8>, field: usize, wanted: u16) -> Vec<u8> {
    let last = frame.len() - 2;
    assert!(frame.len().is_multiple_of(2) && field.is_multiple_of(2), "words have to be aligned");
    frame[last..].fill(0);
    let rest = sum(&[&frame[field..]]);
    let filler = (u32::from(!wanted) + 0xffff - u32::from(rest)) % 0xffff;
    frame[last..].copy_from_slice(&u16::try_from(filler).unwrap_or_default().to_be_bytes());
    assert_eq!(!sum(&[&frame[field..]]), wanted);
    frame
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or_else(|| format!("cut off at byte {at}"))?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn part(bytes: &[u8], from: usize, to: usize) -> Result<&[u8], String> {
    bytes.get(from..to).ok_or_else(|| format!("bytes {from} to {to} of {} wanted", bytes.len()))
}

/// Length of the Ethernet header with its tags.
pub fn header_length(frame: &[u8]) -> usize {
    let tags = frame.get(12..).unwrap_or_default().chunks_exact(4);
    14 + 4 * tags.take_while(|tag| [TPID_8021Q, TPID_8021AD].contains(&u16::from_be_bytes([tag[0], tag[1]]))).count()
}

impl Checker {
    /// Judges one frame.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&mut self, frame: &[u8]) -> Result<(), String> {
        self.counts.frames += 1;
        let header = header_length(frame);
        self.counts.tagged += u64::from(header > 14);
        let packet = frame.get(header..).unwrap_or_default();
        match be16(frame, header - 2)? {
            0x0800 => self.ipv4(packet),
            0x86dd => self.ipv6(packet),
            _ => Ok(()),
        }
    }

    /// Datagrams of which pieces are missing.
    pub fn incomplete(&self) -> usize {
        self.pieces.len()
    }

    fn ipv4(&mut self, packet: &[u8]) -> Result<(), String> {
        let first = packet.first().copied().unwrap_or(0);
        let header = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header < 20 {
            return Err(format!("IPv4 header starts with {first:#04x}"));
        }
        if sum(&[part(packet, 0, header)?]) != 0xffff {
            return Err(format!("IPv4 header checksum {:#06x}", be16(packet, 10)?));
        }
        let data = part(packet, header, usize::from(be16(packet, 2)?))?;
        let (addresses, protocol, flags) = (&packet[12..20], packet[9], be16(packet, 6)?);
        if flags & 0x3fff == 0 {
            return self.transport(addresses, protocol, data);
        }
        let whole = (addresses.to_vec(), protocol, u32::from(be16(packet, 4)?));
        self.fragment(whole, usize::from(flags & 0x1fff) * 8, flags & 0x2000 != 0, data)
    }

    fn ipv6(&mut self, packet: &[u8]) -> Result<(), String> {
        let addresses = part(packet, 8, 40)?;
        let end = 40 + usize::from(be16(packet, 4)?);
        let (mut next, mut at) = (packet[6], 40);
        while [HOP_BY_HOP, DESTINATION_OPTIONS].contains(&next) {
            let option = part(packet, at, at + 2)?;
            (next, at) = (option[0], at + 8 + usize::from(option[1]) * 8);
        }
        if next != FRAGMENT {
            return self.transport(addresses, next, part(packet, at, end)?);
        }
        let header = part(packet, at, at + 8)?;
        let (place, identification) =
            (be16(header, 2)?, u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
        let whole = (addresses.to_vec(), header[0], identification);
        self.fragment(whole, usize::from(place & !7), place & 1 != 0, part(packet, at + 8, end)?)
    }

    fn fragment(&mut self, whole: Whole, offset: usize, more: bool, data: &[u8]) -> Result<(), String> {
        self.counts.fragments += 1;
        let pieces = self.pieces.entry(whole.clone()).or_default();
        pieces.parts.push((offset, data.to_vec()));
        if !more {
            pieces.length = Some(offset + data.len());
        }
        if pieces.length != Some(pieces.parts.iter().map(|(_, data)| data.len()).sum()) {
            return Ok(());
        }
        let mut parts = self.pieces.remove(&whole).unwrap_or_default().parts;
        parts.sort_by_key(|(offset, _)| *offset);
        let datagram: Vec<u8> = parts.into_iter().flat_map(|(_, data)| data).collect();
        self.transport(&whole.0, whole.1, &datagram)
    }

    fn transport(&mut self, addresses: &[u8], protocol: u8, data: &[u8]) -> Result<(), String> {
        let length = u32::try_from(data.len()).map_err(|e| e.to_string())?.to_be_bytes();
        let pseudo_header = [addresses, &length, &[0, 0, 0, protocol]].concat();
        let with_pseudo_header = sum(&[&pseudo_header, data]);
        let (name, sum, field) = match protocol {
            TCP => {
                self.counts.tcp += 1;
                self.counts.tcp_data += u64::from(usize::from(part(data, 12, 13)?[0] >> 4) * 4 < data.len());
                ("TCP", with_pseudo_header, 16)
            }
            UDP => {
                self.counts.udp += 1;
                if usize::from(be16(data, 4)?) != data.len() {
                    return Err(format!("UDP length {} of {} bytes", be16(data, 4)?, data.len()));
                }
                if be16(data, 6)? == 0 && addresses.len() == 8 {
                    self.counts.udp_unchecked += 1;
                    return Ok(());
                }
                if be16(data, 6)? == 0 {
                    return Err("UDP over IPv6 without a checksum".to_owned());
                }
                ("UDP", with_pseudo_header, 6)
            }
            ICMP | ICMP6 => {
                self.counts.icmp += 1;
                ("ICMP", if protocol == ICMP { sum(&[data]) } else { with_pseudo_header }, 2)
            }
            _ => return Ok(()),
        };
        if sum != 0xffff {
            return Err(format!("{name} checksum {:#06x} of {} bytes", be16(data, field)?, data.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame whose IPv4 packet carries `data`, with the header's checksum right.
    fn ipv4(protocol: u8, flags: u16, data: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        header[2..4].copy_from_slice(&u16::try_from(20 + data.len()).unwrap().to_be_bytes());
        header[6..8].copy_from_slice(&flags.to_be_bytes());
        let checksum = !sum(&[&header]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [&[0; 12], [8, 0].as_slice(), &header, data].concat()
    }

    fn icmp(length: usize) -> Vec<u8> {
        let mut message = vec![7; length];
        message[2..4].fill(0);
        let checksum = !sum(&[&message]);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        message
    }

    /// Every bit of a packet that a checksum covers decides: turned over, the packet is refused.
    #[test]
    fn every_bit_counts() {
        let udp6 = hex("6000000000091140fd000001000000000000000000000001fd000001000000000000000000000002");
        let mut datagram = hex("1f4000070009000061");
        let length = [0, 0, 0, 9, 0, 0, 0, 17];
        let checksum = !sum(&[&udp6[8..], &length, &datagram]);
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        let frame = [vec![0; 12], vec![0x81, 0, 0, 7, 0x86, 0xdd], udp6, datagram].concat();
        let mut checker = Checker::default();
        assert_eq!(checker.check(&frame), Ok(()));
        assert_eq!((checker.counts.udp, checker.counts.tagged), (1, 1));
        for bit in 0..(32 + 9) * 8 {
            let mut bad = frame.clone();
            bad[18 + 8 + bit / 8] ^= 1 << (bit % 8);
            assert!(checker.check(&bad).is_err(), "bit {bit}");
        }
        let frame = ipv4(ICMP, 0, &icmp(61));
        assert_eq!(checker.check(&frame), Ok(()));
        for bit in 0..(20 + 61) * 8 {
            let mut bad = frame.clone();
            bad[14 + bit / 8] ^= 1 << (bit % 8);
            assert!(checker.check(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn padding_is_not_part_of_a_packet() {
        let padded = [ipv4(ICMP, 0, &icmp(8)), vec![9; 18]].concat();
        assert_eq!(Checker::default().check(&padded), Ok(()));
    }

    #[test]
    fn fragments_are_judged_together_in_any_order() {
        let message = icmp(40);
        let pieces =
            [ipv4(ICMP, 0x2000, &message[..16]), ipv4(ICMP, 0x2002, &message[16..32]), ipv4(ICMP, 4, &message[32..])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut checker = Checker::default();
            for piece in order {
                assert_eq!(checker.incomplete(), usize::from(piece != order[0]));
                assert_eq!(checker.check(&pieces[piece]), Ok(()));
            }
            assert_eq!((checker.incomplete(), checker.counts.icmp, checker.counts.fragments), (0, 1, 3));
            let mut bad = pieces.clone();
            bad[1][40] ^= 1;
            let results: Vec<_> = order.iter().map(|&piece| checker.check(&bad[piece])).collect();
            assert!(results[2].is_err() && results[0].is_ok(), "{results:?}");
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }
}
