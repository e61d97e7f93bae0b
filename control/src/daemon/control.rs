//! The control thread: one mio loop, which never waits for a device.
//!
//! **How it works.** A turn of the loop has the lock of the switch. It handles the events that have come, the news of
//! the [device thread](super::device_thread), and the timed work. Changes, and everything else that needs the host, go
//! to the device thread as jobs; the loop answers clients when the outcome comes.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use labsw_dataplane::worker;
use mio::{Events, Interest, Poll};
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::device_thread::{DeviceThread, Job, LAST_PATIENCE, News, Regular};
use super::error::{DaemonError, system};
use super::handover::Door;
use super::host::Host;
use super::signals::{notify, signal_pipe, signalled};
use super::switch::Switch;
use super::tokens::{FIRST_PORT, LINK_EVENTS, RELOAD, SIGNALS, TAKE_OVER, WORKER_EVENTS};
use super::watchdog::Watchdog;
use crate::api::{self, ConfigText, Event, EventKind, EventLevel, EventSubject, Request};
use crate::config::Config;
use crate::confine::helper;
use crate::device::LinkEvents;
use crate::takeover::Channel;
use crate::varlink::Server;

/// Longest wait at the end for the helper process, for all requests together.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Everything that the control thread owns, and the switch.
pub(super) struct Control {
    poll: Poll,
    waker: Arc<mio::Waker>,
    signals: UnixStream,
    reloads: UnixStream,
    /// The reload in progress.
    reload: Option<Reload>,
    link_events: LinkEvents,
    pub(super) server: Option<Server>,
    /// The socket where another process asks to take over, if it could be opened.
    pub(super) door: Option<Door>,
    /// A process that is ready to take over.
    pub(super) visitor: Option<Channel>,
    pub(super) switch: Arc<Mutex<Switch>>,
    pub(super) worker_events: Receiver<worker::Event>,
}

/// A configuration file that is being reloaded.
struct Reload {
    wanted: ConfigText,
    /// Another SIGHUP has come since.
    again: bool,
}

/// Why the loop ends.
enum End {
    /// A signal asked for it.
    Asked,
    /// The switch belongs to another process.
    HandedOver,
}

impl Control {
    /// A control thread that has not begun.
    pub(super) fn new(
        poll: Poll,
        waker: Arc<mio::Waker>,
        server: Server,
        door: Option<Door>,
        switch: Arc<Mutex<Switch>>,
        worker_events: Receiver<worker::Event>,
    ) -> Result<Control, DaemonError> {
        let signals = signal_pipe(poll.registry(), &[SIGTERM, SIGINT], SIGNALS)?;
        let reloads = signal_pipe(poll.registry(), &[SIGHUP], RELOAD)?;
        let link_events = link_events(poll.registry())?;
        Ok(Control {
            poll,
            waker,
            signals,
            reloads,
            reload: None,
            link_events,
            server: Some(server),
            door,
            visitor: None,
            switch,
            worker_events,
        })
    }

    /// Serves until SIGTERM or SIGINT, then has everything removed that was made.
    pub(super) fn run(mut self, host: Host) -> Result<(), DaemonError> {
        let (switch, waker) = (Arc::clone(&self.switch), Arc::clone(&self.waker));
        let mut devices = DeviceThread::start(Arc::clone(&switch), host, waker).map_err(system("device thread"))?;
        {
            let mut switch = switch.lock();
            // The watchdog's time runs from here. A process that took over knows it already.
            if switch.watchdog.is_none() {
                switch.watchdog = Watchdog::from_environment(Instant::now(), switch.fabric.pulses());
            }
        }
        let outcome = self.serve(&switch, &mut devices);
        if let Ok(End::HandedOver) = outcome {
            // Everything that would be dropped belongs to another process.
            std::mem::forget((self, devices));
            return Ok(());
        }
        self.end(devices, outcome.is_ok());
        outcome.map(drop)
    }

