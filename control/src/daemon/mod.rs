//! `labswd`'s control thread: one loop that owns everything that is not done per frame.
//!
//! **How it works.** [`Daemon::start`] takes a validated configuration, checks everything that can be refused, and has
//! the control socket listen. [`Daemon::run`] is one mio loop: control socket, vhost-user sessions, signals, faults
//! reported by the workers, news of network links ([`devices`]), a timer, and at first the ports of the file, one a
//! turn ([`start`]). Every change, from the configuration or the control socket, goes through the same methods in
//! [`service`] and [`change`]: check, build new tables, open, hand over. [`attach`] opens the attachments of ports;
//! [`queues`] places receive queues at workers.
//!
//! The switch consists of four owners, each independent of the others: the [`Host`] (links, ledger, packet memory), the
//! [fabric] (workers and the state that they share), its [ports] and its [mirrors]. [`switch`] brings them together.
//!
//! **Invariants.**
//! - A change that fails leaves the switch as it was.
//! - A fault of one port changes that port's state and reason, and nothing else.
//! - Answering a query makes no request: the state of devices is kept, and updated by news.
//! - On SIGTERM the daemon removes everything that it made (links, programs, sockets). After SIGKILL the kernel removes
//!   the programs, and the next run recognises and reuses the rest.

mod accounts;
mod answers;
mod apply;
mod attach;
mod busy_poll;
mod captures;
mod change;
mod confirm;
mod destinations;
mod devices;
mod error;
mod events;
mod fabric;
mod fast_path;
mod flap;
mod guards;
mod handover;
mod host;
mod impairments;
mod inject;
mod mirrors;
mod multicast;
mod notice;
mod opening;
mod port;
mod ports;
mod preflight;
mod queues;
mod recovery;
mod rewind;
mod seed;
mod selected;
mod service;
mod show;
mod signals;
mod start;
mod status;
mod store;
mod switch;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod trial;
mod view;
mod watchdog;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use labsw_dataplane::worker;
use mio::{Events, Interest, Poll};

use crate::api::{self, ConfigText, Event, EventKind, EventLevel, EventSubject, Request};
use crate::config::Config;
use crate::device::LinkEvents;
use crate::varlink::Server;

pub use accounts::UnknownAccount;
pub use attach::OpenError;
pub use error::DaemonError;
pub use handover::{Successor, TakeOverError};
pub use preflight::awaited;
pub use store::Found;

use error::system;
use handover::Door;
use host::Host;
use signals::{notify, signalled};
use switch::Switch;
use tokens::{FIRST_PORT, LINK_EVENTS, RELOAD, SIGNALS, TAKE_OVER, WORKER_EVENTS};
use watchdog::Watchdog;

/// Everything the control thread owns.
pub struct Daemon {
    poll: Poll,
    signals: UnixStream,
    reloads: UnixStream,
    /// The reload in progress, while the file's filters are compiled.
    reload: Option<Reload>,
    link_events: LinkEvents,
    server: Option<Server>,
    /// The socket where another process asks to take over, if it could be opened.
    door: Option<Door>,
    switch: Switch,
    worker_events: Receiver<worker::Event>,
}

