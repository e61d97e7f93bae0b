//! The modes, as tables: what each kind of frame is classified as, and how it leaves.

use super::*;

/// How a frame of the VLAN leaves the port when it goes to that alone.
fn egress(port: &PortVlan, vid: Vid, tags: Tags) -> Result<TagEdit, DropReason> {
    edit(port.admit(vid, tags)?, vid, tags)
}
use crate::DropReason::{DoubleTag, TaggedNotAllowed, UntaggedNotAllowed, VidReserved, VlanNotMember};

fn vid(vid: u16) -> Vid {
    Vid::try_from(vid).unwrap()
}

/// A tag with priority 5 and DEI.
fn tag(tpid: u16, vid: u16) -> Option<Tag> {
    Some(Tag { tpid, tci: 0xb000 | vid })
}

/// VLAN 10 is the tag where there is one, 20 and 30-39 are trunks where there are any.
fn port(mode: VlanMode) -> PortVlan {
    match mode {
        VlanMode::Access => PortVlan::new(mode, Some(10), &[]),
        VlanMode::Trunk => PortVlan::new(mode, None, &[20..=20, 30..=39]),
        VlanMode::NativeTagged | VlanMode::NativeUntagged => PortVlan::new(mode, Some(10), &[20..=20, 30..=39]),
        VlanMode::Dot1qTunnel => PortVlan::new(mode, Some(10), &[]),
    }
    .unwrap()
}

#[test]
fn classification_of_every_kind_of_frame_in_every_mode() {
    let native = [Ok(10), Ok(10), Ok(10), Ok(20), Ok(39), Err(VlanNotMember), Err(VidReserved)];
    // Frame:        untagged, priority, VLAN 10, 20, 39, 40, 4095.
    let frames =
        [None, tag(0x8100, 0), tag(0x8100, 10), tag(0x8100, 20), tag(0x88a8, 39), tag(0x8100, 40), tag(0x8100, 4095)];
    let no_tags = Err(TaggedNotAllowed);
    let access = [Ok(10), Ok(10), no_tags, no_tags, no_tags, no_tags, Err(VidReserved)];
    let no_untagged = Err(UntaggedNotAllowed);
    let trunk = [no_untagged, no_untagged, Err(VlanNotMember), Ok(20), Ok(39), Err(VlanNotMember), Err(VidReserved)];
    for (mode, expected) in [
        (VlanMode::Access, access),
        (VlanMode::Trunk, trunk),
        (VlanMode::NativeTagged, native),
        (VlanMode::NativeUntagged, native),
        (VlanMode::Dot1qTunnel, [Ok(10); 7]),
    ] {
        for (outer, expected) in frames.into_iter().zip(expected) {
            assert_eq!(port(mode).classify(outer).map(Vid::get), expected, "{mode} {outer:x?}");
        }
    }
}

