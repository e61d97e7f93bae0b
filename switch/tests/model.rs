//! The whole decision against a deliberately naive model, over random topologies and frames.
//!
//! The switch gets header snapshots and answers with tag edits; the model gets whole frames and answers with
//! whole frames. Some ports do not take some of their frames. Compared are, per burst: the bytes each port is to send,
//! the drops with port and reason, the copies each mirror destination gets with their mirror, what each mirror matched,
//! and which frames have one taker only.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use labsw_switch::fdb::FdbFilter;
use labsw_switch::forward::Forwarder;
use labsw_switch::inline::Way;
use labsw_switch::vlan::VlanMode;
use labsw_switch::{Mac, PortId, Vid};
use proptest::prelude::*;

use labsw_testkit::model::foretell::foretell;
use labsw_testkit::model::naive::Naive;
use labsw_testkit::model::{Decided, Guarded, Inject, Inline, Mirror, Pattern, Port, To};
use labsw_testkit::model::{decide, fdb, placed, sane, tables};

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// From a port, frames, and per port those it does not take.
    Burst(u16, Vec<Vec<u8>>, Vec<u64>),
    Wait(u32),
    AddStatic(u16, u8, u16),
}

fn vlan_id() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![1u16, 10, 20, 21, 4094])
}

fn port() -> impl Strategy<Value = Port> {
    let trunks = prop::sample::subsequence(vec![1..=1, 10..=20, 21..=21, 20..=4094], 0..4);
    let often = || prop::bool::weighted(0.9);
    (
        prop::sample::select(VlanMode::ALL.to_vec()),
        vlan_id(),
        trunks,
        prop::sample::select(vec![1500u32, 1500, 100, 46]),
        (often(), often(), often(), any::<[bool; 3]>()),
        guarded(),
        prop::option::of(inject()),
    )
        .prop_map(|(mode, tag, trunks, mtu, flags, guards, inject)| {
            let (enabled, learning, usual, [drops_link_local, customer_untagged, c_tag]) = flags;
            Port {
                mode,
                tag,
                trunks: if mode == VlanMode::Access { Vec::new() } else { trunks },
                customer_untagged,
                tpid: if c_tag { 0x8100 } else { 0x88a8 },
                mtu,
                enabled,
                learning,
                mirror_only: !usual,
                drops_link_local,
                guards,
                inject,
            }
        })
}

/// Most ports guard nothing.
fn guarded() -> impl Strategy<Value = Guarded> {
    let seldom = || prop::bool::weighted(0.2);
    let pinned = prop::collection::vec(0u8..6, 1..4);
    (
        seldom(),
        prop::bool::weighted(0.3),
        prop::option::weighted(0.1, pinned),
        prop::option::weighted(0.2, (1u32..4, any::<bool>())),
    )
        .prop_map(|(sticky, isolated, pinned, limit)| Guarded { sticky, isolated, pinned, limit })
}

fn inject() -> impl Strategy<Value = Inject> {
    let sources = prop::collection::vec((0u8..6).prop_map(|last| [0x52, 0x54, 0, 0, 0, last]), 0..5);
    (prop::option::of(vlan_id()), 0u16..8, sources).prop_map(|(vlan, port, sources)| Inject { vlan, port, sources })
}

fn mirror(ports: u16) -> impl Strategy<Value = Mirror> {
    let direction = (any::<bool>(), any::<bool>());
    let source = (0..ports, direction).prop_map(|(port, (rx, tx))| (port, rx, tx));
    (
        prop::collection::vec(source, 0..4),
        prop::option::weighted(0.3, direction),
        prop::option::weighted(0.4, prop::collection::vec(vlan_id(), 0..3)),
        // Few destinations, so that mirrors share them.
        prop::option::weighted(
            0.9,
            prop_oneof![2 => (0..ports.min(2)).prop_map(To::Port), 1 => vlan_id().prop_map(To::Vlan)],
        ),
        prop::sample::select(vec![0u32, 0, 0, 1, 14, 60, 65_535, 65_536]),
        prop::option::of(pattern()),
    )
        .prop_map(|(sources, all, vlans, to, snap, pattern)| Mirror { sources, all, vlans, to, snap, pattern })
}

