//! Headers written byte by byte, cut at every length.

use super::*;

const MACS: [u8; 12] = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];

fn frame(behind_macs: &[u8]) -> Vec<u8> {
    [&MACS, behind_macs, &[0; 46]].concat()
}

#[test]
fn untagged_tagged_and_twice_tagged() {
    let header = Header::parse(&frame(&[0x08, 0x00])).unwrap();
    assert_eq!(header.dst, Mac::new([0x52, 0x54, 0, 0, 0, 2]));
    assert_eq!(header.src, Mac::new([0x52, 0x54, 0, 0, 0, 1]));
    assert_eq!((header.outer, header.inner, header.ethertype, header.l3_offset), (None, None, 0x0800, 14));

    let header = Header::parse(&frame(&[0x81, 0x00, 0xb0, 0x14, 0x86, 0xdd])).unwrap();
    let tag = Tag { tpid: 0x8100, tci: 0xb014 };
    assert_eq!((header.outer, header.inner, header.ethertype, header.l3_offset), (Some(tag), None, 0x86dd, 18));
    assert_eq!(tag.vid(), 20);

    let header = Header::parse(&frame(&[0x88, 0xa8, 0, 10, 0x81, 0, 0x0f, 0xff, 0x08, 0x06])).unwrap();
    let tag = Tag { tpid: 0x88a8, tci: 10 };
    let inner = Tag { tpid: 0x8100, tci: 0x0fff };
    assert_eq!((header.outer, header.inner, header.ethertype, header.l3_offset), (Some(tag), Some(inner), 0x0806, 22));

    // Other types that carry VLAN tags elsewhere are payload here.
    assert_eq!(Header::parse(&frame(&[0x91, 0x00, 0, 10, 0x08, 0x00])).unwrap().outer, None);
}

#[test]
fn a_frame_is_a_runt_exactly_up_to_the_end_of_its_header() {
    for (behind_macs, header_bytes) in [
        (&[0x08u8, 0x00][..], 14),
        (&[0x81, 0, 0, 10, 0x08, 0], 18),
        (&[0x88, 0xa8, 0, 10, 0x81, 0, 0, 20, 0x08, 0], 22),
    ] {
        let whole = frame(behind_macs);
        for len in 0..whole.len() {
            let parsed = Header::parse(&whole[..len]);
            if len < header_bytes {
                assert_eq!(parsed, Err(DropReason::Runt), "{len} of {behind_macs:x?}");
            } else {
                assert_eq!(parsed, Header::parse(&whole), "{len} of {behind_macs:x?}");
                assert!(parsed.is_ok());
            }
        }
    }
}

#[test]
fn group_sources_and_vlan_4095_are_refused() {
    let mut bad = frame(&[0x81, 0, 0, 10, 0x08, 0]);
    bad[6] |= 1;
    assert_eq!(Header::parse(&bad), Err(DropReason::SourceGroupAddress));
    assert_eq!(Header::parse(&bad[..18]), Err(DropReason::SourceGroupAddress));
    let reserved = frame(&[0x81, 0, 0xef, 0xff, 0x08, 0]);
    assert_eq!(Header::parse(&reserved), Err(DropReason::VidReserved));
    // Only the outer tag is judged.
    assert!(Header::parse(&frame(&[0x81, 0, 0, 10, 0x81, 0, 0x0f, 0xff, 8, 0])).is_ok());
}

/// Two frames have the same header if all bytes of it are the same, and none behind them counts.
#[test]
fn a_header_is_the_same_in_every_byte() {
    let types: [&[u8]; 3] =
        [&[0x08, 0x00], &[0x81, 0, 0xb0, 0x14, 0x86, 0xdd], &[0x88, 0xa8, 0, 10, 0x81, 0, 0, 1, 8, 6]];
    for (types, l3_offset) in types.into_iter().zip([14u8, 18, 22]) {
        let bytes = frame(types);
        let words = |bytes: &[u8]| HeaderWords::read(bytes).unwrap();
        let mask = HeaderWords::third_word_mask(l3_offset);
        assert_eq!(words(&bytes).header().unwrap().l3_offset, l3_offset);
        assert_eq!(words(&bytes).is_untagged(), l3_offset == 14);
        assert!(words(&bytes).same_header(mask, words(&bytes)));
        for at in 0..22 {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                let same = at >= usize::from(l3_offset);
                assert_eq!(words(&bytes).same_header(mask, words(&other)), same, "byte {at} of {l3_offset}");
                assert_eq!(words(&other).same_header(mask, words(&bytes)), same, "byte {at} of {l3_offset}");
            }
        }
    }
}

#[test]
fn neighbours_talk_to_link_local_addresses_or_pause() {
    let header = |dst: [u8; 6], ethertype: [u8; 2]| {
        Header::parse(&[&dst[..], &MACS[6..], &ethertype, &[0; 46]].concat()).unwrap()
    };
    for (dst, ethertype, near, control) in [
        ([0x01, 0x80, 0xc2, 0, 0, 0], [0x88, 0xcc], true, false),
        ([0x01, 0x80, 0xc2, 0, 0, 1], [0x88, 0xcc], true, true),
        ([0x01, 0x80, 0xc2, 0, 0, 0x0f], [8, 0], true, false),
        ([0x01, 0x80, 0xc2, 0, 0, 0x10], [8, 0], false, false),
        ([0x01, 0x80, 0xc2, 0, 1, 0], [8, 0], false, false),
        ([0xff; 6], [8, 0], false, false),
        ([2, 0, 0, 0, 0, 1], [8, 0], false, false),
        ([2, 0, 0, 0, 0, 1], [0x88, 0x08], true, true),
    ] {
        let header = header(dst, ethertype);
        assert_eq!(
            (header.is_of_neighbours(), header.is_mac_control()),
            (near, control),
            "{dst:02x?} {ethertype:02x?}"
        );
    }
}
