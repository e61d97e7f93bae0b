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
