//! The four modes, as tables: what each kind of frame is classified as, and how it leaves.

use super::*;
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
    // (VLAN, outer tag, inner tag) → access, trunk, native-tagged, native-untagged.
    let rows = [
        ((10, None, false), [keep, out, insert([0x81, 0, 0, 10]), keep]),
        ((10, tag(0x8100, 0), false), [strip, out, rewrite([0x81, 0, 0xb0, 10]), strip]),
        ((10, tag(0x88a8, 0), false), [strip, out, rewrite([0x88, 0xa8, 0xb0, 10]), strip]),
        ((10, tag(0x8100, 10), false), [strip, out, keep, strip]),
        ((10, tag(0x88a8, 10), true), [Err(DoubleTag), out, keep, Err(DoubleTag)]),
        ((10, tag(0x8100, 0), true), [Err(DoubleTag), out, rewrite([0x81, 0, 0xb0, 10]), Err(DoubleTag)]),
        ((20, None, false), [out, insert([0x81, 0, 0, 20]), insert([0x81, 0, 0, 20]), insert([0x81, 0, 0, 20])]),
        (
            (20, tag(0x8100, 0), true),
            [out, rewrite([0x81, 0, 0xb0, 20]), rewrite([0x81, 0, 0xb0, 20]), rewrite([0x81, 0, 0xb0, 20])],
        ),
        ((20, tag(0x88a8, 20), true), [out, keep, keep, keep]),
        ((39, tag(0x8100, 39), false), [out, keep, keep, keep]),
        ((40, tag(0x8100, 40), false), [out, out, out, out]),
    ];
    for ((in_vlan, outer, inner), expected) in rows {
        for (mode, expected) in VlanMode::ALL.into_iter().zip(expected) {
            assert_eq!(
                port(mode).egress(vid(in_vlan), outer, inner),
                expected,
                "{mode} VLAN {in_vlan} {outer:x?} {inner}"
            );
        }
    }
}

#[test]
fn settings_that_do_not_fit_the_mode_are_refused() {
    use VlanMode::{Access, NativeTagged, NativeUntagged, Trunk};
    for (mode, tag, trunks, error) in [
        (Access, None, &[][..], VlanError::TagMissing(Access)),
        (NativeTagged, None, &[5..=6], VlanError::TagMissing(NativeTagged)),
        (NativeUntagged, None, &[], VlanError::TagMissing(NativeUntagged)),
        (Trunk, Some(1), &[], VlanError::TagNotAllowed),
        (Access, Some(1), &[5..=6], VlanError::TrunksNotAllowed),
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
