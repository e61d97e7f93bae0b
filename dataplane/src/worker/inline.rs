//! Sensors in the worker: the first worker sends probes into them, and each worker counts those that come out.
//!
//! Probes go to the transmit side of a port directly, with counters of their own, and are taken out of the counts of
//! the port where they arrive. See [`crate::inline`].

use std::sync::Arc;

use labsw_switch::PortId;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_switch::tables::Tables;

use super::command::{ControlEnds, Event};
use super::ports::{Ports, Slot};
use crate::clock::NEVER;
use crate::frame::Burst;
use crate::inline::{Judge, ROUND_NS, Sensor};
use crate::losses::{Losses, TxReport};
use crate::port::{Fault, Turn};
use crate::stats::PortDelta;

/// The sensors, as a worker looks after them.
#[derive(Debug)]
pub(super) struct Sensors {
    all: Arc<[Arc<Sensor>]>,
    /// At the worker that sends the probes: what it knows of each sensor.
    judges: Vec<Judge>,
    /// When it sends the next ones, ns.
    next_ns: u64,
    /// A probe on its way.
    burst: Burst,
}

impl Sensors {
    pub(super) fn new() -> Sensors {
        Sensors { all: Arc::default(), judges: Vec::new(), next_ns: NEVER, burst: Burst::new() }
    }

    /// Looks after these from now on.
    pub(super) fn set(&mut self, all: Arc<[Arc<Sensor>]>, turn: &Turn) {
        let before = self.all.iter().zip(&self.judges);
        let known = |sensor: &Arc<Sensor>| before.clone().find(|(before, _)| Arc::ptr_eq(before, sensor));
        self.judges =
            all.iter().map(|sensor| known(sensor).map_or_else(|| Judge::of(sensor), |(_, judge)| *judge)).collect();
        self.next_ns = if turn.worker == 0 && !all.is_empty() { self.next_ns.min(turn.now_ns) } else { NEVER };
        self.all = all;
    }

    /// When there is something to do next, ns.
    #[inline]
    pub(super) fn next_due(&self) -> u64 {
        self.next_ns
    }

    /// Sends a round of probes if it is due.
    #[inline]
    pub(super) fn run_due(&mut self, turn: &Turn, tables: &Tables, ports: &Ports, control: &ControlEnds) {
        if self.next_ns <= turn.now_ns {
            self.send_round(turn, tables, ports, control);
        }
    }

    #[cold]
    fn send_round(&mut self, turn: &Turn, tables: &Tables, ports: &Ports, control: &ControlEnds) {
        self.next_ns = turn.now_ns.saturating_add(ROUND_NS);
        let Sensors { all, judges, burst, .. } = self;
        let changed = all.iter().zip(judges).fold(false, |any, (sensor, judge)| judge.look(sensor) || any);
        if changed {
            control.notify(Event::Sensors);
        }
        for (port, bytes) in all.iter().flat_map(|sensor| sensor.probes()) {
            // What is switched off sends nothing.
            let is_up = tables.rules(port).is_some_and(|rules| rules.enabled);
            if let Some(slot) = ports.get(port).filter(|_| is_up)
                && let Err(fault) = send(burst, turn, slot, &bytes)
            {
                control.notify(Event::PortFault { id: port, fault });
            }
        }
    }

    /// Counts probes (bit = index in the burst) that arrived on `port`, and takes them out of the port's counts.
    #[cold]
    pub(super) fn hear(&self, port: PortId, burst: &Burst, probes: u64, counted: &mut PortDelta) {
        for (index, frame) in burst.frames().iter().enumerate().filter(|(index, _)| probes >> index & 1 == 1) {
            counted.forget_received(frame.len);
            self.all.iter().for_each(|sensor| sensor.hear(port, burst.snapshot(index)));
        }
    }
}

/// Sends one probe. A port that does not take it has a round without an answer.
fn send(burst: &mut Burst, turn: &Turn, slot: &Slot, bytes: &[u8]) -> Result<(), Fault> {
    let Some(tx) = &slot.output.tx else { return Ok(()) };
    let (mut stats, mut losses) = (PortDelta::ZERO, Losses::NONE);
    burst.lend(
        |lender| {
            lender.push(bytes);
        },
        |burst| {
            let report = &mut TxReport { stats: &mut stats, losses: &mut losses };
            tx.send(turn, burst, &[TxItem::whole(0, TagEdit::KEEP)], report)
        },
    )
}
