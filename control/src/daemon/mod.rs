//! `labswd`'s control thread: one loop that owns everything that is not per frame.
//!
//! **How it works.** [`Daemon::start`] takes a validated configuration and brings the switch up in an order that a
//! restart under running guests needs: first whatever can be refused is looked at and nothing is touched; then
//! the control socket and the guests' sockets listen (so that guests reconnect at once); then packet memory,
//! devices and XDP programs. [`Daemon::run`] is one mio loop: control socket, vhost-user sessions, signals, faults
//! reported by the workers, news of network links ([`devices`]), and a timer. Every change, from the configuration or the control socket, goes
//! through the same methods in [`ports`] and [`mirrors`]: check, build new tables, open, hand over; [`placement`] says
//! which worker serves which receive queue.
//!
//! **Invariants.**
//! - A change that fails leaves the switch as it was.
//! - A fault of one port ends in that port's state and reason, nowhere else.
//! - What the daemon made (links, programs, sockets) it removes on SIGTERM; after SIGKILL programs are gone by
//!   themselves and the rest is recognised and reused by the next run.

mod accounts;
mod answers;
mod apply;
mod busy_poll;
mod captures;
mod change;
mod destinations;
mod devices;
mod flap;
mod guards;
mod impairments;
mod inject;
mod mirrors;
mod multicast;
mod open;
mod placement;
mod ports;
mod tap;
mod trace;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};
use labsw_dataplane::handle::{WorkerError, Workers};
use labsw_dataplane::load::LoadSnapshot;
use labsw_dataplane::socket::SocketError;
use labsw_dataplane::stats::MirrorStats;
use labsw_dataplane::vhost::memory_limit::MemoryLimit;
use labsw_dataplane::worker::{Event, Shared};
use labsw_dataplane::xdp::PacketMemory;
use labsw_switch::fdb::Fdb;
use labsw_switch::tables::Tables;
use labsw_switch::{MAX_MIRRORS, PortId};
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::api;
use crate::config::{Config, ConfigError, ProfileConfig, SwitchConfig};
use crate::device::{Ledger, LinkEvents, Links};
use crate::metrics::{self, Listener};
use crate::varlink::Server;

pub use accounts::UnknownAccount;
use accounts::group_id;
use busy_poll::BusyPolls;
use captures::Sessions;
pub use devices::awaited;
use inject::Injections;
use mirrors::Mirror;
pub use open::OpenError;
use ports::Port;
use watchdog::Watchdog;

/// The workers' events.
const WORKER_EVENTS: Token = Token(0);
/// SIGTERM and SIGINT.
const SIGNALS: Token = Token(1);
/// Network links have changed.
const LINK_EVENTS: Token = Token(2);
/// SIGHUP.
const RELOAD: Token = Token(3);
/// The control socket; its clients follow.
const CONTROL_SOCKET: Token = Token(4);
/// The metrics listener; its clients follow.
const METRICS: Token = Token(CONTROL_SOCKET.0 + Server::TOKENS);
/// Two per port (listener, connection), from here.
const FIRST_PORT: usize = 1 << 20;
/// Forwarding database slots looked at per second for entries that aged.
const SWEEP_SLOTS: usize = 16_384;