/// Filters that many frames pass, over addresses, tags, what follows, and what is behind the snapshot.
fn pattern() -> impl Strategy<Value = Pattern> {
    let at = prop_oneof![2 => 5u32..30, 1 => 30u32..180];
    let bits = prop_oneof![3 => Just((1u8, 0u8)), 1 => Just((0, 0)), 1 => any::<u8>().prop_map(|value| (value, value))];
    (any::<bool>(), prop_oneof![3 => Just(0u32), 1 => 14u32..170], at, bits)
        .prop_map(|(tagged, least, at, bits)| Pattern { tagged, least, at, mask: bits.0, value: bits.1 })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let unicast = |last: u8| [0x52, 0x54, 0, 0, 0, last];
    let dst = prop_oneof![
        8 => (0u8..6).prop_map(unicast),
        1 => Just([0xff; 6]),
        1 => Just([0x33, 0x33, 0, 0, 0, 1]),
        1 => prop::sample::select(vec![0u8, 1, 0x0e]).prop_map(|last| [0x01, 0x80, 0xc2, 0, 0, last]),
    ];
    let src = prop_oneof![20 => (0u8..6).prop_map(unicast), 1 => Just([0x53, 0, 0, 0, 0, 1])];
    let tci =
        (prop_oneof![3 => Just(0u16), 12 => vlan_id(), 1 => Just(4095)], prop::sample::select(vec![0u16, 0xb000]));
    let tag = (prop::sample::select(vec![0x8100u16, 0x88a8]), tci).prop_map(|(tpid, (vid, high))| (tpid, high | vid));
    let tags = prop_oneof![
        4 => Just(Vec::new()),
        6 => prop::collection::vec(tag.clone(), 1),
        1 => prop::collection::vec(tag, 2..4),
    ];
    let bytes = (dst, src, tags, 0usize..160, any::<u8>()).prop_map(|(dst, src, tags, payload, fill)| {
        let mut bytes = [dst, src].concat();
        for (tpid, tci) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend([0x08, 0x00]);
        bytes.extend((0..payload).map(|index| fill.wrapping_add(u8::try_from(index).unwrap())));
        bytes
    });
    let cut = bytes.clone().prop_flat_map(|bytes| {
        let len = bytes.len();
        (Just(bytes), 0..len.min(24))
    });
    prop_oneof![15 => bytes, 1 => cut.prop_map(|(bytes, len)| bytes[..len].to_vec())]
}

/// A few frames that begin alike: another length, another payload, or another byte early on.
fn run() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let change = (0usize..160, 0usize..30, prop_oneof![3 => Just(0u8), 1 => any::<u8>()]);
    (frame(), prop::collection::vec(change, 0..4)).prop_map(|(first, changes)| {
        let changed = changes.into_iter().map(|(bytes, place, flip)| {
            let mut frame = first.clone();
            frame.resize(first.len().max(bytes), flip);
            if let Some(byte) = frame.get_mut(place) {
                *byte ^= flip;
            }
            frame
        });
        std::iter::once(first.clone()).chain(changed).collect()
    })
}

/// A sensor in the wire of a port; most work.
fn inline(ports: u16) -> impl Strategy<Value = Inline> {
    let way = prop_oneof![3 => Just(Way::Through), 1 => Just(Way::Past), 1 => Just(Way::Closed)];
    (0..ports, 0..ports, 0..ports, way).prop_map(|(port, near, far, way)| Inline { port, near, far, way })
}

type Scene = (Vec<Port>, Vec<Mirror>, Vec<Inline>);

