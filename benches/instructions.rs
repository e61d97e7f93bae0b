//! The fixed workloads whose instructions `instructions.sh` counts. Without arguments each is run once, as a check.
//!
//! usage: instructions WORKLOAD ROUNDS
//!
//! Workloads: `turn/SIZE/BURST`, a whole turn guest → guest as in `turn`; `decide/FLOWS`, the decision alone; `take`,
//! `fill/SIZE` and the same with `virtio-queue/` in front, 64 frames a round as in `crates`, with the event index;
//! `growth/CASE/BURST`, the same turn with 64-byte frames and more around it ([`growth_cases`]).
//!
//! All that is to be counted happens inside `measured`, which is never inlined, so that callgrind can be told its name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]

mod growth_cases;
mod lab;
mod walks;

use std::hint::black_box;

use growth_cases::around;
use lab::Lab;
use labsw_benches::frame;
use labsw_switch::fdb::Fdb;
use labsw_switch::forward::{Egress, Forwarder};
use labsw_switch::tables::{PortRules, Tables};
use labsw_switch::{DropReason, PortId};
use walks::{Notification, fill_ours, fill_theirs, take_ours, take_theirs};

/// What is counted.
#[inline(never)]
fn measured(round: &mut dyn FnMut(), rounds: u64) {
    for _ in 0..rounds {
        round();
    }
}

/// Decides about 64 frames of `flows` conversations, none like the one before unless there is only one.
fn decide(flows: u16) -> impl FnMut() {
    let ports = [0, 1].map(|port| (PortId(port), PortRules::default()));
    let tables = Tables::build(ports.to_vec(), Vec::new()).unwrap();
    let (fdb, mut egress) = (Fdb::new(65_536, 300, 1), Egress::new());
    let frames: Vec<_> = (0..flows).map(|flow| frame(64, 0x4000 | flow, flow)).collect();
    for flow in 0..flows {
        let answer = frame(64, flow, 0x4000 | flow);
        let forwarder = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 1 };
        forwarder.ingress(PortId(1)).frame(0, &answer, 60, &mut egress, &mut |_: u8, _: PortId, _: DropReason| {});
    }
    egress.clear();
    let mut next = 0;
    move || {
        let mut burst = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 1 }.ingress(PortId(0));
        for index in 0..64 {
            let frame = black_box(frames[next].as_slice());
            burst
                .frame(index, frame, 60, &mut egress, &mut |_: u8, _: PortId, reason: DropReason| panic!("{reason:?}"));
            next = (next + 1) % frames.len();
        }
        assert_eq!(egress.items(PortId(1)).len(), 64);
        egress.clear();
    }
}

/// One round of a workload. Each checks by itself that all frames come through.
fn workload(name: &str) -> Box<dyn FnMut()> {
    let by = Notification::EventIdx;
    match *name.split('/').collect::<Vec<_>>().as_slice() {
        ["turn", size, burst] => {
            let mut lab = Lab::new(size.parse().unwrap());
            let burst = burst.parse().unwrap();
            Box::new(move || lab.turn(burst))
        }
        ["decide", flows] => Box::new(decide(flows.parse().unwrap())),
        ["growth", case, burst] => {
            let mut lab = Lab::with(64, around(case));
            let burst = burst.parse().unwrap();
            Box::new(move || lab.turn(burst))
        }
        ["take"] => Box::new(take_ours(by)),
        ["fill", size] => Box::new(fill_ours(by, size.parse().unwrap())),
        ["virtio-queue", "take"] => Box::new(take_theirs(by, false)),
        ["virtio-queue", "fill", size] => Box::new(fill_theirs(by, size.parse().unwrap(), false)),
        _ => panic!("no workload {name:?}"),
    }
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [name, rounds] = arguments.as_slice() {
        return measured(&mut *workload(name), rounds.parse().unwrap());
    }
    for name in ["turn/64/32", "growth/ports-32/32", "take", "fill/64", "virtio-queue/take", "virtio-queue/fill/64"] {
        measured(&mut *workload(name), 1);
    }
}
