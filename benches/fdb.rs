//! The forwarding database alone, with 1 k and 64 k entries, addresses in random order.
//!
//! Cases: `lookup/N` of known addresses; `learn_known/N` the read-mostly way of a known source;
//! `learn_move/N` every address moves to another port each time.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use labsw_switch::fdb::Fdb;
use labsw_switch::{Mac, PortId, Vid};

/// `count` addresses, no order in them.
fn addresses(count: u64) -> Vec<Mac> {
    // An odd multiplier permutes the 40 bits below the (even, so individual) first byte.
    (0..count).map(|n| Mac::from_u64((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) | 0x0200_0000_0000)).collect()
}

fn benches(criterion: &mut Criterion) {
    let vid = Vid::try_from(10).unwrap();
    let mut group = criterion.benchmark_group("fdb");
    for count in [1_000, 64_000] {
        let fdb = Fdb::new(65_536, 300, 1);
        let addresses = addresses(count);
        for &mac in &addresses {
            fdb.learn(vid, mac, PortId(1), 1);
        }
        assert_eq!(fdb.len(), addresses.len());
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("lookup/{count}"), |bencher| {
            bencher.iter(|| {
                for &mac in &addresses {
                    black_box(fdb.lookup(vid, mac, 1));
                }
            });
        });
        group.bench_function(format!("learn_known/{count}"), |bencher| {
            bencher.iter(|| {
                for &mac in &addresses {
                    black_box(fdb.learn(vid, mac, PortId(1), 1));
                }
            });
        });
        let mut port = 1;
        group.bench_function(format!("learn_move/{count}"), |bencher| {
            bencher.iter(|| {
                port ^= 3;
                for &mac in &addresses {
                    black_box(fdb.learn(vid, mac, PortId(port), 1));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
