//! `labsw-ctl inject`: replays a capture into the switch, as if its frames were received on a port.
//!
//! **How it works.** Frames are read one by one and sent to the switch in batches, at most [`AHEAD`] before they are
//! due; the switch delivers each frame when it is due. With `--rate` the time of a frame follows from the frames before
//! it, otherwise from the capture. A frame captured before its predecessor is due together with it. The switch ends an
//! injection whose client is silent for a few seconds, so nothing is left if this program is killed.
//!
//! With `--split` there are two injections, which count their times from the same moment; [`sides`] says in which of
//! them a frame is.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::label::Label;
use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use crate::model::{BitRate, FrameRate};
use crate::score::time::Time;

pub mod capture;
mod replay;
mod sides;

use capture::{Capture, CaptureError};
use replay::Replay;

/// Time before a frame is due at which the switch gets it.
const AHEAD: Duration = Duration::from_millis(500);
/// Shortest wait that is announced to the user.
const LONG_GAP: Duration = Duration::from_secs(60);
const NS_PER_SECOND: u128 = 1_000_000_000;

/// The capture to replay, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port that the frames are received on.
    #[arg(value_parser = parse::name)]
    port: String,
    /// A pcap or pcapng file of Ethernet frames.
    file: PathBuf,
    /// A second port, for a capture of both sides: the sender of the first frame is at PORT, the stations that it talks
    /// to are at this one, and each frame is received where its sender is.
    #[arg(long, value_name = "PORT", value_parser = parse::name)]
    split: Option<String>,
    /// Frames or bits per second (1kpps, 10mbit) in place of the timing of the capture.
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
    /// The longest pause between two frames (as in 500ms, 10s): longer gaps of the capture are shortened.
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "rate")]
    max_gap: Option<Duration>,
    #[command(flatten)]
    label: Label,
}

/// The rate at which frames are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Frames(u32),
    Bits(u64),
}

impl Rate {
    fn parse(text: &str) -> Result<Rate, String> {
        let frames = text.parse().map(|rate: FrameRate| Rate::Frames(rate.get()));
        let bits = || text.parse().map(|rate: BitRate| Rate::Bits(rate.get()));
        frames.or_else(|_| bits()).map_err(|_| "not a rate (as in 500pps, 10kpps, 100kbit, 1.5mbit)".to_owned())
    }
}

/// The time at which each frame is due, from the start.
struct Schedule {
    pace: Pace,
    frames: u64,
    bytes: u64,
    /// The capture's time at the start of the replay; shortening a gap moves it. `None` before the first frame.
    start_ns: Option<i128>,
    /// The time at which the previous frame is due, ns.
    last: u64,
}

/// The source of the frames' times.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// The times of the capture; the longest gap between two frames, ns.
    Capture {
        max_gap_ns: u64,
    },
    Rate(Rate),
}

impl Pace {
    fn new(rate: Option<Rate>, max_gap: Option<Duration>) -> Pace {
        let max_gap_ns = max_gap.and_then(|gap| u64::try_from(gap.as_nanos()).ok()).unwrap_or(u64::MAX);
        rate.map_or(Pace::Capture { max_gap_ns }, Pace::Rate)
    }
}

impl Schedule {
    fn new(pace: Pace) -> Schedule {
        Schedule { pace, frames: 0, bytes: 0, start_ns: None, last: 0 }
    }

    /// The time at which the next frame is due, ns.
    fn next(&mut self, frame: &capture::Frame) -> u64 {
        let due = match self.pace {
            Pace::Capture { max_gap_ns } => self.as_captured(frame.at_ns, max_gap_ns),
            Pace::Rate(Rate::Frames(rate)) => at(self.frames, rate.into()),
            Pace::Rate(Rate::Bits(rate)) => at(self.bytes.saturating_mul(8), rate),
        };
        self.frames += 1;
        self.bytes += frame.bytes.len() as u64;
        self.last = self.last.max(due);
        self.last
    }

    /// The time for a frame captured at `at_ns`. A gap longer than `max_gap_ns` is shortened by moving the start.
    fn as_captured(&mut self, at_ns: i128, max_gap_ns: u64) -> u64 {
        let start_ns = *self.start_ns.get_or_insert(at_ns);
        let latest = self.last.saturating_add(max_gap_ns);
        let excess_ns = (at_ns - start_ns - i128::from(latest)).max(0);
        self.start_ns = Some(start_ns + excess_ns);
        u64::try_from(at_ns - start_ns - excess_ns).unwrap_or(0)
    }
}

/// The time at which `count` frames or bits have passed, ns.
fn at(count: u64, per_second: u64) -> u64 {
    u64::try_from(u128::from(count) * NS_PER_SECOND / u128::from(per_second.max(1))).unwrap_or(u64::MAX)
}

