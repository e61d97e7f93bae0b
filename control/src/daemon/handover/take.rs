//! The new process's side: it prepares everything while the old process still serves, and begins when the old one has
//! let go.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::clock::now_seconds;
use labsw_dataplane::handover::{HandoverError, Resume, Slot, Taken};
use labsw_dataplane::stats::PortSnapshot;
use labsw_dataplane::xdp::PacketMemory;
use labsw_switch::DropReason;
use rustix::io::Errno;

use super::{TakeOverError, service};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::attach::{self, OpenError, Site};
use crate::daemon::control::Control;
use crate::daemon::error::DaemonError;
use crate::daemon::flap::Flap;
use crate::daemon::host::Host;
use crate::daemon::impairments::Impaired;
use crate::daemon::start::Inherited;
use crate::daemon::switch::Switch;
use crate::daemon::trial::Trial;
use crate::daemon::watchdog::Watchdog;
use crate::metrics::MetricsSocket;
use crate::takeover::impairment::{DelayedFrames, ImpairRecord};
use crate::takeover::multicast::MulticastRecord;
use crate::takeover::state::{FdbRecord, KeptFrame, Last, Message, PoolRecord, PortState, State};
use crate::takeover::{Channel, WireError, socket_path};

/// Timeout for each message of the old process.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait for the old process to hang up.
const FAREWELL: Duration = Duration::from_secs(1);

/// A process that is about to take over, and that has read the running configuration.
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    /// The running configuration, as the old process wrote it.
    text: String,
    config: Config,
    given: Config,
    /// The running switch was started from this process's program file.
    same_program: bool,
}

