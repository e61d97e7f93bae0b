//! The fixed workloads whose instructions `instructions.sh` counts. Without arguments each is run once, as a check.
//!
//! usage: instructions WORKLOAD ROUNDS
//!
//! Workloads: `turn/SIZE/BURST`, a whole turn guest → guest as in `turn`; `take`, `fill/SIZE` and the same with
//! `virtio-queue/` in front, 64 frames a round as in `crates`, with the event index.
//!
//! All that is to be counted happens inside `measured`, which is never inlined, so that callgrind can be told its name.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]

mod lab;
mod walks;

use lab::Lab;
use walks::{Notification, fill_ours, fill_theirs, take_ours, take_theirs};

/// What is counted.
#[inline(never)]
fn measured(round: &mut dyn FnMut(), rounds: u64) {
    for _ in 0..rounds {
        round();
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
    for name in ["turn/64/32", "take", "fill/64", "virtio-queue/take", "virtio-queue/fill/64"] {
        measured(&mut *workload(name), 1);
    }
}