/// A configuration file that is being reloaded.
struct Reload {
    wanted: ConfigText,
    /// Another SIGHUP has come since.
    again: bool,
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
        // The watchdog's time runs from here. A process that took over knows it already.
        if self.switch.watchdog.is_none() {
            self.switch.watchdog = Watchdog::from_environment(Instant::now(), self.switch.fabric.pulses());
        }
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
                // From here on everything that would be dropped belongs to another process.
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
            self.switch.keep_ports();
            if now >= next_second {
                next_second = now + Duration::from_secs(1);
                self.switch.every_second();
                if ready {
                    self.switch.tell_status();
                }
            }
            let due = due.into_iter().chain(self.switch.beat());
            wait = if ready { due.fold(next_second - now, Duration::min) } else { Duration::ZERO };
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        self.switch.events.tell(Event::new(EventKind::Stopping));
        if let Some(server) = &mut self.server {
            // The last that readers of events get.
            server.tick(Instant::now(), &mut self.switch);
        }
        self.stop();
        outcome
    }

    /// Completes the start once all ports have been tried.
    fn ready(&mut self) {
        let Host { ledger, links, .. } = &mut self.switch.host;
        ledger.put_back_inherited(links);
        self.switch.status = self.switch.status_line();
        notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&self.switch.status)]);
        self.switch.notice_states();
        self.switch.events.tell(Event::new(EventKind::Ready));
        tracing::debug!(
            ports = self.switch.ports.len(),
            socket = %self.switch.config.control_socket.display(),
            start_ms = self.switch.started.elapsed().as_millis(),
            "served"
        );
    }

    /// Handles events.
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
                token if token.0 >= FIRST_PORT => self.switch.ports.ready(token, now),
                token => {
                    if let Some(server) = &mut self.server {
                        server.ready(token, &mut self.switch);
                        if let Some(prepared) = server.take_own() {
                            self.filters_compiled(prepared);
                        }
                    }
                }
            }
        }
        while let Ok(event) = self.worker_events.try_recv() {
            let worker::Event::PortFault { id, fault } = event;
            self.switch.port_fault(id, &fault);
        }
    }

    /// Does the timed work; returns, for each part, the time until its next work is due.
    fn tick(&mut self, now: Instant) -> Vec<Duration> {
        let metrics = self.switch.metrics.as_mut().zip(self.server.as_mut());
        let metrics_due = metrics.map(|(metrics, server)| metrics.tick(now, server));
        let [guests, flaps, trial, devices] = [
            self.switch.ports.tick(now),
            self.switch.tick_flaps(now),
            self.switch.tick_trial(now),
            self.switch.tick_devices(now),
        ];
        // What has happened until here is told by this turn's look at the clients.
        self.switch.notice_states();
        let server_due = self.server.as_mut().and_then(|server| {
            server.tick(now, &mut self.switch);
            server.next_tick(now)
        });
        let due = [server_due, guests, flaps, trial, devices, metrics_due];
        self.switch.sweep_captures();
        due.into_iter().flatten().collect()
    }

    /// Reads the configuration file again and compiles its filters on the helper thread; tells the service manager
    /// (systemd's `Type=notify-reload`). [`Daemon::filters_compiled`] then applies the file.
    fn reload(&mut self) {
        if let Some(reload) = &mut self.reload {
            reload.again = true;
            return;
        }
        let reloading = sd_notify::NotifyState::Reloading;
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[reloading, now]),
            Err(_) => notify(&[reloading]),
        }
        let file = self.switch.file.display().to_string();
        match (Config::read_text(&self.switch.file), &self.server) {
            (Ok(text), Some(server)) => {
                let wanted = ConfigText { file, text };
                server.prepare(Request::CheckConfig(wanted.clone()));
                self.reload = Some(Reload { wanted, again: false });
            }
            (Err(error), _) => self.reloaded(Err(error.to_string())),
            // The switch is about to end.
            (Ok(_), None) => {}
        }
    }

    /// Applies the file that is being reloaded, once its filters are compiled.
    fn filters_compiled(&mut self, prepared: Result<(), api::Error>) {
        let Some(Reload { wanted, again }) = self.reload.take() else { return };
        let applied = prepared.and_then(|()| self.switch.apply_config(&wanted, false));
        self.switch.notice_changes();
        self.reloaded(applied.map(drop).map_err(|error| error.to_string()));
        if again {
            self.reload();
        }
    }

    /// Reports the outcome of a reload.
    fn reloaded(&mut self, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            let file = self.switch.file.display().to_string();
            let about = Event::about(EventKind::NotApplied, EventSubject::File, &file);
            self.switch.events.tell(Event { level: EventLevel::Error, reason: Some(reason), ..about });
        }
        if self.switch.opening.is_over() {
            notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    /// Removes everything that the daemon made, in reverse order.
    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.close();
        }
        for name in self.switch.ports.names() {
            if let Err(error) = self.switch.close_port(&name) {
                tracing::warn!(port = name, %error, "not closed cleanly");
            }
        }
        self.switch.store.clear();
    }
}

/// A listener for changes of network links.
fn link_events(registry: &mio::Registry) -> Result<LinkEvents, DaemonError> {
    let events = LinkEvents::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
    let fd = events.as_raw_fd();
    registry.register(&mut mio::unix::SourceFd(&fd), LINK_EVENTS, Interest::READABLE).map_err(system("netlink"))?;
    Ok(events)
}