impl Successor {
    /// Asks the switch with this control socket to hand itself over.
    ///
    /// # Errors
    /// No switch listens, it refuses, or its configuration can't be read.
    pub fn knock(control_socket: &Path) -> Result<Successor, TakeOverError> {
        let path = socket_path(control_socket);
        let socket =
            UnixStream::connect(&path).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::CONNREFUSED) => TakeOverError::NobodyThere(path.clone()),
                _ => WireError::from(error).into(),
            })?;
        let who =
            labsw_dataplane::sys::socket::credentials(std::os::fd::AsFd::as_fd(&socket)).map_err(WireError::from)?;
        if !super::may_take_over(who) {
            return Err(TakeOverError::Foreign { path, uid: who.uid });
        }
        let channel = Channel::new(socket, PATIENCE).map_err(WireError::from)?;
        channel.send(&Message::Hello { program: env!("CARGO_PKG_VERSION").to_owned() }, &[])?;
        let (text, given, program_file) = match channel.receive()?.0 {
            Message::Welcome { service: Some(service), .. } if service::control_group().as_ref() != Some(&service) => {
                return Err(TakeOverError::OfAService(service));
            }
            Message::Welcome { config, given, program_file, .. } => (config, given, program_file),
            other => return Err(WireError::OutOfTurn(other.name()).into()),
        };
        let config = Config::parse_here(&text, "configuration that runs")?;
        let given = Config::parse_here(&given, "configuration of the start")?;
        let same_program = program_file.is_some_and(|file| service::program_file() == Some(file));
        Ok(Successor { channel, text, config, given, same_program })
    }

    /// Leaves, if the running switch was started from the same program file as this process. Otherwise gives itself
    /// back.
    pub fn or_leave(self) -> Option<Successor> {
        if !self.same_program {
            return Some(self);
        }
        // The switch goes on either way.
        let _ = self.channel.send(&Message::SameProgram, &[]);
        None
    }

    /// The configuration that runs.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Daemon {
    /// Takes over; `file` is the configuration file for later reloads. On return, this process owns the switch and its
    /// workers run.
    ///
    /// # Errors
    /// One clear cause; the old process then goes on, and this one has to end.
    pub fn take_over(successor: Successor, file: &Path) -> Result<Daemon, DaemonError> {
        let Successor { mut channel, text, config, given, .. } = successor;
        let outcome = receive_state(&mut channel, &text)
            .and_then(|(state, taken)| prepare(config, given, file, &mut channel, state, taken));
        match outcome {
            Ok(daemon) => Ok(daemon),
            Err(error) => {
                // The old process may be the one that refused.
                channel.refuse(&error);
                Err(error.into())
            }
        }
    }

    /// Puts everything in its place; the old process still serves.
    fn settle(&mut self, state: State, mut taken: Taken) -> Result<(), TakeOverError> {
        if let Some(memory) = &state.memory {
            self.host.adopt_memory(PacketMemory::take_over(memory, &mut taken)?);
        }
        let Daemon { host, control } = self;
        let mut switch = control.switch.lock();
        // Probes are sent once the ports are this process's.
        let sensors = switch.fabric.workers.links().set_sensors(&Arc::default());
        sensors.map_err(|error| TakeOverError::Start(error.to_string()))?;
        for (name, port) in state.ports {
            let refused = |reason: String| TakeOverError::Port { port: name.clone(), reason };
            switch.settle_port(host, &name, port, &mut taken).map_err(refused)?;
        }
        let Switch { inlines, injections, ports, .. } = &mut *switch;
        inlines.go_on(&state.sensors, ports);
        injections.enter(state.replays, ports)?;
        switch.set_tables().map_err(|error| TakeOverError::Start(error.to_string()))?;
        state.fdb.iter().for_each(|record| switch.remember(record));
        switch.snoop_on(state.multicast.as_ref())?;
        switch.trial = state.trial.map(Trial::taken_over).transpose()?;
        if let Some(server) = &mut control.server {
            let mut clients = state.clients.into_iter();
            clients.try_for_each(|client| server.take_over(client, &mut taken, &mut *switch))?;
        }
        Ok(())
    }

    /// Makes this process the owner of the switch's sockets, and serves rings and queues.
    fn begin(&mut self, metrics: Option<MetricsSocket>, last: &Last, delayed: &DelayedFrames) {
        let Control { switch, server, door, .. } = &mut self.control;
        let mut switch = switch.lock();
        switch.taken_over = Some(Instant::now());
        switch.keep_on(last, |impaired, record| impaired.keep_on_rx(record, delayed));
        switch.resume_ports();
        let Switch { injections, ports, fabric, .. } = &mut *switch;
        injections.resume(ports, fabric);
        switch.keep_on(last, |impaired, record| impaired.keep_on_tx(record, delayed));
        switch.fabric.workers.links().wake();
        switch.metrics = metrics;
        if let Some(server) = server {
            server.own();
        }
        if let Some(door) = door {
            door.own();
        }
    }
}

/// Requests the state.
fn receive_state(channel: &mut Channel, text: &str) -> Result<(State, Taken), TakeOverError> {
    channel.allow(PATIENCE);
    channel.send(&Message::Prepare, &[])?;
    match channel.receive()? {
        (Message::State(state), _) if state.config != text => Err(TakeOverError::Changed),
        (Message::State(state), descriptors) => Ok((*state, Taken::new(descriptors))),
        (other, _) => Err(WireError::OutOfTurn(other.name()).into()),
    }
}

/// The frames that impairments delay.
fn receive_delayed(slot: Option<Slot>, mut taken: Taken) -> Result<DelayedFrames, HandoverError> {
    match slot {
        Some(slot) => DelayedFrames::read(taken.take(slot)?),
        None => Ok(DelayedFrames::default()),
    }
}

