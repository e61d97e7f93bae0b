//! `labswd`'s control thread: one loop that owns everything that is not per frame.
//!
//! **How it works.** [`Daemon::start`] takes a validated configuration, looks at whatever can be refused, and has the
//! control socket listen; [`Daemon::run`] is one mio loop: control socket, vhost-user sessions, signals, faults
//! reported by the workers, news of network links ([`devices`]), a timer, and at first the ports of the file, one a
//! turn ([`start`]). Every change, from the configuration or the control socket, goes through the same methods in
//! [`ports`] and [`mirrors`]: check, build new tables, open, hand over. Ports are attached to things by [`attach`];
//! [`queues`] says which worker serves which receive queue.
//!
//! The switch is four things: the [`Host`] it runs on (links, ledger, packet memory), the [`Fabric`] (workers and what
//! they share), its ports and its mirrors.
//!
//! **Invariants.**
//! - A change that fails leaves the switch as it was.
//! - A fault of one port ends in that port's state and reason, nowhere else.
//! - Answering what is asked asks nobody: what is known of devices is kept and renewed by news.
//! - What the daemon made (links, programs, sockets) it removes on SIGTERM; after SIGKILL programs are gone by
//!   themselves and the rest is recognised and reused by the next run.

mod accounts;
mod answers;
mod apply;
mod attach;
mod busy_poll;
mod captures;
mod change;
mod destinations;
mod devices;
mod fabric;
mod flap;
mod guards;
mod handover;
mod host;
mod impairments;
mod inject;
mod mirrors;
mod multicast;
mod placement;
mod ports;
mod preflight;
mod queues;
mod signals;
mod start;
#[cfg(test)]
mod tests;
mod trace;
mod watchdog;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use labsw_dataplane::sys::socket::SocketError;
use labsw_dataplane::worker::Event;
use labsw_dataplane::workers::WorkerError;
use labsw_switch::PortId;
use mio::{Events, Interest, Poll, Token};

use crate::api;
use crate::config::{Config, ConfigError, ProfileConfig, SwitchConfig};
use crate::device::LinkEvents;
use crate::metrics::MetricsSocket;
use crate::varlink::Server;

pub use accounts::UnknownAccount;
use accounts::group_id;
pub use attach::OpenError;
use busy_poll::BusyPolls;
use captures::Sessions;
use fabric::Fabric;
use handover::Door;
pub use handover::{Successor, TakeOverError};
use host::Host;
use inject::Injections;
use mirrors::Mirror;
use ports::Port;
pub use preflight::awaited;
use signals::{notify, signalled};
use start::{Opening, random_seed};
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
/// The socket for take-overs.
const TAKE_OVER: Token = Token(FIRST_PORT - 1);
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
    /// The switch that runs can't be taken over.
    #[error("take-over failed, the running switch goes on: {0}")]
    TakeOver(#[from] TakeOverError),
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
    /// Where another process asks to take over; `None`: nowhere.
    door: Option<Door>,
    switch: Switch,
    worker_events: Receiver<Event>,
}

/// The switch itself: what the control socket shows and changes.
struct Switch {
    config: SwitchConfig,
    /// What the switch was last given, at its start or by an apply. What differs was changed at run time.
    given: Config,
    started: Instant,
    host: Host,
    fabric: Fabric,
    /// What is left of the start.
    opening: Opening,
    /// When the devices are looked at next.
    look_at: Option<Instant>,
    /// How the service manager hears that the switch is alive, if it wants to.
    watchdog: Option<Watchdog>,
    metrics: Option<MetricsSocket>,
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
    /// Opens the ports and serves until SIGTERM or SIGINT, then removes what it made.
    ///
    /// # Errors
    /// If a port of the configuration can't be opened, or the event loop itself fails.
    pub fn run(mut self) -> Result<(), DaemonError> {
        let mut events = Events::with_capacity(256);
        let mut next_second = Instant::now();
        let mut wait = Duration::ZERO;
        let mut ready = false;
        // Its time runs from here.
        self.switch.watchdog = Watchdog::from_environment(Instant::now(), self.switch.fabric.pulses());
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
            self.dispatch(&events, now);
            if self.serve_door() {
                // Whatever is dropped from here on is another process's.
                std::mem::forget(self);
                return Ok(());
            }
            if let Err(refusal) = self.switch.open_next() {
                return Err(self.refused(&refusal));
            }
            if self.switch.opening.is_over() && !std::mem::replace(&mut ready, true) {
                self.ready();
            }
            let due = self.tick(now);
            if now >= next_second {
                next_second = now + Duration::from_secs(1);
                self.switch.every_second();
            }
            let due = due.into_iter().chain(self.switch.beat());
            wait = if ready { due.fold(next_second - now, Duration::min) } else { Duration::ZERO };
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        self.stop();
        outcome
    }

    /// All ports have been tried.
    fn ready(&mut self) {
        let Host { ledger, links, .. } = &mut self.switch.host;
        ledger.put_back_inherited(links);
        notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!(
            ports = self.switch.ports.len(),
            socket = %self.switch.config.control_socket.display(),
            start_ms = self.switch.started.elapsed().as_millis(),
            "ready"
        );
    }

    /// Does what events ask for.
    fn dispatch(&mut self, events: &Events, now: Instant) {
        for event in events {
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
                TAKE_OVER => {
                    if let Some(door) = &self.door {
                        door.ready();
                    }
                }
                token if token.0 >= FIRST_PORT => self.switch.port_ready(token, now),
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
    }

    /// Does what time asks for; returns how long until something is due again, for each that knows.
    fn tick(&mut self, now: Instant) -> Vec<Duration> {
        let metrics = self.switch.metrics.as_mut().zip(self.server.as_mut());
        let metrics_due = metrics.map(|(metrics, server)| metrics.tick(now, server));
        let server_due = self.server.as_mut().and_then(|server| {
            server.tick(now, &mut self.switch);
            server.next_tick(now)
        });
        let due = [
            server_due,
            self.switch.tick_ports(now),
            self.switch.tick_flaps(now),
            self.switch.tick_devices(now),
            metrics_due,
        ];
        self.switch.sweep_captures();
        due.into_iter().flatten().collect()
    }

    /// Reads the configuration file again and applies it, and tells the service manager (systemd's
    /// `Type=notify-reload`).
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
        if self.switch.opening.is_over() {
            notify(&[sd_notify::NotifyState::Ready]);
        }
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
    fn every_second(&mut self) {
        self.fabric.every_second(SWEEP_SLOTS);
        self.report_states();
        self.report_over_limit();
        self.tick_multicast();
        self.look_at_busy_polls();
        self.end_silent_injections();
        self.host.report_held_links();
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

/// A listener for changes of network links.
fn link_events(registry: &mio::Registry) -> Result<LinkEvents, DaemonError> {
    let events = LinkEvents::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
    let fd = events.as_raw_fd();
    registry.register(&mut mio::unix::SourceFd(&fd), LINK_EVENTS, Interest::READABLE).map_err(system("netlink"))?;
    Ok(events)
}

/// The tokens of a port's listener and connection.
fn port_tokens(id: PortId) -> [Token; 2] {
    let first = FIRST_PORT + 2 * id.index();
    [Token(first), Token(first + 1)]
}
