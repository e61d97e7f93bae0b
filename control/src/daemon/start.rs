//! Starts the switch. First everything that can be refused is checked, with nothing touched. Then the control socket
//! listens, and the ports are opened one after the other while the control loop runs.
//!
//! **How it works.** [`Daemon::start`] enters all ports, mirrors and impairments of the configuration and builds one
//! set of tables for them. Every port then is `opening`. The [device thread](super::device_thread) opens one port after
//! the other ([`Errand::open_next`]), guests first, so that their sockets listen at once. Ports opened within a short
//! time get new tables together. A port that can't be opened for another reason than absence ends the start.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, unbounded};
use labsw_dataplane::stats::MirrorStats;
use labsw_dataplane::sys::socket::SocketError;
use labsw_dataplane::worker::{self, Shared};
use labsw_dataplane::workers::Workers;
use labsw_switch::MAX_MIRRORS;
use mio::Poll;
use parking_lot::Mutex;

use super::Daemon;
use super::accounts::group_id;
use super::apply::{self, reason_of};
use super::attach::{self, Absence, Attached, make_parent};
use super::busy_poll::BusyPolls;
use super::captures::Sessions;
use super::control::Control;
use super::errand::Errand;
use super::error::{DaemonError, Refusal, system};
use super::events::Events;
use super::fabric::Fabric;
use super::fast_path;
use super::handover::{Door, open_door};
use super::host::Host;
use super::impairments::Impaired;
use super::inject::Injections;
use super::inlines::Inlines;
use super::mirrors::Mirrors;
use super::multicast::Multicast;
use super::opening::Opening;
use super::port::Port;
use super::ports::Ports;
use super::preflight::{device_twice, needs_memory, preflight};
use super::service::absence_of;
use super::settling::Settling;
use super::store::Store;
use super::switch::Switch;
use super::tokens::{CONTROL_SOCKET, TAKE_OVER, WORKER_EVENTS};
use crate::api::{Error, Event, EventKind};
use crate::config::{Config, ImpairConfig, SwitchConfig};
use crate::device::{Ledger, Links};
use crate::metrics::MetricsSocket;
use crate::takeover;
use crate::varlink::Server;

/// Ports opened within this time share one set of new tables.
const BATCH: Duration = Duration::from_millis(100);

/// Listening sockets of the process that the switch is taken over from.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) control: OwnedFd,
    pub(super) take_over: OwnedFd,
}

impl Daemon {
    /// Starts the switch as far as the control loop, which does the rest; `file` is the name of the configuration in
    /// messages.
    ///
    /// # Errors
    /// One clear cause. Everything opened until then is closed and removed again.
    pub fn start(config: Config, file: &Path) -> Result<Daemon, DaemonError> {
        Daemon::start_with(config, file, None)
    }