/// Replays a file.
pub(super) fn run(arguments: Arguments, session: &mut Session, output: &mut Output) -> Result<(), Failure> {
    let Arguments { port, file, split, rate, max_gap, label } = arguments;
    if split.as_ref() == Some(&port) {
        return Err(Failure::Usage("--split names the same port; the two sides are at different ports"));
    }
    let name = file.display().to_string();
    let unusable = |what: String| Failure::Capture(format!("{name}: {what}"));
    let opened = File::open(&file).map_err(|error| unusable(error.to_string()))?;
    let mut capture = Capture::open(opened).map_err(|error| unusable(error.to_string()))?;
    let mut running = Replay::begin(session, port.clone(), split)?;
    let (started, start) = (Instant::now(), Time::now());
    let outcome = replay(&mut capture, Pace::new(rate, max_gap), &mut running, started);
    // Frames that the switch has already are sent in any case.
    while matches!(outcome, Ok(()) | Err(Stop::Capture(_))) && running.waiting() > 0 {
        running.wait(Duration::from_millis(20))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if !matches!(outcome, Err(Stop::Switch(_))) {
        running.end()?;
    }
    match outcome {
        Err(Stop::Switch(failure)) => return Err(failure),
        Err(Stop::Capture(error)) => return Err(unusable(format!("{error}; {} frames were sent", running.sent()))),
        Ok(()) => {}
    }
    label.note("injection", &port, start, Some(Time::now()))?;
    if output.is_json() {
        output.pretty(&running.to_json(seconds))
    } else {
        output.bytes(running.to_line(seconds).as_bytes())
    }
}

/// Why a replay stopped.
enum Stop {
    Capture(CaptureError),
    Switch(Failure),
}

impl From<CaptureError> for Stop {
    fn from(error: CaptureError) -> Stop {
        Stop::Capture(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Switch(failure)
    }
}

/// Gives the switch every frame of the file.
fn replay(capture: &mut Capture<'_>, pace: Pace, running: &mut Replay<'_>, started: Instant) -> Result<(), Stop> {
    let mut schedule = Schedule::new(pace);
    loop {
        let frame = match capture.next_frame() {
            Ok(frame) => frame,
            Err(error) => {
                running.give()?;
                return Err(error.into());
            }
        };
        let Some(frame) = frame else { return Ok(running.give()?) };
        let due = schedule.next(&frame);
        announce_gap(&schedule, due, started);
        loop {
            let early = Duration::from_nanos(due).saturating_sub(started.elapsed() + AHEAD);
            if early.is_zero() {
                break;
            }
            if running.is_given() {
                running.wait(early)?;
            } else {
                running.give()?;
            }
        }
        running.take(due, &frame.bytes)?;
    }
}

/// Announces on standard error that the last frame read is due in a long time.
fn announce_gap(schedule: &Schedule, due_ns: u64, started: Instant) {
    let wait = Duration::from_nanos(due_ns).saturating_sub(started.elapsed());
    if wait > LONG_GAP {
        let (wait, frame) = (humantime::format_duration(Duration::from_secs(wait.as_secs())), schedule.frames);
        eprintln!("labsw-ctl: frame {frame} is due in {wait}, as in the capture; --max-gap shortens gaps");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_as_they_were_captured_or_at_a_rate() {
        let frame = |at_ns: i128, len: usize| capture::Frame { at_ns, bytes: vec![0; len] };
        let due = |rate: Option<Rate>, frames: &[(i128, usize)]| -> Vec<u64> {
            let mut schedule = Schedule::new(Pace::new(rate, None));
            frames.iter().map(|(at_ns, len)| schedule.next(&frame(*at_ns, *len))).collect()
        };
        assert_eq!(due(None, &[(1000, 60), (1500, 60), (900, 60), (1400, 60), (2000, 60)]), [0, 500, 500, 500, 1000]);
        assert_eq!(due(Some(Rate::Frames(4)), &[(7, 60), (5, 60), (9, 60)]), [0, 250_000_000, 500_000_000]);
        assert_eq!(due(Some(Rate::Bits(8000)), &[(0, 100), (0, 900), (0, 60)]), [0, 100_000_000, 1_000_000_000]);
    }

    #[test]
    fn a_long_gap_is_shortened_and_later_frames_follow_at_their_distance() {
        let second = 1_000_000_000i128;
        let mut schedule = Schedule::new(Pace::new(None, Some(Duration::from_secs(10))));
        let captured_at = [0, 2 * second, 1_577_836_800 * second, 1_577_836_801 * second, 5 * second, i128::MAX / 4];
        let due = captured_at.map(|at_ns| schedule.next(&capture::Frame { at_ns, bytes: vec![0; 60] }));
        assert_eq!(due, [0, 2, 12, 13, 13, 23].map(|seconds| seconds * 1_000_000_000));
    }

    #[test]
    fn rates_are_frames_or_bits_per_second() {
        assert_eq!(Rate::parse("500pps"), Ok(Rate::Frames(500)));
        assert_eq!(Rate::parse("10kpps"), Ok(Rate::Frames(10_000)));
        assert_eq!(Rate::parse("100kbit"), Ok(Rate::Bits(100_000)));
        assert_eq!(Rate::parse("10mbit"), Ok(Rate::Bits(10_000_000)));
        assert_eq!(Rate::parse("1.5Mbit"), Ok(Rate::Bits(1_500_000)));
        for wrong in ["", "10", "0pps", "0mbit", "-1kbit", "1.0001kbit", "99999999999gbit", "mbit"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
