#![allow(unsafe_code, reason = "tests lend memory of their own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::VecDeque;

use proptest::prelude::*;
use rustix::mm::{mmap_anonymous, mremap};

use super::*;

const OFFSETS: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, flags: Some(128), desc: 192 };

/// Plain memory for a ring of `entries`, and a second mapping of the same memory for the other end.
fn memory(entries: u32) -> (RingMemory, RingMemory) {
    let bytes = 192 + entries as usize * 16;
    // SAFETY: fresh mappings at addresses of the kernel's choice; an old size of 0 makes a second mapping of shared
    // memory.
    unsafe {
        let first =
            mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED).unwrap();
        let second = mremap(first, 0, bytes, rustix::mm::MremapFlags::MAYMOVE).unwrap();
        (RingMemory::new(first, bytes).unwrap(), RingMemory::new(second, bytes).unwrap())
    }
}

/// Both ends of a ring whose indices start at `start`.
fn ring(entries: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
    let (one, two) = memory(entries);
    let indices: Ring<u64> = Ring::new(memory_of(&one), &OFFSETS, entries).unwrap();
    indices.producer().store(start, Ordering::Relaxed);
    indices.consumer().store(start, Ordering::Relaxed);
    (Producer::new(one, &OFFSETS, entries).unwrap(), Consumer::new(two, &OFFSETS, entries).unwrap())
}

/// A further mapping of the same memory.
fn memory_of(memory: &RingMemory) -> RingMemory {
    // SAFETY: as in `memory`.
    let again = unsafe { mremap(memory.base.as_ptr().cast(), 0, memory.bytes, rustix::mm::MremapFlags::MAYMOVE) };
    RingMemory::new(again.unwrap(), memory.bytes).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Write(u8),
    Submit,
    Read(u8),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(0u8..6).prop_map(Op::Write), Just(Op::Submit), (0u8..6).prop_map(Op::Read), Just(Op::Release)]
}

proptest! {
    /// Both ends against three queues: written, published, read but not given back. A tiny ring, so that it wraps all
    /// the time, and indices that run over the end of their 32 bits.
    #[test]
    fn agrees_with_queues(
        ops in proptest::collection::vec(op(), 1..300),
        size in prop_oneof![Just(1u32), Just(2), Just(4), Just(8)],
        start in prop_oneof![Just(0u32), Just(u32::MAX - 3), any::<u32>()],
    ) {
        let (mut producer, mut consumer) = ring(size, start);
        let (mut written, mut published) = (VecDeque::new(), VecDeque::new());
        let mut held = 0usize;
        let mut next = 0u64;
        let size = size as usize;
        for op in ops {
            match op {
                Op::Write(count) => for _ in 0..count {
                    let room = size - written.len() - published.len() - held;
                    prop_assert_eq!(producer.free(u32::MAX) as usize, room);
                    prop_assert_eq!(producer.write(next), room > 0);
                    if room > 0 {
                        written.push_back(next);
                    }
                    next += 1;
                },
                Op::Submit => {
                    producer.submit();
                    published.append(&mut written);
                }
                Op::Read(count) => for _ in 0..count {
                    let expected = published.pop_front();
                    held += usize::from(expected.is_some());
                    prop_assert_eq!(consumer.read(), expected);
                },
                Op::Release => {
                    consumer.release();
                    held = 0;
                }
            }
            prop_assert_eq!(producer.pending() as usize, written.len() + published.len() + held);
        }
    }
}

#[test]
fn another_pair_of_ends_goes_on_where_the_first_stopped() {
    let start = u32::MAX - 2;
    let (mut producer, mut consumer) = ring(8, start);
    let mut next_producer = Producer::<u64>::new(memory_of(&producer.ring._memory), &OFFSETS, 8).unwrap();
    let mut next_consumer = Consumer::<u64>::new(memory_of(&consumer.ring._memory), &OFFSETS, 8).unwrap();
    (0..5).for_each(|item| assert!(producer.write(item)));
    producer.submit();
    assert_eq!([consumer.read(), consumer.read()], [Some(0), Some(1)]);
    consumer.release();
    drop((producer, consumer));
    next_producer.resume();
    next_consumer.resume();
    assert_eq!((next_producer.pending(), next_producer.free(1)), (3, 5));
    assert!(next_producer.write(5));
    next_producer.submit();
    assert!(std::iter::from_fn(|| next_consumer.read()).eq(2..6));
}

