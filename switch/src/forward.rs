//! The forwarding decision: one burst of one ingress port in, per-egress lists out.
//!
//! [`Forwarder::ingress`] begins a burst, [`Ingress::frame`] decides about one frame of it; everything it decides is
//! pushed into [`Egress`], which the worker then walks port by port. Nothing here touches frame bytes beyond the
//! header snapshot. Before the ports take their frames [`Copies::select`] finds those that mirrors
//! select; when they have taken them, [`Copies::choose`] works out the copies.
//!
//! **The steps of a decision** ([`steps`]), each of which can end it with a drop:
//!
//! ```text
//! header ─▶ classify ─▶ admit ───────────────▶ learn ───▶ locate ─▶ deliver to one port ─┐
//!           VLAN,       MTU, link-local and    source     fdb       flood ───────────────┴▶ egress rule, per port:
//!           mirrors     MAC control, VLAN,     address                                      VLAN and tags, MTU,
//!                       guards                                                              isolation
//! ```
//!
//! The first check that fails is the one that is counted. From `classify` on mirrors may copy the frame. `deliver`
//! looks whether the port is up and no mirror destination, `flood` asks storm control and, of a multicast frame, who
//! wants it. A frame in an RSPAN VLAN takes the same steps without `learn` and `locate`.
//!
//! **Repetition.** Frames come in runs of one conversation. A decision depends on the header, the tables and the
//! forwarding database only, and a frame that was learned from changes nothing when it comes again; so a frame whose
//! header is that of the one before it in the burst, and which is not too long, goes where that one went
//! ([`LastDecision`]). Guards that look behind the header, or count, keep a decision from being remembered.
//!
//! **Injection.** A mirror destination that may inject ([`crate::inject`]) takes frames in; an admitted frame is
//! decided about as a frame of another port is, by the same steps ([`injection`]). Its copies go to other destinations,
//! never back.
//!
//! **Inline.** Frames of a port with a sensor in its wire, and of the ports of the sensor, are passed on undecided, or
//! decided about as those of the port ([`inline`]).
//!
//! **Invariants.** A frame never leaves by the port it came in on, a port gets a frame at most once, a mirror
//! destination gets at most one copy of a frame, and no copy is made of a frame from or to a mirror
//! destination. The way of a unicast frame to a known address takes no lock and allocates nothing.

use crate::fdb::Fdb;
use crate::header::{Header, HeaderWords};
use crate::tables::{Inject, Port, Tables};
use crate::{DropReason, PortId};

mod copies;
mod egress;
mod injection;
mod inline;
mod last;
mod multicast;
mod observer;
mod rspan;
mod steps;

pub use crate::tag_edit::{TagEdit, TxItem};
pub use copies::{Copies, Destination, Part, Selection};
pub use egress::Egress;
use last::LastDecision;
pub use observer::{Observer, Step};

const NS_PER_SECOND: u64 = 1_000_000_000;
/// The two copies of the steps: the short one ([`Ingress::is_usual`]), and the one for any frame.
const USUAL: bool = true;
const ANY: bool = false;

/// The basis of decisions, the same for all frames of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Forwarder<'a> {
    /// The configuration in force.
    pub tables: &'a Tables,
    /// The ports of addresses.
    pub fdb: &'a Fdb,
    /// The time, seconds of the clock that the fdb lives by.
    pub now_seconds: u32,
}

/// Decides about the frames of one burst.
#[derive(Debug)]
pub struct Ingress<'a> {
    by: Forwarder<'a>,
    id: PortId,
    /// The time in nanoseconds, of the same clock: rates need that.
    now_ns: u64,
    /// The ingress port, or the drop reason for all its frames.
    port: Result<&'a Port, DropReason>,
    /// The decision about the frame before, if it may be repeated.
    last: Option<LastDecision>,
    /// The injection of a mirror destination that has one.
    inject: Option<&'a Inject>,
}

/// A frame that has arrived, unread.
#[derive(Clone, Copy)]
struct Arrival<'s> {
    index: u8,
    snapshot: &'s [u8],
    /// Its length on the wire.
    bytes: u32,
    /// The beginning of `snapshot`; without meaning if that is shorter.
    words: HeaderWords,
    /// `snapshot` is long enough for `words`.
    has_words: bool,
}

/// Where a decision is written.
struct Outcome<'o, O> {
    egress: &'o mut Egress,
    observer: &'o mut O,
}

/// Why a frame is dropped, and the port it counts at.
#[derive(Clone, Copy)]
struct Dropped {
    at: PortId,
    reason: DropReason,
}

impl<'a> Forwarder<'a> {
    /// Begins a burst received on `port`.
    #[inline]
    pub fn ingress(self, port: PortId) -> Ingress<'a> {
        self.ingress_at(port, u64::from(self.now_seconds) * NS_PER_SECOND)
    }

    /// Like [`Forwarder::ingress`], at a time known in nanoseconds of the same clock: rates need that.
    #[inline]
    pub fn ingress_at(self, port: PortId, now_ns: u64) -> Ingress<'a> {
        let found = match self.tables.port(port) {
            Some(found) if found.is_open => Ok(found),
            found => Err(Port::refusal(found)),
        };
        let inject = if found.is_err() { self.injection_of(port) } else { None };
        Ingress { by: self, id: port, now_ns, port: found, last: None, inject }
    }
}

impl<'a> Ingress<'a> {
    /// Decides about the `index`-th frame of the burst, which begins with `snapshot` (see
    /// [`crate::header::SNAPSHOT_BYTES`]).
    ///
    /// `frame_bytes` is its length on the wire; of a frame still to be segmented (TSO), the length of its
    /// largest segment. What is to be sent goes into `egress`; each drop is told to `observer` with the port
    /// it counts at.
    #[inline]
    pub fn frame<O: Observer>(
        &mut self,
        index: u8,
        snapshot: &[u8],
        frame_bytes: u32,
        egress: &mut Egress,
        observer: &mut O,
    ) {
        let words = HeaderWords::read(snapshot);
        if let (Some(last), Some(words)) = (&self.last, words)
            && last.holds_for(words, frame_bytes)
        {
            return last.deliver(index, egress);
        }
        self.last = None;
        let mut out = Outcome { egress, observer };
        let arrival = |words, has_words| Arrival { index, snapshot, bytes: frame_bytes, words, has_words };
        match (self.port, words) {
            (Ok(port), Some(words)) if Self::is_usual(port, words) => {
                self.take_steps::<USUAL, O>(port, arrival(words, true), words.untagged_header(), &mut out);
            }
            (Ok(port), words) => {
                self.decide(port, &arrival(words.unwrap_or_default(), words.is_some()), &mut out);
            }
            (Err(reason), words) => {
                self.take_otherwise(&arrival(words.unwrap_or_default(), words.is_some()), reason, &mut out);
            }
        }
    }

    /// True if a frame is decided by the short copy of the steps: an untagged frame of a plain port, in a VLAN by which
    /// no mirror selects. In that copy nothing of tags, guards and marks is left.
    #[inline(always)]
    fn is_usual(port: &Port, words: HeaderWords) -> bool {
        port.is_usual && words.is_untagged()
    }

    /// Decides about any frame of `port`.
    #[inline(never)]
    fn decide<O: Observer>(&mut self, port: &'a Port, arrival: &Arrival<'_>, out: &mut Outcome<'_, O>) {
        let header = match arrival.has_words {
            true => arrival.words.header(),
            false => Header::parse_short(arrival.snapshot),
        };
        self.take_steps::<ANY, O>(port, *arrival, header, out);
    }
}

#[cfg(test)]
mod tests;
