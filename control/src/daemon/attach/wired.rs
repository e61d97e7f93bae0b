//! `veth` ports with `offloads`: a pair whose container's end keeps its offloads, wired to a TAP interface.
//!
//! AF_XDP takes no frames whose checksum or segmentation is left to a device, so the switch serves a TAP interface
//! instead, and two programs hand frames between it and the switch's end of the pair ([`labsw_dataplane::fast_path`]).
//! The same program at the switch's end passes frames in the kernel that go from one such port to another.
//!
//! ```text
//! container's end ── switch's end ──programs── TAP interface ── worker
//!                         └──── the fast path, to another switch's end
//! ```
//!
//! The TAP interface goes with its descriptors, the programs with their links, the pair with the port. The TAP
//! interface is made first: its name keeps a second switch off the pair.

use std::sync::Arc;
use std::time::Instant;

use labsw_dataplane::fast_path::Wires;
use labsw_dataplane::port::Fault;
use labsw_dataplane::tap::{TapPort, TapTx};
use labsw_switch::{Mac, PortId};

use super::attachment::{Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::news::{Findings, LinkMap, OnFault, Seen, state_of};
use super::pair::{back, prepare_pair, remove, show_enabled};
use crate::api::{self, PortState};
use crate::config::tap_interface;
use crate::daemon::host::{Host, HostWork};
use crate::device::{DeviceError, Link, Links, VethPair, VethPlan, prepare};

/// Opens a port. On an error nothing that was opened is left, except a pair that was there.
pub(super) fn open(plan: VethPlan, id: PortId, site: &mut Site<'_>) -> Result<Opened, OpenError> {
    let interface = tap_interface(&plan.port);
    let queues = u16::try_from(plan.queues).unwrap_or(1);
    let tap = TapPort::for_host(&interface, queues, true).map_err(DeviceError::from)?;
    let links = &mut site.host.links;
    let tap_link = links.link_by_name(&interface)?.ok_or_else(|| OpenError::Removed(interface.clone()))?;
    links.set_mtu(tap_link.index, plan.mtu)?;
    links.keep_host_silent(&tap_link)?;
    let pair = prepare_pair(&plan, site.host)?;
    let link = pair.switch_end.clone();
    let by = site.host.fast_path.as_deref().map(|path| (path, site.fdb));
    let laid = Wires::lay(by, id, link.index, tap_link.index)
        .map_err(|source| OpenError::Wires { interface: link.name.clone(), source })
        .and_then(|wires| {
            site.host.links.set_up(tap_link.index)?;
            Ok(wires)
        });
    let wires = match laid {
        Ok(wires) => wires,
        Err(reason) => {
            if !pair.taken_over
                && let Err(error) = remove(&pair, &plan, site.host)
            {
                tracing::warn!(interface = plan.interface, %error, "not removed");
            }
            return Err(reason);
        }
    };
    let connection = tap.connection();
    let TapPort { tx, rx } = tap;
    let peer_away = link.lower_is_elsewhere();
    let (queues, sending, tap) = (rx.len(), Some(Arc::clone(&tx)), tap_link.index);
    let (station, wires) = (station(&link, &mut site.host.links), Some(wires));
    let wired = Wired { connection, queues, plan, pair, link, tap, wires, sending, peer_away, station, gone: false };
    Ok(Opened::new(wired, tx, rx))
}

/// The address of the container's end, if it is in another network namespace and no XDP program in its driver waits for
/// frames. A change that is made in that namespace is found out about when anything else of the host's links changes.
fn station(link: &Link, links: &mut Links) -> Option<Mac> {
    // Without an answer, frames take the long way into the container.
    let end = links.lower_elsewhere(link).ok()??;
    end.mac.filter(|_| !end.xdp_in_driver)
}

/// A pair in use.
struct Wired {
    /// The connection number that the port's faults carry.
    connection: u64,
    /// Number of receive queues.
    queues: usize,
    plan: VethPlan,
    pair: VethPair,
    /// The switch's end.
    link: Link,
    /// Index of the TAP interface.
    tap: u32,
    /// The programs, until the port closes.
    wires: Option<Wires>,
    /// The transmit half, until the port closes.
    sending: Option<Arc<TapTx>>,
    /// The container's end was in another namespace when the links were last looked at.
    peer_away: bool,
    /// [`station`], when the links were last looked at.
    station: Option<Mac>,
    gone: bool,
}

impl Attachment for Wired {
    fn close(mut self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError> {
        self.wires = None;
        let outcome = remove(&self.pair, &self.plan, host);
        self.sending = None;
        halves.close();
        Ok(outcome?)
    }

    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>) {
        (None, self.close(halves, host))
    }

    fn state(&self) -> (PortState, Option<String>) {
        state_of(&self.link, self.gone)
    }

    fn show(&self, shown: &mut api::Port) {
        shown.interface = Some(self.link.name.clone());
        shown.device = Some(self.link.name.clone());
        shown.queues = u32::try_from(self.queues).ok();
    }

    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>> {
        let (pair, plan) = (self.pair.clone(), self.plan.clone());
        let tap = self.tap;
        Box::new(move |host| {
            // A pair that has gone gets the port's MTU when it comes back.
            let Some(link) = host.links.link_by_index(pair.switch_end.index)? else { return Ok(()) };
            prepare::check_mtu(&link, mtu)?;
            host.links.set_mtu(tap, mtu)?;
            Ok(pair.set_mtu(&mut host.links, &plan, mtu)?)
        })
    }

    fn has_mtu(&mut self, mtu: u32) {
        self.plan.mtu = mtu;
    }

    fn fault(&mut self, fault: &Fault, _now: Instant) -> OnFault {
        if self.connection == fault.connection { OnFault::Lost } else { OnFault::Old }
    }

    fn links(&self) -> Vec<u32> {
        vec![self.link.index, self.tap]
    }

    fn examine(&self, links: &LinkMap) -> Option<HostWork<Findings>> {
        let link = links.get(self.link.index)?.clone();
        Some(Box::new(move |host| Findings { station: station(&link, &mut host.links), ..Findings::default() }))
    }

    fn look(&mut self, links: &LinkMap, findings: Option<Findings>) -> Seen {
        match links.get(self.link.index) {
            Some(link) => self.link = link.clone(),
            None => self.gone = links.has_gone(self.link.index),
        }
        self.gone |= links.has_gone(self.tap);
        if self.gone {
            return Seen::Gone;
        }
        self.station = findings.and_then(|findings| findings.station);
        let away = self.link.lower_is_elsewhere();
        let is_back = std::mem::replace(&mut self.peer_away, away) && !away;
        match is_back && self.plan.netns.is_none() {
            true => back(&self.pair, &self.plan),
            false => Seen::Here,
        }
    }

    fn link_up(&self) -> bool {
        self.link.up
    }

    /// Setting the switch's end down takes the carrier from the container's end.
    fn show_enabled(&self, enabled: bool) -> Option<HostWork<Result<(), OpenError>>> {
        Some(show_enabled(self.link.index, enabled))
    }

    fn shows_enabled(&mut self, enabled: bool) {
        self.link.up = enabled;
    }

    fn takes_frames_when_down(&self) -> bool {
        true
    }

    fn device(&self) -> Option<(u32, &str)> {
        Some((self.link.index, &self.link.name))
    }

    fn station(&self) -> Option<Mac> {
        self.station
    }

    fn wires(&self) -> Option<&Wires> {
        self.wires.as_ref()
    }
}