    /// Like [`Daemon::start`], but with the sockets of another process. That process still serves everything that the
    /// ports are attached to, so the machine is not checked.
    pub(super) fn start_with(config: Config, file: &Path, inherited: Option<Inherited>) -> Result<Daemon, DaemonError> {
        let in_file = |key: &str, reason: String| DaemonError::from(Config::complaint(file, key, &reason));
        let poll = Poll::new().map_err(system("event loop"))?;
        let registry = || poll.registry().try_clone().map_err(system("event loop"));
        let mut links = Links::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
        let settings = &config.switch;
        let group = |key: &str, name: Option<&String>| {
            let group = name.map(|name| group_id(name)).transpose();
            group.map_err(|error| in_file(&format!("switch.{key}"), error.to_string()))
        };
        let socket_group = group("socket_group", settings.socket_group.as_ref())?;
        let control_group = group("control_group", settings.control_group.as_ref())?.or(socket_group);
        let admin_group = group("admin_group", settings.admin_group.as_ref())?;
        links.warn_of_unknown(&settings.protected_interfaces);
        if inherited.is_none() {
            check_machine(&config, &mut links).map_err(|refusal| in_file(&refusal.key, refusal.reason))?;
        }
        let mut ledger = Ledger::open(ledger_path(&settings.control_socket));
        if inherited.is_some() {
            ledger.go_on();
        }
        let mut host = Host::new(registry()?, links, ledger, socket_group, settings);
        if inherited.is_none() && needs_memory(&config.ports) {
            host.require_memory().map_err(|error| in_file("switch.hugepages", error.to_string()))?;
        }
        let (control, take_over) = inherited.map(|sockets| (sockets.control, sockets.take_over)).unzip();
        // The socket for metrics is the last to be taken over.
        let listens = settings.metrics_listen.filter(|_| control.is_none());
        let server = control_socket(settings, control, [control_group, admin_group], poll.registry())?;
        let metrics = apply::metrics_socket(listens, MetricsSocket::open_patiently)
            .map_err(|error| in_file("switch.metrics_listen", error.to_string()))?;
        let (events, worker_events) = unbounded();
        let waker = Arc::new(mio::Waker::new(poll.registry(), WORKER_EVENTS).map_err(system("event loop"))?);
        let door = match take_over {
            Some(socket) => Some(Door::adopt(socket, &takeover::socket_path(&settings.control_socket), &waker)),
            None => open_door(&settings.control_socket, &waker),
        };
        if let Some(door) = &door {
            door.register(poll.registry(), TAKE_OVER).map_err(system("take-over socket"))?;
        }
        let mut switch = Switch::new(file, config.clone(), &mut host, metrics, &events, Arc::clone(&waker))?;
        switch.enter(config).map_err(|refusal| in_file(&refusal.key, refusal.reason))?;
        let switch = Arc::new(Mutex::new(switch));
        let control = Control::new(poll, waker, server, door, switch, worker_events)?;
        Ok(Daemon { host, control })
    }
}

/// Checks that the ports of a configuration can be opened on this machine; nothing is touched.
fn check_machine(config: &Config, links: &mut Links) -> Result<(), Refusal> {
    for port in &config.ports {
        preflight(port, &config.switch, links)
            .map_err(|(key, error)| Refusal { key: format!("ports.{}.{key}", port.name), reason: error.to_string() })?;
    }
    match device_twice(&config.ports, &BTreeMap::new(), links) {
        Some((key, reason)) => Err(Refusal { key, reason }),
        None => Ok(()),
    }
}

/// The server of the control socket, on the inherited socket if there is one. An error if another daemon listens there.
fn control_socket(
    settings: &SwitchConfig,
    inherited: Option<OwnedFd>,
    [group, admin_group]: [Option<u32>; 2],
    registry: &mio::Registry,
) -> Result<Server, DaemonError> {
    let socket = &settings.control_socket;
    let mut server = match inherited {
        Some(listener) => Server::adopt_listener(listener, socket, admin_group),
        None => {
            make_parent(socket).map_err(DaemonError::Directory)?;
            let bound = Server::bind(socket, settings.socket_mode, group, admin_group);
            bound.map_err(|error| match error {
                SocketError::InUse { path } => DaemonError::ControlSocketInUse(path),
                other => DaemonError::ControlSocket(other),
            })?
        }
    };
    server.register(registry, CONTROL_SOCKET.0).map_err(system("control socket"))?;
    Ok(server)
}

