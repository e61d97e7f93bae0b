//! One whole turn guest → guest: two vhost-user ports over split rings in this process's memory.
//!
//! Cases: `SIZE/BURST`, frame sizes 64, 512 and 1518 with FCS, 1, 8, 32 and 64 frames a turn. The rings hold 1024
//! entries whose descriptors and frames are written once; each iteration only moves the available indexes, so that
//! what is measured is the switch: receive, decide, copy, publish, release.
#![allow(missing_docs, reason = "a bench")]

mod lab;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lab::Lab;

fn benches(criterion: &mut Criterion) {
    for wire_bytes in [64, 512, 1518] {
        let mut group = criterion.benchmark_group(format!("turn/{wire_bytes}"));
        for burst in [1, 8, 32, 64] {
            let mut lab = Lab::new(wire_bytes);
            let before = lab.forwarded();
            let mut turns = 0;
            group.throughput(Throughput::Elements(burst.into()));
            group.bench_function(burst.to_string(), |bencher| {
                bencher.iter(|| {
                    turns += 1;
                    lab.turn(burst);
                });
            });
            assert_eq!(lab.forwarded() - before, turns * u64::from(burst), "every frame arrived");
        }
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
