//! The two traits that a type of port implements, and the values passed when a port is opened and closed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use labsw_dataplane::fast_path::Wires;
use labsw_dataplane::handover::{Given, Resume, Taken};
use labsw_dataplane::port::{Fault, RxQueue, TxPort};
use labsw_dataplane::sys::socket::SocketAccess;
use labsw_dataplane::workers::{Links as WorkerLinks, QueueAffinity};
use labsw_dataplane::xdp::XdpCounters;
use labsw_switch::fdb::Layout;
use labsw_switch::{Mac, PortId};
use mio::Token;

use super::error::{OpenError, not_of_this_type};
use super::news::{Findings, LinkMap, Measured, OnFault, Seen, Trouble};
use super::sockets::Sockets;
use crate::api::{self, PortState};
use crate::config::{DeviceSpec, PortConfig, SwitchConfig};
use crate::daemon::host::{Host, HostWork};
use crate::daemon::queues::Queues;
use crate::device::Links;
use crate::takeover::state::PortHandover;

/// The host, and the parts of the switch that opening a port needs.
pub(in crate::daemon) struct Site<'a> {
    pub(in crate::daemon) host: &'a mut Host,
    pub(in crate::daemon) workers: WorkerLinks,
    /// The layout of the forwarding database.
    pub(in crate::daemon) fdb: Layout,
    pub(in crate::daemon) switch: &'a SwitchConfig,
}

