//! The queue of a capture: its bounds, and that it wakes the control thread once.

#![allow(unsafe_code, reason = "tests lend memory of their own")]

use std::time::Duration;

use labsw_switch::forward::TagEdit;

use super::*;
use crate::frame::Segment;

const WAKER: mio::Token = mio::Token(1);

/// A capture with its count of frames that it missed.
struct Point {
    capture: Arc<Capture>,
    missed: Arc<AtomicU64>,
}

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

    fn point(&self, snap_bytes: u32) -> Point {
        let capture = Capture::new(snap_bytes, None, Arc::clone(&self.budget), Arc::clone(&self.waker));
        Point { capture: Arc::new(capture), missed: Arc::default() }
    }

    fn woken(&mut self) -> bool {
        let mut events = mio::Events::with_capacity(4);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        !events.is_empty()
    }
}

/// Records one frame of so many bytes.
fn record(point: &Point, bytes: u32, time_ns: u64) {
    let memory = vec![0x5a; bytes as usize];
    let mut burst = Burst::new();
    // SAFETY: `memory` outlives the burst.
    assert!(unsafe { burst.push_whole(0, Segment { ptr: memory.as_ptr(), len: bytes }) });
    let (capture, missed) = (Arc::clone(&point.capture), Arc::clone(&point.missed));
    let point = CapturePoint::new(capture, 7, missed);
    point.record(&burst, &[TxItem::whole(0, TagEdit::KEEP)], Way::Rx, None, time_ns);
}

fn missed(point: &Point) -> u64 {
    point.missed.load(Ordering::Relaxed)
}

#[test]
fn a_full_queue_drops_frames_by_number_and_by_bytes_and_has_room_again_after_a_fetch() {
    let lab = Lab::new();
    let many = lab.point(0);
    for number in 0..MAX_WAITING_FRAMES as u64 + 3 {
        record(&many, 60, number);
    }
    assert_eq!(missed(&many), 3);
    assert_eq!(many.capture.fetch().unwrap().time_ns, 0, "the oldest first; what came late is what is lost");
    record(&many, 60, 9);
    assert_eq!(missed(&many), 3);

    let large = lab.point(0);
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
    let mut points: Vec<_> = (0..=most).map(|_| lab.point(0)).collect();
    for point in &points {
        (0..frames).for_each(|_| record(point, 65_536, 0));
    }
    assert_eq!(missed(&points[most]), frames as u64, "nothing is left for the last");
    assert_eq!(lab.budget.0.load(Ordering::Relaxed), MAX_ALL_WAITING_BYTES);
    points.remove(0);
    record(points.last().unwrap(), 65_536, 0);
    assert_eq!(points.last().unwrap().capture.fetch().unwrap().wire_bytes, 65_536);
    points.clear();
    assert_eq!(lab.budget.0.load(Ordering::Relaxed), 0);
}

#[test]
fn snap_lengths_cut_and_the_length_on_the_wire_is_kept() {
    let lab = Lab::new();
    let point = lab.point(100);
    record(&point, 60, 1);
    record(&point, 1500, 2);
    let lengths = std::iter::from_fn(|| point.capture.fetch()).map(|got| (got.bytes.len(), got.wire_bytes));
    assert_eq!(lengths.collect::<Vec<_>>(), [(60, 60), (100, 1500)]);
}

#[test]
fn it_wakes_once_until_the_control_thread_sleeps_again() {
    let mut lab = Lab::new();
    let point = lab.point(0);
    let capture = Arc::clone(&point.capture);
    record(&point, 60, 1);
    assert!(lab.woken() && capture.is_awake());
    record(&point, 60, 2);
    assert!(!lab.woken(), "it is awake");
    assert!(!capture.sleep(), "two frames wait");
    assert!(capture.is_awake());
    while capture.fetch().is_some() {}
    assert!(capture.sleep() && !capture.is_awake());
    record(&point, 60, 3);
    assert!(lab.woken());
}

#[test]
fn a_closed_capture_takes_nothing() {
    let lab = Lab::new();
    let point = lab.point(0);
    record(&point, 60, 1);
    point.capture.close();
    record(&point, 60, 2);
    assert_eq!(point.capture.fetch().unwrap().time_ns, 1);
    assert_eq!((point.capture.fetch(), missed(&point)), (None, 0));
}
