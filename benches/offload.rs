//! The software offloads: sums, finishing a checksum, cutting and merging TCP frames.
//!
//! Cases: `sum/BYTES` is the checksum arithmetic alone; `copy/BYTES` a plain copy, and `copy_then_sum/BYTES` one that
//! takes the sum on the way; `parse` reads a virtio-net header that asks for nothing, or for segmentation;
//! `segment/KIND/BYTES` cuts a frame with so many bytes of payload for an MSS of 1448, payload copied and summed;
//! `coalesce` merges 44 segments (headers and sums only: payloads stay where they are).
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use labsw_dataplane::offload::{Coalescer, Cutter, Offers, Request, Sum, finish_checksum};
use labsw_testkit::offload_frames::{Packet, noise, resolved};

const MSS: u16 = 1448;
const OFFERS: Offers = Offers::ALL;

fn sums(criterion: &mut Criterion) {
    for bytes in [64usize, 1448, 9000, 65_536] {
        let from = noise(bytes, 1);
        let mut to = vec![0; bytes];
        let mut group = criterion.benchmark_group("offload");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("sum", bytes), |bencher| {
            bencher.iter(|| Sum::of(black_box(&from)).folded());
        });
        group.bench_function(BenchmarkId::new("copy", bytes), |bencher| {
            bencher.iter(|| to.copy_from_slice(black_box(&from)));
        });
        group.bench_function(BenchmarkId::new("copy_then_sum", bytes), |bencher| {
            bencher.iter(|| {
                to.copy_from_slice(black_box(&from));
                Sum::of(black_box(&to)).folded()
            });
        });
        group.finish();
    }
}

fn requests(criterion: &mut Criterion) {
    let packet = Packet::tcp(false, noise(1448, 1));
    let mut frame = packet.partial();
    let (bytes, request) = (u32::try_from(frame.len()).unwrap(), packet.request(Some(MSS)));
    let mut group = criterion.benchmark_group("offload/parse");
    for (name, header) in [("nothing", Request::NONE.encode(0)), ("segmentation", request.encode(54))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Request::parse(black_box(&header), black_box(bytes), OFFERS));
        });
    }
    group.finish();
    let partial = packet.request(None).csum.unwrap();
    criterion.bench_function("offload/finish/1448", |bencher| {
        bencher.iter(|| finish_checksum(black_box(&mut frame), Sum::default(), partial));
    });
}

/// Cuts a frame as an egress would: each segment into a buffer of its own. Returns the number of bytes written.
fn cut(frame: &[u8], request: Request, buffers: &mut [[u8; 2048]]) -> usize {
    let mut cutter = Cutter::new(&frame[..128.min(frame.len())], u32::try_from(frame.len()).unwrap(), request).unwrap();
    let header_bytes = cutter.header_bytes();
    let mut written = 0;
    let mut buffers = buffers.iter_mut();
    while let (Some(cut), Some(buffer)) = (cutter.next_cut(), buffers.next()) {
        let payload = cut.payload();
        let from = &frame[payload.start as usize..payload.end as usize];
        written += cut.frame_bytes() as usize;
        let payload = &mut buffer[header_bytes..header_bytes + from.len()];
        payload.copy_from_slice(from);
        let sum = Sum::of(payload);
        buffer[..header_bytes].copy_from_slice(cut.finish(sum));
    }
    written
}

fn segments(criterion: &mut Criterion) {
    let mut buffers = vec![[0; 2048]; 64];
    for bytes in [1448usize, 8 * 1448, 44 * 1448] {
        let mut group = criterion.benchmark_group("offload/segment");
        group.throughput(Throughput::Bytes(bytes as u64));
        for (name, v6) in [("v4", false), ("v6", true)] {
            let packet = Packet { tcp_options: vec![1; 12], ..Packet::tcp(v6, noise(bytes, 2)) };
            let (frame, request) = (packet.partial(), packet.request(Some(MSS)));
            let expected: usize = resolved(&frame, 128, request).unwrap().iter().map(Vec::len).sum();
            assert_eq!(cut(&frame, request, &mut buffers), expected);
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| cut(black_box(&frame), request, &mut buffers));
            });
        }
        group.finish();
    }
}

fn coalesce(criterion: &mut Criterion) {
    let packet = Packet { tcp_options: vec![1; 12], ..Packet::tcp(false, noise(44 * 1448, 3)) };
    let frames = resolved(&packet.partial(), 128, packet.request(Some(MSS))).unwrap();
    let header_bytes = packet.header_bytes();
    let described: Vec<(&[u8], u32, Sum)> = frames
        .iter()
        .map(|frame| (&frame[..128], u32::try_from(frame.len()).unwrap(), Sum::of(&frame[header_bytes..])))
        .collect();
    let merge = || {
        let ((headers, bytes, sum), others) = described.split_first().unwrap();
        let mut coalescer = Coalescer::begin(headers, *bytes, *sum).unwrap();
        for (headers, bytes, sum) in others {
            coalescer.add(headers, *bytes, *sum);
        }
        black_box(coalescer.finish());
        coalescer.segments()
    };
    assert_eq!(merge(), 44);
    criterion.bench_function("offload/coalesce/44", |bencher| bencher.iter(merge));
}

criterion_group!(benches, sums, requests, segments, coalesce);
criterion_main!(benches);
