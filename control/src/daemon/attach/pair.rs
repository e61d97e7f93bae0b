//! The pair of a `veth` port, in the ledger as long as it exists.
//!
//! A pair that a killed run left is taken over. One that can't be removed stays in the ledger, for the next run.

use super::error::OpenError;
use super::news::Seen;
use crate::daemon::host::{Host, HostWork};
use crate::device::{DeviceError, VethPair, VethPlan};

/// Makes the pair, or takes over the one that a killed run left. A pair of such a run that does not fit is removed
/// first.
pub(super) fn prepare_pair(plan: &VethPlan, host: &mut Host) -> Result<VethPair, DeviceError> {
    let Host { links, ledger, .. } = host;
    if links.link_by_name(&plan.interface)?.is_none() {
        ledger.note_pair(&plan.interface);
    }
    let prepared = match VethPair::prepare(links, plan) {
        Err(error) => match ledger.delete_inherited_pair(links, &plan.interface) {
            Ok(true) => VethPair::prepare(links, plan),
            _ => Err(error),
        },
        prepared => prepared,
    };
    match &prepared {
        Ok(pair) => ledger.pair_is(&pair.switch_end),
        Err(_) => ledger.pair_gone(&plan.interface),
    }
    prepared
}

/// Removes a pair. A pair that can't be removed stays in the ledger.
pub(super) fn remove(pair: &VethPair, plan: &VethPlan, host: &mut Host) -> Result<(), DeviceError> {
    pair.remove(&mut host.links)?;
    host.ledger.pair_gone(&plan.interface);
    Ok(())
}

/// The container's end has come back: prepares it again.
pub(super) fn back(pair: &VethPair, plan: &VethPlan) -> Seen {
    let (pair, plan) = (pair.clone(), plan.clone());
    Seen::Back(Box::new(move |host| Ok(pair.peer_came_back(&mut host.links, &plan)?)))
}

/// Sets the switch's end up or down: down, it takes the carrier from the container's end.
pub(super) fn show_enabled(index: u32, enabled: bool) -> HostWork<Result<(), OpenError>> {
    Box::new(move |host| Ok(if enabled { host.links.set_up(index) } else { host.links.set_down(index) }?))
}
