//! Captures that go on in another process.
//!
//! **How it works.** With the connection of a client goes the state of its stream ([`Record`]): from it the new process
//! makes the same session, which knows the same interfaces, and its workers fill it from their first burst on. While no
//! worker runs, the counts follow ([`Sessions::counts`]). The frames that wait for the client need not be there before
//! the new workers run: they come last ([`Sessions::waiting`]), and the client gets them first. The file that a client
//! writes goes on where it was, without a second header.
//!
//! **Invariant.** Each frame is in the file once, in order, or counted as dropped: frames that wait are counted so if
//! the old process ends before it has sent them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use labsw_dataplane::capture::{MAX_WAITING_BYTES, MAX_WAITING_FRAMES};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Interface, Pieces, Session, Sessions, View};
use crate::api::{CaptureSpec, Error, Feed, Peer};
use crate::takeover::capture::{InterfaceCounts, KeptCaptured};

/// A capture and the stream of its client.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    number: u64,
    spec: CaptureSpec,
    age_ns: u64,
    interfaces: Vec<InterfaceRecord>,
    begun: bool,
    described: usize,
    left: u64,
    start_ns: u64,
    finishing: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct InterfaceRecord {
    port: String,
    description: String,
    captured: u64,
}

impl Pieces {
    /// The capture as it is handed over; `None` if it has ended.
    pub(super) fn record(&self) -> Option<Value> {
        let Pieces { session, begun, described, left, start_ns, finishing, done, .. } = self;
        if *done {
            return None;
        }
        let interface = |Interface { port, description, captured, .. }: &Interface| InterfaceRecord {
            port: port.clone(),
            description: description.clone(),
            captured: *captured,
        };
        let record = Record {
            number: session.number,
            spec: session.spec.clone(),
            age_ns: u64::try_from(session.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            interfaces: session.interfaces().iter().map(interface).collect(),
            begun: *begun,
            described: *described,
            left: *left,
            start_ns: *start_ns,
            finishing: *finishing,
        };
        serde_json::to_value(record).ok()
    }
}

impl Sessions {
    /// Goes on with a capture of another process.
    pub(in crate::daemon) fn go_on(
        &mut self,
        peer: &Peer,
        state: Value,
        view: View<'_>,
    ) -> Result<Box<dyn Feed>, Error> {
        let garbled = |error| Error::refused("capture", format!("its state is garbled: {error}"));
        let record: Record = serde_json::from_value(state).map_err(garbled)?;
        let now = Instant::now();
        let started = now.checked_sub(Duration::from_nanos(record.age_ns)).unwrap_or(now);
        let interface = |InterfaceRecord { port, description, captured }| Interface {
            port,
            description,
            captured,
            missed: Arc::default(),
        };
        let interfaces = record.interfaces.into_iter().map(interface).collect();
        let session = self.enter(record.number, peer, record.spec, started, interfaces, view)?;
        let mut pieces = Pieces::new(session);
        let Record { begun, described, left, start_ns, .. } = record;
        pieces.begun = begun;
        (pieces.described, pieces.left, pieces.start_ns, pieces.next_at) = (described, left, start_ns, now);
        if record.finishing {
            pieces.finish(now);
        }
        Ok(Box::new(pieces))
    }

    /// The counts of all captures, at each interface. The workers stand still.
    pub(in crate::daemon) fn counts(&self) -> Vec<(u64, Vec<InterfaceCounts>)> {
        self.list.iter().map(|session| (session.number, session.gather())).collect()
    }

    /// The frames that wait for clients, by the number of the capture.
    pub(in crate::daemon) fn waiting(&self) -> Vec<(u64, Vec<KeptCaptured>)> {
        let frames = |session: &Session| session.inherited().iter().map(KeptCaptured::from).collect();
        self.list.iter().map(|session| (session.number, frames(session))).collect()
    }

    /// Takes over the counts; the frames that wait count as missed until they come.
    pub(in crate::daemon) fn complete(&self, counts: &[(u64, Vec<InterfaceCounts>)]) {
        for session in &self.list {
            let counts = of(counts, session);
            for (interface, counts) in session.interfaces().iter().zip(counts) {
                interface.missed.fetch_add(counts.missed.saturating_add(counts.waiting), Ordering::Relaxed);
            }
        }
    }

    /// Takes over the frames that wait.
    pub(in crate::daemon) fn take_waiting(&self, frames: &[(u64, Vec<KeptCaptured>)]) {
        for session in &self.list {
            let frames = of(frames, session);
            let (interfaces, mut inherited) = (session.interfaces(), session.inherited());
            for frame in frames.iter().filter_map(KeptCaptured::captured) {
                let Some(interface) = interfaces.get(frame.interface as usize) else { continue };
                interface
                    .missed
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |missed| missed.checked_sub(1))
                    .ok();
                inherited.push_back(frame);
            }
        }
    }
}

/// The part of a list by captures that is about this one.
fn of<'a, T>(list: &'a [(u64, Vec<T>)], session: &Session) -> &'a [T] {
    list.iter().find(|(number, _)| *number == session.number).map_or(&[][..], |(_, part)| part)
}

impl Session {
    /// Puts the frames of the queue behind those that wait to be handed over, and counts, for each interface. The
    /// workers stand still.
    fn gather(&self) -> Vec<InterfaceCounts> {
        let (interfaces, mut inherited) = (self.interfaces(), self.inherited());
        let mut bytes: usize = inherited.iter().map(|frame| frame.bytes.len()).sum();
        while let Some(frame) = self.queue.fetch() {
            if inherited.len() < MAX_WAITING_FRAMES && bytes < MAX_WAITING_BYTES {
                bytes += frame.bytes.len();
                inherited.push_back(frame);
            } else if let Some(interface) = interfaces.get(frame.interface as usize) {
                interface.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        let missed = interfaces.iter().map(|interface| interface.missed.load(Ordering::Relaxed));
        let mut counts: Vec<_> = missed.map(|missed| InterfaceCounts { missed, waiting: 0 }).collect();
        for frame in &*inherited {
            if let Some(counts) = counts.get_mut(frame.interface as usize) {
                counts.waiting += 1;
            }
        }
        counts
    }
}
