//! Strategies that make packets for the offload tests.

use labsw_dataplane::offload::MIN_SEGMENT_BYTES;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Packet, noise};

/// A multiple of `unit` bytes, at most `most`.
fn options(unit: usize, most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most).prop_map(move |mut bytes| {
        bytes.truncate(bytes.len() / unit * unit);
        bytes
    })
}

/// An IPv6 extension header.
fn extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (select(&[0u8, 43, 60][..]), 1usize..=3, any::<u32>()).prop_map(|(kind, units, seed)| {
        let mut bytes = noise(units * 8, seed);
        bytes[1] = (units - 1) as u8;
        (kind, bytes)
    })
}

/// Any TCP or UDP packet that can be cut.
pub fn any_packet() -> impl Strategy<Value = Packet> {
    (packet(), any::<bool>()).prop_map(|(packet, udp)| Packet { udp, ..packet })
}

/// Any TCP packet that can be cut.
pub fn packet() -> impl Strategy<Value = Packet> {
    let tags = vec((select(&[0x8100u16, 0x88a8][..]), any::<u16>()), 0..=2);
    let network = (any::<bool>(), options(4, 40), vec(extension(), 0..=3), any::<u16>());
    let payload = (prop_oneof![0usize..200, 0usize..5000, 60_000usize..65_200], any::<u32>());
    (tags, network, options(4, 40), any::<(u8, u32)>(), payload).prop_map(
        |(tags, (v6, ip_options, extensions, identification), tcp_options, (flags, sequence), (bytes, seed))| Packet {
            tags,
            v6,
            ip_options: if v6 { vec![] } else { ip_options },
            extensions: if v6 { extensions } else { vec![] },
            udp: false,
            tcp_options,
            flags,
            sequence,
            identification,
            payload: noise(bytes, seed),
        },
    )
}

/// Any size of segments.
pub fn size() -> impl Strategy<Value = u16> {
    prop_oneof![MIN_SEGMENT_BYTES..100, 500u16..1500, MIN_SEGMENT_BYTES..=65_000]
}