fn scenario() -> impl Strategy<Value = (Scene, Vec<Step>)> {
    (2u16..=8).prop_flat_map(|count| {
        let failed = prop_oneof![3 => Just(0u64), 1 => any::<u64>(), 1 => Just(u64::MAX)];
        let failed = prop::collection::vec(failed, usize::from(count));
        let step = prop_oneof![
            10 => (0..count, prop::collection::vec(run(), 1..8), failed)
                .prop_map(|(port, runs, failed)| Step::Burst(port, runs.concat(), failed)),
            2 => (0u32..8).prop_map(Step::Wait),
            1 => (vlan_id(), 0u8..6, 0..count).prop_map(|(vlan, mac, port)| Step::AddStatic(vlan, mac, port)),
        ];
        let scene = (
            prop::collection::vec(port(), usize::from(count)).prop_map(|mut ports| {
                let count = u16::try_from(ports.len()).unwrap();
                ports.iter_mut().flat_map(|port| &mut port.inject).for_each(|inject| inject.port %= count);
                ports
            }),
            prop::collection::vec(mirror(count), 0..4),
            prop::collection::vec(inline(count), 0..4),
        );
        let scene = scene.prop_map(|(ports, mirrors, inlines)| {
            let mirrors = sane(mirrors, &ports);
            let inlines = placed(inlines, &ports, &mirrors);
            (ports, mirrors, inlines)
        });
        (scene, prop::collection::vec(step, 1..25))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_model_does(((ports, mirrors, inlines), steps) in scenario(), seed: u64) {
        let tables = tables(&ports, &mirrors, &inlines);
        let fdb = fdb(&ports, seed);
        let mut decided = Decided::default();
        let mut naive = Naive::new(ports, mirrors, inlines);
        let mut now_seconds = u32::MAX - 20;
        for step in steps {
            match step {
                Step::Wait(seconds) => now_seconds = now_seconds.wrapping_add(seconds),
                Step::AddStatic(vlan, last, port) => {
                    let mac = [0x52, 0x54, 0, 0, 0, last];
                    fdb.add_static(Vid::try_from(vlan).unwrap(), Mac::new(mac), PortId(port)).unwrap();
                    naive.add_static(vlan, mac, port);
                }
                Step::Burst(ingress, frames, failed) => {
                    let forwarder = Forwarder { tables: &tables, fdb: &fdb, now_seconds };
                    let outcome = decide(forwarder, &mut decided, ingress, &frames, &failed);
                    let expected = naive.burst(ingress, &frames, now_seconds, &failed);
                    prop_assert_eq!(outcome, expected, "ingress {}, frames {:02x?}", ingress, frames);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// A trace foretells the way of a frame: where it leaves, with which bytes, what is dropped where and
    /// why, which mirrors select it, and which copies are made. Asking changes nothing.
    #[test]
    fn a_trace_foretells_what_is_decided(((ports, mirrors, inlines), steps) in scenario(), seed: u64) {
        let tables = tables(&ports, &mirrors, &inlines);
        let fdb = fdb(&ports, seed);
        let mut decided = Decided::default();
        let mut now_seconds = u32::MAX - 20;
        for step in steps {
            match step {
                Step::Wait(seconds) => now_seconds = now_seconds.wrapping_add(seconds),
                Step::AddStatic(vlan, last, port) => {
                    let mac = Mac::new([0x52, 0x54, 0, 0, 0, last]);
                    fdb.add_static(Vid::try_from(vlan).unwrap(), mac, PortId(port)).unwrap();
                }
                Step::Burst(ingress, frames, failed) => {
                    let forwarder = Forwarder { tables: &tables, fdb: &fdb, now_seconds };
                    let known = || {
                        let mut entries = fdb.entries(FdbFilter::default(), now_seconds);
                        entries.sort_unstable();
                        entries
                    };
                    for frame in frames {
                        let before = known();
                        let foretold = foretell(forwarder, ingress, &frame, &failed);
                        prop_assert_eq!(known(), before, "the trace has learned");
                        let outcome = decide(forwarder, &mut decided, ingress, std::slice::from_ref(&frame), &failed);
                        prop_assert_eq!(foretold, outcome, "ingress {}, frame {:02x?}", ingress, frame);
                    }
                }
            }
        }
    }
}
