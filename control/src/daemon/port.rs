//! One port: a slot ([`PortId`]) in the tables and the workers, a configuration, counters that outlive reconnects, its
//! attachment ([`Attached`]), a transmit side that all workers share, and receive queues that are spread over the
//! workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::backoff::Backoff;
use labsw_dataplane::port::TxPort;
use labsw_dataplane::stats::{PortSnapshot, PortStats};
use labsw_dataplane::worker::Output;
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::PortId;
use labsw_switch::guard::{GuardState, Guards};
use labsw_switch::tables::PortRules;

use super::attach::{self, Absence, Attached, Halves, OpenError, Opened};
use super::destinations::Destination;
use super::fabric::Fabric;
use super::flap::Flap;
use super::host::Host;
use super::impairments::Impaired;
use super::queues::Queues;
use crate::api::{Error, PortState};
use crate::config::PortConfig;

/// A lost device is opened again at once. If it is lost again within this time, it is opened after this time, which
/// doubles with each further loss.
const FIRST_LOSS_WAIT: Duration = Duration::from_millis(100);
const LONGEST_LOSS_WAIT: Duration = Duration::from_secs(60);

/// One port.
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    pub(super) enabled: bool,
    pub(super) attached: Attached,
    /// `None` while the port is out of service.
    pub(super) tx: Option<Arc<dyn TxPort>>,
    pub(super) queues: Queues,
    stats: Arc<PortStats>,
    pub(super) impaired: Option<Impaired>,
    /// The job that takes the port down and up.
    pub(super) flap: Option<Flap>,
    /// The state of the port's guards.
    pub(super) guard_state: Arc<GuardState>,
    /// The attachment was taken from the port, to be given back or replaced within the same change.
    pub(super) detached: bool,
    /// The kernel's counters at devices that are closed by now.
    pub(super) kernel_before: XdpCounters,
    /// The parts that the port has as a mirror destination.
    pub(super) destination: Destination,
    /// The growing wait for a device that is lost again and again.
    pub(super) losses: Backoff,
}

impl Port {
    /// A port with this configuration and no attachment yet; `workers` workers count for it.
    pub(super) fn new(id: PortId, config: PortConfig, workers: usize) -> Port {
        Port {
            id,
            config,
            enabled: true,
            attached: Attached::Waiting(Absence::opening()),
            tx: None,
            queues: Queues::none(),
            stats: Arc::new(PortStats::new(workers)),
            impaired: None,
            flap: None,
            guard_state: Arc::default(),
            detached: false,
            kernel_before: XdpCounters::default(),
            destination: Destination::default(),
            losses: Backoff::new(FIRST_LOSS_WAIT, LONGEST_LOSS_WAIT),
        }
    }

    /// The counters since the port was added.
    pub(super) fn counters(&self) -> PortSnapshot {
        if let Some(record) = self.fast_path() {
            self.stats.add_before(&record.take());
        }
        self.stats.snapshot()
    }

    /// Adds the counters of the process that the switch was taken over from.
    pub(super) fn add_before(&self, counted: &PortSnapshot) {
        self.stats.add_before(counted);
    }

    /// The kernel's counters since the port was added, if the port has AF_XDP sockets.
    pub(super) fn kernel_counters(&self) -> Option<XdpCounters> {
        attach::of(&self.config.kind).has_sockets().then(|| {
            let mut sum = self.kernel_before;
            self.attached.to().and_then(attach::Attachment::kernel_counters).into_iter().for_each(|now| sum += now);
            sum
        })
    }

    /// The port's state, and why it is not up. This makes no system call: news keeps the state of devices up to date.
    pub(super) fn state(&self) -> (PortState, Option<String>) {
        if !self.enabled {
            let reason = if self.flap.is_some() { "flapping" } else { "administratively down" };
            return (PortState::Down, Some(reason.to_owned()));
        }
        match &self.attached {
            Attached::To(attachment) => attachment.state(),
            Attached::Waiting(absence) => absence.state(),
        }
    }