#[test]
fn what_was_read_and_not_released_can_be_read_again() {
    let (mut producer, mut consumer) = ring(8, u32::MAX - 2);
    (0..6).for_each(|item| assert!(producer.write(item)));
    producer.submit();
    assert_eq!(consumer.read(), Some(0));
    consumer.release();
    assert_eq!([consumer.read(), consumer.read(), consumer.read()], [Some(1), Some(2), Some(3)]);
    consumer.unread(2);
    assert_eq!(consumer.read(), Some(2));
    consumer.unread(u32::MAX);
    assert!(std::iter::from_fn(|| consumer.read()).eq(1..6), "what was released is not read again");
}

#[test]
fn two_threads_pass_everything_in_order() {
    const ITEMS: u64 = 200_000;
    let (mut producer, mut consumer) = ring(16, u32::MAX - 100);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut next = 0;
            while next < ITEMS {
                for _ in 0..next % 7 + 1 {
                    if next < ITEMS && producer.write(next) {
                        next += 1;
                    }
                }
                producer.submit();
                std::thread::yield_now();
            }
        });
        let mut expected = 0;
        while expected < ITEMS {
            while let Some(item) = consumer.read() {
                assert_eq!(item, expected);
                expected += 1;
                if expected % 5 == 0 {
                    consumer.release();
                }
            }
            consumer.release();
            std::thread::yield_now();
        }
    });
}

#[test]
fn an_index_that_ran_away_stays_within_the_ring() {
    let (memory, other) = memory(4);
    let mut consumer: Consumer<u64> = Consumer::new(memory, &OFFSETS, 4).unwrap();
    let outside: Ring<u64> = Ring::new(other, &OFFSETS, 4).unwrap();
    outside.producer().store(1_000_000, Ordering::Release);
    assert_eq!(consumer.available(), 4);
    assert_eq!(std::iter::from_fn(|| (consumer.available() > 0).then(|| consumer.read())).take(4).count(), 4);

    let (memory, other) = super::tests::memory(4);
    let mut producer: Producer<u64> = Producer::new(memory, &OFFSETS, 4).unwrap();
    let outside: Ring<u64> = Ring::new(other, &OFFSETS, 4).unwrap();
    outside.consumer().store(7, Ordering::Release);
    assert_eq!((producer.pending(), producer.free(4), producer.write(1)), (4, 0, false));
}

#[test]
fn the_flag_asks_for_a_wakeup() {
    let (memory, other) = memory(4);
    let producer: Producer<XdpDesc> = Producer::new(memory, &OFFSETS, 4).unwrap();
    assert!(!producer.needs_wakeup());
    let outside: Ring<XdpDesc> = Ring::new(other, &OFFSETS, 4).unwrap();
    // SAFETY: inside the mapping that `outside` holds.
    unsafe { outside.flags.unwrap().as_ref() }.store(1, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
}

#[test]
fn a_layout_outside_the_mapping_is_refused() {
    for (offsets, entries) in [
        (XdpRingOffset { desc: 4096, ..OFFSETS }, 4),
        (XdpRingOffset { producer: 4096, ..OFFSETS }, 4),
        (XdpRingOffset { consumer: u64::MAX, ..OFFSETS }, 4),
        (XdpRingOffset { producer: 2, ..OFFSETS }, 4),
        (OFFSETS, 1024),
        (OFFSETS, 3),
        (OFFSETS, 0),
    ] {
        assert!(Producer::<u64>::new(memory(4).0, &offsets, entries).is_err(), "{offsets:?}, {entries}");
    }
}