#[test]
fn egress_of_every_kind_of_frame_in_every_mode() {
    let keep = Ok(TagEdit::KEEP);
    let strip = Ok(TagEdit { strip_bytes: 4, insert: None });
    let insert = |tag| Ok(TagEdit { strip_bytes: 0, insert: Some(tag) });
    let rewrite = |tag| Ok(TagEdit { strip_bytes: 4, insert: Some(tag) });
    let out = Err(VlanNotMember);
    let c = |vid| tag(0x8100, vid);
    // (VLAN, outer tag, inner tag) → access, trunk, native-tagged, native-untagged, dot1q-tunnel.
    let rows = [
        ((10, None, None), [keep, out, insert([0x81, 0, 0, 10]), keep, keep]),
        ((10, c(0), None), [strip, out, rewrite([0x81, 0, 0xb0, 10]), strip, strip]),
        ((10, tag(0x88a8, 0), None), [strip, out, rewrite([0x88, 0xa8, 0xb0, 10]), strip, strip]),
        ((10, c(10), None), [strip, out, keep, strip, strip]),
        ((10, tag(0x88a8, 10), c(7)), [Err(DoubleTag), out, keep, Err(DoubleTag), strip]),
        ((10, c(0), c(7)), [Err(DoubleTag), out, rewrite([0x81, 0, 0xb0, 10]), Err(DoubleTag), strip]),
        // From a tunnel port: the customer's tag stands where that of the VLAN would.
        ((10, None, c(7)), [Err(DoubleTag), out, insert([0x81, 0, 0, 10]), Err(DoubleTag), keep]),
        ((20, None, None), [out, insert([0x81, 0, 0, 20]), insert([0x81, 0, 0, 20]), insert([0x81, 0, 0, 20]), out]),
        (
            (20, c(0), c(7)),
            [out, rewrite([0x81, 0, 0xb0, 20]), rewrite([0x81, 0, 0xb0, 20]), rewrite([0x81, 0, 0xb0, 20]), out],
        ),
        ((20, tag(0x88a8, 20), c(7)), [out, keep, keep, keep, out]),
        ((39, c(39), None), [out, keep, keep, keep, out]),
        ((40, c(40), None), [out, out, out, out, out]),
    ];
    for ((in_vlan, outer, inner), expected) in rows {
        for (mode, expected) in VlanMode::ALL.into_iter().zip(expected) {
            let tags = Tags { outer, inner, tpid: TPID_C_TAG, customer_bytes: 0 };
            let edit = egress(&port(mode), vid(in_vlan), tags);
            assert_eq!(edit, expected, "{mode} VLAN {in_vlan} {outer:x?} {inner:x?}");
        }
    }
}

#[test]
fn a_tunnel_takes_the_customers_tag_for_payload() {
    let header = |tags: &[[u8; 4]]| {
        let bytes = [&[0x52; 12], tags.concat().as_slice(), &[8, 0], &[0; 46]].concat();
        Header::parse(&bytes).unwrap()
    };
    let tunnel = PortVlan::tunnel_in(vid(100), Tunnel { tpid: 0x9999, ..Tunnel::default() });
    let (customer, second) = (Some(Tag { tpid: 0x8100, tci: 0x6007 }), [0x88, 0xa8, 0, 9]);
    for (tags, inner, customer_bytes) in
        [(&[][..], None, 0), (&[[0x81, 0, 0x60, 7]], customer, 4), (&[[0x81, 0, 0x60, 7], second], customer, 8)]
    {
        let tags = tunnel.tags(&header(tags));
        assert_eq!(tags, Tags { outer: None, inner, tpid: 0x9999, customer_bytes });
        let pushed = egress(&PortVlan::default(), vid(100), tags).unwrap();
        assert_eq!(pushed, TagEdit { strip_bytes: 0, insert: Some([0x99, 0x99, 0, 100]) });
    }
    let carried = header(&[[0x88, 0xa8, 0, 100], [0x81, 0, 0x60, 7]]);
    let tags = PortVlan::default().tags(&carried);
    assert_eq!((tags.outer, tags.inner, tags.customer_bytes), (carried.outer, customer, 0));
    assert_eq!(PortVlan::new(VlanMode::Dot1qTunnel, Some(100), &[]).unwrap().tunnel(), Some(&Tunnel::default()));
    assert_eq!(Tunnel::default().tpid, 0x88a8);
}

