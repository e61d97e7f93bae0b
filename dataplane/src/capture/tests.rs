//! The queue of a capture: its bounds, and that it wakes the control thread once.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use std::time::Duration;

use labsw_switch::forward::TagEdit;

use super::*;
use crate::frame::Segment;

const WAKER: mio::Token = mio::Token(1);

struct Lab {
    poll: mio::Poll,
    waker: Arc<mio::Waker>,
    budget: Arc<Budget>,
}

impl Lab {
    fn new() -> Lab {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER).unwrap());
        Lab { poll, waker, budget: Arc::default() }
    }

    fn watch(&self, snap_bytes: u32) -> Watch {
        let capture = Capture::new(snap_bytes, None, Arc::clone(&self.budget), Arc::clone(&self.waker));
        Watch::new(Arc::new(capture), 7, Arc::default())
    }

    fn woken(&mut self) -> bool {
        let mut events = mio::Events::with_capacity(4);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }
}

/// Records one frame of so many bytes.
fn record(watch: &Watch, bytes: u32, time_ns: u64) {
    let memory = vec![0x5a; bytes as usize];
    let mut burst = Burst::new();
    // SAFETY: `memory` outlives the burst.
    assert!(unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len: bytes }) });
    watch.record(&burst, &[TxItem::whole(0, TagEdit::KEEP)], Way::Rx, None, time_ns);
}

fn missed(watch: &Watch) -> u64 {
    watch.missed.load(Ordering::Relaxed)
}

#[test]
fn a_full_queue_drops_frames_by_number_and_by_bytes_and_has_room_again_after_a_fetch() {
    let lab = Lab::new();
    let many = lab.watch(0);
    for number in 0..MAX_WAITING_FRAMES as u64 + 3 {
        record(&many, 60, number);
    }
    assert_eq!(missed(&many), 3);
    assert_eq!(many.capture.fetch().unwrap().time_ns, 0, "the oldest first; what came late is what is lost");
    record(&many, 60, 9);
    assert_eq!(missed(&many), 3);

    let large = lab.watch(0);
    let fit = MAX_WAITING_BYTES / 60_000;
    for number in 0..fit as u64 + 2 {
        record(&large, 60_000, number);
    }
    assert_eq!(missed(&large), 2);
    assert_eq!(std::iter::from_fn(|| large.capture.fetch()).count(), fit);
    record(&large, 60_000, 0);
    assert_eq!(missed(&large), 2);
}

#[test]
fn all_captures_share_a_budget_which_a_capture_that_ends_gives_back() {
    let lab = Lab::new();
    let most = MAX_ALL_WAITING_BYTES / MAX_WAITING_BYTES;
    let frames = MAX_WAITING_BYTES / 65_536;
    let mut watches: Vec<_> = (0..=most).map(|_| lab.watch(0)).collect();
    for watch in &watches {
        (0..frames).for_each(|_| record(watch, 65_536, 0));
    }
    assert_eq!(missed(&watches[most]), frames as u64, "nothing is left for the last");
    assert_eq!(lab.budget.0.load(Ordering::Relaxed), MAX_ALL_WAITING_BYTES);
    watches.remove(0);
    record(watches.last().unwrap(), 65_536, 0);
    assert_eq!(watches.last().unwrap().capture.fetch().unwrap().wire_bytes, 65_536);
    watches.clear();
    assert_eq!(lab.budget.0.load(Ordering::Relaxed), 0);
}

#[test]
fn snap_lengths_cut_and_the_length_on_the_wire_is_kept() {
    let lab = Lab::new();
    let watch = lab.watch(100);
    record(&watch, 60, 1);
    record(&watch, 1500, 2);
    let lengths = std::iter::from_fn(|| watch.capture.fetch()).map(|got| (got.bytes.len(), got.wire_bytes));
    assert_eq!(lengths.collect::<Vec<_>>(), [(60, 60), (100, 1500)]);
}

#[test]
fn it_wakes_once_until_the_control_thread_sleeps_again() {
    let mut lab = Lab::new();
    let watch = lab.watch(0);
    let capture = Arc::clone(&watch.capture);
    record(&watch, 60, 1);
    assert!(lab.woken() && capture.is_awake());
    record(&watch, 60, 2);
    assert!(!lab.woken(), "it is awake");
    assert!(!capture.sleep(), "two frames wait");
    assert!(capture.is_awake());
    while capture.fetch().is_some() {}
    assert!(capture.sleep() && !capture.is_awake());
    record(&watch, 60, 3);
    assert!(lab.woken());
}

#[test]
fn a_closed_capture_takes_nothing() {
    let lab = Lab::new();
    let watch = lab.watch(0);
    record(&watch, 60, 1);
    watch.capture.close();
    record(&watch, 60, 2);
    assert_eq!(watch.capture.fetch().unwrap().time_ns, 1);
    assert_eq!((watch.capture.fetch(), missed(&watch)), (None, 0));
}
