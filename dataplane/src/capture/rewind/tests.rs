//! A memory keeps the newest frames that fit, reads them in order, and does not make workers wait.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use labsw_switch::forward::TagEdit;

use super::*;
use crate::frame::Segment;

/// Records frames of so many bytes, each filled with its number's lowest byte.
fn record(rewind: &Rewind, bytes: u32, time_ns: u64, way: Way, dropped: Option<DropReason>) {
    let memory = vec![time_ns.to_le_bytes()[0]; bytes as usize];
    let mut burst = Burst::new();
    // SAFETY: `memory` outlives the burst.
    assert!(unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len: bytes }) });
    rewind.record(&burst, &[TxItem::whole(0, TagEdit::KEEP)], way, dropped, time_ns);
}

/// The times of all frames from `since_ns` on.
fn times(rewind: &Arc<Rewind>, since_ns: u64) -> Vec<u64> {
    let mut reading = rewind.read(since_ns);
    let mut times = Vec::new();
    while let Some(past) = reading.next() {
        assert!(past.bytes.iter().all(|byte| *byte == past.time_ns.to_le_bytes()[0]), "{past:?}");
        times.push(past.time_ns);
    }
    times
}

#[test]
fn frames_come_back_as_they_were_with_way_and_reason() {
    let rewind = Arc::new(Rewind::new(0, 1));
    assert_eq!((rewind.oldest_ns(), times(&rewind, 0)), (None, vec![]));
    record(&rewind, 60, 1, Way::Rx, None);
    record(&rewind, 1514, 2, Way::Tx, None);
    record(&rewind, 61, 3, Way::Tx, Some(DropReason::ALL[5]));
    let mut reading = rewind.read(0);
    assert_eq!(reading.next(), Some(Past { way: Way::Rx, dropped: None, time_ns: 1, bytes: &[1; 60] }));
    assert_eq!(reading.next_ns(), Some(2));
    assert_eq!(reading.next(), Some(Past { way: Way::Tx, dropped: None, time_ns: 2, bytes: &[2; 1514] }));
    let dropped = Some(DropReason::ALL[5]);
    assert_eq!(reading.next(), Some(Past { way: Way::Tx, dropped, time_ns: 3, bytes: &[3; 61] }));
    assert_eq!(reading.next(), None);
    assert_eq!(reading.next_ns(), None);
    assert_eq!((times(&rewind, 2), times(&rewind, 4)), (vec![2, 3], vec![]));
    assert_eq!(rewind.oldest_ns(), Some(1));
}

#[test]
fn the_newest_frames_stay_within_the_memory() {
    let rewind = Arc::new(Rewind::new(MIN_REWIND_BYTES, 1));
    let frames = 3 * MIN_REWIND_BYTES / 100;
    (1..=frames).for_each(|time| record(&rewind, 100, time, Way::Rx, None));
    assert_eq!(rewind.missed(), 0);
    assert!(rewind.used_bytes() <= MIN_REWIND_BYTES, "{}", rewind.used_bytes());
    let kept = times(&rewind, 0);
    assert_eq!(kept, (frames - kept.len() as u64 + 1..=frames).collect::<Vec<u64>>(), "the last, without a gap");
    let bytes = kept.len() as u64 * (100 + HEADER_BYTES as u64);
    assert!(bytes > MIN_REWIND_BYTES * 9 / 10, "{bytes} of {MIN_REWIND_BYTES}");
    assert_eq!(rewind.oldest_ns(), kept.first().copied());
    let middle = frames - 1000;
    assert_eq!(times(&rewind, middle), (middle..=frames).collect::<Vec<u64>>());
}

/// The bar: ten seconds of a million frames of 64 bytes in 1 GiB.
#[test]
fn a_short_frame_takes_at_most_107_bytes() {
    let rewind = Arc::new(Rewind::new(MIN_REWIND_BYTES, 1));
    (1..=2 * MIN_REWIND_BYTES / 64).for_each(|time| record(&rewind, 64, time, Way::Rx, None));
    let each = MIN_REWIND_BYTES / times(&rewind, 0).len() as u64;
    assert!(each <= 85, "{each} bytes a frame");
}

#[test]
fn a_frame_longer_than_a_chunk_is_missed_and_counted() {
    let rewind = Arc::new(Rewind::new(0, 1));
    record(&rewind, 65_535, 1, Way::Rx, None);
    record(&rewind, 60_000, 2, Way::Rx, None);
    assert_eq!((rewind.missed(), times(&rewind, 0)), (1, vec![2]));
}

#[test]
fn a_worker_takes_another_lane_where_one_is_in_use_and_never_waits() {
    let rewind = Arc::new(Rewind::new(0, 1));
    record(&rewind, 60, 1, Way::Rx, None);
    let first = rewind.lanes[0].lock().unwrap();
    record(&rewind, 60, 2, Way::Rx, None);
    let second = rewind.lanes[1].lock().unwrap();
    record(&rewind, 60, 3, Way::Rx, None);
    drop((first, second));
    record(&rewind, 60, 4, Way::Rx, None);
    assert_eq!((rewind.missed(), times(&rewind, 0)), (1, vec![1, 2, 4]), "merged in the order of times");
    let sealed = rewind.sealed.lock().unwrap();
    let many = CHUNK_BYTES as u64 / 60;
    (5..5 + many).for_each(|time| record(&rewind, 60, time, Way::Rx, None));
    assert!(rewind.missed() > 1, "a chunk that can't be sealed takes no more");
    drop(sealed);
    record(&rewind, 60, 5000, Way::Rx, None);
    assert_eq!(times(&rewind, 5000), [5000]);
}

#[test]
fn a_reading_passes_over_what_was_used_again_and_sees_nothing_twice() {
    let rewind = Arc::new(Rewind::new(0, 1));
    let frames = MIN_REWIND_BYTES / 100;
    (1..=frames).for_each(|time| record(&rewind, 100, time, Way::Rx, None));
    let mut reading = rewind.read(0);
    let first = reading.next().unwrap().time_ns;
    // Half of the memory is used again, and the open chunk of the beginning is sealed.
    (frames + 1..=frames * 3 / 2).for_each(|time| record(&rewind, 100, time, Way::Rx, None));
    let mut seen = vec![first];
    while let Some(past) = reading.next() {
        seen.push(past.time_ns);
    }
    assert!(seen.is_sorted_by(|one, two| one < two), "in order, none twice");
    assert_eq!(*seen.last().unwrap(), frames, "up to the beginning of the reading");
    assert!(seen.len() as u64 > frames / 3 && (seen.len() as u64) < frames, "{} of {frames}", seen.len());
    assert!(rewind.used_bytes() <= MIN_REWIND_BYTES);
}

#[test]
fn several_threads_write_while_one_reads() {
    let rewind = Arc::new(Rewind::new(0, 4));
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let rewind = &rewind;
            scope.spawn(move || (1..=30_000).for_each(|n| record(rewind, 60, n * 4 + worker, Way::Rx, None)));
        }
        scope.spawn(|| (0..20).for_each(|_| assert!(times(&rewind, 1).len() <= 120_000)));
    });
    assert!(times(&rewind, 0).len() as u64 + rewind.missed() <= 120_000);
    assert!(times(&rewind, 0).len() > 20_000);
    assert!(rewind.used_bytes() <= MIN_REWIND_BYTES);
}
