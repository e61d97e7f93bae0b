//! `labsw-ctl inject`: replays a capture into the switch, as if its frames were received on a port.
//!
//! **How it works.** Frames are read one by one and sent to the switch in batches ahead of their time, at most [`AHEAD`]; the switch receives
//! each when it is due. With `--rate` a frame's time is worked out from those before it, otherwise it is that of the capture; a
//! frame that was captured before its predecessor comes with it. The switch ends an injection that nobody says anything
//! about for a few seconds, so nothing is left when this program is killed.

use std::fs::File;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use super::table::list;
use crate::api::{Change, InjectFrame, Injected, Reply, Request};
use crate::config::parse_rate;

mod capture;

use capture::{Capture, CaptureError};

/// How far ahead of their time frames are given to the switch.
const AHEAD: Duration = Duration::from_millis(500);
/// How often the switch hears from us while nothing is due.
const ALIVE: Duration = Duration::from_millis(500);
/// How long to wait when the switch has no room.
const FULL: Duration = Duration::from_millis(5);
/// Frames and bytes of one batch.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 384 * 1024;
const NS_PER_SECOND: u128 = 1_000_000_000;

/// What to replay.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The port that the frames seem to be received on.
    #[arg(value_parser = parse::name)]
    port: String,
    /// A pcap or pcapng file of Ethernet frames.
    file: PathBuf,
    /// Frames or bits per second (1kpps, 10mbit) instead of the timing of the capture.
    #[arg(long, value_parser = Rate::parse)]
    rate: Option<Rate>,
}

/// How fast frames follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Frames(u32),
    Bits(u64),
}

impl Rate {
    fn parse(text: &str) -> Result<Rate, String> {
        if let Ok(rate) = parse_rate(text) {
            return Ok(Rate::Frames(rate));
        }
        let units = [("kbit", 1000u64), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
        let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let bits = found.and_then(|(number, factor)| number.parse::<u64>().ok()?.checked_mul(factor));
        bits.filter(|bits| *bits > 0)
            .map(Rate::Bits)
            .ok_or_else(|| "not a rate (as in 500pps, 10kpps, 100kbit, 10mbit)".to_owned())
    }
}

/// When each frame is due, from the start.
struct Schedule {
    rate: Option<Rate>,
    frames: u64,
    bytes: u64,
    first_ns: Option<i128>,
    last: u64,
}

impl Schedule {
    fn new(rate: Option<Rate>) -> Schedule {
        Schedule { rate, frames: 0, bytes: 0, first_ns: None, last: 0 }
    }

    /// When the next frame is due, ns.
    fn next(&mut self, frame: &capture::Frame) -> u64 {
        let first_ns = *self.first_ns.get_or_insert(frame.at_ns);
        let due = match self.rate {
            None => u64::try_from(frame.at_ns - first_ns).unwrap_or(0),
            Some(Rate::Frames(rate)) => at(self.frames, rate.into()),
            Some(Rate::Bits(rate)) => at(self.bytes.saturating_mul(8), rate),
        };
        self.frames += 1;
        self.bytes += frame.bytes.len() as u64;
        self.last = self.last.max(due);
        self.last
    }
}

/// When so many of something have passed, ns.
fn at(count: u64, per_second: u64) -> u64 {
    u64::try_from(u128::from(count) * NS_PER_SECOND / u128::from(per_second.max(1))).unwrap_or(u64::MAX)
}

/// An injection that the switch has begun.
struct Injection<'a> {
    session: &'a mut Session,
    port: String,
    last: Injected,
}

impl Injection<'_> {
    fn say(&mut self, frames: Vec<InjectFrame>, end: bool) -> Result<(), Failure> {
        let (port, injection) = (self.port.clone(), Some(self.last.injection));
        self.last = call(self.session, Change::Inject { port, injection, frames, end })?;
        Ok(())
    }

    /// Gives the switch frames, however long it takes to have room for them.
    fn give(&mut self, mut frames: Vec<InjectFrame>) -> Result<(), Failure> {
        loop {
            self.say(frames.clone(), false)?;
            let taken = usize::try_from(self.last.taken).unwrap_or(usize::MAX).min(frames.len());
            frames.drain(..taken);
            if frames.is_empty() {
                return Ok(());
            }
            sleep(FULL);
        }
    }

    /// Waits, and lets the switch know.
    fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        sleep(time.min(ALIVE));
        self.say(Vec::new(), false)
    }
}

