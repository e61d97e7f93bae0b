//! Headers byte by byte, with their checksums; questions and answers between two remote ends; bounds.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::wire::internet_sum;

const A: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 0xa]);
const B: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 0xb]);
const SECOND: u64 = 1_000_000_000;

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
}

fn spec(tunnel: Tunnel, source: IpAddr, destination: IpAddr) -> RemoteSpec {
    let next_hop = NextHop::Address(destination);
    RemoteSpec { tunnel, mac: A, vlan: None, source, destination, next_hop, strip_tag: false }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An untagged IPv4 frame of 60 bytes.
fn copy() -> Vec<u8> {
    let mut copy = [&B.octets()[..], &A.octets(), &[8, 0, 0x45]].concat();
    copy.resize(60, 7);
    copy
}

#[test]
fn vxlan_in_ipv4() {
    let remote = Remote::new(spec(Tunnel::Vxlan(0x0012_3456), v4(1), v4(2)));
    let head = remote.head(B, &copy(), false, None);
    let bytes = head.bytes();
    assert_eq!(bytes.len(), 14 + remote.spec().overhead_bytes() as usize);
    assert_eq!(hex(&bytes[..14]), "52540000000b52540000000a0800");
    assert_eq!(hex(&bytes[14..24]), "45000060000040004011", "20 + 8 + 8 + 60 bytes, not to be fragmented, UDP");
    assert_eq!(internet_sum(&[&bytes[14..34]]), 0xffff, "checksum of the header");
    assert_eq!(hex(&bytes[26..34]), "c0000201c0000202");
    assert_eq!((bytes[34] & 0xc0, hex(&bytes[36..42])), (0xc0, "12b5004c0000".to_owned()), "port 4789, no checksum");
    assert_eq!(hex(&bytes[42..50]), "0800000012345600");
    // Both directions of a conversation have one port.
    let back = [&copy()[6..12], &copy()[..6], &copy()[12..]].concat();
    assert_eq!(remote.head(B, &back, false, None).bytes()[34..36], bytes[34..36]);
}

#[test]
fn vxlan_in_ipv6_has_a_checksum() {
    let remote = Remote::new(spec(Tunnel::Vxlan(5), v6(1), v6(2)));
    let copy = &copy()[..59];
    let head = remote.head(B, copy, false, None);
    let bytes = head.bytes();
    assert_eq!((bytes.len(), hex(&bytes[12..22])), (14 + 40 + 16, "86dd60000000004b1140".to_owned()));
    let pseudo = [&bytes[22..54], &[0, 0, 0, 0x4b, 0, 0, 0, 17]].concat();
    assert_eq!(internet_sum(&[&pseudo, &bytes[54..], copy]), 0xffff);
}

#[test]
fn erspan_numbers_its_packets_and_tells_of_the_tag() {
    let tagged = RemoteSpec { vlan: Vid::try_from(30).ok(), ..spec(Tunnel::Erspan(1023), v4(1), v4(2)) };
    let remote = Remote::new(tagged.clone());
    let head = |cut, tag| remote.head(B, &copy(), cut, tag).bytes().to_vec();
    let first = head(false, None);
    assert_eq!(hex(&first[12..18]), "8100001e0800");
    assert_eq!((first[27], internet_sum(&[&first[18..38]])), (47, 0xffff));
    assert_eq!(hex(&first[38..]), "100088be00000000100003ff00000000");
    // Priority 5, VLAN 20, still there; cut.
    assert_eq!(hex(&head(true, Some(0xa014))[38..]), "100088be000000011014bfff00000000");
    let stripped = Remote::new(RemoteSpec { strip_tag: true, ..tagged });
    assert_eq!(hex(&stripped.head(B, &copy(), false, Some(20)).bytes()[38..]), "100088be00000000101413ff00000000");
    let wide = Remote::new(spec(Tunnel::Erspan(1), v6(1), v6(2)));
    let wide = wide.head(B, &copy(), false, None);
    assert_eq!((wide.bytes().len(), hex(&wide.bytes()[14..22])), (14 + 40 + 16, "60000000004c2f40".to_owned()));
}

/// Two machines that look for each other, in a VLAN or none.
fn two(source: IpAddr, other: IpAddr, vlan: Option<Vid>) -> [Remote; 2] {
    let one = RemoteSpec { vlan, ..spec(Tunnel::Vxlan(1), source, other) };
    let two = RemoteSpec { vlan, mac: B, ..spec(Tunnel::Vxlan(1), other, source) };
    [Remote::new(one), Remote::new(two)]
}

#[test]
fn the_next_hop_is_asked_for_and_the_own_address_is_answered_for() {
    for vlan in [None, Vid::try_from(30).ok()] {
        for (source, other) in [(v4(1), v4(2)), (v6(1), v6(0xabcd))] {
            let [one, two] = two(source, other, vlan);
            assert_eq!((one.station(), one.next_due()), (None, 0));
            let question = one.message(0).unwrap();
            assert!(one.concerns(question.bytes()) && question.bytes().len() <= 90);
            assert_eq!((one.message(0), one.next_due()), (None, ASK_NS));
            two.hear(question.bytes(), 0);
            assert_eq!(two.station(), Some(A), "who asks says where it is");
            one.hear(two.message(0).unwrap().bytes(), 1);
            assert_eq!(one.station(), Some(B), "{source} {vlan:?}");
        }
    }
}

#[test]
fn only_its_own_address_in_its_own_vlan_is_answered_for() {
    for other in [two(v4(1), v4(9), None), two(v6(1), v6(9), None)] {
        let [asker, _] = other;
        let stranger = if asker.spec().source.is_ipv4() { (v4(2), v4(3)) } else { (v6(2), v6(3)) };
        let [_, listener] = two(stranger.0, stranger.1, None);
        let question = asker.message(0).unwrap();
        listener.hear(question.bytes(), 0);
        assert_eq!(listener.answers().waiting.len(), 0, "another address");
        // Broken at any byte, or cut, or in another VLAN: nothing is learned, and nobody panics.
        let [_, right] =
            two(asker.spec().source, if asker.spec().source.is_ipv4() { v4(9) } else { v6(9) }, Vid::try_from(5).ok());
        right.hear(question.bytes(), 0);
        assert_eq!(right.station(), None, "another VLAN");
        for end in 0..question.bytes().len() {
            let [_, right] = two(asker.spec().source, if asker.spec().source.is_ipv4() { v4(9) } else { v6(9) }, None);
            right.hear(&question.bytes()[..end], 0);
            assert_eq!(right.station(), None, "cut to {end}");
        }
    }
    // A message of IPv6 that came from another link, or whose checksum is wrong.
    let [asker, listener] = two(v6(1), v6(2), None);
    let question = asker.message(0).unwrap();
    for at in [21, 57, 62, 70, 85] {
        let mut bytes = question.bytes().to_vec();
        bytes[at] ^= 1;
        listener.hear(&bytes, 0);
        assert_eq!((listener.station(), listener.answers().waiting.len()), (None, 0), "byte {at}");
    }
}

#[test]
fn somebody_who_wants_the_address_hears_that_it_is_taken() {
    let [_, listener] = two(v6(1), v6(2), None);
    let claim = neighbour::question(v6(2), Ipv6Addr::UNSPECIFIED.into(), A, None).unwrap();
    listener.hear(claim.bytes(), 0);
    let answer = listener.message(0).unwrap();
    assert_eq!(hex(&answer.bytes()[..12]), "33330000000152540000000b");
    assert_eq!(listener.station(), None, "nobody has the unspecified address");
}

#[test]
fn answers_and_questions_have_their_bounds() {
    let [asker, listener] = two(v4(1), v4(2), None);
    let question = asker.message(0).unwrap();
    (0..1000).for_each(|ms| listener.hear(question.bytes(), ms * 1_000_000));
    assert_eq!(listener.answers().waiting.len(), ANSWERS);
    let mut answers = 0;
    for ms in 1000..3000u64 {
        listener.hear(question.bytes(), ms * 1_000_000);
        while listener.is_waiting.load(Ordering::Relaxed) {
            answers += usize::from(listener.message(ms * 1_000_000).is_some());
        }
    }
    assert!((ANSWERS..=ANSWERS + 21).contains(&answers), "{answers}");
    // Once a second while nobody answers, less often then, and forgotten after a silence.
    let questions =
        |from: u64, to: u64| (from * 10..to * 10).filter(|tenth| asker.message(tenth * SECOND / 10).is_some()).count();
    assert!((9..=10).contains(&questions(0, 10)));
    let mut reply = question.bytes().to_vec();
    asker.hear(neighbour::answer(&neighbour::read(&reply, None).unwrap(), v4(2), B, None).bytes(), 10 * SECOND);
    assert_eq!(asker.station(), Some(B));
    assert!((1..=2).contains(&questions(10, 29)));
    assert!(questions(30, 75) > 30 && asker.station().is_none());
    // A group address is nobody's.
    reply = neighbour::answer(&neighbour::read(&reply, None).unwrap(), v4(2), Mac::BROADCAST, None).bytes().to_vec();
    asker.hear(&reply, 80 * SECOND);
    assert_eq!(asker.station(), None);
    // A given station is never asked for.
    let given = RemoteSpec { next_hop: NextHop::Station(B), ..asker.spec().clone() };
    let given = Remote::new(given);
    assert_eq!((given.station(), given.message(9 * SECOND), given.next_due()), (Some(B), None, u64::MAX));
}
