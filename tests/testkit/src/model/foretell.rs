//! A trace's answer, in the terms in which the model and the switch are compared.

use labsw_switch::forward::Forwarder;
use labsw_switch::trace::{Event, trace};
use labsw_switch::{PortId, Vid};

use super::apply;
use super::naive::Outcome;

/// Foretells the way of one frame by a trace, in the model's terms. `failed` is as for [`decide`](super::decide).
pub fn foretell(forwarder: Forwarder<'_>, ingress: u16, frame: &[u8], failed: &[u64]) -> Outcome {
    let second = u64::from(forwarder.now_seconds);
    let at = 1_000_000_000 * second;
    let foretold = trace(forwarder, at, PortId(ingress), frame, |port| failed[port.index()] & 1 == 0);
    let mut outcome = Outcome::default();
    for (port, edit) in &foretold.sent {
        outcome.sent.insert(port.0, vec![(0, apply(*edit, frame))]);
    }
    let dropped = foretold.events.iter().filter_map(|event| match event {
        Event::Dropped(port, reason) => Some((port.0, *reason)),
        Event::Step(_) => None,
    });
    outcome.drops = dropped.collect();
    for copy in &foretold.copies {
        let mut bytes = apply(copy.edit, frame);
        if copy.snap_bytes != 0 {
            bytes.truncate(copy.snap_bytes.into());
        }
        outcome.copies.entry((copy.to.0, copy.rspan.map(Vid::get))).or_default().push((0, copy.mirror.0, bytes));
    }
    outcome.matched = foretold.selected.iter().map(|selection| (selection.mirror.0, 1)).collect();
    outcome.unshared = u64::from(foretold.sent.len() == 1 && foretold.selected.is_empty());
    outcome
}