/// Makes a daemon from the state, and takes the switch over. On an error nothing that was made is dropped: it belongs
/// to the old process, and some destructors would undo that process's work.
fn prepare(
    config: Config,
    given: Config,
    file: &Path,
    channel: &mut Channel,
    state: State,
    mut taken: Taken,
) -> Result<Daemon, TakeOverError> {
    let inherited = Inherited { control: taken.take(state.control)?, take_over: taken.take(state.take_over)? };
    let metrics = state.metrics.map(|slot: Slot| taken.take(slot)).transpose()?;
    let metrics =
        metrics.map(MetricsSocket::adopt).transpose().map_err(|error| TakeOverError::Start(error.to_string()))?;
    let mut metrics = std::mem::ManuallyDrop::new(metrics);
    let started = Daemon::start_with(config, file, Some(inherited));
    let mut daemon = std::mem::ManuallyDrop::new(started.map_err(|error| TakeOverError::Start(error.to_string()))?);
    {
        let mut switch = daemon.control.switch.lock();
        switch.given = given;
        let pulses = switch.fabric.pulses();
        let patience = state.watchdog_us.map(Duration::from_micros);
        switch.watchdog = patience.map(|patience| Watchdog::new(patience, Instant::now(), pulses));
    }
    daemon.settle(state, taken)?;
    channel.allow(PATIENCE);
    channel.send(&Message::Ready, &[])?;
    let (last, delayed) = match channel.receive()? {
        (Message::Last(last), descriptors) => {
            let delayed = receive_delayed(last.delayed, Taken::new(descriptors))?;
            (last, delayed)
        }
        (other, _) => return Err(WireError::OutOfTurn(other.name()).into()),
    };
    daemon.control.switch.lock().complete(&last, &delayed)?;
    channel.send(&Message::Prepared, &[])?;
    match channel.receive()?.0 {
        Message::Go => {}
        other => return Err(WireError::OutOfTurn(other.name()).into()),
    }
    daemon.begin(metrics.take(), &last, &delayed);
    // The old process may have ended without waiting for this message.
    let _ = channel.send(&Message::Running, &[]);
    daemon.control.switch.lock().resume_rest();
    // It hangs up once it has told the service manager which process has the switch.
    channel.allow(FAREWELL);
    if let Ok((Message::Rest(rest), _)) = channel.receive() {
        daemon.control.switch.lock().captures.take_waiting(&rest.captures);
        let _ = channel.receive();
    }
    tracing::info!("taken over");
    Ok(std::mem::ManuallyDrop::into_inner(daemon))
}

impl Switch {
    /// Serves the ports that were taken over.
    pub(in crate::daemon) fn resume_ports(&mut self) {
        let now = Instant::now();
        for way in [Resume::Out, Resume::In] {
            let attached = self.ports.iter_mut().filter_map(|port| port.attached.to_mut());
            attached.for_each(|attachment| attachment.resume(way, now));
            if way == Resume::Out {
                // From here on workers receive from all queues that are not rings of guests.
                if let Err(error) = self.place_queues() {
                    tracing::error!(%error, "not all queues are served");
                }
            }
        }
    }

    /// Has the ports that were taken over do everything for which no frame had to wait.
    fn resume_rest(&mut self) {
        let attached = self.ports.iter_mut().filter_map(|port| port.attached.to_mut());
        attached.for_each(|attachment| attachment.resume(Resume::Rest, Instant::now()));
        self.inlines.own();
        if let Err(error) = self.set_sensors() {
            tracing::error!(%error, "the sensors are not looked after");
        }
    }

    /// Gives a port its attachment; a waiting port is opened later like any other.
    pub(in crate::daemon) fn settle_port(
        &mut self,
        host: &mut Host,
        name: &str,
        state: PortState,
        taken: &mut Taken,
    ) -> Result<(), String> {
        let Switch { ports, fabric, config: switch, opening, .. } = self;
        let port = ports.find_mut(name).ok_or("is not in the configuration that runs")?;
        port.enabled = state.enabled;
        let flap = state.flap.map(|record| Flap::taken_over(name, &record)).transpose();
        port.flap = flap.map_err(|error| error.to_string())?;
        let Some(handover) = state.attached else {
            if let Some(absence) = port.attached.absence_mut() {
                absence.before.pins = state.pins;
            }
            return Ok(());
        };
        let mut site = Site { host, workers: fabric.workers.links(), fdb: fabric.shared.fdb.layout(), switch };
        let kind = attach::of(&port.config.kind);
        let opened = kind.take_over(port.id, &port.config, &mut site, handover, taken);
        port.attach(opened.map_err(|error: OpenError| error.to_string())?, state.pins);
        opening.forget(name);
        Ok(())
    }

