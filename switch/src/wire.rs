//! Facts of the wire that several files need, each once: EtherTypes, tag types, lengths; and one reader of 16-bit
//! numbers, and the checksum of IP.
//!
//! The walks over headers are not here: how many tags, options and extension headers a walk passes over is a policy,
//! and differs between guards, snooping, offloads and flow hashes.
//!
//! References: IEEE 802.3 clause 3.2; IEEE 802.1Q clause 9; IANA "IEEE 802 Numbers".

/// Length of an Ethernet header without tags, bytes.
pub const ETHERNET_HEADER_BYTES: u32 = 14;
/// Where the first tag or the EtherType begins: after two addresses.
pub const TAG_OFFSET: usize = 12;
/// Length of a VLAN tag, bytes.
pub const TAG_BYTES: usize = 4;

/// TPID of a customer VLAN tag (802.1Q table 9-1).
pub const TPID_C_TAG: u16 = 0x8100;
/// TPID of a service VLAN tag (802.1Q table 9-1).
pub const TPID_S_TAG: u16 = 0x88a8;
/// TPID of outer tags before 802.1ad. No tag to the switch; a walk that looks for an IP header may pass over it.
pub const TPID_OLD_STACKED: u16 = 0x9100;
/// The bits of a TCI that are the VLAN id; above them stand DEI and PCP.
pub const TCI_VID_MASK: u16 = 0x0fff;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of MAC control frames: PAUSE, PFC (802.3 clause 31).
pub const ETHERTYPE_MAC_CONTROL: u16 = 0x8808;
/// IP protocol number of TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6 (RFC 4443).
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Length of an IPv6 header without extension headers, bytes (RFC 8200).
pub const IPV6_HEADER_BYTES: usize = 40;
/// More fragments, and the fragment offset: the bits that are zero in a whole IPv4 packet (RFC 791).
pub const IPV4_FRAGMENT: u16 = 0x3fff;

/// The 16-bit number in network order at `at`; `None` if the bytes end before it does.
#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The ones' complement sum of RFC 1071 over several pieces, each of an even number of bytes but the last; not
/// complemented. Of a message with its checksum the sum is 0xffff.
///
/// For messages: the sums of offloads, for which speed counts, are the data plane's.
pub fn internet_sum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2)).map(|word| match word {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => 0,
    });
    words.fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}
