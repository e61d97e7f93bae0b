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
//!
//! **Another process** takes over the descriptors and the links. It puts its own programs in the places of the old ones
//! when it serves the port already ([`Wires::renew`]).

use std::sync::Arc;
use std::time::Instant;

use labsw_dataplane::fast_path::{Wires, WiresHandover, Wiring};
use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::Fault;
use labsw_dataplane::tap::{TapHandover, TapPort, TapTx};
use labsw_switch::{Mac, PortId};
use serde::{Deserialize, Serialize};

use super::attachment::{Attachment, Halves, Opened, Site};
use super::error::OpenError;
use super::news::{Findings, LinkMap, OnFault, Seen, state_of};
use super::pair::{back, prepare_pair, remove, show_enabled};
use crate::api::{self, PortState};
use crate::config::tap_interface;
use crate::daemon::host::{Host, HostWork};
use crate::device::{DeviceError, Link, Links, VethPair, VethPlan, prepare};
use crate::takeover::state::PortHandover;

/// The type in the state that is handed over: its readers know of wires.
const TYPE: &str = "veth_offloads";

/// The state of a pair that is handed over.
#[derive(Debug, Serialize, Deserialize)]
struct WiredHandover {
    /// The descriptors of the TAP interface.
    tap: TapHandover,
    /// Index of the TAP interface.
    tap_index: u32,
    /// Index of the switch's end.
    link: u32,
    wires: WiresHandover,
    /// The container's end is in another network namespace.
    peer_away: bool,
}

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
    let wiring = wiring(id, &link, tap_link.index, site);
    let laid = Wires::lay(&wiring)
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
    let wired = Wired::of(plan, pair, &tap, (wiring, wires), &mut site.host.links);
    Ok(Opened::new(wired, tap.tx, tap.rx))
}

/// Opens a port with what another process hands over.
pub(super) fn take_over(
    plan: VethPlan,
    id: PortId,
    site: &mut Site<'_>,
    handover: PortHandover,
    taken: &mut Taken,
) -> Result<Opened, OpenError> {
    let WiredHandover { tap, tap_index, link, wires, peer_away } = handover.read(TYPE)?;
    let link = site.host.links.link_by_index(link)?.ok_or_else(|| OpenError::Removed(plan.interface.clone()))?;
    let tap = TapPort::take_over(&tap_interface(&plan.port), tap, taken)?;
    let (wiring, wires) = (wiring(id, &link, tap_index, site), Wires::take_over(&wires, taken)?);
    let pair = VethPair { switch_end: link, taken_over: false };
    let wired = Wired::of(plan, pair, &tap, (wiring, wires), &mut site.host.links);
    Ok(Opened::new(Wired { peer_away, has_others_programs: true, ..wired }, tap.tx, tap.rx))
}

/// The interfaces that are wired together.
fn wiring(port: PortId, link: &Link, tap: u32, site: &Site<'_>) -> Wiring {
    let by = site.host.fast_path.as_ref().map(|path| (Arc::clone(path), site.fdb));
    Wiring { by, port, station: link.index, tap }
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
    /// The interfaces that are wired together.
    wiring: Wiring,
    /// The programs, until the port closes.
    wires: Option<Wires>,
    /// The programs are those of the process that the port was taken over from.
    has_others_programs: bool,
    /// The transmit half, until the port closes.
    sending: Option<Arc<TapTx>>,
    /// The container's end was in another namespace when the links were last looked at.
    peer_away: bool,
    /// [`station`], when the links were last looked at.
    station: Option<Mac>,
    gone: bool,
}

impl Wired {
    /// A pair whose TAP interface is open, and wired to it.
    fn of(plan: VethPlan, pair: VethPair, tap: &TapPort, wired: (Wiring, Wires), links: &mut Links) -> Wired {
        let (link, (wiring, wires)) = (pair.switch_end.clone(), wired);
        Wired {
            connection: tap.connection(),
            queues: tap.rx.len(),
            wiring,
            wires: Some(wires),
            has_others_programs: false,
            sending: Some(Arc::clone(&tap.tx)),
            peer_away: link.lower_is_elsewhere(),
            station: station(&link, links),
            plan,
            pair,
            link,
            gone: false,
        }
    }
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

    fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<PortHandover> {
        let (tap, wires) = (self.sending.as_ref()?.hand_over(given), self.wires.as_ref()?.hand_over(given));
        let (tap_index, link, peer_away) = (self.wiring.tap, self.link.index, self.peer_away);
        PortHandover::new(TYPE, &WiredHandover { tap, tap_index, link, wires, peer_away })
    }

    fn resume(&mut self, way: Resume, _now: Instant) {
        if way != Resume::Rest || !std::mem::take(&mut self.has_others_programs) {
            return;
        }
        if let Some(Err(error)) = self.wires.as_mut().map(|wires| wires.renew(&self.wiring)) {
            tracing::warn!(interface = self.link.name, %error, "its frames do not pass in the kernel any more");
        }
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
        let tap = self.wiring.tap;
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
        vec![self.link.index, self.wiring.tap]
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
        self.gone |= links.has_gone(self.wiring.tap);
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
