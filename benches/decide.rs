//! The forwarding decision alone: header parse, VLAN, learning, look-up, egress lists, for bursts of 64 frames.
//!
//! Cases: `known/FLOWS` unicast between two ports of 1, 1000 or 16,000 stations; `access` and `trunk` the same with
//! VLANs; `flood/PORTS` a broadcast to 2, 8 or 32 ports; `mirror` one flow with both directions copied.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use labsw_benches::frame;
use labsw_switch::fdb::Fdb;
use labsw_switch::forward::{Egress, Forwarder};
use labsw_switch::tables::{Direction, MirrorSpec, PortRules, Tables};
use labsw_switch::vlan::{PortVlan, VlanMode};
use labsw_switch::{BURST_FRAMES, DropReason, MirrorId, PortId};

/// Decides all of `frames`, 64 at a time, as the worker does.
fn decide(tables: &Tables, fdb: &Fdb, frames: &[Vec<u8>], egress: &mut Egress) {
    let forwarder = Forwarder { tables, fdb, now_seconds: 1 };
    for burst in frames.chunks(BURST_FRAMES) {
        let mut ingress = forwarder.ingress(PortId(0));
        for (index, frame) in (0u8..).zip(burst) {
            let snapshot = frame.get(..128).unwrap_or(frame);
            let bytes = u32::try_from(frame.len()).unwrap();
            ingress.frame(index, snapshot, bytes, egress, &mut |_: u8, port: PortId, reason: DropReason| {
                black_box((port, reason));
            });
        }
        black_box(&*egress);
        egress.clear();
    }
}

fn ports(count: u16, vlan: &PortVlan) -> Vec<(PortId, PortRules)> {
    (0..count).map(|port| (PortId(port), PortRules { vlan: vlan.clone(), ..PortRules::default() })).collect()
}

/// One case: `flows` pairs of stations, port 0 → port 1 unless `broadcast`.
fn case(criterion: &mut Criterion, name: &str, tables: &Tables, flows: u16, broadcast: bool) {
    let fdb = Fdb::new(65_536, 300, 1);
    let mut egress = Egress::new();
    let teach = Forwarder { tables, fdb: &fdb, now_seconds: 1 };
    for flow in 0..flows {
        teach.ingress(PortId(1)).frame(
            0,
            &frame(64, flow, 0x4000 | flow),
            60,
            &mut egress,
            &mut |_: u8, _: PortId, _: DropReason| {},
        );
        egress.clear();
    }
    let frames: Vec<_> = (0..flows.max(64))
        .map(|n| {
            let mut frame = frame(64, 0x4000 | (n % flows), n % flows);
            if broadcast {
                frame.splice(..6, [0xff; 6]);
            }
            frame
        })
        .collect();
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function(name, |bencher| bencher.iter(|| decide(tables, &fdb, &frames, &mut egress)));
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let plain = Tables::build(ports(2, &PortVlan::default()), Vec::new()).unwrap();
    for flows in [1, 1000, 16_000] {
        case(criterion, &format!("known/{flows}"), &plain, flows, false);
    }
    let access = PortVlan::new(VlanMode::Access, Some(20), &[]).unwrap();
    let trunk = PortVlan::new(VlanMode::NativeTagged, Some(20), &[]).unwrap();
    case(criterion, "access", &Tables::build(ports(2, &access), Vec::new()).unwrap(), 1, false);
    case(criterion, "trunk", &Tables::build(ports(2, &trunk), Vec::new()).unwrap(), 1, false);
    for count in [2, 8, 32] {
        let tables = Tables::build(ports(count + 1, &PortVlan::default()), Vec::new()).unwrap();
        case(criterion, &format!("flood/{count}"), &tables, 1, true);
    }
    let mirror = MirrorSpec {
        id: MirrorId(0),
        sources: vec![(PortId(0), Direction::BOTH)],
        all_ports: None,
        vlans: None,
        to: Some(PortId(2).into()),
        snaplen_bytes: 0,
        filter: None,
    };
    let mirrored = Tables::build(ports(3, &PortVlan::default()), vec![mirror]).unwrap();
    case(criterion, "mirror", &mirrored, 1, false);
}

criterion_group!(all, benches);
criterion_main!(all);