/// Why the daemon can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Something in the configuration does not fit this machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another daemon listens on the control socket.
    #[error("control socket: another labswd is running on {}; stop it, or set another `control_socket`", .0.display())]
    ControlSocketInUse(PathBuf),
    /// The control socket can't be made.
    #[error("control socket: {0}")]
    ControlSocket(#[source] SocketError),
    /// The directory of the control socket can't be made.
    #[error("control socket: {0}")]
    Directory(#[source] OpenError),
    /// A worker can't be started, or does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The event loop, a signal handler or a netlink socket failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Names what was being done when the system refused.
fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}

/// Everything the control thread owns.
pub struct Daemon {
    poll: Poll,
    /// The configuration file, to be read again.
    file: PathBuf,
    signals: UnixStream,
    reloads: UnixStream,
    link_events: LinkEvents,
    server: Option<Server>,
    switch: Switch,
    worker_events: Receiver<Event>,
}

/// The switch itself: what the control socket shows and changes.
struct Switch {
    config: SwitchConfig,
    /// What the switch was last given, at its start or by an apply. What differs was changed at run time.
    given: Config,
    started: Instant,
    /// The group that owns the guests' sockets.
    socket_group: Option<u32>,
    registry: mio::Registry,
    links: Links,
    /// What was changed on devices.
    ledger: Ledger,
    /// Deleted links that somebody still holds, as last said.
    held_links: Vec<u32>,
    /// When the devices are looked at next.
    look_at: Option<Instant>,
    workers: Workers,
    /// How the service manager hears that the switch is alive, if it wants to.
    watchdog: Option<Watchdog>,
    /// The load of each worker: now, and a second ago.
    loads: Vec<[LoadSnapshot; 2]>,
    shared: Shared,
    /// The tables in force.
    tables: Arc<Tables>,
    packet_memory: Option<Arc<PacketMemory>>,
    /// How much memory of guests may be mapped.
    guest_memory: Arc<MemoryLimit>,
    metrics: Option<Listener>,
    /// Ids of ports that a worker did not give back in time: never given to another port.
    unreturned: BTreeSet<PortId>,
    ports: BTreeMap<String, Port>,
    mirrors: BTreeMap<String, Mirror>,
    /// The impairment profiles of the configuration.
    profiles: Vec<ProfileConfig>,
    injections: Injections,
    multicast: multicast::Multicast,
    busy_polls: BusyPolls,
    captures: Sessions,
}

impl Daemon {
    /// Brings the switch up; `file` is what messages call the configuration.
    ///
    /// # Errors
    /// One clear cause. What was opened until then is closed and removed again.
    pub fn start(config: Config, file: &Path) -> Result<Daemon, DaemonError> {
        let in_file = |key: &str, reason: &str| DaemonError::from(Config::complaint(file, key, reason));
        let poll = Poll::new().map_err(system("event loop"))?;
        let registry = poll.registry().try_clone().map_err(system("event loop"))?;
        let mut links = Links::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
        let group = |key: &str, name: &Option<String>| match name {
            Some(name) => {
                group_id(name).map(Some).map_err(|error| in_file(&format!("switch.{key}"), &error.to_string()))
            }
            None => Ok(None),
        };
        let socket_group = group("socket_group", &config.switch.socket_group)?;
        let control_group = group("control_group", &config.switch.control_group)?.or(socket_group);
        let admin_group = group("admin_group", &config.switch.admin_group)?;
        for port in &config.ports {
            match open::preflight(port, &config.switch, &mut links) {
                Err((key, error)) if !error.is_absence() => {
                    return Err(in_file(&format!("ports.{}.{key}", port.name), &error.to_string()));
                }
                _ => {}
            }
        }
        if let Some((key, reason)) = apply::device_twice(&config.ports, &BTreeMap::new(), &mut links) {
            return Err(in_file(&key, &reason));
        }
        let packet_memory = open::required_memory(&config.ports, &config.switch)
            .map_err(|error| in_file("switch.hugepages", &error.to_string()))?;
        let socket = &config.switch.control_socket;
        open::make_parent(socket).map_err(DaemonError::Directory)?;
        let mut server =
            Server::bind(socket, config.switch.socket_mode, control_group, admin_group).map_err(control_socket)?;
        server.register(&registry, CONTROL_SOCKET.0).map_err(system("control socket"))?;

        let metrics = apply::metrics_listener(config.switch.metrics_listen, &registry)
            .map_err(|error| in_file("switch.metrics_listen", &error.to_string()))?;

        let mut cpus: Vec<Option<usize>> = config.switch.workers.iter().copied().map(Some).collect();
        if cpus.is_empty() {
            cpus.push(None);
        }
        let shared = Shared {
            fdb: Arc::new(Fdb::new(config.switch.mac_table_size, ageing_seconds(&config.switch), random_seed())),
            mirrors: (0..MAX_MIRRORS).map(|_| MirrorStats::new(cpus.len())).collect(),
        };
        let (event_sender, worker_events) = unbounded();
        let waker = Arc::new(mio::Waker::new(&registry, WORKER_EVENTS).map_err(system("event loop"))?);
        let power = apply::worker_power(config.switch.power);
        let workers = Workers::spawn(&cpus, power, &shared, &event_sender, &waker)?;
        let ledger = Ledger::open(devices::ledger_path(socket));
        let link_events = link_events(&registry)?;
        let guest_memory = Arc::new(MemoryLimit::of_machine(config.switch.max_guest_memory));
        let given = config.clone();
        let switch = Switch {
            config: config.switch,
            given,
            started: Instant::now(),
            socket_group,
            registry,
            links,
            ledger,
            held_links: Vec::new(),
            look_at: None,
            loads: workers.handles().iter().map(|worker| [worker.load(); 2]).collect(),
            workers,
            watchdog: None,
            shared,
            tables: Arc::new(Tables::empty()),
            packet_memory,
            guest_memory,
            metrics,
            unreturned: BTreeSet::new(),
            ports: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            profiles: config.profiles,
            injections: Injections::default(),
            multicast: multicast::Multicast::default(),
            busy_polls: BusyPolls::default(),
            captures: Sessions::new(waker),
        };
        let signals = signal_pipe(poll.registry(), &[SIGTERM, SIGINT], SIGNALS)?;
        let reloads = signal_pipe(poll.registry(), &[SIGHUP], RELOAD)?;
        let file = file.to_owned();
        let server = Some(server);
        let mut daemon = Daemon { poll, file, signals, reloads, link_events, server, switch, worker_events };
        // Guests first: their sockets must listen again within a second of a restart.
        let (guests, devices): (Vec<_>, Vec<_>) = config.ports.into_iter().partition(|port| port.is_vhost_user());
        for port in guests.into_iter().chain(devices) {
            let name = port.name.clone();
            if let Err(error) = daemon.switch.add_port(port) {
                daemon.stop();
                return Err(in_file(&format!("ports.{name}"), &reason_of(&error)));
            }
        }
        for mirror in config.mirrors {
            let name = mirror.name.clone();
            if let Err(error) = daemon.switch.set_mirror(mirror) {
                daemon.stop();
                return Err(in_file(&format!("mirrors.{name}"), &reason_of(&error)));
            }
        }
        for impairment in config.impairments {
            let name = impairment.port.clone();
            if let Err(error) = daemon.switch.set_impairment(impairment) {
                daemon.stop();
                return Err(in_file(&format!("impair.{name}"), &reason_of(&error)));
            }
        }
        let Switch { ledger, links, .. } = &mut daemon.switch;
        ledger.put_back_inherited(links);
        Ok(daemon)
    }

    /// Serves until SIGTERM or SIGINT, then removes what it made.
    ///
    /// # Errors
    /// Only if the event loop itself fails.
    pub fn run(mut self) -> Result<(), DaemonError> {
        let mut events = Events::with_capacity(256);
        let mut next_second = Instant::now();
        let mut wait = Duration::ZERO;
        notify(&[sd_notify::NotifyState::Ready]);
        // Its time runs from here.
        self.switch.watchdog = Watchdog::from_environment(Instant::now(), self.switch.pulses());
        tracing::info!(
            ports = self.switch.ports.len(),
            socket = %self.switch.config.control_socket.display(),
            start_ms = self.switch.started.elapsed().as_millis(),
            "ready"
        );
        let outcome = loop {
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(system("event loop")(error)),
            }
            if events.iter().any(|event| event.token() == SIGNALS) && signalled(&mut self.signals) {
                break Ok(());
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    WORKER_EVENTS | SIGNALS => {}
                    RELOAD => {
                        if signalled(&mut self.reloads) {
                            self.reload();
                        }
                    }
                    LINK_EVENTS => {
                        if self.link_events.drain() {
                            self.switch.links_changed(now);
                        }
                    }
                    token if token.0 >= FIRST_PORT => self.switch.port_ready(token, now),
                    token if token.0 >= METRICS.0 => {
                        self.switch.serve_metrics(|listener, text| listener.ready(token, now, text));
                    }
                    token => {
                        if let Some(server) = &mut self.server {
                            server.ready(token, &mut self.switch);
                        }
                    }
                }
            }
            while let Ok(event) = self.worker_events.try_recv() {
                let Event::PortFault { id, fault } = event;
                self.switch.port_fault(id, &fault);
            }
            let ports_due = self.switch.tick_ports(now);
            let flaps_due = self.switch.tick_flaps(now);
            let devices_due = self.switch.tick_devices(now);
            let metrics_due = self.switch.serve_metrics(|listener, text| listener.tick(now, text)).flatten();
            let server_due = self.server.as_mut().and_then(|server| {
                server.tick(now, &mut self.switch);
                server.next_tick(now)
            });
            self.switch.sweep_captures();
            if now >= next_second {
                next_second = now + Duration::from_secs(1);
                self.switch.every_second();
            }
            let watchdog_due = self.switch.beat();
            wait = [ports_due, flaps_due, devices_due, metrics_due, server_due, watchdog_due]
                .into_iter()
                .flatten()
                .fold(next_second - now, Duration::min);
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        self.stop();
        outcome
    }

    /// Reads the configuration file again and applies it, and tells the service manager (systemd's `Type=notify-reload`).
    fn reload(&mut self) {
        let reloading = sd_notify::NotifyState::Reloading;
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[reloading, now]),
            Err(_) => notify(&[reloading]),
        }
        let file = self.file.display().to_string();
        let outcome = match Config::read_text(&self.file) {
            Ok(text) => {
                let applied = self.switch.apply_config(&api::ConfigText { file, text }, false);
                applied.map(drop).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = outcome {
            tracing::error!("configuration not applied: {reason}");
        }
        notify(&[sd_notify::NotifyState::Ready]);
    }

    /// Removes everything that was made, in the reverse order.
    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.close();
        }
        for name in self.switch.ports.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.switch.close_port(&name) {
                tracing::warn!(port = name, %error, "not closed cleanly");
            }
        }
    }
}

