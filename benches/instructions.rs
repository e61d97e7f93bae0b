//! The fixed workloads whose instructions `instructions.sh` counts. Without arguments each is run once, as a check.
//!
//! usage: instructions WORKLOAD ROUNDS
//!
//! Workloads: `turn/SIZE/BURST`, a whole turn guest → guest as in `turn`; `decide/FLOWS`, the decision alone; `take`,
//! `fill/SIZE` and the same with `virtio-queue/` in front, 64 frames a round as in `crates`, with the event index;
//! `forged/COUNT`, as `decide/1000` after so many forged source addresses from another port; `forge`, 64 of those;
//! `growth/CASE/BURST`, the same turn with 64-byte frames and more around it ([`growth_cases`]); `mirrored/SIZE/BURST`,
//! the turn with a mirror of every frame to a third guest; `logged/SIZE/BURST`, the turn while both guests are saved or
//! moved, so that each page that the switch writes is logged.
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
use labsw_switch::{DropReason, Mac, PortId, Vid};
use walks::{Notification, fill_ours, fill_theirs, take_ours, take_theirs};

/// The work that is counted.
#[inline(never)]
fn measured(round: &mut dyn FnMut(), rounds: u64) {
    for _ in 0..rounds {
        round();
    }
}

/// Decides about 64 frames of `flows` conversations, none like the one before unless there is only one; after `forged`
/// source addresses from a third port.
fn decide(flows: u16, forged: u64) -> impl FnMut() {
    let ports = [0, 1, 2].map(|port| (PortId(port), PortRules::default()));
    let tables = Tables::build(ports.to_vec(), Vec::new()).unwrap();
    let (fdb, mut egress) = (Fdb::new(65_536, 300, 1), Egress::new());
    let frames: Vec<_> = (0..flows).map(|flow| frame(64, 0x4000 | flow, flow)).collect();
    for flow in 0..flows {
        let answer = frame(64, flow, 0x4000 | flow);
        let forwarder = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 1 };
        forwarder.ingress(PortId(1)).frame(0, &answer, 60, &mut egress, &mut |_: u8, _: PortId, _: DropReason| {});
    }
    egress.clear();
    for number in 0..forged {
        fdb.learn(Vid::DEFAULT, forged_address(number), PortId(2), 1);
    }
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

/// An address that nobody has, none twice: the low bits of a permutation of the numbers.
fn forged_address(number: u64) -> Mac {
    Mac::from_u64(number.wrapping_mul(0x9e37_79b9_7f4b) & 0x00ff_ffff_ffff | 0x0a00_0000_0000)
}

/// Decides about 64 broadcasts from forged source addresses, in a table that is full of such.
fn forge() -> impl FnMut() {
    let ports = [0, 1].map(|port| (PortId(port), PortRules::default()));
    let tables = Tables::build(ports.to_vec(), Vec::new()).unwrap();
    let (fdb, mut egress) = (Fdb::new(65_536, 300, 1), Egress::new());
    for number in 0..65_536 {
        fdb.learn(Vid::DEFAULT, forged_address(number), PortId(0), 1);
    }
    let mut number = 65_536;
    move || {
        let mut burst = Forwarder { tables: &tables, fdb: &fdb, now_seconds: 1 }.ingress(PortId(0));
        for index in 0..64 {
            let mut frame = frame(64, 2, 1);
            frame.splice(..12, [[0xff; 6], forged_address(number).octets()].concat());
            number += 1;
            burst.frame(index, &frame, 60, &mut egress, &mut |_: u8, _: PortId, reason: DropReason| {
                panic!("{reason:?}")
            });
        }
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
        ["decide", flows] => Box::new(decide(flows.parse().unwrap(), 0)),
        ["forged", count] => Box::new(decide(1000, count.parse().unwrap())),
        ["forge"] => Box::new(forge()),
        ["growth", case, burst] => {
            let mut lab = Lab::with(64, around(case));
            let burst = burst.parse().unwrap();
            Box::new(move || lab.turn(burst))
        }
        [case @ ("mirrored" | "logged"), size, burst] => {
            let mut lab = Lab::with(size.parse().unwrap(), around(case));
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
    for name in [
        "turn/64/32",
        "forged/1000",
        "forge",
        "growth/ports-32/32",
        "growth/delayed/32",
        "logged/64/32",
        "take",
        "fill/64",
        "virtio-queue/take",
        "virtio-queue/fill/64",
    ] {
        measured(&mut *workload(name), 1);
    }
}
