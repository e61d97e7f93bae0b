//! The injections of a replay: one, or one for each [side](super::sides) of the capture.
//!
//! **How it works.** Each injection has a batch of frames that the switch is to get. All batches are given together,
//! and as often as it takes: the switch says for how many frames it had room.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::session::{Failure, Session};
use super::super::table::list;
use super::sides::Sides;
use crate::api::{Change, InjectFrame, Injected, Reply, Request};

/// Interval of messages to the switch while no frame is due.
const ALIVE: Duration = Duration::from_millis(500);
/// Wait before the next try when the switch has no room.
const FULL: Duration = Duration::from_millis(5);
/// Most frames and bytes of one batch.
const BATCH_FRAMES: usize = 256;
const BATCH_BYTES: usize = 384 * 1024;

/// A running injection.
struct Injection {
    port: String,
    last: Injected,
    /// Frames for the switch.
    batch: Vec<InjectFrame>,
    batch_bytes: usize,
}

impl Injection {
    /// Begins one at a port, maybe beside another.
    fn begin(session: &mut Session, port: String, beside: Option<u64>) -> Result<Injection, Failure> {
        let begin = Change::Inject { port: port.clone(), injection: None, beside, frames: Vec::new(), end: false };
        let last = call(session, begin)?;
        Ok(Injection { port, last, batch: Vec::new(), batch_bytes: 0 })
    }

    fn say(&mut self, session: &mut Session, frames: Vec<InjectFrame>, end: bool) -> Result<(), Failure> {
        let (port, injection) = (self.port.clone(), Some(self.last.injection));
        self.last = call(session, Change::Inject { port, injection, beside: None, frames, end })?;
        Ok(())
    }

    /// Gives the batch to the switch, as much as there is room for.
    fn give(&mut self, session: &mut Session) -> Result<(), Failure> {
        self.say(session, self.batch.clone(), false)?;
        let taken = usize::try_from(self.last.taken).unwrap_or(usize::MAX).min(self.batch.len());
        self.batch.drain(..taken);
        self.batch_bytes = 0;
        Ok(())
    }

    /// `drops at web meanwhile: none`.
    fn drops(&self) -> String {
        let drops = list(self.last.drops.iter().map(|(reason, count)| format!("{reason} {count}")), "none");
        format!("drops at {} meanwhile: {drops}", self.port)
    }
}

/// See the module.
pub(super) struct Replay<'a> {
    session: &'a mut Session,
    injections: Vec<Injection>,
    sides: Sides,
}

impl Replay<'_> {
    /// Begins the injections: at `port`, and at `other` if there are two sides.
    ///
    /// # Errors
    /// The switch refuses; then none runs.
    pub(super) fn begin(session: &mut Session, port: String, other: Option<String>) -> Result<Replay<'_>, Failure> {
        let mut first = Injection::begin(session, port, None)?;
        let second = other.map(|other| Injection::begin(session, other, Some(first.last.injection))).transpose();
        if second.is_err() {
            first.say(session, Vec::new(), true)?;
        }
        let injections = std::iter::once(first).chain(second?).collect();
        Ok(Replay { session, injections, sides: Sides::default() })
    }

    /// Takes a frame that is due at this time, and gives the switch what there is no more room for here.
    ///
    /// # Errors
    /// Those of the switch.
    pub(super) fn take(&mut self, due: u64, frame: &[u8]) -> Result<(), Failure> {
        let side = if self.injections.len() > 1 { self.sides.of(frame) } else { 0 };
        let is_full = |one: &Injection| one.batch.len() >= BATCH_FRAMES || one.batch_bytes + frame.len() > BATCH_BYTES;
        if self.injections.get(side).is_some_and(is_full) {
            self.give()?;
        }
        if let Some(injection) = self.injections.get_mut(side) {
            injection.batch_bytes += frame.len();
            injection.batch.push(InjectFrame::new(due, frame));
        }
        Ok(())
    }

    /// True if no frame waits here.
    pub(super) fn is_given(&self) -> bool {
        self.injections.iter().all(|injection| injection.batch.is_empty())
    }

    /// Gives the frames to the switch, however long it takes until there is room for them.
    ///
    /// # Errors
    /// Those of the switch.
    pub(super) fn give(&mut self) -> Result<(), Failure> {
        loop {
            self.injections.iter_mut().try_for_each(|injection| injection.give(self.session))?;
            if self.is_given() {
                return Ok(());
            }
            sleep(FULL);
        }
    }

    /// Waits, and keeps the injections alive.
    ///
    /// # Errors
    /// Those of the switch.
    pub(super) fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        sleep(time.min(ALIVE));
        self.injections.iter_mut().try_for_each(|injection| injection.say(self.session, Vec::new(), false))
    }

    /// Ends the injections.
    ///
    /// # Errors
    /// Those of the switch.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.injections.iter_mut().try_for_each(|injection| injection.say(self.session, Vec::new(), true))
    }

    /// The number of frames that the switch has and that have not entered yet.
    pub(super) fn waiting(&self) -> u64 {
        self.injections.iter().map(|injection| injection.last.waiting).sum()
    }

    /// The number of frames that have entered.
    pub(super) fn sent(&self) -> u64 {
        self.injections.iter().map(|injection| injection.last.sent).sum()
    }

    /// The result as an object: that of the first port, with that of the second in it as `split`.
    pub(super) fn to_json(&self, seconds: f64) -> Value {
        let of = |injection: &Injection| {
            let Injection { port, last, .. } = injection;
            json!({"port": port, "sent": last.sent, "seconds": seconds, "drops": last.drops})
        };
        match &self.injections[..] {
            [first, second] => {
                let mut shown = of(first);
                shown["split"] = of(second);
                shown
            }
            several => several.iter().map(of).next().unwrap_or_default(),
        }
    }

    /// The result in a line.
    pub(super) fn to_line(&self, seconds: f64) -> String {
        let sent: Vec<String> = match &self.injections[..] {
            [one] => vec![format!("{} frames", one.last.sent)],
            several => several.iter().map(|one| format!("{} frames at {}", one.last.sent, one.port)).collect(),
        };
        let drops: Vec<String> = self.injections.iter().map(Injection::drops).collect();
        format!("{} sent in {seconds:.1} s; {}\n", sent.join(" and "), drops.join("; "))
    }
}

fn call(session: &mut Session, change: Change) -> Result<Injected, Failure> {
    match session.call(&Request::Change(change))? {
        Reply::Injected(injected) => Ok(injected),
        _ => Err(Failure::OtherAnswer),
    }
}
