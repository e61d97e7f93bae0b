//! Does the switch get slower when the lab grows? One turn guest → guest of 64-byte frames, a known unicast, with
//! little and with much around it that has nothing to do.
//!
//! Cases: `GROWTH/END/BURST`, two ends side by side (`growth_cases.rs`): 2 and 32 guests attached, 1 k and 64 k
//! stations known, 1 and 64 VLANs, 0 and 8 mirrors that select nothing; bursts of 32, and of 1, where a turn has the
//! fewest frames to spread its looks at idle ports over.
#![allow(missing_docs, reason = "a bench")]

mod growth_cases;
mod lab;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use growth_cases::{GROWTH, around};
use lab::Lab;

fn benches(criterion: &mut Criterion) {
    for (growth, ends) in GROWTH {
        let mut group = criterion.benchmark_group(format!("growth/{growth}"));
        for burst in [32, 1] {
            group.throughput(Throughput::Elements(burst.into()));
            for end in ends {
                let mut lab = Lab::with(64, around(end));
                let before = lab.forwarded();
                let mut turns = 0;
                group.bench_function(format!("{end}/{burst}"), |bencher| {
                    bencher.iter(|| {
                        turns += 1;
                        lab.turn(burst);
                    });
                });
                assert_eq!(lab.forwarded() - before, turns * u64::from(burst), "every frame arrived");
            }
        }
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