impl Switch {
    /// Has the metrics listener do something, if there is one.
    fn serve_metrics<T>(&mut self, work: impl FnOnce(&mut Listener, &mut dyn FnMut() -> String) -> T) -> Option<T> {
        let mut listener = self.metrics.take()?;
        let done = work(&mut listener, &mut || metrics::text(&metrics::families(&self.show_status())));
        self.metrics = Some(listener);
        Some(done)
    }

    fn every_second(&mut self) {
        self.workers.rouse_if_stuck();
        for (load, worker) in self.loads.iter_mut().zip(self.workers.handles()) {
            *load = [worker.load(), load[0]];
        }
        self.shared.fdb.sweep(labsw_dataplane::clock::now_seconds(), SWEEP_SLOTS);
        self.report_over_limit();
        self.tick_multicast();
        self.look_at_busy_polls();
        self.end_silent_injections();
        self.report_held_links();
    }
}

/// Why there is no control socket; a live one is that of another daemon.
fn control_socket(error: SocketError) -> DaemonError {
    match error {
        SocketError::InUse { path } => DaemonError::ControlSocketInUse(path),
        other => DaemonError::ControlSocket(other),
    }
}

/// Why a change was refused; what it is about stands in the file.
fn reason_of(error: &api::Error) -> String {
    match error {
        api::Error::Refused { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

fn ageing_seconds(config: &SwitchConfig) -> u32 {
    u32::try_from(config.mac_ageing.as_secs()).unwrap_or(u32::MAX)
}

/// A number that a guest can't guess, for the hash of the forwarding database.
fn random_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A stream that becomes readable on these signals.
fn signal_pipe(registry: &mio::Registry, signals: &[i32], token: Token) -> Result<UnixStream, DaemonError> {
    let (reader, writer) = UnixStream::pair().map_err(system("signals"))?;
    reader.set_nonblocking(true).map_err(system("signals"))?;
    for signal in signals {
        let writer = writer.try_clone().map_err(system("signals"))?;
        signal_hook::low_level::pipe::register(*signal, writer).map_err(system("signals"))?;
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
    registry.register(&mut mio::unix::SourceFd(&fd), token, Interest::READABLE).map_err(system("signals"))?;
    Ok(reader)
}

/// A listener for changes of network links.
fn link_events(registry: &mio::Registry) -> Result<LinkEvents, DaemonError> {
    let events = LinkEvents::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&events);
    registry.register(&mut mio::unix::SourceFd(&fd), LINK_EVENTS, Interest::READABLE).map_err(system("netlink"))?;
    Ok(events)
}

fn signalled(reader: &mut UnixStream) -> bool {
    let mut bytes = [0; 16];
    std::io::Read::read(reader, &mut bytes).is_ok_and(|count| count > 0)
}

/// Tells the service manager, if there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "service manager not told");
    }
}
