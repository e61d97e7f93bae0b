//! A dry run: the decision about one frame, step by step, with no effect.
//!
//! [`trace`] has the frame decided by [`Ingress::frame`](crate::forward::Ingress::frame) and its copies chosen by
//! [`Copies::choose`], exactly as a worker does, and writes down what they tell their observers. There is no second
//! account of the rules here: what a trace says is what forwarding does. `switch/tests/model.rs` holds the two against
//! each other.
//!
//! **Invariants.** Nothing is learned, no time stamp is refreshed and no allowance is used up ([`Observer::DRY_RUN`]).
//!
//! **Limit.** If a new address needs the place of another one in a full forwarding database, which one goes is not
//! foreseen: a trace of a frame whose own destination would go shows it as still known.

use crate::forward::{Copies, Egress, Forwarder, Observer, Selection, Step, TagEdit, TxItem};
use crate::header::SNAPSHOT_BYTES;
use crate::{DropReason, MirrorId, PortId, Vid};

/// A report about the frame during its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something was found out.
    Step(Step),
    /// The frame, or its copy for one egress, is dropped; it counts at the port.
    Dropped(PortId, DropReason),
}

/// A mirror's copy of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The mirror.
    pub mirror: MirrorId,
    /// Its destination.
    pub to: PortId,
    /// The RSPAN VLAN it is in.
    pub rspan: Option<Vid>,
    /// How the copy differs from the received frame.
    pub edit: TagEdit,
    /// Only this many bytes; 0: all.
    pub snap_bytes: u16,
}

/// The foreseen way of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The reports, in the order of the decision.
    pub events: Vec<Event>,
    /// The ports that are given the frame, ascending, and how it leaves.
    pub sent: Vec<(PortId, TagEdit)>,
    /// The mirrors that select the frame, in the order in which they are asked.
    pub selected: Vec<Selection>,
    /// The copies that are made.
    pub copies: Vec<Copy>,
}

/// Records the events that an observer is told about the one frame.
struct Notes(Vec<Event>);

impl Observer for Notes {
    const DRY_RUN: bool = true;

    fn dropped(&mut self, _frame: u8, port: PortId, reason: DropReason) {
        self.0.push(Event::Dropped(port, reason));
    }

    fn step(&mut self, _frame: u8, step: impl FnOnce() -> Step) {
        self.0.push(Event::Step(step()));
    }
}

/// Predicts the way of `frame` (from the first address on, without check sequence), received on `ingress`. `now_ns` is
/// the time, in nanoseconds of the clock of [`Forwarder::now_seconds`]; `takes` returns true if a port would take a
/// frame that it is given.
pub fn trace(by: Forwarder<'_>, now_ns: u64, ingress: PortId, frame: &[u8], takes: impl Fn(PortId) -> bool) -> Trace {
    let snapshot = frame.get(..SNAPSHOT_BYTES).unwrap_or(frame);
    let frame_bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let (mut egress, mut notes) = (Egress::new(), Notes(Vec::new()));
    let mut decision = by.ingress_at(ingress, now_ns);
    decision.frame(0, snapshot, frame_bytes, &mut egress, &mut notes);
    let edits = |port: &PortId| egress.items(*port).iter().map(|item| (*port, item.edit)).collect::<Vec<_>>();
    let mut sent: Vec<(PortId, TagEdit)> = egress.active().iter().flat_map(edits).collect();
    sent.sort_unstable_by_key(|(port, _)| *port);
    let mut copies = Copies::new();
    copies.select(by.tables, ingress, &mut egress, &[frame][..]);
    copies.choose(&egress, |port| if takes(port) { 0 } else { u64::MAX });
    let made = copies.destinations().iter().flat_map(|destination| {
        let mirrors = destination.parts.iter().map(|part| part.mirror);
        let copy = |(mirror, item): (MirrorId, &TxItem)| Copy {
            mirror,
            to: destination.to,
            rspan: destination.rspan,
            edit: item.edit,
            snap_bytes: item.snap_bytes,
        };
        mirrors.zip(&destination.items).map(copy)
    });
    let made = made.collect();
    Trace { events: notes.0, sent, selected: copies.selections().to_vec(), copies: made }
}

#[cfg(test)]
mod tests;