    /// Has everything removed that was made, but for what does not let go.
    fn end(&mut self, devices: DeviceThread, asked: bool) {
        helper::answer_by(Instant::now() + LAST_REQUESTS);
        // The device thread may be waiting for a worker.
        if let Some(mut switch) = self.switch.try_lock_for(LAST_PATIENCE) {
            switch.ending = true;
            if asked {
                notify(&[sd_notify::NotifyState::Stopping]);
                switch.events.tell(Event::new(EventKind::Stopping));
            }
            if let Some(mut server) = self.server.take() {
                // The last that readers of events get.
                server.tick(Instant::now(), &mut *switch);
                server.close();
            }
        }
        devices.end(LAST_PATIENCE);
        if let Some(mut switch) = self.switch.try_lock() {
            switch.store.clear();
        }
    }

    /// The loop.
    fn serve(&mut self, switch: &Mutex<Switch>, devices: &mut DeviceThread) -> Result<End, DaemonError> {
        let mut events = Events::with_capacity(256);
        let mut next_second = Instant::now();
        let mut wait = Duration::ZERO;
        loop {
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("event loop")(error)),
            }
            if events.iter().any(|event| event.token() == SIGNALS) && signalled(&mut self.signals) {
                return Ok(End::Asked);
            }
            let (now, mut switch) = (Instant::now(), switch.lock());
            self.dispatch(&events, &mut switch, devices, now);
            self.hear(&mut switch, devices)?;
            self.submit(&mut switch, devices);
            if self.serve_door(&mut switch, !devices.is_idle()) {
                return Ok(End::HandedOver);
            }
            let due = self.tick(&mut switch, devices, now);
            switch.keep_ports();
            if now >= next_second {
                next_second = now + Duration::from_secs(1);
                switch.every_second();
                if switch.opening.is_over() {
                    switch.tell_status();
                }
                devices.report_silence(now);
                devices.want(Regular::Second);
            }
            let due = due.into_iter().chain(switch.beat());
            wait = due.fold(next_second - now, Duration::min);
        }
    }

    /// Has the requests that clients have made carried out, as far as there is room for them.
    fn submit(&mut self, switch: &mut Switch, devices: &mut DeviceThread) {
        let Some(server) = &mut self.server else { return };
        for call in server.take_deferred() {
            if devices.has_room() {
                devices.send(Job::Call(call));
            } else {
                let full = "too many changes wait for a device; try again later".to_owned();
                server.answer(call.caller, Err(api::Error::refused("switch", full)), switch);
            }
        }
    }

    /// Handles the news of the device thread.
    fn hear(&mut self, switch: &mut Switch, devices: &mut DeviceThread) -> Result<(), DaemonError> {
        while let Some(news) = devices.next() {
            match news {
                News::Answer(caller, outcome) => {
                    if let Some(server) = &mut self.server {
                        server.answer(caller, outcome, switch);
                    }
                }
                News::Reloaded(applied) => self.file_applied(switch, applied),
                News::Opened => ready(switch),
                News::Refused(refusal) => {
                    return Err(Config::complaint(&switch.file, &refusal.key, &refusal.reason).into());
                }
                News::Did(_) | News::Done | News::Tried => {}
            }
        }
        Ok(())
    }

    /// Handles events.
    fn dispatch(&mut self, events: &Events, switch: &mut Switch, devices: &mut DeviceThread, now: Instant) {
        for event in events {
            match event.token() {
                WORKER_EVENTS | SIGNALS => {}
                RELOAD => {
                    if signalled(&mut self.reloads) {
                        self.reload(switch);
                    }
                }
                LINK_EVENTS => {
                    if self.link_events.drain() {
                        switch.links_changed(now);
                    }
                }
                TAKE_OVER => {
                    if let Some(door) = &self.door {
                        door.ready();
                    }
                }
                token if token.0 >= FIRST_PORT => switch.ports.ready(token, now),
                token => {
                    if let Some(server) = &mut self.server {
                        server.ready(token, switch);
                        if let Some(prepared) = server.take_own() {
                            self.filters_compiled(prepared, switch, devices);
                        }
                    }
                }
            }
        }
        while let Ok(event) = self.worker_events.try_recv() {
            match event {
                worker::Event::PortFault { id, fault } => {
                    if switch.port_fault(id, &fault) {
                        devices.send(Job::Fault(id, fault));
                    }
                }
                // What follows from that is done in every turn.
                worker::Event::Sensors => {}
            }
        }
    }

    /// Does the timed work; returns, for each part, the time until its next work is due.
    fn tick(&mut self, switch: &mut Switch, devices: &mut DeviceThread, now: Instant) -> Vec<Duration> {
        let metrics_due = self.server.as_mut().and_then(|server| {
            let metrics = switch.metrics.as_mut()?;
            Some(metrics.tick(now, server, |listener, connection| {
                devices.send(Job::ServeMetrics { listener, connection });
            }))
        });
        let guests = switch.ports.tick(now);
        let due = [
            (Regular::Flaps, switch.ports.next_flap()),
            (Regular::Trial, switch.trial.as_ref().map(|trial| trial.due)),
            (Regular::Devices, switch.devices_due()),
        ];
        let regular = due.map(|(work, at)| {
            let at = at?;
            // Work that is due at once is due after the beginning of this turn.
            if at <= Instant::now() {
                devices.want(work);
            }
            // Its end is an event.
            (!devices.does(work)).then(|| at.saturating_duration_since(now))
        });
        switch.follow_sensors();
        // What has happened until here is told by this turn's look at the clients.
        switch.notice_states();
        let server_due = self.server.as_mut().and_then(|server| {
            server.tick(now, switch);
            server.next_tick(now)
        });
        self.submit(switch, devices);
        switch.sweep_captures();
        if !switch.settling.is_over() {
            devices.want(Regular::Gates);
        }
        regular.into_iter().chain([server_due, guests, metrics_due]).flatten().collect()
    }

    /// Reads the configuration file again and compiles its filters on the helper thread; tells the service manager
    /// (systemd's `Type=notify-reload`). [`Control::filters_compiled`] then has the device thread apply the file.
    fn reload(&mut self, switch: &Switch) {
        if let Some(reload) = &mut self.reload {
            reload.again = true;
            return;
        }
        let reloading = sd_notify::NotifyState::Reloading;
        match sd_notify::NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[reloading, now]),
            Err(_) => notify(&[reloading]),
        }
        let file = switch.file.display().to_string();
        match (Config::read_text(&switch.file), &self.server) {
            (Ok(text), Some(server)) => {
                let wanted = ConfigText { file, text };
                server.prepare(Request::CheckConfig(wanted.clone()));
                self.reload = Some(Reload { wanted, again: false });
            }
            (Err(error), _) => self.reloaded(switch, Err(error.to_string())),
            // The switch is about to end.
            (Ok(_), None) => {}
        }
    }

    /// Has the file that is being reloaded applied, once its filters are compiled.
    fn filters_compiled(&mut self, prepared: Result<(), api::Error>, switch: &Switch, devices: &mut DeviceThread) {
        let Some(Reload { wanted, .. }) = &self.reload else { return };
        match prepared {
            Ok(()) => devices.send(Job::Reload(wanted.clone())),
            Err(refused) => self.file_applied(switch, Err(refused)),
        }
    }

    /// Ends a reload.
    fn file_applied(&mut self, switch: &Switch, applied: Result<(), api::Error>) {
        let again = self.reload.take().is_some_and(|reload| reload.again);
        self.reloaded(switch, applied.map_err(|error| error.to_string()));
        if again {
            self.reload(switch);
        }
    }

    /// Reports the outcome of a reload.
    fn reloaded(&self, switch: &Switch, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            let file = switch.file.display().to_string();
            let about = Event::about(EventKind::NotApplied, EventSubject::File, &file);
            switch.events.tell(Event { level: EventLevel::Error, reason: Some(reason), ..about });
        }
        if switch.opening.is_over() {
            notify(&[sd_notify::NotifyState::Ready]);
        }
    }
}

/// Completes the start once all ports have been tried.
fn ready(switch: &mut Switch) {
    switch.status = switch.status_line();
    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&switch.status)]);
    switch.notice_states();
    switch.events.tell(Event::new(EventKind::Ready));
    tracing::debug!(
        ports = switch.ports.len(),
        socket = %switch.config.control_socket.display(),
        start_ms = switch.started.elapsed().as_millis(),
        "served"
    );
}

/// A listener for changes of network links.
fn link_events(registry: &mio::Registry) -> Result<LinkEvents, DaemonError> {
    let events = LinkEvents::open().map_err(|error| system("netlink")(std::io::Error::other(error)))?;
    let fd = events.as_raw_fd();
    registry.register(&mut mio::unix::SourceFd(&fd), LINK_EVENTS, Interest::READABLE).map_err(system("netlink"))?;
    Ok(events)
}