    /// Forgets the faults of front ends and the losses of the device: the next front end is served, or the device
    /// opened, without a wait.
    pub(super) fn forgive(&mut self) {
        self.losses.clear();
        match &mut self.attached {
            Attached::To(attachment) => attachment.forgive(Instant::now()),
            Attached::Waiting(absence) => absence.forgive(),
        }
    }

    /// The workers that the port's queues are pinned to.
    pub(super) fn pins(&self) -> Vec<Option<usize>> {
        match &self.attached {
            Attached::Waiting(absence) => absence.before.pins.clone(),
            Attached::To(_) => self.queues.places.iter().map(|place| place.pinned).collect(),
        }
    }

    /// Attaches what was opened, with the queues pinned like this.
    pub(super) fn attach(&mut self, opened: Opened, pins: Vec<Option<usize>>) {
        self.attached = Attached::To(opened.attachment);
        (self.tx, self.queues) = (Some(opened.tx), opened.queues);
        for (place, pin) in self.queues.places.iter_mut().zip(pins) {
            place.pinned = pin;
        }
    }

    /// The port as the workers see it.
    pub(super) fn output(&self) -> Output {
        let mut output = Output::new(self.destination.before(self.tx.as_ref()), Arc::clone(&self.stats));
        output.finished = self.config.finish_checksums;
        if let Some(impaired) = &self.impaired {
            output.impaired_rx = impaired.rx().cloned();
            if let Some(delay) = impaired.tx() {
                output = output.impaired_by(Arc::clone(delay));
            }
        }
        output
    }

    pub(super) fn rules(&self) -> PortRules {
        PortRules {
            vlan: self.config.vlan.clone(),
            link_local: self.config.link_local,
            mtu_bytes: self.config.mtu,
            enabled: self.enabled && self.attached.to().is_none_or(|attachment| attachment.link_up()),
            mirror_only: self.config.mirror_only,
            allow_mirror: self.config.allow_mirror,
            guards: Guards::new(self.config.guards.clone(), &self.guard_state),
            inject: self.destination.gate.clone(),
            remote: self.destination.remote.clone(),
            ..PortRules::default()
        }
    }

    /// Takes everything of the port from the workers, and leaves `absence` in place of its attachment. The port is in
    /// no table, or has no transmit side there. The result says whether the workers gave everything back.
    pub(super) fn release(&mut self, absence: Absence, fabric: &Fabric) -> (Released, Result<(), Error>) {
        // The workers that have a guest's queues reset its rings, so this comes before the queues are taken away.
        if let Some(attachment) = self.attached.to_mut() {
            attachment.hang_up();
        }
        // The last frames that passed in the kernel: the port's gate has settled.
        self.counters();
        let (rx, taken) = fabric.take_queues(self.id, &mut self.queues);
        self.destination = Destination::default();
        let halves = Halves { tx: self.tx.take(), rx };
        let attached = std::mem::replace(&mut self.attached, Attached::Waiting(absence));
        attached.to().and_then(attach::Attachment::kernel_counters).into_iter().for_each(|n| self.kernel_before += n);
        let object = format!("port {:?}", self.config.name);
        let taken = taken.map_err(|error| Error::refused(&object, error.to_string()));
        (Released { attached, halves, object }, taken)
    }
}

/// The attachment that a port had, and its halves, which no worker has any more.
pub(super) struct Released {
    attached: Attached,
    halves: Halves,
    /// The port, for messages.
    object: String,
}

impl Released {
    /// Closes everything, through to the end even if a step fails.
    pub(super) fn close(self, host: &mut Host) -> Result<(), Error> {
        let closed = match self.attached {
            Attached::To(attachment) => attachment.close(self.halves, host),
            Attached::Waiting(absence) => absence.close(host),
        };
        closed.map_err(|error: OpenError| Error::refused(self.object, error.to_string()))
    }
}
