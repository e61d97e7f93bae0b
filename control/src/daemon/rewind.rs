//! Rewind: the memories of the ports for frames that passed or were dropped, and the streams of those frames.
//!
//! **How it works.** A port whose configuration has `rewind`, and which may be mirrored, has a
//! [`Rewind`](capture::Rewind) that the workers fill; [`Rewinds::follow`] adapts the memories to the ports. A client
//! asks for the past by a capture with `last_milliseconds`; [`Past`] answers it with a pcapng file in pieces, ordered
//! by time over all ports.
//!
//! **Limits.** At most [`MAX_READINGS`] streams at a time, because each has a chunk of every lane. A piece is made only
//! when the client has taken the one before, and after [`PIECE_FRAMES`] frames at the latest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use labsw_dataplane::capture::{self, Captures, Reading, Reasons, Way};
use labsw_switch::filter::{self as judge, Filter};
use labsw_switch::tables::Direction;

use super::selected::{PIECE_BYTES, bound, comment, now_ns, reasons, watched};
use super::view::View;
use crate::api::{self, CapturePiece, CaptureSpec, Error, Feed, Reply};
use crate::filter;
use crate::pcapng::{self, Packet, Statistics};

/// Streams of the past at the same time.
const MAX_READINGS: usize = 8;
/// Frames that are looked at for one piece, where a filter wants few of them.
const PIECE_FRAMES: usize = 20_000;

/// The memories of the ports, by name.
#[derive(Debug, Default)]
pub(super) struct Rewinds {
    by_port: BTreeMap<String, Memory>,
    /// Held by each stream.
    readings: Arc<()>,
}

#[derive(Debug)]
struct Memory {
    bytes: u64,
    frames: Arc<capture::Rewind>,
}

impl Rewinds {
    /// True if no port has a memory, or is to have one.
    pub(super) fn is_idle(&self, view: View<'_>) -> bool {
        self.by_port.is_empty() && !view.ports.configs().any(|port| port.rewind.is_some())
    }

    /// Adapts the memories to the ports: those of ports that are gone or keep no more are given up, and a port that
    /// gets another amount of memory starts over.
    pub(super) fn follow(&mut self, view: View<'_>) {
        let workers = view.fabric.workers.handles().len();
        let wanted: BTreeMap<&str, u64> = kept(view).collect();
        self.by_port.retain(|name, memory| wanted.get(name.as_str()) == Some(&memory.bytes));
        for (name, bytes) in wanted {
            let new = || Memory { bytes, frames: Arc::new(capture::Rewind::new(bytes, workers)) };
            self.by_port.entry(name.to_owned()).or_insert_with(new);
        }
    }

    /// Has the workers fill the memories.
    pub(super) fn add_to(&self, captures: &mut Captures, view: View<'_>) {
        for (name, memory) in &self.by_port {
            if let Some(port) = view.ports.find(name) {
                captures.add_rewind(port.id, &memory.frames);
            }
        }
    }

    /// The memory of a port, as `port show` shows it.
    pub(super) fn show(&self, port: &str) -> Option<api::PortRewind> {
        let Memory { bytes, frames } = self.by_port.get(port)?;
        let age = frames.oldest_ns().map(|oldest| Duration::from_nanos(now_ns().saturating_sub(oldest)).as_secs());
        let (used_bytes, missed_frames) = (frames.used_bytes(), frames.missed());
        Some(api::PortRewind { bytes: *bytes, used_bytes, oldest_seconds_ago: age, missed_frames })
    }

    /// Begins a stream of the frames that passed.
    pub(super) fn begin(&self, spec: CaptureSpec, last: Duration, view: View<'_>) -> Result<Box<dyn Feed>, Error> {
        let refused = |reason: String| Error::refused("rewind", reason);
        if Arc::strong_count(&self.readings) > MAX_READINGS {
            return Err(refused(format!("{MAX_READINGS} others read the past already; wait for one of them to end")));
        }
        let filter = spec.filter.as_deref().map(filter::compile).transpose();
        let filter = filter.map_err(|error| refused(format!("filter: {error}")))?;
        let now = now_ns();
        let since_ns = now.saturating_sub(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX));
        let mut ports = Vec::new();
        for (name, direction) in watched(&spec, view) {
            let Some(Memory { frames, .. }) = self.by_port.get(name) else {
                if spec.ports.iter().any(|source| source.port == name) {
                    return Err(Error::refused(
                        format!("port {name:?}"),
                        format!("keeps no frames; have it keep some (labsw-ctl port set {name} rewind=64MiB)"),
                    ));
                }
                continue;
            };
            let Some(port) = view.ports.find(name) else { continue };
            ports.push(PastOfPort {
                name: name.to_owned(),
                description: format!("labsw port, {}", port.config.kind.port_type().name()),
                direction,
                reading: frames.read(since_ns),
                missed: frames.missed(),
                given: 0,
            });
        }
        if ports.is_empty() {
            let mend = "labsw-ctl port set NAME rewind=64MiB, or `rewind` under [switch]";
            return Err(refused(format!("no port keeps frames; have one keep some ({mend})")));
        }
        Ok(Box::new(Past {
            reasons: reasons(&spec),
            left: spec.count.unwrap_or(u64::MAX),
            spec,
            filter,
            ports,
            start_ns: since_ns,
            begun: false,
            done: false,
            due: Instant::now(),
            _held: Arc::clone(&self.readings),
        }))
    }
}