impl Switch {
    /// A switch without ports whose workers run.
    pub(super) fn new(
        file: &Path,
        config: Config,
        host: &mut Host,
        metrics: Option<MetricsSocket>,
        events: &Sender<worker::Event>,
        waker: Arc<mio::Waker>,
    ) -> Result<Switch, DaemonError> {
        let mut cpus: Vec<Option<usize>> = config.switch.workers.iter().copied().map(Some).collect();
        if cpus.is_empty() {
            cpus.push(None);
        }
        let shared = Shared {
            fdb: Arc::new(fast_path::database(&config, host)),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(cpus.len())).collect(),
        };
        let workers = Workers::spawn(&cpus, config.switch.power, &shared, events, &waker)?;
        Ok(Switch {
            file: file.to_owned(),
            trial: None,
            status: String::new(),
            config: config.switch.clone(),
            profiles: config.profiles.clone(),
            given: config,
            started: Instant::now(),
            taken_over: None,
            ending: false,
            changing: false,
            memory: Arc::clone(&host.memory),
            fabric: Fabric::new(workers, shared, host.fast_path.clone()),
            settling: Settling::default(),
            opening: Opening::none(),
            look_at: None,
            watchdog: None,
            store: Store::of_service(),
            metrics,
            ports: Ports::default(),
            mirrors: Mirrors::default(),
            inlines: Inlines::default(),
            inlines_in_force: Vec::new(),
            injections: Injections::default(),
            multicast: Multicast::default(),
            busy_polls: BusyPolls::default(),
            captures: Sessions::new(waker),
            events: Events::default(),
        })
    }

    /// Enters all objects of a configuration, with one set of tables. The ports are still to be opened.
    pub(super) fn enter(&mut self, config: Config) -> Result<(), Refusal> {
        let about = |group: &str, name: &str| {
            let key = format!("{group}.{name}");
            move |error: Error| Refusal { key, reason: reason_of(&error) }
        };
        let (first, others): (Vec<_>, Vec<_>) =
            config.ports.into_iter().partition(|port| attach::of(&port.kind).opens_first());
        for port in first.into_iter().chain(others) {
            let name = port.name.clone();
            self.enter_port(port).map_err(about("ports", &name))?;
            self.opening.left.push_back(name);
        }
        for mirror in config.mirrors {
            let name = mirror.name.clone();
            self.mirrors.enter(mirror, &self.ports, &self.fabric).map_err(about("mirrors", &name))?;
        }
        for inline in config.inlines {
            let name = inline.name.clone();
            self.inlines.enter(inline, &self.ports, &self.mirrors).map_err(about("inline", &name))?;
        }
        for impairment in config.impairments {
            let name = impairment.port.clone();
            self.enter_impairment(impairment).map_err(about("impair", &name))?;
        }
        let tables = self.set_tables().and_then(|()| self.set_sensors());
        tables.map_err(|error| Refusal { key: String::new(), reason: error.to_string() })?;
        self.events.tell(Event::new(EventKind::Started));
        self.events.told.begin(&self.config, &self.profiles);
        self.notice_changes();
        Ok(())
    }

    /// Sets an impairment that takes effect with the next tables; otherwise like [`Switch::set_impairment`].
    fn enter_impairment(&mut self, config: ImpairConfig) -> Result<(), Error> {
        let port = self.ports.get_mut(&config.port)?;
        port.impaired = Some(Impaired::following(port.impaired.as_ref(), config)?);
        Ok(())
    }
}

impl Errand<'_> {
    /// Opens the next port of the configuration file, if one is left.
    pub(super) fn open_next(&mut self) -> Result<(), Refusal> {
        if let Some(name) = self.opening.left.pop_front() {
            let key = || format!("ports.{name}");
            self.open_at_start(&name).map_err(|error| Refusal { key: key(), reason: reason_of(&error) })?;
        }
        let Opening { left, tables_due, renewed_at } = &self.opening;
        if *tables_due && (left.is_empty() || renewed_at.elapsed() >= BATCH) {
            self.opening.tables_due = false;
            self.set_tables().map_err(|error| Refusal { key: String::new(), reason: error.to_string() })?;
            self.opening.renewed_at = Instant::now();
        }
        Ok(())
    }

    /// Opens a port, unless it was removed or changed since.
    fn open_at_start(&mut self, name: &str) -> Result<(), Error> {
        let still_waits = |port: &Port| port.attached.absence().is_some_and(Absence::is_opening);
        if !self.ports.find(name).is_some_and(still_waits) {
            return Ok(());
        }
        let opened = self.open(name);
        let Some(port) = self.ports.find_mut(name) else { return Ok(()) };
        let enabled = port.enabled;
        match opened {
            Ok(opened) => {
                port.attach(opened, Vec::new());
            }
            Err(error) => {
                let absence = absence_of(error, &format!("port {name:?}"))?;
                port.attached = Attached::Waiting(absence);
            }
        }
        self.opening.tables_due = true;
        if !enabled {
            self.show_port_state(name);
        }
        // The tables have the port already, without a transmit side.
        self.place_queues()?;
        self.ports.catch_up(name);
        Ok(())
    }
}

/// The path of the ledger of a switch with this control socket.
fn ledger_path(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".devices");
    path.into()
}