    /// Enters an entry of the old process's forwarding database.
    fn remember(&self, record: &FdbRecord) {
        let (Some((vid, mac)), Some(port)) = (record.key(), self.ports.find(&record.port)) else { return };
        let fdb = &self.fabric.shared.fdb;
        if record.is_static {
            // The entry had room in a database of the same size.
            let _ = fdb.add_static(vid, mac, port.id);
        } else {
            fdb.learn(vid, mac, port.id, now_seconds().wrapping_sub(record.age));
        }
    }

    /// Takes in what the old process's multicast snooping knew.
    fn snoop_on(&mut self, record: Option<&MulticastRecord>) -> Result<(), HandoverError> {
        let Some(record) = record else { return Ok(()) };
        let here = record.here(|name| self.ports.find(name).map(|port| port.id));
        self.multicast.go_on(&here).map_err(HandoverError::new)
    }

    /// Has the impairments take over frames that waited; those that find no room are counted.
    fn keep_on(&self, last: &Last, keep_on: impl Fn(&Impaired, &ImpairRecord) -> usize) {
        for (name, record) in &last.impairments {
            let port = self.ports.find(name);
            let Some((port, impaired)) = port.and_then(|port| Some((port, port.impaired.as_ref()?))) else { continue };
            let mut counted = PortSnapshot::ZERO;
            counted.drop_many(DropReason::ImpairMemoryFull, keep_on(impaired, record) as u64);
            port.add_before(&counted);
        }
    }

    /// Takes over the last changes.
    fn complete(&mut self, last: &Last, delayed: &DelayedFrames) -> Result<(), TakeOverError> {
        for (name, record) in &last.impairments {
            if let Some(impaired) = self.ports.find_mut(name).and_then(|port| port.impaired.as_mut()) {
                impaired.go_on(record, delayed)?;
            }
        }
        for (name, record) in &last.gates {
            self.ports.find(name).map_or(Ok(()), |port| port.destination.go_on(record, delayed))?;
        }
        self.injections.go_on(&last.replays, delayed)?;
        self.inlines.go_on(&last.sensors, &self.ports);
        self.follow_sensors();
        self.complete_memory(last.memory.as_ref())?;
        for (name, counted) in &last.kernel_before {
            if let Some(port) = self.ports.find_mut(name) {
                port.kernel_before = *counted;
            }
        }
        self.captures.complete(&last.captures);
        self.snoop_on(last.multicast.as_ref())?;
        let fdb = &self.fabric.shared.fdb;
        for (vid, mac) in &last.forgotten {
            let key = FdbRecord { vid: *vid, mac: *mac, port: String::new(), is_static: false, age: 0 }.key();
            key.map(|(vid, mac)| fdb.remove(vid, mac));
        }
        last.learned.iter().for_each(|record| self.remember(record));
        for (name, counters) in &last.counters {
            let counted: PortSnapshot = counters.snapshot();
            if let Some(port) = self.ports.find(name) {
                port.add_before(&counted);
            }
        }
        for (name, frames) in &last.backlogs {
            let frames = frames.iter().filter_map(KeptFrame::bytes);
            let lost = self.ports.get(name).map_or(0, |port| port.destination.keep_on(frames));
            if lost > 0 {
                tracing::warn!(port = name, lost, "copies that waited for room were not taken over");
            }
        }
        for (name, counters) in &last.mirrors {
            let slot = self.mirrors.get(name).ok().and_then(|mirror| self.fabric.shared.mirrors.get(mirror.id.index()));
            if let Some(slot) = slot {
                slot.add_before(&counters.snapshot());
            }
        }
        Ok(())
    }

    /// Takes over who has which chunk of packet memory.
    fn complete_memory(&mut self, record: Option<&PoolRecord>) -> Result<(), TakeOverError> {
        let Some(memory) = self.memory.get().cloned() else { return Ok(()) };
        let attached = self.ports.iter_mut().filter_map(|port| port.attached.to_mut());
        let owners: Vec<u16> = attached.filter_map(|attachment| Some(attachment.sockets()?.owner())).collect();
        let state = record.and_then(PoolRecord::state);
        let state = state.ok_or_else(|| HandoverError::new("who has which packet memory is missing"))?;
        Ok(memory.resume(&state, &owners)?)
    }
}
