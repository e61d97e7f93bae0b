//! Numbered frames between two stations: each has to arrive once and in order, whatever happens to the switch
//! meanwhile.
#![allow(clippy::unwrap_used, reason = "test helpers report by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use labsw_testkit::station::Station;

use crate::packet::{Frame, RawSocket, mac};
use crate::process::wait_for;

/// Size of the stations' rings.
pub const RING: u16 = 256;
/// Frames on their way at most: the receiver has buffers for them.
const UNDERWAY: u64 = 128;
/// Length of the numbered frames, and their type (one for experiments).
const LENGTH: usize = 64;
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const SECOND: Duration = Duration::from_secs(1);

/// Where frames come from and go to.
pub trait End {
    /// Sends if there is room.
    fn try_send(&mut self, frame: &[u8]) -> bool;
    /// The frames that are there already; of others than those of the test too.
    fn receive(&mut self) -> Vec<Vec<u8>>;
}

impl End for Station {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        Station::try_send(self, frame)
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        Station::receive(self)
    }
}

impl End for RawSocket {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        RawSocket::try_send(self, frame).is_ok()
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.try_recv().ok()).take(64).collect()
    }
}

/// An end that puts numbered frames in order: frames that begin to pass in the kernel overtake those that are on their
/// way through the switch.
#[derive(Debug)]
pub struct Sorted {
    end: RawSocket,
    /// The number of the frame that is due.
    due: u64,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Sorted {
    /// Before this end.
    pub fn of(end: RawSocket) -> Sorted {
        Sorted { end, due: 0, early: BTreeMap::new() }
    }
}

impl End for Sorted {
    fn try_send(&mut self, frame: &[u8]) -> bool {
        End::try_send(&mut self.end, frame)
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = self.end.receive();
        frames.retain(|frame| frame.len() == LENGTH && frame[12..14] == ETHERTYPE && frame[6..12] == mac(1));
        for frame in frames {
            let number = number_of(&frame);
            assert!(number >= self.due && self.early.insert(number, frame).is_none(), "frame {number} twice");
        }
        let in_order = std::iter::from_fn(|| {
            let frame = self.early.remove(&self.due)?;
            self.due += 1;
            Some(frame)
        });
        in_order.collect()
    }
}

/// A frame with this number from one station to another.
pub fn numbered(from: u8, to: u8, number: u64) -> Vec<u8> {
    let mut frame = Frame::new(mac(to), mac(from)).build();
    frame.resize(LENGTH, 0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[14..22].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number of a frame.
pub fn number_of(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// What went through while it was watched.
#[derive(Debug, Default)]
pub struct Passed {
    /// Frames that arrived.
    pub frames: u64,
    /// The longest time without one.
    pub longest: Duration,
}

/// Numbered frames from one station to the other, each checked to arrive once and in order, until told to stop.
#[derive(Debug, Default)]
pub struct Stream {
    /// Frames sent so far.
    pub sent: u64,
    /// Frames received so far.
    pub received: u64,
    /// Frames that may come once more, from now on.
    pub may_repeat: u64,
}

impl Stream {
    /// Sends and receives until `stop`, and until all that was sent has arrived.
    ///
    /// # Panics
    /// When a frame is missing, or comes twice.
    pub fn run(&mut self, from: &mut dyn End, to: &mut dyn End, stop: &AtomicBool) -> Passed {
        let (begin, mut passed, mut last) = (self.received, Passed::default(), Instant::now());
        while !stop.load(Ordering::Relaxed) || self.received < self.sent {
            while !stop.load(Ordering::Relaxed)
                && self.sent - self.received < UNDERWAY
                && from.try_send(&numbered(1, 2, self.sent))
            {
                self.sent += 1;
            }
            let mut frames = to.receive();
            frames.retain(|frame| frame.len() == LENGTH && frame[..6] == mac(2) && frame[12..14] == ETHERTYPE);
            let now = Instant::now();
            if frames.is_empty() {
                assert!(now - last < 40 * SECOND, "{} sent, {} received, and no more come", self.sent, self.received);
                std::thread::yield_now();
                continue;
            }
            passed.longest = passed.longest.max(now - last);
            last = now;
            for frame in frames {
                if number_of(&frame) < self.received && self.may_repeat > 0 {
                    self.may_repeat -= 1;
                    continue;
                }
                assert_eq!(number_of(&frame), self.received, "each frame once, in order");
                self.received += 1;
            }
        }
        passed.frames = self.received - begin;
        passed
    }

    /// Runs while `work` is done on another thread.
    ///
    /// # Panics
    /// As [`Stream::run`], and when the work does.
    pub fn during(&mut self, from: &mut dyn End, to: &mut dyn End, work: impl FnOnce() + Send) -> Passed {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                stop.store(true, Ordering::Relaxed);
                done
            });
            let passed = self.run(from, to, &stop);
            if let Err(failure) = worker.join().unwrap() {
                std::panic::resume_unwind(failure);
            }
            passed
        })
    }
}

/// Lets two stations know each other's place: the second one has sent to the first.
///
/// # Panics
/// When its frame does not arrive.
pub fn meet(a: &mut Station, b: &mut Station) {
    let mut sent = false;
    wait_for("the first frame", 10 * SECOND, || {
        sent = sent || b.try_send(&numbered(2, 1, 0));
        (!a.receive().is_empty()).then_some(())
    });
}