#[test]
fn customer_vlans_that_are_not_listed_pass_neither_way() {
    let tagged = VlanSet::from_ranges(&[5..=9, 20..=20]).unwrap();
    let plain = [None, tag(0x8100, 0)];
    let ids = [5, 9, 20, 4, 21].map(|vid| tag(0x88a8, vid));
    for untagged in [false, true] {
        let cvlans = Some(CustomerVlans { untagged, tagged: tagged.clone() });
        let port = PortVlan::tunnel_in(vid(100), Tunnel { cvlans, ..Tunnel::default() });
        let of_plain = if untagged { Ok(()) } else { Err(UntaggedNotAllowed) };
        let of_ids = [Ok(()), Ok(()), Ok(()), Err(VlanNotMember), Err(VlanNotMember)];
        for (customer, expected) in plain.into_iter().zip([of_plain; 2]).chain(ids.into_iter().zip(of_ids)) {
            assert_eq!(port.classify(customer).map(drop), expected, "in {customer:x?}");
            let tags = Tags { outer: tag(0x88a8, 100), inner: customer, tpid: TPID_C_TAG, customer_bytes: 0 };
            assert_eq!(egress(&port, vid(100), tags).map(drop), expected, "out {customer:x?}");
        }
        assert_eq!(port.classify(tag(0x8100, 4095)), Err(VidReserved));
    }
}

#[test]
fn settings_that_do_not_fit_the_mode_are_refused() {
    use VlanMode::{Access, Dot1qTunnel, NativeTagged, NativeUntagged, Trunk};
    for (mode, tag, trunks, error) in [
        (Access, None, &[][..], VlanError::TagMissing(Access)),
        (NativeTagged, None, &[5..=6], VlanError::TagMissing(NativeTagged)),
        (NativeUntagged, None, &[], VlanError::TagMissing(NativeUntagged)),
        (Trunk, Some(1), &[], VlanError::TagNotAllowed),
        (Access, Some(1), &[5..=6], VlanError::TrunksNotAllowed(Access)),
        (Dot1qTunnel, None, &[], VlanError::TagMissing(Dot1qTunnel)),
        (Dot1qTunnel, Some(1), &[5..=6], VlanError::TrunksNotAllowed(Dot1qTunnel)),
        (Access, Some(0), &[], VlanError::VidOutOfRange(0)),
        (Access, Some(4095), &[], VlanError::VidOutOfRange(4095)),
        (Trunk, None, &[1..=4095], VlanError::VidOutOfRange(4095)),
        (Trunk, None, &[RangeInclusive::new(29, 20)], VlanError::EmptyRange { start: 29, end: 20 }),
    ] {
        assert_eq!(PortVlan::new(mode, tag, trunks), Err(error));
    }
}

#[test]
fn no_trunks_means_all_and_the_native_vlan_need_not_be_listed() {
    let all = PortVlan::new(VlanMode::Trunk, None, &[]).unwrap();
    assert!(all.is_member(vid(1)) && all.is_member(vid(4094)));
    assert_eq!(PortVlan::default(), PortVlan::new(VlanMode::NativeUntagged, Some(1), &[]).unwrap());
    let native = port(VlanMode::NativeTagged);
    assert!(native.is_member(vid(10)) && !native.trunks().contains(vid(10)));
    assert_eq!(PortVlan::access(vid(10)), port(VlanMode::Access));
}

#[test]
fn names_and_ids_round_trip() {
    for mode in VlanMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
    }
    assert_eq!("Access".parse::<VlanMode>(), Err(VlanError::UnknownMode));
    assert_eq!("4094".parse::<Vid>().unwrap().to_string(), "4094");
    assert_eq!("ten".parse::<Vid>(), Err(VlanError::NotAVid));
    assert_eq!(size_of::<Option<Vid>>(), 2);
}

#[test]
fn sets_are_listed_as_ranges() {
    let set = VlanSet::from_ranges(&[20..=29, 10..=10, 25..=31, 4094..=4094, 63..=64]).unwrap();
    assert_eq!(set.ranges().collect::<Vec<_>>(), [10..=10, 20..=31, 63..=64, 4094..=4094]);
    assert_eq!(set.len(), 16);
    assert_eq!(set.iter().collect::<VlanSet>(), set);
    assert_eq!(VlanSet::ALL.ranges().collect::<Vec<_>>(), [1..=4094]);
    assert_eq!(VlanSet::EMPTY.ranges().next(), None);
    assert!(VlanSet::default().is_empty() && !set.is_empty());
}