/// The ports that keep what passes, and the memory of each in bytes.
pub(super) fn kept(view: View<'_>) -> impl Iterator<Item = (&str, u64)> {
    let ports = view.ports.configs().filter(|port| port.allow_mirror);
    ports.filter_map(|port| Some((port.name.as_str(), port.rewind?)))
}

/// The past of one port.
#[derive(Debug)]
struct PastOfPort {
    name: String,
    description: String,
    direction: Direction,
    reading: Reading,
    missed: u64,
    given: u64,
}

/// The frames that passed, for one client.
#[derive(Debug)]
struct Past {
    spec: CaptureSpec,
    filter: Option<Filter>,
    reasons: Reasons,
    ports: Vec<PastOfPort>,
    /// Number of frames that are still wanted.
    left: u64,
    start_ns: u64,
    begun: bool,
    done: bool,
    due: Instant,
    _held: Arc<()>,
}

impl Past {
    /// The header of the file, and the ports.
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.begun = true;
        pcapng::section(out, concat!("labswd ", env!("CARGO_PKG_VERSION")));
        for port in &self.ports {
            pcapng::interface(out, &port.name, &port.description, self.spec.snaplen, self.spec.filter.as_deref());
        }
    }

    /// Adds the next frame of all ports, if it is wanted. Returns false if there is none.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        let Past { spec, filter, reasons, ports, left, .. } = self;
        let next = |(at, port): (u32, &mut PastOfPort)| Some((port.reading.next_ns()?, at));
        let Some((_, at)) = (0..).zip(ports.iter_mut()).filter_map(next).min() else { return false };
        let Some(PastOfPort { name, direction, reading, given, .. }) = ports.get_mut(at as usize) else { return false };
        let Some(frame) = reading.next() else { return false };
        let in_direction = if frame.way == Way::Rx { direction.rx } else { direction.tx };
        let wanted = match frame.dropped {
            Some(reason) => reasons.contains(reason),
            None => !spec.drops,
        };
        let selected = |filter: &Filter| filter.selects(&judge::Frame::whole(frame.bytes));
        if !in_direction || !wanted || !filter.as_ref().is_none_or(selected) {
            return true;
        }
        let kept = if spec.snaplen == 0 { usize::MAX } else { spec.snaplen as usize };
        let packet = Packet {
            interface: at,
            time_ns: frame.time_ns,
            bound: bound(frame.way),
            wire_bytes: u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX),
            bytes: frame.bytes.get(..kept).unwrap_or(frame.bytes),
            comment: &comment(name, frame.way, frame.dropped),
        };
        pcapng::packet(out, &packet);
        *given += 1;
        *left = left.saturating_sub(1);
        true
    }

    /// Adds the counters of the ports.
    fn conclude(&self, out: &mut Vec<u8>) {
        let (start_ns, end_ns) = (self.start_ns, now_ns());
        for (interface, port) in (0..).zip(&self.ports) {
            let (received, dropped) = (port.given + port.missed, port.missed);
            pcapng::statistics(out, &Statistics { interface, start_ns, end_ns, received, dropped });
        }
    }
}

impl Feed for Past {
    fn due(&self) -> Option<Instant> {
        (!self.done).then_some(self.due)
    }

    fn next(&mut self, _now: Instant) -> Option<(Reply, bool)> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        if !self.begun {
            self.begin(&mut out);
        }
        let mut looked_at = 0;
        let more = loop {
            if self.left == 0 || !self.step(&mut out) {
                break false;
            }
            looked_at += 1;
            if out.len() >= PIECE_BYTES || looked_at == PIECE_FRAMES {
                break true;
            }
        };
        if !more {
            self.done = true;
            self.conclude(&mut out);
        }
        let count = |count: fn(&PastOfPort) -> u64| self.ports.iter().map(count).sum();
        let (captured, dropped) = (count(|port| port.given), count(|port| port.missed));
        Some((Reply::CapturePiece(CapturePiece { pcapng: STANDARD.encode(&out), captured, dropped }), self.done))
    }

    fn finish(&mut self, _now: Instant) {
        self.left = 0;
    }
}