/// The settings of one type of port: they check the machine, and open the port.
pub(in crate::daemon) trait Attachable {
    /// Checks, without touching anything, that a port can be opened on this machine. The error gives the key of the
    /// port's table that is wrong, and the reason. An error that [is an absence](OpenError::is_absence) is no reason to
    /// refuse the port.
    fn preflight(
        &self,
        port: &PortConfig,
        switch: &SwitchConfig,
        links: &mut Links,
    ) -> Result<(), (&'static str, OpenError)>;

    /// Opens a port; the workers do not know it yet. On an error nothing that was opened is left.
    fn open(&self, id: PortId, port: &PortConfig, site: &mut Site<'_>) -> Result<Opened, OpenError>;

    /// Opens a port with the descriptors that another process hands over. That process still serves the port, so
    /// nothing of it is touched until [`Attachment::resume`].
    fn take_over(
        &self,
        _id: PortId,
        _port: &PortConfig,
        _site: &mut Site<'_>,
        _handover: PortHandover,
        _taken: &mut Taken,
    ) -> Result<Opened, OpenError> {
        Err(not_of_this_type())
    }

    /// Fills in the port's settings in a reply.
    fn show(&self, port: &PortConfig, switch: &SwitchConfig, shown: &mut api::Port);

    /// True if the port is opened before others at the start, because its other end waits for it.
    fn opens_first(&self) -> bool {
        false
    }

    /// True if frames between the port and others like it may pass in the kernel.
    fn wants_fast_path(&self) -> bool {
        false
    }

    /// True if the port can have busy polling.
    fn polls_busily(&self) -> bool {
        false
    }

    /// True if the port's frames lie in packet memory and the kernel keeps counters for its sockets.
    fn has_sockets(&self) -> bool {
        false
    }

    /// The device of the host that the port takes, if it takes one.
    fn device(&self) -> Option<&DeviceSpec> {
        None
    }
}

/// The guest's socket, device, pair or interface that a port is attached to. Only the methods that get the host make
/// requests that may take long; the others return such work ([`HostWork`]).
pub(in crate::daemon) trait Attachment: Send {
    /// Closes the port's halves, which no worker has any more. Then restores everything as it was before, or removes
    /// what was made for the port.
    fn close(self: Box<Self>, halves: Halves, host: &mut Host) -> Result<(), OpenError>;

    /// Closes the halves of a port whose device has gone or can't go on. Returns the part of the attachment that has to
    /// stay while the port waits.
    fn lose(self: Box<Self>, halves: Halves, host: &mut Host) -> (Option<Box<dyn Attachment>>, Result<(), OpenError>);

    /// The state with which another process can go on, with its descriptors put in `given`. `None`: this attachment
    /// can't be handed over.
    fn hand_over<'a>(&'a self, _given: &mut Given<'a>) -> Option<PortHandover> {
        None
    }

    /// The revision of the state that is saved for the recovery from a crash. `None`: a port of this type is opened
    /// anew after a crash.
    fn revision(&self) -> Option<u64> {
        None
    }

    /// Has this called each time before that state changes.
    fn tell_changes(&mut self, _tell: Box<dyn FnMut() + Send>) {}

    /// The process that served the port has died, and may have owed the other end a notification.
    fn notify_once_resumed(&mut self) {}

    /// Begins to serve a port that was taken over, one step of it.
    fn resume(&mut self, _way: Resume, _now: Instant) {}

    /// The state of the port as far as the attachment decides it, and why the port is not up.
    fn state(&self) -> (PortState, Option<String>);

    /// Fills in the present state in a reply.
    fn show(&self, shown: &mut api::Port);

    /// Gives the interfaces of the port another MTU; [`Attachment::has_mtu`] follows.
    fn set_mtu(&self, mtu: u32) -> HostWork<Result<(), OpenError>>;

    /// The interfaces of the port have another MTU.
    fn has_mtu(&mut self, mtu: u32);

    /// True if the port's sockets take frames of this MTU; otherwise the port has to be reopened.
    fn takes_mtu(&self, _mtu: u32) -> bool {
        true
    }

    /// Handles a fault that a worker found at the port.
    fn fault(&mut self, fault: &Fault, now: Instant) -> OnFault;

    /// Forgets the faults of front ends: the next one is served without a wait.
    fn forgive(&mut self, _now: Instant) {}

    /// The links without which the attachment can't go on, by index.
    fn links(&self) -> Vec<u32> {
        self.device().map(|(index, _)| index).into_iter().collect()
    }

    /// Finds out what a list of links does not say about the device, for [`Attachment::look`].
    fn examine(&self, _links: &LinkMap) -> Option<HostWork<Findings>> {
        None
    }

    /// Updates the state that is kept of the device, after links have changed.
    fn look(&mut self, _links: &LinkMap, _findings: Option<Findings>) -> Seen {
        Seen::Here
    }

    /// Measures, once a second, what [`Attachment::judge`] compares; `None` if nothing is judged.
    fn measure(&self) -> Option<HostWork<Measured>> {
        None
    }

    /// Why the device does not serve the port any more, if so. `reached` is how many frames of the device reached the
    /// port, the kernel's drops at the sockets included.
    fn judge(&mut self, _reached: u64, _measured: &Measured) -> Option<Trouble> {
        None
    }

    /// When its device is to be looked at, whatever links do.
    fn look_due(&self) -> Option<Instant> {
        None
    }

    /// True if the device is set up, as far as is known; always true without a device.
    fn link_up(&self) -> bool {
        true
    }

    /// Sets the link at the other end up or down with the port, where that is possible; [`Attachment::shows_enabled`]
    /// follows.
    fn show_enabled(&self, _enabled: bool) -> Option<HostWork<Result<(), OpenError>>> {
        None
    }

    /// The link at the other end was set up or down.
    fn shows_enabled(&mut self, _enabled: bool) {}

    /// True if the port takes frames even while its link is down.
    fn takes_frames_when_down(&self) -> bool {
        false
    }

    /// Checks that the part of the attachment that stayed does not prevent opening the port again.
    fn may_reopen(&self, _host: &mut Host) -> Result<(), OpenError> {
        Ok(())
    }

    /// Index and name of the host's device that the port has.
    fn device(&self) -> Option<(u32, &str)> {
        None
    }

    /// The kernel's counters for the port's sockets since the port was opened.
    fn kernel_counters(&self) -> Option<XdpCounters> {
        None
    }

    /// The address of the container's end, if frames to it may be put into its receive path at once.
    fn station(&self) -> Option<Mac> {
        None
    }

    /// The wires of a container's port whose frames may pass in the kernel.
    fn wires(&self) -> Option<&Wires> {
        None
    }

    /// The port's AF_XDP sockets.
    fn sockets(&mut self) -> Option<&mut Sockets> {
        None
    }

    /// Handles an event on one of the port's descriptors in the event loop.
    fn ready(&mut self, _token: Token, _now: Instant) {}

    /// Does the timed work of the port; returns the time until the next is due.
    fn tick(&mut self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Ends the connection to the other end, before the workers give the port's queues back.
    fn hang_up(&mut self) {}

    /// The path that the port listens on, and the access that the port's own settings give to the socket's file.
    fn listens_on(&self) -> Option<(&Path, OwnAccess)> {
        None
    }
}

/// The access to its socket's file that a port sets itself; the switch's settings fill in the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::daemon) struct OwnAccess {
    /// Permission bits.
    pub(in crate::daemon) mode: Option<u32>,
    /// Owner, as a number.
    pub(in crate::daemon) owner: Option<u32>,
    /// Group, as a number.
    pub(in crate::daemon) group: Option<u32>,
}

impl OwnAccess {
    /// Fills in the mode and group of the switch where the port sets none.
    pub(in crate::daemon) fn or(self, mode: u32, group: Option<u32>) -> SocketAccess {
        SocketAccess { mode: self.mode.unwrap_or(mode), owner: self.owner, group: self.group.or(group) }
    }
}

/// A port that was opened and that the workers do not know yet.
pub(in crate::daemon) struct Opened {
    pub(in crate::daemon) attachment: Box<dyn Attachment>,
    pub(in crate::daemon) tx: Arc<dyn TxPort>,
    pub(in crate::daemon) queues: Queues,
}

impl Opened {
    /// An opened port with these halves; no worker has any of them yet.
    pub(super) fn new<T: RxQueue + 'static>(
        attachment: impl Attachment + 'static,
        tx: Arc<dyn TxPort>,
        rx: Vec<T>,
    ) -> Opened {
        let affinity = QueueAffinity::new(rx.iter().map(|_| 0));
        let rx = rx.into_iter().map(|rx| -> Box<dyn RxQueue> { Box::new(rx) }).collect();
        Opened { attachment: Box::new(attachment), tx, queues: Queues::new(rx, affinity) }
    }
}

/// The halves of a port that no worker has any more. Dropping them closes them.
#[derive(Default)]
pub(in crate::daemon) struct Halves {
    pub(in crate::daemon) tx: Option<Arc<dyn TxPort>>,
    pub(in crate::daemon) rx: Vec<Box<dyn RxQueue>>,
}

impl Halves {
    /// Closes the receive halves first, then the transmit half.
    pub(in crate::daemon) fn close(self) {
        let Halves { tx, rx } = self;
        drop(rx);
        drop(tx);
    }
}
