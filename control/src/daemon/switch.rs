//! The switch itself: brings together the workers, ports and mirrors.
//!
//! Each owner in [`Switch`] does the work that concerns only itself. This file has the work that concerns several: the
//! tables, which are built from ports and mirrors and put in force at the workers, the places of receive queues, and
//! the work of once a second. The operations on the switch are in files of their own: [`service`](super::service)
//! (ports in and out of service), [`change`](super::change), [`devices`](super::devices), [`apply`](super::apply),
//! [`start`](super::start), [`answers`](super::answers).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use labsw_switch::PortId;
use labsw_switch::inline::InlineSpec;
use labsw_switch::tables::Tables;

use super::busy_poll::BusyPolls;
use super::captures::Sessions;
use super::events::Events;
use super::fabric::Fabric;
use super::guards::set_learning_rules;
use super::host::Memory;
use super::inject::Injections;
use super::inlines::Inlines;
use super::mirrors::Mirrors;
use super::multicast::Multicast;
use super::opening::Opening;
use super::ports::Ports;
use super::settling::Settling;
use super::signals::notify;
use super::store::Store;
use super::trial::Trial;
use super::view::View;
use super::watchdog::Watchdog;
use crate::api::Error;
use crate::config::{Config, ProfileConfig, SwitchConfig};
use crate::metrics::MetricsSocket;

/// Slots of the forwarding database checked for aged entries, per second.
const SWEEP_SLOTS: usize = 16_384;

/// The switch that the control socket shows. The [device thread](super::device_thread) changes it.
pub(super) struct Switch {
    /// The configuration file that the daemon was started with.
    pub(super) file: PathBuf,
    pub(super) config: SwitchConfig,
    /// The configuration last given, at the start or by an apply. Differences from it were made at run time.
    pub(super) given: Config,
    /// The state of the switch as the service manager was last told.
    pub(super) status: String,
    /// The configuration that waits for its confirmation.
    pub(super) trial: Option<Trial>,
    pub(super) started: Instant,
    /// When this process took the switch over from another one.
    pub(super) taken_over: Option<Instant>,
    /// The device thread has to do nothing more but close the ports.
    pub(super) ending: bool,
    /// A change is under way. States are told at its end, since they are not its outcome until then.
    pub(super) changing: bool,
    /// Packet memory.
    pub(super) memory: Memory,
    pub(super) fabric: Fabric,
    /// The gates of the kernel fast path that were shut.
    pub(super) settling: Settling,
    /// The ports that are still to be opened at the start.
    pub(super) opening: Opening,
    /// When the devices are looked at next.
    pub(super) look_at: Option<Instant>,
    /// The service manager's watchdog, if it has one.
    pub(super) watchdog: Option<Watchdog>,
    /// The states of ports that outlive a crash.
    pub(super) store: Store,
    pub(super) metrics: Option<MetricsSocket>,
    pub(super) ports: Ports,
    pub(super) mirrors: Mirrors,
    pub(super) inlines: Inlines,
    /// The sensors as the tables in force have them.
    pub(super) inlines_in_force: Vec<InlineSpec>,
    /// The impairment profiles of the configuration.
    pub(super) profiles: Vec<ProfileConfig>,
    pub(super) injections: Injections,
    pub(super) multicast: Multicast,
    pub(super) busy_polls: BusyPolls,
    pub(super) captures: Sessions,
    pub(super) events: Events,
}

impl Switch {
    /// The parts of the switch that captures and injections read.
    pub(super) fn view(&self) -> View<'_> {
        View { ports: &self.ports, mirrors: &self.mirrors, inlines: &self.inlines, fabric: &self.fabric }
    }

    /// Builds tables from the present ports and mirrors, and puts them in force at all workers.
    pub(super) fn set_tables(&mut self) -> Result<(), Error> {
        self.mirrors.set_destinations(&mut self.ports);
        let inlines = self.inlines.specs(&self.ports);
        let tables = Tables::build_with(self.ports.rules(), self.mirrors.specs(&self.ports), &inlines);
        let tables = tables.map_err(|error| Error::refused("tables", error.to_string()))?;
        let tables = self.multicast.with_snooping(tables, &self.config.multicast_snooping);
        let outputs = self.ports.outputs(|port| self.inlines.are_at(port));
        let set = self.fabric.set_snapshot(tables, outputs);
        set.map_err(|error| Error::refused("worker", error.to_string()))?;
        self.inlines_in_force = inlines;
        set_learning_rules(&self.fabric, &self.ports);
        let Switch { captures, ports, mirrors, inlines, fabric, .. } = self;
        captures.follow(View { ports, mirrors, inlines, fabric })
    }

    /// Gives every queue to its worker. Frames of a queue that moves wait in the queue.
    pub(super) fn place_queues(&mut self) -> Result<(), Error> {
        let placed = self.fabric.place_queues(self.ports.queues());
        placed.map_err(|error| Error::refused("worker", error.to_string()))
    }

    /// Forgets everything learned at a port: addresses, groups, routers.
    pub(super) fn forget_learned(&self, port: PortId) {
        self.fabric.shared.fdb.flush(None, Some(port));
        self.multicast.forget_port(port);
    }

    /// Takes captures whose client has disconnected from the workers.
    pub(super) fn sweep_captures(&mut self) {
        let Switch { captures, ports, mirrors, inlines, fabric, .. } = self;
        captures.sweep(View { ports, mirrors, inlines, fabric });
    }

    /// Does the work of once a second that needs no host.
    pub(super) fn every_second(&mut self) {
        self.fabric.every_second(SWEEP_SLOTS);
        self.notice_every_second(Instant::now());
        self.multicast.every_second();
        self.injections.end_silent(&self.fabric);
    }

    /// Sends the watchdog message early, before work that may take long; see [`Watchdog::beat_early`].
    pub(super) fn beat_early(&mut self) {
        let (now, pulses) = (Instant::now(), self.fabric.pulses());
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.beat_early(now, &pulses)) {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    /// Tells the service manager that the switch is alive, if it is alive and a message is due. Returns the time until
    /// the next call.
    pub(super) fn beat(&mut self) -> Option<Duration> {
        let (now, pulses) = (Instant::now(), self.fabric.pulses());
        let watchdog = self.watchdog.as_mut()?;
        if watchdog.beat(now, &pulses) {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
        Some(watchdog.due_in(now))
    }
}
