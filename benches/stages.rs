//! The two ends of a turn, each alone: so that a regression seen in `turn` shows where it is.
//!
//! Cases: `receive/SIZE/BURST` takes frames out of a guest's transmit ring and gives the chains back (descriptor walk,
//! snapshot of the first 128 bytes, used ring); `send/SIZE/BURST` copies frames into a guest's receive ring. Sizes 64,
//! 512 and 1518 with FCS, bursts of 1, 8, 32 and 64. What a turn takes beyond the two is the decision (`decide`) and
//! the worker's own bookkeeping.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

mod lab;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lab::{FEATURES, RECEIVE, RING, TRANSMIT, fill_receive, fill_transmit, offer};
use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::guest::Guest;

const SIZES: [usize; 3] = [64, 512, 1518];
const BURSTS: [u16; 4] = [1, 8, 32, 64];

fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    for wire_bytes in SIZES {
        for burst_frames in BURSTS {
            let mut guest = Guest::new(FEATURES, RING);
            fill_transmit(&mut guest, wire_bytes);
            let mut port = guest.port();
            let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
            let mut expected = 0;
            group.throughput(Throughput::Elements(burst_frames.into()));
            group.bench_function(BenchmarkId::new(wire_bytes.to_string(), burst_frames), |bencher| {
                bencher.iter(|| {
                    expected += u64::from(burst_frames);
                    offer(&guest, TRANSMIT, burst_frames);
                    port.receive(0, &mut burst, &mut stats).unwrap();
                    black_box(&burst);
                    port.release(0, &mut burst).unwrap();
                });
            });
            assert_eq!((stats.rx_frames, stats.drops.iter().sum::<u64>()), (expected, 0), "every frame came");
        }
    }
    group.finish();
}

fn send(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send");
    for wire_bytes in SIZES {
        for burst_frames in BURSTS {
            // The frames are borrowed from another guest once and for all.
            let mut source = Guest::new(FEATURES, RING);
            fill_transmit(&mut source, wire_bytes);
            offer(&source, TRANSMIT, burst_frames);
            let mut burst = Burst::new();
            let mut from = source.port();
            let mut stats = PortDelta::ZERO;
            from.receive(0, &mut burst, &mut stats).unwrap();
            let items: Vec<_> = (0u8..).zip(burst.frames()).map(|(n, _)| TxItem::whole(n, TagEdit::KEEP)).collect();
            assert_eq!(items.len(), usize::from(burst_frames));

            let mut guest = Guest::new(FEATURES, RING);
            fill_receive(&mut guest);
            let mut port = guest.port();
            let (mut stats, mut expected) = (PortDelta::ZERO, 0);
            group.throughput(Throughput::Elements(burst_frames.into()));
            group.bench_function(BenchmarkId::new(wire_bytes.to_string(), burst_frames), |bencher| {
                bencher.iter(|| {
                    expected += u64::from(burst_frames);
                    offer(&guest, RECEIVE, burst_frames);
                    port.send(&mut burst, &items, &mut stats).unwrap()
                });
            });
            assert_eq!(stats.tx_frames, expected, "every frame was taken");
        }
    }
    group.finish();
}

criterion_group!(all, receive, send);
criterion_main!(all);
