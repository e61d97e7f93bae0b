//! That what a device receives reaches its port: a device whose queues are not the port's any more is reopened.
//!
//! A driver that is reset (set down and up, another MTU, other rings, more channels) remakes its queues. Some then
//! know nothing of the sockets: every frame is lost, while the link is up and no call fails.
//!
//! **How it works.** Once a second the number of receive queues is compared with the sockets', and the device's own
//! count of frames with the port's. A device that goes on counting frames of which the port sees none, those dropped by
//! the kernel included, does not serve the port.
//!
//! With busy polling, frames to be sent may stay in the transmit ring as well: the kernel then wakes no device, and
//! what the switch does instead need not suit every driver ([`Sending`]).
//!
//! **Invariants.** One frame that reaches the port starts the judgement over. Silence proves nothing. Nor does a count
//! that rises late: some drivers count every two seconds only ([`LAG`]), and what they add once may have reached the
//! port before.

use std::ops::Range;
use std::time::{Duration, Instant};

/// A driver counts so late, at most.
const LAG: Duration = Duration::from_secs(3);
/// How long none of a device's frames may reach the port. A worker that does not get the processor is no reason.
const PATIENCE: Duration = Duration::from_secs(8);
/// At so many looks the device's count must have risen.
const RISES: u32 = 3;
/// At so many of eight looks a frame must have been late.
const LATE: u32 = 3;
/// So few frames prove nothing: a driver counts some that are nobody's.
const FEW: u64 = 8;

/// The counts since a frame last reached the port.
#[derive(Debug, Default)]
pub(super) struct Health {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    /// When a frame reached the port, or the first look was.
    at: Instant,
    /// Frames that had reached the port.
    reached: u64,
    /// Frames that the device had received at the last look.
    received: u64,
    /// How many it received since, but for what it counted late.
    missed: u64,
    /// At how many looks there were some.
    rises: u32,
}

impl Health {
    /// Judges the device by the frames that it received, and those that reached the port; why it does not serve the
    /// port, if so.
    pub(super) fn look(&mut self, received: u64, reached: u64, now: Instant) -> Option<String> {
        // A device that was reset may count from 0.
        let last = match &mut self.last {
            Some(last) if last.reached == reached && last.received <= received => last,
            _ => {
                self.last = Some(Last { at: now, reached, received, missed: 0, rises: 0 });
                return None;
            }
        };
        let silent = now.saturating_duration_since(last.at);
        let new = received - std::mem::replace(&mut last.received, received);
        if new > 0 && silent > LAG {
            last.missed += new;
            last.rises += 1;
        }
        let missed = last.missed;
        let deaf = missed >= FEW && last.rises >= RISES && silent >= PATIENCE;
        deaf.then(|| {
            format!("received {missed} frames of which none reached the switch, as after a reset of its driver")
        })
    }
}

/// The looks at the transmit rings of a port with busy polling.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// For each queue, the number of the next frame to be written at the last look.
    written: Vec<u32>,
    /// The last eight looks, a bit each, the newest lowest: frames of the look before were still there.
    late: u8,
}

impl Sending {
    /// Judges a device by the frames in its transmit rings, once a second while it has a carrier: `rings` has, of each
    /// queue, the number of the next frame that the kernel will take and of the next one to be written. Gives why it
    /// does not send, if so: at three of eight looks a frame had waited for a whole second.
    pub(super) fn look(&mut self, rings: &[Range<u32>]) -> Option<String> {
        let waited =
            |(ring, written): (&Range<u32>, &u32)| ring.end.wrapping_sub(ring.start) > ring.end.wrapping_sub(*written);
        let late = rings.iter().zip(&self.written).any(waited);
        self.written = rings.iter().map(|ring| ring.end).collect();
        self.late = self.late << 1 | u8::from(late);
        (self.late.count_ones() >= LATE).then(|| "left frames in its transmit ring for a second or more".to_owned())
    }
}

