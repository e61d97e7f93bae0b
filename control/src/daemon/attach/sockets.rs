//! The AF_XDP sockets of an `af_xdp` or `veth` port, and the device under them.

use std::sync::Arc;

use labsw_dataplane::port::{Fault, TxPort};
use labsw_dataplane::xdp::{
    FillDepth, Gate, ONE_CHUNK_MTU, Statistics, XdpConfig, XdpCounters, XdpPort, XdpRx, XdpStatus,
};

use super::error::OpenError;
use super::news::{LinkMap, OnFault, Seen};
use crate::api::{self, PortState};
use crate::daemon::host::Host;
use crate::device::{Link, Links, Promiscuous};

/// The AF_XDP sockets of a port, and the state kept of their device.
pub(in crate::daemon) struct Sockets {
    /// The connection number that the port's faults carry.
    connection: u64,
    pub(in crate::daemon) link: Link,
    pub(in crate::daemon) status: XdpStatus,
    /// Readers of the kernel's counters, one for each socket.
    pub(in crate::daemon) statistics: Vec<Statistics>,
    /// True if interrupts of the device's queues are deferred for busy polling; the error says why they could not be.
    pub(in crate::daemon) interrupts_deferred: Result<bool, String>,
    /// The gate in front of the receive queues.
    pub(in crate::daemon) gate: Arc<Gate>,
    /// The limit of the frames in the fill rings.
    depth: FillDepth,
    /// Keeps the device promiscuous until dropped.
    promiscuous: Promiscuous,
    gone: bool,
}

/// The transmit half and the receive halves of a port that was opened.
pub(super) type XdpHalves = (Arc<dyn TxPort>, Vec<XdpRx>);

impl Sockets {
    /// Opens sockets on a device that was prepared and made promiscuous for the port.
    pub(super) fn open(
        link: Link,
        xdp: XdpConfig,
        promiscuous: Promiscuous,
        host: &mut Host,
    ) -> Result<(Sockets, XdpHalves), OpenError> {
        let memory = host.packet_memory()?;
        let port = XdpPort::open(xdp, &memory)?;
        let (connection, status, statistics) = (port.connection(), port.status().clone(), port.statistics());
        if let Some(error) = &status.host_heard {
            tracing::warn!(interface = link.name, error, "the host's own frames can leave by it");
        }
        let gate = port.gate();
        let XdpPort { tx, rx, depth, .. } = port;
        let interrupts_deferred = Ok(false);
        // Preparing has set the device up, so its state is read again.
        let link = host.links.link_by_index(link.index)?.unwrap_or(link);
        let gone = false;
        let sockets =
            Sockets { connection, link, status, statistics, interrupts_deferred, gate, depth, promiscuous, gone };
        Ok((sockets, (tx, rx)))
    }

    /// Ends the use of the device.
    pub(super) fn close(self) {
        drop(self.promiscuous);
    }

    /// See [`super::attachment::Attachment::state`].
    pub(super) fn state(&self) -> (PortState, Option<String>) {
        let Link { name, up, carrier, .. } = &self.link;
        match (self.gone, up, carrier) {
            (true, ..) => (PortState::Waiting, Some(format!("{name} was removed"))),
            (_, false, _) => (PortState::Down, Some(format!("{name} is set down"))),
            (_, _, false) => (PortState::Down, Some(format!("{name} has no carrier: its other end is down"))),
            _ => (PortState::Up, None),
        }
    }

    /// See [`super::attachment::Attachment::show`].
    pub(super) fn show(&self, shown: &mut api::Port) {
        shown.interface = Some(self.link.name.clone());
        shown.device.get_or_insert_with(|| self.link.name.clone());
        shown.xdp_mode = Some(self.status.mode.name().to_owned());
        shown.xdp_mode_reason = Some(self.status.why.clone()).filter(|why| !why.is_empty());
        shown.queues = Some(self.status.queues);
    }

    /// See [`super::attachment::Attachment::look`]. A list may lack a link that exists, so the device counts as gone
    /// only after a request for this one link.
    pub(super) fn look(&mut self, links: &LinkMap, asked: &mut Links) -> Seen {
        match links.get(&self.link.index) {
            Some(link) => self.link = link.clone(),
            None => self.gone = asked.has_gone(self.link.index),
        }
        if self.gone { Seen::Gone } else { Seen::Here }
    }

    /// See [`super::attachment::Attachment::fault`].
    pub(super) fn fault(&self, fault: &Fault) -> OnFault {
        if self.connection == fault.connection { OnFault::Lost } else { OnFault::Old }
    }

    /// See [`super::attachment::Attachment::takes_mtu`].
    pub(super) fn takes_mtu(&self, mtu: u32) -> bool {
        mtu <= ONE_CHUNK_MTU || self.status.multi_buffer
    }

    /// Adapts the fill rings to the device's new MTU.
    pub(super) fn has_mtu(&self, mtu: u32) {
        self.depth.set_mtu(self.status.mode, mtu);
    }

    /// The kernel's counters since the sockets were opened.
    pub(super) fn kernel_counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        self.statistics.iter().for_each(|socket| sum += socket.read());
        sum
    }
}