/// Replays a file.
pub(super) fn run(arguments: Arguments, session: &mut Session, output: &mut Output) -> Result<(), Failure> {
    let Arguments { port, file, rate } = arguments;
    let name = file.display().to_string();
    let unusable = |what: String| Failure::Capture(format!("{name}: {what}"));
    let opened = File::open(&file).map_err(|error| unusable(error.to_string()))?;
    let mut capture = Capture::open(opened).map_err(|error| unusable(error.to_string()))?;
    let begin = Change::Inject { port: port.clone(), injection: None, frames: Vec::new(), end: false };
    let last = call(session, begin)?;
    let mut injection = Injection { session, port, last };
    let started = Instant::now();
    let outcome = replay(&mut capture, rate, &mut injection, started);
    // What was given is sent in any case.
    while matches!(outcome, Ok(()) | Err(Stop::Capture(_))) && injection.last.waiting > 0 {
        injection.wait(Duration::from_millis(20))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    if !matches!(outcome, Err(Stop::Switch(_))) {
        injection.say(Vec::new(), true)?;
    }
    let Injected { sent, drops, .. } = &injection.last;
    match outcome {
        Err(Stop::Switch(failure)) => return Err(failure),
        Err(Stop::Capture(error)) => return Err(unusable(format!("{error}; {sent} frames were sent"))),
        Ok(()) => {}
    }
    if output.is_json() {
        return output.pretty(&json!({"port": injection.port, "sent": sent, "seconds": seconds, "drops": drops}));
    }
    let dropped = list(drops.iter().map(|(reason, count)| format!("{reason} {count}")), "none");
    let text = format!("{sent} frames sent in {seconds:.1} s; drops at {} meanwhile: {dropped}\n", injection.port);
    output.bytes(text.as_bytes())
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
fn replay(
    capture: &mut Capture<'_>,
    rate: Option<Rate>,
    injection: &mut Injection<'_>,
    started: Instant,
) -> Result<(), Stop> {
    let mut schedule = Schedule::new(rate);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        let frame = match capture.next_frame() {
            Ok(frame) => frame,
            Err(error) => {
                injection.give(batch)?;
                return Err(error.into());
            }
        };
        let Some(frame) = frame else {
            injection.give(batch)?;
            return Ok(());
        };
        let due = schedule.next(&frame);
        loop {
            let early = Duration::from_nanos(due).saturating_sub(started.elapsed() + AHEAD);
            if early.is_zero() {
                break;
            }
            if batch.is_empty() {
                injection.wait(early)?;
            } else {
                injection.give(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        if batch.len() >= BATCH_FRAMES || bytes + frame.bytes.len() > BATCH_BYTES {
            injection.give(std::mem::take(&mut batch))?;
            bytes = 0;
        }
        bytes += frame.bytes.len();
        batch.push(InjectFrame::new(due, &frame.bytes));
    }
}

fn call(session: &mut Session, change: Change) -> Result<Injected, Failure> {
    match session.call(&Request::Change(change))? {
        Reply::Injected(injected) => Ok(injected),
        // The reply is read by the method's own reader, so it can't be another.
        _ => Err(Failure::Capture("the switch answered something else".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_due_as_they_were_captured_or_at_a_rate() {
        let frame = |at_ns: i128, len: usize| capture::Frame { at_ns, bytes: vec![0; len] };
        let due = |rate: Option<Rate>, frames: &[(i128, usize)]| -> Vec<u64> {
            let mut schedule = Schedule::new(rate);
            frames.iter().map(|(at_ns, len)| schedule.next(&frame(*at_ns, *len))).collect()
        };
        assert_eq!(due(None, &[(1000, 60), (1500, 60), (900, 60), (1400, 60), (2000, 60)]), [0, 500, 500, 500, 1000]);
        assert_eq!(due(Some(Rate::Frames(4)), &[(7, 60), (5, 60), (9, 60)]), [0, 250_000_000, 500_000_000]);
        assert_eq!(due(Some(Rate::Bits(8000)), &[(0, 100), (0, 900), (0, 60)]), [0, 100_000_000, 1_000_000_000]);
    }

    #[test]
    fn rates_are_frames_or_bits_per_second() {
        assert_eq!(Rate::parse("500pps"), Ok(Rate::Frames(500)));
        assert_eq!(Rate::parse("10kpps"), Ok(Rate::Frames(10_000)));
        assert_eq!(Rate::parse("100kbit"), Ok(Rate::Bits(100_000)));
        assert_eq!(Rate::parse("10mbit"), Ok(Rate::Bits(10_000_000)));
        for wrong in ["", "10", "0pps", "0mbit", "-1kbit", "1.5mbit", "99999999999gbit", "mbit"] {
            assert!(Rate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
