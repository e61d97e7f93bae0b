//! The ring walk of `labsw-dataplane` beside the one of the `virtio-queue` crate: the same work on the same
//! rings, 64 frames a round, done once with each (`walks.rs`).
//!
//! Cases: `take/…` takes 64-byte frames out of a guest's transmit ring into a burst and completes the chains;
//! `fill/SIZE/…` copies frames into a guest's receive buffers. Each with the event index (`event_idx`) and with the
//! flag by which the guest asks for no interrupts (`flags`):
//! - `ours`: as a worker does it;
//! - `virtio-queue`: the crate. Whatever it says, the guest is not interrupted;
//! - `virtio-queue+call`: the guest is interrupted when the crate says so. Only with the flag: the crate does not look
//!   at it and asks for an interrupt each round.
//!
//! The other side of the rings is this same thread, so what the crate's store of the used index per chain costs a guest
//! that polls on another core is not in the figures.
#![allow(missing_docs, reason = "a bench")]

mod lab;
mod walks;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use walks::{BURST, Notification, fill_ours, fill_theirs, take_ours, take_theirs};

const NOTIFICATIONS: [(&str, Notification); 2] =
    [("event_idx", Notification::EventIdx), ("flags", Notification::Flags)];

fn case(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut round: impl FnMut()) {
    group.throughput(Throughput::Elements(BURST.into()));
    group.bench_function(name, |bencher| bencher.iter(&mut round));
}

fn take(criterion: &mut Criterion) {
    for (name, notification) in NOTIFICATIONS {
        let mut group = criterion.benchmark_group(format!("take/{name}"));
        case(&mut group, "ours", take_ours(notification));
        case(&mut group, "virtio-queue", take_theirs(notification, false));
        if notification == Notification::Flags {
            case(&mut group, "virtio-queue+call", take_theirs(notification, true));
        }
        group.finish();
    }
}

fn fill(criterion: &mut Criterion) {
    for wire_bytes in [64, 1518] {
        for (name, notification) in NOTIFICATIONS {
            let mut group = criterion.benchmark_group(format!("fill/{wire_bytes}/{name}"));
            case(&mut group, "ours", fill_ours(notification, wire_bytes));
            case(&mut group, "virtio-queue", fill_theirs(notification, wire_bytes, false));
            if notification == Notification::Flags {
                case(&mut group, "virtio-queue+call", fill_theirs(notification, wire_bytes, true));
            }
            group.finish();
        }
    }
}

criterion_group!(all, take, fill);
criterion_main!(all);