/// Why a device with so many `active` receive queues does not serve a port with sockets at `bound` of them, if so.
pub(super) fn other_queues(bound: u32, active: u32) -> Option<String> {
    (bound != active).then(|| format!("has {active} receive queues now; the port was opened with {bound}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The verdicts of looks once a second at these counts: received by the device, reached the port.
    fn verdicts(counts: &[(u64, u64)]) -> Vec<bool> {
        let (mut health, begin) = (Health::default(), Instant::now());
        let looks = (0..).zip(counts);
        looks.map(|(n, (received, reached))| health.look(*received, *reached, begin + n * SECOND).is_some()).collect()
    }

    #[test]
    fn a_device_of_whose_frames_none_reaches_the_port_is_opened_anew() {
        let counts: Vec<(u64, u64)> = (0..12).map(|n| (100 + 10 * n, 55)).collect();
        assert_eq!(verdicts(&counts).iter().position(|deaf| *deaf), Some(8));
        // It counts every two seconds only.
        let counts: Vec<(u64, u64)> = (0..12).map(|n| (n / 2 * 10, 55)).collect();
        assert_eq!(verdicts(&counts).iter().position(|deaf| *deaf), Some(8));
    }

    #[test]
    fn one_frame_that_reaches_it_and_silence_are_enough() {
        let reaches: Vec<(u64, u64)> = (0..60).map(|n| (1000 * n, n / 7)).collect();
        assert!(!verdicts(&reaches).contains(&true));
        assert!(!verdicts(&[(70, 3); 60]).contains(&true), "silence");
        let few: Vec<(u64, u64)> = (0..60).map(|n| (n.min(3 + FEW - 1), 0)).collect();
        assert!(!verdicts(&few).contains(&true), "a few that are nobody's");
        let mut reset = vec![(5000, 9); 3];
        reset.extend((0..7).map(|n| (10 * n, 9)));
        assert!(!verdicts(&reset).contains(&true), "it counts from 0 again");
    }

    #[test]
    fn what_is_counted_late_proves_nothing() {
        for late in 1..20 {
            let counts: Vec<(u64, u64)> = (0..60).map(|n| (if n < late { 0 } else { 5000 }, 5000)).collect();
            assert!(!verdicts(&counts).contains(&true), "{late} s late");
        }
    }

    #[test]
    fn frames_that_wait_for_a_second_again_and_again_are_too_late() {
        let verdicts = |rings: &[Range<u32>]| -> Vec<bool> {
            let mut sending = Sending::default();
            rings.iter().map(|ring| sending.look(&[0..0, ring.clone()]).is_some()).collect()
        };
        let sent = [0..0, 10..10, 20..20, 35..40, 60..70, 90..100, 120..130, 150..151, 151..160, 170..200];
        assert!(!verdicts(&sent).contains(&true), "each frame has gone at the next look");
        assert_eq!(verdicts(&[0..20, 0..40, 0..40, 0..41, 0..60]), [false, false, false, true, true]);
        // A timer of the driver sends every two seconds.
        let flushed: Vec<Range<u32>> = (1..9).map(|n| (n - 1) / 2 * 20 + 5..n * 10).collect();
        assert_eq!(verdicts(&flushed).iter().position(|late| *late), Some(5));
        // The numbers begin anew at 2³².
        let (begin, end) = (u32::MAX - 3, u32::MAX);
        let over = |start, end| Range { start, end };
        assert!(!verdicts(&[over(begin, 1), 1..9, 9..20, 20..30, 30..40]).contains(&true));
        assert!(verdicts(&[over(begin, 1), over(begin, 9), over(begin, 20), over(end, 30)]).contains(&true));
    }

    #[test]
    fn queues_are_as_many_as_sockets() {
        assert_eq!(other_queues(2, 2), None);
        assert!(other_queues(2, 4).is_some_and(|reason| reason.contains('4')));
        assert!(other_queues(2, 1).is_some());
    }
}
