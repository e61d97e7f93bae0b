//! Small parts of the crate's interface, each with what it promises: sets of ports, tag edits, guards that are equal,
//! names, chances at their ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use labsw_switch::guard::{GuardSpec, GuardState, Guards};
use labsw_switch::impair::{Chance, Contradiction, ImpairSpec, Impairment, Verdict};
use labsw_switch::multicast::{Family, Look, PortSet, look};
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::tag_edit::TagEdit;
use labsw_switch::{MAX_PORTS, PortId};

#[test]
fn a_set_has_the_ports_that_were_put_in_and_no_others() {
    let last = u16::try_from(MAX_PORTS - 1).unwrap();
    for port in [0, 1, 7, 63, 64, 65, 127, 128, 500, last] {
        let set: PortSet = [PortId(port)].into_iter().collect();
        let has: Vec<u16> = (0..=last).filter(|&other| set.contains(PortId(other))).collect();
        assert_eq!(has, [port]);
    }
    let mut all: PortSet = (0..=last).map(PortId).collect();
    assert!((0..=last).all(|port| all.contains(PortId(port))));
    all.insert(PortId(last + 1));
    assert!(!all.contains(PortId(last + 1)), "there is no such port");
}

#[test]
fn an_edit_keeps_a_frame_if_nothing_goes_and_nothing_comes() {
    let tag = Some([0x81, 0, 0, 10]);
    for (strip_bytes, insert, keeps, growth) in
        [(0, None, true, 0), (4, None, false, -4), (0, tag, false, 4), (4, tag, false, 0)]
    {
        let edit = TagEdit { strip_bytes, insert };
        assert_eq!((edit.keeps(), edit.growth_bytes()), (keeps, growth), "{edit:?}");
    }
}

#[test]
fn guards_are_the_same_if_they_guard_the_same_and_count_in_one_place() {
    let (state, other) = (Arc::new(GuardState::default()), Arc::new(GuardState::default()));
    let guards = |dhcp: bool, state: &Arc<GuardState>| Guards {
        spec: GuardSpec { dhcp, ..GuardSpec::default() },
        state: Arc::clone(state),
    };
    assert!(guards(true, &state) == guards(true, &state));
    assert!(guards(true, &state) != guards(false, &state));
    assert!(guards(true, &state) != guards(true, &other));
    assert!(!GuardSpec::default().is_any() && guards(true, &state).spec.is_any());
}

#[test]
fn names_are_those_of_the_configuration() {
    assert_eq!(Family::ALL.map(Family::name), ["ipv4", "ipv6"]);
    let keys = [
        Contradiction::DelayTooLong,
        Contradiction::JitterAboveDelay,
        Contradiction::ReorderWithoutDelay,
        Contradiction::RateOutOfRange,
        Contradiction::QueueFrames,
        Contradiction::QueueBytes,
    ];
    let keys = keys.map(|contradiction| contradiction.key());
    assert_eq!(keys, ["delay", "jitter", "reorder", "rate", "queue_frames", "queue_bytes"]);
}

#[test]
fn tables_have_the_rules_of_their_ports() {
    let rules = PortRules { mtu_bytes: 1234, ..PortRules::default() };
    let tables = Tables::build(vec![(PortId(2), rules)], Vec::new()).unwrap();
    assert_eq!(tables.rules(PortId(2)).unwrap().mtu_bytes, 1234);
    assert!(tables.rules(PortId(1)).is_none() && tables.rules(PortId(3)).is_none());
    assert!(tables.ports().eq([PortId(2)]));
    assert!(tables.rules(PortId(2)).unwrap().vlan.tunnel().is_none(), "no tunnel");
}

/// A wrong bit: never, always, and in a frame without any.
#[test]
fn corruption_hits_the_frames_it_is_asked_to() {
    let flips = |corrupt: Chance, bytes: u32| {
        let mut link = Impairment::new(ImpairSpec { corrupt, seed: 3, ..ImpairSpec::NONE }).unwrap();
        let flip = |verdict: Verdict| match verdict {
            Verdict::Pass { flip_bit, .. } => flip_bit,
            Verdict::Drop(_) => None,
        };
        (0..500u64).filter_map(|now| flip(link.verdict(1_000_000 + now, bytes))).collect::<Vec<u32>>()
    };
    assert_eq!(flips(Chance::NEVER, 100).len(), 0);
    let always = flips(Chance::ALWAYS, 100);
    assert!(always.len() == 500 && always.iter().all(|bit| *bit < 800));
    assert_eq!(flips(Chance::ALWAYS, 0).len(), 0, "no bit to hit");
}

/// Multicast over IPv6 is looked at only if version, address and MAC address agree.
#[test]
fn ipv6_multicast_is_what_all_its_headers_say() {
    let frame = |version: u8, group: &str, mac: [u8; 6]| {
        let Ok(IpAddr::V6(group)) = group.parse() else { panic!("{group}") };
        let fixed = [&[version << 4, 0, 0, 0, 0, 8, 17, 64][..], &[0xfd; 16], &group.octets()].concat();
        let bytes = [&mac[..], &[2, 0, 0, 0, 0, 1, 0x86, 0xdd], &fixed, &[0; 8]].concat();
        let header = labsw_switch::header::Header::parse(&bytes).unwrap();
        look(&header, &bytes)
    };
    let mac = [0x33, 0x33, 0, 1, 0, 3];
    let found = frame(6, "ff0e::1:3", mac);
    assert!(matches!(found, Look::Group(IpAddr::V6(_))), "{found:?}");
    assert_eq!(frame(4, "ff0e::1:3", mac), Look::Everyone, "another version");
    assert_eq!(frame(6, "fd0e::1:3", mac), Look::Everyone, "no multicast address");
    assert_eq!(frame(6, "ff0e::1:3", [0x33, 0x33, 0, 1, 0, 4]), Look::Everyone, "another MAC address");
}
