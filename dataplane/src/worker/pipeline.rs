//! The burst at hand: its frames, where each goes, and the room in which frames are made ready for a port.

use labsw_switch::forward::{Egress, Forwarder};
use labsw_switch::{DropReason, PortId};

use crate::clock;
use crate::frame::Burst;
use crate::port::Turn;
use crate::stage::Stage;

/// One burst on its way.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The frames, borrowed from the queue that they came from.
    pub(super) burst: Burst,
    /// Frames made ready for ports that do not take them as they are.
    pub(super) stage: Stage,
    /// The decisions: each egress port's list of frames.
    pub(super) egress: Egress,
}

impl Pipeline {
    pub(super) fn new() -> Pipeline {
        Pipeline { burst: Burst::new(), stage: Stage::new(), egress: Egress::new() }
    }

    /// Prepares for the next burst.
    #[inline]
    pub(super) fn begin(&mut self) {
        // A queue's statement about its burst (that it can be moved) must not stick to the next burst.
        self.burst.clear();
        self.stage.begin();
    }

    /// Decides about each frame of the burst; `dropped` is told of each drop. Compiled for each `dropped` by itself, so
    /// that a worker without captures has nothing of theirs.
    #[inline(always)]
    pub(super) fn decide(
        &mut self,
        forwarder: Forwarder<'_>,
        turn: &Turn,
        ingress: PortId,
        mut dropped: impl FnMut(u8, PortId, DropReason),
    ) {
        let mut decisions = forwarder.ingress_at(ingress, turn.now_ns);
        for (index, (frame, snapshot)) in (0u8..).zip(self.burst.snapshots()) {
            decisions.frame(index, snapshot, frame.wire_bytes, &mut self.egress, &mut dropped);
        }
    }
}

/// The basis of the decisions of a turn.
#[inline(always)]
pub(super) fn forwarder<'a>(
    tables: &'a labsw_switch::tables::Tables,
    fdb: &'a labsw_switch::fdb::Fdb,
    turn: &Turn,
) -> Forwarder<'a> {
    Forwarder { tables, fdb, now_seconds: clock::seconds(turn.now_ns) }
}
