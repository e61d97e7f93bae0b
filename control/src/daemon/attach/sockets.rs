//! The AF_XDP sockets of an `af_xdp` or `veth` port, and the device under them.

use std::ops::Range;
use std::sync::Arc;

use labsw_dataplane::handover::{Given, HandoverError, Resume, Slot, Taken};
use labsw_dataplane::port::{Fault, TxPort};
use labsw_dataplane::xdp::{
    BusyPoll, FillDepth, Gate, ONE_CHUNK_MTU, Statistics, XdpConfig, XdpCounters, XdpHandover, XdpPort, XdpRx,
    XdpStatus, XdpTx,
};

use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::news::{LinkMap, OnFault, Seen, state_of};
use crate::api::{self, PortState};
use crate::daemon::host::Host;
use crate::device::{Link, Promiscuous};

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
    /// The sending half.
    sending: Arc<XdpTx>,
    /// Keeps the device promiscuous until dropped.
    promiscuous: Promiscuous,
    gone: bool,
}

/// The AF_XDP sockets of a port, as they are handed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SocketsHandover {
    /// The port.
    port: XdpHandover,
    /// The outcome of opening it.
    status: XdpStatus,
    /// The packet socket that keeps the device promiscuous.
    promiscuous: Slot,
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
        if let Some(error) = &port.status().host_heard {
            tracing::warn!(interface = link.name, error, "the host's own frames can leave by it");
        }
        // Preparing has set the device up, so its state is read again.
        let link = host.links.link_by_index(link.index)?.unwrap_or(link);
        Ok(Sockets::of(link, port, promiscuous))
    }

    fn of(link: Link, port: XdpPort, promiscuous: Promiscuous) -> (Sockets, XdpHalves) {
        let (connection, status, statistics) = (port.connection(), port.status().clone(), port.statistics());
        let gate = port.gate();
        let XdpPort { tx, rx, depth, .. } = port;
        let sockets = Sockets {
            connection,
            link,
            status,
            statistics,
            interrupts_deferred: Ok(false),
            gate,
            depth,
            sending: Arc::clone(&tx),
            promiscuous,
            gone: false,
        };
        (sockets, (tx, rx))
    }

    /// The sockets for another process, with their descriptors in `given`; `None`: their device has gone.
    pub(super) fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<SocketsHandover> {
        let port = self.sending.hand_over(given).filter(|_| !self.gone)?;
        let promiscuous = given.put(self.promiscuous.socket());
        Some(SocketsHandover { port, status: self.status.clone(), promiscuous })
    }

    /// Makes sockets of those that another process hands over, which still uses them.
    pub(super) fn take_over(
        handover: SocketsHandover,
        mtu: u32,
        host: &mut Host,
        taken: &mut Taken,
    ) -> Result<(Sockets, XdpHalves), OpenError> {
        let SocketsHandover { port, status, promiscuous } = handover;
        let memory = host.memory.get().cloned();
        let memory = memory.ok_or_else(|| HandoverError::new("its packet memory was not handed over"))?;
        let index = port.ifindex();
        let link = host.links.link_by_index(index)?.ok_or_else(|| OpenError::Removed(format!("interface {index}")))?;
        let promiscuous = Promiscuous::adopt(taken.take(promiscuous)?);
        let port = XdpPort::take_over(&link.name, mtu, status, port, &memory, taken)?;
        Ok(Sockets::of(link, port, promiscuous))
    }

    /// See [`super::attachment::Attachment::resume`]; the receiving halves begin with their workers.
    pub(super) fn resume(&self, way: Resume) {
        if way == Resume::Out {
            self.sending.resume();
        }
    }

    /// The number under which packet memory has the port's frames.
    pub(in crate::daemon) fn owner(&self) -> u16 {
        self.sending.owner()
    }

    /// Ends the use of the device.
    pub(super) fn close(self) {
        // With the last half the sockets are closed.
        drop(self.sending);
        drop(self.promiscuous);
    }

    /// See [`super::attachment::Attachment::state`].
    pub(super) fn state(&self) -> (PortState, Option<String>) {
        state_of(&self.link, self.gone)
    }

    /// See [`super::attachment::Attachment::show`].
    pub(super) fn show(&self, shown: &mut api::Port) {
        shown.interface = Some(self.link.name.clone());
        shown.device.get_or_insert_with(|| self.link.name.clone());
        shown.xdp_mode = Some(self.status.mode);
        shown.xdp_mode_reason = Some(self.status.why.clone()).filter(|why| !why.is_empty());
        shown.queues = Some(self.status.queues);
    }

    /// See [`super::attachment::Attachment::look`].
    pub(super) fn look(&mut self, links: &LinkMap) -> Seen {
        match links.get(self.link.index) {
            Some(link) => self.link = link.clone(),
            None => self.gone = links.has_gone(self.link.index),
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

    /// True if the sockets poll busily, as far as the kernel lets them.
    pub(super) fn polls_busily(&self) -> bool {
        self.status.busy_poll == BusyPoll::Asked
    }

    /// The progress of the transmit rings, see [`XdpTx::progress`].
    pub(super) fn sent(&self) -> Vec<Range<u32>> {
        self.sending.progress()
    }

    /// Ends busy polling, with which the device does not go on: `what` it did.
    pub(in crate::daemon) fn end_busy_poll(&mut self, what: &str) -> Result<(), String> {
        self.interrupts_deferred = Ok(false);
        self.status.busy_poll = BusyPoll::Ended(format!("the device {what}"));
        self.sending.end_busy_poll().map_err(|error| error.to_string())
    }

    /// The kernel's counters since the sockets were opened.
    pub(super) fn kernel_counters(&self) -> XdpCounters {
        let mut sum = XdpCounters::default();
        self.statistics.iter().for_each(|socket| sum += socket.read());
        sum
    }
}
