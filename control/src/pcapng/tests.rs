//! The bytes, one block by hand, and the whole as tshark reads it.

use super::*;

fn packet_of(bytes: &[u8], comment: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (interface, time_ns, wire_bytes) = (1, 0x0102_0304_0506_0708, 90);
    packet(&mut out, &Packet { interface, time_ns, bound: Bound::Outbound, wire_bytes, bytes, comment });
    out
}

#[test]
fn an_enhanced_packet_block_is_as_specified() {
    let expected = [
        &[6, 0, 0, 0, 60, 0, 0, 0][..],
        &[1, 0, 0, 0],
        &[4, 3, 2, 1, 8, 7, 6, 5],
        &[5, 0, 0, 0, 90, 0, 0, 0],
        &[9, 9, 9, 9, 9, 0, 0, 0],
        &[1, 0, 2, 0, b't', b'x', 0, 0],
        &[2, 0, 4, 0, 2, 0, 0, 0],
        &[0, 0, 0, 0],
        &[60, 0, 0, 0],
    ];
    assert_eq!(packet_of(&[9; 5], "tx"), expected.concat());
}

#[test]
fn every_block_is_as_long_as_it_says_whatever_is_in_it() {
    for bytes in 0..9 {
        for comment in ["", "é", "tx dropped at dc01: vlan_not_member", &"ü".repeat(70_000)] {
            let block = packet_of(&vec![1; bytes], comment);
            let length = u32::try_from(block.len()).unwrap().to_le_bytes();
            assert!(block.len().is_multiple_of(4) && block.len() < 2 * MAX_TEXT_BYTES);
            assert_eq!((&block[4..8], &block[block.len() - 4..]), (&length[..], &length[..]));
        }
    }
    // A cut never splits a character.
    assert_eq!(cut(&"ü".repeat(MAX_TEXT_BYTES)).len(), MAX_TEXT_BYTES);
    assert_eq!(cut(&format!("a{}", "ü".repeat(MAX_TEXT_BYTES))).len(), MAX_TEXT_BYTES - 1);
}
